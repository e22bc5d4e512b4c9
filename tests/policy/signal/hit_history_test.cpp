// SPDX-License-Identifier: Apache-2.0
#include <kvist/policy/signal/hit_history.hpp>

#include "support/catch.hpp"
#include "support/small_layer.hpp"

using namespace kvist;
using namespace kvist::test;

namespace {

struct Run {
  HitHistory signal;
  SmallLayer layer = SmallLayer::one_head(2);
  std::vector<HitHistory::Entry> entries{};
  HitHistory::PerHead head{};
  Scratch scratch{};

  void call(Index count, Phase phase, Random& random) {
    layer.append_random(count, random);
    layer.give_random_evidence(count, random);
    entries.resize(std::size_t(layer.size()));
    const AnyLayer view = layer.view();
    const Clock now{phase, phase == Phase::decode ? 1 : 0, layer.size(), 5, true};
    REQUIRE(signal.observe(AnyContext{view.head(0), layer.seen[0], now, layer.shape, scratch},
                           std::span(entries), head));
  }
  /// Tokens at positions >= pos are gone.
  void take_back(Pos pos) {
    Plan gone{0, std::vector<HeadPlan>(1), {}};
    for (Index i = 0; i < layer.size(); ++i)
      if (layer.pos[0][std::size_t(i)] >= pos) gone.heads[0].drop.push_back(i);
    layer.apply(gone);
    entries.resize(std::size_t(layer.size()));
    signal.truncate(std::span(entries), head, pos);
  }
  std::vector<float> scores() {
    std::vector<float> out(entries.size());
    const AnyLayer view = layer.view();
    const Clock now = step_clock(1, 5);
    REQUIRE(signal.score(AnyContext{view.head(0), layer.seen[0], now, layer.shape, scratch},
                         std::span<const HitHistory::Entry>(entries), head, out));
    return out;
  }
};

}  // namespace

TEST_CASE("HitHistory forgets the rows of tokens that are taken back", "[policy][HitHistory]") {
  Random a(3), b(3);
  Run plain{HitHistory{64, 1}}, drafted{HitHistory{64, 1}};
  for (auto& [run, random] : {std::pair<Run&, Random&>{plain, a}, std::pair<Run&, Random&>{drafted, b}}) {
    run.call(20, Phase::prefill, random);
    for (int i = 0; i < 7; ++i) run.call(1, Phase::decode, random);
  }
  Random other(99);
  for (int i = 0; i < 9; ++i) drafted.call(1, Phase::decode, other);
  CHECK(drafted.head.rows == 17);
  drafted.take_back(27);
  CHECK(drafted.head.rows == 8);
  CHECK(drafted.head.next == plain.head.next);
  CHECK(drafted.scores() == plain.scores());
  for (int i = 0; i < 60; ++i) {  // past the end of the ring
    plain.call(1, Phase::decode, a);
    drafted.call(1, Phase::decode, b);
    REQUIRE(drafted.scores() == plain.scores());
  }
}

TEST_CASE("A prompt's row stays while a part of the prompt does", "[policy][HitHistory]") {
  Random random(5);
  Run run{HitHistory{16, 1}};
  run.call(20, Phase::prefill, random);
  run.call(10, Phase::prefill, random);
  run.take_back(25);
  CHECK(run.head.rows == 2);
  run.take_back(20);
  CHECK(run.head.rows == 1);
  for (const auto& e : run.entries) CHECK(e.seen == 1);
  run.take_back(0);
  CHECK(run.head.rows == 0);
  CHECK(run.entries.empty());
  run.call(3, Phase::prefill, random);
  CHECK(run.head.rows == 1);
}

TEST_CASE("What a full history gave up for tokens taken back stays forgotten", "[policy][HitHistory]") {
  Random random(8);
  Run run{HitHistory{4, 1}};
  run.call(5, Phase::prefill, random);
  for (int i = 0; i < 6; ++i) run.call(1, Phase::decode, random);
  run.take_back(9);  // two of four rows
  CHECK(run.head.rows == 2);
  for (std::size_t i = 0; i < 5; ++i) CHECK(run.entries[i].seen == 2);
  for (const float s : run.scores()) CHECK((s >= 0 && s <= 1));
  run.take_back(2);
  CHECK(run.head.rows == 0);
  for (const auto& e : run.entries) CHECK(e.seen == 0);
}
