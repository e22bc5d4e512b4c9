// SPDX-License-Identifier: Apache-2.0
#include "../../support/catch.hpp"
#include "../../support/coded_rows.hpp"

#include <kvist/storage/codec/adapt/rotated.hpp>
#include <kvist/storage/codec/adapt/with_outliers.hpp>
#include <kvist/storage/codec/any_codec.hpp>
#include <kvist/storage/codec/fp8.hpp>
#include <kvist/storage/codec/int_channel.hpp>
#include <kvist/storage/codec/int_token.hpp>
#include <kvist/storage/codec/plain.hpp>

#include <limits>

using namespace kvist;
using namespace kvist::test;

namespace {

/// decode(encode(rows)), block by block.
template <Codec C>
std::vector<float> there_and_back(const C& codec, const std::vector<float>& x, int d) {
  const Index n = Index(x.size()) / d, b = codec.block_rows();
  std::vector<float> out(x.size());
  std::vector<std::byte> bytes(codec.block_bytes(d));
  for (Index i = 0; i < n; i += b) {
    const Index count = std::min(b, n - i);
    codec.encode({}, x.data() + std::ptrdiff_t(i) * d, count, d, bytes.data());
    codec.decode({}, bytes.data(), count, d, out.data() + std::ptrdiff_t(i) * d);
  }
  return out;
}

double rms(const std::vector<float>& a, const std::vector<float>& b) {
  double s = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    s += (double(a[i]) - double(b[i])) * (double(a[i]) - double(b[i]));
  return std::sqrt(s / double(a.size()));
}

/// The formula of the code, in f64, with scale and minimum rounded to S first.
template <Scalar S>
double formula(const std::vector<float>& group, float x, int bits) {
  const auto [lo, hi] = std::minmax_element(group.begin(), group.end());
  const int top = (1 << bits) - 1;
  const double s = double(to_f32(from_f32<S>((*hi - *lo) / float(top)))), m = double(to_f32(from_f32<S>(*lo)));
  if (s == 0) return m;
  return std::clamp(std::nearbyint(double((x - float(m)) / float(s))), 0.0, double(top)) * s + m;
}

template <Scalar S>
void check_formula(int bits) {
  Numbers numbers(static_cast<std::uint64_t>(bits));
  const int d = 40;
  const auto x = numbers.rows(48, d);
  const auto by_token = there_and_back(IntToken<S>{bits, 16}, x, d);      // groups of 16, 16 and 8
  const auto by_channel = there_and_back(IntChannel<S>{bits, 20}, x, d);  // 20, 20 and 8 rows
  double worst = 0;
  for (int t = 0; t < 48; ++t)
    for (int c = 0; c < d; ++c) {
      const std::size_t e = std::size_t(t * d + c);
      std::vector<float> tokens, channels;
      for (int j = c / 16 * 16; j < std::min(d, c / 16 * 16 + 16); ++j)
        channels.push_back(x[std::size_t(t * d + j)]);
      for (int j = t / 20 * 20; j < std::min(48, t / 20 * 20 + 20); ++j)
        tokens.push_back(x[std::size_t(j * d + c)]);
      worst = std::max(worst, std::fabs(double(by_token[e]) - formula<S>(channels, x[e], bits)));
      worst = std::max(worst, std::fabs(double(by_channel[e]) - formula<S>(tokens, x[e], bits)));
    }
  CHECK(worst < 1e-6);
}

}  // namespace

TEST_CASE("Codes per token and per channel decode to the formula's values", "[storage][codec]") {
  for (const int bits : {1, 2, 3, 4, 5, 6, 7, 8}) {
    INFO(bits << " bits");
    check_formula<f16>(bits);
    check_formula<float>(bits);
  }
}

TEST_CASE("The bytes of the codecs are those that their layouts say", "[storage][codec]") {
  CHECK(IntToken<f16>{4, 32}.block_bytes(128) == 64 + 4 * 4);
  CHECK(IntToken<float>{4, 32}.block_bytes(128) == 64 + 4 * 8);
  CHECK(IntToken<f16>{3, 0}.block_bytes(20) == 8 + 4);
  CHECK(IntChannel<f16>{2, 32}.block_bytes(64) == 64 * (8 + 4));
  CHECK(WithOutliers<IntToken<f16>>{{4, 32}, 2}.block_bytes(128) == 64 + 16 + 8);
  CHECK(Fp8<E4M3>{}.block_bytes(64) == 64);
  CHECK(Plain<bf16>{}.block_bytes(64) == 128);
}

TEST_CASE("A constant group decodes to its value, and codes never leave their range", "[storage][codec]") {
  const std::vector<float> flat(64, 2.0f);
  CHECK(there_and_back(IntToken<f16>{2, 32}, flat, 32) == flat);
  CHECK(there_and_back(IntChannel<f16>{4, 2}, flat, 32) == flat);
  const float inf = std::numeric_limits<float>::infinity(), nan = std::nanf("");
  std::vector<float> wild = {1, 2, 1e30f, -1e30f, inf, -inf, nan, 0};
  for (const float x : there_and_back(IntToken<f16>{4, 8}, wild, 8)) CHECK(std::isfinite(x));
  for (const float x : there_and_back(IntChannel<f16>{4, 1}, wild, 8)) CHECK(std::isfinite(x));
}

TEST_CASE("Scales and minima beyond the range of their type are cut to its largest number",
          "[storage][codec]") {
  const float most = std::numeric_limits<float>::max();
  CHECK(Affine<f16>::stored(most) == 65504.0f);
  CHECK(Affine<bf16>::stored(most) == 0x1.fep127f);
  CHECK(Affine<bf16>::stored(-most) == -0x1.fep127f);
  CHECK(Affine<float>::stored(most) == most);
  const std::vector<float> wild = {most, -most, 0, 1};
  for (const float x : there_and_back(IntChannel<bf16>{8, 1}, wild, 4)) CHECK(std::isfinite(x));
}

TEST_CASE("The worked example of keys per channel has the codes, scales and minima of its source",
          "[storage][codec][KIVI]") {
  const float rows[4][16] = {{0, .25, .5, .75, 1, 1.25, 1.5, .75, -.75, -.5, 0, .75, .25, .5, -.25, 0},
                             {8, 9, 10, 11, 8.5, 9.5, 10.5, 9, 12, 9, 10.5, 11.5, 9.75, 10, 11, 12},
                             {-1, -1, -.5, .5, .25, 0, -.25, .125, .25, .125, .25, .375, .5, .625, .5, 0},
                             {2, 2, 2, 2, 2, 2, 2, 2, -2, 1, -2, 1, -2, 1, -2, 1}};
  const std::uint32_t words[4] = {0x9AE0BA90, 0xE5A368E4, 0x2E95AAD0, 0xCCCC0000};
  const float scales[2][4] = {{.5f, 1, .5f, 0}, {.5f, 1, 0.2083740234375f, 1}},
              minima[2][4] = {{0, 8, -1, 2}, {-.75f, 9, 0, -2}};
  const IntChannel<f16> codec{2, 8};
  for (int g = 0; g < 2; ++g) {
    std::vector<float> x;
    for (int t = 0; t < 8; ++t)
      for (int c = 0; c < 4; ++c) x.push_back(rows[c][g * 8 + t]);
    std::vector<std::byte> block(codec.block_bytes(4));
    codec.encode({}, x.data(), 8, 4, block.data());
    for (int c = 0; c < 4; ++c) {
      CHECK(unsigned(block[std::size_t(2 * c)]) == ((words[c] >> (16 * g)) & 255u));
      CHECK(unsigned(block[std::size_t(2 * c + 1)]) == ((words[c] >> (16 * g + 8)) & 255u));
      CHECK(codec.channel(block.data(), c, 4).scale == scales[g][c]);
      CHECK(codec.channel(block.data(), c, 4).minimum == minima[g][c]);
    }
  }
}

TEST_CASE("The worked example of values per token has the bytes of its source", "[storage][codec][KIVI]") {
  const IntToken<f16> codec{4, 4};
  const auto code = [&](std::vector<float> x) {
    std::vector<std::byte> b(codec.block_bytes(8));
    codec.encode({}, x.data(), 1, 8, b.data());
    std::vector<unsigned> out;
    for (int i = 0; i < 4; ++i) out.push_back(unsigned(b[std::size_t(i)]));
    return out;
  };
  CHECK(code({0, .5f, 1, 7.5f, -1, -1, -1, -1}) == std::vector<unsigned>{0x10, 0xF2, 0x00, 0x00});
  CHECK(code({-3, -2.25f, 0, 4.5f, .1875f, .25f, .34375f, .9375f}) ==
        std::vector<unsigned>{0x20, 0xF6, 0x10, 0xF3});
  CHECK(code({1, 2, 3, 4, 5, 6, 7, 8}) == std::vector<unsigned>{0x50, 0xFA, 0x50, 0xFA});
}

TEST_CASE("8-bit floating point rounds to nearest, ties to even, and cuts at its largest number",
          "[storage][codec][Fp8]") {
  const auto both = [](float x) { return std::pair<int, int>(E4M3::encode(x), E5M2::encode(x)); };
  CHECK(both(.3f) == std::pair<int, int>(0x2A, 0x35));
  CHECK(both(-3.3f) == std::pair<int, int>(0xC5, 0xC3));
  CHECK(both(17) == std::pair<int, int>(0x58, 0x4C));
  CHECK(both(500) == std::pair<int, int>(0x7E, 0x60));
  CHECK(both(.0009f) == std::pair<int, int>(0x00, 0x13));
  CHECK(E4M3::decode(0x7E) == 448);
  CHECK(E5M2::decode(0x7B) == 57344);
  CHECK(both(1e30f) == std::pair<int, int>(0x7E, 0x7B));
  CHECK(std::isnan(E4M3::decode(E4M3::encode(std::nanf("")))));
  CHECK(std::isnan(E5M2::decode(E5M2::encode(std::nanf("")))));
  // every number comes back; between two neighbours the nearer one wins, the even one on a tie
  const auto check = [](auto format, int largest) {
    using F = decltype(format);
    for (int c = 0; c < largest; ++c) {
      const float a = F::decode(std::uint8_t(c)), b = F::decode(std::uint8_t(c + 1)), mid = (a + b) / 2;
      REQUIRE(F::encode(a) == c);
      REQUIRE(F::encode(-a) == (c | 0x80));
      REQUIRE(F::encode(mid) == (c % 2 == 0 ? c : c + 1));
      REQUIRE(F::encode(std::nextafter(mid, 0.0f)) == c);
      REQUIRE(F::encode(std::nextafter(mid, 1e9f)) == c + 1);
    }
  };
  check(E4M3{}, 0x7E);
  check(E5M2{}, 0x7B);
}

TEST_CASE("A Hadamard matrix is its own inverse, keeps dot products, and tames outlier channels",
          "[storage][codec][Rotated]") {
  Numbers numbers(4);
  auto x = numbers.rows(2, 64);
  auto y = x;
  kernels::hadamard(y.data(), 2, 64);
  double before = 0, after = 0;
  for (int c = 0; c < 64; ++c) {
    before += double(x[std::size_t(c)]) * double(x[std::size_t(64 + c)]);
    after += double(y[std::size_t(c)]) * double(y[std::size_t(64 + c)]);
  }
  CHECK(std::fabs(before - after) < 1e-4);
  kernels::hadamard(y.data(), 1, 64);
  for (int c = 0; c < 64; ++c) CHECK(std::fabs(x[std::size_t(c)] - y[std::size_t(c)]) < 1e-5f);
  const float small[4] = {1, 2, 3, 4};
  float turned[4];
  std::copy_n(small, 4, turned);
  kernels::hadamard(turned, 1, 4);
  CHECK(turned[0] == 5);
  CHECK(turned[1] == -1);
  CHECK(turned[2] == -2);
  CHECK(turned[3] == 0);

  auto loud = numbers.rows(64, 64);
  for (std::size_t t = 0; t < 64; ++t) loud[t * 64 + 7] = 40.0f;
  const double plain = rms(loud, there_and_back(IntToken<f16>{4, 0}, loud, 64));
  CHECK(rms(loud, there_and_back(Rotated<IntToken<f16>>{{4, 0}}, loud, 64)) < 0.6 * plain);
  CHECK(rms(loud, there_and_back(WithOutliers<IntToken<f16>>{{4, 0}, 1}, loud, 64)) < 0.2 * plain);
  CHECK(Rotated<IntToken<f16>>{}.validate(48).error().code == Errc::bad_shape);
  CHECK(Rotated<IntToken<f16>>{{9, 32}}.validate(64).error().code == Errc::bad_option);
}

TEST_CASE("Outliers come back as f16 and lie outside the range of the rest",
          "[storage][codec][WithOutliers]") {
  std::vector<float> x(32, 1.0f);
  x[3] = 100.3f;
  x[30] = -77;
  const auto back = there_and_back(WithOutliers<IntToken<f16>>{{2, 0}, 2}, x, 32);
  for (std::size_t i = 0; i < 32; ++i) CHECK(back[i] == to_f32(to_f16(x[i])));
  const auto blocks = there_and_back(WithOutliers<IntChannel<f16>>{{8, 4}, 1}, x, 8);
  CHECK(blocks[3] == to_f32(to_f16(100.3f)));
  CHECK(WithOutliers<IntToken<f16>>{{2, 0}, 32}.validate(32).error().code == Errc::bad_option);
  CHECK(WithOutliers<IntToken<f16>>{{2, 0}, 0}.validate(32).error().code == Errc::bad_option);
}

TEST_CASE("A codec chosen at run time is the codec", "[storage][codec][AnyCodec]") {
  Numbers numbers(9);
  const auto x = numbers.rows(40, 32);
  const AnyCodec any = IntChannel<f16>{3, 16};
  CHECK(any.block_rows() == 16);
  CHECK(any.block_bytes(32) == IntChannel<f16>{3, 16}.block_bytes(32));
  CHECK(there_and_back(any, x, 32) == there_and_back(IntChannel<f16>{3, 16}, x, 32));
  CHECK(any.validate(32));
  CHECK(AnyCodec(IntToken<f16>{0, 1}).validate(32).error().code == Errc::bad_option);
}
