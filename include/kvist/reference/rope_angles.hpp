#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/types.hpp>
#include <kvist/reference/detail/eigen.hpp>
#include <kvist/view/rope.hpp>

#include <cmath>
#include <cstddef>

namespace kvist::inline KVIST_ABI {

/// Cosines and sines of a RopeTable for a run of positions, made once for all layers and heads of a call. Angles are
/// f64 and rounded once, so that far positions turn as exactly as near ones.
class RopeAngles {
 public:
  /// Holds positions first .. first + count - 1 from now on. Allocates only where it never held as many.
  void prepare(const RopeTable& table, Pos first, Index count) {
    pairs_ = table.pairs;
    half_ = table.frequency.size();
    first_ = first;
    const std::size_t size = std::size_t(count) * half_;
    if (cos_.size() < size) {
      cos_.resize(size);
      sin_.resize(size);
    }
    for (Index i = 0; i < count; ++i)
      for (std::size_t f = 0; f < half_; ++f) {
        const double angle = double(first + i) * table.frequency[f];
        cos_[std::size_t(i) * half_ + f] = float(std::cos(angle)) * table.scale;
        sin_[std::size_t(i) * half_ + f] = float(std::sin(angle)) * table.scale;
      }
  }

  /// Turns `heads` vectors x [heads, d] to `position`: (a, b) -> (a cos - b sin, a sin + b cos) for each pair.
  /// Requires: a position that was prepared.
  void rotate(float* x, int heads, int d, Pos position) const {
    const float* const c = cos_.data() + std::size_t(position - first_) * half_;
    const float* const s = sin_.data() + std::size_t(position - first_) * half_;
    const std::size_t step = pairs_ == RopePairs::neighbours ? 2 : 1, apart = step == 2 ? 1 : half_;
    for (int h = 0; h < heads; ++h, x += d)
      for (std::size_t f = 0; f < half_; ++f) {
        float& first = x[f * step];
        float& second = x[f * step + apart];
        const float a = first, b = second;
        first = a * c[f] - b * s[f];
        second = a * s[f] + b * c[f];
      }
  }

 private:
  RopePairs pairs_ = RopePairs::neighbours;
  std::size_t half_ = 0;
  Pos first_ = 0;
  detail::Floats cos_, sin_;  // [count, half]
};

}  // namespace kvist::inline KVIST_ABI
