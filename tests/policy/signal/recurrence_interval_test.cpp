// SPDX-License-Identifier: Apache-2.0
#include <kvist/policy/signal/recurrence_interval.hpp>

#include "support/catch.hpp"

using namespace kvist;

TEST_CASE("RecurrenceInterval's scores are the formulas' in both forms", "[policy][RecurrenceInterval]") {
  struct Case {
    Index last, longest;
    double code, paper;
  };
  const RecurrenceInterval code{1e-4, RecurrenceForm::code, Reduce::max};
  const RecurrenceInterval paper{1e-4, RecurrenceForm::paper, Reduce::max};
  for (const Case& c : {Case{10, 1, 1.537883, 2.0},
                        {9, 1, 1.238408, 1.537883},
                        {6, 4, .333258, .632735},
                        {2, 8, .240228, .539705},
                        {2, 2, .551269, .573855},
                        {10, 0, .537883, 1.0},
                        {9, 0, 0, 0},
                        {0, 0, 0, 0}}) {
    CHECK(code.value(10 - c.last, c.longest) == Approx(c.code).margin(1e-6));
    CHECK(paper.value(10 - c.last, c.longest) == Approx(c.paper).margin(1e-6));
  }
}

TEST_CASE("RecurrenceInterval falls with silence", "[policy][RecurrenceInterval]") {
  for (const RecurrenceForm form : {RecurrenceForm::code, RecurrenceForm::paper}) {
    const RecurrenceInterval signal{1e-4, form, Reduce::max};
    for (Index longest = 0; longest < 2000; longest = 2 * longest + 1)
      for (Index silence = 0; silence < 1000; ++silence) {
        CHECK(signal.value(silence + 1, longest) <= signal.value(silence, longest));
        CHECK(signal.value(silence, longest) >= 0);
      }
    CHECK(std::isfinite(signal.value(1'000'000'000, 0)));
    CHECK(std::isfinite(signal.value(0, 1'000'000'000)));
  }
}
