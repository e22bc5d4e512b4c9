#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/types.hpp>

#include <bit>
#include <cstdint>

namespace kvist::inline KVIST_ABI {

/// f32 of a stored scalar; exact for every type.
constexpr float to_f32(float x) { return x; }

constexpr float to_f32(bf16 x) { return std::bit_cast<float>(std::uint32_t{x.bits} << 16); }

constexpr float to_f32(f16 x) {
  const std::uint32_t sign = std::uint32_t(x.bits & 0x8000u) << 16;
  const std::uint32_t exponent = (x.bits >> 10) & 31u, fraction = x.bits & 0x3ffu;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (fraction << 13));
  if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (fraction << 13));
  const float tiny = float(fraction) * 0x1p-24f;  // subnormal (or zero): fraction * 2^-24, exact in f32
  return sign ? -tiny : tiny;
}

/// The nearest f16, ties to even; values beyond 65504 become infinity, a NaN stays a NaN (quiet).
constexpr f16 to_f16(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u)  // NaN: keep the top of the payload, set the quiet bit
    return {std::uint16_t(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu))};
  if (magnitude >= 0x477ff000u) return {std::uint16_t(sign | 0x7c00u)};  // >= 65520 rounds to infinity
  if (magnitude < 0x38800000u) {  // below 2^-14: subnormal; adding 0.5 leaves value * 2^24 in the low bits, rounded
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return {std::uint16_t(sign | (std::bit_cast<std::uint32_t>(shifted) - 0x3f000000u))};
  }
  const std::uint32_t odd = (magnitude >> 13) & 1u;
  return {std::uint16_t(sign | ((magnitude - 0x38000000u + 0xfffu + odd) >> 13))};
}

/// The nearest bf16, ties to even; a NaN stays a NaN (quiet).
constexpr bf16 to_bf16(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {std::uint16_t((bits >> 16) | 0x40u)};
  return {std::uint16_t((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

/// The nearest value of type T.
template <Scalar T>
constexpr T from_f32(float x) {
  if constexpr (std::same_as<T, f16>) return to_f16(x);
  else if constexpr (std::same_as<T, bf16>) return to_bf16(x);
  else return x;
}

}  // namespace kvist::inline KVIST_ABI
