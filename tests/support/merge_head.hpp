#pragma once
// SPDX-License-Identifier: Apache-2.0
// One head of literal rows as the parts of a merge see it, and what a plan makes of it by the formulas in f64.
#include <kvist/core/concepts.hpp>
#include <kvist/core/random.hpp>
#include <kvist/policy/dispose/merge_call.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace kvist::test {

struct MergeHead {
  std::vector<std::vector<float>> k, v;
  std::vector<float> scores, log_weight;
  std::vector<MergeRecord> records;
  std::vector<Pos> pos;
  Guards guards;
  Index budget = 0, shared_rows = 0;
  Evidence seen;
  Scratch scratch;
  std::vector<float> flat_k, flat_v;

  MergeHead(std::vector<std::vector<float>> keys, std::vector<std::vector<float>> values,
            std::vector<float> s = {})
      : k(std::move(keys)), v(std::move(values)), scores(std::move(s)), records(k.size()), pos(k.size()) {
    scores.resize(k.size(), 0.0f);
    std::iota(pos.begin(), pos.end(), 0);
    budget = Index(k.size());
  }
  /// n random rows; every `alike`-th is a copy of the one before, scaled a little.
  static MergeHead random(Index n, int dk, int dv, Random& r, Index alike = 0) {
    std::vector<std::vector<float>> k, v;
    std::vector<float> s;
    const auto row = [&](int d) {
      std::vector<float> x;
      for (int c = 0; c < d; ++c) x.push_back(float(2 * r.uniform() - 1));
      return x;
    };
    for (Index i = 0; i < n; ++i) {
      k.push_back(row(dk));
      v.push_back(row(dv));
      s.push_back(float(r.uniform()));
      if (alike > 0 && i > 0 && i % alike == 0) {
        k.back() = k[k.size() - 2];
        for (float& x : k.back()) x *= 1 + 0.01f * float(r.uniform());
      }
    }
    return MergeHead(std::move(k), std::move(v), std::move(s));
  }

  Index n() const { return Index(k.size()); }
  int dk() const { return int(k[0].size()); }
  int dv() const { return int(v[0].size()); }

  /// Valid while nothing of the head changes.
  MergeCall call() {
    flat_k.clear(), flat_v.clear();
    for (const auto& r : k) flat_k.insert(flat_k.end(), r.begin(), r.end());
    for (const auto& r : v) flat_v.insert(flat_v.end(), r.begin(), r.end());
    MergeCall c;
    c.n = n();
    c.dim_k = dk();
    c.dim_v = dv();
    c.keys = flat_k;
    c.read_value = [](const void* self, Index row, float* out) {
      const auto& of = static_cast<const MergeHead*>(self)->v[std::size_t(row)];
      std::copy(of.begin(), of.end(), out);
    };
    c.values = this;
    c.scores = scores;
    c.records = records;
    c.log_weight = log_weight;
    c.pos = pos;
    c.guards = guards;
    c.budget = c.mean = budget;
    c.shared_rows = shared_rows;
    c.seen = &seen;
    c.scratch = &scratch;
    return c;
  }

  /// What a plan leaves, in f64: keys, values and log-weights of the survivors.
  struct After {
    std::vector<std::vector<double>> k, v;
    std::vector<double> log_weight;
    std::vector<Index> rows;
  };
  After after(const HeadPlan& plan) const {
    std::vector<std::vector<double>> nk, nv;
    std::vector<double> w;
    for (std::size_t i = 0; i < k.size(); ++i) {
      nk.emplace_back(k[i].begin(), k[i].end());
      nv.emplace_back(v[i].begin(), v[i].end());
      w.push_back(log_weight.empty() ? 0.0 : double(log_weight[i]));
    }
    for (const Self& s : plan.self) {
      for (double& x : nk[std::size_t(s.dst)]) x *= double(s.wk);
      for (double& x : nv[std::size_t(s.dst)]) x *= double(s.wv);
      w[std::size_t(s.dst)] = double(s.log_weight);
    }
    for (const Blend& b : plan.blend) {
      for (std::size_t c = 0; c < k[0].size(); ++c)
        nk[std::size_t(b.dst)][c] += double(b.wk) * double(k[std::size_t(b.src)][c]);
      for (std::size_t c = 0; c < v[0].size(); ++c)
        nv[std::size_t(b.dst)][c] += double(b.wv) * double(v[std::size_t(b.src)][c]);
    }
    After out;
    for (std::size_t i = 0; i < k.size(); ++i) {
      if (std::binary_search(plan.drop.begin(), plan.drop.end(), Index(i))) continue;
      out.k.push_back(nk[i]);
      out.v.push_back(nv[i]);
      out.log_weight.push_back(w[i]);
      out.rows.push_back(Index(i));
    }
    return out;
  }
  After before() const { return after(HeadPlan{}); }
};

/// The plan that a disposition makes of losers; its records count it as carried out.
template <class M>
Result<HeadPlan> plan_of(const M& merge, MergeHead& head, std::vector<Index> drop,
                         KeyForm form = KeyForm::rotated) {
  head.call();  // flattens
  std::vector<float> values;
  for (const auto& r : head.v) values.insert(values.end(), r.begin(), r.end());
  const F32Head view{rows<float>(head.flat_k.data(), head.n(), head.dk()),
                     rows<float>(values.data(), head.n(), head.dv()), head.pos, form, head.log_weight};
  const Shape shape{1, 1, 1, head.dk(), head.dv()};
  const Clock now{Phase::prefill, 0, head.n(), head.budget, true};
  HeadContext<F32Head> c{view, head.seen, now, shape, head.scratch};
  c.budget = c.mean_budget = head.budget;
  c.guards = head.guards;
  c.shared_rows = head.shared_rows;
  HeadPlan plan;
  plan.drop = std::move(drop);
  if constexpr (requires { typename M::PerHead; }) {
    typename M::PerHead own;
    if (Status s = merge.dispose(c, head.scores, head.records, own, plan); !s) return s.error();
    merge.applied(plan, head.records, own);
  } else {
    if (Status s = merge.dispose(c, head.scores, plan); !s) return s.error();
  }
  return plan;
}

/// softmax(q k / sqrt(d) + log-weights) v, in f64.
inline std::vector<double> attention_of(const MergeHead::After& a, const std::vector<double>& q) {
  std::vector<double> p;
  double top = -1e300, sum = 0;
  for (std::size_t i = 0; i < a.k.size(); ++i) {
    double z = 0;
    for (std::size_t c = 0; c < q.size(); ++c) z += q[c] * a.k[i][c];
    p.push_back(z / std::sqrt(double(q.size())) + a.log_weight[i]);
    top = std::max(top, p.back());
  }
  for (double& x : p) sum += x = std::exp(x - top);
  std::vector<double> out(a.v[0].size(), 0.0);
  for (std::size_t i = 0; i < p.size(); ++i)
    for (std::size_t c = 0; c < out.size(); ++c) out[c] += p[i] / sum * a.v[i][c];
  return out;
}

/// Are all pairs what the literal ones are, similarities within 1e-5?
inline bool same_pairs(const std::vector<MergePair>& got, const std::vector<MergePair>& want) {
  return got.size() == want.size() &&
         std::equal(got.begin(), got.end(), want.begin(), [](const auto& a, const auto& b) {
           return a.src == b.src && a.dst == b.dst && std::abs(a.similarity - b.similarity) < 1e-5f;
         });
}

}  // namespace kvist::test
