#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/view/rows.hpp>

#include <algorithm>
#include <type_traits>
#include <variant>

namespace kvist::inline KVIST_ABI {

template <Scalar T, class F>
void for_each_run_in(const Rows<T>& view, Index first, Index count, F&& f) {
  if (count > 0) f(view.part(first, count), first);
}

template <Scalar T, class F>
void for_each_run_in(const PagedRows<T>& view, Index first, Index count, F&& f) {
  for (Index i = first, end = first + count; i < end;) {
    const Index inside = i % view.page, n = std::min(view.page - inside, end - i);
    f(Rows<T>{view.pool + view.table[i / view.page] * view.page_stride + inside * view.stride, n, view.d,
              view.stride, view.channel_stride},
      i);
    i += n;
  }
}

template <class F>
void for_each_run_in(const ReaderRows& view, Index first, Index count, F&& f) {
  float tile[ReaderRows::tile_floats];
  const Index most = std::max<Index>(1, ReaderRows::tile_floats / std::max(view.d, 1));
  for (Index i = first, end = first + count; i < end;) {
    const Index n = std::min(most, end - i);
    view.read(view.context, i, n, tile);
    f(Rows<float>{tile, n, view.d, view.d, 1}, i);
    i += n;
  }
}

template <class F>
void for_each_run_in(const AnyRows& view, Index first, Index count, F&& f) {
  std::visit([&](const auto& r) { for_each_run_in(r, first, count, f); }, view.kind());
}

/// The runs of rows first .. first+count-1 of any view: f(Rows<T> run, Index first_of_run). A view of your own gets this
/// form, which asks it for all its runs and clips them; offer an overload for it where it has many.
/// Requires: 0 <= first, first + count <= view.size().
template <RowView V, class F>
void for_each_run_in(const V& view, Index first, Index count, F&& f) {
  view.for_each_run([&](auto run, Index at) {
    const Index a = std::max(at, first), b = std::min<Index>(at + run.n, first + count);
    if (a < b) f(run.part(a - at, b - a), a);
  });
}

}  // namespace kvist::inline KVIST_ABI
