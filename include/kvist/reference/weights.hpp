#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/types.hpp>
#include <kvist/reference/tensor_type.hpp>

#include <cstddef>

namespace kvist::inline KVIST_ABI {

/// A weight matrix W [rows, cols] in the blocks of its file: y = W x has `rows` outputs. Owns nothing. Rows follow one
/// another without gaps, and a block never crosses rows.
struct WeightMatrix {
  TensorType type = TensorType::f32;
  const std::byte* data = nullptr;
  Index rows = 0, cols = 0;

  /// Bytes of one row. Requires: cols is a multiple of the type's block.
  std::size_t row_bytes() const { return std::size_t(cols) / block_elements(type) * block_bytes(type); }
  const std::byte* row(Index r) const { return data + std::size_t(r) * row_bytes(); }
  std::size_t bytes() const { return std::size_t(rows) * row_bytes(); }
  explicit operator bool() const { return data != nullptr; }
};

}  // namespace kvist::inline KVIST_ABI
