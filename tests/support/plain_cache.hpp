#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/result.hpp>
#include <kvist/core/types.hpp>
#include <kvist/view/evidence.hpp>
#include <kvist/view/head.hpp>
#include <kvist/view/rope.hpp>

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

namespace kvist::test {

/// The plainest cache the reference transformer accepts: f32 rows in vectors, attention by the formula in f64. It keeps
/// what it is given; `want`, `evict` and `biases` let a test play a policy.
class PlainCache {
 public:
  struct Head {
    std::vector<float> k, v, bias;
    std::vector<Pos> pos;
  };
  struct Seen {  // a copy of what observe() got
    Needs have = Needs::none;
    int group = 0;
    Index w = 0, entries = 0;
    Pos first_query = 0;
    std::vector<float> probs, queries, column_sums, seen_by, max_query;
  };

  explicit PlainCache(const Shape& shape)
      : shape_(shape), heads_(std::size_t(shape.layers * shape.kv_heads)) {}

  // what a test may set
  Wants want;
  KeyForm key_form = KeyForm::rotated;
  bool count_by_slot = false;
  const RopeTable* rope = nullptr;        ///< for raw keys
  std::vector<std::vector<Index>> evict;  ///< [kv_heads] rows to drop at observe(), ascending
  int fail_at_layer = -1;                 ///< append() fails there
  std::vector<Clock> observed, stepped;   ///< clocks that came
  std::vector<Seen> seen;                 ///< [calls of observe, kv_heads]

  Head& head(int layer, int h) { return heads_[std::size_t(layer * shape_.kv_heads + h)]; }
  const Head& head(int layer, int h) const { return heads_[std::size_t(layer * shape_.kv_heads + h)]; }

  // what the transformer asks
  Shape shape() const { return shape_; }
  Wants wants() const { return want; }
  KeyForm form() const { return key_form; }
  bool compact() const { return count_by_slot; }
  Pos next_position() const { return next_; }
  Index size(int layer, int h) const { return Index(head(layer, h).pos.size()); }
  std::span<const float> bias(int layer, int h) const { return head(layer, h).bias; }
  void read(int layer, int h, Index first, Index n, float* k, float* v) const {
    const Head& x = head(layer, h);
    std::copy_n(x.k.data() + std::ptrdiff_t(first) * shape_.dim_k, std::ptrdiff_t(n) * shape_.dim_k, k);
    std::copy_n(x.v.data() + std::ptrdiff_t(first) * shape_.dim_v, std::ptrdiff_t(n) * shape_.dim_v, v);
  }
  Status append(int layer, Index n, const float* k, const float* v, Pos first) {
    if (layer == fail_at_layer) return Error{Errc::out_of_capacity, "told to fail"};
    for (Index t = 0; t < n; ++t)
      for (int h = 0; h < shape_.kv_heads; ++h) {
        Head& x = head(layer, h);
        const float* const kt = k + (std::ptrdiff_t(t) * shape_.kv_heads + h) * shape_.dim_k;
        const float* const vt = v + (std::ptrdiff_t(t) * shape_.kv_heads + h) * shape_.dim_v;
        x.k.insert(x.k.end(), kt, kt + shape_.dim_k);
        x.v.insert(x.v.end(), vt, vt + shape_.dim_v);
        x.pos.push_back(first + t);
        if (!x.bias.empty()) x.bias.push_back(0);
      }
    if (layer == shape_.layers - 1) next_ = first + n;
    return Done{};
  }
  Status observe(int layer, std::span<const Evidence> evidence, const Clock& clock) {
    observed.push_back(clock);
    for (const Evidence& e : evidence) {
      Seen s;
      s.have = e.have();
      s.first_query = e.first_query;
      const auto copy = [](const Cube& c) {
        return std::vector<float>(c.data, c.data + std::ptrdiff_t(c.g) * c.w * c.n);
      };
      if (e.probs) s.probs = copy(e.probs), s.group = e.probs.g, s.w = e.probs.w, s.entries = e.probs.n;
      if (e.queries) s.queries = copy(e.queries), s.group = e.queries.g, s.w = e.queries.w;
      if (e.column_sums)
        s.column_sums = copy(e.column_sums), s.group = e.column_sums.g, s.entries = e.column_sums.n;
      if (e.max_query) s.max_query = copy(e.max_query);
      s.seen_by.assign(e.seen_by.begin(), e.seen_by.end());
      seen.push_back(s);
    }
    for (std::size_t h = 0; h < evict.size(); ++h) drop(head(layer, int(h)), evict[h]);
    return Done{};
  }
  template <class E>
  Status attend(int layer, const float* q, float scale, float* out, E& executor) const {
    executor.for_each(shape_.kv_heads, [&](Index h) {
      const Head& x = head(layer, int(h));
      const Index n = Index(x.pos.size());
      std::vector<float> keys = x.k;
      for (Index i = 0; key_form == KeyForm::raw && i < n; ++i)
        rope->rotate({keys.data() + std::ptrdiff_t(i) * shape_.dim_k, std::size_t(shape_.dim_k)},
                     count_by_slot ? i : x.pos[std::size_t(i)]);
      for (int g = 0; g < shape_.group(); ++g) {
        const std::ptrdiff_t head_q = std::ptrdiff_t(h) * shape_.group() + g;
        std::vector<float> own(q + head_q * shape_.dim_k, q + (head_q + 1) * shape_.dim_k);
        if (key_form == KeyForm::raw) rope->rotate(own, count_by_slot ? n - 1 : x.pos.back());
        std::vector<double> p(static_cast<std::size_t>(n));
        double top = -1e300, sum = 0;
        for (Index i = 0; i < n; ++i) {
          double s = 0;
          for (int c = 0; c < shape_.dim_k; ++c)
            s += double(own[std::size_t(c)]) * double(keys[std::size_t(i * shape_.dim_k + c)]);
          s = s * double(scale) + (x.bias.empty() ? 0.0 : double(x.bias[std::size_t(i)]));
          top = std::max(top, p[std::size_t(i)] = s);
        }
        for (double& s : p) sum += s = std::exp(s - top);
        for (int c = 0; c < shape_.dim_v; ++c) {
          double o = 0;
          for (Index i = 0; i < n; ++i)
            o += p[std::size_t(i)] * double(x.v[std::size_t(i * shape_.dim_v + c)]);
          out[head_q * shape_.dim_v + c] = float(o / sum);
        }
      }
    });
    return Done{};
  }
  Status step(int, const Clock& clock) {
    stepped.push_back(clock);
    return Done{};
  }

 private:
  void drop(Head& x, const std::vector<Index>& rows) const {
    for (auto i = rows.rbegin(); i != rows.rend(); ++i) {
      x.k.erase(x.k.begin() + std::ptrdiff_t(*i) * shape_.dim_k,
                x.k.begin() + std::ptrdiff_t(*i + 1) * shape_.dim_k);
      x.v.erase(x.v.begin() + std::ptrdiff_t(*i) * shape_.dim_v,
                x.v.begin() + std::ptrdiff_t(*i + 1) * shape_.dim_v);
      x.pos.erase(x.pos.begin() + *i);
      if (!x.bias.empty()) x.bias.erase(x.bias.begin() + *i);
    }
  }
  Shape shape_;
  std::vector<Head> heads_;
  Pos next_ = 0;
};

}  // namespace kvist::test
