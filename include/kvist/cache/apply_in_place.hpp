#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/cache/detail/blend_rows.hpp>
#include <kvist/core/plan.hpp>
#include <kvist/view/mutable_rows.hpp>

#include <span>

namespace kvist::inline KVIST_ABI {

/// Carries out a head's plan in the engine's own memory: blends are written to their destinations, then the survivors
/// are packed into rows 0 .. kept-1 in their order; `pos` is packed alike. What pages then hold no row is free_pages'
/// and the engine's business: pages after ceil(kept / page) are empty.
///
/// Rows below `shared_rows` (a prefix that other sequences use) are neither written nor moved. `log_weight` [n] receives
/// the weights that blends state and is packed with the rows; it may be empty where the plan states none.
/// Returns how many rows stay. Fails with, before anything has changed: bad_shape where sizes differ, the plan does not fit the
/// rows (check) or names shared rows, unsupported where it moves entries to other tiers or states weights that have no place.
template <Scalar K, Scalar V>
Result<Index> apply_in_place(const HeadPlan& plan, const MutableRows<K>& keys, const MutableRows<V>& values,
                             std::span<Pos> pos, std::span<float> log_weight = {}, Index shared_rows = 0) {
  const Index n = keys.n;
  if (values.n != n || Index(pos.size()) != n)
    return Error{Errc::bad_shape, "keys, values and positions of a head must be equally many", n,
                 (long long)pos.size()};
  if (Status s = check(plan, n, {shared_rows, 0}); !s) return s.error();
  if (!log_weight.empty() && Index(log_weight.size()) != n)
    return Error{Errc::bad_shape, "the weights of a head's entries must be as many as its rows", n,
                 (long long)log_weight.size()};
  if (!plan.move.empty())
    return Error{Errc::unsupported, "one block of memory has no other tier to move entries to"};
  for (const Self& s : plan.self) {
    if (s.dst < shared_rows)
      return Error{Errc::bad_shape, "a shared row would be written", shared_rows, s.dst};
    if (s.log_weight != 0 && log_weight.empty())
      return Error{Errc::unsupported, "the plan gives entries a weight and there is no array to hold it", n, 0};
  }
  const std::size_t dk = std::size_t(keys.d), dv = std::size_t(values.d);
  detail::blend_rows(
      plan, keys.d, values.d,
      [&](Index i, float* k, float* v) {
        keys.read(i, std::span(k, dk));
        values.read(i, std::span(v, dv));
      },
      [&](Index i, const float* k, const float* v) {
        if (k) keys.write(i, std::span(k, dk));
        if (v) values.write(i, std::span(v, dv));
      });
  if (!log_weight.empty())
    for (const Self& self : plan.self) log_weight[std::size_t(self.dst)] = self.log_weight;
  for (const RowMove& m : pack_moves(plan, n)) {
    keys.copy(m.from, m.to);
    values.copy(m.from, m.to);
    pos[std::size_t(m.to)] = pos[std::size_t(m.from)];
    if (!log_weight.empty()) log_weight[std::size_t(m.to)] = log_weight[std::size_t(m.from)];
  }
  return n - Index(plan.drop.size());
}

}  // namespace kvist::inline KVIST_ABI
