#pragma once
// SPDX-License-Identifier: Apache-2.0
// A layer of a few heads in plain vectors, with evidence from literal probability rows or from queries: what tests of
// policies drive.
#include <kvist/core/concepts.hpp>
#include <kvist/core/random.hpp>
#include <kvist/policy/policy.hpp>

#include <cmath>
#include <stdexcept>
#include <vector>

namespace kvist::test {

using Row = std::vector<float>;

/// Keys, values and positions of one layer, and the evidence of the next call. Rows leave when a plan is applied.
struct SmallLayer {
  Shape shape;
  std::vector<std::vector<float>> k, v;  // [kv_heads][n * d]
  std::vector<std::vector<Pos>> pos;
  std::vector<AnyHead> heads;
  std::vector<Evidence> seen;
  // what the evidence points to, [kv_heads]
  std::vector<std::vector<float>> probs, queries, sums, seen_by, max_query;

  explicit SmallLayer(Shape s) : shape(s), k(std::size_t(s.kv_heads)), v(k), pos(k.size()) {
    probs = queries = sums = seen_by = max_query = k;
    seen.resize(k.size());
  }
  /// One KV head with `group` query heads and d channels.
  static SmallLayer one_head(int group = 1, int d = 2) { return SmallLayer(Shape{1, group, 1, d, d}); }

  Index size(int h = 0) const { return Index(pos[std::size_t(h)].size()); }

  void append(int h, const Row& key, const Row& value, Pos p) {
    k[std::size_t(h)].insert(k[std::size_t(h)].end(), key.begin(), key.end());
    v[std::size_t(h)].insert(v[std::size_t(h)].end(), value.begin(), value.end());
    pos[std::size_t(h)].push_back(p);
  }
  /// n entries of zeros in every head, at positions that go on.
  void append_blank(Index n) {
    for (int h = 0; h < shape.kv_heads; ++h)
      for (Index i = 0; i < n; ++i)
        append(h, Row(std::size_t(shape.dim_k)), Row(std::size_t(shape.dim_v)),
               pos[std::size_t(h)].empty() ? 0 : pos[std::size_t(h)].back() + 1);
  }
  /// n random entries in every head.
  void append_random(Index n, Random& random) {
    const auto row = [&](int d) {
      Row r;
      for (int c = 0; c < d; ++c) r.push_back(float(2 * random.uniform() - 1));
      return r;
    };
    for (Index i = 0; i < n; ++i)
      for (int h = 0; h < shape.kv_heads; ++h)
        append(h, row(shape.dim_k), row(shape.dim_v),
               pos[std::size_t(h)].empty() ? 0 : pos[std::size_t(h)].back() + 1);
  }

  AnyLayer view() {
    heads.clear();
    for (int h = 0; h < shape.kv_heads; ++h) {
      const std::size_t i = std::size_t(h);
      heads.push_back({rows(k[i].data(), size(h), shape.dim_k), rows(v[i].data(), size(h), shape.dim_v),
                       pos[i], KeyForm::rotated});
    }
    return {heads};
  }

  void forget_evidence() { seen.assign(k.size(), Evidence{}); }

  /// Literal probability rows of the last queries, [G][w][n] of head h (rows shorter than n are padded with 0), as probs.
  void give_probs(int h, const std::vector<std::vector<Row>>& by_query_head) {
    auto& out = probs[std::size_t(h)];
    out.clear();
    for (const auto& head_rows : by_query_head)
      for (Row r : head_rows) {
        r.resize(std::size_t(size(h)));
        out.insert(out.end(), r.begin(), r.end());
      }
    seen[std::size_t(h)].probs =
        cube(out.data(), int(by_query_head.size()), Index(by_query_head[0].size()), size(h));
  }
  /// The same rows as column sums, with the number of queries that saw each entry (row i is the query of entry n - w + i).
  void give_sums(int h, const std::vector<std::vector<Row>>& by_query_head) {
    auto& out = sums[std::size_t(h)];
    auto& by = seen_by[std::size_t(h)];
    const std::size_t n = std::size_t(size(h)), w = by_query_head[0].size();
    out.assign(by_query_head.size() * n, 0.0f);
    by.assign(n, 0.0f);
    for (std::size_t g = 0; g < by_query_head.size(); ++g)
      for (const Row& r : by_query_head[g])
        for (std::size_t i = 0; i < r.size(); ++i) out[g * n + i] += r[i];
    for (std::size_t i = 0; i < n; ++i)
      for (std::size_t q = 0; q < w; ++q) by[i] += i <= n - w + q ? 1.0f : 0.0f;
    seen[std::size_t(h)].column_sums = cube(out.data(), int(by_query_head.size()), 1, Index(n));
    seen[std::size_t(h)].seen_by = by;
  }
  /// Queries [G][w][d] of the newest w entries of head h.
  void give_queries(int h, const std::vector<std::vector<Row>>& by_query_head) {
    auto& out = queries[std::size_t(h)];
    out.clear();
    for (const auto& head_rows : by_query_head)
      for (const Row& r : head_rows) out.insert(out.end(), r.begin(), r.end());
    const Index w = Index(by_query_head[0].size());
    seen[std::size_t(h)].queries = cube(out.data(), int(by_query_head.size()), w, shape.dim_k);
    seen[std::size_t(h)].first_query = pos[std::size_t(h)].back() - w + 1;
  }

  /// Random queries of the newest w entries for every head, and from them all other kinds of evidence, by the formulas in
  /// f64: probabilities of the w queries, their column sums, the largest query per channel.
  void give_random_evidence(Index w, Random& random) {
    for (int h = 0; h < shape.kv_heads; ++h) {
      const std::size_t i = std::size_t(h);
      const Index n = size(h), mine = std::min(w, n);
      const int group = shape.group(), d = shape.dim_k;
      auto& q = queries[i];
      q.clear();
      for (std::ptrdiff_t c = 0; c < std::ptrdiff_t(group) * mine * d; ++c)
        q.push_back(float(4 * random.uniform() - 2));
      probs[i].assign(std::size_t(group) * std::size_t(mine) * std::size_t(n), 0.0f);
      sums[i].assign(std::size_t(group) * std::size_t(n), 0.0f);
      seen_by[i].assign(std::size_t(n), 0.0f);
      max_query[i].assign(std::size_t(group * d), 0.0f);
      for (int g = 0; g < group; ++g)
        for (Index a = 0; a < mine; ++a) {
          const float* const qa = q.data() + (std::ptrdiff_t(g) * mine + a) * d;
          const Index visible = n - mine + a + 1;
          std::vector<double> p(static_cast<std::size_t>(visible));
          double top = -1e300, total = 0;
          for (Index j = 0; j < visible; ++j) {
            double dot = 0;
            for (int c = 0; c < d; ++c) dot += double(qa[c]) * double(k[i][std::size_t(j * d + c)]);
            p[std::size_t(j)] = dot / std::sqrt(double(d));
            top = std::max(top, p[std::size_t(j)]);
          }
          for (double& x : p) total += x = std::exp(x - top);
          for (Index j = 0; j < visible; ++j) {
            const float x = float(p[std::size_t(j)] / total);
            probs[i][(std::size_t(g) * std::size_t(mine) + std::size_t(a)) * std::size_t(n) + std::size_t(j)] =
                x;
            sums[i][std::size_t(g) * std::size_t(n) + std::size_t(j)] += x;
            if (g == 0) seen_by[i][std::size_t(j)] += 1;
          }
          for (int c = 0; c < d; ++c) {
            float& m = max_query[i][std::size_t(g * d + c)];
            m = std::max(m, std::abs(qa[c]));
          }
        }
      Evidence& e = seen[i];
      e.queries = cube(q.data(), group, mine, d);
      e.first_query = n > 0 ? pos[i].back() - mine + 1 : 0;
      e.probs = cube(probs[i].data(), group, mine, n);
      e.column_sums = cube(sums[i].data(), group, 1, n);
      e.seen_by = seen_by[i];
      e.max_query = cube(max_query[i].data(), group, 1, d);
    }
  }

  /// Removes the rows that a plan drops (blends and moves are not carried out here).
  void apply(const Plan& plan) {
    for (std::size_t h = 0; h < plan.heads.size(); ++h)
      for (std::size_t d = plan.heads[h].drop.size(); d-- > 0;) {
        const std::ptrdiff_t i = plan.heads[h].drop[d];
        pos[h].erase(pos[h].begin() + i);
        k[h].erase(k[h].begin() + i * shape.dim_k, k[h].begin() + (i + 1) * shape.dim_k);
        v[h].erase(v[h].begin() + i * shape.dim_v, v[h].begin() + (i + 1) * shape.dim_v);
      }
  }
};

/// One call of a policy on a layer: observe, and where it is due plan and apply. Throws what a policy reports as an Error.
template <class P, class State>
std::vector<Plan> run_call(const P& policy, State& state, SmallLayer& layer, Clock now, int index = 0,
                           Abilities can = {}, const RopeTable* rope = nullptr) {
  const auto must = [](const Status& s) {
    if (!s) throw std::runtime_error(s.error().what);
  };
  const AnyLayer view = layer.view();
  now.size = 0;
  for (int h = 0; h < layer.shape.kv_heads; ++h) now.size = std::max(now.size, layer.size(h));
  const LayerCall<AnyLayer> call{view, layer.seen, now, index, can, rope};
  must(policy.observe(call, state));
  std::vector<Plan> plans;
  if (policy.due(now)) {
    must(policy.plan(call, state, plans));
    for (const Plan& p : plans) {
      if (p.layer == index) layer.apply(p);
      policy.applied(p, state);
    }
  }
  return plans;
}

/// The clock of a whole prompt, and of decode step `step`.
inline Clock prompt_clock(Index budget) { return {Phase::prefill, 0, 0, budget, true}; }
inline Clock step_clock(Index step, Index budget) { return {Phase::decode, step, 0, budget, true}; }

}  // namespace kvist::test
