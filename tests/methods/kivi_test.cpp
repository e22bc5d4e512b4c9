// SPDX-License-Identifier: Apache-2.0
// KIVI by hand: windows, decoded rows, logits and outputs of small caches, as literal numbers. Its codes against the
// published code are in tests/golden, single blocks in tests/storage/codec.
#include <kvist/methods/kivi.hpp>

#include "support/catch.hpp"
#include "support/coded_rows.hpp"

using namespace kvist;
using namespace kvist::test;

namespace {

AnyStore store_of(const methods::KiviOptions& options, int dim_k, int dim_v) {
  auto stores = methods::Kivi::make(options).value()(Shape{1, 1, 1, dim_k, dim_v}, 0, 0);
  REQUIRE(stores);
  return std::move((*stores)[0]);
}

void close(const std::vector<float>& got, const std::vector<float>& want, double tolerance) {
  REQUIRE(got.size() == want.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    INFO("number " << i);
    CHECK(std::fabs(double(got[i]) - double(want[i])) <= tolerance);
  }
}

}  // namespace

TEST_CASE("Keys of a prompt of 18 tokens have the decoded numbers and logits of the worked example",
          "[methods][KIVI]") {
  // [channel][token]; 16 tokens are coded in two groups of 8, two stay exact
  const float k[4][18] = {{0, .25, .5, .75, 1, 1.25, 1.5, .75, -.75, -.5, 0, .75, .25, .5, -.25, 0, 1, 2},
                          {8, 9, 10, 11, 8.5, 9.5, 10.5, 9, 12, 9, 10.5, 11.5, 9.75, 10, 11, 12, 7, 7},
                          {-1, -1, -.5, .5, .25, 0, -.25, .125, .25, .125, .25, .375, .5, .625, .5, 0, -3, 3},
                          {2, 2, 2, 2, 2, 2, 2, 2, -2, 1, -2, 1, -2, 1, -2, 1, 0, 0}};
  std::vector<float> rows;
  for (int t = 0; t < 18; ++t)
    for (int c = 0; c < 4; ++c) rows.push_back(k[c][t]);
  AnyStore store = store_of({.bits = 2, .group = 8, .residual = 8}, 4, 4);
  store.append(rows.data(), rows.data(), 18);
  store.settle();
  std::vector<float> read(72);
  store.read(0, 18, read.data(), nullptr);
  std::vector<float> third, fourth;
  for (std::size_t t = 0; t < 18; ++t) third.push_back(read[t * 4 + 2]), fourth.push_back(read[t * 4 + 3]);
  const float s = .2083740234375f;  // f16 of .625 / 3
  CHECK(third ==
        std::vector<float>{-1, -1, -.5f, .5f, 0, 0, 0, 0, s, s, s, 2 * s, 2 * s, 3 * s, 2 * s, 0, -3, 3});
  CHECK(fourth == std::vector<float>{2, 2, 2, 2, 2, 2, 2, 2, -2, 1, -2, 1, -2, 1, -2, 1, 0, 0});

  const float q[4] = {1, -.5f, 2, .25f};
  std::vector<float> logits(18);
  AttendArgs args;
  args.q = q;
  args.logits = logits.data();
  args.logits_stride = 18;
  AttnBuffer buffer(1, 4);
  store.attend(args, buffer.state());
  close(logits,
        {-5.5f, -6, -5, -3, -2.5f, -3.5f, -3, -3, -6.83325f, -4.58325f, -5.33325f, -3.6665f, -4.4165f,
         -3.24976f, -5.4165f, -5.5f, -8.5f, 4.5f},
        1e-5);
}

TEST_CASE("Values of a prompt of four tokens and a decode step have the output of the worked example",
          "[methods][KIVI]") {
  // The window holds two values; keys are zeros, so that the bias alone makes the probabilities.
  BlockedStore<CodecSide<IntChannel<f16>>, CodecSide<IntToken<f16>>> store(
      CodecSide<IntChannel<f16>>({4, 2}, 8), CodecSide<IntToken<f16>>({4, 4}, 8), 2);
  const std::vector<float> keys(32, 0.0f);
  const std::vector<float> values{0,    .5f,    1,    7.5f,    -1,     -1, -1, -1, -3, -2.25f, 0,
                                  4.5f, .1875f, .25f, .34375f, .9375f, 1,  2,  3,  4,  5,      6,
                                  7,    8,      0,    0,       0,      1,  2,  2,  2,  3};
  const std::vector<float> v4(8, 9.0f);
  store.append(keys.data(), values.data(), 4);
  store.settle();
  CHECK(store.coded_values() == 2);
  store.append(keys.data(), v4.data(), 1);
  std::vector<float> read(40);
  store.read(0, 5, nullptr, read.data());
  const float s = .04998779296875f;  // f16 of .75 / 15
  CHECK(std::vector<float>(read.begin(), read.begin() + 16) ==
        std::vector<float>{0, .5f, 1, 7.5f, -1, -1, -1, -1, -3, -2, 0, 4.5f, .1875f, s + .1875f,
                           3 * s + .1875f, 15 * s + .1875f});
  CHECK(std::equal(values.begin() + 16, values.end(), read.begin() + 16));

  std::vector<float> bias, q(8, 1.0f), out(8);
  for (const double p : {.5, .25, .125, .0625, .0625}) bias.push_back(float(std::log(p)));
  AttendArgs args;
  args.q = q.data();
  args.bias = bias.data();
  AttnBuffer buffer(1, 8);
  store.attend(args, buffer.state());
  finish(buffer.state(), out.data());
  close(out, {-.0625f, .5625f, 1.4375f, 6, .859375f, .996872f, 1.146866f, 1.484329f}, 2e-6);

  store.settle();  // after the step the oldest value of the window is coded
  CHECK(store.coded_values() == 3);
  store.read(0, 5, nullptr, read.data());
  const float step = .199951171875f;
  for (int c = 0; c < 8; ++c) {
    INFO("channel " << c);
    CHECK(read[std::size_t(16 + c)] == float(c % 4 * 5) * step + (c < 4 ? 1.0f : 5.0f));
  }
  CHECK(std::equal(values.begin() + 24, values.end(), read.begin() + 24));
  CHECK(std::equal(v4.begin(), v4.end(), read.begin() + 32));
}

TEST_CASE("A prompt no longer than the window is exact", "[methods][KIVI]") {
  for (const int bits : {2, 3, 4}) {
    AnyStore store = store_of({.bits = bits, .group = 32, .residual = 64}, 32, 32);
    Numbers numbers(4);
    const auto k = numbers.rows(63, 32), v = numbers.rows(63, 32);
    store.append(k.data(), v.data(), 63);
    store.settle();
    std::vector<float> rk(k), rv(v);
    store.read(0, 63, rk.data(), rv.data());
    CHECK((rk == k));
    CHECK((rv == v));
  }
}

TEST_CASE("Every decoded number is within half a scale, and the least of a group is exact",
          "[methods][KIVI]") {
  for (const int bits : {2, 4, 8}) {
    AnyStore store = store_of({.bits = bits, .group = 32, .residual = 32}, 64, 64);
    Numbers numbers(6);
    const auto k = numbers.rows(320, 64), v = numbers.rows(320, 64);
    store.append(k.data(), v.data(), 320);
    store.settle();
    std::vector<float> rk(k), rv(v);
    store.read(0, 320, rk.data(), rv.data());
    const int top = (1 << bits) - 1;
    double worst = 0;  // over what rounding allows
    const auto group = [&](const std::vector<float>& x, const std::vector<float>& y, std::size_t at,
                           std::size_t stride) {
      float least = x[at], most = x[at];
      for (std::size_t i = 0; i < 32; ++i) {
        least = std::min(least, x[at + i * stride]);
        most = std::max(most, x[at + i * stride]);
      }
      const float stored = to_f32(to_f16(least));
      // half a scale, what rounding the scale to f16 adds up to over all codes, and the rounding of the minimum
      const double allowed =
          double(most - least) * (0.5 / top + 0x1p-11) + std::fabs(double(stored) - double(least)) + 1e-6;
      bool exact = false;
      for (std::size_t i = 0; i < 32; ++i) {
        worst = std::max(worst, std::fabs(double(x[at + i * stride]) - double(y[at + i * stride])) / allowed);
        exact = exact || y[at + i * stride] == stored;
      }
      CHECK(exact);
    };
    for (std::size_t c = 0; c < 64; ++c) {
      group(k, rk, c, 64);
      group(k, rk, 64 * 64 + c, 64);
    }
    for (std::size_t t = 0; t < 100; ++t) group(v, rv, t * 64, 1);
    INFO(bits << " bits: " << worst);
    CHECK(worst <= 1);
    CHECK(worst > 0.7);  // the bound is near
  }
}

TEST_CASE("A prompt in pieces is coded as one", "[methods][KIVI]") {
  Numbers numbers(8);
  const auto k = numbers.rows(300, 64), v = numbers.rows(300, 64);
  AnyStore whole = store_of({.bits = 4, .group = 32, .residual = 64}, 64, 64),
           pieces = store_of({.bits = 4, .group = 32, .residual = 64}, 64, 64);
  whole.append(k.data(), v.data(), 300);
  whole.settle();
  for (Index at = 0; at < 300;) {
    const Index n = std::min<Index>(37, 300 - at);
    pieces.append(k.data() + at * 64, v.data() + at * 64, n);
    pieces.settle();
    at += n;
  }
  std::vector<float> a(k), b(v), c(k), d(v);
  whole.read(0, 300, a.data(), b.data());
  pieces.read(0, 300, c.data(), d.data());
  CHECK((a == c));
  CHECK((b == d));
}
