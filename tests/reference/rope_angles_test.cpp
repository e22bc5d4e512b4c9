// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/random.hpp>
#include <kvist/reference/rope_angles.hpp>

#include <cmath>
#include <vector>

#include "support/catch.hpp"

using namespace kvist;

TEST_CASE("RopeAngles turns vectors as the table does, for both pairings and partial rotation",
          "[reference][RopeAngles]") {
  for (const RopePairs pairs : {RopePairs::neighbours, RopePairs::half_split})
    for (const int rotary : {16, 10}) {
      RopeTable table = RopeTable::standard(rotary, 10000, pairs);
      table.scale = 1.5f;
      RopeAngles angles;
      angles.prepare(table, 7000, 40);
      angles.prepare(table, 8000, 30);  // another range in the same memory
      Random random(5);
      std::vector<float> x(3 * 16);
      for (float& v : x) v = float(random.uniform() * 2 - 1);
      for (const Pos position : {8000, 8017, 8029}) {
        std::vector<float> got = x, want = x;
        angles.rotate(got.data(), 3, 16, position);
        for (int h = 0; h < 3; ++h) table.rotate({want.data() + 16 * h, 16}, position);
        double worst = 0;
        for (std::size_t i = 0; i < x.size(); ++i)
          worst = std::max(worst, std::fabs(double(got[i]) - double(want[i])));
        CHECK(worst < 5e-7);
        CHECK(got[0] != x[0]);
      }
    }
}
