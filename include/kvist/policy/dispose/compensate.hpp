#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/policy/dispose/merge_call.hpp>

namespace kvist::inline KVIST_ABI {

/// All losers of a head, then and later, become one entry: the mean of their keys and of their values, which weighs as many
/// entries as it stands for (log N). It takes one place of the budget and stands where its newest loser stood at first.
///
/// Rotated keys are averaged as they are: slow channels keep what distant tokens have in common, fast ones cancel. The
/// weight log N is taken from the paper's formula as others restate it; `weighted` false leaves it out.
/// Source: arXiv 2407.15891 (RazorAttention), compensation token; which heads need one is not decided here.
///
/// Needs: keys and values. State: a count an entry, and which entry it is. Cost: dk + dv multiply-adds a loser.
struct Compensate {
  static constexpr Role role = Role::disposition;
  static constexpr unsigned makes = drops | blends;
  static constexpr Index slots = 1;  ///< places of the budget that it takes
  using Entry = MergeRecord;
  struct PerHead {};
  bool weighted = true;

  bool adds_records() const { return weighted; }

  /// The compensation entry is always among the losers, and is then brought back with the others in it.
  void rank(std::span<const Entry> entries, std::span<float> scores) const {
    for (std::size_t i = 0; i < entries.size(); ++i)
      if (entries[i].stands_in) scores[i] = -std::numeric_limits<float>::infinity();
  }

  template <Head H>
  Status dispose(const HeadContext<H>& c, std::span<const float>, std::span<const Entry> entries, PerHead&,
                 HeadPlan& plan) const {
    if (plan.drop.empty()) return Done{};
    Index host = -1;
    for (const Index i : plan.drop)
      if (entries[std::size_t(i)].stands_in) host = i;
    for (Index i = 0; host < 0 && i < c.size(); ++i)  // guarded by now: it stays where it is
      if (entries[std::size_t(i)].stands_in) host = i;
    if (host < 0) host = plan.drop.back();
    if (host < c.shared_rows)
      return Error{Errc::unsupported, "a compensation entry can't lie in rows that others share"};
    std::erase(plan.drop, host);
    if (plan.drop.empty()) return Done{};
    double all = double(entries[std::size_t(host)].count);
    for (const Index i : plan.drop) all += double(entries[std::size_t(i)].count);
    for (const Index i : plan.drop) {
      const float w = float(double(entries[std::size_t(i)].count) / all);
      plan.blend.push_back({i, host, w, w});
    }
    const float w = float(double(entries[std::size_t(host)].count) / all);
    plan.self.push_back({host, w, w, weighted ? float(std::log(all)) : 0.0f});
    return Done{};
  }
  void applied(const HeadPlan& plan, std::span<Entry> entries, PerHead&) const {
    for (const Blend& b : plan.blend) {
      entries[std::size_t(b.dst)].count += entries[std::size_t(b.src)].count;
      entries[std::size_t(b.dst)].stands_in = 1;
    }
  }
};
static_assert(Disposition<Compensate>);

}  // namespace kvist::inline KVIST_ABI
