#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/policy/dispose/compensate.hpp>
#include <kvist/policy/dispose/match/runs.hpp>
#include <kvist/policy/dispose/merge.hpp>

namespace kvist::inline KVIST_ABI {

/// A merge by a run-time value, for settings and options that turn a policy's drops into one.
///
///   nearest     into the entry that stays whose key is most alike (cosine at least 0.6); keys and values become the mean over
///               tokens, and the entry weighs as many
///   runs        into the kept neighbour in the sequence, parted at the weakest link of neighbouring keys; a Gaussian of the
///               distance to it (sigma 5) as weights, and the entry weighs as many (links at least 0.6 on the way)
///   values      values alone, into the entry whose key is most alike (cosine at least 0), by similarity and share of norms;
///               keys and weights stay. NVIDIA/kvpress, merging_press.py
///   compensate  all into one entry of weight log N, which takes one place of the budget. arXiv 2407.15891
/// Rotated keys are averaged as they lie (nearest, runs, compensate), raw keys where the view holds raw ones.
enum class Fold : std::uint8_t { none, nearest, runs, values, compensate };

namespace detail {

/// The merge that a Fold names.
struct Folder {
  using Entry = MergeRecord;
  struct PerHead {};
  using Nearest = Merge<NearestKept, Threshold, CountMean, NewCentroid, LogCount>;
  using Runs = Merge<RunsOfKept, Threshold, Gaussian, NewCentroid, LogCount>;
  using Values = Merge<NearestKept, Threshold, ByValueShare, ValuesOnly, NoMass>;
  static constexpr float least = 0.6f;

  Fold kind = Fold::none;

  Index slots() const { return kind == Fold::compensate ? Compensate::slots : 0; }
  bool adds_records() const { return kind != Fold::values; }

  void rank(std::span<const Entry> entries, std::span<float> scores) const {
    if (kind == Fold::compensate) Compensate{}.rank(entries, scores);
  }

  template <Head H>
  Status dispose(const HeadContext<H>& c, std::span<const float> scores, std::span<const Entry> entries,
                 PerHead&, HeadPlan& plan) const {
    if (plan.drop.empty()) return Done{};
    if (kind == Fold::compensate) {
      Compensate::PerHead none;
      return Compensate{}.dispose(c, scores, entries, none, plan);
    }
    if (kind == Fold::nearest) {
      Nearest::PerHead none;
      return Nearest{{}, {least}, {}, {}, {}}.dispose(c, scores, entries, none, plan);
    }
    if (kind == Fold::runs) {
      Runs::PerHead none;
      return Runs{{}, {least}, {}, {}, {}}.dispose(c, scores, entries, none, plan);
    }
    Values::PerHead none;
    return Values{{}, {0.0f}, {}, {}, {}}.dispose(c, scores, entries, none, plan);
  }
  void applied(const HeadPlan& plan, std::span<Entry> entries, PerHead&) const {
    Compensate::PerHead none;
    if (kind == Fold::compensate) return Compensate{}.applied(plan, entries, none);
    for (const Blend& b : plan.blend) entries[std::size_t(b.dst)].count += entries[std::size_t(b.src)].count;
  }
};

}  // namespace detail
}  // namespace kvist::inline KVIST_ABI
