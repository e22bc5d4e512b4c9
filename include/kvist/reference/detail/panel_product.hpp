#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/types.hpp>
#include <kvist/reference/detail/lanes.hpp>

#include <cstddef>

namespace kvist::inline KVIST_ABI {
namespace detail {

// A tile's sums fill the registers but for a few: 12 x 2 of 32 (AVX-512), 6 x 2 halves of 16 (AVX2).
#if defined(__AVX512F__)
inline constexpr int panel_lanes = 2, tile_rows = 12;
#else
inline constexpr int panel_lanes = 1, tile_rows = 6;
#endif

/// Columns of a panel: what a tile multiplies at once.
inline constexpr int panel_columns = panel_lanes * lanes;

/// y [T, panel_columns] = x [T, depth] w [depth, panel_columns], rows at the given strides. Each y is one chain of
/// multiply-adds in the order of depth, whatever T is.
template <int T>
inline void panel_tile(const float* x, std::ptrdiff_t x_stride, const float* w, std::ptrdiff_t w_stride,
                       Index depth, float* y, std::ptrdiff_t y_stride) {
  Lanes sum[T][panel_lanes];
#pragma GCC unroll 12
  for (int t = 0; t < T; ++t)
    for (Lanes& s : sum[t]) s = Lanes::zero();
  for (Index c = 0; c < depth; ++c, w += w_stride) {
    Lanes column[panel_lanes];
    for (int l = 0; l < panel_lanes; ++l) column[l] = Lanes::load(w + l * lanes);
#pragma GCC unroll 12
    for (int t = 0; t < T; ++t) {
      const Lanes one = Lanes::all(x[t * x_stride + c]);
      for (int l = 0; l < panel_lanes; ++l) sum[t][l] = Lanes::fma(one, column[l], sum[t][l]);
    }
  }
#pragma GCC unroll 12
  for (int t = 0; t < T; ++t)
    for (int l = 0; l < panel_lanes; ++l) sum[t][l].store(y + t * y_stride + l * lanes);
}

/// The same for n rows of x.
inline void panel_product(const float* x, std::ptrdiff_t x_stride, Index n, const float* w,
                          std::ptrdiff_t w_stride, Index depth, float* y, std::ptrdiff_t y_stride) {
  Index t = 0;
  for (; t + tile_rows <= n; t += tile_rows)
    panel_tile<tile_rows>(x + t * x_stride, x_stride, w, w_stride, depth, y + t * y_stride, y_stride);
  for (; t + 4 <= n; t += 4)
    panel_tile<4>(x + t * x_stride, x_stride, w, w_stride, depth, y + t * y_stride, y_stride);
  for (; t < n; ++t)
    panel_tile<1>(x + t * x_stride, x_stride, w, w_stride, depth, y + t * y_stride, y_stride);
}

}  // namespace detail
}  // namespace kvist::inline KVIST_ABI
