#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/methods/info.hpp>
#include <kvist/methods/options.hpp>
#include <kvist/methods/store_factory.hpp>
#include <kvist/storage/share/pairs.hpp>
#include <kvist/storage/store/dense.hpp>
#include <kvist/storage/store/shared_direction.hpp>

#include <array>
#include <utility>

namespace kvist::inline KVIST_ABI {
namespace methods {

template <>
struct EnumNames<SharedDirectionOptions::Retain> {
  static constexpr std::array<const char*, 2> names{"count", "range"};
};

struct MiniCacheOptions {
  int start = -1;       // half of the layers
  double t = 0.6;       // a published ablation; third parties: 0.5 and 0.6
  double gamma = 0.05;  // likewise
  SharedDirectionOptions::Retain retain = SharedDirectionOptions::Retain::count;
};

/// Layers of the deeper half share their storage two by two: for each token and head one direction of keys and one of values,
/// with each layer's norms; the rows whose layers differ most are kept as they are. Nothing is dropped, so that it goes with
/// any policy, and with any store for the directions: `MiniCache+KIVI:bits=4`.
///
/// t weighs the upper layer. Retained are the ceil(gamma n) rows of a call that are furthest apart (retain=count, as
/// Zefan-Cai/KVCache-Factory does it, and what the stated bytes follow from), or those further apart than
/// D_max - gamma (D_max - D_min) (retain=range, as the paper is described), for each head, keys and values apart; in decode
/// those that the prompt's limit would have retained. abdelfattah-lab/xKV retains the nearest rows instead, the other way
/// round. KVCache-Factory cuts cosines at 1 - 1e-6, which makes equal rows 1.4e-3 rad apart; not done here. Layers 0 to
/// start-1, and one left over at the end, are stored by themselves. What the paper says of its inequality and its settings
/// was not at hand. Norms and retained rows are f32 over f32 directions, else f16.
///
/// With a policy that evicts, a cache may take more than its layers would by themselves: a direction stays while one of the two
/// layers needs it, as the other's choice cannot take it away, and one that the policy writes (merging) becomes a retained row of
/// both layers beside its direction, as that cannot hold what only one of them was given. Policies whose layers agree
/// (StreamingLLM) share fully.
/// Source: Liu et al. 2024, arXiv 2405.14366 (no official code of the algorithm).
struct MiniCache {
  static constexpr MethodInfo info{
      "MiniCache",
      "MiniCache: KV Cache Compression in Depth Dimension for Large Language Models",
      "Liu et al. 2024, arXiv 2405.14366",
      "Pairs + SharedDirectionStore over any store",
      "nothing",
      "a store",
      Fidelity::adapted,
      "from published descriptions, as no code of the algorithm exists; rows are retained by count"};
  using Options = MiniCacheOptions;
  template <class V>
  static void fields(V& v, Options& o) {
    v("start", o.start, "first layer that shares; -1: half of the depth");
    v("t", o.t, "weight of the upper layer's direction, 0 to 1");
    v("gamma", o.gamma, "share of the rows that are kept as they are");
    v("retain", o.retain, "by count, or by range of the distances (gamma of it)");
  }
  static Status validate(const Options& o) {
    if (!(o.t >= 0 && o.t <= 1)) return Error{Errc::bad_option, "t is a weight, 0 to 1", 1, (long long)o.t};
    if (!(o.gamma >= 0 && o.gamma <= 1))
      return Error{Errc::bad_option, "gamma is a share, 0 to 1", 1, (long long)o.gamma};
    if (o.start < -1)
      return Error{Errc::bad_option, "start counts layers (-1: half of the depth)", -1, o.start};
    return Done{};
  }
  /// Stores of pairs of layers over those of `inner` (none: exact f32 rows); `exact`: inner holds f32.
  static StoreFactory wrap(const Options& o, StoreFactory inner, bool exact) {
    if (!inner) {
      exact = true;
      inner = [](const Shape& s, int, int) -> Result<std::vector<AnyStore>> {
        std::vector<AnyStore> one;
        one.emplace_back(DenseStore<float>(s.dim_k, s.dim_v));
        return one;
      };
    }
    return [o, inner = std::move(inner), exact](const Shape& s, int layer,
                                                int head) -> Result<std::vector<AnyStore>> {
      const Pairs pairs{o.start};
      if (Status ok = pairs.validate(s.layers); !ok) return ok.error();
      const Pairs::Place place = pairs.place(layer, s.layers);
      if (exact) return port<float>(o, inner, place, s, layer, head);
      return port<f16>(o, inner, place, s, layer, head);
    };
  }

 private:
  template <Scalar T>
  static Result<std::vector<AnyStore>> port(const Options& o, const StoreFactory& inner, Pairs::Place place,
                                            const Shape& s, int layer, int head) {
    std::vector<AnyStore> one;
    if (place == Pairs::Place::upper) {
      one.emplace_back(SharedDirectionStore<T>(s.dim_k, s.dim_v));
      return one;
    }
    auto stores = inner(s, layer, head);
    if (!stores) return stores.error();
    if (stores->size() != 1)
      return Error{Errc::unsupported, "layers share one store of a head; this method brings several tiers", 1,
                   (long long)stores->size()};
    if (place == Pairs::Place::alone) return stores;
    one.emplace_back(
        SharedDirectionStore<T>(std::move(stores->front()), s.dim_k, s.dim_v, {o.t, o.gamma, o.retain}));
    return one;
  }
};

}  // namespace methods
}  // namespace kvist::inline KVIST_ABI
