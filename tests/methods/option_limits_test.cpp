// SPDX-License-Identifier: Apache-2.0
// Options at the ends of their range: an Error, or a plan that keeps to the budget; never a crash or a hang.
#include <kvist/methods/spec.hpp>

#include <limits>
#include <string>
#include <vector>

#include "support/catch.hpp"

using namespace kvist;

namespace {

constexpr Index n = 40, d = 8;

/// Entries that a head of 40 keeps at a budget of 10; an Error where the SPEC, the policy or the plan fails.
Result<Index> kept(const std::string& text, float spike = 0) {
  std::string fault;
  const auto spec = methods::parse_spec(text, fault);
  if (!spec) return spec.error();
  const auto made = methods::make(*spec, fault);
  if (!made) return made.error();
  auto state = made->policy.start({1, 2, 2, d, d});
  if (!state) return state.error();
  std::vector<float> k(std::size_t(n * d)), q(std::size_t(n * d)), probs(std::size_t(n) * n), sums(n, 1),
      seen_by(n);
  for (std::size_t i = 0; i < k.size(); ++i) k[i] = q[i] = float(i * 7 % 13) - 6;
  if (spike != 0) k[std::size_t(5 * d)] = spike;
  std::vector<Pos> pos;
  for (Index i = 0; i < n; ++i) {
    pos.push_back(i);
    seen_by[std::size_t(i)] = float(n - i);
    for (Index j = 0; j <= i; ++j) probs[std::size_t(i) * n + std::size_t(j)] = 1 / float(i + 1);
  }
  const std::vector<AnyHead> heads(
      2, AnyHead{rows(k.data(), n, d), rows(k.data(), n, d), pos, KeyForm::rotated});
  Evidence e;
  e.queries = cube(q.data(), 1, n, d);
  e.column_sums = cube(sums.data(), 1, 1, n);
  e.seen_by = seen_by;
  const std::vector<Evidence> seen(2, e);
  const RopeTable rope = RopeTable::standard(d, 10000, RopePairs::half_split);
  const AnyLayer view{heads};
  Clock now;
  now.phase = Phase::prefill;
  now.size = n;
  now.budget = 10;
  const LayerCall<AnyLayer> call{view, seen, now, 0, {}, &rope};
  if (const auto done = made->policy.observe(call, *state); !done) return done.error();
  if (!made->policy.due(now)) return n;
  std::vector<Plan> plans;
  if (const auto done = made->policy.plan(call, *state, plans); !done) return done.error();
  return plans.back().cost[0].after;
}

}  // namespace

TEST_CASE("Guards whose sum passes 32 bits do not fit in any budget", "[methods][Policy]") {
  const std::string most = "2147483647";
  for (const std::string& text :
       {"SnapKV:window=4,sinks=" + most, "random:sinks=" + most + ",recent=" + most,
        "AdaKV:window=4,sinks=" + most, "PyramidKV:window=4,sinks=" + most, "CAKE:window=4,sinks=" + most,
        "SnapKV:window=" + most, "LagKV:sinks=" + most, "H2O:heavy=" + most + ",recent=" + most}) {
    INFO(text);
    const auto got = kept(text);
    REQUIRE(!got);
    CHECK(got.error().code == Errc::bad_budget);
  }
}

TEST_CASE("Counts of first and newest entries can't be negative, but for a -1 that list shows",
          "[methods][Policy]") {
  int asked = 0;
  for (const methods::Entry& e : methods::registry()) {
    if (!e.evicts) continue;
    for (const methods::OptionInfo& o : e.options) {
      if (o.name != "sinks" && o.name != "recent" && o.name != "window" && o.name != "heavy") continue;
      const std::string text = e.info.name + std::string(":") + o.name + "=" + (o.value == "-1" ? "-2" : "-1");
      INFO(text);
      ++asked;
      std::string fault;
      const auto spec = methods::parse_spec(text, fault);
      REQUIRE(spec);
      const auto made = methods::make(*spec, fault);
      if (!made) {
        CHECK(made.error().code == Errc::bad_option);
        continue;
      }
      const auto state = made->policy.start(Shape{1, 2, 2, 4, 4});
      REQUIRE(!state);
      CHECK(state.error().code == Errc::bad_option);
    }
  }
  CHECK(asked > 40);
}

TEST_CASE("What would want memory or time without end is a bad option", "[methods][Signal]") {
  for (const char* const text : {"RKV:window=2147483647", "Scissorhands:history=2147483647",
                                 "Scissorhands:history=65537", "ExpectedAttention:future=2147483647"}) {
    INFO(text);
    const auto got = kept(text);
    REQUIRE(!got);
    CHECK(got.error().code == Errc::bad_option);
  }
}

TEST_CASE("A chunk as large as can be said is the whole head", "[methods][Chunks]") {
  for (const char* const text :
       {"ChunkKV:chunk=2147483647,window=4", "ChunkKV:chunk=40,window=4", "ChunkKV:chunk=20,window=4"}) {
    INFO(text);
    const auto got = kept(text);
    REQUIRE(got);
    CHECK(*got == 10);
  }
}

TEST_CASE("Scores that are not finite keep to the budget", "[methods][Policy]") {
  const float inf = std::numeric_limits<float>::infinity();
  for (const char* const text :
       {"KeyNorm", "KeyDiff", "ChunkKV:chunk=5,score=norm", "ChunkKV:chunk=5,window=4", "TOVA",
        "SnapKV:window=4", "AdaKV:window=4", "AdaKV:window=4,normalise=yes"})
    for (const float spike : {inf, -inf, std::numeric_limits<float>::quiet_NaN()}) {
      INFO(text << " " << spike);
      const auto got = kept(text, spike);
      REQUIRE(got);
      CHECK(*got <= n);
      if (std::string(text).substr(0, 5) != "AdaKV") CHECK(*got == 10);
    }
}

TEST_CASE("SPECs that contradict themselves, or nest without end, say so", "[methods][Spec]") {
  std::string deep = "f16", fault;
  for (int i = 0; i < 9; ++i) deep = "rotated(" + deep + ")";
  for (const std::string& text :
       {deep, std::string("SnapKV:tolerance=0.5,budget=10"), std::string("SnapKV+oracle")}) {
    INFO(text);
    const auto spec = methods::parse_spec(text, fault);
    REQUIRE(spec);
    const auto made = methods::make(*spec, fault);
    REQUIRE(!made);
    CHECK(made.error().code == Errc::bad_option);
    CHECK(!fault.empty());
  }
}

TEST_CASE("A default that list shows may be written out", "[methods][options]") {
  for (const methods::Entry& e : methods::registry()) {
    if (!e.evicts) continue;
    for (const methods::OptionInfo& o : e.options) {
      if (o.value.empty()) continue;
      INFO(e.info.name << ":" << o.name << "=" << o.value);
      std::string fault;
      CHECK(e.make({{o.name, o.value}}, fault));
      CHECK(fault.empty());
    }
  }
}

TEST_CASE("Groups of a store are counted from 1, also where nothing is coded", "[methods][stores]") {
  for (const char* text : {"KIVI:bits=16,group=0", "KIVI:k_bits=16,v_bits=16,group=0,residual=0",
                           "KIVI:bits=16,group=-32", "KIVI:group=-2147483648", "int_token:bits=16,group=-5",
                           "int_token:group=-1", "int_channel:group=0", "int_channel:group=-32"}) {
    INFO(text);
    std::string fault;
    const auto spec = methods::parse_spec(text, fault);
    REQUIRE(spec);
    CHECK_FALSE(methods::make(*spec, fault).has_value());
  }
}
