#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/kernels/packed.hpp>
#include <kvist/methods/options.hpp>
#include <kvist/methods/stores.hpp>
#include <kvist/storage/any_store.hpp>
#include <kvist/storage/codec/adapt/with_outliers.hpp>
#include <kvist/storage/codec/any_codec.hpp>
#include <kvist/storage/codec/int_channel.hpp>
#include <kvist/storage/codec/int_token.hpp>
#include <kvist/storage/codec/plain.hpp>
#include <kvist/storage/store/blocked.hpp>
#include <kvist/storage/store/thinned.hpp>

#include <array>
#include <optional>
#include <utility>

namespace kvist::inline KVIST_ABI {
namespace methods {

template <>
struct EnumNames<kernels::Accuracy> {
  static constexpr std::array<const char*, 2> names{"fast", "exact"};
};

namespace detail {

/// How keys, or values, are coded: a codec, and the packed layout that says the same where kernels know one.
struct CodedForm {
  AnyCodec codec;
  kernels::PackedLayout layout;  ///< dim 0: none
};

/// Can a coded store hold rows of d channels? Fails with: bad_shape.
inline Status check_channels(int d) {
  constexpr int most = CodecSide<AnyCodec>::most_channels;
  if (d < 1 || d > most) return Error{Errc::bad_shape, "coded rows have 1 to 8192 channels", most, d};
  return Done{};
}

/// Codes per row in groups of channels (0: the whole row). `bits` 16: rows in f16. Fails with: bad_option; bad_shape (the
/// group does not divide the head dimension, or that is above 8192).
inline Result<CodedForm> token_form(bool keys, int bits, int group, int d, int outliers = 0) {
  if (Status s = check_channels(d); !s) return s.error();
  if (bits == 16) return CodedForm{AnyCodec(Plain<f16>{}), {}};
  const IntToken<f16> codec{bits, group};
  if (Status s = codec.validate(d); !s) return s.error();
  if (d % codec.width(d) != 0)
    return Error{Errc::bad_shape, "the group along the channels does not divide the head dimension",
                 codec.width(d), d};
  if (outliers > 0) {
    const WithOutliers<AnyCodec> with{AnyCodec(codec), outliers};
    if (Status s = with.validate(d); !s) return s.error();
    return CodedForm{AnyCodec(with), {}};
  }
  const auto layout = keys ? kernels::token_keys(bits, d, codec.width(d), true)
                           : kernels::token_values(bits, d, codec.width(d), true);
  return CodedForm{AnyCodec(codec), layout.valid() ? layout : kernels::PackedLayout{}};
}

/// Codes per channel in groups of rows. Fails with: bad_option; bad_shape (a head dimension above 8192).
inline Result<CodedForm> channel_form(bool keys, int bits, int group, int d) {
  if (Status s = check_channels(d); !s) return s.error();
  if (bits == 16) return CodedForm{AnyCodec(Plain<f16>{}), {}};
  const IntChannel<f16> codec{bits, group};
  if (Status s = codec.validate(d); !s) return s.error();
  const auto layout = kernels::channel_keys(bits, d, group);
  return CodedForm{AnyCodec(codec), keys && layout.valid() ? layout : kernels::PackedLayout{}};
}

/// A store of those two forms: packed where both have layouts, thinned where keys are coded along the tokens.
inline AnyStore coded_store(const CodedForm& k, const CodedForm& v, const Shape& s, Index residual,
                            kernels::Accuracy accuracy) {
  const auto any = [](auto store) {
    if (store.key_side().unit() == 1) return AnyStore(std::move(store));
    return AnyStore(ThinnedStore(std::move(store)));
  };
  if (k.layout.dim > 0 && v.layout.dim > 0)
    return any(BlockedStore<PackedSide, PackedSide>(PackedSide(k.layout, accuracy),
                                                    PackedSide(v.layout, accuracy), residual));
  return any(BlockedStore<CodecSide<AnyCodec>, CodecSide<AnyCodec>>(
      CodecSide<AnyCodec>(k.codec, s.dim_k), CodecSide<AnyCodec>(v.codec, s.dim_v), residual));
}

inline Result<std::vector<AnyStore>> one(AnyStore store) {
  std::vector<AnyStore> out;
  out.push_back(std::move(store));
  return out;
}

}  // namespace detail
}  // namespace methods
}  // namespace kvist::inline KVIST_ABI
