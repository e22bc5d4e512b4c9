#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>
#include <kvist/core/fields.hpp>

#include <span>
#include <type_traits>
#include <vector>

namespace kvist::inline KVIST_ABI {

namespace detail {

template <class Record>
inline constexpr std::size_t record_bytes = std::is_trivially_copyable_v<Record> ? sizeof(Record) : 0;

/// A record of a signal or disposition: what its part says it holds (`template <class V, class R> void fields(V&, R& record,
/// const Shape&) const`, for Entry and PerHead alike), else what the record itself says (`template <class V, class Self>
/// static void fields(V&, Self&)`, for records that several parts keep), else its bytes where they may be copied.
template <class V, class Signal, class Record>
void record_fields(V& v, const Signal& signal, Record& record, const Shape& shape) {
  if constexpr (std::is_empty_v<Record>) return;
  else if constexpr (requires { signal.fields(v, record, shape); }) signal.fields(v, record, shape);
  else if constexpr (requires { std::remove_const_t<Record>::fields(v, record); })
    std::remove_const_t<Record>::fields(v, record);
  else if constexpr (std::is_trivially_copyable_v<Record>) v.block(&record, 1);
  else
    v.fail(
        {Errc::unsupported, "a part of the policy does not say what its records hold (it has no `fields`)"});
}

template <class V, class Signal, class Entry>
void entry_list(V& v, const Signal& signal, std::vector<Entry>& entries, Index most, const Shape& shape) {
  Index n = Index(entries.size());
  v.number(n, 0, most);
  if constexpr (V::reads) {
    if (!v.allow(std::uint64_t(n), sizeof(Entry))) return;
    entries.assign(std::size_t(n), Entry{});
  }
  for (Entry& e : entries) record_fields(v, signal, e, shape);
}
template <class V, class Signal, class Entry>
void entry_list(V& v, const Signal& signal, const std::vector<Entry>& entries, Index most, const Shape& shape) {
  v.number(Index(entries.size()), 0, most);
  for (const Entry& e : entries) record_fields(v, signal, e, shape);
}

}  // namespace detail

/// Walks over the records that a Policy keeps of one sequence. `rows` [layers * kv_heads]: entries that each head's tier 0
/// holds, of which records never speak beyond. Budgets and other options of the policy are the reader's own; that its
/// records have the same form is compared by their sizes and by what the policy wants and makes.
template <class V, class P, class State>
void state_fields(V& v, const P& policy, State& st, std::span<const Index> rows) {
  using Signal = typename P::SignalPart;
  v.same("policy");
  v.same(detail::record_bytes<typename Signal::Entry>), v.same(detail::record_bytes<typename Signal::PerHead>);
  v.same(policy.makes()), v.same(P::compact());
  v.same(policy.signal.wants().prefill), v.same(policy.signal.wants().step);
  std::size_t at = 0;
  for (auto& layer : st.layers) {
    v.block(&layer.stat.entropy, 1), v.block(&layer.stat.variance, 1);
    v.number(layer.stat.size, 0, 1 << 30), v.number(layer.stat.tokens, 0, 1 << 30);
    v.number(layer.tokens, -(1 << 30), 1 << 30);
    v.number(layer.budget, -1, 1 << 30), v.number(layer.asked, -1, 1 << 30);
    for (auto& head : layer.heads) {
      const Index most = rows[at++];
      detail::entry_list(v, policy.signal, head.entries, most, st.shape);
      detail::record_fields(v, policy.signal, head.own, st.shape);
      v.list(head.scores, std::size_t(most));
      if constexpr (requires { head.fates; }) {  // a disposition's records
        detail::entry_list(v, policy.dispose, head.fates, most, st.shape);
        detail::record_fields(v, policy.dispose, head.fate, st.shape);
      }
      v.number(head.row_bytes, 0, std::size_t{1} << 40);
      if (!v.good()) return;
    }
  }
  if constexpr (requires { policy.more_fields(v, st); }) policy.more_fields(v, st);
}

}  // namespace kvist::inline KVIST_ABI
