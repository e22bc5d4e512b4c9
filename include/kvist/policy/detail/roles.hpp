#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>

#include <cstddef>
#include <type_traits>
#include <vector>

namespace kvist::inline KVIST_ABI {
namespace detail {

template <Role R, class Default, class... Ps>
struct pick_role {
  using type = Default;
};
template <Role R, class Default, class P, class... Ps>
struct pick_role<R, Default, P, Ps...> {
  using type =
      typename std::conditional_t<P::role == R, std::type_identity<P>, pick_role<R, Default, Ps...>>::type;
};
/// The part of role R among Ps, or Default.
template <Role R, class Default, class... Ps>
using pick = typename pick_role<R, Default, Ps...>::type;

template <Role R, class... Ps>
inline constexpr int count_role = (0 + ... + int(Ps::role == R));

/// The records of a disposition; Nothing where it keeps none.
template <class D>
struct fate_records {
  using Entry = Nothing;
  using PerHead = Nothing;
};
template <DisposesWithRecords D>
struct fate_records<D> {
  using Entry = typename D::Entry;
  using PerHead = typename D::PerHead;
};

/// Rows that a plan moves away, as they are numbered once its drops are done.
inline std::vector<Index> moved_rows(const HeadPlan& plan) {
  std::vector<Index> out;
  std::size_t d = 0;
  for (const Move& m : plan.move) {
    while (d < plan.drop.size() && plan.drop[d] < m.src) ++d;
    out.push_back(m.src - Index(d));
  }
  return out;
}

}  // namespace detail
}  // namespace kvist::inline KVIST_ABI
