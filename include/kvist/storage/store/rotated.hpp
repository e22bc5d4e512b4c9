#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>
#include <kvist/core/fields.hpp>
#include <kvist/kernels/hadamard.hpp>

#include <algorithm>
#include <bit>
#include <utility>

namespace kvist::inline KVIST_ABI {

/// A store behind a Hadamard matrix: keys and values are turned before S stores them, queries once per question, and the
/// weighted sum of values is turned back once per answer. So S's own attention runs as it is, however fast that is.
/// Requires: head dimensions that are powers of two, at most 512.
template <Store S>
class RotatedStore {
 public:
  static constexpr int most = 512;

  RotatedStore(S inner, int dim_k, int dim_v) : s_(std::move(inner)), dim_k_(dim_k), dim_v_(dim_v) {}

  /// Can rows of d channels be turned? Fails with: bad_shape.
  static Status validate(int d) {
    if (d < 1 || d > most || !std::has_single_bit(unsigned(d)))
      return Error{Errc::bad_shape, "rotated rows want a head dimension that is a power of two, at most 512",
                   most, d};
    return Done{};
  }

  Index size() const { return s_.size(); }
  std::size_t bytes() const { return s_.bytes(); }
  void reserve(Index n) { s_.reserve(n); }
  void settle() { s_.settle(); }
  void drop(std::span<const Index> rows) { s_.drop(rows); }
  void truncate(Index n) { s_.truncate(n); }
  void append(const float* k, const float* v, Index n) {
    float turned_k[tile], turned_v[tile];
    const Index at_once = tile / std::max(dim_k_, dim_v_);
    for (Index i = 0, count = 0; i < n; i += count) {
      count = std::min(at_once, n - i);
      if (n - i - count == 1) --count;  // a single row would be a decode step to s_
      s_.append(turned(k + std::ptrdiff_t(i) * dim_k_, turned_k, count, dim_k_),
                turned(v + std::ptrdiff_t(i) * dim_v_, turned_v, count, dim_v_), count);
    }
  }
  void write(Index i, const float* k, const float* v) {
    float turned_k[tile], turned_v[tile];
    s_.write(i, k != nullptr ? turned(k, turned_k, 1, dim_k_) : nullptr,
             v != nullptr ? turned(v, turned_v, 1, dim_v_) : nullptr);
  }
  void read(Index first, Index n, float* k, float* v) const {
    s_.read(first, n, k, v);
    if (k != nullptr) kernels::hadamard(k, n, dim_k_);
    if (v != nullptr) kernels::hadamard(v, n, dim_v_);
  }
  void fit(const AnyHead& head, const Evidence& seen) {
    if constexpr (requires { s_.fit(head, seen); }) s_.fit(head, seen);
  }
  /// A port of shared storage in S is not reached by couple(): sharing goes outside.
  bool coupled() const {
    if constexpr (requires { s_.coupled(); }) return s_.coupled();
    else return true;
  }

  void attend(const AttendArgs& args, const AttnState& state) const {
    constexpr int at_once = 8;
    float q[at_once * most], m[at_once], l[at_once], o[at_once * most];
    for (int g = 0; g < args.group; g += at_once) {
      const int n = std::min(at_once, args.group - g);
      AttendArgs a = args;
      a.q = q;
      a.group = n;
      if (a.logits != nullptr) a.logits += g * a.logits_stride;
      std::copy_n(args.q + std::ptrdiff_t(g) * dim_k_, std::ptrdiff_t(n) * dim_k_, q);
      kernels::hadamard(q, n, dim_k_);
      const AttnState own{n, dim_v_, m, l, o};
      own.clear();
      s_.attend(a, own);
      kernels::hadamard(own.o, n, dim_v_);
      merge({n, dim_v_, state.m + g, state.l + g, state.row(g)}, own);
    }
  }

  ReaderRows keys() const {
    return {[](const void* s, Index first, Index n, float* out) {
              static_cast<const RotatedStore*>(s)->read(first, n, out, nullptr);
            },
            this, size(), dim_k_};
  }
  ReaderRows values() const {
    return {[](const void* s, Index first, Index n, float* out) {
              static_cast<const RotatedStore*>(s)->read(first, n, nullptr, out);
            },
            this, size(), dim_v_};
  }
  RotatedStore clone() const { return RotatedStore(s_.clone(), dim_k_, dim_v_); }
  template <class V, class Self>
  static void fields(V& v, Self& s) {
    v.same("rotated");
    v.same(s.dim_k_), v.same(s.dim_v_);
    visit_fields(v, s.s_);
  }

 private:
  static constexpr int tile = 4096;  // numbers that are turned at once
  static const float* turned(const float* x, float* into, Index n, int d) {
    std::copy_n(x, std::ptrdiff_t(n) * d, into);
    kernels::hadamard(into, n, d);
    return into;
  }

  S s_;
  int dim_k_, dim_v_;
};

}  // namespace kvist::inline KVIST_ABI
