// SPDX-License-Identifier: Apache-2.0
#include <kvist/methods/key_norm.hpp>
#include <kvist/methods/keydiff.hpp>

#include "support/catch.hpp"
#include "support/small_layer.hpp"

using namespace kvist;
using namespace kvist::test;

namespace {

const std::vector<Row> keys{{2, 0, 0, 0}, {1, 1, 0, 0}, {.5f, .5f, .5f, .5f},
                            {0, 0, 1, 1}, {3, 1, 0, 0}, {.6f, 0, 0, .8f}};

SmallLayer layer_of(const std::vector<Row>& k, float scale = 1) {
  SmallLayer layer = SmallLayer::one_head(1, 4);
  for (std::size_t i = 0; i < k.size(); ++i) {
    Row key = k[i];
    for (float& x : key) x *= scale;
    layer.append(0, key, Row(4), Pos(i));
  }
  return layer;
}

template <class P>
std::vector<Pos> kept(const P& policy, SmallLayer layer, Index budget, std::vector<float>* scores = nullptr) {
  auto state = *policy.start(layer.shape);
  if (scores) {
    scores->resize(std::size_t(layer.size()));
    const AnyLayer view = layer.view();
    Scratch scratch;
    const Clock now = prompt_clock(budget);
    const AnyContext c{view.head(0), layer.seen[0], now, layer.shape, scratch};
    REQUIRE(policy.signal.score(c, std::vector<Nothing>(scores->size()), Nothing{}, *scores));
  }
  run_call(policy, state, layer, prompt_clock(budget));
  return layer.pos[0];
}

}  // namespace

TEST_CASE("KeyNorm keeps the shortest keys", "[methods][KeyNorm]") {
  const auto policy = *methods::KeyNormEviction::make({});
  std::vector<float> s;
  CHECK(kept(policy, layer_of(keys), 3, &s) == std::vector<Pos>{1, 2, 5});
  const std::vector<float> want{-2, -1.414214f, -1, -1.414214f, -3.162278f, -1};
  for (std::size_t i = 0; i < want.size(); ++i) CHECK(s[i] == Approx(want[i]).margin(1e-6));
  CHECK(kept(policy, layer_of(keys, 7), 3) == std::vector<Pos>{1, 2, 5});
  CHECK(kept(policy, layer_of(keys), 6).size() == 6);
  CHECK(kept(policy, layer_of({}), 3).empty());
}

TEST_CASE("KeyDiff keeps the keys that differ most from the mean direction", "[methods][KeyDiff]") {
  const auto policy = *methods::KeyDiff::make({});
  std::vector<float> s;
  CHECK(kept(policy, layer_of(keys), 3, &s) == std::vector<Pos>{0, 1, 3});
  const std::vector<float> cosine{.802342f, .797453f, .907207f, .485532f, .864077f, .824424f};
  for (std::size_t i = 0; i < cosine.size(); ++i) CHECK(-s[i] == Approx(cosine[i]).margin(1e-6));
  CHECK(kept(policy, layer_of(keys, 5), 3) == std::vector<Pos>{0, 1, 3});
  CHECK(kept(policy, layer_of(keys), 1) == std::vector<Pos>{3});  // the lowest cosine
  // Equal keys all tie: the lower rows stay. A key of zeros has cosine 0 and breaks nothing.
  CHECK(kept(policy, layer_of({{1, 2, 0, 0}, {1, 2, 0, 0}, {1, 2, 0, 0}}), 2) == std::vector<Pos>{0, 1});
  CHECK(kept(policy, layer_of({{1, 0, 0, 0}, {0, 0, 0, 0}, {1, 0, 0, 0}}), 1) == std::vector<Pos>{1});
}

TEST_CASE("KeyDiff in blocks lets survivors and the new block compete", "[methods][KeyDiff]") {
  const auto policy = *methods::KeyDiff::make({});
  SmallLayer layer = SmallLayer::one_head(1, 4);
  auto state = *policy.start(layer.shape);
  for (std::size_t i = 0; i < keys.size(); ++i) {
    layer.append(0, keys[i], Row(4), Pos(i));
    if (i % 2 == 0) continue;
    Clock now = prompt_clock(3);
    now.last = i + 1 == keys.size();
    run_call(policy, state, layer, now);
    CHECK(layer.size() == std::min<Index>(3, Index(i) + 1));
  }
}
