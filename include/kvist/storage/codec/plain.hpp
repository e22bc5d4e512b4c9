#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>
#include <kvist/core/half.hpp>

#include <cstring>

namespace kvist::inline KVIST_ABI {

/// Rows rounded to f16 or bf16, or kept as f32: the codec that has no code, beside others in a store.
template <Scalar T>
struct Plain {
  using Model = Nothing;
  Index block_rows() const { return 1; }
  std::size_t block_bytes(int d) const { return std::size_t(d) * sizeof(T); }
  template <class V, class Self>
  static void fields(V& v, Self&) {
    v.same(std::same_as<T, float> ? "f32" : std::same_as<T, f16> ? "f16" : "bf16");
  }
  void encode(const Model&, const float* rows, Index n, int d, std::byte* out) const {
    for (std::ptrdiff_t i = 0; i < std::ptrdiff_t(n) * d; ++i) {
      const T x = from_f32<T>(rows[i]);
      std::memcpy(out + std::size_t(i) * sizeof(T), &x, sizeof(T));
    }
  }
  void decode(const Model&, const std::byte* in, Index n, int d, float* out) const {
    for (std::ptrdiff_t i = 0; i < std::ptrdiff_t(n) * d; ++i) {
      T x;
      std::memcpy(&x, in + std::size_t(i) * sizeof(T), sizeof(T));
      out[i] = to_f32(x);
    }
  }
};
static_assert(Codec<Plain<f16>>);

}  // namespace kvist::inline KVIST_ABI
