#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/types.hpp>

#include <span>

namespace kvist::inline KVIST_ABI {

/// Kinds of evidence, as flags.
enum class Needs : unsigned {
  none = 0,
  probs = 1,    ///< attention probabilities [G, w, n]
  queries = 2,  ///< queries [G, w, dk], rotated like the keys
  column_sums =
      4,  ///< sums over the call's queries of their probabilities [G, n], and how many queries saw each entry
  max_query = 8,  ///< largest absolute query per channel over the call [G, dk]
  rows = 16,  ///< what the last queries attended to: their probabilities, or the queries to make them from
};
constexpr Needs operator|(Needs a, Needs b) { return Needs(unsigned(a) | unsigned(b)); }
constexpr Needs operator&(Needs a, Needs b) { return Needs(unsigned(a) & unsigned(b)); }
constexpr bool covers(Needs have, Needs want) { return (unsigned(want) & ~unsigned(have)) == 0; }
constexpr bool any(Needs needs) { return needs != Needs::none; }

/// An array [g, w, n] of f32 at fixed strides (elements), owned by somebody else; empty where it was not given.
struct Cube {
  const float* data = nullptr;
  int g = 0;
  Index w = 0, n = 0;
  std::ptrdiff_t stride_g = 0, stride_w = 0;

  explicit operator bool() const { return data != nullptr; }
  std::span<const float> row(int gi, Index wi) const {
    return {data + gi * stride_g + wi * stride_w, std::size_t(n)};
  }
};

/// A contiguous cube [g, w, n].
inline Cube cube(const float* data, int g, Index w, Index n) {
  return {data, g, w, n, std::ptrdiff_t(w) * n, n};
}

/// What an engine saw of one (layer, KV head) in one call (a prompt, a chunk of it, or one decode step). Nobody has to
/// hold T x T: sums over all queries come as column sums, rows only for the last w queries. Entry i of `n` is row i of
/// the head view handed over with it. Cells of entries that a query could not see (causality) are 0.
struct Evidence {
  Cube probs;                      ///< [G, w, n] probabilities of the last w queries of the call
  Cube queries;                    ///< [G, w, dk] the last w queries of the call, rotated like the keys
  Cube column_sums;                ///< [G, 1, n] sum over all queries of the call
  std::span<const float> seen_by;  ///< [n] how many queries of the call could see each entry (with column_sums)
  Cube max_query;                  ///< [G, 1, dk]
  Pos first_query = 0;  ///< position of the first of the w queries; the others follow it one by one

  Needs have() const {
    return (probs ? Needs::probs | Needs::rows : Needs::none) |
           (queries ? Needs::queries | Needs::rows : Needs::none) |
           (column_sums ? Needs::column_sums : Needs::none) | (max_query ? Needs::max_query : Needs::none);
  }
};

/// Wants::last_queries: all queries of the call.
inline constexpr Index all_queries = -1;

/// What a part asks the engine for, asked once before the first token.
struct Wants {
  Needs prefill = Needs::none;  ///< with each call of the prompt
  Needs step = Needs::none;     ///< with each decode step (its one query)
  Index last_queries = 0;  ///< prefill: how many of the last queries (rows of probs, queries); or all_queries

  friend constexpr Wants operator|(Wants a, Wants b) {
    const bool all = a.last_queries == all_queries || b.last_queries == all_queries;
    return {a.prefill | b.prefill, a.step | b.step,
            all                               ? all_queries
            : a.last_queries > b.last_queries ? a.last_queries
                                              : b.last_queries};
  }
  friend constexpr bool operator==(const Wants&, const Wants&) = default;
};

}  // namespace kvist::inline KVIST_ABI
