#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>
#include <kvist/core/fields.hpp>
#include <kvist/policy/detail/recent_queries.hpp>
#include <kvist/policy/signal/adapt/pool.hpp>
#include <kvist/policy/signal/key_redundancy.hpp>

#include <algorithm>
#include <cmath>

namespace kvist::inline KVIST_ABI {

/// Prefers entries that the newest queries attend to and that no other key stands in for: lambda * attention
/// - (1 - lambda) * redundancy. Both sum to about 1 over the entries.
///
/// Attention: of each of the last `window` queries, over prompt and decode steps, the largest logit of the
/// group, softmax over the entries before the window alone, mean over the queries, maximum over `kernel`
/// neighbours. Entries of the window get 1, more than any other can reach; they are meant to be guarded.
/// Source: Cai et al. 2025, arXiv 2505.24133 (R-KV); official code Zefan-Cai/R-KV, rkv/compression/r1_kv.py.
///
/// Needs: queries of the prompt's last window and of each step. State: window*G*dk floats a head. Cost: a
/// copy of G*dk floats a step; n^2*dk + window*G*n*dk multiply-adds a plan.
struct AttentionAndRedundancy {
  static constexpr Role role = Role::signal;
  using Entry = Nothing;
  struct PerHead {
    detail::RecentQueries queries;
  };
  float lambda = 0.07f;
  Index window = 8;
  int kernel = 7;
  KeyRedundancy redundancy{};
  static constexpr Index most_queries = 4096;  ///< that each head remembers

  Wants wants() const { return {Needs::queries, Needs::queries, window}; }

  /// For snapshots.
  template <class V, class Record>
  void fields(V& v, Record& r, const Shape& shape) const {
    if constexpr (requires { r.queries; }) r.queries.fields(v, r.queries, shape);
  }

  Status validate(const Shape&) const {
    if (!(lambda >= 0 && lambda <= 1)) return Error{Errc::bad_option, "lambda lies between 0 and 1"};
    if (window < 1 || window > most_queries)
      return Error{Errc::bad_option, "the window of remembered queries holds 1 to 4096", most_queries, window};
    if (!(redundancy.threshold >= -1 && redundancy.threshold <= 1))
      return Error{Errc::bad_option, "a cosine similarity lies between -1 and 1"};
    return check_pool(kernel);
  }

  template <Head H>
  Status observe(const HeadContext<H>& c, std::span<Entry>, PerHead& head) const {
    if (c.seen.queries && c.seen.queries.w > 0) head.queries.push(c.seen.queries, c.seen.first_query, window);
    return Done{};
  }
  void truncate(PerHead& head, Pos pos) const { head.queries.truncate(pos); }

  template <Head H>
  Status score(const HeadContext<H>& c, std::span<const Entry>, const PerHead& head, std::span<float> out) const {
    const std::size_t context = std::size_t(std::max<Index>(0, c.size() - window));
    std::fill(out.begin(), out.end(), 1.0f);
    if (context == 0) return Done{};
    if (head.queries.size() == 0)
      return Error{Errc::missing_evidence, "window attention wants the newest queries", window, 0};
    auto votes = c.scratch.floats(context);
    auto pooled = c.scratch.floats(context);
    vote(c, head.queries, votes);
    pool(votes, kernel, PoolMode::max, pooled);
    auto alike = c.scratch.floats(out.size());
    if (Status s = redundancy.score(c, {}, Nothing{}, alike); !s) return s;
    for (std::size_t j = 0; j < context; ++j) out[j] = lambda * pooled[j] + (1 - lambda) * alike[j];
    return Done{};
  }

 private:
  template <Head H>
  void vote(const HeadContext<H>& c, const detail::RecentQueries& queries, std::span<float> votes) const {
    const Index n = c.size();
    const int group = c.shape.group();
    const float scale = 1.0f / std::sqrt(float(c.shape.dim_k));
    auto logits = c.scratch.floats(std::size_t(group) * std::size_t(n));
    std::fill(votes.begin(), votes.end(), 0.0f);
    for (Index i = 0; i < queries.size(); ++i) {
      c.head.keys.for_each_run([&](auto run, Index first) {
        kernels::dot_group(run, queries.row(i), group, scale, logits.data() + first, n);
      });
      const std::span<float> row = logits.first(votes.size());
      for (int g = 1; g < group; ++g)
        for (std::size_t j = 0; j < row.size(); ++j)
          row[j] = std::max(row[j], logits[std::size_t(g) * std::size_t(n) + j]);
      detail::softmax(row);
      for (std::size_t j = 0; j < row.size(); ++j) votes[j] += row[j] / float(queries.size());
    }
  }
};
static_assert(Signal<AttentionAndRedundancy>);

}  // namespace kvist::inline KVIST_ABI
