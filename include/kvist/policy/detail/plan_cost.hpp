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

/// Entries and bytes of a head of n entries of `each` bytes, before and after the plan.
inline void state_sizes(Index n, const HeadPlan& plan, std::size_t each, HeadCost& c) {
  c.before = n;
  c.after = n - Index(plan.drop.size());
  c.bytes_before = std::size_t(c.before) * each;
  c.bytes_after = std::size_t(c.after) * each;
}

/// What giving up the rows `drop` costs on the queries seen, o being a query's attention output before and o' after:
/// `mass`, the mean over queries and group of the probability m on those rows, and `bound`, at least |o - o'|_2 of every
/// query. With a_i = p_i |v_i| summed over the dropped (D) and the kept rows (K), o - o' = sum_dropped p_i v_i - m o' and
/// |o'| <= K / (1 - m), so that |o - o'| <= D + m K / (1 - m): never more than m (max dropped |v| + max kept |v|).
/// Exact as soon as both triangle inequalities are. Unknown (NaN) where the evidence shows no queries.
template <Head H>
Status measure_loss(const HeadContext<H>& c, const std::vector<Index>& drop, HeadCost& cost) {
  cost.mass = cost.bound = drop.empty() ? 0 : HeadCost::unknown;
  const Index w = window_size(c, loss_wants.last_queries), n = c.size();
  if (drop.empty() || w == 0) return Done{};
  auto norms = c.scratch.floats(std::size_t(n));
  c.head.values.for_each_run([&](auto run, Index first) { kernels::norms(run, norms.data() + first); });
  double longest = 0;  // of the rows that stay
  std::size_t d = 0;
  for (Index i = 0; i < n; ++i) {
    if (d < drop.size() && drop[d] == i) ++d;
    else longest = std::max(longest, double(norms[std::size_t(i)]));
  }
  auto row = c.scratch.floats(std::size_t(n));
  const int group = c.seen.probs ? c.seen.probs.g : c.seen.queries.g;
  double sum = 0, largest = 0;
  for (int g = 0; g < group; ++g) {
    for (Index i = 0; i < w; ++i) {
      window_row(c, g, w, i, row);
      double all = 0, kept = 0, kept_sum = 0, dropped = 0, dropped_sum = 0;
      for (Index j = 0; j < n; ++j) {
        all += double(row[std::size_t(j)]);
        kept_sum += double(row[std::size_t(j)]) * double(norms[std::size_t(j)]);
      }
      for (const Index j : drop) {
        dropped += double(row[std::size_t(j)]);
        dropped_sum += double(row[std::size_t(j)]) * double(norms[std::size_t(j)]);
      }
      kept_sum = std::max(0.0, kept_sum - dropped_sum);
      kept = all - dropped;
      // Where hardly any mass stays, rounding decides what the rest is made of: its longest value bounds it.
      const double after = kept > 1e-4 ? std::min(kept_sum / kept, longest) : longest;
      sum += dropped;
      const double bound = dropped_sum + dropped * after;
      largest = std::isnan(bound) ? bound : std::max(largest, bound);
      if (std::isnan(largest)) break;
    }
  }
  cost.mass = float(sum / (double(group) * w));
  cost.bound = float(largest * (1 + 1e-4) + 1e-6 * longest);  // rounding of probabilities and sums in f32
  return Done{};
}

}  // namespace detail
}  // namespace kvist::inline KVIST_ABI
