// SPDX-License-Identifier: Apache-2.0
// KIVI against its published code: codes, scales and minima of recorded keys and values, and the cache's windows and
// outputs over decode steps.
#include <kvist/kernels/packed.hpp>
#include <kvist/storage/codec/int_channel.hpp>
#include <kvist/storage/codec/int_token.hpp>
#include <kvist/storage/store/blocked.hpp>

#include "support/recorded.hpp"

#include <cmath>
#include <functional>

using namespace kvist;
using namespace kvist::test;

namespace {

/// Codes of packed words (int32, lowest bits first) of a .npy file, as they are: no way through f32.
std::vector<std::uint32_t> words(const std::string& name) {
  auto npy = Npy::load(*golden_path() + "/" + name + ".npy");
  REQUIRE(npy);
  std::vector<std::uint32_t> out;
  const auto all = npy->as_i32();
  REQUIRE(all);
  for (const std::int32_t w : *all) out.push_back(std::uint32_t(w));
  return out;
}

struct Found {
  std::size_t equal = 0, off_by_one = 0, other = 0, fields = 0, bad_fields = 0;
};

/// A code, scale or minimum that differs: the code by one where rounding decides.
void code(Found& f, int got, int want) {
  const int diff = std::abs(got - want);
  ++(diff == 0 ? f.equal : diff == 1 ? f.off_by_one : f.other);
}
void field(Found& f, float got, float want, float tolerance) {
  ++f.fields;
  if (!(std::fabs(got - want) <= tolerance * (1 + std::fabs(want)))) ++f.bad_fields;
}

template <Scalar S>
Found keys(const std::string& name, int layer, int bits, int group, float tolerance) {
  const Tensor k = recorded("official/inputs/k" + std::to_string(layer));
  const auto want = words("official/kivi/" + name + "_code");
  const Tensor scale = recorded("official/kivi/" + name + "_scale"),
               least = recorded("official/kivi/" + name + "_min");
  const IntChannel<S> codec{bits, group};
  const std::size_t groups = 256 / std::size_t(group), per_word = 32 / std::size_t(bits), d = 64;
  Found f;
  for (std::size_t h = 0; h < 3; ++h)
    for (std::size_t g = 0; g < groups; ++g) {
      std::vector<float> x;
      for (std::size_t t = 0; t < std::size_t(group); ++t)
        for (const float v : k.row(h, 64 + g * std::size_t(group) + t)) x.push_back(v);
      std::vector<std::byte> block(codec.block_bytes(int(d)));
      codec.encode({}, x.data(), group, int(d), block.data());
      for (std::size_t c = 0; c < d; ++c) {
        field(f, codec.channel(block.data(), int(c), int(d)).scale, scale.at(h, g, c), tolerance);
        field(f, codec.channel(block.data(), int(c), int(d)).minimum, least.at(h, g, c), tolerance);
        for (std::size_t t = 0; t < std::size_t(group); ++t) {
          const std::size_t at = g * std::size_t(group) + t;
          const std::uint32_t word = want[(h * (256 / per_word) + at / per_word) * d + c];
          code(f, kvist::detail::bits_at(block.data() + c * codec.channel_bytes(), t, bits),
               int((word >> (at % per_word * std::size_t(bits))) & ((1u << bits) - 1u)));
        }
      }
    }
  return f;
}

template <Scalar S>
Found values(const std::string& name, int layer, int bits, int group, float tolerance) {
  const Tensor v = recorded("official/inputs/v" + std::to_string(layer));
  const auto want = words("official/kivi/" + name + "_code");
  const Tensor scale = recorded("official/kivi/" + name + "_scale"),
               least = recorded("official/kivi/" + name + "_min");
  const IntToken<S> codec{bits, group};
  const std::size_t per_word = 32 / std::size_t(bits), d = 64;
  Found f;
  for (std::size_t h = 0; h < 3; ++h)
    for (std::size_t t = 0; t < 256; ++t) {
      const Row x = v.row(h, 64 + t);
      std::vector<std::byte> block(codec.block_bytes(int(d)));
      codec.encode({}, x.data(), 1, int(d), block.data());
      const std::byte* const scales = block.data() + codec.code_bytes(int(d));
      for (std::size_t g = 0; g < d / std::size_t(group); ++g) {
        field(f, kvist::detail::get<S>(scales, g), scale.at(h, t, g), tolerance);
        field(f, kvist::detail::get<S>(scales, std::size_t(codec.groups(int(d))) + g), least.at(h, t, g),
              tolerance);
      }
      for (std::size_t c = 0; c < d; ++c) {
        const std::uint32_t word = want[(h * 256 + t) * (d / per_word) + c / per_word];
        code(f, kvist::detail::bits_at(block.data(), c, bits),
             int((word >> (c % per_word * std::size_t(bits))) & ((1u << bits) - 1u)));
      }
    }
  return f;
}

/// In f32 as the code computes: the same but at ties of rounding. In f16 the code divides half-precision numbers, too.
void check(const std::string& name, const Found& f, double share) {
  INFO(name << ": " << f.equal << " equal, " << f.off_by_one << " off by one, " << f.other << " other");
  CHECK(f.other == 0);
  CHECK(double(f.off_by_one) <= share * double(f.equal));
  CHECK(f.bad_fields == 0);
}

struct Decode {
  const char* name;
  int layer, bits, group, residual;
  Index prompt, steps;
};

/// Outputs [heads][steps][3 * 64] of a store over the recorded steps; its windows are checked on the way.
template <class S>
std::vector<float> run(const Decode& c, const std::function<S()>& make) {
  const std::string at = "official/kivi/decode_" + std::string(c.name), layer = std::to_string(c.layer);
  const Tensor q = recorded("official/inputs/q" + layer), k = recorded("official/inputs/k" + layer),
               v = recorded("official/inputs/v" + layer), state = recorded(at + "_state");
  std::vector<float> all;
  for (std::size_t h = 0; h < 3; ++h) {
    S store = make();
    const auto rows_of = [&](const Tensor& t, std::size_t first, std::size_t n) {
      std::vector<float> x;
      for (std::size_t i = 0; i < n; ++i)
        for (const float y : t.row(h, first + i)) x.push_back(y);
      return x;
    };
    store.append(rows_of(k, 0, std::size_t(c.prompt)).data(), rows_of(v, 0, std::size_t(c.prompt)).data(),
                 c.prompt);
    store.settle();
    const auto windows = [&](std::size_t event) {
      CHECK(float(store.coded_keys()) == state.at(event, 0));
      CHECK(float(store.size() - store.coded_keys()) == state.at(event, 1));
      CHECK(float(store.coded_values()) == state.at(event, 2));
      CHECK(float(store.size() - store.coded_values()) == state.at(event, 3));
    };
    windows(0);
    for (std::size_t s = 0; s < std::size_t(c.steps); ++s) {
      const std::size_t t = std::size_t(c.prompt) + s;
      store.append(k.row(h, t).data(), v.row(h, t).data(), 1);
      std::vector<float> queries;
      for (std::size_t g = 0; g < 3; ++g)
        for (const float x : q.row(3 * h + g, t)) queries.push_back(x);
      AttendArgs args;
      args.q = queries.data();
      args.group = 3;
      args.scale = 0.125f;
      AttnBuffer buffer(3, 64);
      store.attend(args, buffer.state());
      std::vector<float> o(3 * 64);
      finish(buffer.state(), o.data());
      all.insert(all.end(), o.begin(), o.end());
      store.settle();
      windows(s + 1);
    }
  }
  return all;
}

}  // namespace

TEST_CASE("KIVI's codes, scales and minima are those of its published code", "[golden][KIVI]") {
  if (!have_recorded("official/kivi")) KVIST_SKIP("reference values");
  struct Case {
    const char* name;
    int layer, bits, group;
  };
  for (const Case& c :
       {Case{"k11_b2_g32", 11, 2, 32}, Case{"k11_b4_g32", 11, 4, 32}, Case{"k11_b4_g64", 11, 4, 64},
        Case{"k11_b2_g128", 11, 2, 128}, Case{"k28_b2_g32", 28, 2, 32}})
    check(c.name, keys<float>(c.name, c.layer, c.bits, c.group, 1e-6f), 1e-4);
  for (const Case& c :
       {Case{"v11_b2_g32", 11, 2, 32}, Case{"v11_b4_g32", 11, 4, 32}, Case{"v11_b2_g64", 11, 2, 64},
        Case{"v11_b4_g16", 11, 4, 16}, Case{"v20_b2_g32", 20, 2, 32}})
    check(c.name, values<float>(c.name, c.layer, c.bits, c.group, 1e-6f), 1e-4);
  check("k11_b2_g32_f16", keys<f16>("k11_b2_g32_f16", 11, 2, 32, 1e-3f), 1e-2);
  check("v11_b2_g32_f16", values<f16>("v11_b2_g32_f16", 11, 2, 32, 1e-3f), 1e-2);
}

TEST_CASE("KIVI's windows and outputs over decode steps are those of its published code", "[golden][KIVI]") {
  if (!have_recorded("official/kivi")) KVIST_SKIP("reference values");
  for (const Decode& c :
       {Decode{"l11_b2_g32_r32", 11, 2, 32, 32, 500, 28}, Decode{"l20_b4_g32_r64", 20, 4, 32, 64, 500, 28},
        Decode{"l20_b2_g64_r64", 20, 2, 64, 64, 490, 38}}) {
    const std::string at = "official/kivi/decode_" + std::string(c.name);
    const Tensor out = recorded(at + "_out");
    const int value_group = std::min(c.group, 64);
    using F32 = BlockedStore<CodecSide<IntChannel<float>>, CodecSide<IntToken<float>>>;
    const auto f32 = run<F32>(c, [&] {
      return F32(CodecSide<IntChannel<float>>({c.bits, c.group}, 64),
                 CodecSide<IntToken<float>>({c.bits, value_group}, 64), c.residual);
    });
    double worst = 0;
    for (std::size_t i = 0; i < f32.size(); ++i) {
      const std::size_t h = i / (std::size_t(c.steps) * 192), s = i / 192 % std::size_t(c.steps), e = i % 192;
      worst = std::max(worst, std::fabs(double(f32[i]) - double(out.at(s, 3 * h + e / 64, e % 64))));
    }
    INFO(c.name << ": largest difference " << worst);
    CHECK(worst <= 2e-5);

    // The product's own form: scales and minima in f16, codes fitted to them (so that some differ from the published code's
    // by one), read by the fused kernels. It is the same as decoding first.
    using F16 = BlockedStore<CodecSide<IntChannel<f16>>, CodecSide<IntToken<f16>>>;
    const auto f16s = run<F16>(c, [&] {
      return F16(CodecSide<IntChannel<f16>>({c.bits, c.group}, 64),
                 CodecSide<IntToken<f16>>({c.bits, value_group}, 64), c.residual);
    });
    using Packed = BlockedStore<PackedSide, PackedSide>;
    const auto packed = run<Packed>(c, [&] {
      return Packed(PackedSide(kernels::channel_keys(c.bits, 64, c.group), kernels::Accuracy::exact),
                    PackedSide(kernels::token_values(c.bits, 64, value_group, true), kernels::Accuracy::exact),
                    c.residual);
    });
    double fused = 0, square = 0, cost = 0;
    for (std::size_t i = 0; i < f32.size(); ++i) {
      fused = std::max(fused, std::fabs(double(packed[i]) - double(f16s[i])));
      square += (double(f16s[i]) - double(f32[i])) * (double(f16s[i]) - double(f32[i]));
      cost += double(f32[i]) * double(f32[i]);
    }
    INFO(c.name << ": kernels " << fused << ", f16 scales " << std::sqrt(square / cost) << " of the outputs");
    CHECK(fused <= 2e-3);
    CHECK(std::sqrt(square / cost) <= 0.2);
  }
}
