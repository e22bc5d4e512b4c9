// SPDX-License-Identifier: Apache-2.0
// ggml's cache blocks against the bytes that gguf-py makes of recorded keys.
#include <kvist/storage/codec/ggml.hpp>

#include "support/recorded.hpp"

using namespace kvist;
using namespace kvist::test;

namespace {

template <class B>
void same_bytes(const std::string& type) {
  for (const std::string layer : {"11", "28"}) {
    const std::string name = type + "_k" + layer;
    const Tensor k = recorded("official/inputs/k" + layer), want = recorded("official/gguf_blocks/" + name);
    const std::size_t first = 200, row_bytes = std::size_t(2 * B::bytes);
    REQUIRE(want.shape == std::vector<std::size_t>{192, row_bytes});
    const ggml::Blocks<B> codec;
    std::size_t different = 0;
    std::vector<std::byte> bytes(row_bytes);
    for (std::size_t h = 0; h < 3; ++h)
      for (std::size_t t = 0; t < 64; ++t) {
        codec.encode({}, k.row(h, first + t).data(), 1, 64, bytes.data());
        for (std::size_t b = 0; b < row_bytes; ++b)
          different += float(unsigned(bytes[b])) != want.at(h * 64 + t, b);
      }
    INFO(name);
    CHECK(different == 0);
  }
}

}  // namespace

TEST_CASE("q8_0, q4_0, q4_1, q5_0 and q5_1 write the bytes of the gguf package", "[golden][ggml]") {
  if (!have_recorded("official/gguf_blocks")) KVIST_SKIP("reference values");
  same_bytes<ggml::Q8_0>("q8_0");
  same_bytes<ggml::Q4_0>("q4_0");
  same_bytes<ggml::Q4_1>("q4_1");
  same_bytes<ggml::Q5_0>("q5_0");
  same_bytes<ggml::Q5_1>("q5_1");
}
