#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/assert.hpp>
#include <kvist/core/executor.hpp>
#include <kvist/core/types.hpp>
#include <kvist/reference/detail/eigen.hpp>
#include <kvist/reference/detail/head_rows.hpp>
#include <kvist/reference/detail/workspaces.hpp>
#include <kvist/view/evidence.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <vector>

namespace kvist::inline KVIST_ABI {

/// The rows that a KV head of a cache holds before a call, expanded to f32.
struct PastRows {
  const float* k = nullptr;  ///< [n, dk]
  const float* v = nullptr;  ///< [n, dv]
  Index n = 0;
  const float* bias = nullptr;  ///< [n] added to the logits (log-weights of merged entries), or null
};

/// One layer's attention for the n tokens of a call.
struct PrefillCall {
  Index n = 0;
  const float* q = nullptr;        ///< [n, q_heads, dk]
  const float* k = nullptr;        ///< [n, kv_heads, dk] the tokens' own keys, in the form of q
  const float* v = nullptr;        ///< [n, kv_heads, dv]
  std::span<const PastRows> past;  ///< [kv_heads]
  float scale = 1;                 ///< usually 1 / sqrt(dk)
  float* out = nullptr;            ///< [n, q_heads, dv]
  Wants wants;             ///< what evidence() shall hold afterwards (`prefill` and `last_queries` count)
  Pos first_position = 0;  ///< of the first token
};

/// Exact causal attention of many tokens at once: each token sees the past rows of its KV head and the call's tokens
/// up to itself. Beside it stands the evidence that policies ask for.
///
///   P = softmax(scale Q K^T + bias),  out = P V
///
/// Tokens are taken in blocks, so that no more than a block's rows of P exist at a time; the query heads of a group
/// form one product. Column sums are added up by stripes of blocks whose number depends on n alone: results are the
/// same, bit for bit, for any number of threads.
/// Cost: n * (past + n/2) * q_heads * (dk + dv) multiply-adds; scratch of up to 96 rows of P for each running task,
/// and, where column sums are wanted, up to 16 * q_heads * (past + n) floats.
class PrefillAttention {
 public:
  PrefillAttention() = default;
  explicit PrefillAttention(const Shape& shape) : shape_(shape) {}

  template <Executor E>
  void run(const PrefillCall& call, E& executor);

  /// What the last run saw, one for each KV head: row i of the past rows is entry i, token t is entry past + t.
  /// Only what the call wanted is there. Valid until the next run.
  std::span<const Evidence> evidence() const { return evidence_; }

 private:
  static constexpr Index max_block_rows = 96, max_stripes = 16;
  struct Scratch {
    detail::Floats q, p, out;  // [G*B, dk], [G*B, row of P], [G*B, dv rounded up to panels]
    detail::Floats inverse;    // [G*B] 1 / sum of each row of p
  };

  Index group() const { return shape_.group(); }
  void prepare_evidence(const PrefillCall& call, Index stripes);
  void finish_evidence(const PrefillCall& call, Index stripes);
  void block(const PrefillCall& call, int head, Index first, Index count, Scratch& scratch, float* sums);

  Shape shape_;
  std::vector<detail::HeadRows> rows_;  // [kv_heads] past and own entries
  detail::Workspaces<Scratch> scratch_;
  std::vector<Evidence> evidence_;     // [kv_heads]
  std::vector<detail::Floats> probs_;  // [kv_heads] of [G, w, entries]
  std::vector<detail::Floats> sums_;   // [kv_heads] of [stripes, G, entries]; the first stripe is the result
  std::vector<detail::Floats> seen_by_;  // [kv_heads] of [entries]
  detail::Floats queries_;               // [q_heads, w, dk]
  detail::Floats max_query_;             // [q_heads, dk]
};

template <Executor E>
void PrefillAttention::run(const PrefillCall& call, E& executor) {
  KVIST_ASSERT(call.n > 0 && call.past.size() == std::size_t(shape_.kv_heads));
  Index longest = 0;
  for (const PastRows& p : call.past) longest = std::max(longest, p.n + call.n);
  // P [rows, longest] should stay in a core's own cache: fewer rows where they are long
  const Index rows = std::clamp<Index>((Index{1} << 18) / longest, 24, max_block_rows);
  const Index tokens = std::max<Index>(1, rows / group());
  const Index blocks = (call.n + tokens - 1) / tokens, stripes = std::min(blocks, max_stripes);
  prepare_evidence(call, stripes);
  rows_.resize(std::size_t(shape_.kv_heads));
  const Index dk = shape_.dim_k, dv = shape_.dim_v;
  executor.for_each(shape_.kv_heads, [&](Index head) {
    const PastRows& past = call.past[std::size_t(head)];
    detail::HeadRows& all = rows_[std::size_t(head)];
    all.resize(past.n + call.n, dk, dv);
    all.put(0, past.n, past.k, dk, past.v, dv);
    all.put(past.n, call.n, call.k + head * dk, shape_.kv_heads * dk, call.v + head * dv, shape_.kv_heads * dv);
  });
  executor.for_each(stripes * shape_.kv_heads, [&](Index task) {
    const int head = int(task % shape_.kv_heads);
    const Index stripe = task / shape_.kv_heads;
    const auto scratch = scratch_.take();
    detail::Floats& sums = sums_[std::size_t(head)];
    const std::size_t entries = std::size_t(call.past[std::size_t(head)].n + call.n);
    float* const own_sums =
        sums.empty() ? nullptr : sums.data() + std::size_t(stripe) * std::size_t(group()) * entries;
    for (Index b = stripe; b < blocks; b += stripes)
      block(call, head, b * tokens, std::min(tokens, call.n - b * tokens), *scratch, own_sums);
  });
  finish_evidence(call, stripes);
}

/// Tokens [first, first + count) of one KV head's group. Row g * count + t of the block is query head g, token t.
inline void PrefillAttention::block(const PrefillCall& call, int head, Index first, Index count, Scratch& s,
                                    float* sums) {
  using Row = Eigen::Map<Eigen::ArrayXf, Eigen::AlignedMax>;
  const PastRows& past = call.past[std::size_t(head)];
  const Index G = group(), dk = shape_.dim_k, dv = shape_.dim_v, rows = G * count;
  const Index own = first + count;        // tokens that some query of the block sees
  const Index entries = past.n + call.n;  // rows of the head after the call
  const Index seen_by_block = past.n + own;
  const detail::HeadRows& all = rows_[std::size_t(head)];
  // Rows begin aligned, so that sums are added in one order everywhere; an odd number of cache lines apart, or the rows
  // that a product reads side by side would fall on the same place of a core's cache.
  const Index stride = (entries + 31) / 32 * 32 + 16;
  s.q.resize(std::size_t(rows) * std::size_t(dk));
  s.p.resize(std::size_t(rows) * std::size_t(stride));
  s.out.resize(std::size_t(rows) * std::size_t(all.out_columns()));

  for (Index g = 0; g < G; ++g)
    for (Index t = 0; t < count; ++t) {
      const float* const q = call.q + (std::ptrdiff_t(first + t) * shape_.q_heads + head * G + g) * dk;
      float* const to = s.q.data() + std::ptrdiff_t(g * count + t) * dk;
      for (Index c = 0; c < dk; ++c) to[c] = call.scale * q[c];
    }

  all.logits(s.q.data(), rows, seen_by_block, s.p.data(), stride);  // S [rows, entries] = scale Q K^T

  // P = softmax(S + bias) over what each token sees; the division by the sum waits until after P V
  s.inverse.resize(std::size_t(rows));
  float* const inverse = s.inverse.data();
  detail::Floats& probs = probs_[std::size_t(head)];
  const Index w = evidence_[std::size_t(head)].probs.w;
  for (Index g = 0; g < G; ++g)
    for (Index t = 0; t < count; ++t) {
      const Index r = g * count + t, seen = past.n + first + t + 1, whole = (seen + 15) / 16 * 16;
      float* const p = s.p.data() + std::ptrdiff_t(r) * stride;
      if (past.bias)
        Eigen::Map<Eigen::ArrayXf>(p, past.n) += Eigen::Map<const Eigen::ArrayXf>(past.bias, past.n);
      std::fill(p + seen, p + whole, -std::numeric_limits<float>::infinity());
      Row row(p, whole);
      row = (row - row.maxCoeff()).exp();
      std::fill(p + seen, p + std::max(whole, seen_by_block), 0.0f);
      inverse[r] = 1.0f / row.sum();
      if (sums) {
        Eigen::Map<Eigen::ArrayXf> column(sums + std::ptrdiff_t(g) * entries, seen);
        column += row.head(seen) * inverse[r];
      }
      if (const Index last = first + t - (call.n - w); w > 0 && last >= 0) {
        float* const to = probs.data() + (std::ptrdiff_t(g) * w + last) * entries;
        Eigen::Map<Eigen::ArrayXf>(to, seen) = row.head(seen) * inverse[r];
        std::fill(to + seen, to + entries, 0.0f);
      }
    }

  all.weigh(s.p.data(), stride, rows, seen_by_block, s.out.data());  // out [rows, dv] = P V
  for (Index g = 0; g < G; ++g)
    for (Index t = 0; t < count; ++t) {
      const float* const o = s.out.data() + std::ptrdiff_t(g * count + t) * all.out_columns();
      float* const to = call.out + (std::ptrdiff_t(first + t) * shape_.q_heads + head * G + g) * dv;
      for (Index c = 0; c < dv; ++c) to[c] = o[c] * inverse[g * count + t];
    }
}

inline void PrefillAttention::prepare_evidence(const PrefillCall& call, Index stripes) {
  const std::size_t heads = std::size_t(shape_.kv_heads), G = std::size_t(group()), n = std::size_t(call.n);
  Needs needs = call.wants.prefill;
  if (any(needs & Needs::rows) && !any(needs & Needs::queries)) needs = needs | Needs::probs;
  const Index w = call.wants.last_queries == all_queries ? call.n : std::min(call.wants.last_queries, call.n);
  evidence_.assign(heads, Evidence{});
  probs_.resize(heads);
  sums_.resize(heads);
  seen_by_.resize(heads);
  if (any(needs & (Needs::queries | Needs::rows)) && w > 0) {
    const std::size_t dk = std::size_t(shape_.dim_k);
    queries_.resize(std::size_t(shape_.q_heads) * std::size_t(w) * dk);
    for (std::size_t h = 0; h < std::size_t(shape_.q_heads); ++h)
      for (std::size_t i = 0; i < std::size_t(w); ++i)
        std::copy_n(call.q + ((n - std::size_t(w) + i) * std::size_t(shape_.q_heads) + h) * dk, dk,
                    queries_.data() + (h * std::size_t(w) + i) * dk);
  }
  if (any(needs & Needs::max_query)) {
    const Eigen::Index width = Eigen::Index(shape_.q_heads) * shape_.dim_k;
    max_query_.resize(std::size_t(width));
    Eigen::Map<Eigen::RowVectorXf>(max_query_.data(), width) =
        detail::matrix(call.q, call.n, width, width).cwiseAbs().colwise().maxCoeff();
  }
  for (std::size_t h = 0; h < heads; ++h) {
    Evidence& e = evidence_[h];
    const Index entries = call.past[h].n + call.n;
    e.first_query = call.first_position + (call.n - w);
    if (any(needs & Needs::probs) && w > 0) {
      probs_[h].resize(G * std::size_t(w) * std::size_t(entries));
      e.probs = cube(probs_[h].data(), int(G), w, entries);
    }
    if (any(needs & (Needs::queries | Needs::rows)) && w > 0)
      e.queries =
          cube(queries_.data() + h * G * std::size_t(w) * std::size_t(shape_.dim_k), int(G), w, shape_.dim_k);
    if (any(needs & Needs::max_query))
      e.max_query = cube(max_query_.data() + h * G * std::size_t(shape_.dim_k), int(G), 1, shape_.dim_k);
    sums_[h].clear();
    if (any(needs & Needs::column_sums)) {
      sums_[h].assign(std::size_t(stripes) * G * std::size_t(entries), 0.0f);
      seen_by_[h].resize(std::size_t(entries));
      for (Index i = 0; i < entries; ++i)
        seen_by_[h][std::size_t(i)] = float(i < call.past[h].n ? call.n : entries - i);
      e.column_sums = cube(sums_[h].data(), int(G), 1, entries);
      e.seen_by = seen_by_[h];
    }
  }
}

/// Adds the stripes' column sums up, in their order.
inline void PrefillAttention::finish_evidence(const PrefillCall& call, Index stripes) {
  for (std::size_t h = 0; h < sums_.size(); ++h) {
    if (sums_[h].empty()) continue;
    const Eigen::Index size = Eigen::Index(group()) * (call.past[h].n + call.n);
    Eigen::Map<Eigen::ArrayXf> total(sums_[h].data(), size);
    for (Index i = 1; i < stripes; ++i)
      total += Eigen::Map<const Eigen::ArrayXf>(sums_[h].data() + i * size, size);
  }
}

}  // namespace kvist::inline KVIST_ABI
