#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/attention/range.hpp>
#include <kvist/attention/state.hpp>
#include <kvist/kernels/rows.hpp>
#include <kvist/kernels/softmax.hpp>

#include <algorithm>
#include <limits>
#include <vector>

namespace kvist::inline KVIST_ABI {
namespace detail {

inline constexpr int attend_queries = 16;  // queries of one pass over the rows
inline constexpr Index attend_tile = 128;  // entries between two updates of the softmax

/// Soft cap and bias on one query's logits of `count` entries; bias_of(i) is that of the tile's entry i.
template <class BiasOf>
void shape_logits(float* logits, Index count, const AttendArgs& args, BiasOf bias_of) {
  if (args.soft_cap > 0) kernels::soft_cap(logits, count, args.soft_cap);
  if (args.bias != nullptr)
    for (Index i = 0; i < count; ++i) logits[i] += bias_of(i);
}

/// Queries g .. g+group-1 of `args` as arguments of their own.
inline AttendArgs part_of(const AttendArgs& args, int g, int group, int dim_k) {
  AttendArgs a = args;
  a.q += std::ptrdiff_t(g) * dim_k;
  a.group = group;
  if (a.logits != nullptr) a.logits += g * a.logits_stride;
  return a;
}

inline AttnState part_of(const AttnState& s, int g, int group) {
  return {group, s.dim_v, s.m + g, s.l + g, s.row(g)};
}

/// -infinity for every entry, before those that are seen are written.
inline void hide_logits(const AttendArgs& args, Index first, Index count) {
  if (args.logits == nullptr) return;
  for (int g = 0; g < args.group; ++g)
    std::fill_n(args.logits + g * args.logits_stride + first, count, -std::numeric_limits<float>::infinity());
}

/// Adds the rows of a store to the state, which are rows `from` and on of those that `args` speak of; `bias` is the store's
/// own. Allocates only for `only` lists where `from` is not 0.
template <class S>
void attend_rows(const S& store, AttendArgs args, Index from, const float* bias, const AttnState& state) {
  const Index n = store.size();
  args.bias = bias;
  if (args.logits != nullptr) args.logits += from;
  args.first = std::clamp<Index>(args.first - from, 0, n);
  std::vector<Index> shifted;
  if (!args.only.empty()) {
    const auto first = std::lower_bound(args.only.begin(), args.only.end(), from);
    const auto last = std::lower_bound(first, args.only.end(), from + n);
    if (first == last) return hide_logits(args, 0, n);
    if (from == 0) {
      args.only = {args.only.data(), std::size_t(last - first)};
    } else {
      shifted.assign(first, last);
      for (Index& i : shifted) i -= from;
      args.only = shifted;
    }
  }
  store.attend(args, state);
}

/// How far ahead of what is read its later rows are asked for; 0 where their place is not known (pages, readers).
struct Stream {
  std::size_t keys = 0, values = 0;  ///< bytes
};
inline constexpr std::size_t stream_bytes = 16384;

template <RowView View>
constexpr std::size_t stream_of(const View&) {
  return 0;
}
template <Scalar T>
constexpr std::size_t stream_of(const Rows<T>& rows) {
  return rows.channel_stride == 1 && rows.stride == rows.d ? stream_bytes : 0;
}

template <RowView K, RowView V>
void attend_range(const K& keys, const V& values, const AttendArgs& a, const AttnState& s, Stream stream) {
  alignas(64) float logits[attend_queries][attend_tile];
  const Index n = keys.size(), begin = std::clamp<Index>(a.first, 0, n);
  hide_logits(a, 0, begin);
  for (Index t = begin; t < n; t += attend_tile) {
    const Index count = std::min(attend_tile, n - t);
    for_each_run_in(keys, t, count, [&](auto run, Index at) {
      kernels::dot_group(run, a.q, a.group, a.scale, &logits[0][at - t], attend_tile,
                         std::ptrdiff_t(stream.keys / sizeof(*run.data)));
    });
    for (int g = 0; g < a.group; ++g) {
      shape_logits(logits[g], count, a, [&](Index i) { return a.bias[t + i]; });
      if (a.logits != nullptr) std::copy_n(logits[g], count, a.logits + g * a.logits_stride + t);
      kernels::online_softmax(logits[g], count, s.m[g], s.l[g], s.row(g), s.dim_v);
    }
    for_each_run_in(values, t, count, [&](auto run, Index at) {
      kernels::axpy_group(run, &logits[0][at - t], attend_tile, a.group, s.o,
                          std::ptrdiff_t(stream.values / sizeof(*run.data)));
    });
  }
}

template <RowView K, RowView V>
void attend_only(const K& keys, const V& values, const AttendArgs& a, const AttnState& s) {
  alignas(64) float logits[attend_queries][attend_tile];
  const Index n = keys.size();
  hide_logits(a, 0, n);
  const std::size_t hidden =
      std::size_t(std::lower_bound(a.only.begin(), a.only.end(), a.first) - a.only.begin());
  const std::span<const Index> only = a.only.subspan(hidden);
  for (std::size_t t = 0; t < only.size(); t += std::size_t(attend_tile)) {
    const std::span<const Index> rows = only.subspan(t, std::min(std::size_t(attend_tile), only.size() - t));
    const Index count = Index(rows.size());
    // f(first row, its place in the tile, how many follow one another)
    const auto for_each_stretch = [&](auto f) {
      for (Index i = 0, j = 0; i < count; i = j) {
        for (j = i + 1; j < count && rows[std::size_t(j)] == rows[std::size_t(j - 1)] + 1;) ++j;
        f(rows[std::size_t(i)], i, j - i);
      }
    };
    for_each_stretch([&](Index row, Index place, Index length) {
      for_each_run_in(keys, row, length, [&](auto run, Index at) {
        kernels::dot_group(run, a.q, a.group, a.scale, &logits[0][place + at - row], attend_tile);
      });
    });
    for (int g = 0; g < a.group; ++g) {
      shape_logits(logits[g], count, a, [&](Index i) { return a.bias[rows[std::size_t(i)]]; });
      if (a.logits != nullptr)
        for (Index i = 0; i < count; ++i) a.logits[g * a.logits_stride + rows[std::size_t(i)]] = logits[g][i];
      kernels::online_softmax(logits[g], count, s.m[g], s.l[g], s.row(g), s.dim_v);
    }
    for_each_stretch([&](Index row, Index place, Index length) {
      for_each_run_in(values, row, length, [&](auto run, Index at) {
        kernels::axpy_group(run, &logits[0][place + at - row], attend_tile, a.group, s.o);
      });
    });
  }
}

template <RowView K, RowView V>
void attend_stream(const K& keys, const V& values, const AttendArgs& args, const AttnState& state,
                   Stream stream) {
  KVIST_ASSERT(keys.size() == values.size() && values.dim() == state.dim_v && args.group == state.group);
  for (int g = 0; g < args.group; g += attend_queries) {
    const int group = std::min(attend_queries, args.group - g);
    const AttendArgs a = part_of(args, g, group, keys.dim());
    const AttnState s = part_of(state, g, group);
    if (args.only.empty()) attend_range(keys, values, a, s, stream);
    else attend_only(keys, values, a, s);
  }
}

}  // namespace detail

/// Adds the attention of a query group over all entries of a head view to the state: logit = soft_cap(scale * q.k) +
/// bias, then softmax and the weighted sum of values, in tiles, so that no array of n floats is needed. Each stored row
/// is read once for up to 16 queries. Adds to the state, never clears it.
///
/// Honours `first` (entries before it are not seen) and `only` (just these rows, ascending); writes `logits` where
/// wanted, -infinity for entries not seen. Keys [n, dk] and values [n, dv] may be any row views, paged and transposed
/// ones and readers included. Cost: G*n*(dk + dv) multiply-adds; allocates nothing.
/// Requires: keys.size() == values.size(), values.dim() == state.dim_v, args.group == state.group.
template <RowView K, RowView V>
void attend(const K& keys, const V& values, const AttendArgs& args, const AttnState& state) {
  detail::attend_stream(keys, values, args, state, {detail::stream_of(keys), detail::stream_of(values)});
}

}  // namespace kvist::inline KVIST_ABI
