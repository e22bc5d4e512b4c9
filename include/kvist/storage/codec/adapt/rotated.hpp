#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>
#include <kvist/core/fields.hpp>
#include <kvist/kernels/hadamard.hpp>
#include <kvist/storage/codec/detail/rewrite_row.hpp>

#include <bit>
#include <vector>

namespace kvist::inline KVIST_ABI {

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
    kernels::hadamard(turned.data(), n, d);
    inner.encode(m, turned.data(), n, d, out);
  }
  void decode(const Model& m, const std::byte* in, Index n, int d, float* out) const {
    inner.decode(m, in, n, d, out);
    kernels::hadamard(out, n, d);
  }
  void rewrite(const Model& m, std::byte* block, Index i, int d, const float* row) const {
    std::vector<float> turned(row, row + d);
    kernels::hadamard(turned.data(), 1, d);
    detail::rewrite_row(inner, m, block, i, d, turned.data());
  }
};

}  // namespace kvist::inline KVIST_ABI
