#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/attention/range.hpp>
#include <kvist/core/concepts.hpp>
#include <kvist/policy/detail/window_rows.hpp>

#include <algorithm>
#include <cmath>

namespace kvist::inline KVIST_ABI {
namespace detail {

/// Evidence that loss accounting adds to what the signal wants.
inline constexpr Wants loss_wants{Needs::rows, Needs::rows, 32};

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
  c.moved = Index(plan.move.size());
  c.after = n - Index(plan.drop.size()) - c.moved;
  c.bytes_before = std::size_t(c.before) * each;
  if (c.moved == 0) c.bytes_after = std::size_t(c.after) * each;
  else c.bytes_after.reset();
}

/// The entries that a plan changes, with their rows as they are and as they will be.
struct Blended {
  std::vector<Index> rows;                              ///< ascending: sources and destinations
  std::vector<float> keys, values;                      ///< [rows, d] as they are
  std::vector<std::size_t> at;                          ///< [self] place of each destination in `rows`
  std::vector<double> new_keys, new_values, new_norms;  ///< [self, d] and [self]
  std::vector<double> key_sum;                          ///< [self] sum of the key weights

  template <Head H>
  Blended(const HeadContext<H>& c, const HeadPlan& plan) {
    for (const Blend& b : plan.blend) rows.push_back(b.src);
    for (const Self& s : plan.self) rows.push_back(s.dst);
    std::sort(rows.begin(), rows.end());
    rows.erase(std::unique(rows.begin(), rows.end()), rows.end());
    const std::size_t dk = std::size_t(c.shape.dim_k), dv = std::size_t(c.shape.dim_v), m = plan.self.size();
    keys.resize(rows.size() * dk), values.resize(rows.size() * dv);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const auto read = [&](const auto& view, float* out) {
        for_each_run_in(view, rows[i], 1, [&](auto run, Index) { kernels::to_f32(run, out); });
      };
      read(c.head.keys, keys.data() + i * dk);
      read(c.head.values, values.data() + i * dv);
    }
    new_keys.assign(m * dk, 0.0), new_values.assign(m * dv, 0.0), key_sum.assign(m, 0.0),
        new_norms.assign(m, 0.0);
    const auto add = [&](std::size_t s, std::size_t i, double wk, double wv) {
      for (std::size_t k = 0; k < dk; ++k) new_keys[s * dk + k] += wk * double(keys[i * dk + k]);
      for (std::size_t k = 0; k < dv; ++k) new_values[s * dv + k] += wv * double(values[i * dv + k]);
      key_sum[s] += wk;
    };
    for (std::size_t s = 0; s < m; ++s) {
      at.push_back(place(plan.self[s].dst));
      add(s, at[s], double(plan.self[s].wk), double(plan.self[s].wv));
    }
    for (const Blend& b : plan.blend) {
      const auto self = std::lower_bound(plan.self.begin(), plan.self.end(), b.dst,
                                         [](const Self& x, Index dst) { return x.dst < dst; });
      add(std::size_t(self - plan.self.begin()), place(b.src), double(b.wk), double(b.wv));
    }
    for (std::size_t s = 0; s < m; ++s) {
      double squares = 0;
      for (std::size_t k = 0; k < dv; ++k) squares += new_values[s * dv + k] * new_values[s * dv + k];
      new_norms[s] = std::sqrt(squares);
    }
  }
  std::size_t place(Index row) const {
    return std::size_t(std::lower_bound(rows.begin(), rows.end(), row) - rows.begin());
  }
};

/// What a plan costs on the queries seen, o being a query's attention output before and o' after: `mass`, the mean over
/// queries and group of the probability on the rows that go and are folded into none, and `bound`, at least |o - o'|_2 of
/// every query.
///
/// In units of the old softmax sum, with p the old probabilities, e and v' the new weights and values of the entries that a
/// blend writes, U the entries that stay as they are, S those that a blend writes or reads, D the others that go:
///   Z' = sum_U p + sum e                  |o'| <= K' / Z',  K' = sum_U p |v| + sum e |v'|
///   o - o' = [sum_S p v - sum e v'] + sum_D p v + (Z' - 1) o'
/// so that |o - o'| <= |sum_S p v - sum e v'| + sum_D p |v| + |Z' - 1| K' / Z'. The first term is computed as a vector: a
/// merge of equal rows with its weight costs nothing. Without blends this is D + m K / (1 - m), m being the mass of D.
///
/// e comes from the blended key where queries are at hand, else from the members' probabilities, which show it where the key
/// weights add up to 1. Queries that could not see all of S are left out. Unknown (NaN) where no query is left, or e is not
/// known.
template <Head H>
Status measure_loss(const HeadContext<H>& c, const HeadPlan& plan, HeadCost& cost) {
  const std::vector<Index>& drop = plan.drop;
  const bool nothing = drop.empty() && plan.self.empty();
  cost.mass = cost.bound = nothing ? 0 : HeadCost::unknown;
  const Index w = window_size(c, loss_wants.last_queries), n = c.size();
  if (nothing || w == 0) return Done{};
  auto norms = c.scratch.floats(std::size_t(n));
  c.head.values.for_each_run([&](auto run, Index first) { kernels::norms(run, norms.data() + first); });
  const Blended blended(c, plan);
  const std::size_t dk = std::size_t(c.shape.dim_k), dv = std::size_t(c.shape.dim_v), m = plan.self.size();
  std::vector<char> kind(std::size_t(n), 'u');  // u: stays as it is, d: goes, s: blended
  for (const Index i : drop) kind[std::size_t(i)] = 'd';
  for (const Index i : blended.rows) kind[std::size_t(i)] = 's';
  double longest = 0;  // of the rows that stay
  for (Index i = 0; i < n; ++i)
    if (kind[std::size_t(i)] == 'u') longest = std::max(longest, double(norms[std::size_t(i)]));
  for (const double x : blended.new_norms) longest = std::max(longest, x);
  Pos newest = std::numeric_limits<Pos>::min();
  for (const Index i : blended.rows) newest = std::max(newest, c.head.pos[std::size_t(i)]);
  const auto weights = log_weight_of(c.head);
  const auto bias = [&](Index i) { return weights.empty() ? 0.0 : double(weights[std::size_t(i)]); };
  const double scale = 1 / std::sqrt(double(dk));

  auto row = c.scratch.floats(std::size_t(n));
  std::vector<double> change(dv), e(m);
  std::vector<float> top_key(dk);
  const int group = c.seen.probs ? c.seen.probs.g : c.seen.queries.g;
  double sum = 0, largest = 0;
  Index counted = 0;
  for (int g = 0; g < group; ++g) {
    for (Index i = 0; i < w; ++i) {
      const Index shown = c.seen.probs ? c.seen.probs.w : c.seen.queries.w;
      if (m > 0 && c.seen.first_query + (shown - w + i) < newest) continue;
      ++counted;
      window_row(c, g, w, i, row);
      double gone = 0, gone_sum = 0, stay = 0, stay_sum = 0;
      for (Index j = 0; j < n; ++j) {
        const double p = double(row[std::size_t(j)]), a = p * double(norms[std::size_t(j)]);
        if (kind[std::size_t(j)] == 'd') gone += p, gone_sum += a;
        else if (kind[std::size_t(j)] == 'u') stay += p, stay_sum += a;
      }
      std::fill(change.begin(), change.end(), 0.0);
      for (std::size_t s = 0; s < blended.rows.size(); ++s) {
        const double p = double(row[std::size_t(blended.rows[s])]);
        for (std::size_t k = 0; k < dv; ++k) change[k] += p * double(blended.values[s * dv + k]);
      }
      if (m > 0 && c.seen.queries) {
        // log of the old sum, from the entry with the largest probability
        const Index top = Index(std::max_element(row.begin(), row.end()) - row.begin());
        for_each_run_in(c.head.keys, top, 1, [&](auto run, Index) { kernels::to_f32(run, top_key.data()); });
        const auto q = c.seen.queries.row(g, c.seen.queries.w - w + i);
        double z = 0;
        for (std::size_t k = 0; k < dk; ++k) z += double(q[k]) * double(top_key[k]);
        const double log_sum = scale * z + bias(top) - std::log(double(row[std::size_t(top)]));
        for (std::size_t s = 0; s < m; ++s) {
          double merged = 0;
          for (std::size_t k = 0; k < dk; ++k) merged += double(q[k]) * blended.new_keys[s * dk + k];
          e[s] = std::exp(scale * merged + double(plan.self[s].log_weight) - log_sum);
        }
      } else if (m > 0) {
        const auto logit = [&](Index j) { return std::log(double(row[std::size_t(j)])) - bias(j); };
        for (std::size_t s = 0; s < m; ++s) {
          e[s] = std::abs(blended.key_sum[s] - 1) > 1e-4 ? std::nan("") : double(plan.self[s].log_weight);
          if (plan.self[s].wk != 0) e[s] += double(plan.self[s].wk) * logit(plan.self[s].dst);
        }
        for (const Blend& b : plan.blend)
          if (b.wk != 0)
            e[std::size_t(std::lower_bound(plan.self.begin(), plan.self.end(), b.dst,
                                           [](const Self& x, Index dst) { return x.dst < dst; }) -
                          plan.self.begin())] += double(b.wk) * logit(b.src);
        for (double& x : e) x = std::exp(x);
      }
      for (std::size_t s = 0; s < m; ++s) {
        stay += e[s];
        stay_sum += e[s] * blended.new_norms[s];
        for (std::size_t k = 0; k < dv; ++k) change[k] -= e[s] * blended.new_values[s * dv + k];
      }
      double squares = 0;
      for (const double x : change) squares += x * x;
      // Where hardly any mass stays, rounding decides what the rest is made of: its longest value bounds it.
      const double after = stay > 1e-4 ? std::min(stay_sum / stay, longest) : longest;
      sum += gone;
      const double bound = std::sqrt(squares) + gone_sum + std::abs(m > 0 ? stay - 1 : gone) * after +
                           (m > 0 ? 2e-5 * stay_sum : 0.0);  // rounding of the new weights
      largest = std::isnan(bound) ? bound : std::max(largest, bound);
      if (std::isnan(largest)) break;
    }
  }
  if (counted == 0) return Done{};
  cost.mass = float(sum / counted);
  cost.bound = float(largest * (1 + 1e-4) + 1e-6 * longest);  // rounding of probabilities and sums in f32
  return Done{};
}

}  // namespace detail
}  // namespace kvist::inline KVIST_ABI
