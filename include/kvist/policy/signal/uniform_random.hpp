#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>
#include <kvist/core/random.hpp>

namespace kvist::inline KVIST_ABI {

/// Gives every entry a uniform random score when it is made, one stream for each (layer, KV head): the lower anchor of
/// comparisons. An entry keeps its draw, so repeated evictions leave a uniform sample of what was seen.
/// Source: the generator is splitmix64 (core/random.hpp), so that every platform draws the same.
///
/// Needs: nothing. State: one float an entry. Cost: n.
struct UniformRandom {
  static constexpr Role role = Role::signal;
  struct Entry {
    float draw = -1;  ///< in [0, 1); -1: not drawn yet
  };
  struct PerHead {
    bool started = false;
    Random stream{0};
  };
  std::uint64_t seed = 1;

  Wants wants() const { return {}; }

  /// For snapshots.
  template <class V, class Record>
  void fields(V& v, Record& r, const Shape&) const {
    if constexpr (requires { r.draw; }) v.block(&r.draw, 1);
    else v.number(r.started, false, true), v.block(&r.stream, 1);
  }

  template <Head H>
  Status observe(const HeadContext<H>& c, std::span<Entry> entries, PerHead& head) const {
    if (!head.started) {
      head.stream = Random(mix_seed(mix_seed(seed, std::uint64_t(c.layer)), std::uint64_t(c.index)));
      head.started = true;
    }
    for (Entry& e : entries)
      if (e.draw < 0) e.draw = float(double(head.stream.next() >> 40) * 0x1p-24);
    return Done{};
  }

  template <Head H>
  Status score(const HeadContext<H>&, std::span<const Entry> entries, const PerHead&,
               std::span<float> out) const {
    for (std::size_t i = 0; i < entries.size(); ++i) out[i] = entries[i].draw;
    return Done{};
  }
};
static_assert(Signal<UniformRandom>);

}  // namespace kvist::inline KVIST_ABI
