#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/attention/attend.hpp>
#include <kvist/attention/state.hpp>
#include <kvist/kernels/packed.hpp>
#include <kvist/kernels/softmax.hpp>

#include <algorithm>
#include <limits>

namespace kvist::inline KVIST_ABI {

/// A list of packed pages of one layout: entry i lies in page i / 128 at i % 128.
struct PackedPages {
  kernels::PackedLayout layout;
  const std::uint8_t* const* pages = nullptr;  ///< [ceil(n / 128)]
};

namespace detail {

inline constexpr std::size_t packed_ahead = 32768;  // bytes between what is read and what is asked for

/// Logits of unseen entries of a page become -infinity: outside [first, last), not in `only`, or dead by bitmap.
/// `only` is the rest of the list from this page on; it is advanced behind the page.
inline void mask_page(float* logits, std::ptrdiff_t stride, int group, Index at, Index n,
                      const AttendArgs& args, std::span<const Index> only, const std::uint64_t* live) {
  constexpr float none = -std::numeric_limits<float>::infinity();
  constexpr Index page = kernels::PackedLayout::page;
  const Index first = std::clamp<Index>(args.first - at, 0, page), last = std::min(page, n - at);
  for (int g = 0; g < group; ++g) {
    std::fill(logits + g * stride, logits + g * stride + first, none);
    std::fill(logits + g * stride + last, logits + g * stride + page, none);
  }
  if (live == nullptr && args.only.empty()) return;
  std::size_t k = 0;
  for (Index t = first; t < last; ++t) {
    while (k < only.size() && only[k] < at + t) ++k;
    const bool chosen = args.only.empty() || (k < only.size() && only[k] == at + t);
    const bool alive = live == nullptr || ((live[(at + t) / 64] >> ((at + t) % 64)) & 1u) != 0;
    if (chosen && alive) continue;
    for (int g = 0; g < group; ++g) logits[g * stride + t] = none;
  }
}

inline void attend_packed_16(const PackedPages& keys, const PackedPages& values, Index n, const AttendArgs& args,
                             const AttnState& state, kernels::Accuracy accuracy, const std::uint64_t* live) {
  constexpr Index page = kernels::PackedLayout::page;
  constexpr int at_once = kernels::PackedQuery::max_group, chunks_most = attend_queries / at_once;
  kernels::PackedQuery queries[chunks_most];
  alignas(64) float logits[at_once][page];
  const int chunks = (args.group + at_once - 1) / at_once, dim = keys.layout.dim;
  for (int k = 0; k < chunks; ++k)
    kernels::prepare(keys.layout, args.q + std::ptrdiff_t(k) * at_once * dim,
                     std::min(at_once, args.group - k * at_once), args.scale, accuracy, queries[k]);
  const std::size_t key_bytes = keys.layout.bytes(), value_bytes = values.layout.bytes();
  const Index pages = (n + page - 1) / page;
  const Index distance = Index(std::max<std::size_t>(1, packed_ahead / (key_bytes + value_bytes)));
  for (Index p = 0; p < pages; ++p) {
    const Index at = p * page;
    std::span<const Index> only = args.only;
    bool seen = args.first < at + page;
    if (!only.empty() && seen) {
      only = only.subspan(std::size_t(std::lower_bound(only.begin(), only.end(), at) - only.begin()));
      seen = !only.empty() && only.front() < at + page;
    }
    if (!seen) {
      hide_logits(args, at, std::min(page, n - at));
      continue;
    }
    // with a list of rows the next page is not known: the hardware must do
    const bool streaming = args.only.empty() && p + distance < pages;
    for (int k = 0; k < chunks; ++k) {
      const int first = k * at_once, group = std::min(at_once, args.group - first);
      const kernels::Ahead key_ahead =
          streaming && k == 0 ? kernels::Ahead{keys.pages[p + distance], key_bytes} : kernels::Ahead{};
      const kernels::Ahead value_ahead =
          streaming && k == 0 ? kernels::Ahead{values.pages[p + distance], value_bytes} : kernels::Ahead{};
      kernels::key_logits(keys.layout, keys.pages[p], queries[k], &logits[0][0], page, key_ahead);
      const Index count = std::min(page, n - at);
      for (int g = 0; g < group; ++g) {
        if (args.soft_cap > 0) kernels::soft_cap(logits[g], page, args.soft_cap);
        if (args.bias != nullptr)
          for (Index i = 0; i < count; ++i) logits[g][i] += args.bias[at + i];
      }
      mask_page(&logits[0][0], page, group, at, n, args, only, live);
      for (int g = 0; g < group; ++g) {
        if (args.logits != nullptr)
          std::copy_n(logits[g], count, args.logits + (first + g) * args.logits_stride + at);
        kernels::online_softmax(logits[g], page, state.m[first + g], state.l[first + g], state.row(first + g),
                                state.dim_v);
      }
      kernels::value_sum(values.layout, values.pages[p], &logits[0][0], page, group, accuracy,
                         state.row(first), value_ahead);
    }
  }
}

}  // namespace detail

/// Adds the attention of a query group over n packed entries to the state, straight from the codes: integer dot products
/// with queries rounded to 8 bits (Accuracy::fast) or 16 bits (exact). Each page is read once from memory for up to 16
/// queries, and pages ahead are prefetched evenly, by the lists.
///
/// `live` (or null) is a bitmap of n bits: entries whose bit is 0 are not seen (rows dropped but not yet packed away).
/// Rows of `first`, `only`, `bias` and `logits` in args are places in the pages, dead ones counted.
/// Error against exact arithmetic on the decoded values, relative, on random normal data: output 1.8e-2 (fast), 1e-4
/// (exact), logits 9e-3 and 4e-5, at 2 to 8 bits and groups of 32 and 128 alike.
/// Requires: valid layouts of keys and values, finite scales, values.layout.dim == state.dim_v. Allocates nothing.
inline void attend_packed(const PackedPages& keys, const PackedPages& values, Index n, const AttendArgs& args,
                          const AttnState& state, kernels::Accuracy accuracy,
                          const std::uint64_t* live = nullptr) {
  KVIST_ASSERT(keys.layout.keys && !values.layout.keys && values.layout.dim == state.dim_v &&
               args.group == state.group);
  for (int g = 0; g < args.group; g += detail::attend_queries) {
    const int group = std::min(detail::attend_queries, args.group - g);
    detail::attend_packed_16(keys, values, n, detail::part_of(args, g, group, keys.layout.dim),
                             detail::part_of(state, g, group), accuracy, live);
  }
}

}  // namespace kvist::inline KVIST_ABI
