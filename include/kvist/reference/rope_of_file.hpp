#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/result.hpp>
#include <kvist/reference/gguf.hpp>
#include <kvist/view/rope.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace kvist::inline KVIST_ABI {

/// YaRN's constants.
/// Source: Peng et al. 2023, arXiv 2309.00071; the option names and their defaults are those of llama.cpp.
struct YarnOptions {
  double factor = 1;            ///< the context is `factor` times as long as the one trained on
  double original_context = 0;  ///< tokens trained on
  double beta_fast = 32, beta_slow = 1;
  double extrapolation = 1;     ///< share of the unscaled angle where a pair turns fast
  double attention_factor = 1;  ///< on top of YaRN's own 1 + 0.1 ln(factor)
};

/// Scales a standard table by YaRN: pairs that turn at least beta_fast times in the original context keep their
/// frequency, those that turn less than beta_slow times are divided by `factor`, between them a linear ramp.
///   pair(b) = D ln(L / (2 pi b)) / (2 ln(base))      the pair that turns b times in L tokens; D rotary dims
///   ramp(f) = 1 - clamp((f - floor(pair(beta_fast))) / (ceil(pair(beta_slow)) - floor(pair(beta_fast))), 0, 1)
///   frequency(f) *= (1 - ramp(f)) / factor + ramp(f)
/// Source: section 3.2 of the paper; the rounding of the ramp's ends is that of llama.cpp (ggml_rope_yarn_corr_dims).
inline void apply_yarn(RopeTable& table, double base, const YarnOptions& o) {
  const double dims = table.rotary_dims(), pi = 3.14159265358979323846;
  const auto pair = [&](double turns) {
    return dims * std::log(o.original_context / (turns * 2 * pi)) / (2 * std::log(base));
  };
  const double low = std::max(0.0, std::floor(pair(o.beta_fast)));
  const double high = std::min(dims - 1, std::ceil(pair(o.beta_slow)));
  for (std::size_t f = 0; f < table.frequency.size(); ++f) {
    const double along = (double(f) - low) / std::max(0.001, high - low);
    const double ramp = (1 - std::clamp(along, 0.0, 1.0)) * o.extrapolation;
    table.frequency[f] *= (1 - ramp) / o.factor + ramp;
  }
  table.scale = float(o.attention_factor * (o.extrapolation != 0 ? 1 + 0.1 * std::log(o.factor) : 1.0));
}

/// The rotation that a GGUF file of Llama architecture states: base, partial rotary dims, scaling (none, linear, yarn),
/// and `freq_factors` [rotary/2] (tensor rope_freqs.weight, Llama 3.1's scaling) by which frequencies are divided; empty
/// where there are none. Pairs are neighbours: the converter has put the rows of W_q and W_k in that order.
///
/// Fails with: unsupported (a scaling kind that is not implemented; `detail` names it); bad_file (values out of range).
inline Result<RopeTable> rope_of_file(const Gguf& file, int key_length, double context_length,
                                      std::span<const float> freq_factors, std::string* detail = nullptr) {
  const auto fault = [&](Errc code, const char* what, std::string text) {
    if (detail) *detail = std::move(text);
    return Error{code, what};
  };
  const auto number = [&](const char* key, double otherwise) { return file.f64(key).value_or(otherwise); };
  const double base = number("llama.rope.freq_base", 10000);
  if (!(base > 1) || !std::isfinite(base))
    return fault(Errc::bad_file, "the RoPE base must be a number above 1", "llama.rope.freq_base");
  const std::uint64_t dims = file.u64("llama.rope.dimension_count").value_or(std::uint64_t(key_length));
  if (dims == 0 || dims % 2 != 0 || dims > std::uint64_t(key_length))
    return fault(Errc::bad_file, "the rotary dimensions must be even and no more than a key has",
                 "llama.rope.dimension_count");
  RopeTable table = RopeTable::standard(int(dims), base, RopePairs::neighbours);
  if (!freq_factors.empty()) {
    if (freq_factors.size() != table.frequency.size())
      return fault(Errc::bad_file, "there must be one RoPE frequency factor for each rotary pair",
                   "rope_freqs.weight");
    for (std::size_t f = 0; f < freq_factors.size(); ++f) {
      if (!(freq_factors[f] > 0) || !std::isfinite(freq_factors[f]))
        return fault(Errc::bad_file, "RoPE frequency factors must be above 0", "rope_freqs.weight");
      table.frequency[f] /= double(freq_factors[f]);
    }
  }

  // a file that gives a factor without naming the kind means linear scaling
  const std::string_view kind = file.string("llama.rope.scaling.type").value_or("linear");
  const double factor = number("llama.rope.scaling.factor", number("llama.rope.scale_linear", 1));
  if (kind == "none") return table;
  if (!(factor > 0) || !std::isfinite(factor))
    return fault(Errc::bad_file, "the RoPE scaling factor must be above 0", "llama.rope.scaling.factor");
  if (kind == "linear") {
    for (double& f : table.frequency) f /= factor;
    return table;
  }
  if (kind == "yarn") {
    YarnOptions o;
    o.factor = factor;
    o.original_context = number("llama.rope.scaling.original_context_length", context_length);
    o.beta_fast = number("llama.rope.scaling.yarn_beta_fast", o.beta_fast);
    o.beta_slow = number("llama.rope.scaling.yarn_beta_slow", o.beta_slow);
    o.extrapolation = number("llama.rope.scaling.yarn_ext_factor", o.extrapolation);
    o.attention_factor =
        number("llama.rope.scaling.attn_factor", number("llama.rope.scaling.yarn_attn_factor", 1));
    if (!(o.original_context > 0) || !(o.beta_fast > 0) || !(o.beta_slow > 0) ||
        !std::isfinite(o.attention_factor))
      return fault(Errc::bad_file, "YaRN's context and betas must be above 0", "llama.rope.scaling.*");
    apply_yarn(table, base, o);
    return table;
  }
  return fault(Errc::unsupported,
               "this kind of RoPE scaling is not implemented; known kinds: none, linear, yarn",
               "llama.rope.scaling.type is '" + std::string(kind) + "'");
}

}  // namespace kvist::inline KVIST_ABI
