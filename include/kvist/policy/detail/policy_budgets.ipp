// SPDX-License-Identifier: Apache-2.0
// What each layer may keep: guards, the least that they fit in, and the shares of the layers.
#include <kvist/policy/call.hpp>
#include <kvist/policy/policy.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <vector>

namespace kvist::inline KVIST_ABI {

/// How many entries above its budget a layer may hold before anything goes; -1 where the schedule does not ask for it.
template <Part... Ps>
Index Policy<Ps...>::slack() const {
  if (settings.schedule.kind == ChosenSchedule::Kind::over_budget) return settings.schedule.slack;
  if constexpr (std::same_as<SchedulePart, OverBudget>)
    if (settings.schedule.kind == ChosenSchedule::Kind::own) return schedule.slack;
  return -1;
}

template <Part... Ps>
Guards Policy<Ps...>::guards_for(Index budget, const Abilities& can) const {
  constexpr Index most = 1 << 29;  // more than any budget; sums must not overflow
  const Index on_top = std::min(settings.on_top, most);
  Guards g = guard.resolve(std::max<Index>(0, budget - on_top));
  g.sinks = std::max({g.sinks, settings.at_least.sinks, can.shared_rows});
  g.recent = std::max(g.recent, settings.at_least.recent);
  return {std::min(g.sinks, most), std::min(std::min(g.recent, most) + on_top, most)};
}

template <Part... Ps>
Status Policy<Ps...>::check_guard(Index budget) const {
  if constexpr (requires { guard.validate(budget); })
    return guard.validate(std::max<Index>(0, budget - settings.on_top));
  else return Done{};
}

/// What every head keeps before the rest is shared out: guards, and the places that the disposition fills. Those count
/// as newest entries, so that the first ones go on competing.
template <Part... Ps>
Guards Policy<Ps...>::taken_for(Index budget, const Abilities& can) const {
  Guards g = guards_for(budget, can);
  g.recent += slots();
  return g;
}

/// The smallest budget of a layer, up to `mean`, that its guards and the disposition's places fit in: guards may follow
/// the budget, less steeply than it grows.
template <Part... Ps>
Index Policy<Ps...>::least_budget(Index mean, const Abilities& can) const {
  Index lo = 0, hi = std::max<Index>(mean, 0);
  while (lo < hi) {
    const Index mid = lo + (hi - lo) / 2;
    const Guards g = taken_for(mid, can);
    if (g.sinks + g.recent <= mid) hi = mid;
    else lo = mid + 1;
  }
  return hi;
}

/// Entries per KV head of the layers so far; then a plan for each layer that must give something up.
template <Part... Ps>
template <LayerView L>
Status Policy<Ps...>::budgets_of(const LayerCall<L>& call, State& st, std::vector<Plan>& made) const {
  const auto here = std::find(st.compressed.begin(), st.compressed.end(), call.layer);
  const std::size_t mine_at = std::size_t(here - st.compressed.begin());
  const std::size_t count = whole_model() ? st.compressed.size() : mine_at + 1;
  if (settings.tolerance > 0 || free_size()) return plan_layer(call, st, call.layer, 0, made, &call);
  if (const auto& mine = st.layers[std::size_t(call.layer)];
      call.now.phase == Phase::decode && mine.budget >= 0 && mine.asked == call.now.budget)
    return plan_layer(call, st, call.layer, st.layers[std::size_t(call.layer)].budget, made, &call);

  if (Status s = check_guard(call.now.budget); !s) return s;
  if (whole_model() && call.now.phase == Phase::prefill) {  // later layers have not been seen yet: all stays whole
    const Guards g = taken_for(call.now.budget, call.can);
    if (g.sinks + g.recent > call.now.budget) return guards_do_not_fit(g, call.now.budget);
    return Done{};
  }
  std::vector<LayerStat> stats(count);
  // Where shares do not cascade, layers may run at once: each looks at itself only, or at stats that stand.
  const std::size_t first = LayersPart::cascades || whole_model() ? 0 : count - 1;
  for (std::size_t i = first; i < count; ++i) stats[i] = st.layers[std::size_t(st.compressed[i])].stat;
  std::vector<Index> budgets(count, 0);
  const LayerBudgetCall ask{int(st.compressed.size()), stats, taken_for(call.now.budget, call.can),
                            call.now.budget, least_budget(call.now.budget, call.can)};
  if (Status s = layers.allocate(ask, budgets); !s) return s;
  const std::size_t from = LayersPart::cascades ? 0 : mine_at;
  for (std::size_t i = from; i <= mine_at; ++i) {
    const int l = st.compressed[i];
    if (Status s = plan_layer(call, st, l, budgets[i], made, l == call.layer ? &call : nullptr); !s) return s;
  }
  for (std::size_t i = from; i <= mine_at; ++i) st.layers[std::size_t(st.compressed[i])].budget = budgets[i];
  st.layers[std::size_t(call.layer)].asked = call.now.budget;
  return Done{};
}

template <Part... Ps>
Status Policy<Ps...>::guards_do_not_fit(const Guards& g, Index budget) {
  return Error{Errc::bad_budget, "the guarded entries (sinks and recent) do not fit in the budget of a head",
               g.sinks + g.recent, budget};
}

}  // namespace kvist::inline KVIST_ABI
