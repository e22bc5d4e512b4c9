#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/policy/signal/accumulated_attention.hpp>

#include <algorithm>

namespace kvist::inline KVIST_ABI {

/// AccumulatedAttention that also tells how uneven a layer's attention is: the variance over entries of what each received
/// from the prompt (divisor n - 1), brought to 0 .. 1 between the layer's heads, and averaged over them.
///
/// So two layers of very different variance can tell the same number, as in the published code; with a single head it is 0.
/// Source: Wan et al. 2025, arXiv 2406.13035 (D2O); AIoT-MLSys-Lab/D2O, modeling_llama3_new.py.
struct AttentionVariance : AccumulatedAttention {
  struct PerHead {
    double variance = 0;
  };

  template <Head H>
  Status observe(const HeadContext<H>& c, std::span<Entry> entries, PerHead& own) const {
    Nothing none;
    if (Status s = AccumulatedAttention::observe(c, entries, none); !s) return s;
    if (c.now.phase != Phase::prefill) return Done{};
    double mean = 0, squares = 0;
    for (const Entry& e : entries) mean += double(e.sum) / double(entries.size());
    for (const Entry& e : entries) squares += (double(e.sum) - mean) * (double(e.sum) - mean);
    own.variance = entries.size() > 1 ? squares / double(entries.size() - 1) : 0;
    return Done{};
  }
  template <Head H>
  Status score(const HeadContext<H>& c, std::span<const Entry> entries, const PerHead&,
               std::span<float> out) const {
    return AccumulatedAttention::score(c, entries, Nothing{}, out);
  }
  LayerStat layer_stat(std::span<const PerHead> heads) const {
    double low = heads.empty() ? 0 : heads[0].variance, high = low, sum = 0;
    for (const PerHead& h : heads) low = std::min(low, h.variance), high = std::max(high, h.variance);
    for (const PerHead& h : heads) sum += high > low ? (h.variance - low) / (high - low) : 0.0;
    LayerStat stat;
    stat.variance = heads.empty() ? 0 : sum / double(heads.size());
    return stat;
  }
};
static_assert(Signal<AttentionVariance>);

}  // namespace kvist::inline KVIST_ABI
