#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/half.hpp>
#include <kvist/core/little_endian.hpp>
#include <kvist/core/result.hpp>
#include <kvist/reference/gguf.hpp>
#include <kvist/reference/tensor_type.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace kvist::inline KVIST_ABI {

namespace detail {

// Layouts and formulas: ggml, src/ggml-quants.c (dequantize_row_*). d, m, dmin are f16; n is a stored code.
//
// The values do not depend on how a compiler orders or fuses the arithmetic: n * d, d * scale and d * scale * n are
// exact in f32 (11 bits of an f16 times at most 6, 7 or 8 bits of a scale times at most 5 of a code make no more than
// 24), so the only rounding is that of the last addition, with or without a fused multiply-add.

inline float half_at(const std::uint8_t* at) { return to_f32(f16{read_le<std::uint16_t>(at)}); }

inline void decode_f32(const std::uint8_t* in, float* out, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) out[i] = read_le<float>(in + 4 * i);
}

inline void decode_f16(const std::uint8_t* in, float* out, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) {
    // to_f32 without branches, so that the loop vectorises
    const std::uint32_t bits = read_le<std::uint16_t>(in + 2 * i);
    const std::uint32_t sign = (bits & 0x8000u) << 16, rest = bits & 0x7fffu;
    const std::uint32_t normal = (rest << 13) + 0x38000000u;  // exponent bias 15 becomes 127
    const std::uint32_t special = (rest << 13) | 0x7f800000u;
    const std::uint32_t tiny =
        std::bit_cast<std::uint32_t>(static_cast<float>(static_cast<std::int32_t>(rest)) * 0x1p-24f);
    const std::uint32_t finite = rest < 0x400u ? tiny : normal;
    out[i] = std::bit_cast<float>(sign | (rest >= 0x7c00u ? special : finite));
  }
}

inline void decode_bf16(const std::uint8_t* in, float* out, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) out[i] = to_f32(bf16{read_le<std::uint16_t>(in + 2 * i)});
}

/// [d, q 16]: x = (n - 8) d; the low nibbles are elements 0..15, the high ones 16..31.
inline void decode_q4_0(const std::uint8_t* in, float* out) {
  const float d = half_at(in);
  for (int j = 0; j < 16; ++j) {
    out[j] = static_cast<float>((in[2 + j] & 15) - 8) * d;
    out[j + 16] = static_cast<float>((in[2 + j] >> 4) - 8) * d;
  }
}

/// [d, m, q 16]: x = n d + m.
inline void decode_q4_1(const std::uint8_t* in, float* out) {
  const float d = half_at(in), m = half_at(in + 2);
  for (int j = 0; j < 16; ++j) {
    out[j] = static_cast<float>(in[4 + j] & 15) * d + m;
    out[j + 16] = static_cast<float>(in[4 + j] >> 4) * d + m;
  }
}

/// [d, h u32, q 16]: n = nibble + 16 * bit of h; x = (n - 16) d.
inline void decode_q5_0(const std::uint8_t* in, float* out) {
  const float d = half_at(in);
  const std::uint32_t high = read_le<std::uint32_t>(in + 2);
  for (int j = 0; j < 16; ++j) {
    const std::uint32_t low = in[6 + j];
    out[j] = static_cast<float>(static_cast<std::int32_t>((low & 15) | (((high >> j) & 1u) << 4)) - 16) * d;
    out[j + 16] =
        static_cast<float>(static_cast<std::int32_t>((low >> 4) | (((high >> (j + 16)) & 1u) << 4)) - 16) * d;
  }
}

/// [d, m, h u32, q 16]: x = n d + m.
inline void decode_q5_1(const std::uint8_t* in, float* out) {
  const float d = half_at(in), m = half_at(in + 2);
  const std::uint32_t high = read_le<std::uint32_t>(in + 4);
  for (int j = 0; j < 16; ++j) {
    const std::uint32_t low = in[8 + j];
    out[j] = static_cast<float>(static_cast<std::int32_t>((low & 15) | (((high >> j) & 1u) << 4))) * d + m;
    out[j + 16] =
        static_cast<float>(static_cast<std::int32_t>((low >> 4) | (((high >> (j + 16)) & 1u) << 4))) * d + m;
  }
}

/// [d, n i8 32]: x = n d.
inline void decode_q8_0(const std::uint8_t* in, float* out) {
  const float d = half_at(in);
  for (int j = 0; j < 32; ++j) out[j] = static_cast<float>(static_cast<std::int8_t>(in[2 + j])) * d;
}

/// Scale and minimum (6 bits each) of run j of 32, from the 12 bytes that hold eight pairs.
inline std::pair<float, float> k_scale(const std::uint8_t* s, int j) {
  if (j < 4) return {static_cast<float>(s[j] & 63), static_cast<float>(s[j + 4] & 63)};
  return {static_cast<float>((s[j + 4] & 15) | ((s[j - 4] >> 6) << 4)),
          static_cast<float>((s[j + 4] >> 4) | ((s[j] >> 6) << 4))};
}

/// [d, dmin, scales 12, q 128]: eight runs of 32; runs 2p and 2p + 1 are the low and high nibbles of bytes 32p..;
/// x = d scale n - dmin minimum.
inline void decode_q4_k(const std::uint8_t* in, float* out) {
  const float d = half_at(in), dmin = half_at(in + 2);
  for (int j = 0; j < 8; ++j) {
    const auto [scale, minimum] = k_scale(in + 4, j);
    const float a = d * scale, b = dmin * minimum;
    const std::uint8_t* const q = in + 16 + 32 * (j / 2);
    const int shift = 4 * (j % 2);
    for (int l = 0; l < 32; ++l) out[32 * j + l] = a * static_cast<float>((q[l] >> shift) & 15) - b;
  }
}

/// [d, dmin, scales 12, h 32, q 128]: as q4_k, and bit j of h[l] is worth 16.
inline void decode_q5_k(const std::uint8_t* in, float* out) {
  const float d = half_at(in), dmin = half_at(in + 2);
  const std::uint8_t* const h = in + 16;
  for (int j = 0; j < 8; ++j) {
    const auto [scale, minimum] = k_scale(in + 4, j);
    const float a = d * scale, b = dmin * minimum;
    const std::uint8_t* const q = in + 48 + 32 * (j / 2);
    const int shift = 4 * (j % 2);
    for (int l = 0; l < 32; ++l)
      out[32 * j + l] = a * static_cast<float>(((q[l] >> shift) & 15) | (((h[l] >> j) & 1) << 4)) - b;
  }
}

/// [low 128, high 64, scales i8 16, d]: two halves of four runs of 32; x = d scale (n - 32).
inline void decode_q6_k(const std::uint8_t* in, float* out) {
  const float d = half_at(in + 208);
  for (int half = 0; half < 2; ++half) {
    for (int run = 0; run < 4; ++run) {
      const std::uint8_t* const low = in + 64 * half + 32 * (run % 2);
      const std::uint8_t* const high = in + 128 + 32 * half;
      const std::uint8_t* const scales = in + 192 + 8 * half + 2 * run;
      const int shift = 4 * (run / 2);
      for (int part = 0; part < 2; ++part) {
        const float a = d * static_cast<float>(static_cast<std::int8_t>(scales[part]));
        for (int l = 16 * part; l < 16 * part + 16; ++l) {
          const int n = ((low[l] >> shift) & 15) | (((high[l] >> (2 * run)) & 3) << 4);
          out[128 * half + 32 * run + l] = a * static_cast<float>(n - 32);
        }
      }
    }
  }
}

template <class Block>
void decode_blocks(std::span<const std::byte> in, float* out, std::size_t bytes, std::size_t elements,
                   Block&& block) {
  const auto* at = reinterpret_cast<const std::uint8_t*>(in.data());
  for (const auto* const end = at + in.size(); at != end; at += bytes, out += elements) block(at, out);
}

}  // namespace detail

/// Decodes whole blocks to f32, bit for bit as ggml's reference decoder does.
///
/// `in` is some number of blocks as a GGUF file stores them, `out` takes as many elements as they hold.
/// Cost: one pass; vectorised by the compiler.
/// Fails with: unsupported (a type that is not decoded); bad_shape (sizes that do not fit each other).
inline Status dequantize(TensorType type, std::span<const std::byte> in, std::span<float> out) {
  const std::size_t bytes = block_bytes(type), elements = block_elements(type);
  if (bytes == 0) return unsupported_type(type);
  if (in.size() % bytes != 0)
    return Error{Errc::bad_shape, "bytes to decode are no whole number of blocks", (long long)bytes,
                 (long long)in.size()};
  const std::size_t n = in.size() / bytes * elements;
  if (out.size() != n)
    return Error{Errc::bad_shape, "room for decoded elements", (long long)n, (long long)out.size()};
  const auto* const first = reinterpret_cast<const std::uint8_t*>(in.data());
  const auto blocks = [&](void (*block)(const std::uint8_t*, float*)) {
    detail::decode_blocks(in, out.data(), bytes, elements, block);
  };
  switch (type) {
    case TensorType::f32:
      detail::decode_f32(first, out.data(), n);
      break;
    case TensorType::f16:
      detail::decode_f16(first, out.data(), n);
      break;
    case TensorType::bf16:
      detail::decode_bf16(first, out.data(), n);
      break;
    case TensorType::q4_0:
      blocks(detail::decode_q4_0);
      break;
    case TensorType::q4_1:
      blocks(detail::decode_q4_1);
      break;
    case TensorType::q5_0:
      blocks(detail::decode_q5_0);
      break;
    case TensorType::q5_1:
      blocks(detail::decode_q5_1);
      break;
    case TensorType::q8_0:
      blocks(detail::decode_q8_0);
      break;
    case TensorType::q4_k:
      blocks(detail::decode_q4_k);
      break;
    case TensorType::q5_k:
      blocks(detail::decode_q5_k);
      break;
    case TensorType::q6_k:
      blocks(detail::decode_q6_k);
      break;
  }
  return Done{};
}

/// Decodes row `row` of a tensor: out [dims[0]] f32. Rows of other ranks count over all outer dimensions.
/// Fails with: as dequantize(); bad_shape where there is no such row.
inline Status dequantize_row(const GgufTensor& tensor, std::size_t row, std::span<float> out) {
  if (!is_decoded(tensor.type)) return unsupported_type(tensor.type);
  if (row >= tensor.rows())
    return Error{Errc::bad_shape, "row of a tensor", (long long)tensor.rows(), (long long)row};
  return dequantize(tensor.type, tensor.row(row), out);
}

/// All elements of a tensor, row after row, as f32.
/// Fails with: as dequantize().
inline Result<std::vector<float>> dequantize(const GgufTensor& tensor) {
  if (!is_decoded(tensor.type)) return unsupported_type(tensor.type);
  std::vector<float> out(tensor.elements());
  if (const Status decoded = dequantize(tensor.type, tensor.data, out); !decoded) return decoded.error();
  return out;
}

}  // namespace kvist::inline KVIST_ABI
