#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>
#include <kvist/core/fields.hpp>
#include <kvist/policy/detail/channel_tiles.hpp>
#include <kvist/policy/detail/query_statistics.hpp>
#include <kvist/policy/detail/window_rows.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

namespace kvist::inline KVIST_ABI {

/// Ranks entries by the attention that coming queries are expected to give them, times the length of their
/// value.
///
/// Queries before rotation are taken as a normal distribution with the mean m and covariance S (divisor n) of
/// the prompt's queries behind the sequence's first `sinks` positions. Both are turned by the mean R of the
/// rotations at the next `future` positions: m' = R m, S' = R S R^T; R shrinks fast channels towards 0. An
/// entry's logit is k.m'/sqrt(d) + k^T S' k/(2d), the logarithm of the mean of exp(q.k/sqrt(d)) over that
/// distribution; softmax over the entries behind the sinks, mean over the query group, and (p + epsilon) *
/// |v| is the score. Sinks get more than any other entry; they are meant to be guarded. The rotated queries
/// that the engine hands over are rotated back by their positions. Calls of one prompt, and prompts of
/// several turns, add up in the statistics. A sequence begins at the position of the first entry that was
/// observed: sinks are those positions, wherever they lie now, and none where they are gone.
/// Source: Devoto et al. 2025, arXiv 2510.00636 (Expected Attention); NVIDIA/kvpress, ExpectedAttentionPress.
///
/// Needs: all queries of the prompt, the rotary table, keys as rotated, values. State: G*dk*(dk + 5)/2 f64 a
/// head, however long the prompt. Cost: G*dk^2/2 multiply-adds a query, G*n*dk^2 a plan.
struct ExpectedAttention {
  static constexpr Role role = Role::signal;
  using Entry = Nothing;
  struct PerHead {
    detail::QueryStatistics queries;
    Pos start = -1;  ///< of the sequence
  };
  Index future = 512;
  Index sinks = 4;
  float epsilon = 0;

  Wants wants() const { return {Needs::queries, Needs::none, all_queries}; }

  /// For snapshots.
  template <class V, class Record>
  void fields(V& v, Record& r, const Shape& shape) const {
    if constexpr (requires { r.queries; })
      r.queries.fields(v, r.queries, shape), v.number(r.start, -1, 1 << 30);
  }

  Status validate(const Shape&) const {
    if (future < 1 || future > 1 << 20)
      return Error{Errc::bad_option, "future counts coming positions, 1 to 1048576", 1 << 20, future};
    if (sinks < 0) return Error{Errc::bad_option, "sinks count entries and can't be negative", 0, sinks};
    if (!std::isfinite(epsilon) || epsilon < 0)
      return Error{Errc::bad_option, "epsilon is added to probabilities and can't be negative"};
    return Done{};
  }

  template <Head H>
  Status observe(const HeadContext<H>& c, std::span<Entry>, PerHead& head) const {
    if (c.now.phase != Phase::prefill || !c.seen.queries) return Done{};
    if (Status s = check(c); !s) return s;
    if (head.start < 0) head.start = c.head.pos[0];
    head.queries.add(c.seen.queries, c.seen.first_query, behind_sinks(head), *c.rope);
    return Done{};
  }

  template <Head H>
  Status score(const HeadContext<H>& c, std::span<const Entry>, const PerHead& head, std::span<float> out) const {
    const Index n = c.size();
    const Index first =
        Index(std::lower_bound(c.head.pos.begin(), c.head.pos.end(), behind_sinks(head)) - c.head.pos.begin());
    std::fill(out.begin(), out.end(), 0.0f);
    if (first == n) return Done{};
    if (Status s = check(c); !s) return s;
    if (head.start < 0)
      return Error{Errc::missing_evidence, "expected attention wants all queries of the prompt", 1, 0};
    if (head.queries.count() == 0) return Done{};  // the prompt was no longer than its sinks: all rank alike
    const std::size_t d = std::size_t(c.shape.dim_k);
    const int group = c.shape.group();
    auto mean = c.scratch.floats(d);
    auto covariance = c.scratch.floats(d * d);
    auto logits = c.scratch.floats(std::size_t(n));
    const detail::MeanRotation turn(*c.rope, double(c.head.pos[std::size_t(n - 1)]) + 1, future);
    for (int g = 0; g < group; ++g) {
      head.queries.future(g, *c.rope, turn, mean, covariance);
      expected_logits(c, mean, covariance, logits);
      const std::span<float> p = logits.subspan(std::size_t(first));
      detail::softmax(p);
      for (std::size_t j = 0; j < p.size(); ++j) out[std::size_t(first) + j] += p[j] / float(group);
    }
    auto norms = c.scratch.floats(std::size_t(n));
    c.head.values.for_each_run([&](auto run, Index at) { kernels::norms(run, norms.data() + at); });
    float most = 0;
    for (std::size_t j = std::size_t(first); j < out.size(); ++j) {
      out[j] = (out[j] + epsilon) * norms[j];
      most = std::max(most, out[j]);
    }
    std::fill(out.begin(), out.begin() + first, most + 1);
    return Done{};
  }

 private:
  /// The first position that is no sink.
  Pos behind_sinks(const PerHead& head) const {
    return Pos(std::min<long long>((long long)std::max<Pos>(head.start, 0) + sinks,
                                   std::numeric_limits<Pos>::max()));
  }
  template <Head H>
  static Status check(const HeadContext<H>& c) {
    if (!c.rope) return Error{Errc::missing_evidence, "expected attention wants the model's rotary table"};
    if (c.rope->rotary_dims() > c.shape.dim_k)
      return Error{Errc::bad_shape, "the rotary table has more channels than a key", c.shape.dim_k,
                   c.rope->rotary_dims()};
    if (c.head.form != KeyForm::rotated)
      return Error{Errc::unsupported, "expected attention wants keys as the model rotates them"};
    return Done{};
  }

  /// out [n] = k.mean/sqrt(d) + k^T covariance k/(2d).
  template <Head H>
  static void expected_logits(const HeadContext<H>& c, std::span<const float> mean,
                              std::span<const float> covariance, std::span<float> out) {
    constexpr Index tile = detail::ChannelTiles::tile;
    const int d = c.shape.dim_k;
    auto rows_of = c.scratch.floats(std::size_t(tile) * std::size_t(d));
    auto memory = c.scratch.floats(detail::ChannelTiles::floats(tile, d));
    auto turned = c.scratch.floats(std::size_t(tile) * std::size_t(d));  // [dk, tile]
    const float linear = 1.0f / std::sqrt(float(d)), square = 0.5f / float(d);
    c.head.keys.for_each_run([&](auto run, Index first) {
      kernels::dot(run, mean.data(), linear, out.data() + first);
      for (Index i = 0; i < run.n; i += tile) {
        const Index count = std::min(tile, run.n - i);
        const auto part = run.part(i, count);
        kernels::to_f32(part, rows_of.data());
        detail::ChannelTiles(rows_of, count, d, memory).dots(covariance.data(), d, square, turned.data(), tile);
        for (Index r = 0; r < count; ++r) {
          float sum = 0;
          for (int k = 0; k < d; ++k)
            sum += rows_of[std::size_t(r * d + k)] * turned[std::size_t(k * tile + r)];
          out[std::size_t(first + i + r)] += sum;
        }
      }
    });
  }
};
static_assert(Signal<ExpectedAttention>);

}  // namespace kvist::inline KVIST_ABI
