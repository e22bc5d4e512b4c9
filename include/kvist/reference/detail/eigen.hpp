#pragma once
// SPDX-License-Identifier: Apache-2.0
// Eigen as the reference rooms use it: products on the calling thread alone (threads are ours), matrices row by row.
#if !defined(EIGEN_DONT_PARALLELIZE)
#define EIGEN_DONT_PARALLELIZE
#endif
#include <kvist/core/types.hpp>

// GCC 12 warns of the undefined values in its own AVX-512 headers where Eigen's code uses them; what counts is the
// setting at the place where those headers are read.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <Eigen/Core>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#include <vector>

namespace kvist::inline KVIST_ABI {
namespace detail {

using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using MatrixView = Eigen::Map<Matrix, Eigen::Unaligned, Eigen::OuterStride<>>;
using ConstMatrixView = Eigen::Map<const Matrix, Eigen::Unaligned, Eigen::OuterStride<>>;

/// Memory whose alignment is the same everywhere: where a vectorised loop begins, and so the order of a sum, must not
/// depend on what the allocator gave.
using Floats = std::vector<float, Eigen::aligned_allocator<float>>;

/// Rows [n, d] of f32, `stride` elements apart.
inline MatrixView matrix(float* data, Eigen::Index n, Eigen::Index d, Eigen::Index stride) {
  return {data, n, d, Eigen::OuterStride<>(stride)};
}
inline ConstMatrixView matrix(const float* data, Eigen::Index n, Eigen::Index d, Eigen::Index stride) {
  return {data, n, d, Eigen::OuterStride<>(stride)};
}

}  // namespace detail
}  // namespace kvist::inline KVIST_ABI
