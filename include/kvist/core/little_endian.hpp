#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/version.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstring>
#include <type_traits>

namespace kvist::inline KVIST_ABI {

/// The number whose little-endian bytes start at `from` (any alignment).
/// Requires: sizeof(T) readable bytes.
template <class T>
requires std::is_arithmetic_v<T> T read_le(const void* from) {
  std::array<unsigned char, sizeof(T)> bytes;
  std::memcpy(bytes.data(), from, sizeof(T));
  if constexpr (std::endian::native == std::endian::big) std::reverse(bytes.begin(), bytes.end());
  return std::bit_cast<T>(bytes);
}

/// Writes the little-endian bytes of `value` to `to` (any alignment).
/// Requires: sizeof(T) writable bytes.
template <class T>
requires std::is_arithmetic_v<T>
void write_le(void* to, T value) {
  auto bytes = std::bit_cast<std::array<unsigned char, sizeof(T)>>(value);
  if constexpr (std::endian::native == std::endian::big) std::reverse(bytes.begin(), bytes.end());
  std::memcpy(to, bytes.data(), sizeof(T));
}

}  // namespace kvist::inline KVIST_ABI
