// SPDX-License-Identifier: Apache-2.0
#include <kvist/methods/rkv.hpp>

#include "support/catch.hpp"
#include "support/small_layer.hpp"

using namespace kvist;
using namespace kvist::test;
using methods::RKV;
using methods::RKVOptions;

namespace {

const std::vector<Row> keys{{1, 0}, {1, .1f}, {0, 1}, {.98f, .05f}, {-1, 0}, {.1f, 1}, {1, 1}, {0, -1}};

SmallLayer worked_layer() {
  SmallLayer layer = SmallLayer::one_head();
  for (std::size_t i = 0; i < keys.size(); ++i) layer.append(0, keys[i], {0, 0}, Pos(i));
  layer.give_queries(0, {{{1, .2f}, {.3f, 1}}});
  return layer;
}

AttentionAndRedundancy signal(float lambda, int kernel = 3) { return {lambda, 2, kernel, {.5f, true}}; }

std::vector<float> scores(const AttentionAndRedundancy& s, SmallLayer layer) {
  const AnyLayer view = layer.view();
  Scratch scratch;
  const Clock now = prompt_clock(5);
  const AnyContext c{view.head(0), layer.seen[0], now, layer.shape, scratch};
  AttentionAndRedundancy::PerHead head;
  std::vector<Nothing> entries(std::size_t(layer.size()));
  std::vector<float> out(entries.size());
  REQUIRE(s.observe(c, entries, head));
  REQUIRE(s.score(c, entries, head, out));
  return out;
}

void check_close(const std::vector<float>& got, const std::vector<float>& want) {
  REQUIRE(got.size() >= want.size());
  for (std::size_t i = 0; i < want.size(); ++i) CHECK(got[i] == Approx(want[i]).margin(1.5e-6));
}

std::vector<Pos> kept(double lambda, int kernel, Index budget) {
  const auto policy = *RKV::make({lambda, 2, kernel, .5, 128});
  SmallLayer layer = worked_layer();
  auto state = *policy.start(layer.shape);
  run_call(policy, state, layer, prompt_clock(budget));
  return layer.pos[0];
}

}  // namespace

TEST_CASE("R-KV keeps what is attended to and not redundant", "[methods][RKV]") {
  check_close(scores(signal(1, 1), worked_layer()),
              {.183590f, .190377f, .180066f, .185028f, .073688f, .187251f});
  check_close(scores(signal(1), worked_layer()), {.190377f, .190377f, .190377f, .185028f, .187251f, .187251f});
  check_close(scores(signal(0), worked_layer()),
              {-.171352f, -.154474f, -.134323f, -.152943f, -.075086f, -.126114f});
  check_close(scores(signal(.07f), worked_layer()),
              {-.146031f, -.130334f, -.111594f, -.129285f, -.056722f, -.104178f});
  CHECK(kept(.07, 3, 5) == std::vector<Pos>{2, 4, 5, 6, 7});
  CHECK(kept(1, 3, 5) == std::vector<Pos>{0, 1, 2, 6, 7});
}

TEST_CASE("R-KV votes with the last queries of prompt and steps, whatever the calls", "[methods][RKV]") {
  const Shape shape{1, 4, 2, 8, 8};
  const Index window = 5;
  Random random(9);
  SmallLayer whole(shape);
  whole.append_random(40, random);
  whole.give_random_evidence(40, random);
  const auto policy = *RKV::make({.5, window, 3, .5, 1});
  const auto final_scores = [&](const std::vector<Index>& calls, Index extra) {
    auto state = *policy.start(shape);
    SmallLayer layer(shape);
    Index at = 0;
    const auto feed = [&](Index count) {
      for (int h = 0; h < 2; ++h) {
        const std::size_t i = std::size_t(h);
        for (Index t = at; t < at + count; ++t)
          layer.append(h, Row(whole.k[i].begin() + t * 8, whole.k[i].begin() + (t + 1) * 8), Row(8), t);
        std::vector<std::vector<Row>> q(2);
        for (int g = 0; g < 2; ++g)
          for (Index t = at; t < at + count; ++t) {
            const auto row = whole.seen[i].queries.row(g, t);
            q[std::size_t(g)].emplace_back(row.begin(), row.end());
          }
        layer.give_queries(h, q);
      }
      at += count;
      run_call(policy, state, layer, count > 1 ? prompt_clock(1000) : step_clock(at, 1000));
    };
    for (const Index count : calls) feed(count);
    if (extra > 0) {  // tokens that are taken back
      const auto entries = layer;
      for (Index e = 0; e < extra; ++e) feed(1);
      at -= extra;
      layer = entries;
      for (int h = 0; h < 2; ++h) policy.truncate(state, 0, h, at, at);
    }
    const AnyLayer view = layer.view();
    std::vector<std::vector<float>> out;
    Scratch scratch;
    for (int h = 0; h < 2; ++h) {
      static const Evidence none{};
      const Clock now = step_clock(1, 20);
      const AnyContext c{view.head(h), none, now, shape, scratch, nullptr, 0, h};
      out.emplace_back(std::size_t(layer.size(h)));
      REQUIRE(policy.signal.score(c, {}, state.layers[0].heads[std::size_t(h)].own, out.back()));
    }
    return out;
  };
  const auto one = final_scores({30}, 0);
  CHECK(final_scores({17, 13}, 0) == one);
  CHECK(final_scores({27, 3}, 0) == one);
  CHECK(final_scores({20, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, 0) == one);
  CHECK(final_scores({2, 25, 1, 1, 1}, 0) == one);
  // Two tokens that are taken back have pushed two queries out of five: the three that are left vote.
  const auto taken_back = final_scores({30}, 2);
  for (std::size_t h = 0; h < 2; ++h) {
    const std::vector<float> k(whole.k[h].begin(), whole.k[h].begin() + 30 * 8), v(30 * 8);
    std::vector<Pos> pos;
    for (Pos p = 0; p < 30; ++p) pos.push_back(p);
    const AnyHead head{rows(k.data(), 30, 8), rows(v.data(), 30, 8), pos, KeyForm::rotated};
    Evidence three;
    three.queries = whole.seen[h].queries;
    three.queries.data += 27 * 8;
    three.queries.w = 3;
    three.first_query = 27;
    Scratch scratch;
    const Clock now = prompt_clock(20);
    const AnyContext c{head, three, now, shape, scratch};
    AttentionAndRedundancy::PerHead own;
    std::vector<float> want(30);
    REQUIRE(policy.signal.observe(c, {}, own));
    REQUIRE(policy.signal.score(c, {}, own, want));
    CHECK(taken_back[h] == want);
    CHECK(want != one[h]);
  }
}

TEST_CASE("R-KV compresses at the prompt's end and on its interval", "[methods][RKV]") {
  Random random(6);
  const Shape shape{1, 3, 1, 8, 8};
  const auto policy = *RKV::make({.07, 4, 7, .5, 10});
  auto state = *policy.start(shape);
  SmallLayer layer(shape);
  layer.append_random(30, random);
  layer.give_random_evidence(30, random);
  run_call(policy, state, layer, prompt_clock(12));
  CHECK(layer.size() == 12);
  for (Index n = 1; n <= 45; ++n) {
    layer.append_random(1, random);
    layer.give_random_evidence(1, random);
    run_call(policy, state, layer, step_clock(n, 12));
    CHECK(layer.size() == 12 + n % 10);
    for (Index i = 0; i < 4; ++i) CHECK(layer.pos[0][std::size_t(layer.size() - 1 - i)] == 29 + n - i);
  }
}

TEST_CASE("Of equal keys R-KV ranks the last one least redundant", "[methods][RKV]") {
  SmallLayer layer = SmallLayer::one_head(1, 4);
  for (Pos p = 0; p < 3; ++p) layer.append(0, {0, 0, 1, 0}, Row(4), p);
  layer.append(0, {0, 1, 0, 0}, Row(4), 3);
  layer.append(0, {1, 0, 0, 0}, Row(4), 4);
  layer.append(0, {-1, 0, 0, 0}, Row(4), 5);
  layer.give_queries(0, {{{1, 0, 0, 0}, {1, 0, 0, 0}}});
  const std::vector<float> s = scores({0, 2, 1, {.5f, false}}, layer);
  CHECK(s[2] > s[1]);
  CHECK(s[1] >= s[0]);
}

TEST_CASE("R-KV takes prompts shorter than its window, and refuses options out of range", "[methods][RKV]") {
  Random random(8);
  for (const Index n : {0, 1, 7, 8, 9}) {
    SmallLayer layer(Shape{1, 2, 2, 4, 4});
    layer.append_random(n, random);
    if (n > 0) layer.give_random_evidence(8, random);
    const auto policy = *RKV::make({});
    auto state = *policy.start(layer.shape);
    if (n > 0) run_call(policy, state, layer, prompt_clock(8));
    CHECK(layer.size() == std::min<Index>(n, 8));
  }
  const Shape shape{1, 1, 1, 2, 2};
  CHECK((*RKV::make({-.1, 8, 7, .5, 128})).start(shape).error().code == Errc::bad_option);
  CHECK((*RKV::make({1.1, 8, 7, .5, 128})).start(shape).error().code == Errc::bad_option);
  CHECK((*RKV::make({.1, 0, 7, .5, 128})).start(shape).error().code == Errc::bad_option);
  CHECK((*RKV::make({.1, 8, 6, .5, 128})).start(shape).error().code == Errc::bad_option);
  CHECK((*RKV::make({.1, 8, 7, 1.5, 128})).start(shape).error().code == Errc::bad_option);
  CHECK(RKV::make({.1, 8, 7, .5, 0}).error().code == Errc::bad_option);
}
