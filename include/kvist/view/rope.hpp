#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/types.hpp>

#include <cmath>
#include <span>
#include <vector>

namespace kvist::inline KVIST_ABI {

/// Which channels of a head form a rotary pair f.
enum class RopePairs : std::uint8_t {
  half_split,  ///< (f, f + rotary/2): Hugging Face, GPT-NeoX
  neighbours,  ///< (2f, 2f + 1): GGUF files of Llama architecture, the original paper
};

/// The rotation that an engine applies to queries and keys: pair f turns by position * frequency[f]. Channels at and
/// beyond 2 * frequency.size() are not rotated (partial rotary). `scale` multiplies the rotated channels (YaRN's
/// attention factor); 1 otherwise.
/// Source: Su et al. 2021, arXiv 2104.09864.
struct RopeTable {
  std::vector<double> frequency;  ///< [rotary/2] radians per position
  RopePairs pairs = RopePairs::half_split;
  float scale = 1;

  /// The unscaled table: frequency[f] = base^(-2f / rotary_dims).
  static RopeTable standard(int rotary_dims, double base, RopePairs pairs) {
    RopeTable t;
    t.pairs = pairs;
    t.frequency.resize(std::size_t(rotary_dims / 2));
    for (std::size_t f = 0; f < t.frequency.size(); ++f)
      t.frequency[f] = std::pow(base, -2.0 * double(f) / double(rotary_dims));
    return t;
  }

  int rotary_dims() const { return int(2 * frequency.size()); }
  /// Channels of pair f.
  std::pair<int, int> channels(int f) const {
    return pairs == RopePairs::half_split ? std::pair{f, f + int(frequency.size())}
                                          : std::pair{2 * f, 2 * f + 1};
  }
  /// Turns x [d] by `positions` steps, in place; negative turns back. A key stored for position p is moved to
  /// position p' in one step by rotate(x, p' - p, false): never step by step, so that rounding does not add up.
  /// `apply_scale` is false where x has been scaled before. Requires: rotary_dims() <= x.size().
  void rotate(std::span<float> x, double positions, bool apply_scale = true) const {
    const float s = apply_scale ? scale : 1.0f;
    for (int f = 0; f < int(frequency.size()); ++f) {
      const double angle = positions * frequency[std::size_t(f)];
      const float c = float(std::cos(angle)), sn = float(std::sin(angle));
      const auto [i, j] = channels(f);
      const float a = x[std::size_t(i)], b = x[std::size_t(j)];
      x[std::size_t(i)] = s * (a * c - b * sn);
      x[std::size_t(j)] = s * (a * sn + b * c);
    }
  }
};

}  // namespace kvist::inline KVIST_ABI
