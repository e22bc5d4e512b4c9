#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/half.hpp>
#include <kvist/core/types.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace kvist::inline KVIST_ABI {
namespace kernels {

/// Which way the entries of a scale's group follow one another.
enum class GroupAlong : std::uint8_t {
  entries,   ///< one scale for `group` entries of one channel (KIVI's keys)
  channels,  ///< one scale for `group` channels of one entry (per-token)
};

/// How one page of 128 entries of keys, or of values, lies in memory: codes, then scales, then minima.
///
/// value(t, c) = (code(t, c) - centre) * scale + minimum, scale and minimum f16, one for each group.
///
/// Codes: a word of 4 bytes holds 4 channels of one entry (keys) or 4 entries of one channel (values): the operand of the
/// byte dot products of x86 and ARM. 16 words side by side (16 entries, or 16 channels: a strip) make 64 bytes. Below 8
/// bits a byte holds several strips as bit planes: with 4 bits the low half of the byte is one strip and the high half the
/// next one, with 2 bits there are four.
///   keys:   [2 halves of 64 entries][ceil(dim / 4)][4 strips / planes][16 entries][4 channels]
///   values: [blocks of 64 channels][32 quads of entries][strips / planes][16 channels][4 entries]; the last block may have
///           fewer channels, whole vectors of 16 * planes
///   scales, then minima: [128 / group][channels rounded up to 16] along entries, [ceil(dim / group)][128] along channels
struct PackedLayout {
  static constexpr Index page = 128;  ///< entries
  static constexpr int max_dim = 512;

  bool keys = true;  ///< keys or values
  int bits = 4;      ///< 8, 4 or 2
  int dim = 0;
  int group = 128;  ///< along entries: 16, 32, 64 or 128; along channels: a multiple of 4 (keys) or 16 (values)
  GroupAlong along = GroupAlong::entries;
  bool minima = true;
  float centre = 0;  ///< 0 where there are minima; 2^(bits-1) for symmetric codes

  constexpr int planes() const { return 8 / bits; }
  constexpr int scale_row() const { return along == GroupAlong::entries ? (dim + 15) / 16 * 16 : int(page); }
  constexpr int scale_rows() const {
    return along == GroupAlong::entries ? int(page) / group : (dim + group - 1) / group;
  }
  constexpr std::size_t code_bytes() const {
    if (keys) return std::size_t((dim + 3) / 4) * 4 * std::size_t(page) * std::size_t(bits) / 8;
    const std::size_t vector = 16 * std::size_t(planes());
    return (std::size_t(dim) + vector - 1) / vector * 64 * std::size_t(page) / 4;
  }
  constexpr std::size_t scales_offset() const { return code_bytes(); }
  constexpr std::size_t minima_offset() const {
    return scales_offset() + std::size_t(scale_row()) * std::size_t(scale_rows()) * sizeof(f16);
  }
  /// Of a page, rounded up to whole cache lines.
  constexpr std::size_t bytes() const {
    const std::size_t scales = minima_offset() - scales_offset();
    return (minima_offset() + (minima ? scales : 0) + 63) / 64 * 64;
  }
  constexpr bool valid() const {
    if (!(bits == 8 || bits == 4 || bits == 2) || dim < 1 || dim > max_dim || group < 1) return false;
    if (along == GroupAlong::entries)
      return keys && (group == 16 || group == 32 || group == 64 || group == 128);
    return group % (keys ? 4 : 16) == 0 || group >= dim;
  }

  /// Where a code lies.
  struct Place {
    std::size_t byte;
    int shift;
  };
  constexpr Place place(Index entry, int channel) const {
    const unsigned t = unsigned(entry), c = unsigned(channel), d = unsigned(dim), b = unsigned(bits);
    const unsigned p = b == 8 ? 0 : b == 4 ? 1 : 2;  // log2 planes: divisions are shifts
    if (keys) {
      const std::size_t quad = 32 * b;  // bytes of 4 channels of 64 entries
      const unsigned strip = t % 64 / 16;
      return {t / 64 * ((d + 3) / 4 * quad) + c / 4 * quad + (strip >> p) * 64 + t % 16 * 4 + c % 4,
              int((strip & ((1u << p) - 1)) * b)};
    }
    const unsigned block = c / 64, strip = c % 64 / 16, whole = 4u >> p;
    const unsigned left = (d - block * 64 + (16u << p) - 1) >> (4 + p);  // vectors of this block
    const std::size_t vectors = left < whole ? left : whole;
    return {std::size_t(block) * whole * 64 * (unsigned(page) / 4) + t / 4 * (vectors * 64) +
                (strip >> p) * 64 + c % 16 * 4 + t % 4,
            int((strip & ((1u << p) - 1)) * b)};
  }
  /// Which of the scales (and minima) is that of (t, c).
  constexpr std::size_t scale_index(Index t, int c) const {
    return along == GroupAlong::entries ? std::size_t(t / group) * std::size_t(scale_row()) + std::size_t(c)
                                        : std::size_t(c / group) * std::size_t(page) + std::size_t(t);
  }

  f16* scales(std::uint8_t* at) const { return reinterpret_cast<f16*>(at + scales_offset()); }
  const f16* scales(const std::uint8_t* at) const {
    return reinterpret_cast<const f16*>(at + scales_offset());
  }
  f16* minimums(std::uint8_t* at) const { return reinterpret_cast<f16*>(at + minima_offset()); }
  const f16* minimums(const std::uint8_t* at) const {
    return reinterpret_cast<const f16*>(at + minima_offset());
  }

  int code(const std::uint8_t* at, Index t, int c) const {
    const Place p = place(t, c);
    return (at[p.byte] >> p.shift) & ((1 << bits) - 1);
  }
  void set_code(std::uint8_t* at, Index t, int c, int value) const {
    const Place p = place(t, c);
    const int mask = ((1 << bits) - 1) << p.shift;
    at[p.byte] = std::uint8_t((at[p.byte] & ~mask) | ((value << p.shift) & mask));
  }
  /// value(t, c) by the definition above.
  float value(const std::uint8_t* at, Index t, int c) const {
    const std::size_t s = scale_index(t, c);
    const float x = (float(code(at, t, c)) - centre) * to_f32(scales(at)[s]);
    return minima ? x + to_f32(minimums(at)[s]) : x;
  }
  /// All codes, scales and minima zero: a page without entries. Every page starts so, because kernels read whole pages.
  void clear(std::uint8_t* at) const { std::memset(at, 0, bytes()); }

  friend constexpr bool operator==(const PackedLayout&, const PackedLayout&) = default;
};

/// Keys quantised per channel in groups of entries, with minima (KIVI).
constexpr PackedLayout channel_keys(int bits, int dim, int group) {
  return {true, bits, dim, group, GroupAlong::entries, true, 0};
}
/// Keys quantised per entry in groups of channels: symmetric where `minima` is false.
constexpr PackedLayout token_keys(int bits, int dim, int group, bool minima) {
  return {true,
          bits,
          dim,
          group < dim ? group : dim,
          GroupAlong::channels,
          minima,
          minima ? 0.0f : float(1 << (bits - 1))};
}
/// Values quantised per entry in groups of channels: symmetric where `minima` is false.
constexpr PackedLayout token_values(int bits, int dim, int group, bool minima) {
  return {false,
          bits,
          dim,
          group < dim ? group : dim,
          GroupAlong::channels,
          minima,
          minima ? 0.0f : float(1 << (bits - 1))};
}

}  // namespace kernels
}  // namespace kvist::inline KVIST_ABI
