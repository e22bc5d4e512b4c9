#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/methods/info.hpp>
#include <kvist/methods/kvmerger.hpp>
#include <kvist/methods/method.hpp>
#include <kvist/policy/dispose/match/bipartite_chunks.hpp>
#include <kvist/policy/dispose/merge.hpp>
#include <kvist/policy/policy.hpp>
#include <kvist/policy/select/choose_none.hpp>

namespace kvist::inline KVIST_ABI {
namespace methods {

struct ToMeOptions {
  Index chunk = 64;  // published for neither source: chosen here
  float threshold = 0;
  ChosenMass::Kind mass = ChosenMass::Kind::count;
};

/// Once after the prompt: in chunks of the sequence every even entry is matched with the odd one whose key is most like it,
/// and the likest pairs become their mean over tokens, which weighs as many.
///
/// ToMe merges tokens of images; on a KV cache, in chunks, this is the scheme of Chelsea (CentroidKV), of which only a
/// summary was at hand: chunk size, how many of each chunk, and whether entries weigh by their count are chosen here. Keys
/// are averaged as they are rotated, positions up to a chunk apart: fast channels cancel.
/// Source: Bolya et al. 2023, arXiv 2210.09461, facebookresearch/ToMe, tome/merge.py; chunks: arXiv 2506.11418.
struct ToMe {
  static constexpr MethodInfo info{
      "ToMe",
      "Token Merging: Your ViT But Faster (bipartite soft matching, on keys in chunks)",
      "Bolya et al. 2023, arXiv 2210.09461; chunks: arXiv 2506.11418",
      "ChooseNone + Merge (BipartiteChunks, CountMean, NewCentroid, LogCount) + AfterPrefill",
      "nothing",
      "drops, blends",
      Fidelity::simplified,
      "for KV caches as summaries of arXiv 2506.11418 describe it; chunk size and shares are chosen here"};
  using Options = ToMeOptions;
  using Type = Policy<ChooseNone, Merge<BipartiteChunks, Always, CountMean, NewCentroid, ChosenMass>>;
  template <class V>
  static void fields(V& v, Options& o) {
    v("chunk", o.chunk, "rows inside which entries are matched");
    v("threshold", o.threshold, "cosine above which pairs are merged, once; 0: as many as the budget asks");
    v("mass", o.mass, "what a merged entry weighs: none (as one), count (log n)");
  }
  static Result<Type> make(const Options& o) {
    if (o.chunk < 2 || o.chunk > BipartiteChunks::most_chunk)
      return Error{Errc::bad_option, "a chunk holds 2 to 65536 rows",
                   o.chunk < 2 ? 2 : BipartiteChunks::most_chunk, o.chunk};
    if (o.threshold < -1 || o.threshold > 1)
      return Error{Errc::bad_option, "threshold is a cosine, -1 to 1 (0: by the budget)", 1,
                   (long long)o.threshold};
    return Type(ChooseNone{}, Merge<BipartiteChunks, Always, CountMean, NewCentroid, ChosenMass>{
                                  {o.chunk, o.threshold, o.threshold == 0}, {}, {}, {}, ChosenMass{o.mass}});
  }
};

}  // namespace methods
}  // namespace kvist::inline KVIST_ABI
