// SPDX-License-Identifier: Apache-2.0
// LagKV against kvpress on recorded layers.
#include <kvist/methods/lagkv.hpp>

#include "support/presses.hpp"

using namespace kvist;
using namespace kvist::test;

TEST_CASE("LagKV's scores and kept sets are kvpress's", "[golden][LagKV]") {
  if (!have_recorded("model/presses/passkey")) KVIST_SKIP("reference values");
  const Presses presses("passkey");
  const auto policy = *methods::LagKV::make({});
  std::size_t ratio = 0;
  for (const Press& run : presses.runs("lagkv")) {
    for (const int l : {0, 14, 29}) {
      SmallLayer layer = presses.layer(l, 1);
      auto state = *policy.start(layer.shape);
      const AnyLayer view = layer.view();
      const LayerCall<AnyLayer> call{view, {}, prompt_clock(presses.budget(run.ratio)), l};
      REQUIRE(policy.observe(call, state));
      std::vector<Plan> plans;
      REQUIRE(policy.plan(call, state, plans));
      for (int h = 0; h < 3; ++h) {
        INFO("ratio " << run.ratio << " layer " << l << " head " << h);
        const Row want = presses.scores("lagkv", ratio, l, h);
        const auto& mine = state.layers[std::size_t(l)].heads[std::size_t(h)].scores;
        std::size_t swapped = 0;
        for (std::size_t i = 0; i < want.size(); ++i) {
          // two entries within rounding of each other may change ranks, which are 1/128 apart
          CHECK(mine[i] == Approx(want[i]).margin(1.0 / 128 + 3e-5));
          swapped += std::abs(mine[i] - want[i]) > 3e-5f;
        }
        CHECK(swapped <= 4);
      }
      layer.apply(plans[0]);
      if (presses.gap(run, l, 0) == 0) {  // a tie decides: only counts can be compared
        for (int h = 0; h < 3; ++h) CHECK(layer.size(h) == presses.budget(run.ratio));
        continue;
      }
      for (int h = 0; h < 3; ++h) CHECK(difference(layer.pos[std::size_t(h)], presses.kept(run, l, h)) <= 2);
    }
    ++ratio;
  }
}
