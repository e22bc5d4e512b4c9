#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>
#include <kvist/policy/call.hpp>

namespace kvist::inline KVIST_ABI {
namespace detail {

/// Does the evidence of one head show what is wanted, in arrays that fit the head?
inline Status check_evidence(const Evidence& e, Needs want, const Shape& shape, Index n) {
  if (!covers(e.have(), want))
    return Error{Errc::missing_evidence,
                 "the engine gave less evidence than wants() asks for (probs 1, queries 2, column sums 4, "
                 "largest queries 8, rows of either kind 16)",
                 (long long)want, (long long)e.have()};
  for (const Cube* c : {&e.probs, &e.queries, &e.column_sums, &e.max_query}) {
    if (*c && c->g != shape.group())
      return Error{Errc::bad_shape, "evidence must hold one row for each query head of the group",
                   shape.group(), c->g};
  }
  if ((e.probs && e.probs.n != n) || (e.column_sums && e.column_sums.n != n))
    return Error{Errc::bad_shape, "probabilities must cover all entries of the head", n,
                 e.probs ? e.probs.n : e.column_sums.n};
  if ((e.queries && e.queries.n != shape.dim_k) || (e.max_query && e.max_query.n != shape.dim_k))
    return Error{Errc::bad_shape, "queries must have the keys' dimension", shape.dim_k,
                 e.queries ? e.queries.n : e.max_query.n};
  if (e.column_sums && Index(e.seen_by.size()) != n)
    return Error{Errc::bad_shape, "column sums come with the number of queries that could see each entry", n,
                 (long long)e.seen_by.size()};
  return Done{};
}

/// Does a call fit the model, and does it bring the evidence that is wanted of its phase?
template <LayerView L>
Status check_call(const LayerCall<L>& call, const Shape& shape, const Wants& wants) {
  if (call.layer < 0 || call.layer >= shape.layers)
    return Error{Errc::bad_shape, "the layer is not one of the model's", shape.layers, call.layer};
  if (call.view.heads() != shape.kv_heads)
    return Error{Errc::bad_shape, "the layer view has another number of KV heads than the model",
                 shape.kv_heads, call.view.heads()};
  const Needs want = call.now.phase == Phase::prefill ? wants.prefill : wants.step;
  if (any(want) && call.seen.size() != std::size_t(shape.kv_heads))
    return Error{Errc::missing_evidence, "evidence must come for every KV head", shape.kv_heads,
                 (long long)call.seen.size()};
  for (int h = 0; h < shape.kv_heads; ++h) {
    const auto& head = call.view.head(h);
    if (Index(head.pos.size()) != head.size() || head.values.size() != head.size())
      return Error{Errc::bad_shape, "keys, values and positions of a head must be equally many", head.size(),
                   (long long)head.pos.size()};
    if (head.size() == 0) continue;  // nothing that could have been seen
    if (Status s = detail::check_evidence(call.seen.empty() ? Evidence{} : call.seen[std::size_t(h)], want,
                                          shape, head.size());
        !s)
      return s;
  }
  return Done{};
}

}  // namespace detail
}  // namespace kvist::inline KVIST_ABI
