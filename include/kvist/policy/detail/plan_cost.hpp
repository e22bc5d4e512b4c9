#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>
#include <kvist/policy/detail/window_rows.hpp>

#include <algorithm>
#include <cmath>

namespace kvist::inline KVIST_ABI {
namespace detail {

/// Evidence that loss accounting adds to what the signal wants.
inline constexpr Wants loss_wants{Needs::rows, Needs::rows, 32};

/// Does the evidence of one head show what is wanted, in arrays that fit the head?
inline Status check_evidence(const Evidence& e, Needs want, const Shape& shape, Index n) {
  if (!covers(e.have(), want))
    return Error{Errc::missing_evidence,
                 "the engine gave less evidence than wants() asks for (probs 1, queries 2, column sums 4, "
                 "largest queries 8, rows of either kind 16)",
                 (long long)want, (long long)e.have()};
  for (const Cube* c : {&e.probs, &e.queries, &e.column_sums, &e.max_query}) {
    if (*c && c->g != shape.group())
      return Error{Errc::bad_shape, "evidence must hold one row for each query head of the group",
                   shape.group(), c->g};
  }
  if ((e.probs && e.probs.n != n) || (e.column_sums && e.column_sums.n != n))
    return Error{Errc::bad_shape, "probabilities must cover all entries of the head", n,
                 e.probs ? e.probs.n : e.column_sums.n};
  if ((e.queries && e.queries.n != shape.dim_k) || (e.max_query && e.max_query.n != shape.dim_k))
    return Error{Errc::bad_shape, "queries must have the keys' dimension", shape.dim_k,
                 e.queries ? e.queries.n : e.max_query.n};
  if (e.column_sums && Index(e.seen_by.size()) != n)
    return Error{Errc::bad_shape, "column sums come with the number of queries that could see each entry", n,
                 (long long)e.seen_by.size()};
  return Done{};
}

/// Bytes of one entry as a row view stores it; what a reader expands counts as f32.
template <RowView R>
std::size_t row_bytes(const R& rows) {
  if constexpr (std::same_as<R, AnyRows>)
    return std::visit([](const auto& r) { return row_bytes(r); }, rows.kind());
  else return std::size_t(rows.dim()) * sizeof(typename R::value_type);
}

template <Head H>
HeadCost sizes(const H& head, const HeadPlan& plan) {
  const std::size_t each = row_bytes(head.keys) + row_bytes(head.values);
  HeadCost c;
  c.before = head.size();
  c.after = head.size() - Index(plan.drop.size());
  c.bytes_before = std::size_t(c.before) * each;
  c.bytes_after = std::size_t(c.after) * each;
  return c;
}

/// What giving up the rows `drop` costs on the queries seen: `mass`, the mean over queries and group of their probability,
/// and `bound` = the largest over queries of mass * (max over dropped |v| + max over kept |v|), which is at least
/// |o - o'|_2, since o - o' = mass * (mean of dropped values - o') and |o'| <= max over kept |v|.
/// A blend of values only changes what the dropped mass is replaced by; where the disposition blends, `bound` still
/// covers it as long as its weights are convex. Unknown (NaN) where the evidence shows no queries.
template <Head H>
Status measure_loss(const HeadContext<H>& c, const std::vector<Index>& drop, HeadCost& cost) {
  cost.mass = cost.bound = HeadCost::unknown;
  const Index w = window_size(c, loss_wants.last_queries), n = c.size();
  if (w == 0) return Done{};
  auto norms = c.scratch.floats(std::size_t(n));
  c.head.values.for_each_run([&](auto run, Index first) { kernels::norms(run, norms.data() + first); });
  float dropped = 0, kept = 0;
  std::size_t d = 0;
  for (Index i = 0; i < n; ++i) {
    const bool gone = d < drop.size() && drop[d] == i;
    d += gone;
    (gone ? dropped : kept) = std::max(gone ? dropped : kept, norms[std::size_t(i)]);
  }
  auto row = c.scratch.floats(std::size_t(n));
  const int group = c.seen.probs ? c.seen.probs.g : c.seen.queries.g;
  double sum = 0, largest = 0;
  for (int g = 0; g < group; ++g) {
    for (Index i = 0; i < w; ++i) {
      window_row(c, g, w, i, row);
      double mass = 0;
      for (const Index j : drop) mass += double(row[std::size_t(j)]);
      sum += mass;
      largest = std::max(largest, mass);
    }
  }
  cost.mass = float(sum / (double(group) * w));
  cost.bound =
      float(largest * (double(dropped) + double(kept)) * (1 + 1e-5) + 1e-12);  // rounding of the probabilities
  return Done{};
}

}  // namespace detail
}  // namespace kvist::inline KVIST_ABI
