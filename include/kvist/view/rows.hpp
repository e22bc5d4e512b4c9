#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/half.hpp>
#include <kvist/core/types.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <variant>

namespace kvist::inline KVIST_ABI {

/// Rows [n, d] of T at fixed strides, owned by somebody else: one run. Strides count elements. A transposed matrix
/// (values stored channel by channel) has stride 1 and a large channel_stride.
template <Scalar T>
struct Rows {
  using value_type = T;
  const T* data = nullptr;
  Index n = 0;
  int d = 0;
  std::ptrdiff_t stride = 0;          ///< from one row to the next
  std::ptrdiff_t channel_stride = 1;  ///< from one channel to the next

  Index size() const { return n; }
  int dim() const { return d; }
  /// Element (i, c) as f32; for edges and tests: kernels work on runs.
  float at(Index i, int c) const { return to_f32(data[i * stride + c * channel_stride]); }
  /// Rows first .. first+count-1.
  Rows part(Index first, Index count) const {
    return {data + first * stride, count, d, stride, channel_stride};
  }
  template <class F>
  void for_each_run(F&& f) const {
    if (n > 0) f(*this, Index{0});
  }
};

/// Contiguous rows [n, d].
template <Scalar T>
Rows<T> rows(const T* data, Index n, int d) {
  return {data, n, d, d, 1};
}

/// Rows [n, d] in pages of `page` rows each; row i lies in page table[i / page] of the pool. Strides count elements.
template <Scalar T>
struct PagedRows {
  using value_type = T;
  const T* pool = nullptr;
  const std::int32_t* table = nullptr;  ///< page numbers, [ceil(n / page)]
  Index n = 0;
  int d = 0;
  Index page = 16;
  std::ptrdiff_t page_stride = 0;
  std::ptrdiff_t stride = 0;
  std::ptrdiff_t channel_stride = 1;

  Index size() const { return n; }
  int dim() const { return d; }
  float at(Index i, int c) const {
    return to_f32(pool[table[i / page] * page_stride + (i % page) * stride + c * channel_stride]);
  }
  template <class F>
  void for_each_run(F&& f) const {
    for (Index i = 0; i < n; i += page)
      f(Rows<T>{pool + table[i / page] * page_stride, std::min(page, n - i), d, stride, channel_stride}, i);
  }
};

/// Rows [n, d] that only a function can read (packed pages, compressed stores): it expands rows first .. first+count-1
/// to f32, contiguous. for_each_run yields tiles expanded on the stack. Requires: d <= 8192.
struct ReaderRows {
  using value_type = float;
  using Read = void (*)(const void* context, Index first, Index count, float* out);
  static constexpr int tile_floats = 8192;

  Read read = nullptr;
  const void* context = nullptr;
  Index n = 0;
  int d = 0;

  Index size() const { return n; }
  int dim() const { return d; }
  float at(Index i, int c) const {
    float row[tile_floats];
    read(context, i, 1, row);
    return row[c];
  }
  template <class F>
  void for_each_run(F&& f) const {
    float tile[tile_floats];
    const Index rows_per_tile = std::max<Index>(1, tile_floats / std::max(d, 1));
    for (Index i = 0; i < n; i += rows_per_tile) {
      const Index count = std::min(rows_per_tile, n - i);
      read(context, i, count, tile);
      f(Rows<float>{tile, count, d, d, 1}, i);
    }
  }
};

/// A row view whose kind is known at run time only: what an engine with several cache types, `AnyPolicy` and the
/// command-line tool hand over. The kind is looked up once per for_each_run, never per element.
class AnyRows {
 public:
  using value_type = float;  ///< at() gives f32; runs come in their own type
  using Kind =
      std::variant<Rows<float>, Rows<f16>, Rows<bf16>, PagedRows<float>, PagedRows<f16>, PagedRows<bf16>, ReaderRows>;

  AnyRows() = default;
  template <class R>
  requires std::constructible_from<Kind, R> AnyRows(R rows) : rows_(std::move(rows)) {}

  Index size() const {
    return std::visit([](const auto& r) { return r.size(); }, rows_);
  }
  int dim() const {
    return std::visit([](const auto& r) { return r.dim(); }, rows_);
  }
  float at(Index i, int c) const {
    return std::visit([&](const auto& r) { return r.at(i, c); }, rows_);
  }
  template <class F>
  void for_each_run(F&& f) const {
    std::visit([&](const auto& r) { r.for_each_run(f); }, rows_);
  }
  const Kind& kind() const { return rows_; }

 private:
  Kind rows_;
};

/// A view of rows [n, d]: kernels get runs (base pointer, strides, count), never single elements, so contiguous, paged
/// and transposed memory cost the same. `f` of for_each_run takes (Rows<T> run, Index first); T may differ by run.
template <class V>
concept RowView = requires(const V v, Index i) {
  typename V::value_type;
  { v.size() } -> std::same_as<Index>;
  { v.dim() } -> std::same_as<int>;
  { v.at(i, 0) } -> std::same_as<float>;
  v.for_each_run([](auto, Index) {});
};
static_assert(RowView<Rows<float>> && RowView<PagedRows<bf16>> && RowView<ReaderRows> && RowView<AnyRows>);

}  // namespace kvist::inline KVIST_ABI
