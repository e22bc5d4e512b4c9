// SPDX-License-Identifier: Apache-2.0
// Who goes: one head, one layer, or one choice for the whole sequence.
#include <kvist/core/assert.hpp>
#include <kvist/core/plan.hpp>
#include <kvist/policy/detail/plan_cost.hpp>
#include <kvist/policy/policy.hpp>
#include <kvist/policy/select/pages.hpp>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <limits>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

namespace kvist::inline KVIST_ABI {

template <Part... Ps>
template <LayerView L>
Status Policy<Ps...>::plan(const LayerCall<L>& call, State& st, std::vector<Plan>& out) const {
  if (Status s = check_call(call, st); !s) return s;
  if (Status s = check_abilities(call.can); !s) return s;
  if (skipped(call.layer)) {
    out.push_back(Plan{call.layer, std::vector<HeadPlan>(std::size_t(st.shape.kv_heads)), costs(call)});
    return Done{};
  }
  if (Status s = score(call, st); !s) return s;
  if (settings.tolerance <= 0 && call.now.budget <= 0 && !free_size())
    return Error{Errc::bad_budget,
                 "no budget is set: a policy that drops entries wants Clock::budget in entries per KV head",
                 1, call.now.budget};
  if (call.can.grain == Grain::sequence) return plan_sequence(call, st, out);

  std::vector<Plan> made;
  if (Status s = budgets_of(call, st, made); !s) return s;
  for (Plan& p : made) out.push_back(std::move(p));
  return Done{};
}

/// The plan of one layer at `mean` entries per KV head. `view` is null for a layer that is cut again from its scores.
template <Part... Ps>
template <LayerView L>
Status Policy<Ps...>::plan_layer(const LayerCall<L>& call, State& st, int l, Index mean,
                                 std::vector<Plan>& made, const LayerCall<L>* view) const {
  auto& layer = st.layers[std::size_t(l)];
  const int n_heads = st.shape.kv_heads;
  Index longest = 0;
  for (const auto& h : layer.heads) longest = std::max(longest, Index(h.scores.size()));
  const bool waits = settings.tolerance <= 0 && slack() >= 0 && longest <= mean + slack();
  std::vector<Index> budgets(std::size_t(n_heads),
                             free_size() || waits ? std::numeric_limits<Index>::max() : mean);
  if (settings.tolerance <= 0 && !free_size() && !waits) {
    std::vector<std::span<const float>> table;
    for (const auto& h : layer.heads) table.push_back(h.scores);
    const Guards g = guards_for(mean, call.can), taken = taken_for(mean, call.can);
    if (longest > mean) {
      if (taken.sinks + taken.recent > mean) return guards_do_not_fit(taken, mean);
      // Heads that share one choice have nothing to compete with: equal scores would part by index alone.
      if (!one_choice(call.can))
        if (Status s = heads.allocate({table, taken, mean, l}, budgets); !s) return s;
      if (view)
        if (Status s = share(call, st, table, g, mean, budgets); !s) return s;
    }
  }
  Plan plan{l, std::vector<HeadPlan>(std::size_t(n_heads)), std::vector<HeadCost>(std::size_t(n_heads))};
  const Guards g = guards_for(mean, call.can);
  const auto ask_of = [&](int h) {
    return SelectCall{layer.heads[std::size_t(h)].scores,
                      view ? std::span<const Pos>(view->view.head(h).pos) : std::span<const Pos>{},
                      g,
                      budgets[std::size_t(h)],
                      layer.scratch,
                      l,
                      h};
  };
  if (settings.tolerance > 0) {
    for (int h = 0; h < n_heads; ++h)
      if (Status s = fit_tolerance(call, st, h, ask_of(h), budgets[std::size_t(h)]); !s) return s;
    // The head that needs most decides where heads must stay of one length.
    if (one_choice(call.can) || call.can.equal_counts)
      std::fill(budgets.begin(), budgets.end(), *std::max_element(budgets.begin(), budgets.end()));
  }
  for (int h = 0; h < n_heads; ++h) {
    auto& mine = layer.heads[std::size_t(h)];
    HeadPlan& hp = plan.heads[std::size_t(h)];
    const Index n = Index(mine.scores.size());
    const SelectCall ask = ask_of(h);
    if (!view) {
      if (n > ask.budget)
        if (Status s = choose(ask, call.can, hp.drop); !s) return s;
    } else {
      if (Status s = decide(call, st, h, ask, mean, hp); !s) return s;
      for (const Self& s : hp.self)
        if (s.dst < call.can.shared_rows)
          return Error{Errc::unsupported, "a blend would write a row that other sequences share",
                       call.can.shared_rows, s.dst};
      HeadCost& cost = plan.cost[std::size_t(h)];
      if (settings.account_loss || settings.tolerance > 0)
        if (Status s = detail::measure_loss(context(call, st, h, call.view.head(h)), hp, cost); !s) return s;
      // What other tiers' codes make of the output is not in the bound.
      if (!hp.move.empty()) cost.bound = HeadCost::unknown;
    }
    detail::state_sizes(n, hp, mine.row_bytes, plan.cost[std::size_t(h)]);
#if defined(KVIST_CHECKED)
    KVIST_ASSERT(kvist::check(hp, n, g).has_value());
#endif
  }
  if (view || !plan.empty()) made.push_back(std::move(plan));
  return Done{};
}

/// Who goes of one head, and what becomes of them. `mean`: entries per head of the layer.
template <Part... Ps>
template <LayerView L>
Status Policy<Ps...>::decide(const LayerCall<L>& call, State& st, int h, SelectCall ask, Index mean,
                             HeadPlan& hp) const {
  auto& mine = st.layers[std::size_t(call.layer)].heads[std::size_t(h)];
  auto c = context(call, st, h, call.view.head(h));
  c.budget = ask.budget;
  c.mean_budget = mean;
  c.guards = ask.guards;
  c.shared_rows = call.can.shared_rows;
  hp.clear();
  if (ask.size() > ask.budget) {
    ask.budget -= slots();
    if (Status s = choose(ask, call.can, hp.drop); !s) return s;
  }
  const Fate f = fate();
  if constexpr (std::same_as<Fate, detail::Folder>) {
    if (settings.merge == Fold::none) return Done{};
  }
  if constexpr (detail::DisposesWithRecords<Fate>)
    return f.dispose(c, mine.scores, std::span<const FateEntry>(mine.fates), mine.fate, hp);
  else return f.dispose(c, mine.scores, hp);
}

/// Head budgets that the disposition makes of the keys of the whole layer, where it does.
template <Part... Ps>
template <LayerView L>
Status Policy<Ps...>::share(const LayerCall<L>& call, State& st, ScoreTable table, const Guards& g,
                            Index mean, std::span<Index> budgets) const {
  using C = HeadContext<std::remove_cvref_t<decltype(call.view.head(0))>>;
  using Records = std::span<const std::span<const FateEntry>>;
  if constexpr (requires(const Fate f, std::span<const C> all, Records r) {
                  f.share(all, table, r, mean, budgets);
                }) {
    auto& layer = st.layers[std::size_t(call.layer)];
    std::vector<C> all;
    std::vector<std::span<const FateEntry>> records;
    for (int h = 0; h < st.shape.kv_heads; ++h) {
      all.push_back(context(call, st, h, call.view.head(h)));
      all.back().budget = all.back().mean_budget = mean;
      all.back().guards = g;
      all.back().shared_rows = call.can.shared_rows;
      records.push_back(layer.heads[std::size_t(h)].fates);
    }
    return fate().share(std::span<const C>(all), table, Records(records), mean, budgets);
  } else {
    return Done{};
  }
}

template <Part... Ps>
Status Policy<Ps...>::choose(const SelectCall& ask, const Abilities& can, std::vector<Index>& drop) const {
  if (can.page > 1) return select_pages(ask, can.page, drop);
  select.select(ask, drop);
  return Done{};
}

/// The fewest entries of one head whose bound on the output's change stays within the tolerance, by bisection: the sets
/// to choose from hold each other, and the bound hardly ever falls when a set shrinks; the one taken is measured.
template <Part... Ps>
template <LayerView L>
Status Policy<Ps...>::fit_tolerance(const LayerCall<L>& call, State& st, int h, SelectCall ask,
                                    Index& budget) const {
  const auto c = context(call, st, h, call.view.head(h));
  HeadPlan trial;
  Index lo = std::min<Index>(std::max<Index>(ask.guards.sinks + ask.guards.recent + slots(), 1), ask.size()),
        hi = ask.size();
  while (lo < hi) {
    ask.budget = lo + (hi - lo) / 2;
    // Whole pages may not fit in so little. What is moved counts as if it went.
    bool holds = (DisposePart::makes & moves ? choose(ask, call.can, trial.drop)
                                             : decide(call, st, h, ask, ask.budget, trial))
                     .has_value();
    if (holds) {
      HeadCost cost;
      if (Status s = detail::measure_loss(c, trial, cost); !s) return s;
      if (std::isnan(cost.bound))
        return Error{Errc::missing_evidence,
                     "a tolerance wants finite values and the attention of recent queries"};
      holds = cost.bound <= settings.tolerance;
    }
    if (holds) hi = ask.budget;
    else lo = ask.budget + 1;
  }
  budget = lo;
  return Done{};
}

/// One choice for the whole sequence: once the last layer has been scored, the mean of all layers' scores decides.
///
/// All layers and heads get the mean budget: shares that layers or heads have of their own (a ladder, cross-head shares)
/// cannot differ here and are not asked for. Losses are stated as unknown: other layers' rows are not at hand by now.
template <Part... Ps>
template <LayerView L>
Status Policy<Ps...>::plan_sequence(const LayerCall<L>& call, State& st, std::vector<Plan>& out) const {
  if (call.layer != st.compressed.back()) return Done{};
  if (!settings.skip_layers.empty())
    return Error{Errc::unsupported, "layers cannot be skipped where one choice holds for the whole sequence"};
  auto& last = st.layers[std::size_t(call.layer)];
  std::vector<float> sum(last.heads[0].scores.size(), 0.0f);
  for (const auto& layer : st.layers) {
    if (layer.heads[0].scores.size() != sum.size())
      return Error{Errc::bad_shape, "one choice for the sequence wants layers of one length",
                   (long long)sum.size(), (long long)layer.heads[0].scores.size()};
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += layer.heads[0].scores[i];
  }
  const Guards g = guards_for(call.now.budget, call.can);
  orderly(sum);
  const SelectCall ask{sum, call.view.head(0).pos, g, call.now.budget, last.scratch, call.layer, 0};
  std::vector<Index> drop;
  if (Status s = check_guard(call.now.budget); !s) return s;
  if (ask.size() > ask.budget + std::max<Index>(slack(), 0)) {
    if (g.sinks + g.recent > ask.budget) return guards_do_not_fit(g, ask.budget);
    if (Status s = choose(ask, call.can, drop); !s) return s;
  }
  for (int l = 0; l < st.shape.layers; ++l) {
    Plan p{l, std::vector<HeadPlan>(std::size_t(st.shape.kv_heads)),
           std::vector<HeadCost>(std::size_t(st.shape.kv_heads))};
    for (auto& h : p.heads) h.drop = drop;
    for (int h = 0; h < st.shape.kv_heads; ++h)
      detail::state_sizes(ask.size(), p.heads[std::size_t(h)],
                          st.layers[std::size_t(l)].heads[std::size_t(h)].row_bytes, p.cost[std::size_t(h)]);
    out.push_back(std::move(p));
  }
  return Done{};
}

template <Part... Ps>
template <LayerView L>
std::vector<HeadCost> Policy<Ps...>::costs(const LayerCall<L>& call) const {
  std::vector<HeadCost> out(std::size_t(call.view.heads()));
  for (int h = 0; h < call.view.heads(); ++h) {
    const auto& head = call.view.head(h);
    detail::state_sizes(head.size(), HeadPlan{},
                        detail::row_bytes(head.keys) + detail::row_bytes(head.values), out[std::size_t(h)]);
  }
  return out;
}

}  // namespace kvist::inline KVIST_ABI
