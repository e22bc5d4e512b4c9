#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/methods/options.hpp>
#include <kvist/policy/any_policy.hpp>
#include <kvist/policy/signal/adapt/pool.hpp>
#include <kvist/policy/signal/window_attention.hpp>

#include <array>
#include <charconv>
#include <string>
#include <string_view>
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

/// own, after_prefill, per_chunk, every_step, every:W (steps), over_budget, over_budget:N (entries above it).
template <>
struct OptionForm<ChosenSchedule> {
  using Kind = ChosenSchedule::Kind;
  static constexpr std::array<const char*, 6> names{"own",        "after_prefill", "per_chunk",
                                                    "every_step", "every",         "over_budget"};
  static constexpr const char* wanted =
      "one of own, after_prefill, per_chunk, every_step, every:W (steps), over_budget, over_budget:N "
      "(entries "
      "above it)";

  static std::string text(const ChosenSchedule& s) {
    std::string out = names[std::size_t(s.kind)];
    if (s.kind == Kind::every_steps) out += ":" + std::to_string(s.period);
    if (s.kind == Kind::over_budget && s.slack > 0) out += ":" + std::to_string(s.slack);
    return out;
  }
  static bool read(std::string_view s, ChosenSchedule& out) {
    const std::size_t colon = s.find(':');
    const std::string_view name = s.substr(0, colon);
    ChosenSchedule made;
    std::size_t kind = 0;
    while (kind < names.size() && name != names[kind]) ++kind;
    if (kind == names.size()) return false;
    made.kind = Kind(kind);
    const bool counts = colon != s.npos;
    if (counts) {
      Index count = 0;
      const std::string_view number = s.substr(colon + 1);
      const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), count);
      if (error != std::errc{} || end != number.data() + number.size()) return false;
      if (made.kind == Kind::every_steps) made.period = count;
      else if (made.kind == Kind::over_budget) made.slack = count;
      else return false;
    }
    if ((made.kind == Kind::every_steps && !counts) || !made.validate()) return false;
    out = made;
    return true;
  }
};

template <>
struct EnumNames<Fold> {
  static constexpr std::array<const char*, 5> names{"none", "nearest", "runs", "values", "compensate"};
};

/// Options that every eviction method takes besides its own; an own option of the same name goes first.
struct CommonOptions {
  Index sinks = 0, recent = 0;
  std::vector<int> skip_layers;
  bool account_loss = false;
  float tolerance = 0;
  ChosenSchedule schedule{};
  Fold merge = Fold::none;

  template <class V>
  static void fields(V& v, CommonOptions& o) {
    v("sinks", o.sinks, "first entries that stay besides the method's own choice");
    v("recent", o.recent, "newest entries that stay besides the method's own choice");
    v("skip_layers", o.skip_layers, "layers left whole, as 0/1/29; they stand outside the budget");
    v("account_loss", o.account_loss,
      "state with each plan the attention mass given up and the bound that follows");
    v("tolerance", o.tolerance,
      "instead of a budget: the fewest entries whose bound on the output's change holds");
    v("schedule", o.schedule,
      "when to evict: own (the method's), after_prefill, per_chunk, every_step, every:W, over_budget[:N]");
    v("merge", o.merge,
      "fold what would be dropped into what stays: none, nearest (key), runs (of neighbours), values "
      "(alone), "
      "compensate (one entry for all)");
  }
  PolicySettings settings() const {
    return {{sinks, recent}, skip_layers, account_loss, tolerance, schedule, 0, merge};
  }
};

/// The policy with its settings, ready for run-time use.
template <class P>
AnyPolicy with_settings(P policy, const PolicySettings& settings) {
  policy.settings = settings;
  return AnyPolicy(std::move(policy));
}

}  // namespace methods
}  // namespace kvist::inline KVIST_ABI
