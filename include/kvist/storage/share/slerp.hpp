#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/types.hpp>

#include <algorithm>
#include <cmath>

namespace kvist::inline KVIST_ABI {

/// Two rows as one direction between theirs: what spherical interpolation gave, and how far they were apart.
struct Slerp {
  double norm_x = 0, norm_y = 0;
  double angle = 0;  ///< between the rows, 0 .. pi
  /// angle / pi: 0 for rows of one direction, 1 for opposite ones.
  double distance() const { return angle / 3.14159265358979323846; }
};

/// e [d] = the unit vector on the way from x [d] to y [d], t = 0 giving the direction of x and t = 1 that of y:
///   e = sin((1-t) A) / sin A * x/|x| + sin(t A) / sin A * y/|y|,   A = arccos(x.y / (|x| |y|))
/// Where sin A is near 0 the straight mean, brought to norm 1; of opposite rows with t = 1/2, which have none, the direction of
/// x. A row of zeros takes the other's direction; two of them give zeros.
///
/// Restored, x' = |x| e differs from x by exactly 2 |x| sin(t A / 2), and y' = |y| e from y by 2 |y| sin((1-t) A / 2). A
/// common rotation of both rows rotates e, so that keys may be rotated before or after.
/// Source: Shoemake 1985; Liu et al. 2024, arXiv 2405.14366 (MiniCache).
inline Slerp slerp(const float* x, const float* y, int d, double t, float* e) {
  Slerp s;
  double dot = 0;
  for (int c = 0; c < d; ++c) {
    s.norm_x += double(x[c]) * double(x[c]);
    s.norm_y += double(y[c]) * double(y[c]);
    dot += double(x[c]) * double(y[c]);
  }
  s.norm_x = std::sqrt(s.norm_x);
  s.norm_y = std::sqrt(s.norm_y);
  if (!(s.norm_x > 0) || !(s.norm_y > 0)) {
    const float* const row = s.norm_x > 0 ? x : y;
    const double norm = std::max(s.norm_x, s.norm_y);
    for (int c = 0; c < d; ++c) e[c] = norm > 0 ? float(double(row[c]) / norm) : 0.0f;
    return s;
  }
  s.angle = std::acos(std::clamp(dot / (s.norm_x * s.norm_y), -1.0, 1.0));
  const double sine = std::sin(s.angle);
  double a = 1 - t, b = t;
  if (sine > 1e-6) a = std::sin((1 - t) * s.angle) / sine, b = std::sin(t * s.angle) / sine;
  a /= s.norm_x, b /= s.norm_y;
  double squares = 0;
  for (int c = 0; c < d; ++c)
    squares += (a * double(x[c]) + b * double(y[c])) * (a * double(x[c]) + b * double(y[c]));
  double by = 1 / std::sqrt(squares);
  if (!(squares > 1e-12)) a = 1 / s.norm_x, b = 0, by = 1;
  for (int c = 0; c < d; ++c) e[c] = float((a * double(x[c]) + b * double(y[c])) * by);
  return s;
}

}  // namespace kvist::inline KVIST_ABI
