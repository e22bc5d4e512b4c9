#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>
#include <kvist/core/fields.hpp>
#include <kvist/storage/codec/affine.hpp>
#include <kvist/storage/codec/detail/rewrite_row.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace kvist::inline KVIST_ABI {

/// In each row, the `count` channels farthest from the row's mean are kept as f16 beside the code; C codes the row with the
/// mean of the others in their place, so that they no longer widen its range.
///
/// Layout of a block: C's, then for each row `count` channel numbers (16 bits) and `count` values (f16).
/// Source: the sparse part of Hooper et al. 2024, arXiv 2401.18079 (KVQuant), per row and without calibration.
/// Fails with: bad_option (count), what C says.
template <Codec C>
struct WithOutliers {
  using Model = typename C::Model;
  C inner{};
  int count = 1;  ///< channels of a row

  Status validate(int d) const {
    if (count < 1 || count >= d)
      return Error{Errc::bad_option, "outliers of a row are at least 1 and fewer than d", d - 1, count};
    if constexpr (requires { inner.validate(d); }) return inner.validate(d);
    else return Done{};
  }
  template <class V, class Self>
  static void fields(V& v, Self& c) {
    v.same("with_outliers");
    v.same(c.count);
    visit_fields(v, c.inner);
  }
  Index block_rows() const { return inner.block_rows(); }
  std::size_t block_bytes(int d) const {
    return inner.block_bytes(d) + std::size_t(inner.block_rows()) * std::size_t(count) * 4;
  }
  void encode(const Model& m, const float* rows, Index n, int d, std::byte* out) const {
    // Rows of few numbers (single rows of decode) are worked on without asking for memory.
    constexpr std::size_t few = 2048;
    const std::size_t numbers = std::size_t(n) * std::size_t(d);
    float near[few];
    std::vector<float> far(numbers > few ? numbers : 0);
    float* const rest = far.empty() ? near : far.data();
    std::copy_n(rows, numbers, rest);
    std::byte* at = out + inner.block_bytes(d);
    for (Index i = 0; i < n; ++i, at += std::ptrdiff_t(count) * 4)
      take_out(rows + std::ptrdiff_t(i) * d, d, rest + std::ptrdiff_t(i) * d, at);
    inner.encode(m, rest, n, d, out);
  }
  void decode(const Model& m, const std::byte* in, Index n, int d, float* out) const {
    inner.decode(m, in, n, d, out);
    const std::byte* at = in + inner.block_bytes(d);
    for (Index i = 0; i < n; ++i, at += std::ptrdiff_t(count) * 4)
      for (int j = 0; j < count; ++j) {
        std::uint16_t c;
        std::memcpy(&c, at + std::ptrdiff_t(j) * 2, 2);
        if (c < d)
          out[std::ptrdiff_t(i) * d + c] = detail::get<f16>(at + std::ptrdiff_t(count) * 2, std::size_t(j));
      }
  }
  void rewrite(const Model& m, std::byte* block, Index i, int d, const float* row) const {
    std::vector<float> rest(row, row + d);
    take_out(row, d, rest.data(), block + inner.block_bytes(d) + std::ptrdiff_t(i) * count * 4);
    detail::rewrite_row(inner, m, block, i, d, rest.data());
  }

 private:
  /// The outliers of a row go to `at`; x, a copy of the row, gets the mean of the others in their place.
  void take_out(const float* row, int d, float* x, std::byte* at) const {
    const float mean = std::accumulate(row, row + d, 0.0f) / float(d);
    // Channels in the order of their distance, largest first, lower channels first among equals: one after another.
    const auto before = [&](int a, int b) {
      const float da = std::fabs(row[a] - mean), db = std::fabs(row[b] - mean);
      return da > db || (da == db && a < b);
    };
    for (int j = 0, last = -1; j < count; ++j) {
      int c = -1;
      for (int k = 0; k < d; ++k)
        if ((last < 0 || before(last, k)) && (c < 0 || before(k, c))) c = k;
      if (c < 0) c = last;  // numbers that compare with nothing (NaN)
      const std::uint16_t number = std::uint16_t(c);
      std::memcpy(at + std::ptrdiff_t(j) * 2, &number, 2);
      detail::put<f16>(at + std::ptrdiff_t(count) * 2, std::size_t(j), Affine<f16>::stored(row[c]));
      x[c] = 0;
      last = c;
    }
    double sum = 0;
    for (int k = 0; k < d; ++k) sum += double(x[k]);
    for (int j = 0; j < count; ++j) {
      std::uint16_t c;
      std::memcpy(&c, at + std::ptrdiff_t(j) * 2, 2);
      x[c] = float(sum / double(d - count));
    }
  }
};

}  // namespace kvist::inline KVIST_ABI
