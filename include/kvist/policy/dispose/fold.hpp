#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/policy/dispose/compensate.hpp>
#include <kvist/policy/dispose/match/runs.hpp>
#include <kvist/policy/dispose/merge.hpp>

namespace kvist::inline KVIST_ABI {

/// A merge by a run-time value, for settings and options that turn a policy's drops into one.
///
///   nearest     into the entry that stays whose key is most alike, where their cosine is at least 0.75; weights fall with the
///               distance of the keys (Gaussian, sigma 5), and the entry weighs as many as it stands for
///   runs        the same into the kept neighbour in the sequence, where the neighbouring keys on the way have that cosine;
///               two kept neighbours part the losers between them at the weakest link
///   values      values alone, into the entry whose key is most alike (cosine at least 0), by similarity and share of norms;
///               keys and weights stay. NVIDIA/kvpress, merging_press.py
///   compensate  all into one entry of weight log N, which takes one place of the budget. arXiv 2407.15891
/// Threshold and sigma are KVMerger's; of thresholds from 0.6 to 0.9 it also kept the output nearest on two windows of 512
/// tokens of SmolLM2-135M at 20 %. Rotated keys are averaged as they lie (nearest, runs, compensate), raw keys where the view
/// holds raw ones.
enum class Fold : std::uint8_t { none, nearest, runs, values, compensate };

namespace detail {

/// The merge that a Fold names.
struct Folder {
  using Entry = MergeRecord;
  struct PerHead {};
  using Nearest = Merge<NearestKept, Threshold, Gaussian, NewCentroid, LogCount>;
  using Runs = Merge<RunsOfKept, Threshold, Gaussian, NewCentroid, LogCount>;
  using Values = Merge<NearestKept, Threshold, ByValueShare, ValuesOnly, NoMass>;
  static constexpr float least = 0.75f;

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
