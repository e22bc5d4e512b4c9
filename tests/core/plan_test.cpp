// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/plan.hpp>

#include "support/catch.hpp"

using namespace kvist;

namespace {
HeadPlan drops_of(std::vector<Index> rows) {
  HeadPlan p;
  p.drop = std::move(rows);
  return p;
}
}  // namespace

TEST_CASE("A well-formed plan passes the check", "[core][plan]") {
  HeadPlan p = drops_of({2, 3, 6});
  p.blend = {{2, 4, .25f, .5f}, {3, 4, .25f, .25f}};
  p.self = {{4, .5f, .25f, 1.0f}};
  p.move = {{5, 1}};
  CHECK(check(p, 8, {2, 1}));
  CHECK(check(HeadPlan{}, 0));
}

TEST_CASE("The check names what is wrong with a plan", "[core][plan]") {
  const auto fails = [](const HeadPlan& p, Index n, Guards g = {}) {
    const Status s = check(p, n, g);
    return !s && s.error().code == Errc::bad_shape;
  };
  CHECK(fails(drops_of({8}), 8));
  CHECK(fails(drops_of({-1}), 8));
  CHECK(fails(drops_of({3, 3}), 8));
  CHECK(fails(drops_of({4, 3}), 8));
  CHECK(fails(drops_of({1}), 8, {2, 0}));
  CHECK(fails(drops_of({7}), 8, {0, 1}));
  HeadPlan p = drops_of({2});
  p.blend = {{3, 4, 1, 1}};  // the source stays
  p.self = {{4, 1, 1, 0}};
  CHECK(fails(p, 8));
  p.blend = {{2, 2, 1, 1}};  // into itself, which is dropped
  CHECK(fails(p, 8));
  p.blend = {{2, 5, 1, 1}};  // row 5 has no weights of its own
  CHECK(fails(p, 8));
  p.blend = {{2, 4, NAN, 1}};
  CHECK(fails(p, 8));
  p.blend.clear();
  p.self = {{2, 1, 1, 0}};  // dropped
  CHECK(fails(p, 8));
  p.self = {{5, 1, 1, 0}, {4, 1, 1, 0}};
  CHECK(fails(p, 8));
  p.self = {{4, 1, 1, INFINITY}};
  CHECK(fails(p, 8));
  p.self.clear();
  p.move = {{2, 1}};
  CHECK(fails(p, 8));
  p.move = {{9, 1}};
  CHECK(fails(p, 8));
}

TEST_CASE("Helpers read a plan as engines want it", "[core][plan]") {
  const HeadPlan p = drops_of({0, 1, 4, 5, 6, 7, 9});
  CHECK(survivors(p, 10) == std::vector<Index>{2, 3, 8});
  CHECK(ranges(p) == std::vector<Range>{{0, 2}, {4, 4}, {9, 1}});
  CHECK(free_pages(p, 10, 2) == std::vector<Index>{0, 2, 3});
  CHECK(free_pages(p, 10, 4) == std::vector<Index>{1});
  CHECK(free_pages(p, 10, 2, 3) == std::vector<Index>{2, 3});
  CHECK(free_pages(drops_of({8, 9}), 10, 4) == std::vector<Index>{2});  // the last page is not full, and is empty now
  CHECK(pack_moves(p, 10) == std::vector<RowMove>{{2, 0}, {3, 1}, {8, 2}});
  CHECK(pack_moves(HeadPlan{}, 10).empty());
  CHECK(survivors(HeadPlan{}, 3) == std::vector<Index>{0, 1, 2});
}
