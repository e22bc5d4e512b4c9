// SPDX-License-Identifier: Apache-2.0
#include "../../support/catch.hpp"
#include "../../support/coded_rows.hpp"

#include <kvist/storage/codec/ggml.hpp>

#include <string>

using namespace kvist;
using namespace kvist::test;

namespace {

std::vector<float> ramp() {
  std::vector<float> x;
  for (int i = 0; i < 32; ++i) x.push_back(i == 5 ? 2.5f : float(i - 16) / 8);
  return x;
}

template <class B>
std::string hex(const std::vector<float>& x) {
  std::uint8_t bytes[B::bytes];
  B::encode(x.data(), bytes);
  std::string s;
  for (const std::uint8_t b : bytes) {
    s += "0123456789ABCDEF"[b >> 4];
    s += "0123456789ABCDEF"[b & 15];
  }
  return s;
}

}  // namespace

TEST_CASE("A ramp with an outlier has the bytes of ggml's reference quantiser", "[storage][codec][ggml]") {
  const auto x = ramp();
  CHECK(hex<ggml::Q4_0>(x) == "00B58E8E7E7D6D606C5C5B4B4A4A3A392928");
  CHECK(hex<ggml::Q4_1>(x) == "CD3400C070708181829F93A3A3A4B4B5C5C5D6D6");
  CHECK(hex<ggml::Q5_0>(x) ==
        "00B1DFFF01000DFCEBEADAC0B8A7A69685746362"
        "5241");
  CHECK(hex<ggml::Q5_1>(x) ==
        "A53000C02000FCFFE0F10203132F354657686979"
        "8A9BACBD");
  CHECK(hex<ggml::Iq4Nl>(x) == "F1A48F7E7E6E6D505D4C4C3B3B3B2A2A2918");
  std::uint8_t q8[34];
  ggml::Q8_0::encode(x.data(), q8);
  CHECK(q8[0] == 0x0A);
  CHECK(q8[1] == 0x25);
  const int codes[32] = {-102, -95, -89, -83, -76, 127, -64, -57, -51, -44, -38, -32, -25, -19, -13, -6,
                         0,    6,   13,  19,  25,  32,  38,  44,  51,  57,  64,  70,  76,  83,  89,  95};
  for (int j = 0; j < 32; ++j) CHECK(int(std::int8_t(q8[2 + j])) == codes[j]);
}

TEST_CASE("Errors of the blocks stay within their steps; zeros stay zeros", "[storage][codec][ggml]") {
  Numbers numbers(1);
  const auto check = [&](auto block, float steps) {
    using B = decltype(block);
    for (int r = 0; r < 200; ++r) {
      const auto x = numbers.rows(1, 32);
      std::uint8_t bytes[B::bytes];
      float back[32];
      B::encode(x.data(), bytes);
      B::decode(bytes, back);
      const float d = std::fabs(ggml::detail::half_at(bytes));
      for (int j = 0; j < 32; ++j) REQUIRE(std::fabs(back[j] - x[std::size_t(j)]) <= steps * d + 0.01f);
    }
    const std::vector<float> zeros(32, 0.0f);
    std::uint8_t bytes[B::bytes];
    float back[32];
    B::encode(zeros.data(), bytes);
    B::decode(bytes, back);
    for (const float v : back) CHECK(v == 0);
  };
  check(ggml::Q8_0{}, 0.5f);
  check(ggml::Q4_0{}, 1.0f);
  check(ggml::Q4_1{}, 0.5f);
  check(ggml::Q5_0{}, 1.0f);
  check(ggml::Q5_1{}, 0.5f);
  check(ggml::Iq4Nl{}, 18.0f);
}

TEST_CASE("Nearest entries of the non-linear table: ties go up, ends are cut", "[storage][codec][ggml]") {
  for (int i = 0; i < 16; ++i) CHECK(ggml::Iq4Nl::nearest(float(ggml::Iq4Nl::table[i])) == i);
  CHECK(ggml::Iq4Nl::nearest(-500) == 0);
  CHECK(ggml::Iq4Nl::nearest(500) == 15);
  CHECK(ggml::Iq4Nl::nearest(7.0f) == 9);  // between 1 and 13
  CHECK(ggml::Iq4Nl::nearest(6.99f) == 8);
}

TEST_CASE("Rows that no whole block fits are padded with zeros", "[storage][codec][ggml]") {
  Numbers numbers(2);
  const ggml::Blocks<ggml::Q8_0> codec;
  CHECK(codec.block_bytes(40) == 68);
  const auto x = numbers.rows(1, 40);
  std::vector<std::byte> bytes(68);
  std::vector<float> back(40);
  codec.encode({}, x.data(), 1, 40, bytes.data());
  codec.decode({}, bytes.data(), 1, 40, back.data());
  for (std::size_t c = 0; c < 40; ++c) CHECK(std::fabs(back[c] - x[c]) < 0.05f);
}
