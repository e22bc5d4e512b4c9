// SPDX-License-Identifier: Apache-2.0
// What a policy refuses: options, models and calls that do not fit it.
#include <kvist/policy/detail/check_call.hpp>
#include <kvist/policy/policy.hpp>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <utility>

namespace kvist::inline KVIST_ABI {

template <Part... Ps>
auto Policy<Ps...>::start(const Shape& shape) const -> Result<State> {
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

/// Is no decode step ever due by the schedule?
template <Part... Ps>
bool Policy<Ps...>::never_in_steps() const {
  const auto kind = settings.schedule.kind;
  if (kind == ChosenSchedule::Kind::own)
    return std::same_as<SchedulePart, AfterPrefill> || std::same_as<SchedulePart, PerChunk>;
  return kind == ChosenSchedule::Kind::after_prefill || kind == ChosenSchedule::Kind::per_chunk;
}

template <Part... Ps>
template <LayerView L>
Status Policy<Ps...>::check_call(const LayerCall<L>& call, const State& st) const {
  if (Status s = detail::check_call(call, st.shape, wants()); !s) return s;
  for (int h = 0; h < st.shape.kv_heads; ++h)
    if (const auto& mine = st.layers[std::size_t(call.layer)].heads[std::size_t(h)];
        Index(mine.entries.size()) > call.view.head(h).size())
      return Error{Errc::bad_shape,
                   "a head holds fewer entries than the policy has records of: tell applied() of every "
                   "plan that was "
                   "carried out, and truncate() of tokens that were taken back",
                   (long long)mine.entries.size(), call.view.head(h).size()};
  return Done{};
}

template <Part... Ps>
Status Policy<Ps...>::check_abilities(const Abilities& can) const {
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
    return Error{Errc::unsupported,
                 "blends and moves are made for single heads; the engine applies plans by layer or sequence"};
  if (can.grain == Grain::sequence && settings.tolerance > 0)
    return Error{Errc::unsupported,
                 "a tolerance is met by heads or layers, not by one choice for a sequence"};
  if (can.grain == Grain::sequence && (LayersPart::cascades || signal_grain() == Grain::sequence))
    return Error{Errc::unsupported, "layer budgets that cascade need plans of their own for each layer"};
  return Done{};
}

}  // namespace kvist::inline KVIST_ABI
