// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/random.hpp>
#include <kvist/io/json.hpp>
#include <kvist/io/npy.hpp>
#include <kvist/reference/dequantize.hpp>

#include <support/assets.hpp>
#include <support/catch.hpp>
#include <support/gguf_writer.hpp>

#include <bit>
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

using kvist::dequantize;
using kvist::Errc;
using kvist::TensorType;
using kvist::test::bytes_of;

namespace {

struct BlockVector {
  TensorType type;
  std::string hex;
  std::vector<std::pair<std::size_t, float>> values;  // element, value
  double sum, sum_of_squares;                         // over all elements
};

// One block of random bytes for each type. The values come from a decoder written from ggml's block layouts in
// Python, which equals the decoder of the Python package gguf bit for bit on 200 random blocks of each type.
const std::vector<BlockVector>& block_vectors() {
  static const std::vector<BlockVector> all{
      {TensorType::q4_0,
       "02295f916c635d92060e5494c2b321868a4c",
       {{0, 0.27386474609375f},
        {1, -0.27386474609375f},
        {15, 0.156494140625f},
        {16, -0.11737060546875f},
        {17, 0.03912353515625f},
        {31, -0.156494140625f}},
       -1.91705322265625,
       0.993392501026392},
      {TensorType::q4_1,
       "b027feafc9f9da101b3208a1ef5ecd611a57178f",
       {{0, 0.1453857421875f},
        {1, 0.1453857421875f},
        {15, 0.3255615234375f},
        {16, 0.2354736328125f},
        {17, 0.3255615234375f},
        {31, 0.1153564453125f}},
       3.180908203125,
       1.057410478591919},
      {TensorType::q5_0,
       "7b2d4b5bbd71e104a74749e3c6683bc4c4b188fc7ced",
       {{0, 0.08563232421875f},
        {1, 0.342529296875f},
        {15, -0.25689697265625f},
        {16, 1.1988525390625f},
        {17, -1.3701171875f},
        {31, -0.1712646484375f}},
       4.1103515625,
       16.27902679145336},
      {TensorType::q5_1,
       "502beeb71c36568360ba08f9f46a361851dd4a79af5d3a00",
       {{0, -0.49560546875f},
        {1, 0.07568359375f},
        {15, -0.49560546875f},
        {16, -0.15283203125f},
        {17, 1.046875f},
        {31, 0.41845703125f}},
       10.0771484375,
       13.953036308288574},
      {TensorType::q8_0,
       "492eb2f26f145b418b10830161536ec110ce7a11b710e01d0afc6a757c16363cf5f6",
       {{0, -7.6600341796875f},
        {1, -1.3748779296875f},
        {15, -4.9102783203125f},
        {16, 11.9810791015625f},
        {17, 1.66949462890625f},
        {31, -0.9820556640625f}},
       69.7259521484375,
       1605.4150053188205},
      {TensorType::q4_k,
       "341e4c15ef0509735c29a092f329d1b1fbff5d565333434bb735c312658257f464227db5eb7fa5034c21d9f2687415c9"
       "9b297c5b4721862be775b0fcfe2a7cffcc0ecd797e7e2c19e0cb26598713caeb0a53ecec0f5ec966ff65b24ac1dc5a49"
       "496c91d78541720ab049d79a0b8925388bbcaf7cbf4b1d6203110f9d6aa78def4fac0d858fe8b9f78cff5a8d915f6214",
       {{0, 3.09564208984375f},
        {1, 4.2344970703125f},
        {31, 2.526214599609375f},
        {32, 0.4013099670410156f},
        {63, 0.3104438781738281f},
        {64, 0.5583343505859375f},
        {127, 4.301948547363281f},
        {128, 3.049358367919922f},
        {159, 2.431468963623047f},
        {160, -0.00258636474609375f},
        {191, 0.16097259521484375f},
        {192, 0.008441925048828125f},
        {223, -0.033962249755859375f},
        {224, 0.7682456970214844f},
        {254, 0.5622825622558594f},
        {255, 0.047374725341796875f}},
       262.9028778076172,
       664.1947655256372},
      {TensorType::q5_k,
       "5220691b0f2ede60e69ddeb2864e01efc17c0d084cdc4deef23b6d6897c4ed0ab6036719744830a4c46d97991d3d42dc"
       "468fbbff4796ef0c6a0db2b07ee203bdd2566d9009f52f95349bf6914ee56884ede8bc0a78691346bd1967c9bfd61abc"
       "8fbf28b1760b65380577ac225473b82e99c3f3710bdc91594eb6e9bc9199c1fd98d389f88dd3e5672676f1a2dd5da124"
       "6d3231897c8b5a6667d97e316385fbc31ae01f00f334cc9f8d7236bba01bd0b7",
       {{0, 2.647083282470703f},
        {1, 1.7610816955566406f},
        {31, 0.3687934875488281f},
        {32, 1.447683334350586f},
        {63, 3.000295639038086f},
        {64, 3.1823158264160156f},
        {127, 4.679439544677734f},
        {128, 0.2530364990234375f},
        {159, 0.8099517822265625f},
        {160, 0.9329452514648438f},
        {191, 0.10601043701171875f},
        {192, 11.816879272460938f},
        {223, 9.336074829101562f},
        {224, 5.588352203369141f},
        {254, 3.234119415283203f},
        {255, 6.896259307861328f}},
       887.3156890869141,
       5347.396172149107},
      {TensorType::q6_k,
       "d9d723cb5942dd0460c6bb86ca786256590616cc121299f0079feb531ce96bd9d7664fd0c3d1145816e2a26ef7d8bad2"
       "57db9ecd526f38abaafd4184d7584731f02ff3f956819f881780819ddcf920837c79b1a419f19db9cc68d23bab4e0c11"
       "67f090ffdfd4a815aeec5e10e1137e245321b006d86f8e0a892e045b622235489b913bfb63b468997fe8d742c3f3a486"
       "3d08a311ee6fb4e78c2f1e52fd1ec57084c2bdc312b7f231d56a5dca01dce01f2922ed130d54b11da253896a2740e512"
       "ad0cc46d31970c3208a2532c7a7b50a85f0e",
       {{0, -0.8068859577178955f},
        {1, 0.2904789447784424f},
        {31, -0.10732555389404297f},
        {32, -0.16332149505615234f},
        {63, -1.313960313796997f},
        {64, -0.05716252326965332f},
        {127, -0.2527594566345215f},
        {128, -0.09954833984375f},
        {159, -0.03655290603637695f},
        {160, -0.2904789447784424f},
        {191, -0.41063690185546875f},
        {192, -0.8064970970153809f},
        {223, -0.7174479961395264f},
        {224, 0.18665313720703125f},
        {254, -0.6501750946044922f},
        {255, 0.9581527709960938f}},
       4.266579627990723,
       87.6412797088334},
  };
  return all;
}

std::string from_hex(const std::string& hex) {
  std::string out;
  for (std::size_t i = 0; i < hex.size(); i += 2)
    out.push_back(static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  return out;
}

constexpr TensorType block_types[] = {TensorType::q4_0, TensorType::q4_1, TensorType::q5_0, TensorType::q5_1,
                                      TensorType::q8_0, TensorType::q4_k, TensorType::q5_k, TensorType::q6_k};

/// Element i of a block in f64, element by element from the formulas of the layouts.
double naive(TensorType type, const std::string& block, int i) {
  const auto u = [&](int at) { return static_cast<int>(static_cast<unsigned char>(block[std::size_t(at)])); };
  const auto s = [&](int at) { return static_cast<int>(static_cast<signed char>(block[std::size_t(at)])); };
  const auto half = [&](int at) {
    return double(kvist::to_f32(kvist::f16{std::uint16_t(u(at) | (u(at + 1) << 8))}));
  };
  const auto nibble = [&](int first) { return i < 16 ? u(first + i) & 15 : u(first + i - 16) >> 4; };
  const auto bit = [&](int first) { return (u(first + i / 8) >> (i % 8)) & 1; };
  switch (type) {
    case TensorType::q4_0:
      return (nibble(2) - 8) * half(0);
    case TensorType::q4_1:
      return nibble(4) * half(0) + half(2);
    case TensorType::q5_0:
      return (nibble(6) + 16 * bit(2) - 16) * half(0);
    case TensorType::q5_1:
      return (nibble(8) + 16 * bit(4)) * half(0) + half(2);
    case TensorType::q8_0:
      return s(2 + i) * half(0);
    case TensorType::q4_k:
    case TensorType::q5_k: {
      const int j = i / 32, l = i % 32;
      const int scale = j < 4 ? u(4 + j) & 63 : (u(8 + j) & 15) + 16 * (u(j) >> 6);
      const int minimum = j < 4 ? u(8 + j) & 63 : (u(8 + j) >> 4) + 16 * (u(4 + j) >> 6);
      const int q = u((type == TensorType::q4_k ? 16 : 48) + 32 * (j / 2) + l);
      int n = j % 2 == 0 ? q & 15 : q >> 4;
      if (type == TensorType::q5_k) n += 16 * ((u(16 + l) >> j) & 1);
      return half(0) * scale * n - half(2) * minimum;
    }
    case TensorType::q6_k: {
      const int h = i / 128, k = i % 128 / 32, l = i % 32;
      const int low = u(64 * h + 32 * (k % 2) + l);
      const int n = (k < 2 ? low & 15 : low >> 4) + 16 * ((u(128 + 32 * h + l) >> (2 * k)) & 3);
      return half(208) * s(192 + 8 * h + 2 * k + l / 16) * (n - 32);
    }
    default:
      return 0;
  }
}

/// Random bytes, with halves between 2^-9 and 1 (m also negative) where the type has its f16 numbers.
std::string random_block(TensorType type, kvist::Random& random) {
  std::string out(kvist::block_bytes(type), '\0');
  for (char& c : out) c = static_cast<char>(random.below(256));
  const auto put = [&](std::size_t at, bool sign) {
    const auto bits =
        std::uint16_t((random.below(9) + 6) << 10 | random.below(1024) | (sign ? random.below(2) << 15 : 0));
    kvist::write_le(out.data() + at, bits);
  };
  put(type == TensorType::q6_k ? 208 : 0, true);
  if (type == TensorType::q4_1 || type == TensorType::q5_1 || type == TensorType::q4_k ||
      type == TensorType::q5_k)
    put(2, true);
  return out;
}

}  // namespace

TEST_CASE("dequantize meets the reference values of one block of each type", "[reference][dequantize]") {
  for (const BlockVector& v : block_vectors()) {
    INFO(kvist::type_name(v.type));
    const std::string block = from_hex(v.hex);
    REQUIRE(block.size() == kvist::block_bytes(v.type));
    std::vector<float> out(kvist::block_elements(v.type));
    REQUIRE(dequantize(v.type, bytes_of(block), out).has_value());
    for (const auto& [i, value] : v.values) {
      INFO(i);
      CHECK(out[i] == value);
    }
    double sum = 0, squares = 0;
    for (const float x : out) {
      sum += double(x);
      squares += double(x) * double(x);
    }
    CHECK(sum == v.sum);  // exact: few bits apart
    CHECK(squares == Approx(v.sum_of_squares).epsilon(1e-14));
  }
}

TEST_CASE("dequantize equals the formulas element by element, bit for bit", "[reference][dequantize]") {
  kvist::Random random(11);
  for (const TensorType type : block_types) {
    INFO(kvist::type_name(type));
    const std::size_t n = kvist::block_elements(type);
    std::string blocks;
    for (int b = 0; b < 50; ++b) blocks += random_block(type, random);
    std::vector<float> out(50 * n);
    REQUIRE(dequantize(type, bytes_of(blocks), out).has_value());
    for (std::size_t b = 0; b < 50; ++b) {
      const std::string block = blocks.substr(b * kvist::block_bytes(type), kvist::block_bytes(type));
      for (std::size_t i = 0; i < n; ++i)
        REQUIRE(out[b * n + i] == static_cast<float>(naive(type, block, int(i))));
    }
  }
}

TEST_CASE("dequantize converts every f16 and bf16 and keeps f32 bits", "[reference][dequantize]") {
  std::string all;
  for (int i = 0; i < 65536; ++i) all += kvist::test::GgufWriter::encoded(std::uint16_t(i));
  std::vector<float> out(65536);
  REQUIRE(dequantize(TensorType::f16, bytes_of(all), out).has_value());
  for (int i = 0; i < 65536; ++i)
    REQUIRE(std::bit_cast<std::uint32_t>(out[std::size_t(i)]) ==
            std::bit_cast<std::uint32_t>(kvist::to_f32(kvist::f16{std::uint16_t(i)})));
  REQUIRE(dequantize(TensorType::bf16, bytes_of(all), out).has_value());
  for (int i = 0; i < 65536; ++i)
    REQUIRE(std::bit_cast<std::uint32_t>(out[std::size_t(i)]) == std::uint32_t(i) << 16);
  const std::vector<float> values{1.5f, -0.0f, std::numeric_limits<float>::infinity(), 1e-42f};
  std::string stored;
  for (const float x : values) stored += kvist::test::GgufWriter::encoded(x);
  std::vector<float> back(4);
  REQUIRE(dequantize(TensorType::f32, bytes_of(stored), back).has_value());
  CHECK(back == values);
  CHECK(std::signbit(back[1]));
}

TEST_CASE("dequantize refuses sizes that do not fit and types that it does not know",
          "[reference][dequantize]") {
  const std::string bytes(68, '\0');
  std::vector<float> out(64);
  CHECK(dequantize(TensorType::q8_0, bytes_of(bytes), out).has_value());
  CHECK(dequantize(TensorType::q8_0, bytes_of(bytes).first(67), out).error().code == Errc::bad_shape);
  CHECK(dequantize(TensorType::q8_0, bytes_of(bytes).first(34), out).error().code == Errc::bad_shape);
  CHECK(dequantize(TensorType::q8_0, {}, {}).has_value());
  const auto mxfp4 = dequantize(TensorType(39), bytes_of(bytes), out).error();
  CHECK(mxfp4.code == Errc::unsupported);
  CHECK(std::string(mxfp4.what).find("MXFP4") != std::string::npos);
  CHECK(dequantize(TensorType(1000), bytes_of(bytes), out).error().code == Errc::unsupported);
  CHECK(kvist::type_name(TensorType::q6_k) == "Q6_K");
  CHECK(kvist::type_name(TensorType(1000)) == "unknown");
}

TEST_CASE("A tensor is decoded whole or row by row with the same values", "[reference][dequantize]") {
  kvist::Random random(5);
  std::string blocks;
  for (int b = 0; b < 12; ++b) blocks += random_block(TensorType::q4_1, random);
  const std::string file = kvist::test::GgufWriter().tensor("w", {64, 3, 2}, TensorType::q4_1, blocks).bytes();
  const auto g = kvist::Gguf::parse(bytes_of(file));
  REQUIRE(g.has_value());
  const auto w = g->tensor("w");
  const auto whole = dequantize(*w);
  REQUIRE(whole->size() == 384);
  std::vector<float> row(64);
  for (std::size_t r = 0; r < 6; ++r) {
    REQUIRE(kvist::dequantize_row(*w, r, row).has_value());
    CHECK(row == std::vector<float>(whole->begin() + std::ptrdiff_t(64 * r),
                                    whole->begin() + std::ptrdiff_t(64 * r + 64)));
  }
  CHECK(kvist::dequantize_row(*w, 6, row).error().code == Errc::bad_shape);
}

TEST_CASE("Blocks that another quantiser made decode to within its stated error",
          "[reference][dequantize][golden]") {
  const auto golden = kvist::test::golden_path();
  if (!golden) KVIST_SKIP("reference values");
  const std::string folder = *golden + "/official/";
  const auto text = kvist::read_file(folder + "gguf_blocks/manifest.json");
  REQUIRE(text.has_value());
  const auto manifest = kvist::Json::parse(*text);
  REQUIRE(manifest.has_value());
  int seen = 0;
  for (const kvist::Json& c : (*manifest)["cases"].elements()) {
    const std::string name(c["parameters"]["type"].as_string());
    TensorType type{1000};
    for (const TensorType known : block_types)
      if (kvist::type_name(known) == name) type = known;
    if (!kvist::is_decoded(type)) continue;  // MXFP4
    INFO(std::string(c["case"].as_string()));
    const auto packed =
        kvist::Npy::load(folder + "gguf_blocks/" + std::string(c["case"].as_string()) + ".npy");
    const auto keys = kvist::Npy::load(folder + std::string(c["inputs"][0].as_string()));
    REQUIRE(packed.has_value());
    REQUIRE(keys.has_value());
    const std::vector<std::int32_t> codes = packed->as_i32().value();
    const std::string bytes(codes.begin(), codes.end());
    const std::size_t first = std::size_t(c["parameters"]["first_token"].as_int());
    const std::size_t tokens = std::size_t(c["parameters"]["tokens"].as_int());
    const std::size_t heads = keys->dim(0), dim = keys->dim(2);
    std::vector<float> out(heads * tokens * dim);
    REQUIRE(dequantize(type, bytes_of(bytes), out).has_value());
    const std::vector<float> k = keys->as_f32();
    double squares = 0;
    for (std::size_t i = 0; i < out.size(); ++i) {
      const std::size_t head = i / (tokens * dim), rest = i % (tokens * dim);
      const double e = double(out[i]) - double(k[(head * keys->dim(1) + first) * dim + rest]);
      squares += e * e;
    }
    CHECK(std::sqrt(squares / double(out.size())) == Approx(c["rmse"].as_double()).epsilon(1e-6));
    ++seen;
  }
  CHECK(seen == 10);
}
