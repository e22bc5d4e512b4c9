#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/attention/state.hpp>
#include <kvist/view/rows.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace kvist::inline KVIST_ABI {
namespace reference {

/// What `attention` computes, in f64.
struct Attention {
  std::vector<double> out;     ///< [G, dv]; zeros for a query that saw no entry
  std::vector<double> probs;   ///< [G, n]
  std::vector<double> logits;  ///< [G, n] -infinity for entries not seen
};

/// Attention of a query group by the formula, element by element in f64: what every fast path is tested against.
///   logit[g, i] = cap(scale * sum_c q[g, c] k[i, c]) + bias[i]      cap(x) = c tanh(x / c), where a cap is set
///   prob[g, i]  = exp(logit[g, i]) / (exp(sink[g]) + sum_j exp(logit[g, j]))
///   out[g]      = sum_i prob[g, i] v[i]
/// keys [n, dk], values [n, dv]; sinks [G] f32 or null.
template <RowView K, RowView V>
Attention attention(const K& keys, const V& values, const AttendArgs& args, const float* sinks = nullptr) {
  const Index n = keys.size();
  const int dk = keys.dim(), dv = values.dim();
  constexpr double none = -std::numeric_limits<double>::infinity();
  Attention r;
  r.out.assign(std::size_t(args.group) * std::size_t(dv), 0.0);
  r.probs.assign(std::size_t(args.group) * std::size_t(n), 0.0);
  r.logits.assign(std::size_t(args.group) * std::size_t(n), none);
  for (int g = 0; g < args.group; ++g) {
    double* const logits = r.logits.data() + std::ptrdiff_t(g) * n;
    double* const probs = r.probs.data() + std::ptrdiff_t(g) * n;
    double* const out = r.out.data() + std::ptrdiff_t(g) * dv;
    double top = sinks ? double(sinks[g]) : none;
    for (Index i = args.first; i < n; ++i) {
      if (!args.only.empty() && !std::binary_search(args.only.begin(), args.only.end(), i)) continue;
      double s = 0;
      for (int c = 0; c < dk; ++c) s += double(args.q[std::ptrdiff_t(g) * dk + c]) * double(keys.at(i, c));
      s *= double(args.scale);
      if (args.soft_cap > 0) s = double(args.soft_cap) * std::tanh(s / double(args.soft_cap));
      if (args.bias) s += double(args.bias[i]);
      logits[i] = s;
      top = std::max(top, s);
    }
    if (top == none) continue;
    double sum = sinks ? std::exp(double(sinks[g]) - top) : 0.0;
    for (Index i = 0; i < n; ++i) sum += probs[i] = std::exp(logits[i] - top);
    for (Index i = 0; i < n; ++i) {
      probs[i] /= sum;
      if (probs[i] == 0) continue;
      for (int c = 0; c < dv; ++c) out[c] += probs[i] * double(values.at(i, c));
    }
  }
  return r;
}

}  // namespace reference
}  // namespace kvist::inline KVIST_ABI
