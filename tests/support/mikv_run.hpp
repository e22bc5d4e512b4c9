#pragma once
// SPDX-License-Identifier: Apache-2.0
// A cache of one layer with MiKV's policy and tiers, fed row by row; evidence is made in f64 from the rows themselves.
#include <kvist/cache/cache.hpp>
#include <kvist/methods/mikv.hpp>
#include <kvist/storage/store/dense.hpp>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "catch.hpp"

namespace kvist::test {

class MikvRun {
 public:
  using Low = BalancedStore<BlockedStore<CodecSide<IntToken<f16>>, CodecSide<IntToken<f16>>>>;

  /// Tier 1: codes of `bits` bits in groups of `group` channels; tier 0: f32.
  MikvRun(const Shape& shape, int bits, int group)
      : shape_(shape),
        cache_(*Cache<methods::MikvPolicy, AnyStore>::make(shape, methods::MikvPolicy(), [&](int, int h) {
          std::vector<AnyStore> tiers;
          tiers.emplace_back(DenseStore<float>(shape.dim_k, shape.dim_v));
          tiers.emplace_back(Watched{Low(BlockedStore<CodecSide<IntToken<f16>>, CodecSide<IntToken<f16>>>(
                                             CodecSide<IntToken<f16>>({bits, group}, shape.dim_k),
                                             CodecSide<IntToken<f16>>({bits, group}, shape.dim_v), 0),
                                         shape.dim_k),
                                     &balancers_[std::size_t(h)]});
          return tiers;
        })) {
    k_.resize(std::size_t(shape.kv_heads));
    v_.resize(k_.size());
    q_.resize(std::size_t(shape.q_heads));
  }

  void give_key(std::size_t h, const std::vector<float>& k, const std::vector<float>& v) {
    k_[h].insert(k_[h].end(), k.begin(), k.end());
    v_[h].insert(v_[h].end(), v.begin(), v.end());
  }
  void give_query(std::size_t h, const std::vector<float>& q) {
    q_[h].insert(q_[h].end(), q.begin(), q.end());
  }

  /// All rows given so far are the prompt; `high` of them stay in tier 0.
  void prompt(Index high) {
    const Index n = Index(k_[0].size() / std::size_t(shape_.dim_k));
    append(0, n);
    const int group = shape_.group();
    const std::size_t d = std::size_t(shape_.dim_k);
    std::vector<Evidence> seen(k_.size());
    sums_.assign(k_.size(), std::vector<float>(std::size_t(n * group)));
    std::vector<std::vector<float>> seen_by(k_.size(), std::vector<float>(std::size_t(n))), most(k_.size());
    for (std::size_t h = 0; h < k_.size(); ++h) {
      most[h].assign(std::size_t(group) * d, 0.0f);
      for (Index i = 0; i < n; ++i) seen_by[h][std::size_t(i)] = float(n - i);
      for (int g = 0; g < group; ++g) {
        const auto& q = q_[h * std::size_t(group) + std::size_t(g)];
        std::vector<double> sum(std::size_t(n), 0.0);
        for (Index t = 0; t < n; ++t) {
          std::vector<double> p(static_cast<std::size_t>(t + 1));
          double top = -1e300, l = 0;
          for (Index i = 0; i <= t; ++i) {
            double s = 0;
            for (std::size_t c = 0; c < d; ++c)
              s += double(q[std::size_t(t) * d + c]) * double(k_[h][std::size_t(i) * d + c]);
            top = std::max(top, p[std::size_t(i)] = s / std::sqrt(double(d)));
          }
          for (double& x : p) l += x = std::exp(x - top);
          for (Index i = 0; i <= t; ++i) sum[std::size_t(i)] += p[std::size_t(i)] / l;
          for (std::size_t c = 0; c < d; ++c) {
            float& m = most[h][std::size_t(g) * d + c];
            m = std::max(m, std::fabs(q[std::size_t(t) * d + c]));
          }
        }
        for (Index i = 0; i < n; ++i) sums_[h][std::size_t(g * n + i)] = float(sum[std::size_t(i)]);
      }
      seen[h].column_sums = cube(sums_[h].data(), group, 1, n);
      seen[h].seen_by = seen_by[h];
      seen[h].max_query = cube(most[h].data(), group, 1, shape_.dim_k);
    }
    high_ = high;
    REQUIRE(cache_.observe(0, seen, Clock{Phase::prefill, 0, n, high, true}));
    next_ = n;
  }
  /// The last row given is a decode step: its output [q_heads, dv]; demotions follow.
  std::vector<float> step() {
    append(next_, 1);
    std::vector<float> q, out(std::size_t(shape_.q_heads * shape_.dim_v));
    for (const auto& x : q_) q.insert(q.end(), x.end() - shape_.dim_k, x.end());
    Serial serial;
    REQUIRE(cache_.attend(0, q.data(), 1.0f / std::sqrt(float(shape_.dim_k)), out.data(), serial));
    REQUIRE(cache_.step(0, Clock{Phase::decode, ++steps_, 0, high_, true}));
    ++next_;
    return out;
  }

  std::vector<Pos> positions(std::size_t h, int tier) const { return cache_.head(0, int(h)).tier(tier).pos; }
  std::vector<float> balancer(std::size_t h) const { return balancers_[h]; }
  /// Decoded keys and values of tier 1.
  std::pair<std::vector<float>, std::vector<float>> low_rows(std::size_t h) const {
    const auto& store = cache_.head(0, int(h)).tier(1).store;
    std::pair<std::vector<float>, std::vector<float>> r;
    r.first.resize(std::size_t(store.size() * shape_.dim_k));
    r.second.resize(std::size_t(store.size() * shape_.dim_v));
    store.read(0, store.size(), r.first.data(), r.second.data());
    return r;
  }
  float score(std::size_t h, std::size_t row) const {
    float s = 0;
    for (int g = 0; g < shape_.group(); ++g)
      s += sums_[h][std::size_t(g) * (sums_[h].size() / std::size_t(shape_.group())) + row];
    return s;
  }
  Cache<methods::MikvPolicy, AnyStore>& cache() { return cache_; }

 private:
  /// The low tier, whose balancer is told to the test when it is learnt.
  struct Watched {
    Low s;
    std::vector<float>* balancer;
    void append(const float* k, const float* v, Index n) { s.append(k, v, n); }
    void settle() { s.settle(); }
    void fit(const AnyHead& head, const Evidence& seen) {
      s.fit(head, seen);
      balancer->assign(s.balancer().begin(), s.balancer().end());
    }
    void drop(std::span<const Index> rows) { s.drop(rows); }
    void truncate(Index n) { s.truncate(n); }
    void reserve(Index n) { s.reserve(n); }
    void write(Index i, const float* k, const float* v) { s.write(i, k, v); }
    Index size() const { return s.size(); }
    std::size_t bytes() const { return s.bytes(); }
    void attend(const AttendArgs& a, const AttnState& st) const { s.attend(a, st); }
    void read(Index first, Index n, float* k, float* v) const { s.read(first, n, k, v); }
    AnyRows keys() const { return s.keys(); }
    AnyRows values() const { return s.values(); }
    Watched clone() const { return {s.clone(), balancer}; }
  };

  void append(Pos first, Index n) {
    const auto gather = [&](const std::vector<std::vector<float>>& from, int d) {
      std::vector<float> all;
      for (Index i = 0; i < n; ++i)
        for (const auto& h : from)
          all.insert(all.end(), h.end() - std::ptrdiff_t(n - i) * d, h.end() - std::ptrdiff_t(n - i - 1) * d);
      return all;
    };
    REQUIRE(cache_.append(0, n, gather(k_, shape_.dim_k).data(), gather(v_, shape_.dim_v).data(), first));
  }

  Shape shape_;
  std::vector<std::vector<float>> balancers_ = std::vector<std::vector<float>>(64);
  Cache<methods::MikvPolicy, AnyStore> cache_;
  std::vector<std::vector<float>> k_, v_, q_, sums_;
  Index high_ = 0, steps_ = 0;
  Pos next_ = 0;
};

}  // namespace kvist::test
