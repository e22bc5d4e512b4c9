#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/half.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

namespace kvist::inline KVIST_ABI {

/// The uniform code of a group between its least and its largest value: code c in 0 .. top stands for scale * c + minimum.
///
/// Scale and minimum are first rounded to the type S that stores them, and codes are fitted to the rounded numbers; ties
/// go to the even code. A group of one value has scale 0 and codes 0. Numbers beyond S's range are cut to it.
template <Scalar S>
struct Affine {
  float scale = 0, minimum = 0;

  static float stored(float x) {
    constexpr float most = std::same_as<S, f16>    ? 65504.0f
                           : std::same_as<S, bf16> ? to_f32(bf16{0x7f7f})  // the largest f32 rounds to infinity
                                                   : std::numeric_limits<float>::max();
    return to_f32(from_f32<S>(std::clamp(x, -most, most)));
  }
  static Affine of(float least, float largest, int top) {
    return {stored((largest - least) / float(top)), stored(least)};
  }
  /// NaN has code 0.
  int code(float x, int top) const {
    const float t = scale > 0 ? (x - minimum) / scale : 0.0f;
    if (!(t > 0)) return 0;
    if (t >= float(top)) return top;
    return int(std::bit_cast<std::uint32_t>(t + 0x1p23f) - 0x4b000000u);  // nearest, ties to even: 0 < t < 2^22
  }
  float value(int c) const { return scale * float(c) + minimum; }
};

namespace detail {

/// Least and largest of n numbers at a stride; NaN is passed over.
inline void range_of(const float* x, Index n, std::ptrdiff_t stride, float& least, float& largest) {
  least = std::numeric_limits<float>::max();
  largest = -least;
  for (Index i = 0; i < n; ++i) {
    const float v = x[i * stride];
    if (v < least) least = v;
    if (v > largest) largest = v;
  }
  if (least > largest) least = largest = 0;
}

/// n codes of `bits` bits, lowest bits first. Requires: 1 <= bits <= 8; ceil(n * bits / 8) bytes.
inline void pack_bits(const std::uint8_t* codes, std::size_t n, int bits, std::byte* out) {
  unsigned held = 0;
  int count = 0;
  for (std::size_t i = 0; i < n; ++i) {
    held |= unsigned(codes[i]) << count;
    for (count += bits; count >= 8; count -= 8, held >>= 8) *out++ = std::byte(held & 255u);
  }
  if (count > 0) *out = std::byte(held & 255u);
}

/// Code number i of what pack_bits wrote.
inline int bits_at(const std::byte* in, std::size_t i, int bits) {
  const std::size_t bit = i * std::size_t(bits), byte = bit / 8;
  const int shift = int(bit % 8);
  unsigned word = unsigned(in[byte]);
  if (shift + bits > 8) word |= unsigned(in[byte + 1]) << 8;
  return int((word >> shift) & ((1u << bits) - 1u));
}

template <Scalar S>
void put(std::byte* out, std::size_t i, float x) {
  const S s = from_f32<S>(x);
  std::memcpy(out + i * sizeof(S), &s, sizeof(S));
}
template <Scalar S>
float get(const std::byte* in, std::size_t i) {
  S s;
  std::memcpy(&s, in + i * sizeof(S), sizeof(S));
  return to_f32(s);
}

}  // namespace detail
}  // namespace kvist::inline KVIST_ABI
