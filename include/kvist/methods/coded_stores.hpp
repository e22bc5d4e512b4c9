#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/methods/detail/coded.hpp>
#include <kvist/methods/rotated.hpp>
#include <kvist/storage/codec/fp8.hpp>
#include <kvist/storage/codec/ggml.hpp>

#include <utility>

namespace kvist::inline KVIST_ABI {
namespace methods {

struct Int8Options {
  kernels::Accuracy accuracy = kernels::Accuracy::exact;
};

/// 8 bits per number, each row with its own scale and minimum: close to exact at half the bytes of f16.
struct Int8 {
  static constexpr MethodInfo info{"int8",
                                   "8 bits per number, a scale and a minimum (f16) per row",
                                   "",
                                   "BlockedStore of packed pages",
                                   "nothing",
                                   "a store",
                                   Fidelity::exact,
                                   ""};
  using Options = Int8Options;
  template <class V>
  static void fields(V& v, Options& o) {
    v("accuracy", o.accuracy, "of queries and weights at the codes: fast (8 bits) or exact (16)");
  }
  static Result<StoreFactory> make(const Options& o) {
    return StoreFactory([o](const Shape& s, int, int) -> Result<std::vector<AnyStore>> {
      auto k = detail::token_form(true, 8, 0, s.dim_k), v = detail::token_form(false, 8, 0, s.dim_v);
      if (!k) return k.error();
      if (!v) return v.error();
      return detail::one(detail::coded_store(*k, *v, s, 0, o.accuracy));
    });
  }
};

struct IntTokenOptions {
  int bits = 8, group = 64, k_bits = 0, v_bits = 0, outliers = 0;
  kernels::Accuracy accuracy = kernels::Accuracy::exact;
};

/// Keys and values per row, in groups of channels.
struct IntTokenStore {
  static constexpr MethodInfo info{"int_token",
                                   "Codes per token, groups along the channels; scales and minima in f16",
                                   "",
                                   "BlockedStore of IntToken",
                                   "nothing",
                                   "a store",
                                   Fidelity::exact,
                                   ""};
  using Options = IntTokenOptions;
  template <class V>
  static void fields(V& v, Options& o) {
    v("bits", o.bits, "1 to 8; 2, 4 and 8 are read without decoding; 16: f16");
    v("group", o.group, "channels that share a scale; at most the head dimension; 0: all");
    v("k_bits", o.k_bits, "bits of keys, where not `bits`");
    v("v_bits", o.v_bits, "bits of values, where not `bits`");
    v("outliers", o.outliers, "numbers of a row, farthest from its mean, that are kept in f16");
    v("accuracy", o.accuracy, "of queries and weights at the codes: fast (8 bits) or exact (16)");
  }
  static Result<StoreFactory> make(const Options& o) {
    const int kb = o.k_bits != 0 ? o.k_bits : o.bits, vb = o.v_bits != 0 ? o.v_bits : o.bits;
    for (const int b : {kb, vb})  // 16: no codes, but the group still has to be one
      if (Status s = IntToken<f16>{b == 16 ? 8 : b, o.group}.validate(1); !s) return s.error();
    if (o.outliers < 0) return Error{Errc::bad_option, "outliers counts numbers of a row", 0, o.outliers};
    return StoreFactory([o, kb, vb](const Shape& s, int, int) -> Result<std::vector<AnyStore>> {
      auto k = detail::token_form(true, kb, o.group, s.dim_k, o.outliers);
      auto v = detail::token_form(false, vb, o.group, s.dim_v, o.outliers);
      if (!k) return k.error();
      if (!v) return v.error();
      return detail::one(detail::coded_store(*k, *v, s, 0, o.accuracy));
    });
  }
};

struct IntChannelOptions {
  int bits = 4, group = 32;
};

/// Keys and values per channel, in groups of tokens; the last tokens wait in f32 until a group is full.
struct IntChannelStore {
  static constexpr MethodInfo info{"int_channel",
                                   "Codes per channel, groups along the tokens; scales and minima in f16",
                                   "",
                                   "BlockedStore of IntChannel",
                                   "nothing",
                                   "a store",
                                   Fidelity::exact,
                                   ""};
  using Options = IntChannelOptions;
  template <class V>
  static void fields(V& v, Options& o) {
    v("bits", o.bits, "1 to 8");
    v("group", o.group, "tokens that share a scale");
  }
  static Result<StoreFactory> make(const Options& o) {
    if (Status s = IntChannel<f16>{o.bits, o.group}.validate(1); !s) return s.error();
    return StoreFactory([o](const Shape& s, int, int) -> Result<std::vector<AnyStore>> {
      auto k = detail::channel_form(true, o.bits, o.group, s.dim_k),
           v = detail::channel_form(false, o.bits, o.group, s.dim_v);
      if (!k) return k.error();
      if (!v) return v.error();
      return detail::one(detail::coded_store(*k, *v, s, 0, kernels::Accuracy::exact));
    });
  }
};

struct CodecStoreOptions {
  kernels::Accuracy accuracy = kernels::Accuracy::exact;  // where kernels read the codes
};

/// Keys and values through one codec without options, row by row. The blocks q8_0, q4_0 and q4_1 lie in pages that kernels
/// read without decoding them (head dimensions up to 512); codes and scales are the same.
template <class C>
struct CodecStore {
  static constexpr bool packed = std::same_as<C, ggml::Blocks<ggml::Q8_0>> ||
                                 std::same_as<C, ggml::Blocks<ggml::Q4_0>> ||
                                 std::same_as<C, ggml::Blocks<ggml::Q4_1>>;
  static constexpr PackedRule rule = std::same_as<C, ggml::Blocks<ggml::Q8_0>>   ? PackedRule::q8_0
                                     : std::same_as<C, ggml::Blocks<ggml::Q4_0>> ? PackedRule::q4_0
                                                                                 : PackedRule::q4_1;
  static constexpr const char* name = std::same_as<C, ggml::Blocks<ggml::Q8_0>>    ? "q8_0"
                                      : std::same_as<C, ggml::Blocks<ggml::Q4_0>>  ? "q4_0"
                                      : std::same_as<C, ggml::Blocks<ggml::Q4_1>>  ? "q4_1"
                                      : std::same_as<C, ggml::Blocks<ggml::Q5_0>>  ? "q5_0"
                                      : std::same_as<C, ggml::Blocks<ggml::Q5_1>>  ? "q5_1"
                                      : std::same_as<C, ggml::Blocks<ggml::Iq4Nl>> ? "iq4_nl"
                                      : std::same_as<C, Fp8<E4M3>>                 ? "fp8_e4m3"
                                                                                   : "fp8_e5m2";
  static constexpr bool fp8 = std::same_as<C, Fp8<E4M3>> || std::same_as<C, Fp8<E5M2>>;
  static constexpr MethodInfo info{
      name,
      fp8 ? "8-bit floating point, no scale" : "Blocks of 32 channels as llama.cpp stores them",
      fp8 ? "OCP 8-bit Floating Point Specification, 2023" : "ggml-org/ggml, ggml-quants.c",
      packed ? "BlockedStore of packed pages" : "BlockedStore of a codec",
      "nothing",
      "a store",
      Fidelity::exact,
      ""};
  using Options = CodecStoreOptions;
  template <class V>
  static void fields([[maybe_unused]] V& v, [[maybe_unused]] Options& o) {
    if constexpr (packed)
      v("accuracy", o.accuracy, "of queries and weights at the codes: fast (8 bits) or exact (16)");
  }
  static Result<StoreFactory> make(const Options& o) {
    return StoreFactory([o](const Shape& s, int, int) -> Result<std::vector<AnyStore>> {
      for (const int d : {s.dim_k, s.dim_v})
        if (Status fits = detail::check_channels(d); !fits) return fits.error();
      if (!fp8 && (s.dim_k % 32 != 0 || s.dim_v % 32 != 0))
        return Error{Errc::bad_shape, "blocks of 32 channels do not divide the head dimension", 32,
                     s.dim_k % 32 != 0 ? s.dim_k : s.dim_v};
      if (packed && std::max(s.dim_k, s.dim_v) <= kernels::PackedLayout::max_dim)
        return detail::one(AnyStore(BlockedStore<PackedSide, PackedSide>(
            PackedSide(PackedSide::layout_of(rule, true, s.dim_k), o.accuracy, rule),
            PackedSide(PackedSide::layout_of(rule, false, s.dim_v), o.accuracy, rule), 0)));
      return detail::one(
          detail::coded_store({AnyCodec(C{}), {}}, {AnyCodec(C{}), {}}, s, 0, kernels::Accuracy::exact));
    });
  }
};
using Q8_0Store = CodecStore<ggml::Blocks<ggml::Q8_0>>;
using Q4_0Store = CodecStore<ggml::Blocks<ggml::Q4_0>>;
using Q4_1Store = CodecStore<ggml::Blocks<ggml::Q4_1>>;
using Q5_0Store = CodecStore<ggml::Blocks<ggml::Q5_0>>;
using Q5_1Store = CodecStore<ggml::Blocks<ggml::Q5_1>>;
using Iq4NlStore = CodecStore<ggml::Blocks<ggml::Iq4Nl>>;
using Fp8E4M3Store = CodecStore<Fp8<E4M3>>;
using Fp8E5M2Store = CodecStore<Fp8<E5M2>>;

}  // namespace methods
}  // namespace kvist::inline KVIST_ABI
