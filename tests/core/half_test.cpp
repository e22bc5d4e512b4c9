// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/half.hpp>
#include <support/catch.hpp>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

using kvist::bf16;
using kvist::f16;

namespace {

// The formats by their definition, in f64: sign * 2^(exponent - bias) * 1.fraction, or 2^(1 - bias) * 0.fraction.
double value_of(std::uint32_t bits, int exponent_bits, int fraction_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1, top = (1 << exponent_bits) - 1;
  const double sign = (bits >> (exponent_bits + fraction_bits)) & 1u ? -1.0 : 1.0;
  const int exponent = int(bits >> fraction_bits) & top;
  const double fraction = double(bits & ((1u << fraction_bits) - 1)) / double(1u << fraction_bits);
  if (exponent == top) {
    return fraction == 0 ? sign * std::numeric_limits<double>::infinity()
                         : std::numeric_limits<double>::quiet_NaN();
  }
  if (exponent == 0) return sign * std::ldexp(fraction, 1 - bias);
  return sign * std::ldexp(1 + fraction, exponent - bias);
}

double value_of(f16 x) { return value_of(x.bits, 5, 10); }
double value_of(bf16 x) { return value_of(x.bits, 8, 7); }

// Nearest value, ties to the even pattern, by looking at the two neighbours: `below` and the pattern after it, both
// of one sign, with |below| <= |x|. What lies half a step above the largest finite value rounds to infinity.
template <class Half>
Half nearest(double x, Half below, double after_largest) {
  const Half above{std::uint16_t(below.bits + 1)};
  const double low = std::fabs(value_of(below));
  double high = std::fabs(value_of(above));
  if (std::isinf(high)) high = after_largest;
  const double to_low = std::fabs(x) - low, to_high = high - std::fabs(x);
  if (to_low < to_high) return below;
  if (to_high < to_low) return above;
  return below.bits % 2 == 0 ? below : above;
}

constexpr float infinity = std::numeric_limits<float>::infinity();

}  // namespace

TEST_CASE("Every f16 has the value that its definition gives it", "[core][half]") {
  int wrong = 0;
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const f16 x{std::uint16_t(bits)};
    const float got = kvist::to_f32(x);
    const double want = value_of(x);
    const bool same =
        std::isnan(want) ? std::isnan(got) : double(got) == want && std::signbit(got) == std::signbit(want);
    if (!same) ++wrong;
  }
  CHECK(wrong == 0);
}

TEST_CASE("Every bf16 has the value that its definition gives it", "[core][half]") {
  int wrong = 0;
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const bf16 x{std::uint16_t(bits)};
    const float got = kvist::to_f32(x);
    const double want = value_of(x);
    const bool same =
        std::isnan(want) ? std::isnan(got) : double(got) == want && std::signbit(got) == std::signbit(want);
    if (!same) ++wrong;
  }
  CHECK(wrong == 0);
}

TEST_CASE("Every half survives the way to f32 and back", "[core][half]") {
  int wrong_f16 = 0, wrong_bf16 = 0;
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const f16 h{std::uint16_t(bits)};
    const f16 h_back = kvist::to_f16(kvist::to_f32(h));
    const bf16 b{std::uint16_t(bits)};
    const bf16 b_back = kvist::to_bf16(kvist::to_f32(b));
    // A NaN becomes quiet and keeps its sign and payload.
    const bool h_nan = std::isnan(value_of(h)), b_nan = std::isnan(value_of(b));
    if (h_back.bits != (h_nan ? h.bits | 0x200u : h.bits)) ++wrong_f16;
    if (b_back.bits != (b_nan ? b.bits | 0x40u : b.bits)) ++wrong_bf16;
  }
  CHECK(wrong_f16 == 0);
  CHECK(wrong_bf16 == 0);
}

TEST_CASE("Values around the middle between two halves round to the nearest, ties to even", "[core][half]") {
  // For each pair of neighbours: the exact middle (which f32 holds), and one f32 step to both sides of it.
  int wrong_f16 = 0, wrong_bf16 = 0;
  for (std::uint32_t sign = 0; sign <= 0x8000; sign += 0x8000) {
    for (std::uint32_t bits = 0; bits < 0x7c00; ++bits) {
      const f16 below{std::uint16_t(sign | bits)}, above{std::uint16_t(sign | (bits + 1))};
      const double high = bits + 1 == 0x7c00 ? std::copysign(65536.0, sign ? -1.0 : 1.0) : value_of(above);
      const float middle = float((value_of(below) + high) / 2);
      for (const float x : {middle, std::nextafter(middle, infinity), std::nextafter(middle, -infinity)}) {
        if (kvist::to_f16(x) != nearest(x, below, 65536.0)) ++wrong_f16;
      }
    }
    for (std::uint32_t bits = 0; bits < 0x7f80; ++bits) {
      const bf16 below{std::uint16_t(sign | bits)};
      const std::uint32_t middle_bits = ((sign | bits) << 16) | 0x8000u;
      for (const std::uint32_t x : {middle_bits, middle_bits - 1, middle_bits + 1}) {
        const float value = std::bit_cast<float>(x);
        if (kvist::to_bf16(value) != nearest(value, below, 0x1p128)) ++wrong_bf16;
      }
    }
  }
  CHECK(wrong_f16 == 0);
  CHECK(wrong_bf16 == 0);
}

TEST_CASE("The edges of f16 are where IEEE 754 puts them", "[core][half]") {
  CHECK(kvist::to_f16(0.0f).bits == 0x0000);
  CHECK(kvist::to_f16(-0.0f).bits == 0x8000);
  CHECK(kvist::to_f16(1.0f).bits == 0x3c00);
  CHECK(kvist::to_f16(65504.0f).bits == 0x7bff);
  CHECK(kvist::to_f16(65519.996f).bits == 0x7bff);
  CHECK(kvist::to_f16(65520.0f).bits == 0x7c00);
  CHECK(kvist::to_f16(-infinity).bits == 0xfc00);
  CHECK(kvist::to_f16(0x1p-14f).bits == 0x0400);
  CHECK(kvist::to_f16(0x1p-24f).bits == 0x0001);
  CHECK(kvist::to_f16(0x1p-25f).bits == 0x0000);          // a tie: zero is even
  CHECK(kvist::to_f16(0x1.000002p-25f).bits == 0x0001);   // just above it
  CHECK(kvist::to_f16(0x1.8p-24f).bits == 0x0002);        // a tie: two is even
  CHECK(kvist::to_f16(0x1p-149f).bits == 0x0000);         // the smallest f32
  CHECK(kvist::to_f16(0x1.ffcp-15f).bits == 0x03ff + 1);  // rounds up from subnormal to the smallest normal
  CHECK(std::isnan(kvist::to_f32(kvist::to_f16(std::numeric_limits<float>::quiet_NaN()))));
  CHECK(std::isnan(kvist::to_f32(kvist::to_f16(std::bit_cast<float>(0x7f800001u)))));  // payload in the low bits only
}

TEST_CASE("The edges of bf16 are those of f32, cut", "[core][half]") {
  CHECK(kvist::to_bf16(1.0f).bits == 0x3f80);
  CHECK(kvist::to_bf16(-2.0f).bits == 0xc000);
  CHECK(kvist::to_bf16(std::numeric_limits<float>::max()).bits ==
        0x7f80);  // nearer to infinity's place than to 0x7f7f
  CHECK(kvist::to_bf16(0x1.fep127f).bits == 0x7f7f);
  CHECK(kvist::to_bf16(0x1p-149f).bits == 0x0000);
  CHECK(kvist::to_bf16(0x1p-133f).bits == 0x0001);
  CHECK(kvist::to_bf16(infinity).bits == 0x7f80);
  CHECK(std::isnan(kvist::to_f32(kvist::to_bf16(std::bit_cast<float>(0x7f800001u)))));
  CHECK(std::isnan(kvist::to_f32(kvist::to_bf16(std::bit_cast<float>(0xffffffffu)))));
}

TEST_CASE("from_f32 gives the nearest value of each element type, at compile time too", "[core][half]") {
  STATIC_REQUIRE(kvist::from_f32<f16>(1.5f) == f16{0x3e00});
  STATIC_REQUIRE(kvist::from_f32<bf16>(1.5f) == bf16{0x3fc0});
  STATIC_REQUIRE(kvist::from_f32<float>(0.1f) == 0.1f);
  STATIC_REQUIRE(kvist::to_f32(f16{0x3555}) == 0x1.554p-2f);
}
