#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/policy/budget/head/even.hpp>
#include <kvist/policy/budget/layer/uniform.hpp>
#include <kvist/policy/call.hpp>
#include <kvist/policy/detail/plan_cost.hpp>
#include <kvist/policy/detail/roles.hpp>
#include <kvist/policy/dispose/drop.hpp>
#include <kvist/policy/dispose/fold.hpp>
#include <kvist/policy/guard/keep_ends.hpp>
#include <kvist/policy/position/positions.hpp>
#include <kvist/policy/schedule/schedule.hpp>
#include <kvist/policy/select/top_k.hpp>
#include <kvist/policy/signal/recency.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

namespace kvist::inline KVIST_ABI {

/// A cache policy put together from parts in any order; a missing role gets its default (Recency, Uniform, EvenHeads,
/// KeepEnds, TopK, Drop, AfterPrefill, KeepPositions). A value: const after construction, shared by all threads.
///
/// Use, for each layer: `observe` with the evidence of the call; if `due`, `plan`; carry the plans out; tell `applied`.
/// State belongs to one sequence; different layers may be processed at once unless the layer budget cascades or the
/// engine's grain is the sequence.
///
/// State survives a new turn: records and positions go on, shares and what a prompt says of a layer are settled anew by the
/// next prompt, steps count from it (policy/README.md says it part by part).
template <Part... Ps>
class Policy {
  static_assert(((detail::count_role<Ps::role, Ps...> == 1) && ...), "two parts fill the same role");
  template <Role R, class Default>
  using At = detail::pick<R, Default, Ps...>;

 public:
  using SignalPart = At<Role::signal, Recency>;
  using LayersPart = At<Role::layer_budget, Uniform>;
  using HeadsPart = At<Role::head_budget, EvenHeads>;
  using GuardPart = At<Role::guard, KeepEnds>;
  using SelectPart = At<Role::selector, TopK>;
  using DisposePart = At<Role::disposition, Drop>;
  using SchedulePart = At<Role::schedule, AfterPrefill>;
  using PositionsPart = At<Role::positions, KeepPositions>;
  static_assert(Signal<SignalPart> && LayerBudget<LayersPart> && HeadBudget<HeadsPart> && Guard<GuardPart> &&
                Selector<SelectPart> && Disposition<DisposePart> && Schedule<SchedulePart> &&
                Positions<PositionsPart>);
  static_assert(!LayersPart::cascades || DisposePart::makes == drops,
                "a cascading layer budget cuts earlier layers again, when their keys are no longer at hand: "
                "drops only");

  SignalPart signal{};
  LayersPart layers{};
  HeadsPart heads{};
  GuardPart guard{};
  SelectPart select{};
  DisposePart dispose{};
  SchedulePart schedule{};
  PositionsPart positions{};
  PolicySettings settings{};

  Policy() = default;
  template <Part... Qs>
  requires(sizeof...(Qs) > 0) explicit Policy(Qs... parts) { (put(std::move(parts)), ...); }

  /// What becomes of losers: the disposition, or what settings.merge puts in the place of Drop.
  using Fate = std::conditional_t<std::same_as<DisposePart, Drop>, detail::Folder, DisposePart>;
  using FateEntry = typename detail::fate_records<Fate>::Entry;
  using FatePerHead = typename detail::fate_records<Fate>::PerHead;

  /// Records and memory of one sequence; they follow their entries through every plan.
  struct State {
    struct PerHead {
      std::vector<typename SignalPart::Entry> entries;
      typename SignalPart::PerHead own{};
      std::vector<FateEntry> fates;  ///< records of the disposition; empty where it keeps none
      FatePerHead fate{};
      std::vector<float> scores;  ///< of the last plan, for those who stayed
      std::size_t row_bytes = 0;  ///< of one entry, as the last view stored it
    };
    struct PerLayer {
      std::vector<PerHead> heads;
      LayerStat stat;
      Index tokens = 0;   ///< that the layer was given so far
      Index budget = -1;  ///< entries per KV head since the last plan after a prompt; -1: none yet
      Index asked = -1;   ///< the mean budget that it was a share of
      Scratch scratch;
    };
    Shape shape;
    std::vector<PerLayer> layers;
    std::vector<int> compressed;  ///< layers that are not skipped, ascending
  };

  /// An empty state for a sequence, after checking options against the model.
  /// Fails with: bad_shape, bad_option, or what the signal's validate() says.
  Result<State> start(const Shape& shape) const;

  Wants wants() const {
    Wants w = signal.wants();
    if constexpr (requires { dispose.wants(); }) w = w | dispose.wants();
    if (settings.account_loss || settings.tolerance > 0) w = w | detail::loss_wants;
    return w;
  }
  /// Is it time to plan? By the schedule part, or by the schedule that the settings choose in its place. Where layers have
  /// shares of their own, what waits for more than the budget is always due, and plan() looks at the layer's share.
  bool due(const Clock& now) const {
    if (slack() >= 0 && !std::same_as<LayersPart, Uniform>) return EveryStep{}.due(now);
    if (settings.schedule.kind != ChosenSchedule::Kind::own) return settings.schedule.due(now);
    return schedule.due(now);
  }
  unsigned makes() const {
    return settings.merge == Fold::none ? unsigned(DisposePart::makes) : drops | blends;
  }
  static constexpr bool compact() { return PositionsPart::compact; }
  /// Is there a place for settings.merge? What is dropped has none elsewhere, and its keys must be at hand.
  static constexpr bool can_merge() { return std::same_as<DisposePart, Drop> && !LayersPart::cascades; }
  /// Does the disposition decide by itself how many entries stay, so that no budget is needed?
  bool free_size() const {
    if constexpr (requires { dispose.free_size(); }) return dispose.free_size();
    else return false;
  }
  /// Must layers be processed one after another, from the first to the last?
  static constexpr bool in_order() { return LayersPart::cascades; }

  /// Room for the records of n entries a head, so that following them allocates nothing up to there.
  void reserve(State& st, Index n) const {
    for (auto& layer : st.layers)
      for (auto& head : layer.heads) {
        head.entries.reserve(std::size_t(n));
        head.scores.reserve(std::size_t(n));
        if (keeps_fates()) head.fates.reserve(std::size_t(n));
      }
  }

  /// Folds the evidence of one call into the records of one layer.
  /// Fails with: missing_evidence, bad_shape; nothing has changed then, but that heads before one whose evidence the signal
  /// itself refuses have folded theirs.
  template <LayerView L>
  Status observe(const LayerCall<L>& call, State& st) const;

  /// Decides for one layer, and appends to `out` one plan for it and one for each earlier layer whose budget fell. The
  /// plans count on the state as it is: carry out all of them, and tell `applied` of each.
  /// Fails with: bad_budget (the guards do not fit), unsupported (the engine cannot apply what the policy makes), or what
  /// a part says; `out` is as it was then.
  template <LayerView L>
  Status plan(const LayerCall<L>& call, State& st, std::vector<Plan>& out) const;

  /// Records follow the entries of a plan that was carried out (dropped entries lose theirs).
  void applied(const Plan& plan, State& st) const;

  /// Rows n.. of a head are gone (tokens at positions >= pos were taken back).
  void truncate(State& st, int layer, int head, Index n, Pos pos) const;

 private:
  template <class Q>
  void put(Q part) {
    if constexpr (std::same_as<Q, SignalPart>) signal = std::move(part);
    else if constexpr (std::same_as<Q, LayersPart>) layers = std::move(part);
    else if constexpr (std::same_as<Q, HeadsPart>) heads = std::move(part);
    else if constexpr (std::same_as<Q, GuardPart>) guard = std::move(part);
    else if constexpr (std::same_as<Q, SelectPart>) select = std::move(part);
    else if constexpr (std::same_as<Q, DisposePart>) dispose = std::move(part);
    else if constexpr (std::same_as<Q, SchedulePart>) schedule = std::move(part);
    else if constexpr (std::same_as<Q, PositionsPart>) positions = std::move(part);
    else static_assert(!sizeof(Q), "this part is not in the policy");
  }

  Fate fate() const {
    if constexpr (std::same_as<DisposePart, Drop>) return {settings.merge};
    else return dispose;
  }
  bool keeps_fates() const {
    if constexpr (std::same_as<DisposePart, Drop>) return settings.merge != Fold::none;
    else return detail::DisposesWithRecords<Fate>;
  }
  /// Places of the budget that the disposition fills by itself.
  Index slots() const {
    if constexpr (requires { Fate::slots; } && !std::same_as<DisposePart, Drop>) return Fate::slots;
    else if constexpr (std::same_as<DisposePart, Drop>) return fate().slots();
    else return 0;
  }
  static constexpr bool sizes() {
    if constexpr (requires { DisposePart::sizes; }) return DisposePart::sizes;
    else return false;
  }
  static constexpr bool whole_model() {
    if constexpr (requires { LayersPart::whole; }) return LayersPart::whole;
    else return false;
  }

  static constexpr Grain signal_grain() {
    if constexpr (requires { SignalPart::grain; }) return SignalPart::grain;
    else return Grain::head;
  }

  /// Do all heads of a layer keep the same entries, by the signal or by what the engine can apply?
  static bool one_choice(const Abilities& can) {
    return can.grain != Grain::head || signal_grain() != Grain::head;
  }

  bool skipped(int layer) const {
    return std::find(settings.skip_layers.begin(), settings.skip_layers.end(), layer) !=
           settings.skip_layers.end();
  }

  template <LayerView L, Head H>
  static HeadContext<H> context(const LayerCall<L>& call, State& st, int h, const H& head) {
    static constexpr Evidence none{};
    return {head,
            call.seen.empty() ? none : call.seen[std::size_t(h)],
            call.now,
            st.shape,
            st.layers[std::size_t(call.layer)].scratch,
            call.rope,
            call.layer,
            h};
  }

  // detail/policy_checks.ipp: what a policy refuses
  bool never_in_steps() const;
  template <LayerView L>
  Status check_call(const LayerCall<L>& call, const State& st) const;
  Status check_abilities(const Abilities& can) const;

  // detail/policy_records.ipp: records follow entries, scores are made of them
  void fold_records(const HeadPlan& plan, typename State::PerHead& mine) const;
  LayerStat stat_of(const typename State::PerLayer& layer) const;
  template <LayerView L>
  Status score(const LayerCall<L>& call, State& st) const;
  static void orderly(std::span<float> scores);
  static Status share_scores(typename State::PerLayer& layer);

  // detail/policy_budgets.ipp: what each layer may keep
  Index slack() const;
  Guards guards_for(Index budget, const Abilities& can) const;
  Status check_guard(Index budget) const;
  Guards taken_for(Index budget, const Abilities& can) const;
  Index least_budget(Index mean, const Abilities& can) const;
  template <LayerView L>
  Status budgets_of(const LayerCall<L>& call, State& st, std::vector<Plan>& made) const;
  static Status guards_do_not_fit(const Guards& g, Index budget);

  // detail/policy_plan.ipp: who goes
  template <LayerView L>
  Status plan_layer(const LayerCall<L>& call, State& st, int l, Index mean, std::vector<Plan>& made,
                    const LayerCall<L>* view) const;
  template <LayerView L>
  Status decide(const LayerCall<L>& call, State& st, int h, SelectCall ask, Index mean, HeadPlan& hp) const;
  template <LayerView L>
  Status share(const LayerCall<L>& call, State& st, ScoreTable table, const Guards& g, Index mean,
               std::span<Index> budgets) const;
  Status choose(const SelectCall& ask, const Abilities& can, std::vector<Index>& drop) const;
  template <LayerView L>
  Status fit_tolerance(const LayerCall<L>& call, State& st, int h, SelectCall ask, Index& budget) const;
  template <LayerView L>
  Status plan_sequence(const LayerCall<L>& call, State& st, std::vector<Plan>& out) const;
  template <LayerView L>
  std::vector<HeadCost> costs(const LayerCall<L>& call) const;
};

}  // namespace kvist::inline KVIST_ABI

#include <kvist/policy/detail/policy_budgets.ipp>
#include <kvist/policy/detail/policy_checks.ipp>
#include <kvist/policy/detail/policy_plan.ipp>
#include <kvist/policy/detail/policy_records.ipp>
