#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>
#include <kvist/core/fields.hpp>

#include <bit>
#include <cmath>
#include <utility>
#include <vector>

namespace kvist::inline KVIST_ABI {

/// x [d] times the normalised Hadamard matrix in Sylvester order, in place; it is its own inverse. Requires: d a power of
/// two. Cost: d log2 d additions.
inline void hadamard(float* x, int d) {
  for (int half = 1; half < d; half *= 2)
    for (int i = 0; i < d; i += 2 * half)
      for (int j = i; j < i + half; ++j) {
        const float a = x[j], b = x[j + half];
        x[j] = a + b;
        x[j + half] = a - b;
      }
  const float scale = 1.0f / std::sqrt(float(d));
  for (int i = 0; i < d; ++i) x[i] *= scale;
}

/// Rows are turned by a Hadamard matrix before C codes them, and turned back after: an outlier channel spreads over all.
/// Dot products do not change by the turn. Fails with: bad_shape (d is no power of two), what C says.
template <Codec C>
struct Rotated {
  using Model = typename C::Model;
  C inner{};

  Status validate(int d) const {
    if (d < 1 || !std::has_single_bit(unsigned(d)))
      return Error{Errc::bad_shape, "rotated rows want a head dimension that is a power of two", 64, d};
    if constexpr (requires { inner.validate(d); }) return inner.validate(d);
    else return Done{};
  }
  template <class V, class Self>
  static void fields(V& v, Self& c) {
    v.same("rotated");
    visit_fields(v, c.inner);
  }
  Index block_rows() const { return inner.block_rows(); }
  std::size_t block_bytes(int d) const { return inner.block_bytes(d); }
  void encode(const Model& m, const float* rows, Index n, int d, std::byte* out) const {
    std::vector<float> turned(rows, rows + std::ptrdiff_t(n) * d);
    for (Index i = 0; i < n; ++i) hadamard(turned.data() + std::ptrdiff_t(i) * d, d);
    inner.encode(m, turned.data(), n, d, out);
  }
  void decode(const Model& m, const std::byte* in, Index n, int d, float* out) const {
    inner.decode(m, in, n, d, out);
    for (Index i = 0; i < n; ++i) hadamard(out + std::ptrdiff_t(i) * d, d);
  }
};

}  // namespace kvist::inline KVIST_ABI
