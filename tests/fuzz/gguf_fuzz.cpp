// SPDX-License-Identifier: Apache-2.0
// Any bytes as a GGUF file, or (where they do not start with G) as edits of a good one: everything that the file
// offers is read, and its tensors are decoded.
#include <kvist/reference/dequantize.hpp>
#include <kvist/reference/gguf.hpp>

#include <support/gguf_writer.hpp>

#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <vector>

namespace {

const std::string& good_file() {
  static const std::string bytes = [] {
    kvist::test::GgufWriter w;
    w.alignment = 8;
    w.string("name", "x").u32("u", 7).f32("f", 1.5f).boolean("b", true).strings("s", {"one", "", "three"});
    w.i32s("i", {1, -2}).array("u8", kvist::GgufType::u8, std::vector<std::uint8_t>{1, 2, 3});
    w.tensor_f32("m", {3, 2}, std::vector<float>{1, 2, 3, 4, 5, 6});
    w.tensor("q", {32, 2}, kvist::TensorType::q8_0, std::string(68, '\1'));
    w.tensor("k", {256}, kvist::TensorType::q6_k, std::string(210, '\2'));
    return w.bytes();
  }();
  return bytes;
}

/// The good file, shortened by the first byte, with edits of three bytes each: place (two), new value.
std::string edited(std::span<const std::uint8_t> edits) {
  std::string out = good_file();
  if (edits.empty()) return out;
  out.resize(out.size() - edits[0] % 64u);
  for (std::size_t i = 1; i + 2 < edits.size(); i += 3)
    out[(edits[i] + 256u * edits[i + 1]) % out.size()] = static_cast<char>(edits[i + 2]);
  return out;
}

void check(std::span<const std::byte> bytes) {
  const auto g = kvist::Gguf::parse(bytes);
  if (!g) return;
  for (const auto& e : g->entries()) {
    if (g->find(e.key) != &e) std::abort();
    (void)g->u64(e.key);
    (void)g->i64(e.key);
    (void)g->f64(e.key);
    (void)g->boolean(e.key);
    (void)g->string(e.key);
    (void)g->strings(e.key);
    (void)g->integers(e.key);
    (void)g->numbers(e.key);
  }
  for (const auto& t : g->tensors()) {
    const auto found = g->tensor(t.name);
    if (!found) continue;
    if (found->data.size() > bytes.size()) std::abort();
    const auto values = kvist::dequantize(*found);
    if (!values || values->size() != t.elements()) std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span<const std::uint8_t> input(data, size);
  const std::string file = edited(input);
  if (size > 0 && data[0] == 'G') check(std::as_bytes(input));
  else check(kvist::test::bytes_of(file));
  return 0;
}
