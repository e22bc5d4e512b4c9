#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/attention/state.hpp>
#include <kvist/core/executor.hpp>
#include <kvist/core/result.hpp>
#include <kvist/core/types.hpp>
#include <kvist/view/evidence.hpp>
#include <kvist/view/head.hpp>

#include <concepts>
#include <span>

namespace kvist::inline KVIST_ABI {

/// What the reference transformer asks of a cache. Heads of a layer may hold different numbers of entries.
///
///   shape()                                 the attention sizes it was made for
///   wants()                                 evidence it wants with the calls of a prompt
///   form()                                  rotated: keys come rotated; raw: keys and queries come before RoPE
///   next_position()                         the position that the next token has to have
///   size(layer, head)                       entries of a KV head
///   bias(layer, head)                       [size] log-weights of the entries, or empty
///   read(layer, head, first, n, k, v)       entries expanded to f32: k [n, dk], v [n, dv]
///   append(layer, n, k, v, first_position)  n tokens: k [n, kv_heads, dk], v [n, kv_heads, dv]
///   observe(layer, evidence, clock)         after the append of a prompt's call: evidence [kv_heads]
///   attend(layer, q, scale, out, executor)  one token: q [q_heads, dk] -> out [q_heads, dv], over all its entries
///   step(layer, clock)                      after a live decode step's attend
///
/// One that also offers attend_tokens(layer, n, q, k, v, first_position, how, out, executor), as Cache has it, is asked for a few tokens at
/// once instead of being read out. A raw cache that also offers `compact() == true` counts positions by slot (entry i of a head stands at position i).
template <class C>
concept TransformerCache = requires(C& c, const C& k, float* out, const float* in,
                                    std::span<const Evidence> evidence, const Clock& clock, Serial& executor) {
  { k.shape() } -> std::convertible_to<Shape>;
  { k.wants() } -> std::convertible_to<Wants>;
  { k.form() } -> std::convertible_to<KeyForm>;
  { k.next_position() } -> std::convertible_to<Pos>;
  { k.size(0, 0) } -> std::convertible_to<Index>;
  { k.bias(0, 0) } -> std::convertible_to<std::span<const float>>;
  k.read(0, 0, Index{}, Index{}, out, out);
  { c.append(0, Index{}, in, in, Pos{}) } -> std::same_as<Status>;
  { c.observe(0, evidence, clock) } -> std::same_as<Status>;
  { c.attend(0, in, 1.0f, out, executor) } -> std::same_as<Status>;
  { c.step(0, clock) } -> std::same_as<Status>;
};

/// Does the cache attend for several tokens at once?
template <class C, class E>
concept AttendsTokens = requires(C& c, const float* in, float* out, const LayerAttention& how, E& executor) {
  { c.attend_tokens(0, Index{}, in, in, in, Pos{}, how, out, executor) } -> std::same_as<Status>;
};

}  // namespace kvist::inline KVIST_ABI
