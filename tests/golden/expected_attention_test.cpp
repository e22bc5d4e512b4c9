// SPDX-License-Identifier: Apache-2.0
// ExpectedAttention against kvpress on recorded layers.
#include <kvist/methods/expected_attention.hpp>

#include "support/presses.hpp"

using namespace kvist;
using namespace kvist::test;

TEST_CASE("ExpectedAttention's scores and kept sets are kvpress's", "[golden][ExpectedAttention]") {
  if (!have_recorded("model/presses/passkey")) KVIST_SKIP("reference values");
  const Presses presses("passkey");
  const RopeTable rope = RopeTable::standard(64, 100000, RopePairs::half_split);
  for (const auto& [name, epsilon] : {std::pair{"expected_attention", 0.0}, {"expected_attention_e2", .01}}) {
    const auto policy = *methods::ExpectedAttentionEviction::make({512, 4, epsilon});
    std::size_t ratio = 0;
    for (const Press& run : presses.runs(name)) {
      for (const int l : {0, 14, 29}) {
        SmallLayer layer = presses.layer(l, std::size_t(presses.tokens()));
        auto state = *policy.start(layer.shape);
        const AnyLayer view = layer.view();
        const LayerCall<AnyLayer> call{view, layer.seen, prompt_clock(presses.budget(run.ratio)),
                                       l,    {},         &rope};
        REQUIRE(policy.observe(call, state));
        std::vector<Plan> plans;
        REQUIRE(policy.plan(call, state, plans));
        layer.apply(plans[0]);
        float most = 0;
        for (int h = 0; h < 3; ++h)
          for (const float x : presses.scores(name, ratio, l, h)) most = std::max(most, x);
        most -= 1;  // the sinks' mark
        for (int h = 0; h < 3; ++h) {
          INFO(name << " ratio " << run.ratio << " layer " << l << " head " << h);
          const Row want = presses.scores(name, ratio, l, h);
          // `scores` keep those who were scored: the plan has not been told to the state
          const auto& mine = state.layers[std::size_t(l)].heads[std::size_t(h)].scores;
          REQUIRE(mine.size() == want.size());
          for (std::size_t i = 4; i < want.size(); ++i) CHECK(std::abs(mine[i] - want[i]) <= 3e-5f * most);
          if (presses.gap(run, l, h) > 1e-5f * most) {
            CHECK(layer.pos[std::size_t(h)] == presses.kept(run, l, h));
          } else {
            CHECK(difference(layer.pos[std::size_t(h)], presses.kept(run, l, h)) <= 2);
          }
        }
      }
      ++ratio;
    }
  }
}
