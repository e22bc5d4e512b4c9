#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>
#include <kvist/kernels/pool.hpp>

#include <algorithm>

namespace kvist::inline KVIST_ABI {

/// How neighbouring scores are pooled.
enum class PoolMode : std::uint8_t { avg, max, none };

/// out[i] = average or maximum of x over the `kernel` entries centred on i, stride 1. The average divides by `kernel` at the
/// borders too (zero padding), as the reference implementations do; the maximum pads with -infinity.
/// Requires: kernel odd; out.size() == x.size(); no overlap.
inline void pool(std::span<const float> x, int kernel, PoolMode mode, std::span<float> out) {
  if (mode == PoolMode::max) kernels::max_pool(x, kernel, out.data());
  else if (mode == PoolMode::avg) kernels::avg_pool(x, kernel, out.data());
  else std::copy(x.begin(), x.end(), out.begin());
}

/// A pooling kernel is odd and positive: an even one would shift scores by half an entry.
inline Status check_pool(int kernel) {
  if (kernel < 1 || kernel % 2 == 0)
    return Error{Errc::bad_option, "a pooling kernel must be odd and at least 1", 1, kernel};
  return Done{};
}

/// Any signal with its scores pooled over neighbouring entries. Entries that are guarded at the end keep their own scores
/// where `tail` says how many (a window whose votes must not leak into the context).
template <Signal Inner>
struct Pooled : Inner {
  int kernel = 5;
  PoolMode mode = PoolMode::avg;
  Index tail = 0;

  Status validate(const Shape& shape) const {
    if (Status s = check_pool(kernel); !s) return s;
    if constexpr (requires(const Inner& inner) { inner.validate(shape); }) return Inner::validate(shape);
    else return Done{};
  }
  template <Head H>
  Status score(const HeadContext<H>& c, std::span<const typename Inner::Entry> entries,
               const typename Inner::PerHead& head, std::span<float> out) const {
    if (Status s = Inner::score(c, entries, head, out); !s || mode == PoolMode::none) return s;
    const std::size_t n = std::size_t(std::max<Index>(0, Index(out.size()) - tail));
    auto raw = c.scratch.floats(n);
    std::copy_n(out.begin(), n, raw.begin());
    pool(raw, kernel, mode, out.first(n));
    return Done{};
  }
};

}  // namespace kvist::inline KVIST_ABI
