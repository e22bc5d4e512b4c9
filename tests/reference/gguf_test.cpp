// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/random.hpp>
#include <kvist/reference/gguf.hpp>

#include <support/assets.hpp>
#include <support/catch.hpp>
#include <support/gguf_writer.hpp>

#include <cstdio>
#include <string>

using kvist::Errc;
using kvist::Gguf;
using kvist::GgufType;
using kvist::TensorType;
using kvist::test::bytes_of;
using kvist::test::GgufWriter;

namespace {

GgufWriter small_writer() {
  GgufWriter w;
  w.string("general.architecture", "llama")
      .u32("a.u32", 7)
      .i32("a.i32", -7)
      .number("a.u8", GgufType::u8, std::uint8_t{200})
      .number("a.i8", GgufType::i8, std::int8_t{-100})
      .number("a.u16", GgufType::u16, std::uint16_t{60000})
      .number("a.i16", GgufType::i16, std::int16_t{-30000})
      .u64("a.u64", 0xffffffffffffffffu)
      .number("a.i64", GgufType::i64, std::int64_t{-5})
      .f32("a.f32", 1.5f)
      .f64("a.f64", 0.1)
      .boolean("a.bool", true)
      .strings("a.strings", {"one", "", "three"})
      .i32s("a.i32s", {1, -2, 3})
      .array("a.u8s", GgufType::u8, std::vector<std::uint8_t>{1, 255})
      .f32s("a.f32s", {0.5f, -1});
  const std::vector<float> values{1, 2, 3, 4, 5, 6};
  w.tensor_f32("m", {3, 2}, values).tensor("q", {32}, TensorType::q8_0, std::string(34, '\1'));
  w.tensor("later", {256}, TensorType(10), "not decoded");
  return w;
}

Errc code(const std::string& bytes) {
  const auto g = Gguf::parse(bytes_of(bytes));
  REQUIRE_FALSE(g.has_value());
  return g.error().code;
}

/// Reads everything that a file offers; the sanitizers watch.
void read_all(const Gguf& g) {
  for (const auto& e : g.entries()) {
    (void)g.u64(e.key);
    (void)g.i64(e.key);
    (void)g.f64(e.key);
    (void)g.boolean(e.key);
    (void)g.string(e.key);
    (void)g.strings(e.key);
    (void)g.integers(e.key);
    (void)g.numbers(e.key);
  }
  for (const auto& t : g.tensors()) {
    const auto found = g.tensor(t.name);
    if (found) REQUIRE(found->data.size() == found->rows() * found->row_bytes());
  }
}

}  // namespace

TEST_CASE("Gguf reads metadata of every type at any width", "[reference][Gguf]") {
  const std::string bytes = small_writer().bytes();
  const auto g = Gguf::parse(bytes_of(bytes));
  REQUIRE(g.has_value());
  CHECK(g->format_version() == 3);
  CHECK(g->string("general.architecture") == "llama");
  CHECK(g->u64("a.u32") == 7u);
  CHECK(g->i64("a.u32") == 7);
  CHECK(g->f64("a.u32") == 7.0);
  CHECK(g->i64("a.i32") == -7);
  CHECK(g->u64("a.i32") == std::nullopt);
  CHECK(g->u64("a.u8") == 200u);
  CHECK(g->i64("a.i8") == -100);
  CHECK(g->u64("a.u16") == 60000u);
  CHECK(g->i64("a.i16") == -30000);
  CHECK(g->u64("a.u64") == 0xffffffffffffffffu);
  CHECK(g->i64("a.u64") == std::nullopt);
  CHECK(g->i64("a.i64") == -5);
  CHECK(g->f64("a.f32") == 1.5);
  CHECK(g->f64("a.f64") == 0.1);
  CHECK(g->u64("a.f32") == std::nullopt);
  CHECK(g->boolean("a.bool") == true);
  CHECK(g->boolean("a.u8") == std::nullopt);
  CHECK(g->strings("a.strings") == std::vector<std::string_view>{"one", "", "three"});
  CHECK(g->integers("a.i32s") == std::vector<std::int64_t>{1, -2, 3});
  CHECK(g->integers("a.u8s") == std::vector<std::int64_t>{1, 255});
  CHECK(g->integers("a.f32s") == std::nullopt);
  CHECK(g->numbers("a.f32s") == std::vector<double>{0.5, -1});
  CHECK(g->numbers("a.strings") == std::nullopt);
  CHECK(g->string("a.strings") == std::nullopt);
  CHECK(g->string("absent") == std::nullopt);
  CHECK(g->find("a.strings")->count == 3);
  CHECK(g->entries().size() == 16);
}

TEST_CASE("Gguf reads the tensor directory and refuses undecoded types only when asked",
          "[reference][Gguf]") {
  for (const std::size_t alignment : {1u, 8u, 32u, 4096u}) {
    for (const std::uint32_t version : {2u, 3u}) {
      GgufWriter w = small_writer();
      w.alignment = alignment;
      w.version = version;
      const std::string bytes = w.bytes();
      const auto g = Gguf::parse(bytes_of(bytes));
      REQUIRE(g.has_value());
      CHECK(g->alignment() == alignment);
      REQUIRE(g->tensors().size() == 3);
      const auto m = g->tensor("m");
      REQUIRE(m.has_value());
      CHECK(m->rank == 2);
      CHECK(m->dims == std::array<std::size_t, 4>{3, 2, 1, 1});
      CHECK(m->elements() == 6);
      CHECK(m->rows() == 2);
      CHECK(m->row_bytes() == 12);
      CHECK(m->data.size() == 24);
      CHECK(m->offset % alignment == 0);
      CHECK(kvist::read_le<float>(m->row(1).data()) == 4.0f);
      CHECK(g->tensor("q")->data.size() == 34);
      CHECK(g->tensor("none").error().code == Errc::not_found);
      const auto later = g->tensor("later");
      REQUIRE_FALSE(later.has_value());
      CHECK(later.error().code == Errc::unsupported);
      CHECK(std::string(later.error().what).find("Q2_K") != std::string::npos);
      CHECK(later.error().got == 10);
    }
  }
}

TEST_CASE("Every proper prefix of a GGUF file is refused", "[reference][Gguf]") {
  GgufWriter w = small_writer();
  const std::vector<float> values(8, 1.0f);
  w.tensor_f32("last", {8}, values);
  const std::string bytes = w.bytes();
  REQUIRE(Gguf::parse(bytes_of(bytes)).has_value());
  for (std::size_t n = 0; n < bytes.size(); ++n) {
    const std::string prefix = bytes.substr(0, n);
    INFO(n);
    REQUIRE(code(prefix) == Errc::bad_file);
  }
}

TEST_CASE("A GGUF file with random bytes flipped is read or refused, never a crash", "[reference][Gguf]") {
  const std::string good = small_writer().bytes();
  kvist::Random random(3);
  int refused = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string bytes = good;
    for (std::uint64_t flips = 1 + random.below(4); flips > 0; --flips)
      bytes[random.below(bytes.size())] = static_cast<char>(random.below(256));
    const auto g = Gguf::parse(bytes_of(bytes));
    if (g) read_all(*g);
    else ++refused;
  }
  CHECK(refused > 1000);
}

TEST_CASE("Gguf refuses sizes that overflow or exceed the file before it allocates", "[reference][Gguf]") {
  const std::string huge = GgufWriter::encoded(~std::uint64_t{0});
  const std::string head = "GGUF" + GgufWriter::encoded(std::uint32_t{3});
  const std::string none = GgufWriter::encoded(std::uint64_t{0}), one = GgufWriter::encoded(std::uint64_t{1});
  CHECK(code(head + huge + none) == Errc::bad_file);
  CHECK(code(head + none + huge) == Errc::bad_file);
  CHECK(code(head + none + one + huge + std::string(100, 'k')) == Errc::bad_file);
  for (const std::uint64_t count :
       {~std::uint64_t{0}, std::uint64_t{1} << 61, std::uint64_t{1} << 62, std::uint64_t{101}}) {
    for (const GgufType type : {GgufType::u8, GgufType::u32, GgufType::f64, GgufType::string}) {
      const std::string array =
          GgufWriter::encoded(static_cast<std::uint32_t>(type)) + GgufWriter::encoded(count);
      CHECK(code(GgufWriter().raw("k", GgufType::array, array + std::string(100, '\0')).bytes()) ==
            Errc::bad_file);
    }
  }
  const std::uint64_t two32 = std::uint64_t{1} << 32;
  for (const std::vector<std::uint64_t>& dims : {std::vector<std::uint64_t>{two32, two32},
                                                 {~std::uint64_t{0}},
                                                 {std::uint64_t{1} << 63},
                                                 {two32, two32, two32, two32},
                                                 {std::uint64_t{1} << 62},
                                                 {8, 0},
                                                 {0},
                                                 {1, 1, 1, 1, 1},
                                                 {9}}) {
    CHECK(code(GgufWriter().tensor("t", dims, TensorType::f32, std::string(32, 'x')).bytes()) == Errc::bad_file);
  }
}

TEST_CASE("Gguf refuses what the format does not allow", "[reference][Gguf]") {
  const std::vector<float> values(8, 1.0f);
  CHECK(code("") == Errc::bad_file);
  CHECK(code("GGML and so on, many bytes of it") == Errc::bad_file);
  GgufWriter w;
  for (const std::uint32_t version : {0u, 1u, 4u, 0x03000000u}) {
    w.version = version;
    CHECK(code(w.bytes()) == Errc::unsupported);
  }
  CHECK(code(GgufWriter().u32("k", 1).u32("k", 2).bytes()) == Errc::bad_file);
  CHECK(code(GgufWriter().tensor_f32("t", {8}, values).tensor_f32("t", {8}, values).bytes()) == Errc::bad_file);
  CHECK(code(GgufWriter().raw("k", GgufType(13), "12345678").bytes()) == Errc::bad_file);
  const std::string nested = GgufWriter::encoded(std::uint32_t{9}) + GgufWriter::encoded(std::uint64_t{1});
  CHECK(code(GgufWriter().raw("k", GgufType::array, nested + nested).bytes()) == Errc::bad_file);
  for (const std::uint32_t alignment : {0u, 3u, 48u, 0x80000000u})
    CHECK(code(GgufWriter().u32("general.alignment", alignment).bytes()) == Errc::bad_file);
  CHECK(code(GgufWriter().string("general.alignment", "32").bytes()) == Errc::bad_file);
  CHECK(code(GgufWriter().tensor(std::string(65, 'n'), {1}, TensorType::f32, "1234").bytes()) == Errc::bad_file);
  // a row that is no whole number of blocks, though the matrix is
  CHECK(code(GgufWriter().tensor("t", {16, 2}, TensorType::q8_0, std::string(34, 'x')).bytes()) ==
        Errc::bad_file);
  // an offset that is not aligned, one that lies behind the end, one near 2^64
  const std::string good = GgufWriter().tensor_f32("t", {8}, values).bytes();
  const std::size_t place = 4 + 4 + 8 + 8 + (8 + 1) + 4 + 8 + 4;
  for (const std::uint64_t offset :
       {std::uint64_t{4}, std::uint64_t{32}, ~std::uint64_t{31}, std::uint64_t{1} << 62}) {
    std::string bytes = good;
    bytes.replace(place, 8, GgufWriter::encoded(offset));
    CHECK(code(bytes) == Errc::bad_file);
  }
}

TEST_CASE("Gguf files without tensors may end with their metadata", "[reference][Gguf]") {
  const std::string bytes = GgufWriter().u32("k", 1).bytes();
  const auto g = Gguf::parse(bytes_of(bytes));
  REQUIRE(g.has_value());
  CHECK(g->u64("k") == 1u);
  CHECK(g->tensors().empty());
}

TEST_CASE("Gguf opens files, stays valid when moved, and says when there is none", "[reference][Gguf]") {
  const std::string path = "kvist_gguf_test.tmp";
  REQUIRE(small_writer().save(path).has_value());
  auto opened = Gguf::open(path);
  REQUIRE(opened.has_value());
  const Gguf g = *std::move(opened);
  CHECK(g.string("general.architecture") == "llama");
  CHECK(kvist::read_le<float>(g.tensor("m")->row(1).data()) == 4.0f);
  std::remove(path.c_str());
  CHECK(Gguf::open(path).error().code == Errc::not_found);
  CHECK(Gguf::open(".").error().code == Errc::not_found);
  REQUIRE(kvist::write_file(path, "").has_value());
  CHECK(Gguf::open(path).error().code == Errc::bad_file);
  std::remove(path.c_str());
}

TEST_CASE("Gguf reads the real model's directory", "[reference][Gguf][model]") {
  const auto path = kvist::test::model_path();
  if (!path) KVIST_SKIP("the SmolLM2 model");
  const auto g = Gguf::open(*path);
  REQUIRE(g.has_value());
  CHECK(g->string("general.architecture") == "llama");
  CHECK(g->u64("llama.block_count") == 30u);
  CHECK(g->strings("tokenizer.ggml.tokens")->size() == 49152);
  CHECK(g->tensors().size() == 272);
  CHECK(g->tensor("token_embd.weight")->type == TensorType::q8_0);
  CHECK(g->tensor("token_embd.weight")->rows() == 49152);
  CHECK(g->tensor("blk.29.ffn_down.weight")->type == TensorType::q4_1);
}
