// SPDX-License-Identifier: Apache-2.0
// Scissorhands against AnswerDotAI/cold-compress over 432 recorded decode steps. That code makes room before it attends; here
// a step ends by dropping one entry: the same order with a budget of one less. Of equally often missed entries it drops the
// lowest slot (slots are reused, so not the oldest); each step therefore goes on from what it dropped.
#include <kvist/methods/scissorhands.hpp>

#include "support/recorded.hpp"

using namespace kvist;
using namespace kvist::test;

TEST_CASE("Scissorhands drops one of the entries that cold-compress finds missed most often",
          "[golden][Scissorhands]") {
  if (!have_recorded("official/scissorhands")) KVIST_SKIP("reference values of scissorhands");
  const Tensor k = recorded("official/inputs/k11"), q = recorded("official/inputs/q11");
  const std::string name = "official/scissorhands/l11_c96_w32_bits";
  const Tensor evicted = recorded(name + "_evicted"), ties = recorded(name + "_ties");
  for (std::size_t head = 0; head < 3; ++head) {
    auto policy = *methods::Scissorhands::make({32, 10, 1, 1});
    policy.settings.at_least.sinks = 4;
    SmallLayer layer = SmallLayer::one_head(1, 64);
    auto state = *policy.start(layer.shape);
    std::vector<Row> rows_of;
    for (std::size_t t = 0; t < 96; ++t) {
      layer.append(0, k.row(head, t), Row(64), Pos(t));
      rows_of.push_back(attention_row(layer, 0, q.row(3 * head, t)));
    }
    layer.give_sums(0, {rows_of});
    for (std::size_t step = 0; step < 432; ++step) {
      INFO("head " << head << " step " << step);
      const AnyLayer view = layer.view();
      const Clock now = step == 0 ? prompt_clock(95) : step_clock(Index(step), 95);
      const LayerCall<AnyLayer> call{view, layer.seen, now, 0};
      REQUIRE(policy.observe(call, state));
      std::vector<Plan> plans;
      REQUIRE(policy.plan(call, state, plans));
      REQUIRE(plans.size() == 1);
      REQUIRE(plans[0].heads[0].drop.size() == 1);
      const Pos want = Pos(evicted.at(step, head));
      const auto at = std::find(layer.pos[0].begin(), layer.pos[0].end(), want);
      REQUIRE(at != layer.pos[0].end());
      const auto& scores = state.layers[0].heads[0].scores;
      const Index mine = plans[0].heads[0].drop[0], theirs = Index(at - layer.pos[0].begin());
      CHECK(scores[std::size_t(mine)] == scores[std::size_t(theirs)]);  // equally often missed
      if (ties.at(step, head) == 1) CHECK(mine == theirs);
      plans[0].heads[0].drop[0] = theirs;
      layer.apply(plans[0]);
      policy.applied(plans[0], state);
      const std::size_t t = 96 + step;
      layer.append(0, k.row(head, t), Row(64), Pos(t));
      layer.forget_evidence();
      layer.give_probs(0, {{attention_row(layer, 0, q.row(3 * head, t))}});
    }
  }
}
