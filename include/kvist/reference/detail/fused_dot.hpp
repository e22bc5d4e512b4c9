#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/types.hpp>
#include <kvist/reference/detail/lanes.hpp>

#include <cstddef>
#include <type_traits>

namespace kvist::inline KVIST_ABI {
namespace detail {

/// Weights whose blocks are expanded in registers: 32 values from `bytes` bytes, as two Lanes. The values are those of
/// dequantising, bit for bit: n d is exact in f32, so one rounding at most is left in n d + m.
struct F32Block {
  static constexpr std::size_t bytes = 128;
  static void expand(const std::byte* p, Lanes& a, Lanes& b) {
    a = Lanes::from_f32(p);
    b = Lanes::from_f32(p + 64);
  }
};

struct F16Block {
  static constexpr std::size_t bytes = 64;
  static void expand(const std::byte* p, Lanes& a, Lanes& b) {
    a = Lanes::from_f16(p);
    b = Lanes::from_f16(p + 32);
  }
};

struct Q8_0Block {
  static constexpr std::size_t bytes = 34;
  static void expand(const std::byte* p, Lanes& a, Lanes& b) {
    const Lanes d = Lanes::all(load_f16(p));
    a = Lanes::from_i8(p + 2) * d;
    b = Lanes::from_i8(p + 18) * d;
  }
};

struct Q4_0Block {
  static constexpr std::size_t bytes = 18;
  static void expand(const std::byte* p, Lanes& a, Lanes& b) {
    const float d = load_f16(p);
    expand_nibbles(p + 2, d, -8 * d, a, b);
  }
};

struct Q4_1Block {
  static constexpr std::size_t bytes = 20;
  static void expand(const std::byte* p, Lanes& a, Lanes& b) {
    float d, m;
    load_two_f16(p, d, m);
    expand_nibbles(p + 4, d, m, a, b);
  }
};

/// y[t, r] = w[r] . x[t] for R rows of W and T tokens; each weight is expanded once. The sum of a row has one order,
/// whatever R and T are.
/// Requires: cols % 32 == 0.
template <class Block, int R, int T>
void fused_dot(const std::byte* w, std::size_t row_bytes, Index cols, const float* x, std::ptrdiff_t x_stride,
               float* y, std::ptrdiff_t y_stride) {
  Lanes sum[R][T];
  for (auto& row : sum)
    for (Lanes& s : row) s = Lanes::zero();
  for (Index c = 0; c < cols; c += 32, w += Block::bytes)
    for (int r = 0; r < R; ++r) {
      Lanes a, b;
      // several rows at once are several short streams, which the hardware is slow to follow
      __builtin_prefetch(w + std::size_t(r) * row_bytes + 4096);
      Block::expand(w + std::size_t(r) * row_bytes, a, b);
      for (int t = 0; t < T; ++t) {
        sum[r][t] = Lanes::fma(a, Lanes::load(x + t * x_stride + c), sum[r][t]);
        sum[r][t] = Lanes::fma(b, Lanes::load(x + t * x_stride + c + lanes), sum[r][t]);
      }
    }
  for (int r = 0; r < R; ++r)
    for (int t = 0; t < T; ++t) y[t * y_stride + r] = sum[r][t].sum();
}

/// The same for any number of rows and 1 to 4 tokens.
template <class Block>
void fused_rows(const std::byte* w, std::size_t row_bytes, Index rows, Index cols, const float* x,
                std::ptrdiff_t x_stride, Index tokens, float* y, std::ptrdiff_t y_stride) {
  const auto run = [&]<int T>(std::integral_constant<int, T>) {
    constexpr int R = T < 3 ? 4 : 2;  // sums that fit in registers, and enough of them to hide the latency
    Index r = 0;
    for (; r + R <= rows; r += R)
      fused_dot<Block, R, T>(w + std::size_t(r) * row_bytes, row_bytes, cols, x, x_stride, y + r, y_stride);
    for (; r < rows; ++r)
      fused_dot<Block, 1, T>(w + std::size_t(r) * row_bytes, row_bytes, cols, x, x_stride, y + r, y_stride);
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
