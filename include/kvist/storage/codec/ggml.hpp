#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>
#include <kvist/core/half.hpp>
#include <kvist/core/little_endian.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string_view>

namespace kvist::inline KVIST_ABI {

// The blocks of 32 channels that ggml stores caches in, bit for bit as its reference quantiser and decoder make them.
// Source: ggml-org/ggml, src/ggml-common.h and src/ggml-quants.c.
//
// Where the reference leaves open whether a multiplication and the addition after it are rounded once or twice, the sum
// is that of gguf-py (gguf/quants.py): q4_0 and q5_0 once, q4_1 and q5_1 twice.
namespace ggml {

namespace detail {

inline void put_half(std::uint8_t* out, float x) { write_le(out, to_f16(x).bits); }
inline float half_at(const std::uint8_t* in) { return to_f32(f16{read_le<std::uint16_t>(in)}); }

/// The number of largest magnitude, with its sign; the first of equals.
inline float signed_max(const float* x) {
  float most = 0, max = 0;
  for (int j = 0; j < 32; ++j)
    if (std::fabs(x[j]) > most) most = std::fabs(x[j]), max = x[j];
  return max;
}
inline void bounds(const float* x, float& least, float& largest) {
  least = largest = x[0];
  for (int j = 1; j < 32; ++j) least = std::min(least, x[j]), largest = std::max(largest, x[j]);
}
inline int cut(double t, int top) { return t > 0 ? int(std::min(t, double(top))) : 0; }  // truncates; NaN: 0
/// (x - least) * inverse + 0.5 in f32, each step rounded.
inline int from_least(float x, float least, float inverse, int top) {
  const float product = float((x - least) * inverse);
  return cut(double(float(double(product) + 0.5)), top);
}
inline float inverse_of(float d) { return d != 0 ? 1.0f / d : 0.0f; }

}  // namespace detail

/// [d, codes i8 32]: x = d c.
struct Q8_0 {
  static constexpr std::string_view name = "q8_0";
  static constexpr int bytes = 34;
  static void encode(const float* x, std::uint8_t* out) {
    const float d = std::fabs(detail::signed_max(x)) / 127.0f, inverse = detail::inverse_of(d);
    detail::put_half(out, d);
    for (int j = 0; j < 32; ++j) {
      const float c = std::clamp(std::round(x[j] * inverse), -127.0f, 127.0f);
      out[2 + j] = c == c ? std::uint8_t(std::int8_t(c)) : std::uint8_t{0};  // NaN: 0
    }
  }
  static void decode(const std::uint8_t* in, float* out) {
    const float d = detail::half_at(in);
    for (int j = 0; j < 32; ++j) out[j] = float(std::int8_t(in[2 + j])) * d;
  }
};

/// [d, nibbles 16]: x = (c - 8) d; low nibbles are channels 0..15, high ones 16..31.
struct Q4_0 {
  static constexpr std::string_view name = "q4_0";
  static constexpr int bytes = 18;
  static void encode(const float* x, std::uint8_t* out) {
    const float d = detail::signed_max(x) / -8.0f;
    const double inverse = double(detail::inverse_of(d));
    detail::put_half(out, d);
    for (int j = 0; j < 16; ++j)
      out[2 + j] = std::uint8_t(detail::cut(double(x[j]) * inverse + 8.5, 15) |
                                detail::cut(double(x[j + 16]) * inverse + 8.5, 15) << 4);
  }
  static void decode(const std::uint8_t* in, float* out) {
    const float d = detail::half_at(in);
    for (int j = 0; j < 16; ++j) {
      out[j] = float((in[2 + j] & 15) - 8) * d;
      out[j + 16] = float((in[2 + j] >> 4) - 8) * d;
    }
  }
};

/// [d, m, nibbles 16]: x = c d + m.
struct Q4_1 {
  static constexpr std::string_view name = "q4_1";
  static constexpr int bytes = 20;
  static void encode(const float* x, std::uint8_t* out) {
    float least, largest;
    detail::bounds(x, least, largest);
    const float d = (largest - least) / 15.0f, inverse = detail::inverse_of(d);
    detail::put_half(out, d);
    detail::put_half(out + 2, least);
    for (int j = 0; j < 16; ++j)
      out[4 + j] = std::uint8_t(detail::from_least(x[j], least, inverse, 15) |
                                detail::from_least(x[j + 16], least, inverse, 15) << 4);
  }
  static void decode(const std::uint8_t* in, float* out) {
    const float d = detail::half_at(in), m = detail::half_at(in + 2);
    for (int j = 0; j < 16; ++j) {
      out[j] = float(in[4 + j] & 15) * d + m;
      out[j + 16] = float(in[4 + j] >> 4) * d + m;
    }
  }
};

namespace detail {

/// 32 codes of 5 bits: fifth bits in a word of 4 bytes, then nibbles.
inline void put_fives(const int* codes, std::uint8_t* out) {
  std::uint32_t high = 0;
  for (int j = 0; j < 32; ++j) high |= std::uint32_t(codes[j] >> 4) << j;
  write_le(out, high);
  for (int j = 0; j < 16; ++j) out[4 + j] = std::uint8_t((codes[j] & 15) | (codes[j + 16] & 15) << 4);
}
inline int five_at(const std::uint8_t* in, int j) {
  const std::uint32_t high = read_le<std::uint32_t>(in);
  const int low = j < 16 ? in[4 + j] & 15 : in[4 + j - 16] >> 4;
  return low | int((high >> j) & 1u) << 4;
}

}  // namespace detail

/// [d, fifth bits 4, nibbles 16]: x = (c - 16) d.
struct Q5_0 {
  static constexpr std::string_view name = "q5_0";
  static constexpr int bytes = 22;
  static void encode(const float* x, std::uint8_t* out) {
    const float d = detail::signed_max(x) / -16.0f;
    const double inverse = double(detail::inverse_of(d));
    int codes[32];
    for (int j = 0; j < 32; ++j) codes[j] = detail::cut(double(x[j]) * inverse + 16.5, 31);
    detail::put_half(out, d);
    detail::put_fives(codes, out + 2);
  }
  static void decode(const std::uint8_t* in, float* out) {
    const float d = detail::half_at(in);
    for (int j = 0; j < 32; ++j) out[j] = float(detail::five_at(in + 2, j) - 16) * d;
  }
};

/// [d, m, fifth bits 4, nibbles 16]: x = c d + m.
struct Q5_1 {
  static constexpr std::string_view name = "q5_1";
  static constexpr int bytes = 24;
  static void encode(const float* x, std::uint8_t* out) {
    float least, largest;
    detail::bounds(x, least, largest);
    const float d = (largest - least) / 31.0f, inverse = detail::inverse_of(d);
    int codes[32];
    for (int j = 0; j < 32; ++j) codes[j] = detail::from_least(x[j], least, inverse, 31);
    detail::put_half(out, d);
    detail::put_half(out + 2, least);
    detail::put_fives(codes, out + 4);
  }
  static void decode(const std::uint8_t* in, float* out) {
    const float d = detail::half_at(in), m = detail::half_at(in + 2);
    for (int j = 0; j < 32; ++j) out[j] = float(detail::five_at(in + 4, j)) * d + m;
  }
};

/// [d, nibbles 16]: x = table[c] d, finer near zero. Codes are nearest under d0 = (number of largest magnitude) / -127;
/// then d is the best scale for those codes, each error weighted by x^2.
struct Iq4Nl {
  static constexpr std::string_view name = "iq4_nl";
  static constexpr int bytes = 18;
  static constexpr std::int8_t table[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                            1,    13,   25,  38,  53,  69,  89,  113};
  static int nearest(float x) {  // between two entries the upper one wins a tie
    if (!(x > float(table[0]))) return 0;
    int i = 1;
    while (i < 15 && x >= float(table[i])) ++i;
    if (x >= float(table[15])) return 15;
    return x - float(table[i - 1]) < float(table[i]) - x ? i - 1 : i;
  }
  static void encode(const float* x, std::uint8_t* out) {
    std::fill_n(out, bytes, std::uint8_t{0});
    const float max = detail::signed_max(x);
    if (std::fabs(max) < 1e-15f) return;
    const float inverse = 1.0f / (max / float(table[0]));
    float qx = 0, qq = 0;
    for (int j = 0; j < 32; ++j) {
      const int c = nearest(inverse * x[j]);
      const float q = float(table[c]), w = x[j] * x[j];
      qx += w * q * x[j];
      qq += w * q * q;
      out[2 + j % 16] = std::uint8_t(out[2 + j % 16] | c << (j < 16 ? 0 : 4));
    }
    detail::put_half(out, qx / qq);
  }
  static void decode(const std::uint8_t* in, float* out) {
    const float d = detail::half_at(in);
    for (int j = 0; j < 16; ++j) {
      out[j] = float(table[in[2 + j] & 15]) * d;
      out[j + 16] = float(table[in[2 + j] >> 4]) * d;
    }
  }
};

/// The codec over blocks of one kind: each row is ceil(d / 32) of them; what lies behind d is coded as zeros.
template <class B>
struct Blocks {
  using Model = Nothing;
  template <class V, class Self>
  static void fields(V& v, Self&) {
    v.same(B::name);
  }
  Index block_rows() const { return 1; }
  std::size_t block_bytes(int d) const { return std::size_t((d + 31) / 32) * std::size_t(B::bytes); }
  void encode(const Model&, const float* rows, Index n, int d, std::byte* out) const {
    auto* at = reinterpret_cast<std::uint8_t*>(out);
    for (Index i = 0; i < n; ++i, rows += d)
      for (int c = 0; c < d; c += 32, at += B::bytes) {
        float x[32] = {};
        std::copy_n(rows + c, std::min(32, d - c), x);
        B::encode(x, at);
      }
  }
  void decode(const Model&, const std::byte* in, Index n, int d, float* out) const {
    const auto* at = reinterpret_cast<const std::uint8_t*>(in);
    for (Index i = 0; i < n; ++i, out += d)
      for (int c = 0; c < d; c += 32, at += B::bytes) {
        float x[32];
        B::decode(at, x);
        std::copy_n(x, std::min(32, d - c), out + c);
      }
  }
};
static_assert(Codec<Blocks<Q8_0>>);

}  // namespace ggml
}  // namespace kvist::inline KVIST_ABI
