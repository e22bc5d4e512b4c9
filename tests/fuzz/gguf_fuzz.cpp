// SPDX-License-Identifier: Apache-2.0
// Any bytes as a GGUF file: everything that it offers is read, and tensors of moderate size are decoded.
#include <kvist/reference/dequantize.hpp>
#include <kvist/reference/gguf.hpp>

#include <cstdint>
#include <cstdlib>
#include <span>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto g = kvist::Gguf::parse(std::as_bytes(std::span(data, size)));
  if (!g) return 0;
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
    if (found->data.size() > size) std::abort();
    const auto values = kvist::dequantize(*found);
    if (!values || values->size() != t.elements()) std::abort();
  }
  return 0;
}
