#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/version.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>

namespace kvist::inline KVIST_ABI {

/// An entry's place (row) inside one head of the cache, and a number of entries. A row is only where an entry lies
/// now; after an eviction it differs from the entry's position.
using Index = std::int32_t;

/// An absolute token position in the sequence: set when the entry is made, never changed by an eviction.
using Pos = std::int32_t;

/// IEEE 754 binary16 as stored; arithmetic is done in f32 (core/half.hpp converts).
struct f16 {
  std::uint16_t bits = 0;
  friend constexpr bool operator==(f16, f16) = default;
};

/// bfloat16 as stored: the upper half of an f32.
struct bf16 {
  std::uint16_t bits = 0;
  friend constexpr bool operator==(bf16, bf16) = default;
};

/// The element types that a view may have.
template <class T>
concept Scalar = std::same_as<T, float> || std::same_as<T, f16> || std::same_as<T, bf16>;

/// The sizes of a model's attention; never of one moment.
struct Shape {
  int layers = 1;
  int q_heads = 1;
  int kv_heads = 1;
  int dim_k = 0;  ///< channels of a key (and query)
  int dim_v = 0;  ///< channels of a value

  /// Query heads that share one KV head (G). Requires: kv_heads divides q_heads.
  constexpr int group() const { return q_heads / kv_heads; }
  constexpr bool valid() const {
    return layers > 0 && kv_heads > 0 && q_heads > 0 && q_heads % kv_heads == 0 && dim_k > 0 && dim_v > 0;
  }
  friend constexpr bool operator==(const Shape&, const Shape&) = default;
};

/// Whether a call comes from the prompt (many queries at once) or from generation (one query).
enum class Phase : std::uint8_t { prefill, decode };

/// The moment of a call, as the engine counts it.
struct Clock {
  Phase phase = Phase::decode;
  Index step = 0;    ///< decode steps since the last prefill call, from 1; 0 during prefill
  Index size = 0;    ///< entries that the longest head of the layer holds now
  Index budget = 0;  ///< entries per KV head, on average over layers and heads; 0: no budget has been set
  bool last = true;  ///< prefill: is this the last chunk of the prompt?
  friend constexpr bool operator==(const Clock&, const Clock&) = default;
};

}  // namespace kvist::inline KVIST_ABI
