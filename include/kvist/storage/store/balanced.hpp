#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>
#include <kvist/core/fields.hpp>
#include <kvist/view/rows.hpp>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

namespace kvist::inline KVIST_ABI {

/// A store whose keys are multiplied by a balancer per channel on their way in, and whose queries are divided by it: logits
/// stay, and channels in which keys are large but queries small no longer widen the range of their group. Values pass.
///
/// b[c] = sqrt(largest |query| / largest |key|) over the prompt (all query heads of the group), 1 where either is 0 or the
/// evidence lacks the largest queries. It is learnt by fit() while the store is empty, and fixed by the first append.
/// Source: Yang et al. 2024, arXiv 2402.18096 (MiKV), eq. 2.
template <Store S>
class BalancedStore {
 public:
  static constexpr int most = 4096;  ///< channels of a key

  /// Requires: dim_k <= most.
  BalancedStore(S inner, int dim_k) : s_(std::move(inner)), b_(std::size_t(dim_k), 1.0f) {}

  const S& inner() const { return s_; }
  std::span<const float> balancer() const { return b_; }

  /// One call of a prompt: its largest queries, and the keys of all entries.
  void fit(const AnyHead& head, const Evidence& seen) {
    if (size() > 0 || !seen.max_query) return;
    const std::size_t d = b_.size();
    q_.resize(d, 0.0f);
    for (int g = 0; g < seen.max_query.g; ++g)
      for (std::size_t c = 0; c < d; ++c) q_[c] = std::max(q_[c], std::fabs(seen.max_query.row(g, 0)[c]));
    std::vector<float> k(d, 0.0f);
    head.keys.for_each_run([&](const auto& run, Index) {
      for (Index i = 0; i < run.n; ++i)
        for (std::size_t c = 0; c < d; ++c) k[c] = std::max(k[c], std::fabs(run.at(i, int(c))));
    });
    for (std::size_t c = 0; c < d; ++c) {
      const float b = std::sqrt(q_[c] / k[c]);
      b_[c] = q_[c] > 0 && k[c] > 0 && std::isfinite(b) && b > 0 ? b : 1.0f;
    }
  }

  Index size() const { return s_.size(); }
  std::size_t bytes() const {
    return s_.bytes() + (b_.capacity() + q_.capacity() + k_.capacity()) * sizeof(float);
  }
  void reserve(Index n) { s_.reserve(n); }
  void settle() { s_.settle(); }
  /// As RotatedStore: sharing goes outside.
  bool coupled() const {
    if constexpr (requires { s_.coupled(); }) return s_.coupled();
    else return true;
  }
  void drop(std::span<const Index> rows) { s_.drop(rows); }
  void truncate(Index n) { s_.truncate(n); }
  void append(const float* k, const float* v, Index n) {
    const std::size_t d = b_.size();
    k_.resize(d);
    for (Index i = 0; i < n; ++i)
      s_.append(scaled(k + std::size_t(i) * d), v + std::ptrdiff_t(i) * s_.values().dim(), 1);
  }
  void write(Index i, const float* k, const float* v) { s_.write(i, k != nullptr ? scaled(k) : nullptr, v); }
  void read(Index first, Index n, float* k, float* v) const {
    s_.read(first, n, k, v);
    if (k == nullptr) return;
    const std::size_t d = b_.size();
    for (std::size_t i = 0; i < std::size_t(n) * d; ++i) k[i] /= b_[i % d];
  }
  void attend(const AttendArgs& args, const AttnState& state) const {
    const int d = int(b_.size());
    float q[most];
    const int at_once = std::max(1, most / d);
    for (int g = 0; g < args.group; g += at_once) {
      const int n = std::min(at_once, args.group - g);
      AttendArgs a = detail_part(args, g, n);
      for (int i = 0; i < n * d; ++i) q[i] = args.q[std::ptrdiff_t(g) * d + i] / b_[std::size_t(i % d)];
      a.q = q;
      s_.attend(a, {n, state.dim_v, state.m + g, state.l + g, state.row(g)});
    }
  }
  ReaderRows keys() const {
    return {[](const void* s, Index first, Index n, float* out) {
              static_cast<const BalancedStore*>(s)->read(first, n, out, nullptr);
            },
            this, size(), int(b_.size())};
  }
  AnyRows values() const { return s_.values(); }
  BalancedStore clone() const {
    BalancedStore c(s_.clone(), int(b_.size()));
    c.b_ = b_;
    c.q_ = q_;
    return c;
  }
  template <class V, class Self>
  static void fields(V& v, Self& s) {
    v.same("balanced");
    v.same(s.b_.size());
    v.block(s.b_.data(), s.b_.size());
    v.list(s.q_, s.b_.size());
    v.memory_of(s.k_);
    if constexpr (V::reads) {
      for (const float b : s.b_)
        if (v.good() && !(std::isfinite(b) && b > 0))
          v.fail({Errc::bad_file, "a channel's balancer in a snapshot is no positive number"});
      if (v.good() && !s.q_.empty() && s.q_.size() != s.b_.size())
        v.fail({Errc::bad_file, "largest queries of a snapshot against its channels", (long long)s.b_.size(),
                (long long)s.q_.size()});
    }
    visit_fields(v, s.s_);
  }

 private:
  static AttendArgs detail_part(AttendArgs a, int g, int n) {
    a.group = n;
    if (a.logits != nullptr) a.logits += g * a.logits_stride;
    return a;
  }
  const float* scaled(const float* k) {
    k_.assign(k, k + b_.size());
    for (std::size_t c = 0; c < b_.size(); ++c) k_[c] *= b_[c];
    return k_.data();
  }

  S s_;
  std::vector<float> b_, q_;  // the balancer, and the largest queries so far
  std::vector<float> k_;      // a key on its way in
};

}  // namespace kvist::inline KVIST_ABI
