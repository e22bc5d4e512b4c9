#pragma once
// SPDX-License-Identifier: Apache-2.0
// Rows of random numbers with loud channels, and attention over rows by the formula.
#include <kvist/attention/state.hpp>
#include <kvist/core/random.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace kvist::test {

struct Numbers {
  Random random;
  explicit Numbers(std::uint64_t seed) : random(seed) {}
  float normal() {
    double s = 0;
    for (int i = 0; i < 6; ++i) s += random.uniform();
    return float((s - 3.0) * 1.4);
  }
  /// [n, d]; about every eighth channel is four times as loud.
  std::vector<float> rows(Index n, int d) {
    std::vector<float> x(std::size_t(n) * std::size_t(d));
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = normal() * (i % std::size_t(d) % 8 == 3 ? 2.0f : 0.5f);
    return x;
  }
};

struct Exact {
  std::vector<double> out, logits;
};

/// Query g of `args` over rows k, v [n, d] in f64; logits of rows that are not seen are -infinity.
inline Exact exact_attention(const AttendArgs& args, int g, const std::vector<float>& k,
                             const std::vector<float>& v, int d, Index n) {
  Exact e{std::vector<double>(std::size_t(d), 0.0), {}};
  double top = -std::numeric_limits<double>::infinity(), sum = 0;
  for (Index i = 0; i < n; ++i) {
    double s = 0;
    for (int c = 0; c < d; ++c) s += double(args.q[g * d + c]) * double(k[std::size_t(i * d + c)]);
    s *= double(args.scale);
    if (args.soft_cap > 0) s = double(args.soft_cap) * std::tanh(s / double(args.soft_cap));
    if (args.bias != nullptr) s += double(args.bias[i]);
    if (i < args.first || (!args.only.empty() && !std::binary_search(args.only.begin(), args.only.end(), i)))
      s = -std::numeric_limits<double>::infinity();
    e.logits.push_back(s);
    top = std::max(top, s);
  }
  for (Index i = 0; i < n; ++i) {
    const double p = std::exp(e.logits[std::size_t(i)] - top);
    sum += p;
    for (int c = 0; c < d; ++c) e.out[std::size_t(c)] += p * double(v[std::size_t(i * d + c)]);
  }
  for (double& x : e.out) x /= sum;
  return e;
}

}  // namespace kvist::test
