#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/policy/budget/head/even.hpp>
#include <kvist/policy/budget/layer/uniform.hpp>
#include <kvist/policy/call.hpp>
#include <kvist/policy/detail/check_call.hpp>
#include <kvist/policy/detail/plan_cost.hpp>
#include <kvist/policy/detail/roles.hpp>
#include <kvist/policy/dispose/drop.hpp>
#include <kvist/policy/dispose/fold.hpp>
#include <kvist/policy/guard/keep_ends.hpp>
#include <kvist/policy/position/positions.hpp>
#include <kvist/policy/schedule/schedule.hpp>
#include <kvist/policy/select/pages.hpp>
#include <kvist/policy/select/top_k.hpp>
#include <kvist/policy/signal/recency.hpp>

#include <algorithm>
#include <cmath>
#include <utility>

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
  Result<State> start(const Shape& shape) const {
    if (!shape.valid())
      return Error{Errc::bad_shape,
                   "the model's shape has a size that is not positive, or KV heads "
                   "that do not divide the query heads",
                   shape.kv_heads, shape.q_heads};
    if (settings.at_least.sinks < 0 || settings.at_least.recent < 0)
      return Error{Errc::bad_option, "sinks and recent count entries and can't be negative", 0,
                   std::min(settings.at_least.sinks, settings.at_least.recent)};
    // Counts that follow the budget differ here, and are a matter of the budget: plan() says what does not fit.
    const Guards few = guard.resolve(1 << 20), many = guard.resolve(1 << 21);
    for (const auto& [a, b] : {std::pair{few.sinks, many.sinks}, std::pair{few.recent, many.recent}})
      if (a < 0 && a == b)
        return Error{
            Errc::bad_option,
            "first and newest entries that a policy always keeps (sinks, recent, window) are counts and "
            "can't be negative",
            0, a};
    if (settings.on_top < 0)
      return Error{Errc::bad_option, "entries kept on top of the budget's shares are counted from 0", 0,
                   settings.on_top};
    if (!(settings.tolerance >= 0) || !std::isfinite(settings.tolerance))
      return Error{Errc::bad_option, "a tolerance is a positive number (0: a budget decides)"};
    if (Status s = settings.schedule.validate(); !s) return s.error();
    if (whole_model() && settings.tolerance <= 0 && !free_size() && never_in_steps())
      return Error{
          Errc::unsupported,
          "this policy's layer budgets want all layers first, so that it plans in decode steps alone: choose "
          "every_step, every:W or over_budget"};
    if constexpr (requires { signal.validate(shape); })
      if (Status s = signal.validate(shape); !s) return s.error();
    if (settings.merge != Fold::none && !std::same_as<DisposePart, Drop>)
      return Error{Errc::bad_option,
                   "merge= wants a policy that drops entries; this one has another use for them"};
    if (settings.merge != Fold::none && LayersPart::cascades)
      return Error{
          Errc::unsupported,
          "merge= wants the keys of all entries that go; layer budgets that cascade cut earlier layers when "
          "theirs are no longer at hand"};
    if (settings.tolerance > 0 && free_size())
      return Error{Errc::bad_option,
                   "a tolerance and a threshold both decide how many entries stay: give one of them"};
    State st;
    st.shape = shape;
    st.layers.resize(std::size_t(shape.layers));
    for (auto& l : st.layers) l.heads.resize(std::size_t(shape.kv_heads));
    for (int l = 0; l < shape.layers; ++l)
      if (!skipped(l)) st.compressed.push_back(l);
    for (const int l : settings.skip_layers)
      if (l < 0 || l >= shape.layers)
        return Error{Errc::bad_option, "skip_layers names a layer that the model lacks", shape.layers, l};
    if constexpr (requires { layers.validate(shape.layers); })
      if (Status s = layers.validate(int(st.compressed.size())); !s) return s.error();
    if constexpr (requires { heads.validate(shape); })
      if (Status s = heads.validate(shape); !s) return s.error();
    return st;
  }

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
  Status observe(const LayerCall<L>& call, State& st) const {
    if (Status s = check_call(call, st); !s) return s;
    auto& layer = st.layers[std::size_t(call.layer)];
    Index added = 0;
    for (int h = 0; h < st.shape.kv_heads; ++h)
      added = std::max(added, call.view.head(h).size() - Index(layer.heads[std::size_t(h)].entries.size()));
    for (int h = 0; h < st.shape.kv_heads; ++h) {
      auto& mine = layer.heads[std::size_t(h)];
      const auto& head = call.view.head(h);
      const std::size_t before = mine.entries.size();
      mine.entries.resize(std::size_t(head.size()));
      if constexpr (requires { signal.observe(context(call, st, h, head), std::span(mine.entries), mine.own); })
        if (head.size() > 0)
          if (Status s = signal.observe(context(call, st, h, head), std::span(mine.entries), mine.own); !s) {
            mine.entries.resize(before);
            return s;
          }
      if (keeps_fates()) mine.fates.resize(std::size_t(head.size()));
    }
    layer.tokens += added;
    if (call.now.phase == Phase::prefill) {
      layer.stat = stat_of(layer);
      if (!LayersPart::cascades) layer.budget = -1;  // its share is settled anew from what this prompt said
    }
    return Done{};
  }

  /// Decides for one layer, and appends to `out` one plan for it and one for each earlier layer whose budget fell. The
  /// plans count on the state as it is: carry out all of them, and tell `applied` of each.
  /// Fails with: bad_budget (the guards do not fit), unsupported (the engine cannot apply what the policy makes), or what
  /// a part says; `out` is as it was then.
  template <LayerView L>
  Status plan(const LayerCall<L>& call, State& st, std::vector<Plan>& out) const {
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

  /// Records follow the entries of a plan that was carried out (dropped entries lose theirs).
  void applied(const Plan& plan, State& st) const {
    auto& layer = st.layers[std::size_t(plan.layer)];
    for (std::size_t h = 0; h < plan.heads.size(); ++h) {
      fold_records(plan.heads[h], layer.heads[h]);
      detail::erase_rows(layer.heads[h].fates, plan.heads[h].drop);
      detail::erase_rows(layer.heads[h].entries, plan.heads[h].drop);
      detail::erase_rows(layer.heads[h].scores, plan.heads[h].drop);
      if constexpr (DisposePart::makes & moves) {  // moved entries leave the tier that is planned over
        std::vector<Index> moved = detail::moved_rows(plan.heads[h]);
        detail::erase_rows(layer.heads[h].fates, moved);
        detail::erase_rows(layer.heads[h].entries, moved);
        detail::erase_rows(layer.heads[h].scores, moved);
      }
    }
  }

  /// Rows n.. of a head are gone (tokens at positions >= pos were taken back).
  void truncate(State& st, int layer, int head, Index n, Pos pos) const {
    auto& mine = st.layers[std::size_t(layer)].heads[std::size_t(head)];
    if (head == 0) st.layers[std::size_t(layer)].tokens -= std::max<Index>(0, Index(mine.entries.size()) - n);
    if (mine.entries.size() > std::size_t(n)) mine.entries.resize(std::size_t(n));
    if (mine.scores.size() > std::size_t(n)) mine.scores.resize(std::size_t(n));
    if (mine.fates.size() > std::size_t(n)) mine.fates.resize(std::size_t(n));
    if constexpr (requires { signal.truncate(std::span(mine.entries), mine.own, pos); })
      signal.truncate(std::span(mine.entries), mine.own, pos);
    else if constexpr (requires { signal.truncate(mine.own, pos); }) signal.truncate(mine.own, pos);
    if constexpr (requires(std::span<const typename SignalPart::PerHead> all) { signal.layer_stat(all); }) {
      const LayerStat now = stat_of(st.layers[std::size_t(layer)]);
      st.layers[std::size_t(layer)].stat.entropy = now.entropy;
      st.layers[std::size_t(layer)].stat.variance = now.variance;
    }
  }

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

  /// Is no decode step ever due by the schedule?
  bool never_in_steps() const {
    const auto kind = settings.schedule.kind;
    if (kind == ChosenSchedule::Kind::own)
      return std::same_as<SchedulePart, AfterPrefill> || std::same_as<SchedulePart, PerChunk>;
    return kind == ChosenSchedule::Kind::after_prefill || kind == ChosenSchedule::Kind::per_chunk;
  }

  /// What was folded adds its records to those of the entry that it went into.
  void fold_records(const HeadPlan& plan, typename State::PerHead& mine) const {
    if (!keeps_fates() || plan.drop.empty()) return;
    if constexpr (detail::DisposesWithRecords<Fate>) {
      const Fate f = fate();
      bool adds = false;
      if constexpr (requires { f.adds_records(); }) adds = f.adds_records();
      if constexpr (requires(typename SignalPart::Entry & e) { signal.fold(e, e); })
        if (adds)
          for (const Blend& b : plan.blend)
            signal.fold(mine.entries[std::size_t(b.dst)], mine.entries[std::size_t(b.src)]);
      f.applied(plan, std::span(mine.fates), mine.fate);
    }
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

  LayerStat stat_of(const typename State::PerLayer& layer) const {
    LayerStat stat;
    if constexpr (requires(std::span<const typename SignalPart::PerHead> all) { signal.layer_stat(all); }) {
      std::vector<typename SignalPart::PerHead> all;
      for (const auto& h : layer.heads) all.push_back(h.own);
      stat = signal.layer_stat(std::span<const typename SignalPart::PerHead>(all));
    }
    for (const auto& h : layer.heads) stat.size = std::max(stat.size, Index(h.entries.size()));
    stat.tokens = layer.tokens;
    return stat;
  }

  template <LayerView L>
  Status check_call(const LayerCall<L>& call, const State& st) const {
    return detail::check_call(call, st.shape, wants());
  }

  Status check_abilities(const Abilities& can) const {
    if (makes() & ~can.makes)
      return Error{Errc::unsupported,
                   "the engine cannot apply what this policy makes (drops 1, blends 2, moves 4)", makes(),
                   can.makes};
    if (can.page > 1 && (sizes() || slots() > 0))
      return Error{Errc::unsupported,
                   "this policy decides by itself which single entries stay; the engine frees whole pages", 1,
                   can.page};
    if (can.equal_counts && sizes())
      return Error{
          Errc::unsupported,
          "the engine needs equally many entries in all heads of a layer; this policy merges as many as "
          "each head's keys let it"};
    constexpr Index most_page = 1 << 20;
    if (can.page < 1 || can.page > most_page)
      return Error{Errc::bad_option, "a page holds 1 to 1048576 entries", most_page, can.page};
    if (can.shared_rows < 0)
      return Error{Errc::bad_option, "shared rows are counted from the first and can't be negative", 0,
                   can.shared_rows};
    if (can.equal_counts && !HeadsPart::even)
      return Error{Errc::unsupported,
                   "the engine needs equally many entries in all heads of a layer; this policy gives heads "
                   "budgets of their own"};
    if (can.grain != Grain::head && makes() != drops)
      return Error{
          Errc::unsupported,
          "blends and moves are made for single heads; the engine applies plans by layer or sequence"};
    if (can.grain == Grain::sequence && settings.tolerance > 0)
      return Error{Errc::unsupported,
                   "a tolerance is met by heads or layers, not by one choice for a sequence"};
    if (can.grain == Grain::sequence && (LayersPart::cascades || signal_grain() == Grain::sequence))
      return Error{Errc::unsupported, "layer budgets that cascade need plans of their own for each layer"};
    return Done{};
  }

  /// Scores of all heads of the layer into its state, NaN below everything; one score for all heads where the grain says so.
  template <LayerView L>
  Status score(const LayerCall<L>& call, State& st) const {
    auto& layer = st.layers[std::size_t(call.layer)];
    for (int h = 0; h < st.shape.kv_heads; ++h) {
      auto& mine = layer.heads[std::size_t(h)];
      const auto& head = call.view.head(h);
      if (Index(mine.entries.size()) != head.size())
        return Error{Errc::bad_shape,
                     "the head has another length than its records: observe every call, and tell applied of "
                     "every plan",
                     (long long)mine.entries.size(), head.size()};
      mine.scores.resize(mine.entries.size());
      mine.row_bytes = detail::row_bytes(head.keys) + detail::row_bytes(head.values);
      if (head.size() == 0) continue;
      if (Status s =
              signal.score(context(call, st, h, head),
                           std::span<const typename SignalPart::Entry>(mine.entries), mine.own, mine.scores);
          !s)
        return s;
      orderly(mine.scores);
    }
    if (one_choice(call.can))
      if (Status s = share_scores(layer); !s) return s;
    if (keeps_fates())
      if constexpr (requires(const Fate f, std::span<const FateEntry> e, std::span<float> s) { f.rank(e, s); })
        for (auto& mine : layer.heads) fate().rank(std::span<const FateEntry>(mine.fates), mine.scores);
    return Done{};
  }

  /// NaN goes below everything and +infinity becomes the largest number, so that sums of scores stay in order.
  static void orderly(std::span<float> scores) {
    for (float& x : scores)
      x = std::isnan(x) ? -std::numeric_limits<float>::infinity()
                        : std::min(x, std::numeric_limits<float>::max());
  }

  static Status share_scores(typename State::PerLayer& layer) {
    std::vector<float>& first = layer.heads[0].scores;
    for (std::size_t h = 1; h < layer.heads.size(); ++h) {
      if (layer.heads[h].scores.size() != first.size())
        return Error{Errc::bad_shape, "one choice for all heads of a layer wants heads of one length",
                     (long long)first.size(), (long long)layer.heads[h].scores.size()};
      for (std::size_t i = 0; i < first.size(); ++i) first[i] += layer.heads[h].scores[i];
    }
    for (float& x : first) x /= float(layer.heads.size());
    orderly(first);
    for (std::size_t h = 1; h < layer.heads.size(); ++h) layer.heads[h].scores = first;
    return Done{};
  }

  /// How many entries above its budget a layer may hold before anything goes; -1 where the schedule does not ask for it.
  Index slack() const {
    if (settings.schedule.kind == ChosenSchedule::Kind::over_budget) return settings.schedule.slack;
    if constexpr (std::same_as<SchedulePart, OverBudget>)
      if (settings.schedule.kind == ChosenSchedule::Kind::own) return schedule.slack;
    return -1;
  }

  Guards guards_for(Index budget, const Abilities& can) const {
    constexpr Index most = 1 << 29;  // more than any budget; sums must not overflow
    const Index on_top = std::min(settings.on_top, most);
    Guards g = guard.resolve(std::max<Index>(0, budget - on_top));
    g.sinks = std::max({g.sinks, settings.at_least.sinks, can.shared_rows});
    g.recent = std::max(g.recent, settings.at_least.recent);
    return {std::min(g.sinks, most), std::min(std::min(g.recent, most) + on_top, most)};
  }

  Status check_guard(Index budget) const {
    if constexpr (requires { guard.validate(budget); })
      return guard.validate(std::max<Index>(0, budget - settings.on_top));
    else return Done{};
  }

  /// What every head keeps before the rest is shared out: guards, and the places that the disposition fills. Those count
  /// as newest entries, so that the first ones go on competing.
  Guards taken_for(Index budget, const Abilities& can) const {
    Guards g = guards_for(budget, can);
    g.recent += slots();
    return g;
  }
  /// The smallest budget of a layer, up to `mean`, that its guards and the disposition's places fit in: guards may follow
  /// the budget, less steeply than it grows.
  Index least_budget(Index mean, const Abilities& can) const {
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
  template <LayerView L>
  Status budgets_of(const LayerCall<L>& call, State& st, std::vector<Plan>& made) const {
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
      if (Status s = plan_layer(call, st, l, budgets[i], made, l == call.layer ? &call : nullptr); !s)
        return s;
    }
    for (std::size_t i = from; i <= mine_at; ++i)
      st.layers[std::size_t(st.compressed[i])].budget = budgets[i];
    st.layers[std::size_t(call.layer)].asked = call.now.budget;
    return Done{};
  }

  static Status guards_do_not_fit(const Guards& g, Index budget) {
    return Error{Errc::bad_budget, "the guarded entries (sinks and recent) do not fit in the budget of a head",
                 g.sinks + g.recent, budget};
  }

  /// The plan of one layer at `mean` entries per KV head. `view` is null for a layer that is cut again from its scores.
  template <LayerView L>
  Status plan_layer(const LayerCall<L>& call, State& st, int l, Index mean, std::vector<Plan>& made,
                    const LayerCall<L>* view) const {
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
          if (Status s = detail::measure_loss(context(call, st, h, call.view.head(h)), hp, cost); !s)
            return s;
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
  template <LayerView L>
  Status decide(const LayerCall<L>& call, State& st, int h, SelectCall ask, Index mean, HeadPlan& hp) const {
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
  template <LayerView L>
  Status share(const LayerCall<L>& call, State& st, ScoreTable table, const Guards& g, Index mean,
               std::span<Index> budgets) const {
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

  Status choose(const SelectCall& ask, const Abilities& can, std::vector<Index>& drop) const {
    if (can.page > 1) return select_pages(ask, can.page, drop);
    select.select(ask, drop);
    return Done{};
  }

  /// The fewest entries of one head whose bound on the output's change stays within the tolerance, by bisection: the sets
  /// to choose from hold each other, and the bound hardly ever falls when a set shrinks; the one taken is measured.
  template <LayerView L>
  Status fit_tolerance(const LayerCall<L>& call, State& st, int h, SelectCall ask, Index& budget) const {
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
  template <LayerView L>
  Status plan_sequence(const LayerCall<L>& call, State& st, std::vector<Plan>& out) const {
    if (call.layer != st.compressed.back()) return Done{};
    if (!settings.skip_layers.empty())
      return Error{Errc::unsupported,
                   "layers cannot be skipped where one choice holds for the whole sequence"};
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

  template <LayerView L>
  std::vector<HeadCost> costs(const LayerCall<L>& call) const {
    std::vector<HeadCost> out(std::size_t(call.view.heads()));
    for (int h = 0; h < call.view.heads(); ++h) {
      const auto& head = call.view.head(h);
      detail::state_sizes(head.size(), HeadPlan{},
                          detail::row_bytes(head.keys) + detail::row_bytes(head.values), out[std::size_t(h)]);
    }
    return out;
  }
};

}  // namespace kvist::inline KVIST_ABI
