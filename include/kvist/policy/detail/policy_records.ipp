// SPDX-License-Identifier: Apache-2.0
// Records follow their entries through calls and plans, and scores are made of them.
#include <kvist/core/vector_rows.hpp>
#include <kvist/policy/detail/roles.hpp>
#include <kvist/policy/policy.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <vector>

namespace kvist::inline KVIST_ABI {

template <Part... Ps>
template <LayerView L>
Status Policy<Ps...>::observe(const LayerCall<L>& call, State& st) const {
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

template <Part... Ps>
void Policy<Ps...>::applied(const Plan& plan, State& st) const {
  const auto forget = [](typename State::PerHead& head, const std::vector<Index>& rows) {
    detail::erase_rows(head.fates, rows);
    detail::erase_rows(head.entries, rows);
    detail::erase_rows(head.scores, rows);
  };
  auto& layer = st.layers[std::size_t(plan.layer)];
  for (std::size_t h = 0; h < plan.heads.size(); ++h) {
    auto& mine = layer.heads[h];
    fold_records(plan.heads[h], mine);
    forget(mine, plan.heads[h].drop);
    if (!plan.heads[h].move.empty())  // moved entries leave the tier that is planned over
      forget(mine, detail::moved_rows(plan.heads[h]));
  }
}

template <Part... Ps>
void Policy<Ps...>::truncate(State& st, int layer, int head, Index n, Pos pos) const {
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

/// What was folded adds its records to those of the entry that it went into.
template <Part... Ps>
void Policy<Ps...>::fold_records(const HeadPlan& plan, typename State::PerHead& mine) const {
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

template <Part... Ps>
LayerStat Policy<Ps...>::stat_of(const typename State::PerLayer& layer) const {
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

/// Scores of all heads of the layer into its state, NaN below everything; one score for all heads where the grain says so.
template <Part... Ps>
template <LayerView L>
Status Policy<Ps...>::score(const LayerCall<L>& call, State& st) const {
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
template <Part... Ps>
void Policy<Ps...>::orderly(std::span<float> scores) {
  for (float& x : scores)
    x = std::isnan(x) ? -std::numeric_limits<float>::infinity()
                      : std::min(x, std::numeric_limits<float>::max());
}

template <Part... Ps>
Status Policy<Ps...>::share_scores(typename State::PerLayer& layer) {
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

}  // namespace kvist::inline KVIST_ABI
