#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/methods/options.hpp>
#include <kvist/policy/any_policy.hpp>
#include <kvist/policy/signal/adapt/pool.hpp>
#include <kvist/policy/signal/window_attention.hpp>

#include <array>
#include <utility>

namespace kvist::inline KVIST_ABI {
namespace methods {

template <>
struct EnumNames<PoolMode> {
  static constexpr std::array<const char*, 3> names{"avg", "max", "none"};
};
template <>
struct EnumNames<Reduce> {
  static constexpr std::array<const char*, 3> names{"mean", "max", "sum"};
};

/// Whether the stated total is met to the entry, or rounded as a method's official code does it.
enum class Total : std::uint8_t { exact, official };
template <>
struct EnumNames<Total> {
  static constexpr std::array<const char*, 2> names{"exact", "official"};
};

/// Options that every eviction method takes besides its own; an own option of the same name goes first.
struct CommonOptions {
  Index sinks = 0, recent = 0;
  std::vector<int> skip_layers;
  bool account_loss = false;
  float tolerance = 0;

  template <class V>
  static void fields(V& v, CommonOptions& o) {
    v("sinks", o.sinks, "first entries that stay besides the method's own choice");
    v("recent", o.recent, "newest entries that stay besides the method's own choice");
    v("skip_layers", o.skip_layers, "layers left whole, as 0/1/29; they stand outside the budget");
    v("account_loss", o.account_loss,
      "state with each plan the attention mass given up and the bound that follows");
    v("tolerance", o.tolerance,
      "instead of a budget: the fewest entries whose bound on the output's change holds");
  }
  PolicySettings settings() const { return {{sinks, recent}, skip_layers, account_loss, tolerance}; }
};

/// The policy with its settings, ready for run-time use.
template <class P>
AnyPolicy with_settings(P policy, const PolicySettings& settings) {
  policy.settings = settings;
  return AnyPolicy(std::move(policy));
}

}  // namespace methods
}  // namespace kvist::inline KVIST_ABI
