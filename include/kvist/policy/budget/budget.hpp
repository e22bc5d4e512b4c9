#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/result.hpp>
#include <kvist/core/types.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <string_view>
#include <utility>

namespace kvist::inline KVIST_ABI {

/// How much may stay: entries per KV head on average over layers and heads, a share of the prompt, or bytes of the whole
/// cache. A share and bytes become entries once, when the prompt is compacted.
struct Budget {
  enum class Kind : std::uint8_t { none, entries, percent, bytes };
  Kind kind = Kind::none;
  double value = 0;
  friend bool operator==(const Budget&, const Budget&) = default;

  /// Reads "204", "20%", "64MB" (also kB, GB; powers of 1000). Fails with: bad_option.
  static Result<Budget> parse(std::string_view s) {
    double value = 0;
    const auto [end, error] = std::from_chars(s.data(), s.data() + s.size(), value);
    const std::string_view unit(end, std::size_t(s.data() + s.size() - end));
    const Error fault{Errc::bad_option,
                      "a budget is a number of entries, a share such as 20%, or bytes such as 64MB"};
    if (error != std::errc{} || !std::isfinite(value) || value <= 0) return fault;
    if (unit.empty())
      return value == std::floor(value) && value < 1e9 ? Result<Budget>(Budget{Kind::entries, value}) : fault;
    if (unit == "%") return value <= 100 ? Result<Budget>(Budget{Kind::percent, value}) : fault;
    for (const auto& [name, scale] : {std::pair{"kB", 1e3}, std::pair{"MB", 1e6}, std::pair{"GB", 1e9}})
      if (unit == name) return Budget{Kind::bytes, value * scale};
    return fault;
  }

  /// Entries per KV head for a prompt of n tokens; `entry_bytes` is what one entry of one head takes in the store used, and
  /// `heads` counts KV heads over all layers. 20% of n is floor(n * 20 / 100).
  Index entries(Index n, double entry_bytes, int heads) const {
    switch (kind) {
      case Kind::none:
        return n;
      case Kind::entries:
        return Index(value);
      case Kind::percent:
        return Index(std::floor(double(n) * value / 100 + 1e-9));
      case Kind::bytes:
        return Index(std::min(std::floor(value / (entry_bytes * heads)), 1e9));
    }
    return n;
  }
};

}  // namespace kvist::inline KVIST_ABI
