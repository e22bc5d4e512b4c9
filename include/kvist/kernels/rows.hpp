#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/kernels/dispatch.hpp>
#include <kvist/view/rows.hpp>

namespace kvist::inline KVIST_ABI {
namespace kernels::detail {

/// The kernels over rows of T, one of these per instruction set.
template <Scalar T>
struct RowsTable {
  void (*dot_group)(const Rows<T>& run, const float* q, int group, float scale, float* out,
                    std::ptrdiff_t out_stride, std::ptrdiff_t ahead);
  void (*axpy_group)(const Rows<T>& run, const float* w, std::ptrdiff_t w_stride, int group, float* o,
                     std::ptrdiff_t ahead);
  void (*norms)(const Rows<T>& run, float* out);
  void (*norms1)(const Rows<T>& run, float* out);
  void (*to_f32)(const Rows<T>& run, float* out);
  void (*sum_rows)(const Rows<T>& run, float* out);
  void (*neighbour_dots)(const Rows<T>& run, float* dots, float* squares, std::ptrdiff_t ahead);
  void (*widen)(const T* in, std::ptrdiff_t n, float* out);
  void (*narrow)(const float* in, std::ptrdiff_t n, T* out);
};

}  // namespace kernels::detail

namespace kernels {
/// The table of the level that runs now.
template <Scalar T>
const detail::RowsTable<T>& rows_table();

// Leaf kernels on runs of rows [n, d] of f32, f16 or bf16 with any strides. Runs whose channels lie side by side
// (channel_stride 1) and runs whose entries do (stride 1: transposed values, channel-major blocks) are fast; other
// strides are correct. Sums accumulate in f32; their order is fixed for each instruction set.
//
// `ahead` is for long sweeps over memory: the kernel asks for the elements that lie so many behind those it reads, evenly
// while it computes. Give it only where the caller knows that they will be read soon.

/// out[g * out_stride + i] = scale * q[g] . row i, for G queries q [G, d]; each row is read once for the whole group.
template <Scalar T>
void dot_group(const Rows<T>& run, const float* q, int group, float scale, float* out,
               std::ptrdiff_t out_stride, std::ptrdiff_t ahead = 0) {
  rows_table<T>().dot_group(run, q, group, scale, out, out_stride, ahead);
}

/// out[i] = scale * q . row i, for one query q [d].
template <Scalar T>
void dot(const Rows<T>& run, const float* q, float scale, float* out) {
  rows_table<T>().dot_group(run, q, 1, scale, out, 0, 0);
}

/// o[g] += sum over i of w[g * w_stride + i] * row i, for G weighted sums o [G, d]; each row is read once.
template <Scalar T>
void axpy_group(const Rows<T>& run, const float* w, std::ptrdiff_t w_stride, int group, float* o,
                std::ptrdiff_t ahead = 0) {
  rows_table<T>().axpy_group(run, w, w_stride, group, o, ahead);
}

/// out[i] = |row i|_2.
template <Scalar T>
void norms(const Rows<T>& run, float* out) {
  rows_table<T>().norms(run, out);
}

/// out[i] = |row i|_1.
template <Scalar T>
void norms1(const Rows<T>& run, float* out) {
  rows_table<T>().norms1(run, out);
}

/// The rows as contiguous f32 out [n, d].
template <Scalar T>
void to_f32(const Rows<T>& run, float* out) {
  rows_table<T>().to_f32(run, out);
}

/// out [d] += sum of the rows.
template <Scalar T>
void sum_rows(const Rows<T>& run, float* out) {
  rows_table<T>().sum_rows(run, out);
}

/// dots[i] = row i . row i+1 [n - 1] and squares[i] = row i . row i [n]: what cosines of neighbours are made of. Each row is
/// read once.
template <Scalar T>
void neighbour_dots(const Rows<T>& run, float* dots, float* squares, std::ptrdiff_t ahead = 0) {
  rows_table<T>().neighbour_dots(run, dots, squares, ahead);
}

/// n contiguous elements to f32.
template <Scalar T>
void widen(const T* in, std::ptrdiff_t n, float* out) {
  rows_table<T>().widen(in, n, out);
}

/// n contiguous f32 to T, rounded to nearest, ties to even (the bits of kvist::from_f32 for every number; a NaN stays a
/// NaN).
template <Scalar T>
void from_f32(const float* in, std::ptrdiff_t n, T* out) {
  rows_table<T>().narrow(in, n, out);
}

}  // namespace kernels
}  // namespace kvist::inline KVIST_ABI

#if !defined(KVIST_KERNELS_EXTERN)
#include <kvist/kernels/detail/rows_table.ipp>
#endif
