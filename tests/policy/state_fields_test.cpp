// SPDX-License-Identifier: Apache-2.0
// Records that a merge keeps of its entries, in snapshots: what no merge could have written is refused.
#include <kvist/methods/d2o.hpp>
#include <kvist/methods/h2o.hpp>
#include <kvist/policy/state_fields.hpp>

#include <cstring>
#include <limits>
#include <string>

#include "support/catch.hpp"
#include "support/small_layer.hpp"

using namespace kvist;
using namespace kvist::test;

namespace {

constexpr Shape shape{1, 1, 1, 4, 4};
constexpr Index budget = 20;

struct Bytes {
  std::string text;
  std::size_t at = 0;
  static bool put(void* to, const void* bytes, std::size_t n) {
    static_cast<Bytes*>(to)->text.append(static_cast<const char*>(bytes), n);
    return true;
  }
  static bool get(void* from, void* bytes, std::size_t n) {
    auto& b = *static_cast<Bytes*>(from);
    if (n > b.text.size() - b.at) return false;
    std::memcpy(bytes, b.text.data() + b.at, n);
    b.at += n;
    return true;
  }
};

/// Records after a prompt and steps, in which a merge took place.
template <class P>
typename P::State merged(const P& policy) {
  auto state = *policy.start(shape);
  SmallLayer layer(shape);
  Random random(3);
  layer.append_random(60, random);
  layer.give_random_evidence(60, random);
  run_call(policy, state, layer, prompt_clock(budget));
  for (Index step = 1; step <= 9; ++step) {
    layer.append_random(1, random);
    layer.give_random_evidence(1, random);
    run_call(policy, state, layer, step_clock(step, budget));
  }
  return state;
}

/// Writes the records, and reads them into a state of a new sequence.
template <class P>
Status through(const P& policy, const typename P::State& from, typename P::State& to) {
  const Index rows = Index(from.layers[0].heads[0].entries.size());
  Bytes bytes;
  FieldWriter w(&Bytes::put, &bytes);
  state_fields(w, policy, from, std::span(&rows, 1));
  REQUIRE(w.good());
  FieldReader r(&Bytes::get, &bytes, 1 << 20);
  state_fields(r, policy, to, std::span(&rows, 1));
  if (r.good()) CHECK(bytes.at == bytes.text.size());
  return r.status();
}

/// Good records come back; those that `spoil` has changed do not.
template <class P, class F>
void refused(const P& policy, F&& spoil) {
  auto state = merged(policy), back = *policy.start(shape);
  auto& head = state.layers[0].heads[0];
  float most = 0;
  for (const MergeRecord& r : head.fates) most = std::max(most, r.count);
  REQUIRE(most > 1);
  REQUIRE(through(policy, state, back));
  const auto& got = back.layers[0].heads[0].fates;
  REQUIRE(got.size() == head.fates.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    CHECK(got[i].count == head.fates[i].count);
    CHECK(got[i].stands_in == head.fates[i].stands_in);
  }
  spoil(head);
  back = *policy.start(shape);
  const Status went = through(policy, state, back);
  REQUIRE(!went);
  CHECK(went.error().code == Errc::bad_file);
}

constexpr float nan_of = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();

}  // namespace

TEST_CASE("Counts of a merge that are no counts, and flags that are none, are refused in snapshots",
          "[policy][snapshot][MergeRecord]") {
  auto folding = *methods::H2O::make({});
  folding.settings.merge = Fold::compensate;
  const auto d2o = *methods::D2O::make({});
  for (const float count : {nan_of, inf, -inf, 0.0f, 0.5f, -3.0f}) {
    INFO(count);
    refused(folding, [&](auto& head) { head.fates[7].count = count; });
    refused(d2o, [&](auto& head) { head.fates[7].count = count; });
  }
  for (const std::int32_t flag : {-1, 2, 1 << 20})
    refused(folding, [&](auto& head) { head.fates[0].stands_in = flag; });
}

TEST_CASE("A threshold that follows similarities comes back from snapshots, and is a number",
          "[policy][snapshot][MovingThreshold]") {
  const auto policy = *methods::D2O::make({});
  const auto state = merged(policy);
  auto back = *policy.start(shape);
  REQUIRE(through(policy, state, back));
  const auto &want = state.layers[0].heads[0].fate.gate, &got = back.layers[0].heads[0].fate.gate;
  CHECK(want.started == 1);
  CHECK((got.tau == want.tau && got.started == 1 && got.pending == want.pending));
  refused(policy, [](auto& head) { head.fate.gate.tau = nan_of; });
  refused(policy, [](auto& head) { head.fate.gate.next = inf; });
  refused(policy, [](auto& head) { head.fate.gate.started = 2; });
  refused(policy, [](auto& head) { head.fate.gate.pending = -1; });
}
