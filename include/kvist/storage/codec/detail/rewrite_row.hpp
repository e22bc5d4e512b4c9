#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>

#include <algorithm>
#include <vector>

namespace kvist::inline KVIST_ABI {
namespace detail {

/// Row i of a block becomes `row` [d]. By the codec's own `rewrite`, where it has one: the other rows keep their bits. So
/// they do where blocks are single rows. Else the block is decoded and encoded again, and the others may move by a step.
template <class C>
void rewrite_row(const C& codec, const typename C::Model& model, std::byte* block, Index i, int d,
                 const float* row) {
  if constexpr (requires { codec.rewrite(model, block, i, d, row); }) {
    codec.rewrite(model, block, i, d, row);
  } else {
    const Index n = codec.block_rows();
    if (n == 1) return codec.encode(model, row, 1, d, block);
    std::vector<float> rows(std::size_t(n) * std::size_t(d));
    codec.decode(model, block, n, d, rows.data());
    std::copy_n(row, d, rows.data() + std::ptrdiff_t(i) * d);
    codec.encode(model, rows.data(), n, d, block);
  }
}

}  // namespace detail
}  // namespace kvist::inline KVIST_ABI
