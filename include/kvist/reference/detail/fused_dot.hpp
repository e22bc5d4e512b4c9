#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/types.hpp>
#include <kvist/reference/detail/lanes.hpp>

#include <cstddef>
#include <type_traits>

namespace kvist::inline KVIST_ABI {
namespace detail {

/// Blocks of 32 weights, expanded in registers: a weight is d c, or d c + m, with c a code (two Lanes of them) and the
/// numbers d and m, which the block begins with in f16. All of these are exact in f32, so no weight is rounded: a block
/// adds d sum(c x) and m sum(x).
struct F32Block {
  static constexpr std::size_t bytes = 128;
  static constexpr int scales = 0;
  static void codes(const std::byte* p, Lanes& a, Lanes& b) {
    a = Lanes::from_f32(p);
    b = Lanes::from_f32(p + 64);
  }
};

struct F16Block {
  static constexpr std::size_t bytes = 64;
  static constexpr int scales = 0;
  static void codes(const std::byte* p, Lanes& a, Lanes& b) {
    a = Lanes::from_f16(p);
    b = Lanes::from_f16(p + 32);
  }
};

struct Q8_0Block {
  static constexpr std::size_t bytes = 34;
  static constexpr int scales = 1;
  static void codes(const std::byte* p, Lanes& a, Lanes& b) {
    a = Lanes::from_i8(p + 2);
    b = Lanes::from_i8(p + 18);
  }
};

struct Q4_0Block {
  static constexpr std::size_t bytes = 18;
  static constexpr int scales = 1;
  static void codes(const std::byte* p, Lanes& a, Lanes& b) { nibbles<-8>(p + 2, a, b); }
};

struct Q4_1Block {
  static constexpr std::size_t bytes = 20;
  static constexpr int scales = 2;
  static void codes(const std::byte* p, Lanes& a, Lanes& b) { nibbles<0>(p + 4, a, b); }
};

/// sums [cols / 32] of 32 numbers each.
inline void block_sums(const float* x, Index cols, float* sums) {
  const Lanes one = Lanes::all(1);
  for (Index c = 0; c < cols; c += 32)
    *sums++ = Lanes::fma(Lanes::load(x + c), one, Lanes::load(x + c + lanes)).sum();
}

/// y[t, r] = w[r] . x[t] for R rows of W and T tokens; each weight is expanded once. The sum of a row has one order,
/// whatever R and T are. sums [T, cols / 32]: block_sums of each token.
/// Requires: cols % 32 == 0.
template <class Block, int R, int T>
void fused_dot(const std::byte* w, std::size_t row_bytes, Index cols, const float* x, std::ptrdiff_t x_stride,
               const float* sums, float* y, std::ptrdiff_t y_stride) {
  Lanes sum[R][T];
  float least[R][T] = {};
  for (auto& row : sum)
    for (Lanes& s : row) s = Lanes::zero();
  // The rows after these, in the order of memory: several rows at once are several short streams, which the hardware is
  // slow to follow.
  const std::byte* ahead = w + R * row_bytes + 1024;
  for (Index c = 0; c < cols; c += 32, w += Block::bytes, ++sums) {
    for (std::size_t i = 0; i < R * Block::bytes; i += 64) __builtin_prefetch(ahead + i);
    ahead += R * Block::bytes;
#pragma GCC unroll 8  // left as a loop its sums would live in memory
    for (int r = 0; r < R; ++r) {
      const std::byte* const block = w + std::size_t(r) * row_bytes;
      Lanes a, b;
      Block::codes(block, a, b);
      float d = 1, m = 0;
      if constexpr (Block::scales == 1) d = load_f16(block);
      if constexpr (Block::scales == 2) load_two_f16(block, d, m);
      for (int t = 0; t < T; ++t) {
        const Lanes x0 = Lanes::load(x + t * x_stride + c), x1 = Lanes::load(x + t * x_stride + c + lanes);
        if constexpr (Block::scales == 0) sum[r][t] = Lanes::fma(b, x1, Lanes::fma(a, x0, sum[r][t]));
        else sum[r][t] = Lanes::fma(Lanes::fma(b, x1, a * x0), Lanes::all(d), sum[r][t]);
        if constexpr (Block::scales == 2) least[r][t] += m * sums[t * (cols / 32)];
      }
    }
  }
  for (int r = 0; r < R; ++r)
    for (int t = 0; t < T; ++t) y[t * y_stride + r] = sum[r][t].sum() + least[r][t];
}

/// The same for any number of rows and 1 to 4 tokens.
template <class Block>
void fused_rows(const std::byte* w, std::size_t row_bytes, Index rows, Index cols, const float* x,
                std::ptrdiff_t x_stride, const float* sums, Index tokens, float* y, std::ptrdiff_t y_stride) {
  const auto run = [&]<int T>(std::integral_constant<int, T>) {
    // sums that fit in registers, and enough of them to hide the latency
    constexpr int R = T == 1 ? lane_sums : T == 2 ? 4 : 2;
    Index r = 0;
    for (; r + R <= rows; r += R)
      fused_dot<Block, R, T>(w + std::size_t(r) * row_bytes, row_bytes, cols, x, x_stride, sums, y + r,
                             y_stride);
    for (; r < rows; ++r)
      fused_dot<Block, 1, T>(w + std::size_t(r) * row_bytes, row_bytes, cols, x, x_stride, sums, y + r,
                             y_stride);
  };
  switch (tokens) {
    case 1:
      return run(std::integral_constant<int, 1>{});
    case 2:
      return run(std::integral_constant<int, 2>{});
    case 3:
      return run(std::integral_constant<int, 3>{});
    default:
      return run(std::integral_constant<int, 4>{});
  }
}

}  // namespace detail
}  // namespace kvist::inline KVIST_ABI
