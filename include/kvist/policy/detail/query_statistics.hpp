#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>
#include <kvist/kernels/rows.hpp>
#include <kvist/policy/detail/channel_tiles.hpp>

#include <algorithm>
#include <cmath>
#include <complex>
#include <span>
#include <vector>

namespace kvist::inline KVIST_ABI {
namespace detail {

/// The mean over `count` positions from `first` of the rotation of each pair: cos and sin, not scaled.
struct MeanRotation {
  std::vector<double> cosine, sine;  ///< [rotary/2]

  MeanRotation(const RopeTable& rope, double first, Index count) {
    for (const double f : rope.frequency) {
      std::complex<double> turn = std::polar(1.0, f * first), sum = 0;
      const std::complex<double> step = std::polar(1.0, f);
      for (Index i = 0; i < count; ++i, turn *= step) sum += turn;
      cosine.push_back(sum.real() / count);
      sine.push_back(sum.imag() / count);
    }
  }
};

/// Mean and covariance of the queries of one query group before their rotation, in memory that does not grow
/// with their number. A scale in the rotation stays in them.
class QueryStatistics {
 public:
  long long count() const { return count_; }

  /// Adds the queries [G, w, dk] at positions first, first + 1, ..., rotated; those at positions below `skip`
  /// do not count.
  void add(const Cube& queries, Pos first, Pos skip, const RopeTable& rope) {
    const std::size_t d = std::size_t(queries.n), group = std::size_t(queries.g);
    if (origin_.size() != group * d) {
      *this = {};
      d_ = d;
      origin_.assign(group * d, 0.0);
      sum_.assign(group * d, 0.0);
      square_.assign(group * triangle(d), 0.0);
    }
    const Index begin = Index(std::clamp<long long>((long long)skip - first, 0, queries.w));
    if (begin == queries.w) return;
    // cos and sin of a position follow from the one before by one step of each pair: in f64 rounding adds
    // some 1e-16 a position, from the start of the call.
    std::vector<std::complex<double>> turn, step;
    for (const double f : rope.frequency) {
      turn.push_back(std::polar(1.0, -f * double(first + begin)));
      step.push_back(std::polar(1.0, -f));
    }
    std::vector<double> back(d);
    std::vector<float> x(group * std::size_t(chunk) * d), columns(ChannelTiles::floats(chunk, int(d))),
        products(d * d);
    for (Index at = begin; at < queries.w; at += chunk) {
      const Index n = std::min(chunk, queries.w - at);
      for (Index i = 0; i < n; ++i) {
        for (std::size_t g = 0; g < group; ++g)
          unrotate(queries.row(int(g), at + i), g, rope, turn, back,
                   &x[(g * std::size_t(chunk) + std::size_t(i)) * d]);
        for (std::size_t f = 0; f < turn.size(); ++f) turn[f] *= step[f];
        ++count_;
      }
      for (std::size_t g = 0; g < group; ++g)
        fold(std::span<const float>(x).subspan(g * std::size_t(chunk) * d, std::size_t(n) * d), n, g, columns,
             products);
    }
  }

  /// Mean [dk] and covariance [dk, dk] (divisor n) of query head g, turned by a mean rotation. Requires:
  /// count() > 0.
  void future(int g, const RopeTable& rope, const MeanRotation& turn, std::span<float> mean,
              std::span<float> covariance) const {
    const std::size_t at = std::size_t(g) * d_;
    std::vector<double> m(d_), s(d_ * d_);
    for (std::size_t i = 0; i < d_; ++i) m[i] = sum_[at + i] / double(count_);
    for (std::size_t i = 0; i < d_; ++i)
      for (std::size_t j = 0; j <= i; ++j)
        s[i * d_ + j] = s[j * d_ + i] =
            square_[std::size_t(g) * triangle(d_) + triangle(i) + j] / double(count_) - m[i] * m[j];
    for (std::size_t i = 0; i < d_; ++i) m[i] += origin_[at + i];
    const auto rotate = [&](double* x, std::ptrdiff_t stride) {
      for (std::size_t f = 0; f < turn.cosine.size(); ++f) {
        const auto [a, b] = rope.channels(int(f));
        double &u = x[a * stride], &v = x[b * stride];
        const double left = u * turn.cosine[f] - v * turn.sine[f];
        v = u * turn.sine[f] + v * turn.cosine[f];
        u = left;
      }
    };
    rotate(m.data(), 1);
    for (std::size_t i = 0; i < d_; ++i) rotate(s.data() + i * d_, 1);              // S R^T
    for (std::size_t i = 0; i < d_; ++i) rotate(s.data() + i, std::ptrdiff_t(d_));  // R (S R^T)
    for (std::size_t i = 0; i < d_; ++i) mean[i] = float(m[i]);
    for (std::size_t i = 0; i < d_ * d_; ++i) covariance[i] = float(s[i]);
  }
  /// For snapshots.
  template <class V, class Self>
  static void fields(V& v, Self& s, const Shape& shape) {
    const std::size_t d = std::size_t(shape.dim_k), group = std::size_t(shape.group());
    v.number(s.d_, 0, d);
    v.number(s.count_, 0, 1ll << 40);
    v.list(s.origin_, group * d);
    v.list(s.sum_, group * d);
    v.list(s.square_, group * triangle(d));
    if (v.good() && s.count_ + (long long)s.d_ > 0 &&
        (s.d_ != d || s.origin_.size() != group * d || s.sum_.size() != group * d ||
         s.square_.size() != group * triangle(d)))
      v.fail({Errc::bad_file, "statistics of queries in a snapshot against the model's shape", (long long)d,
              (long long)s.d_});
  }

 private:
  /// Queries whose products are added up in f32 before they join the f64 sums.
  static constexpr Index chunk = ChannelTiles::tile;

  /// One query turned back (x [dk]), as its distance from the first one: far fewer digits cancel in the covariance.
  /// out [dk].
  void unrotate(std::span<const float> q, std::size_t g, const RopeTable& rope,
                std::span<const std::complex<double>> turn, std::span<double> x, float* out) {
    std::copy(q.begin(), q.end(), x.begin());
    for (std::size_t f = 0; f < turn.size(); ++f) {
      const auto [i, j] = rope.channels(int(f));
      double &a = x[std::size_t(i)], &b = x[std::size_t(j)];
      const double left = a * turn[f].real() - b * turn[f].imag();
      b = a * turn[f].imag() + b * turn[f].real();
      a = left;
    }
    double* const origin = &origin_[g * d_];
    if (count_ == 0) std::copy(x.begin(), x.end(), origin);
    for (std::size_t i = 0; i < d_; ++i) out[i] = float(x[i] - origin[i]);
  }

  /// Adds the queries x [n, dk] of query head g.
  void fold(std::span<const float> x, Index n, std::size_t g, std::span<float> columns,
            std::span<float> products) {
    for (std::size_t at = 0; at < x.size(); at += d_)
      for (std::size_t i = 0; i < d_; ++i) sum_[g * d_ + i] += double(x[at + i]);
    const Rows<float> by_channel = ChannelTiles(x, n, int(d_), columns).at(0);
    std::fill(products.begin(), products.end(), 0.0f);
    kernels::axpy_group(rows(x.data(), n, int(d_)), by_channel.data, by_channel.channel_stride, int(d_),
                        products.data());
    for (std::size_t i = 0; i < d_; ++i) {
      double* const row = square_.data() + g * triangle(d_) + triangle(i);
      for (std::size_t j = 0; j <= i; ++j) row[j] += double(products[i * d_ + j]);
    }
  }

  /// Elements of the rows before row i of a lower triangle.
  static constexpr std::size_t triangle(std::size_t i) { return i * (i + 1) / 2; }

  std::size_t d_ = 0;
  long long count_ = 0;
  std::vector<double> origin_, sum_;  // [G, dk]
  std::vector<double> square_;        // [G, dk * (dk + 1) / 2], rows of the lower triangle
};

}  // namespace detail
}  // namespace kvist::inline KVIST_ABI
