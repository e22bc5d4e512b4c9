// SPDX-License-Identifier: Apache-2.0
// How do I try a signal of my own against the published methods?
//
// Write the signal, name a method that uses it, and hand the program to kvist-eval: it measures yours as it measures the
// others. Without arguments a small comparison on the bundled model; else the words of any kvist-eval command:
//   example_05_your_own_signal run --model smollm2 --task fidelity,facts8 --policy Mine:sinks=8 --policy H2O --budget 20%
#include <eval/tool.hpp>
#include <kvist/kernels/rows.hpp>
#include <kvist/methods/registry.hpp>
#include <kvist/policy/policy.hpp>

#include <cstdio>
#include <iterator>
#include <sstream>

/// The idea: an entry matters if it is attended to and its value is long. Mean attention that it has received, times |v|.
struct ValueWeightedAttention {
  static constexpr kvist::Role role = kvist::Role::signal;
  struct Entry {  // travels with each entry through every eviction
    float sum = 0, queries = 0;
  };
  using PerHead = kvist::Nothing;

  /// What the engine is asked for: sums over the prompt's queries, probabilities of each step.
  kvist::Wants wants() const { return {kvist::Needs::column_sums, kvist::Needs::probs, 0}; }

  template <kvist::Head H>
  kvist::Status observe(const kvist::HeadContext<H>& c, std::span<Entry> entries, PerHead&) const {
    const bool prompt = c.now.phase == kvist::Phase::prefill;
    const kvist::Cube& attention = prompt ? c.seen.column_sums : c.seen.probs;
    for (std::size_t i = 0; i < entries.size(); ++i) {
      for (int g = 0; g < attention.g; ++g) entries[i].sum += attention.row(g, 0)[i];
      entries[i].queries += prompt ? c.seen.seen_by[i] : 1.0f;
    }
    return kvist::Done{};
  }

  template <kvist::Head H>
  kvist::Status score(const kvist::HeadContext<H>& c, std::span<const Entry> entries, const PerHead&,
                      std::span<float> out) const {
    c.head.values.for_each_run(
        [&](auto run, kvist::Index first) { kvist::kernels::norms(run, out.data() + first); });
    for (std::size_t i = 0; i < out.size(); ++i)
      out[i] *= entries[i].sum / std::max(entries[i].queries, 1.0f);
    return kvist::Done{};
  }
};
static_assert(kvist::Signal<ValueWeightedAttention>);

struct MineOptions {
  int sinks = 4, recent = 32;  // the first values are short: without a guard the sinks would go
};

/// The method: which other parts it works with, and what a SPEC may say of it.
struct Mine {
  static constexpr kvist::methods::MethodInfo info{
      .name = "Mine",
      .title = "Attention received, weighed by the length of the value",
      .parts = "ValueWeightedAttention + KeepEnds + TopK",
      .makes = "drops"};
  using Options = MineOptions;
  using Type = kvist::Policy<ValueWeightedAttention, kvist::KeepEnds, kvist::EveryStep>;
  template <class V>
  static void fields(V& v, Options& o) {
    v("sinks", o.sinks, "first entries that stay");
    v("recent", o.recent, "newest entries that stay");
  }
  static kvist::Result<Type> make(const Options& o) { return Type(kvist::KeepEnds{o.sinks, o.recent}); }
};

int main(int argc, char** argv) {
  if (const auto added = kvist::methods::add_method<Mine>(); !added) return std::puts(added.error().what), 1;
  std::vector<std::string> words(argv + 1, argv + argc);
  std::istringstream small(
      "run --model tiny --samples 2 --context 256 --task fidelity --budget 25% --policy Mine "
      "--policy H2O --policy SnapKV:window=16 --policy random --policy oracle");
  if (words.empty()) words.assign(std::istream_iterator<std::string>(small), {});
  return kvist_eval::tool(words);
}
