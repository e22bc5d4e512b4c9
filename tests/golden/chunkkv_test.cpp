// SPDX-License-Identifier: Apache-2.0
// ChunkKV over SnapKV's votes against kvpress on recorded layers.
#include <kvist/methods/chunkkv.hpp>

#include "support/presses.hpp"

using namespace kvist;
using namespace kvist::test;

TEST_CASE("ChunkKV keeps the chunks that kvpress keeps", "[golden][ChunkKV]") {
  if (!have_recorded("model/presses/passkey")) KVIST_SKIP("reference values");
  const Presses presses("passkey");
  for (const Press& run : presses.runs("chunkkv_snapkv")) {
    for (const int l : {0, 14, 29}) {
      INFO("ratio " << run.ratio << " layer " << l);
      methods::ChunkKVOptions o;
      o.window = 64;
      o.total = methods::Total::official;
      const auto policy = methods::ChunkKV::of(methods::ChunkKV::votes(o), o);
      SmallLayer layer = presses.layer(l, 64);
      auto state = *policy.start(layer.shape);
      run_call(policy, state, layer, prompt_clock(presses.budget(run.ratio)));
      for (int h = 0; h < 3; ++h) CHECK(layer.pos[std::size_t(h)] == presses.kept(run, l, h));
    }
  }
}
