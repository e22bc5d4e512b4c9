#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>

namespace kvist::inline KVIST_ABI {

/// A number of 8 bits: sign, E exponent bits, M mantissa bits. With `infinities` the top exponent holds infinity and NaN
/// (E5M2, largest 57344); without, only all ones are a NaN (E4M3, largest 448).
/// Source: OCP 8-bit Floating Point Specification (OFP8), 2023.
template <int E, int M, bool Infinities>
struct Fp8Format {
  static constexpr int bias = (1 << (E - 1)) - 1;
  static constexpr std::uint8_t largest = Infinities ? ((1 << E) - 1) * (1 << M) - 1 : (1 << (E + M)) - 2;

  /// The nearest number, ties to even; what is too large becomes the largest finite one, NaN stays NaN.
  static std::uint8_t encode(float x) {
    const std::uint8_t sign = std::signbit(x) ? 0x80 : 0;
    if (std::isnan(x)) return std::uint8_t(sign | 0x7f);
    const float a = std::fabs(x);
    if (a >= decode(largest)) return std::uint8_t(sign | largest);
    // below 2^(1 - bias) steps are even; above, round the mantissa's lowest 23 - M bits away
    if (a < std::ldexp(1.0f, 1 - bias))
      return std::uint8_t(sign | std::uint8_t(std::nearbyint(std::ldexp(a, bias - 1 + M))));
    std::uint32_t bits = std::bit_cast<std::uint32_t>(a);
    bits += ((1u << (22 - M)) - 1u) + ((bits >> (23 - M)) & 1u);
    const std::uint32_t code = (bits >> (23 - M)) - std::uint32_t((127 - bias) << M);
    return std::uint8_t(sign | (code > largest ? largest : std::uint8_t(code)));
  }
  static float decode(std::uint8_t code) {
    const int exponent = (code >> M) & ((1 << E) - 1), mantissa = code & ((1 << M) - 1);
    const float sign = (code & 0x80) ? -1.0f : 1.0f;
    if ((code & 0x7f) > largest) return (Infinities && mantissa == 0) ? sign * HUGE_VALF : std::nanf("");
    if (exponent == 0) return sign * std::ldexp(float(mantissa), 1 - bias - M);
    return sign * std::ldexp(float((1 << M) + mantissa), exponent - bias - M);
  }
};
using E4M3 = Fp8Format<4, 3, false>;
using E5M2 = Fp8Format<5, 2, true>;

/// One byte a channel and no scale: numbers beyond the format's largest are cut to it.
template <class F>
struct Fp8 {
  using Model = Nothing;
  template <class V, class Self>
  static void fields(V& v, Self&) {
    v.same(std::same_as<F, E4M3> ? "fp8_e4m3" : std::same_as<F, E5M2> ? "fp8_e5m2" : "fp8");
    v.same(F::bias), v.same(F::largest);
  }
  Index block_rows() const { return 1; }
  std::size_t block_bytes(int d) const { return std::size_t(d); }
  void encode(const Model&, const float* rows, Index n, int d, std::byte* out) const {
    for (std::ptrdiff_t i = 0; i < std::ptrdiff_t(n) * d; ++i) out[i] = std::byte(F::encode(rows[i]));
  }
  void decode(const Model&, const std::byte* in, Index n, int d, float* out) const {
    static const std::array<float, 256> table = [] {
      std::array<float, 256> t{};
      for (int c = 0; c < 256; ++c) t[std::size_t(c)] = F::decode(std::uint8_t(c));
      return t;
    }();
    for (std::ptrdiff_t i = 0; i < std::ptrdiff_t(n) * d; ++i) out[i] = table[std::size_t(in[i])];
  }
};
static_assert(Codec<Fp8<E4M3>> && Codec<Fp8<E5M2>>);

}  // namespace kvist::inline KVIST_ABI
