#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/policy/detail/channel_tiles.hpp>
#include <kvist/policy/dispose/merge_call.hpp>

#include <cstdlib>
#include <limits>
#include <optional>

namespace kvist::inline KVIST_ABI {

/// Each loser is matched with the entry that stays and is most like it, wherever it stands; of equally near ones with the
/// lower row.
///
/// Source: cosine of keys: Wan et al. 2025, arXiv 2406.13035 (D2O); NVIDIA/kvpress, merging_press.py. Product of the
/// cosines of keys and of values: arXiv 2412.08521 (EMS), each factor cut at 0, or two opposite rows would count as alike.
/// Position: arXiv 2407.18121 (Elastic Cache).
/// Cost: losers * kept * dk multiply-adds (key), twice that with values; losers * log(kept) (position).
struct NearestKept {
  static constexpr bool sizes = false;
  enum class By : std::uint8_t { key, key_and_value, position };
  By by = By::key;

  Status find(const MergeCall& c, std::vector<Index>& drop, std::vector<MergePair>& pairs) const {
    std::vector<Index> kept;
    std::size_t d = 0;
    for (Index i = 0; i < c.n; ++i) {
      if (d < drop.size() && drop[d] == i) ++d;
      else if (i >= c.shared_rows) kept.push_back(i);
    }
    if (kept.empty()) return Done{};
    if (by == By::position) by_position(c, drop, kept, pairs);
    else by_content(c, drop, kept, pairs);
    return Done{};
  }

 private:
  static constexpr Index block =
      16;  // losers that are compared at once, so that a kept row is read once for them

  static void by_position(const MergeCall& c, const std::vector<Index>& drop, const std::vector<Index>& kept,
                          std::vector<MergePair>& pairs) {
    for (const Index src : drop) {
      const auto next = std::lower_bound(kept.begin(), kept.end(), src);
      Index dst = next == kept.end() ? kept.back() : *next;
      const auto apart = [&](Index row) {
        return std::abs((long long)c.pos[std::size_t(row)] - c.pos[std::size_t(src)]);
      };
      if (next != kept.begin() && apart(*(next - 1)) <= apart(dst)) dst = *(next - 1);
      pairs.push_back({src, dst, -float(apart(dst))});
    }
  }

  void by_content(const MergeCall& c, const std::vector<Index>& drop, const std::vector<Index>& kept,
                  std::vector<MergePair>& pairs) const {
    const std::size_t m = kept.size();
    const bool values = by == By::key_and_value;
    auto key_memory = c.scratch->floats(detail::ChannelTiles::floats(Index(m), c.dim_k));
    auto value_memory = c.scratch->floats(values ? detail::ChannelTiles::floats(Index(m), c.dim_v) : 0);
    const detail::ChannelTiles keys = units(c, kept, c.dim_k, gather_keys, key_memory);
    std::optional<detail::ChannelTiles> others;
    if (values) others = units(c, kept, c.dim_v, gather_values, value_memory);
    auto mine = c.scratch->floats(std::size_t(block) * std::size_t(std::max(c.dim_k, c.dim_v)));
    auto like = c.scratch->floats(std::size_t(block) * m), also = c.scratch->floats(values ? like.size() : 0);
    for (std::size_t first = 0; first < drop.size(); first += std::size_t(block)) {
      const std::size_t count = std::min(std::size_t(block), drop.size() - first);
      const std::span<const Index> losers = std::span(drop).subspan(first, count);
      gather_keys(c, losers, mine);
      keys.dots(mine.data(), int(count), 1.0f, like.data(), std::ptrdiff_t(m));
      if (values) {
        gather_values(c, losers, mine);
        others->dots(mine.data(), int(count), 1.0f, also.data(), std::ptrdiff_t(m));
      }
      for (std::size_t i = 0; i < count; ++i) {
        const float* const of_key = like.data() + i * m;
        const float* const of_value = also.data() + (values ? i * m : 0);
        std::size_t best = m;
        float most = -std::numeric_limits<float>::infinity();
        for (std::size_t j = 0; j < m; ++j) {
          const float x = values ? std::max(of_key[j], 0.0f) * std::max(of_value[j], 0.0f) : of_key[j];
          if (x > most) most = x, best = j;  // NaN never is
        }
        if (best < m) pairs.push_back({losers[i], kept[best], most});
      }
    }
  }
  using Gather = void (*)(const MergeCall& c, std::span<const Index> rows_of, std::span<float> out);

  /// The rows at unit length, in `out`.
  static detail::ChannelTiles units(const MergeCall& c, std::span<const Index> rows_of, int d, Gather gather,
                                    std::span<float> out) {
    auto in_rows = c.scratch->floats(rows_of.size() * std::size_t(d));
    gather(c, rows_of, in_rows);
    return {in_rows, Index(rows_of.size()), d, out};
  }
  static void gather_keys(const MergeCall& c, std::span<const Index> rows_of, std::span<float> out) {
    for (std::size_t i = 0; i < rows_of.size(); ++i) {
      const auto key = c.key(rows_of[i]);
      std::copy(key.begin(), key.end(), out.begin() + std::ptrdiff_t(i * key.size()));
    }
    detail::to_unit(out, Index(rows_of.size()), c.dim_k);
  }
  static void gather_values(const MergeCall& c, std::span<const Index> rows_of, std::span<float> out) {
    for (std::size_t i = 0; i < rows_of.size(); ++i)
      c.value(rows_of[i], out.subspan(i * std::size_t(c.dim_v), std::size_t(c.dim_v)));
    detail::to_unit(out, Index(rows_of.size()), c.dim_v);
  }
};

}  // namespace kvist::inline KVIST_ABI
