#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/attention/state.hpp>
#include <kvist/kernels/softmax.hpp>

namespace kvist::inline KVIST_ABI {

/// Turns logits [G, n] that attend wrote into attention probabilities, in place: p = exp(logit - m) / l with the final m
/// and l of the state, so that several stores (and sinks without a value) share one normalisation and no key is read
/// twice. Entries not seen (-infinity) get 0, as does every entry of a query that saw none.
inline void tap_probabilities(const AttnState& state, float* logits, Index n, std::ptrdiff_t stride) {
  for (int g = 0; g < state.group; ++g) {
    float* const row = logits + g * stride;
    if (state.l[g] > 0) kernels::exp_of(row, n, state.m[g], 1.0f / state.l[g], row);
    else std::fill_n(row, n, 0.0f);
  }
}

}  // namespace kvist::inline KVIST_ABI
