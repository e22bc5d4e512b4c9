#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/view/rows.hpp>

#include <span>

namespace kvist::inline KVIST_ABI {

/// Whether RoPE has been applied to stored keys.
enum class KeyForm : std::uint8_t { rotated, raw };

/// The cache of one (sequence, layer, KV head): keys [n, dk], values [n, dv] and the absolute position of each entry,
/// ascending. Owns nothing. Keys and values may differ in type and dimension.
template <RowView K, RowView V = K>
struct HeadView {
  K keys;
  V values;
  std::span<const Pos> pos;
  KeyForm form = KeyForm::rotated;
  std::span<const float> log_weight = {};  ///< [n] added to each entry's logit (merged entries), or empty: all 0

  Index size() const { return keys.size(); }
};

/// Anything that looks like a HeadView.
template <class H>
concept Head = requires(const H h) {
  requires RowView<std::remove_cvref_t<decltype(h.keys)>>;
  requires RowView<std::remove_cvref_t<decltype(h.values)>>;
  { h.pos } -> std::convertible_to<std::span<const Pos>>;
  { h.form } -> std::convertible_to<KeyForm>;
  { h.size() } -> std::same_as<Index>;
};

/// The log-weights [n] of a head's entries; empty where all are 0, as in views that know of none.
template <Head H>
std::span<const float> log_weight_of(const H& head) {
  if constexpr (requires { head.log_weight; }) return head.log_weight;
  else return {};
}

/// The KV heads of one layer; every head has its own length.
template <class L>
concept LayerView = requires(const L l, int h) {
  { l.heads() } -> std::same_as<int>;
  { l.head(h) } -> Head;
};

/// A layer view over an array of head views.
template <Head H>
struct KvView {
  std::span<const H> all;
  int heads() const { return int(all.size()); }
  const H& head(int h) const { return all[std::size_t(h)]; }
};

using AnyHead = HeadView<AnyRows>;      ///< a head whose memory kind is known at run time only
using AnyLayer = KvView<AnyHead>;       ///< a layer of them
using F32Head = HeadView<Rows<float>>;  ///< archetypes: every part is checked against both
using PagedBf16Head = HeadView<PagedRows<bf16>>;
static_assert(Head<AnyHead> && Head<F32Head> && Head<PagedBf16Head> && LayerView<AnyLayer>);

}  // namespace kvist::inline KVIST_ABI
