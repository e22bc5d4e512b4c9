#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/kernels/rows.hpp>

#include <algorithm>
#include <cstddef>
#include <span>

namespace kvist::inline KVIST_ABI {
namespace detail {

/// Rows [n, d] in tiles of 64, each with the entries of a channel side by side, for many queries that meet the same short
/// rows: a tile stays in the level-1 cache for all of them, and no sum runs across a register, which would cost more than
/// 64 channels do.
class ChannelTiles {
 public:
  static constexpr Index tile = 64;
  /// Memory for n rows of d channels.
  static std::size_t floats(Index n, int d) {
    return std::size_t((n + tile - 1) / tile * tile) * std::size_t(d);
  }

  /// Copies rows [n, d] into `memory`, which must outlive it.
  ChannelTiles(std::span<const float> rows, Index n, int d, std::span<float> memory)
      : data_(memory.data()), n_(n), d_(d) {
    const std::size_t width = std::size_t(d);
    for (Index first = 0; first < n; first += tile) {
      float* const out = memory.data() + std::size_t(first) * width;
      for (std::size_t c = 0; c < width; ++c)
        for (Index i = first; i < std::min(n, first + tile); ++i)
          out[c * tile + std::size_t(i - first)] = rows[std::size_t(i) * width + c];
    }
  }

  /// The rows of tile i, from 0.
  Rows<float> at(Index i) const {
    return {data_ + std::ptrdiff_t(i) * tile * d_, std::min(tile, n_ - i * tile), d_, 1, tile};
  }

  /// out[q * stride + i] = scale * query q . row i; queries [count, d].
  void dots(const float* queries, int count, float scale, float* out, std::ptrdiff_t stride) const {
    for (Index i = 0; i * tile < n_; ++i)
      kernels::dot_group(at(i), queries, count, scale, out + std::ptrdiff_t(i) * tile, stride);
  }

 private:
  const float* data_;
  Index n_;
  int d_;
};

}  // namespace detail
}  // namespace kvist::inline KVIST_ABI
