// SPDX-License-Identifier: Apache-2.0
#include <kvist/io/npy.hpp>

#include <support/assets.hpp>
#include <support/catch.hpp>

#include <cstdio>
#include <string>

using kvist::Npy;
using kvist::NpyType;

namespace {

std::string file(std::string_view header, std::string_view data, int version = 1) {
  std::string out = "\x93NUMPY";
  out.push_back(static_cast<char>(version));
  out.push_back('\0');
  const std::size_t n = header.size();
  for (int i = 0; i < (version == 1 ? 2 : 4); ++i) out.push_back(static_cast<char>((n >> (8 * i)) & 0xff));
  return out.append(header).append(data);
}

std::string header(std::string_view descr, std::string_view shape) {
  return std::string("{'descr': '").append(descr).append("', 'fortran_order': False, 'shape': ").append(shape) +
         ", }\n";
}

}  // namespace

TEST_CASE("Npy reads a file that NumPy wrote", "[io][Npy]") {
  // numpy.save of arange(6, dtype='<f4').reshape(2, 3)
  const std::string text =
      "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }" + std::string(58, ' ') + "\n";
  REQUIRE(text.size() == 0x76);
  const std::string data("\0\0\0\0\0\0\x80?\0\0\0@\0\0@@\0\0\x80@\0\0\xa0@", 24);
  const auto npy = Npy::parse(file(text, data));
  REQUIRE(npy.has_value());
  CHECK(npy->shape() == std::vector<std::size_t>{2, 3});
  CHECK(npy->rank() == 2);
  CHECK(npy->dim(1) == 3);
  CHECK(npy->dim(2) == 1);
  CHECK(npy->type() == NpyType::f32);
  CHECK(npy->as_f32() == std::vector<float>{0, 1, 2, 3, 4, 5});
  CHECK(npy->as_f64() == std::vector<double>{0, 1, 2, 3, 4, 5});
  CHECK(npy->as_i32().error().code == kvist::Errc::unsupported);
  // and what we write of it is the same file
  CHECK(*kvist::npy_bytes<float>({2, 3}, npy->as_f32()) == file(text, data));
}

TEST_CASE("Npy reads each element type, both versions and single values", "[io][Npy]") {
  CHECK(Npy::parse(file(header("<f2", "(2,)"), std::string("\x00\x3c\x00\xc0", 4)))->as_f32() ==
        std::vector<float>{1, -2});
  CHECK(Npy::parse(file(header("<f8", "(1,)"), std::string("\0\0\0\0\0\0\xe0\x3f", 8)))->as_f32() ==
        std::vector<float>{0.5f});
  CHECK(Npy::parse(file(header("<i4", "(1,)"), "\xfe\xff\xff\xff", 2))->as_i32().value() ==
        std::vector<int>{-2});
  CHECK(Npy::parse(file(header("|u1", "(3,)"), "\xff\x01\x02"))->as_i32().value() ==
        std::vector<int>{255, 1, 2});
  CHECK(Npy::parse(file(header("|b1", "(2,)"), std::string("\1\0", 2)))->as_i32().value() ==
        std::vector<int>{1, 0});
  CHECK(Npy::parse(file(header("<i8", "(1,)"), std::string("\x07\0\0\0\0\0\0\0", 8)))->as_i32().value() ==
        std::vector<int>{7});
  CHECK(Npy::parse(file(header("<i8", "(1,)"), std::string("\0\0\0\0\1\0\0\0", 8)))->as_i32().error().code ==
        kvist::Errc::bad_value);
  const auto single = Npy::parse(file(header("<i4", "()"), std::string("\x05\0\0\0", 4)));
  CHECK(single->rank() == 0);
  CHECK(single->as_f32() == std::vector<float>{5});
  const auto none = Npy::parse(file(header("<f4", "(0, 4)"), ""));
  CHECK(none->size() == 0);
  CHECK(none->as_f32().empty());
  CHECK(Npy::parse(file("{\"shape\":(1,),\"fortran_order\":True,\"descr\":\"|u1\"}", "x"))->as_f32() ==
        std::vector<float>{120});
}

TEST_CASE("Npy refuses altered files and kinds that it does not read", "[io][Npy]") {
  const std::string four(4, '\0');
  const auto code = [](std::string bytes) { return Npy::parse(std::move(bytes)).error().code; };
  for (const char* shape : {"(2,)", "(0,)", "()extra", "(1", "(-1,)", "(a,)", "(,)", "1", "(1 1)",
                            "(18446744073709551616,)", "(4294967296, 4294967296)", "(18446744073709551615,)",
                            "(1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1)"}) {
    INFO(shape);
    CHECK(code(file(header("<f4", shape), four)) == kvist::Errc::bad_file);
  }
  CHECK(code(file(header("<f4", "(1,)"), four + "x")) == kvist::Errc::bad_file);
  CHECK(code(file(header(">f4", "(1,)"), four)) == kvist::Errc::unsupported);
  CHECK(code(file(header("<c8", "(1,)"), four + four)) == kvist::Errc::unsupported);
  CHECK(code(file("{'descr': '<f4', 'fortran_order': True, 'shape': (1, 1), }", four)) ==
        kvist::Errc::unsupported);
  CHECK(code(file("{'descr': '<f4', 'fortran_order': False, }", four)) == kvist::Errc::bad_file);
  CHECK(code(file("{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (1,)}", four)) ==
        kvist::Errc::bad_file);
  CHECK(code(file("{'other': '<f4', 'fortran_order': False, 'shape': (1,)}", four)) == kvist::Errc::bad_file);
  CHECK(code(file(header("<f4", "(1,)"), four, 3)) == kvist::Errc::unsupported);
  const std::string good = file(header("<f4", "(2, 1)"), four + four);
  REQUIRE(Npy::parse(good).has_value());
  for (std::size_t n = 0; n < good.size(); ++n) CHECK_FALSE(Npy::parse(good.substr(0, n)).has_value());
}

TEST_CASE("Npy files are written and read back the same", "[io][Npy]") {
  const std::string path = "kvist_npy_test.tmp";
  const std::vector<float> floats{1.5f, -2, 0, 4e-20f, 5, 6};
  REQUIRE(kvist::save_npy(path, {3, 1, 2}, floats).has_value());
  CHECK(Npy::load(path)->as_f32() == floats);
  CHECK(Npy::load(path)->shape() == std::vector<std::size_t>{3, 1, 2});
  const std::vector<std::int32_t> ints{7, -8};
  REQUIRE(kvist::save_npy(path, {2}, ints).has_value());
  CHECK(Npy::load(path)->as_i32().value() == ints);
  REQUIRE(kvist::save_npy(path, {0, 2}, std::vector<float>()).has_value());
  CHECK(Npy::load(path)->size() == 0);
  std::remove(path.c_str());
  CHECK(Npy::load(path).error().code == kvist::Errc::not_found);
  CHECK(kvist::save_npy(path, {2, 2}, floats).error().code == kvist::Errc::bad_shape);
}

TEST_CASE("Npy reads the reference arrays of the real model", "[io][Npy][golden]") {
  const auto golden = kvist::test::golden_path();
  if (!golden) KVIST_SKIP("reference values");
  const auto logits = Npy::load(*golden + "/model/prompts/passkey/logits_last.npy");
  REQUIRE(logits.has_value());
  CHECK(logits->size() == 49152);
  const auto kept = Npy::load(*golden + "/model/presses/passkey/kept.npy");
  REQUIRE(kept.has_value());
  CHECK(kept->type() == NpyType::u8);
  CHECK(kept->rank() == 4);
  CHECK(kept->dim(1) == 30);
  CHECK(kept->dim(2) == 3);
}
