#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>
#include <kvist/policy/detail/table_shares.hpp>

#include <vector>

namespace kvist::inline KVIST_ABI {

/// Layer budgets from a table: shares of the whole budget, or entries per KV head; for shares that were measured once for a
/// model.
///
/// Shares are scaled so that all layers together get layers * mean entries per head, to the entry (largest remainder); a layer
/// whose share is less than its guards need gets what they need, at the cost of the others in proportion. Entries are taken as
/// they are, guards included. What a layer cannot fill is not given to others.
///
/// State: none. Cost: a number a layer.
/// Fails with: bad_option (start: the table has another size than the layers that are not skipped, or a number that is none);
/// bad_budget (entries add up to more than layers * mean).
struct LayerTable {
  static constexpr Role role = Role::layer_budget;
  static constexpr bool cascades = false;
  std::vector<double> table;  ///< [layers that are not skipped]
  bool entries = false;       ///< numbers are entries per KV head; else shares, of any sum

  Status validate(int layers) const {
    if (table.size() != std::size_t(layers))
      return Error{Errc::bad_option,
                   "the table of layer budgets wants a number for each layer that is not skipped", layers,
                   (long long)table.size()};
    return detail::check_table(table, entries);
  }

  Status allocate(const LayerBudgetCall& call, std::span<Index> out) const {
    if (Status s = validate(call.layers); !s) return s;
    const long long total = (long long)call.mean * call.layers;
    std::vector<Index> all(table.size());
    if (entries) {
      long long sum = 0;
      for (std::size_t l = 0; l < all.size(); ++l) sum += all[l] = Index(table[l]);
      if (sum > total)
        return Error{Errc::bad_budget, "the table's entries add up to more than the budget of all layers",
                     total, sum};
    } else {
      detail::table_shares(table, total, call.least, all);
    }
    std::copy_n(all.begin(), out.size(), out.begin());
    return Done{};
  }
};
static_assert(LayerBudget<LayerTable>);

}  // namespace kvist::inline KVIST_ABI
