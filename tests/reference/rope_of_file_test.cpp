// SPDX-License-Identifier: Apache-2.0
#include <kvist/reference/rope_of_file.hpp>

#include <cmath>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/gguf_writer.hpp"

using namespace kvist;
using kvist::test::GgufWriter;

namespace {

Result<RopeTable> table_of(const GgufWriter& file, int key_length = 64, std::vector<float> factors = {},
                           std::string* detail = nullptr) {
  const std::string bytes = file.bytes();
  const auto gguf = Gguf::parse(std::as_bytes(std::span(bytes.data(), bytes.size())));
  REQUIRE(gguf);
  return rope_of_file(*gguf, key_length, 4096, factors, detail);
}

}  // namespace

TEST_CASE("A file that says nothing turns pair f by 10000^(-2f/d)", "[reference][rope]") {
  const auto t = table_of(GgufWriter());
  REQUIRE(t);
  CHECK(t->rotary_dims() == 64);
  CHECK(t->pairs == RopePairs::neighbours);
  CHECK(t->scale == 1.0f);
  CHECK(t->frequency[0] == 1.0);
  CHECK(t->frequency[8] == Catch::Approx(0.1));
  CHECK(t->frequency[16] == Catch::Approx(0.01));
}

TEST_CASE("Linear scaling divides every frequency, whether the file names it or only gives the factor",
          "[reference][rope]") {
  const auto named =
      table_of(GgufWriter().string("llama.rope.scaling.type", "linear").f32("llama.rope.scaling.factor", 4));
  const auto old = table_of(GgufWriter().f32("llama.rope.scale_linear", 4));
  REQUIRE(named);
  REQUIRE(old);
  CHECK(named->frequency[0] == 0.25);
  CHECK(named->frequency[16] == Catch::Approx(0.0025));
  CHECK(named->frequency == old->frequency);
  const auto none =
      table_of(GgufWriter().string("llama.rope.scaling.type", "none").f32("llama.rope.scaling.factor", 4));
  REQUIRE(none);
  CHECK(none->frequency[0] == 1.0);
}

TEST_CASE("YaRN keeps fast pairs, divides slow ones and ramps between, by the formulas of its paper",
          "[reference][rope]") {
  // D = 64, base 10000, L = 2048, factor 8: pair(b) = 64 ln(2048 / (2 pi b)) / (2 ln 10000)
  //   pair(32) = 8.06, rounded down to 8; pair(1) = 20.10, rounded up to 21; the ramp runs from 8 to 21.
  const auto t = table_of(GgufWriter()
                              .string("llama.rope.scaling.type", "yarn")
                              .f32("llama.rope.scaling.factor", 8)
                              .u32("llama.rope.scaling.original_context_length", 2048));
  REQUIRE(t);
  const auto plain = [](int f) { return std::pow(10000.0, -f / 32.0); };
  for (const int f : {0, 5, 8}) CHECK(t->frequency[std::size_t(f)] == Catch::Approx(plain(f)));
  for (const int f : {21, 25, 31}) CHECK(t->frequency[std::size_t(f)] == Catch::Approx(plain(f) / 8));
  const double share = 1 - (15.0 - 8) / 13;  // of the unscaled frequency, at pair 15
  CHECK(t->frequency[15] == Catch::Approx(plain(15) * ((1 - share) / 8 + share)));
  CHECK(t->scale == Catch::Approx(1 + 0.1 * std::log(8.0)));
}

TEST_CASE("Frequency factors divide the frequencies of their pairs", "[reference][rope]") {
  std::vector<float> factors(32, 1.0f);
  factors[31] = 8;
  factors[20] = 2.5f;
  const auto t = table_of(GgufWriter(), 64, factors);
  REQUIRE(t);
  CHECK(t->frequency[0] == 1.0);
  CHECK(t->frequency[20] == Catch::Approx(std::pow(10000.0, -20 / 32.0) / 2.5));
  CHECK(t->frequency[31] == Catch::Approx(std::pow(10000.0, -31 / 32.0) / 8));
  CHECK_FALSE(table_of(GgufWriter(), 64, {1, 2, 3}));
}

TEST_CASE("Rotations that cannot be met are refused by name", "[reference][rope]") {
  std::string detail;
  const auto unknown = table_of(GgufWriter().string("llama.rope.scaling.type", "dynamic"), 64, {}, &detail);
  REQUIRE_FALSE(unknown);
  CHECK(unknown.error().code == Errc::unsupported);
  CHECK(detail.find("dynamic") != std::string::npos);
  for (const GgufWriter& bad :
       {GgufWriter().u32("llama.rope.dimension_count", 66), GgufWriter().u32("llama.rope.dimension_count", 7),
        GgufWriter().u32("llama.rope.dimension_count", 0), GgufWriter().f32("llama.rope.freq_base", 0),
        GgufWriter().f32("llama.rope.scaling.factor", 0), GgufWriter().f32("llama.rope.scaling.factor", NAN),
        GgufWriter().string("llama.rope.scaling.type", "yarn").f32("llama.rope.scaling.yarn_beta_fast", 0)}) {
    const auto refused = table_of(bad);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == Errc::bad_file);
  }
}
