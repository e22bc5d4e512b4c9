#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/types.hpp>
#include <kvist/kernels/dispatch.hpp>

#include <span>

namespace kvist::inline KVIST_ABI {
namespace kernels::detail {

/// One of these per instruction set.
struct SoftmaxTable {
  void (*softmax)(const float* x, Index n, float* out);
  void (*online)(float* x, Index n, float* m, float* l, float* o, int dim);
  void (*exp_of)(const float* x, Index n, float m, float factor, float* out);
  void (*cap)(float* x, Index n, float c);
  void (*add_to_pairs)(const float* x, Index rows, std::ptrdiff_t stride, Index n, float factor,
                       const float* second, float* pairs);
};

}  // namespace kernels::detail

namespace kernels {
/// The table of the level that runs now.
KVIST_KERNELS_INLINE const detail::SoftmaxTable& softmax_table();

/// out [n] = softmax of x [n]; the exponential is a polynomial within 2 ulp. A logit of -infinity has probability 0;
/// where all are, the result is all zeros. May be done in place.
inline void softmax(std::span<const float> x, float* out) {
  softmax_table().softmax(x.data(), Index(x.size()), out);
}

/// Softmax of each row of x [rows, n].
inline void softmax_rows(const float* x, Index rows, Index n, std::ptrdiff_t stride, float* out,
                         std::ptrdiff_t out_stride) {
  const auto& table = softmax_table();
  for (Index r = 0; r < rows; ++r) table.softmax(x + r * stride, n, out + r * out_stride);
}

/// Adds n logits of one query to its attention state (m, l, o [dim]): logits become exp(logit - m) for the new m, and l
/// and o are brought to it; the caller then adds the weighted values to o.
/// Source: Milakov, Gimelshein 2018, arXiv 1805.02867.
inline void online_softmax(float* logits, Index n, float& m, float& l, float* o, int dim) {
  softmax_table().online(logits, n, &m, &l, o, dim);
}

/// out [n] = factor * exp(x - m): probabilities from logits whose largest value and sum are known.
inline void exp_of(const float* x, Index n, float m, float factor, float* out) {
  softmax_table().exp_of(x, n, m, factor, out);
}

/// x = c * tanh(x / c), in place (logit soft cap); absolute error below 3e-7 * c. Requires: c > 0.
inline void soft_cap(float* x, Index n, float c) { softmax_table().cap(x, n, c); }

/// pairs[i] (two floats each, n of them) gets factor times each of the rows' x[r * stride + i] added to its first number, in
/// order of rows, and second[i] to the other one, or 1 where `second` is null: attention received, and by how many queries.
inline void add_to_pairs(const float* x, Index rows, std::ptrdiff_t stride, Index n, float factor,
                         const float* second, float* pairs) {
  softmax_table().add_to_pairs(x, rows, stride, n, factor, second, pairs);
}

}  // namespace kernels
}  // namespace kvist::inline KVIST_ABI

#if !defined(KVIST_KERNELS_EXTERN)
#include <kvist/kernels/detail/softmax_table.ipp>
#endif
