// SPDX-License-Identifier: Apache-2.0
#include <kvist/view/evidence.hpp>

#include "support/catch.hpp"

#include <vector>

using namespace kvist;

TEST_CASE("Wants join: all evidence of both, the longer window, all queries above any number",
          "[view][Wants]") {
  const Wants a{Needs::probs, Needs::none, 8}, b{Needs::queries, Needs::probs, 32},
      all{Needs::rows, Needs::none, all_queries};
  CHECK((a | b) == Wants{Needs::probs | Needs::queries, Needs::probs, 32});
  CHECK((a | b) == (b | a));
  CHECK((a | all).last_queries == all_queries);
  CHECK((all | b).last_queries == all_queries);
  CHECK((a | Wants{}) == a);
}

TEST_CASE("Probabilities or queries both serve a want for rows", "[view][Evidence]") {
  const std::vector<float> x(12);
  Evidence e;
  CHECK(e.have() == Needs::none);
  CHECK_FALSE(covers(e.have(), Needs::rows));
  CHECK(covers(e.have(), Needs::none));
  e.queries = cube(x.data(), 1, 3, 4);
  CHECK(covers(e.have(), Needs::rows | Needs::queries));
  CHECK_FALSE(covers(e.have(), Needs::probs));
  e = {};
  e.probs = cube(x.data(), 1, 3, 4);
  CHECK(covers(e.have(), Needs::rows));
  e.column_sums = cube(x.data(), 3, 1, 4);
  e.max_query = cube(x.data(), 3, 1, 4);
  CHECK(covers(e.have(), Needs::column_sums | Needs::max_query));
}

TEST_CASE("Cubes of any strides give their rows", "[view][Evidence]") {
  std::vector<float> x(100);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = float(i);
  const Cube packed = cube(x.data(), 2, 3, 4);
  CHECK(packed.row(1, 2)[3] == 23);
  CHECK(packed.row(0, 1).size() == 4);
  const Cube padded{x.data(), 2, 3, 4, 40, 10};
  CHECK(padded.row(1, 2)[3] == 63);
  CHECK_FALSE(Cube{});
}
