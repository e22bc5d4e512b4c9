#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/assert.hpp>
#include <kvist/core/executor.hpp>
#include <kvist/core/types.hpp>
#include <kvist/reference/dequantize.hpp>
#include <kvist/reference/detail/eigen.hpp>
#include <kvist/reference/detail/fused_dot.hpp>
#include <kvist/reference/detail/lanes.hpp>
#include <kvist/reference/detail/panel_product.hpp>
#include <kvist/reference/detail/workspaces.hpp>
#include <kvist/reference/weights.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace kvist::inline KVIST_ABI {

/// One product of a matmul: y [n, w.rows] = x [n, w.cols] W^T + bias.
struct Product {
  const WeightMatrix* w = nullptr;
  float* y = nullptr;
  const float* bias = nullptr;  ///< [w.rows], or null
};

/// Products of the same tokens with weights that stay in their file's blocks; all arithmetic is f32, and the weights
/// are the exact values that the blocks stand for.
///
/// Few tokens (up to 4) are bound by reading the weights: each block is expanded in registers and used at once. For
/// more, a panel of rows is expanded to f32 and multiplied by all tokens. Work is cut into panels of rows of a fixed
/// size: results are the same, bit for bit, for any number of threads.
/// Cost: n * rows * cols multiply-adds; scratch (many tokens only) of one panel for each running task.
class Matmul {
 public:
  static constexpr Index few_tokens = 4;

  /// Requires: every product's w.cols is the width of x; x [n, cols] contiguous.
  template <Executor E>
  void operator()(std::span<const Product> products, const float* x, Index n, E& executor) {
    Index tasks = 0;
    std::int64_t weights = 0;
    const Index panel = n <= few_tokens ? few_rows : many_rows;
    for (const Product& p : products) {
      tasks += (p.w->rows + panel - 1) / panel;
      weights += std::int64_t(p.w->rows) * p.w->cols;
    }
    if (n <= few_tokens) sum_blocks(x, n, products[0].w->cols);
    const auto run = [&](Index task) {
      std::size_t i = 0;
      for (; task >= (products[i].w->rows + panel - 1) / panel; ++i)
        task -= (products[i].w->rows + panel - 1) / panel;
      const Index first = task * panel;
      rows(products[i], first, std::min(panel, products[i].w->rows - first), x, n);
    };
    if (weights * n < worth_waking) Serial{}.for_each(tasks, run);
    else executor.for_each(tasks, run);
  }

 private:
  static constexpr Index few_rows = 64, many_rows = detail::lanes_are_registers ? detail::panel_columns : 48;
  static constexpr std::int64_t worth_waking =
      1 << 20;  // multiply-adds: below, a wake-up costs more than it saves

  void rows(const Product& p, Index first, Index count, const float* x, Index n) {
    if (n <= few_tokens) few(*p.w, first, count, x, n, p.y);
    else many(*p.w, first, count, x, n, p.y);
    if (p.bias)
      for (Index t = 0; t < n; ++t)
        for (Index r = first; r < first + count; ++r) p.y[std::ptrdiff_t(t) * p.w->rows + r] += p.bias[r];
  }

  void sum_blocks(const float* x, Index n, Index cols) {
    sums_.resize(std::size_t(n) * std::size_t(cols / 32));
    for (Index t = 0; t < n; ++t)
      detail::block_sums(x + std::ptrdiff_t(t) * cols, cols / 32 * 32,
                         sums_.data() + std::ptrdiff_t(t) * (cols / 32));
  }

  void few(const WeightMatrix& w, Index first, Index count, const float* x, Index n, float* y) {
    const auto fused = [&]<class Block>(Block) {
      detail::fused_rows<Block>(w.row(first), w.row_bytes(), count, w.cols, x, w.cols, sums_.data(), n,
                                y + first, w.rows);
    };
    if (w.cols % 32 == 0) switch (w.type) {
        case TensorType::f32:
          return fused(detail::F32Block{});
        case TensorType::f16:
          return fused(detail::F16Block{});
        case TensorType::q8_0:
          return fused(detail::Q8_0Block{});
        case TensorType::q4_0:
          return fused(detail::Q4_0Block{});
        case TensorType::q4_1:
          return fused(detail::Q4_1Block{});
        default:
          break;
      }
    for (Index r = first; r < first + count; ++r) buffered_dot(w, r, x, n, y + r);
  }

  /// Any type: pieces of the row are expanded on the stack.
  static void buffered_dot(const WeightMatrix& w, Index row, const float* x, Index n, float* y) {
    constexpr Index piece = 1024;  // a multiple of every type's block
    alignas(64) float buffer[piece];
    const std::byte* from = w.row(row);
    detail::Lanes sum[few_tokens];
    float rest[few_tokens] = {};
    for (Index t = 0; t < n; ++t) sum[t] = detail::Lanes::zero();
    for (Index c = 0; c < w.cols; c += piece) {
      const Index size = std::min(piece, w.cols - c), whole = size / detail::lanes * detail::lanes;
      const std::size_t bytes = std::size_t(size) / block_elements(w.type) * block_bytes(w.type);
      expand(w.type, {from, bytes}, {buffer, std::size_t(size)});
      from += bytes;
      for (Index t = 0; t < n; ++t) {
        const float* const xt = x + std::ptrdiff_t(t) * w.cols + c;
        for (Index i = 0; i < whole; i += detail::lanes)
          sum[t] = detail::Lanes::fma(detail::Lanes::load(buffer + i), detail::Lanes::load(xt + i), sum[t]);
        for (Index i = whole; i < size; ++i) rest[t] += buffer[i] * xt[i];
      }
    }
    for (Index t = 0; t < n; ++t) y[std::ptrdiff_t(t) * w.rows] = sum[t].sum() + rest[t];
  }

  static void expand(TensorType type, std::span<const std::byte> blocks, std::span<float> out) {
    [[maybe_unused]] const Status done = dequantize(type, blocks, out);
    KVIST_ASSERT(done);  // the matrix was checked when it was made
  }

  /// A panel of rows is expanded, turned so that the weights of one input lie side by side, and multiplied by all
  /// tokens.
  void many(const WeightMatrix& w, Index first, Index count, const float* x, Index n, float* y) {
    const auto scratch = scratch_.take();
    detail::Floats &rows = scratch->rows, &panel = scratch->panel, &edge = scratch->edge;
    const std::size_t cols = std::size_t(w.cols);
    rows.resize(std::size_t(many_rows) * cols);
    expand(w.type, {w.row(first), std::size_t(count) * w.row_bytes()}, {rows.data(), std::size_t(count) * cols});
    if constexpr (!detail::lanes_are_registers) {  // Eigen knows more kinds of machine
      detail::matrix(y + first, n, count, w.rows).noalias() =
          detail::matrix(x, n, w.cols, w.cols) * detail::matrix(rows.data(), count, w.cols, w.cols).transpose();
    } else {
      std::fill(rows.begin() + std::ptrdiff_t(count) * w.cols, rows.end(), 0.0f);
      panel.resize(rows.size());
      detail::matrix(panel.data(), w.cols, many_rows, many_rows) =
          detail::matrix(rows.data(), many_rows, w.cols, w.cols).transpose();
      if (count == many_rows) {
        detail::panel_product(x, w.cols, n, panel.data(), many_rows, w.cols, y + first, w.rows);
      } else {  // a tile writes whole panels
        edge.resize(std::size_t(n) * std::size_t(many_rows));
        detail::panel_product(x, w.cols, n, panel.data(), many_rows, w.cols, edge.data(), many_rows);
        detail::matrix(y + first, n, count, w.rows) = detail::matrix(edge.data(), n, count, many_rows);
      }
    }
  }

  struct Scratch {
    detail::Floats rows, panel, edge;  // [many_rows, cols], [cols, many_rows], [n, many_rows]
  };
  detail::Workspaces<Scratch> scratch_;
  detail::Floats sums_;  // few tokens: sums of x over each block of 32, [n, cols / 32]
};

}  // namespace kvist::inline KVIST_ABI
