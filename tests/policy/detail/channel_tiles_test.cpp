// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/random.hpp>
#include <kvist/policy/detail/channel_tiles.hpp>

#include <cmath>
#include <limits>
#include <vector>

#include "support/catch.hpp"

using namespace kvist;

TEST_CASE("Dot products over tiles are those of the rows, at any number of rows, channels and queries",
          "[policy][ChannelTiles]") {
  Random random(3);
  for (const Index n : {1, 16, 63, 64, 65, 200})
    for (const int d : {1, 7, 64}) {
      INFO(n << " rows of " << d);
      std::vector<float> rows(std::size_t(n * d)), queries(std::size_t(5 * d));
      for (float& x : rows) x = float(random.uniform() * 2 - 1);
      for (float& x : queries) x = float(random.uniform() * 2 - 1);
      std::vector<float> memory(detail::ChannelTiles::floats(n, d), std::numeric_limits<float>::quiet_NaN());
      const detail::ChannelTiles tiles(rows, n, d, memory);
      std::vector<float> out(std::size_t(5 * n));
      tiles.dots(queries.data(), 5, 0.5f, out.data(), n);
      for (int q = 0; q < 5; ++q)
        for (Index i = 0; i < n; ++i) {
          double want = 0, size = 0;
          for (int c = 0; c < d; ++c) {
            const double term =
                0.5 * double(rows[std::size_t(i * d + c)]) * double(queries[std::size_t(q * d + c)]);
            want += term;
            size += std::fabs(term);
          }
          CHECK(std::fabs(double(out[std::size_t(q * n + i)]) - want) <= 1e-6 * size);
        }
    }
}
