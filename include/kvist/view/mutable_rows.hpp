#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/half.hpp>
#include <kvist/core/types.hpp>

#include <concepts>
#include <cstddef>
#include <span>

namespace kvist::inline KVIST_ABI {

/// Rows [n, d] of T that may be written, contiguous or in pages (table null: one page of all rows). Owned by the engine.
/// Strides count elements.
template <Scalar T>
struct MutableRows {
  T* data = nullptr;
  const std::int32_t* table = nullptr;  ///< page numbers, or null
  Index n = 0;
  int d = 0;
  Index page = 0;                  ///< rows in a page; with a table only
  std::ptrdiff_t page_stride = 0;  ///< with a table only
  std::ptrdiff_t stride = 0;
  std::ptrdiff_t channel_stride = 1;

  T* row(Index i) const {
    return table ? data + table[i / page] * page_stride + (i % page) * stride : data + i * stride;
  }
  /// Row i as f32 [d].
  void read(Index i, std::span<float> out) const {
    for (int c = 0; c < d; ++c) out[std::size_t(c)] = to_f32(row(i)[c * channel_stride]);
  }
  /// Row i from f32 [d], rounded to T.
  void write(Index i, std::span<const float> x) const {
    for (int c = 0; c < d; ++c) row(i)[c * channel_stride] = from_f32<T>(x[std::size_t(c)]);
  }
  /// Copies row `from` to row `to`, bit for bit.
  void copy(Index from, Index to) const {
    const T* const a = row(from);
    T* const b = row(to);
    for (int c = 0; c < d; ++c) b[c * channel_stride] = a[c * channel_stride];
  }
};

}  // namespace kvist::inline KVIST_ABI
