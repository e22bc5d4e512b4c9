#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>
#include <kvist/policy/detail/table_shares.hpp>

#include <vector>

namespace kvist::inline KVIST_ABI {

/// Head budgets from a table, one row for all layers or one for each: shares of the layer's budget, or entries; for heads that
/// were told apart once for a model.
///
/// Shares are scaled so that the heads of a layer together get heads * mean entries, to the entry (largest remainder); a head
/// whose share is less than the guards gets those, at the cost of the others in proportion. Entries are taken as they are,
/// guards included. What a head cannot fill is not given to others.
///
/// State: none. Cost: a number a head.
/// Fails with: bad_option (start: the table has another size than KV heads, or layers * KV heads, or a number that is none);
/// bad_budget (entries add up to more than the layer's, or hold fewer than the guards).
struct HeadTable {
  static constexpr Role role = Role::head_budget;
  static constexpr bool even = false;
  std::vector<double> table;  ///< [kv_heads] or [layers, kv_heads], skipped layers included
  bool entries = false;       ///< numbers are entries; else shares, of any sum in each row

  Status validate(const Shape& shape) const {
    const std::size_t heads = std::size_t(shape.kv_heads);
    if (table.size() != heads && table.size() != heads * std::size_t(shape.layers))
      return Error{Errc::bad_option,
                   "the table of head budgets wants a number for each KV head, of one layer or of all",
                   shape.kv_heads, (long long)table.size()};
    for (std::size_t first = 0; first < table.size(); first += heads)
      if (Status s = detail::check_table(std::span(table).subspan(first, heads), entries); !s) return s;
    return Done{};
  }

  Status allocate(const HeadBudgetCall& call, std::span<Index> out) const {
    const std::size_t heads = out.size(), first = table.size() == heads ? 0 : std::size_t(call.layer) * heads;
    if (first + heads > table.size())
      return Error{Errc::bad_option, "the table of head budgets lacks a row for the layer",
                   (long long)(first + heads), (long long)table.size()};
    const std::span<const double> row = std::span(table).subspan(first, heads);
    const Index guarded = call.guards.sinks + call.guards.recent;
    const long long total = (long long)call.mean * (long long)heads;
    if (!entries) {
      detail::table_shares(row, total, std::min(guarded, call.mean), out);
      return Done{};
    }
    long long sum = 0;
    for (std::size_t h = 0; h < heads; ++h) {
      sum += out[h] = Index(row[h]);
      if (out[h] < guarded)
        return Error{Errc::bad_budget, "the table gives a head fewer entries than are guarded", guarded, out[h]};
    }
    if (sum > total)
      return Error{Errc::bad_budget, "the table's entries add up to more than the layer's budget", total, sum};
    return Done{};
  }
};
static_assert(HeadBudget<HeadTable>);

}  // namespace kvist::inline KVIST_ABI
