#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/assert.hpp>
#include <kvist/core/random.hpp>
#include <kvist/core/types.hpp>
#include <kvist/reference/detail/eigen.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

namespace kvist::inline KVIST_ABI {
namespace compare {

// ------------------------------------------------------------------------------------------ two rows of
// logits

/// What one row of logits [vocabulary] says.
struct LogitRow {
  double logsumexp = 0;
  Index top = 0;  ///< argmax; of equal logits the lowest index
};

inline LogitRow summarise(std::span<const float> logits) {
  KVIST_ASSERT(!logits.empty());
  const Eigen::Map<const Eigen::ArrayXf> x(logits.data(), Eigen::Index(logits.size()));
  const Index top = Index(std::max_element(logits.begin(), logits.end()) - logits.begin());
  const double m = double(logits[std::size_t(top)]);
  return {m + std::log((x.cast<double>() - m).exp().sum()), top};
}

/// log p(token) in nats.
inline double log_probability(std::span<const float> logits, const LogitRow& row, Index token) {
  return double(logits[std::size_t(token)]) - row.logsumexp;
}

/// KL(full || other) in nats: sum p_full (log p_full - log p_other), sums in f64. Exactly 0 for equal logits.
inline double divergence(std::span<const float> full, const LogitRow& f, std::span<const float> other,
                         const LogitRow& o) {
  KVIST_ASSERT(full.size() == other.size());
  const Eigen::Map<const Eigen::ArrayXf> x(full.data(), Eigen::Index(full.size()));
  const Eigen::Map<const Eigen::ArrayXf> y(other.data(), Eigen::Index(other.size()));
  const auto p = (x.cast<double>() - f.logsumexp).exp();
  const double shift = f.logsumexp - o.logsumexp;
  return std::max(0.0, (p * (x.cast<double>() - y.cast<double>() - shift)).sum());
}

// ------------------------------------------------------------------------------------------ statistics

struct Interval {
  double lo = 0, hi = 0;
};

inline double mean(std::span<const double> x) {
  return x.empty() ? 0.0 : std::accumulate(x.begin(), x.end(), 0.0) / double(x.size());
}

namespace detail {

/// The 2.5 % and 97.5 % points of f over `resamples` draws of n indices with replacement, by linear
/// interpolation.
template <class F>
Interval bootstrap(std::size_t n, std::uint64_t seed, int resamples, F&& f) {
  Random random(seed);
  std::vector<std::size_t> draw(n);
  std::vector<double> values(static_cast<std::size_t>(resamples));
  for (double& v : values) {
    for (std::size_t& i : draw) i = std::size_t(random.below(n));
    v = f(std::span<const std::size_t>(draw));
  }
  std::sort(values.begin(), values.end());
  const auto point = [&](double share) {
    const double at = share * double(values.size() - 1);
    const std::size_t i = std::size_t(at);
    const double next = values[std::min(i + 1, values.size() - 1)];
    return values[i] + (at - double(i)) * (next - values[i]);
  };
  return {point(0.025), point(0.975)};
}

}  // namespace detail

/// 95 % interval of the mean over windows, by drawing windows with replacement: tokens of one window are not
/// independent, so they are never drawn one by one. One window: that value twice. None: zeros.
inline Interval bootstrap_mean(std::span<const double> windows, std::uint64_t seed = 1, int resamples = 1000) {
  if (windows.empty()) return {};
  return detail::bootstrap(windows.size(), seed, resamples, [&](std::span<const std::size_t> draw) {
    double sum = 0;
    for (const std::size_t i : draw) sum += windows[i];
    return sum / double(draw.size());
  });
}

/// Two policies on the same windows.
struct Paired {
  double ratio = 0;       ///< mean of a / mean of b
  double lo = 0, hi = 0;  ///< 95 %, windows drawn in pairs
  Index won = 0;          ///< windows in which a is below b
  Index n = 0;
};

/// Ratio of means with its interval. NaN where the mean of b is 0. Requires: a.size() == b.size(), not empty.
inline Paired paired_ratio(std::span<const double> a, std::span<const double> b, std::uint64_t seed = 1,
                           int resamples = 1000) {
  KVIST_ASSERT(a.size() == b.size() && !a.empty());
  Paired out;
  out.n = Index(a.size());
  for (std::size_t i = 0; i < a.size(); ++i) out.won += a[i] < b[i];
  const auto ratio = [](double x, double y) { return y > 0 ? x / y : std::nan(""); };
  out.ratio = ratio(mean(a), mean(b));
  if (std::isnan(out.ratio)) {
    out.lo = out.hi = out.ratio;
    return out;
  }
  const Interval i = detail::bootstrap(a.size(), seed, resamples, [&](std::span<const std::size_t> draw) {
    double x = 0, y = 0;
    for (const std::size_t w : draw) {
      x += a[w];
      y += b[w];
    }
    return y > 0 ? x / y : out.ratio;
  });
  out.lo = i.lo;
  out.hi = i.hi;
  return out;
}

/// Wilson's 95 % interval of a share k / n; (0, 1) for n = 0.
inline Interval wilson(Index k, Index n, double z = 1.959963984540054) {
  if (n <= 0) return {0, 1};
  const double p = double(k) / double(n), zz = z * z / double(n);
  const double centre = (p + zz / 2) / (1 + zz);
  const double half = z / (1 + zz) * std::sqrt(p * (1 - p) / double(n) + zz / (4 * double(n)));
  // exact at the ends, whatever the rounding
  return {k == 0 ? 0.0 : centre - half, k == n ? 1.0 : centre + half};
}

/// Exact two-sided McNemar test: of the questions that only one of two policies answered, `a` were a's and
/// `b` were b's; how likely is a split at least as uneven by chance?
inline double mcnemar(Index a, Index b) {
  const Index n = a + b, few = std::min(a, b);
  double sum = 0;
  for (Index i = 0; i <= few; ++i)
    sum += std::exp(std::lgamma(n + 1.0) - std::lgamma(i + 1.0) - std::lgamma(n - i + 1.0) -
                    double(n) * std::log(2.0));
  return std::min(1.0, 2 * sum);
}

}  // namespace compare
}  // namespace kvist::inline KVIST_ABI
