#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/types.hpp>
#include <kvist/reference/detail/eigen.hpp>
#include <kvist/reference/detail/lanes.hpp>
#include <kvist/reference/detail/panel_product.hpp>

#include <algorithm>
#include <cstddef>

namespace kvist::inline KVIST_ABI {
namespace detail {

/// The keys and values of one KV head in f32, laid out for the two products of attention: S = Q K^T and O = P V.
///
/// Where Lanes are registers, keys lie in panels of panel_columns entries with their channels outermost, and values are
/// padded to whole panels of channels; else both are plain rows for Eigen.
class HeadRows {
 public:
  static constexpr Index panel = lanes_are_registers ? panel_columns : 1;
  static constexpr Index whole(Index n) { return (n + panel - 1) / panel * panel; }

  void resize(Index entries, Index dk, Index dv) {
    dk_ = dk;
    dv_ = dv;
    k_.resize(std::size_t(whole(entries)) * std::size_t(dk));
    v_.resize(std::size_t(entries) * std::size_t(whole(dv)));
    if (entries < whole(entries))  // keys that do not exist must not be NaN: their logits are computed, then masked
      std::fill(k_.end() - std::ptrdiff_t(panel) * dk, k_.end(), 0.0f);
  }
  Index out_columns() const { return whole(dv_); }

  /// Entries first .. first + count - 1, read at the given strides.
  void put(Index first, Index count, const float* k, Index k_stride, const float* v, Index v_stride) {
    for (Index i = 0; i < count; ++i) {
      const Index entry = first + i;
      const float* const from = k + std::ptrdiff_t(i) * k_stride;
      float* const to = k_.data() + std::ptrdiff_t(entry / panel) * panel * dk_ + entry % panel;
      for (Index c = 0; c < dk_; ++c) to[std::ptrdiff_t(c) * panel] = from[c];
      float* const value = v_.data() + std::ptrdiff_t(entry) * out_columns();
      std::copy_n(v + std::ptrdiff_t(i) * v_stride, dv_, value);
      std::fill(value + dv_, value + out_columns(), 0.0f);
    }
  }

  /// s [rows, entries rounded up to panels] = q [rows, dk] K^T over the first `entries` entries; s has rows `stride` apart.
  void logits(const float* q, Index rows, Index entries, float* s, Index stride) const {
    if constexpr (lanes_are_registers) {
      for (Index e = 0; e < entries; e += panel)
        panel_product(q, dk_, rows, k_.data() + std::ptrdiff_t(e) * dk_, panel, dk_, s + e, stride);
    } else {
      matrix(s, rows, entries, stride).noalias() =
          matrix(q, rows, dk_, dk_) * matrix(k_.data(), entries, dk_, dk_).transpose();
    }
  }
  /// o [rows, out_columns] = p [rows, entries] V; p has rows `stride` apart.
  void weigh(const float* p, Index stride, Index rows, Index entries, float* o) const {
    const Index columns = out_columns();
    if constexpr (lanes_are_registers) {
      for (Index c = 0; c < columns; c += panel)
        panel_product(p, stride, rows, v_.data() + c, columns, entries, o + c, columns);
    } else {
      matrix(o, rows, columns, columns).noalias() =
          matrix(p, rows, entries, stride) * matrix(v_.data(), entries, columns, columns);
    }
  }

 private:
  Index dk_ = 0, dv_ = 0;
  Floats k_;  // [panels, dk, panel]
  Floats v_;  // [entries, out_columns]
};

}  // namespace detail
}  // namespace kvist::inline KVIST_ABI
