#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/policy/dispose/merge_call.hpp>

namespace kvist::inline KVIST_ABI {

// Mass of a merge: what is added to the logit of an entry that stands for several, instead of what was added before. counts()
// says that the entry's attention includes that of its members, so that records of a signal are added up with them.

/// Nothing more than before: the merged entry weighs as one. Cheap to apply anywhere, and up to a factor n too light.
struct NoMass {
  bool counts() const { return false; }
  Wants wants() const { return {}; }
  float log_weight(const MergeCall& c, const MergeGroup& g, std::span<const float>) const {
    return c.bias(g.dst);
  }
};

/// log n, n being the tokens that the members stand for. Exact where their keys are equal (values may differ: the mean);
/// else the mass is too small (Jensen), never too large.
/// Source: Bolya et al. 2023, arXiv 2210.09461 (ToMe), proportional attention.
struct LogCount {
  bool counts() const { return true; }
  Wants wants() const { return {}; }
  float log_weight(const MergeCall& c, const MergeGroup& g, std::span<const float>) const {
    double n = 0;
    for (Index i = 0; i < g.size(); ++i) n += double(c.count(g.row(i)));
    return float(std::log(n));
  }
};

/// The logarithm of the members' weights added up, whatever made them: votes of merged entries, fitted masses,
/// compensation entries. log n where every weight is that of a count.
/// Source: arXiv 2504.09936 (KeepKV), votes.
struct LogVotes {
  bool counts() const { return true; }
  Wants wants() const { return {}; }
  float log_weight(const MergeCall& c, const MergeGroup& g, std::span<const float>) const {
    double sum = 0;
    for (Index i = 0; i < g.size(); ++i) sum += std::exp(double(c.bias(g.row(i))));
    return float(std::log(sum));
  }
};

/// The weight with which the merged key draws the mass that its members drew, on the queries seen: mean over queries (and
/// the group) of log sum exp(z_i + b_i) - z_merged. For a single query the mass is met exactly, whatever the keys.
/// Source: arXiv 2504.09936 (KeepKV) preserves the mass of one query by scaling the key; this keeps the key and puts the
/// mass into the weight, as arXiv 2602.16284 fits weights of compacted entries.
///
/// Needs: queries of the last `window` tokens and of each step.
struct FittedMass {
  bool counts() const { return true; }
  Index window = 32;
  Wants wants() const { return {Needs::queries, Needs::queries, window}; }

  float log_weight(const MergeCall& c, const MergeGroup& g, std::span<const float> wk) const {
    const Cube& queries = c.seen->queries;
    const Index w = queries ? std::min(window, queries.w) : 0;
    if (w == 0) return LogVotes{}.log_weight(c, g, wk);
    const double scale = 1 / std::sqrt(double(c.dim_k));
    Pos newest = 0;
    for (Index i = 0; i < g.size(); ++i) newest = std::max(newest, c.pos[std::size_t(g.row(i))]);
    double sum = 0;
    Index seen = 0;
    for (int h = 0; h < queries.g; ++h)
      for (Index i = queries.w - w; i < queries.w; ++i) {
        if (c.seen->first_query + i < newest) continue;  // it did not see all members
        ++seen;
        const auto q = queries.row(h, i);
        double merged = 0, top = -1e300;
        auto z = c.scratch->floats(std::size_t(g.size()));
        for (Index j = 0; j < g.size(); ++j) {
          const double logit = scale * double(detail::dot(q, c.key(g.row(j))));
          merged += double(wk[std::size_t(j)]) * logit;
          z[std::size_t(j)] = float(logit + double(c.bias(g.row(j))));
          top = std::max(top, double(z[std::size_t(j)]));
        }
        double all = 0;
        for (const float x : z) all += std::exp(double(x) - top);
        sum += top + std::log(all) - merged;
      }
    return seen > 0 ? float(sum / seen) : LogVotes{}.log_weight(c, g, wk);
  }
};

/// One of NoMass and LogCount by a run-time value.
struct ChosenMass {
  enum class Kind : std::uint8_t { none, count };
  Kind kind = Kind::none;
  bool counts() const { return kind == Kind::count; }
  Wants wants() const { return {}; }
  float log_weight(const MergeCall& c, const MergeGroup& g, std::span<const float> wk) const {
    return kind == Kind::count ? LogCount{}.log_weight(c, g, wk) : NoMass{}.log_weight(c, g, wk);
  }
};

}  // namespace kvist::inline KVIST_ABI
