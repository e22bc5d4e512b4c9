#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>
#include <kvist/storage/codec/affine.hpp>

namespace kvist::inline KVIST_ABI {

/// Each row by itself, in groups of channels: codes of 1 to 8 bits between the group's least and largest value.
///
/// Layout of a row: codes, lowest bits first, then scales and minima of its groups in S (f16: 32 bits a group). The last
/// group has fewer channels where the group does not divide d. Error: at most half a scale, and what the rounding of
/// scale and minimum to S adds. Source: Liu et al. 2024, arXiv 2402.02750 (its values).
/// Fails with: bad_option (bits, group), bad_shape (more than 8192 channels).
template <Scalar S = f16>
struct IntToken {
  using Model = Nothing;
  int bits = 8;
  int group = 64;  ///< channels; 0: all of them

  static constexpr int most_channels = 8192;

  Status validate(int d) const {
    if (d > most_channels)
      return Error{Errc::bad_shape, "rows of more channels than the codec takes", most_channels, d};
    if (bits < 1 || bits > 8) return Error{Errc::bad_option, "codes have 1 to 8 bits", 8, bits};
    if (group < 0)
      return Error{Errc::bad_option, "a group has at least one channel (0: all of them)", 0, group};
    return Done{};
  }
  template <class V, class Self>
  static void fields(V& v, Self& c) {
    v.same("int_token");
    v.same(sizeof(S)), v.same(c.bits), v.same(c.group);
  }
  Index block_rows() const { return 1; }
  std::size_t block_bytes(int d) const { return code_bytes(d) + 2 * std::size_t(groups(d)) * sizeof(S); }

  void encode(const Model&, const float* rows, Index n, int d, std::byte* out) const {
    const int top = (1 << bits) - 1, g = width(d);
    std::uint8_t codes[most_channels];
    for (Index i = 0; i < n; ++i, rows += d, out += block_bytes(d)) {
      std::byte* const scales = out + code_bytes(d);
      for (int c = 0, k = 0; c < d; c += g, ++k) {
        const int count = std::min(g, d - c);
        float least, largest;
        detail::range_of(rows + c, count, 1, least, largest);
        const auto a = Affine<S>::of(least, largest, top);
        for (int j = 0; j < count; ++j) codes[c + j] = std::uint8_t(a.code(rows[c + j], top));
        detail::put<S>(scales, std::size_t(k), a.scale);
        detail::put<S>(scales, std::size_t(groups(d) + k), a.minimum);
      }
      detail::pack_bits(codes, std::size_t(d), bits, out);
    }
  }
  void decode(const Model&, const std::byte* in, Index n, int d, float* out) const {
    const int g = width(d);
    for (Index i = 0; i < n; ++i, in += block_bytes(d), out += d) {
      const std::byte* const scales = in + code_bytes(d);
      for (int c = 0, k = 0; c < d; c += g, ++k) {
        const Affine<S> a{detail::get<S>(scales, std::size_t(k)),
                          detail::get<S>(scales, std::size_t(groups(d) + k))};
        for (int j = c; j < std::min(d, c + g); ++j)
          out[j] = a.value(detail::bits_at(in, std::size_t(j), bits));
      }
    }
  }

  int width(int d) const { return group == 0 ? d : std::min(group, d); }
  int groups(int d) const { return (d + width(d) - 1) / width(d); }
  std::size_t code_bytes(int d) const { return (std::size_t(d) * std::size_t(bits) + 7) / 8; }
};
static_assert(Codec<IntToken<>>);

}  // namespace kvist::inline KVIST_ABI
