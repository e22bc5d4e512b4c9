#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/result.hpp>
#include <kvist/view/mutable_rows.hpp>
#include <kvist/view/rows.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

namespace kvist::inline KVIST_ABI {

/// What an axis of an engine's cache tensor counts, seen from one head of one sequence.
enum class Axis : std::uint8_t {
  page,     ///< pages (blocks) of a pool, which a table assigns to sequences
  row,      ///< entries, or those inside a page
  channel,  ///< channels of an entry
  fixed,    ///< anything else, of which the head lies at one place: layer, K or V, sequence, KV head
};

/// One axis of a tensor; a layout is a list of them, outermost first, as engines write their shapes. An axis that an
/// engine splits (tiles) is named twice.
struct TensorAxis {
  Axis counts = Axis::fixed;
  Index extent = 1;
  Index at = 0;               ///< of a fixed axis: which of them
  std::ptrdiff_t stride = 0;  ///< elements from one to the next; 0: just what lies inside it, without padding
};

namespace detail {

/// Where the rows of one head lie in a tensor.
struct Placement {
  std::ptrdiff_t offset = 0;
  Index page = 0, pages = 0;  ///< rows in a page, pages in the pool; page 0: no pages
  std::ptrdiff_t page_stride = 0, row_stride = 0, channel_stride = 0;
  Index rows = 0;
  int d = 0;
};

inline Result<Placement> place(std::span<const TensorAxis> axes, std::span<const std::int32_t> table, Index n) {
  struct Found {
    long long extent = 1;
    std::ptrdiff_t stride = 0;
    bool any = false;
  } found[3];
  constexpr long long most = 1ll << 40;
  Placement p;
  long long inside = 1;  // elements of what lies inside the axis
  for (std::size_t i = axes.size(); i-- > 0;) {
    const TensorAxis& a = axes[i];
    if (a.extent < 1 || a.stride < 0 || (long long)a.stride > most)
      return Error{Errc::bad_shape, "an axis has at least one element and strides that are not negative", 1,
                   a.extent};
    const long long stride = a.stride > 0 ? (long long)a.stride : inside;
    if (a.extent > 1 && stride < inside)
      return Error{Errc::bad_shape, "an axis lies over what is inside it", inside, stride};
    if (a.extent > most / std::max(stride, 1ll))
      return Error{Errc::bad_shape, "a tensor of more elements than any memory has", most, a.extent};
    if (a.counts == Axis::fixed) {
      if (a.at < 0 || a.at >= a.extent)
        return Error{Errc::bad_shape, "a fixed axis is looked at outside its extent", a.extent, a.at};
      p.offset += std::ptrdiff_t(a.at * stride);
    } else if (Found& f = found[int(a.counts)]; !f.any) {
      f = {a.extent, std::ptrdiff_t(stride), true};
    } else if (a.extent > 1 || f.extent == 1) {
      // The outer part of an axis that is split: one stride only where the parts follow one another.
      if (f.extent > 1 && f.extent * f.stride != stride)
        return Error{
            Errc::unsupported,
            "rows or channels of this memory lie in tiles, not at one stride: expand them with ReaderRows",
            f.extent * (long long)f.stride, stride};
      if (f.extent == 1) f.stride = std::ptrdiff_t(stride);
      f.extent *= a.extent;
    }
    inside = std::max(inside, a.extent * stride);
  }
  const Found &page = found[int(Axis::page)], &row = found[int(Axis::row)],
              &channel = found[int(Axis::channel)];
  if (!row.any || !channel.any || channel.extent > 1 << 20)
    return Error{Errc::bad_shape,
                 "a layout has an axis of rows and one of channels, of at most 1048576 channels", 1 << 20,
                 channel.any ? channel.extent : 0};
  p.d = int(channel.extent);
  p.row_stride = row.stride;
  p.channel_stride = channel.stride;
  const long long capacity =
      page.any || !table.empty() ? (long long)table.size() * (page.any ? row.extent : 1) : row.extent;
  if (n < 0 || n > capacity || row.extent > std::numeric_limits<Index>::max())
    return Error{Errc::bad_shape, "more entries than the layout (or the sequence's table) has room for",
                 capacity, n};
  if (page.any) {
    p.page = Index(row.extent);
    p.pages = Index(std::min<long long>(page.extent, std::numeric_limits<Index>::max()));
    p.page_stride = page.stride;
  } else if (!table.empty()) {  // rows are cells that the table names
    p.page = 1;
    p.pages = Index(row.extent);
    p.page_stride = row.stride;
  }
  const std::size_t used = p.page > 0 ? (std::size_t(n) + std::size_t(p.page) - 1) / std::size_t(p.page) : 0;
  for (std::size_t i = 0; i < used; ++i)
    if (table[i] < 0 || table[i] >= p.pages)
      return Error{Errc::bad_shape, "a table names a page (or cell) that the pool lacks", p.pages, table[i]};
  p.rows = n;
  return p;
}

}  // namespace detail

/// The first n rows of one head in an engine's tensor, as a view: no copy. `axes` is the tensor's shape, outermost first,
/// with `at` for what is fixed; `table` [>= ceil(n / page)] names the sequence's pages in order, or, without an axis of
/// pages, the row (cell) of each entry; empty: rows lie one after another. The keys of vLLM's CPU backend:
///   rows_of(pool, {{Axis::fixed, 2, 0}, {Axis::page, blocks}, {Axis::fixed, kv_heads, h}, {Axis::channel, d}, {Axis::row, 32}},
///           block_table, n)
///
/// Fails with: bad_shape where extents, table and n do not fit together; unsupported where rows or channels lie in tiles (as
/// matrix units want them): those are read by a ReaderRows.
template <Scalar T>
Result<AnyRows> rows_of(const T* data, std::span<const TensorAxis> axes, std::span<const std::int32_t> table,
                        Index n) {
  const auto p = detail::place(axes, table, n);
  if (!p) return p.error();
  if (p->page == 0) return AnyRows(Rows<T>{data + p->offset, n, p->d, p->row_stride, p->channel_stride});
  return AnyRows(PagedRows<T>{data + p->offset, table.data(), n, p->d, p->page, p->page_stride,
                              p->page == 1 ? 0 : p->row_stride, p->channel_stride});
}

/// The same rows to be written: what a plan is carried out in. Fails as rows_of.
template <Scalar T>
Result<MutableRows<T>> mutable_rows_of(T* data, std::span<const TensorAxis> axes,
                                       std::span<const std::int32_t> table, Index n) {
  const auto p = detail::place(axes, table, n);
  if (!p) return p.error();
  return MutableRows<T>{data + p->offset,
                        p->page > 0 ? table.data() : nullptr,
                        n,
                        p->d,
                        p->page,
                        p->page_stride,
                        p->page == 1 ? 0 : p->row_stride,
                        p->channel_stride};
}

}  // namespace kvist::inline KVIST_ABI
