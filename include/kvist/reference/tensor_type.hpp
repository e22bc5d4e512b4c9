#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/result.hpp>

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace kvist::inline KVIST_ABI {

/// How the numbers of a tensor of a GGUF file are stored; the values are the file's. A file may hold other values
/// than these: they are kept as they are, and asking for such a tensor's data is an Error that names the type.
/// Source: ggml, include/ggml.h (enum ggml_type).
enum class TensorType : std::uint32_t {
  f32 = 0,
  f16 = 1,
  q4_0 = 2,
  q4_1 = 3,
  q5_0 = 6,
  q5_1 = 7,
  q8_0 = 8,
  q4_k = 12,
  q5_k = 13,
  q6_k = 14,
  bf16 = 30,
};

namespace detail {

struct TensorTypeFacts {
  std::uint32_t id;
  std::size_t elements, bytes;  // of one block; 0 where the type is not decoded
  std::string_view name;
  const char* refusal;
};

// The refusal is a literal, since an Error holds no text of its own.
#define KVIST_DETAIL_TYPE(id, elements, bytes, name) \
  { id, elements, bytes, name, "tensors of type " name " cannot be decoded" }
inline constexpr TensorTypeFacts tensor_types[] = {
    KVIST_DETAIL_TYPE(0, 1, 4, "F32"),         KVIST_DETAIL_TYPE(1, 1, 2, "F16"),
    KVIST_DETAIL_TYPE(2, 32, 18, "Q4_0"),      KVIST_DETAIL_TYPE(3, 32, 20, "Q4_1"),
    KVIST_DETAIL_TYPE(4, 0, 0, "Q4_2"),        KVIST_DETAIL_TYPE(5, 0, 0, "Q4_3"),
    KVIST_DETAIL_TYPE(6, 32, 22, "Q5_0"),      KVIST_DETAIL_TYPE(7, 32, 24, "Q5_1"),
    KVIST_DETAIL_TYPE(8, 32, 34, "Q8_0"),      KVIST_DETAIL_TYPE(9, 0, 0, "Q8_1"),
    KVIST_DETAIL_TYPE(10, 0, 0, "Q2_K"),       KVIST_DETAIL_TYPE(11, 0, 0, "Q3_K"),
    KVIST_DETAIL_TYPE(12, 256, 144, "Q4_K"),   KVIST_DETAIL_TYPE(13, 256, 176, "Q5_K"),
    KVIST_DETAIL_TYPE(14, 256, 210, "Q6_K"),   KVIST_DETAIL_TYPE(15, 0, 0, "Q8_K"),
    KVIST_DETAIL_TYPE(16, 0, 0, "IQ2_XXS"),    KVIST_DETAIL_TYPE(17, 0, 0, "IQ2_XS"),
    KVIST_DETAIL_TYPE(18, 0, 0, "IQ3_XXS"),    KVIST_DETAIL_TYPE(19, 0, 0, "IQ1_S"),
    KVIST_DETAIL_TYPE(20, 0, 0, "IQ4_NL"),     KVIST_DETAIL_TYPE(21, 0, 0, "IQ3_S"),
    KVIST_DETAIL_TYPE(22, 0, 0, "IQ2_S"),      KVIST_DETAIL_TYPE(23, 0, 0, "IQ4_XS"),
    KVIST_DETAIL_TYPE(24, 0, 0, "I8"),         KVIST_DETAIL_TYPE(25, 0, 0, "I16"),
    KVIST_DETAIL_TYPE(26, 0, 0, "I32"),        KVIST_DETAIL_TYPE(27, 0, 0, "I64"),
    KVIST_DETAIL_TYPE(28, 0, 0, "F64"),        KVIST_DETAIL_TYPE(29, 0, 0, "IQ1_M"),
    KVIST_DETAIL_TYPE(30, 1, 2, "BF16"),       KVIST_DETAIL_TYPE(31, 0, 0, "Q4_0_4_4"),
    KVIST_DETAIL_TYPE(32, 0, 0, "Q4_0_4_8"),   KVIST_DETAIL_TYPE(33, 0, 0, "Q4_0_8_8"),
    KVIST_DETAIL_TYPE(34, 0, 0, "TQ1_0"),      KVIST_DETAIL_TYPE(35, 0, 0, "TQ2_0"),
    KVIST_DETAIL_TYPE(36, 0, 0, "IQ4_NL_4_4"), KVIST_DETAIL_TYPE(37, 0, 0, "IQ4_NL_4_8"),
    KVIST_DETAIL_TYPE(38, 0, 0, "IQ4_NL_8_8"), KVIST_DETAIL_TYPE(39, 0, 0, "MXFP4"),
};
#undef KVIST_DETAIL_TYPE

constexpr TensorTypeFacts facts(TensorType type) {
  for (const TensorTypeFacts& f : tensor_types)
    if (f.id == static_cast<std::uint32_t>(type)) return f;
  return {static_cast<std::uint32_t>(type), 0, 0, "unknown", "tensors of an unknown type cannot be decoded"};
}

}  // namespace detail

/// The type's name as ggml prints it; "unknown" for numbers that no type has.
constexpr std::string_view type_name(TensorType type) { return detail::facts(type).name; }
/// Elements that are stored together; 0 for a type that is not decoded here.
constexpr std::size_t block_elements(TensorType type) { return detail::facts(type).elements; }
/// Bytes of such a block; 0 for a type that is not decoded here.
constexpr std::size_t block_bytes(TensorType type) { return detail::facts(type).bytes; }
/// Can dequantize() read it?
constexpr bool is_decoded(TensorType type) { return block_bytes(type) != 0; }
/// The Error for a type that is not decoded: its text names the type, `got` is its number.
constexpr Error unsupported_type(TensorType type) {
  return {Errc::unsupported, detail::facts(type).refusal, 0, static_cast<long long>(type)};
}

}  // namespace kvist::inline KVIST_ABI
