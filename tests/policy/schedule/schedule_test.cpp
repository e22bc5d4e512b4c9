// SPDX-License-Identifier: Apache-2.0
#include <kvist/policy/schedule/schedule.hpp>

#include "support/catch.hpp"

#include <string>
#include <vector>

using namespace kvist;

namespace {

/// When a schedule is due: two chunks and the end of a prompt of `size` entries, then six steps.
template <class S>
std::string dues(const S& s, Index size = 100, Index budget = 50) {
  std::string out;
  for (int chunk = 0; chunk < 3; ++chunk)
    out += s.due({Phase::prefill, 0, size, budget, chunk == 2}) ? 'x' : '.';
  out += ' ';
  for (Index step = 1; step <= 6; ++step) out += s.due({Phase::decode, step, size, budget, true}) ? 'x' : '.';
  return out;
}

}  // namespace

TEST_CASE("Schedules are due when they say", "[policy][schedule]") {
  CHECK(dues(AfterPrefill{}) == "..x ......");
  CHECK(dues(PerChunk{}) == "xxx ......");
  CHECK(dues(EveryStep{}) == "..x xxxxxx");
  CHECK(dues(EverySteps{3, false}) == "... ..x..x");
  CHECK(dues(EverySteps{3, true}) == "..x ..x..x");
  CHECK(dues(OverBudget{}) == "..x xxxxxx");
  CHECK(dues(OverBudget{}, 50) == "... ......");
  CHECK(dues(OverBudget{49}) == "..x xxxxxx");
  CHECK(dues(OverBudget{50}) == "... ......");
}

TEST_CASE("A chosen schedule is due as the one it names", "[policy][schedule]") {
  using Kind = ChosenSchedule::Kind;
  CHECK(dues(ChosenSchedule{}) == "... ......");
  CHECK(dues(ChosenSchedule{Kind::after_prefill, 1, 0}) == dues(AfterPrefill{}));
  CHECK(dues(ChosenSchedule{Kind::per_chunk, 1, 0}) == dues(PerChunk{}));
  CHECK(dues(ChosenSchedule{Kind::every_step, 1, 0}) == dues(EveryStep{}));
  CHECK(dues(ChosenSchedule{Kind::every_steps, 2, 0}) == dues(EverySteps{2, true}));
  CHECK(dues(ChosenSchedule{Kind::over_budget, 1, 49}) == dues(OverBudget{49}));
  CHECK(dues(ChosenSchedule{Kind::over_budget, 1, 50}) == dues(OverBudget{50}));
}
