// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/random.hpp>
#include <kvist/policy/policy.hpp>
#include <kvist/policy/select/pages.hpp>
#include <kvist/policy/signal/key_norm.hpp>

#include "support/catch.hpp"
#include "support/small_layer.hpp"

#include <limits>
#include <optional>

using namespace kvist;
using namespace kvist::test;

namespace {

using Is = std::vector<Index>;

Result<Is> select(const std::vector<float>& scores, Index page, Index budget, Guards guards = {}) {
  Scratch scratch;
  Is drop{-5};  // what was there before goes
  const SelectCall call{scores, {}, guards, budget, scratch};
  if (Status s = select_pages(call, page, drop); !s) return s.error();
  return drop;
}

/// The definition: full pages without guarded rows, worst mean first, of equal means the later page, until the budget
/// holds; nothing where the rest is too much.
std::optional<Is> slow(const std::vector<float>& scores, Index page, Index budget, Guards guards) {
  const Index n = Index(scores.size());
  std::vector<char> gone(scores.size(), 0);
  Index kept = n;
  while (kept > budget) {
    Index worst = -1;
    double least = 0;
    for (Index p = 0; (p + 1) * page <= n; ++p) {
      double sum = 0;
      bool free = true;
      for (Index i = p * page; i < (p + 1) * page; ++i) {
        sum += double(scores[std::size_t(i)]);
        free = free && !gone[std::size_t(i)] && !guards.holds(i, n);
      }
      if (free && (worst < 0 || sum <= least)) worst = p, least = sum;
    }
    if (worst < 0) return std::nullopt;
    for (Index i = worst * page; i < (worst + 1) * page; ++i) gone[std::size_t(i)] = 1;
    kept -= page;
  }
  Is out;
  for (Index i = 0; i < n; ++i)
    if (gone[std::size_t(i)]) out.push_back(i);
  return out;
}

}  // namespace

TEST_CASE("Whole pages leave, the worst mean first, of equal ones the later", "[policy][select][pages]") {
  CHECK(*select({5, 5, 1, 1, 3, 3, 2, 2}, 2, 4) == Is{2, 3, 6, 7});
  CHECK(*select({5, 5, 1, 1, 3, 3, 2, 2}, 2, 5) == Is{2, 3, 6, 7});  // at most five: four
  CHECK(*select({1, 1, 1, 1, 1, 1}, 2, 4) == Is{4, 5});
  CHECK(*select({1, 1, 1, 1, 1, 1, 0}, 2, 5) == Is{4, 5});  // the last page is not full and stays
  CHECK(*select({5, 5, 1, 1, 3, 3, 2, 2}, 2, 4, {3, 0}) == Is{4, 5, 6, 7});
  CHECK(*select({5, 5, 1, 1, 3, 3, 2, 2}, 2, 4, {0, 1}) == Is{2, 3, 4, 5});
  CHECK(select({1, 2, 3}, 2, 3)->empty());
  CHECK(select({}, 2, 3)->empty());
  // the smallest of bad_budget: everything but one page must stay
  const auto tight = select({5, 5, 1, 1, 3, 3}, 2, 3, {1, 1});
  REQUIRE(!tight);
  CHECK(tight.error() == Error{Errc::bad_budget, tight.error().what, 4, 3});
}

TEST_CASE("Pages are chosen as the definition says, over random scores", "[policy][select][pages]") {
  Random random(31);
  for (int trial = 0; trial < 400; ++trial) {
    std::vector<float> scores(random.below(70));
    for (float& x : scores) x = float(random.below(6));  // many ties
    const Index page = 1 + Index(random.below(9)), budget = Index(random.below(40));
    const Guards guards{Index(random.below(8)), Index(random.below(8))};
    const auto want = slow(scores, page, budget, guards);
    const auto got = select(scores, page, budget, guards);
    INFO(scores.size() << " entries, page " << page << ", budget " << budget);
    REQUIRE(got.has_value() == want.has_value());
    if (want) CHECK(*got == *want);
  }
}

TEST_CASE("Pages of any size are borne, and sizes that no engine has are refused",
          "[policy][select][pages]") {
  const Index most = std::numeric_limits<Index>::max();
  const std::vector<float> scores(100, 1.0f);
  for (const Index page : {101, 1 << 20, most - 1, most}) {
    CHECK(select(scores, page, 100)->empty());
    CHECK(select(scores, page, 50).error().code == Errc::bad_budget);
  }
  CHECK(select(scores, 100, 0)->size() == 100);
  CHECK(free_pages(HeadPlan{{0, 1, 2}, {}, {}, {}}, 3, most).size() == 1);  // the one page, filled in part
  CHECK(free_pages(HeadPlan{{1, 2}, {}, {}, {}}, 3, most).empty());

  SmallLayer layer(Shape{1, 1, 1, 4, 4});
  Random random(2);
  layer.append_random(40, random);
  const Policy<KeyNorm> policy;
  auto state = *policy.start(layer.shape);
  const AnyLayer view = layer.view();
  for (const Index page : {0, -1, (1 << 20) + 1, most}) {
    Abilities can;
    can.page = page;
    const LayerCall<AnyLayer> call{view, {}, prompt_clock(10), 0, can};
    REQUIRE(policy.observe(call, state));
    std::vector<Plan> plans;
    CHECK(policy.plan(call, state, plans).error().code == Errc::bad_option);
    CHECK(plans.empty());
  }
  Abilities can;
  can.shared_rows = -1;
  const LayerCall<AnyLayer> call{view, {}, prompt_clock(10), 0, can};
  std::vector<Plan> plans;
  CHECK(policy.plan(call, state, plans).error().code == Errc::bad_option);
}
