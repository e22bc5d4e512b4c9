#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>
#include <kvist/storage/codec/affine.hpp>

namespace kvist::inline KVIST_ABI {

/// `group` rows together, each channel by itself: codes of 1 to 8 bits between the channel's least and largest value. A
/// channel that is large in every row then costs the others nothing, which is what keys need.
///
/// Layout of a block: codes [d][group] (each channel's in whole bytes), lowest bits first, then scales [d] and minima [d]
/// in S. Error: at most half a scale, and what the rounding of scale and minimum to S adds.
/// Source: Liu et al. 2024, arXiv 2402.02750 (KIVI's keys). Fails with: bad_option (bits, group).
template <Scalar S = f16>
struct IntChannel {
  using Model = Nothing;
  int bits = 4;
  int group = 32;  ///< rows

  static constexpr int most_rows = 1024;

  Status validate(int) const {
    if (bits < 1 || bits > 8) return Error{Errc::bad_option, "codes have 1 to 8 bits", 8, bits};
    if (group < 1 || group > most_rows)
      return Error{Errc::bad_option, "a group along the tokens has 1 to 1024 of them", most_rows, group};
    return Done{};
  }
  template <class V, class Self>
  static void fields(V& v, Self& c) {
    v.same("int_channel");
    v.same(sizeof(S)), v.same(c.bits), v.same(c.group);
  }
  Index block_rows() const { return group; }
  std::size_t block_bytes(int d) const { return std::size_t(d) * (channel_bytes() + 2 * sizeof(S)); }

  /// n <= group rows; rows that are not there have code 0.
  void encode(const Model&, const float* rows, Index n, int d, std::byte* out) const {
    const int top = (1 << bits) - 1;
    std::byte* const scales = out + std::size_t(d) * channel_bytes();
    std::uint8_t codes[most_rows] = {};
    for (int c = 0; c < d; ++c) {
      float least, largest;
      detail::range_of(rows + c, n, d, least, largest);
      const auto a = Affine<S>::of(least, largest, top);
      for (Index i = 0; i < n; ++i) codes[i] = std::uint8_t(a.code(rows[std::ptrdiff_t(i) * d + c], top));
      detail::pack_bits(codes, std::size_t(group), bits, out + std::size_t(c) * channel_bytes());
      detail::put<S>(scales, std::size_t(c), a.scale);
      detail::put<S>(scales, std::size_t(d + c), a.minimum);
    }
  }
  void decode(const Model&, const std::byte* in, Index n, int d, float* out) const {
    for (int c = 0; c < d; ++c) {
      const Affine<S> a = channel(in, c, d);
      for (Index i = 0; i < n; ++i)
        out[std::ptrdiff_t(i) * d + c] =
            a.value(detail::bits_at(in + std::size_t(c) * channel_bytes(), std::size_t(i), bits));
    }
  }
  /// Fits row i anew to the scales that the block has; the other rows keep their bits.
  void rewrite(const Model&, std::byte* block, Index i, int d, const float* row) const {
    const int top = (1 << bits) - 1;
    for (int c = 0; c < d; ++c) {
      std::byte* const at = block + std::size_t(c) * channel_bytes();
      std::uint8_t codes[most_rows];
      for (int j = 0; j < group; ++j) codes[j] = std::uint8_t(detail::bits_at(at, std::size_t(j), bits));
      codes[i] = std::uint8_t(channel(block, c, d).code(row[c], top));
      detail::pack_bits(codes, std::size_t(group), bits, at);
    }
  }

  Affine<S> channel(const std::byte* block, int c, int d) const {
    const std::byte* const scales = block + std::size_t(d) * channel_bytes();
    return {detail::get<S>(scales, std::size_t(c)), detail::get<S>(scales, std::size_t(d + c))};
  }
  std::size_t channel_bytes() const { return (std::size_t(group) * std::size_t(bits) + 7) / 8; }
};
static_assert(Codec<IntChannel<>>);

}  // namespace kvist::inline KVIST_ABI
