// SPDX-License-Identifier: Apache-2.0
#include <kvist/methods/streaming_llm.hpp>

#include "support/catch.hpp"
#include "support/small_layer.hpp"

using namespace kvist;
using namespace kvist::test;

TEST_CASE("StreamingLLM keeps sinks and the newest entries", "[methods][StreamingLLM]") {
  const auto policy = methods::StreamingLLM::keep({2, methods::PositionScheme::keep});
  auto state = *policy.start(Shape{1, 1, 1, 2, 2});
  SmallLayer layer = SmallLayer::one_head();
  layer.append_blank(8);
  run_call(policy, state, layer, prompt_clock(5));
  CHECK(layer.pos[0] == std::vector<Pos>{0, 1, 5, 6, 7});
  layer.append_blank(1);
  run_call(policy, state, layer, step_clock(1, 5));
  CHECK(layer.pos[0] == std::vector<Pos>{0, 1, 6, 7, 8});
}

TEST_CASE("StreamingLLM ends at the same set however the stream is cut", "[methods][StreamingLLM]") {
  const auto policy = methods::StreamingLLM::keep({});
  for (const Index chunk : {1, 3, 7, 40}) {
    auto state = *policy.start(Shape{1, 1, 1, 2, 2});
    SmallLayer layer = SmallLayer::one_head();
    for (Index at = 0; at < 40; at += chunk) {
      layer.append_blank(std::min(chunk, 40 - at));
      run_call(policy, state, layer, prompt_clock(10));
    }
    CHECK(layer.pos[0] == std::vector<Pos>{0, 1, 2, 3, 34, 35, 36, 37, 38, 39});
  }
}

TEST_CASE("StreamingLLM without sinks is a sliding window", "[methods][StreamingLLM]") {
  const auto policy = methods::StreamingLLM::keep({0, methods::PositionScheme::keep});
  auto state = *policy.start(Shape{1, 1, 1, 2, 2});
  SmallLayer layer = SmallLayer::one_head();
  layer.append_blank(12);
  run_call(policy, state, layer, prompt_clock(5));
  CHECK(layer.pos[0] == std::vector<Pos>{7, 8, 9, 10, 11});
}

TEST_CASE("Token 5 in slot 2 turns by two steps", "[methods][StreamingLLM]") {
  // d = 2, theta = 1: a raw key (1, 0) in slot 2 is read as (cos 2, sin 2).
  const RopeTable rope = RopeTable::standard(2, 10000, RopePairs::neighbours);
  Row key{1, 0};
  rope.rotate(key, 2);
  CHECK(key[0] == Approx(-.416147).margin(1e-6));
  CHECK(key[1] == Approx(.909297).margin(1e-6));
}
