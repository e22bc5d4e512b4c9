// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/assert.hpp>
#include <support/catch.hpp>

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>

namespace {

struct Outcome {
  bool aborted = false;
  std::string said;  // on standard error
};

/// Runs f in a child process: what an abort does must not end the tests.
template <class F>
Outcome in_child(F f) {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  std::fflush(nullptr);
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    dup2(ends[1], 2);
    std::signal(SIGABRT, SIG_DFL);  // the test runner's own handler would report it
    f();
    _exit(0);
  }
  close(ends[1]);
  Outcome outcome;
  char buffer[256];
  for (ssize_t n; (n = read(ends[0], buffer, sizeof buffer)) > 0;)
    outcome.said.append(buffer, std::size_t(n));
  close(ends[0]);
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  outcome.aborted = WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
  return outcome;
}

}  // namespace

TEST_CASE("KVIST_ASSERT ends a checked build at a broken precondition, and costs nothing else",
          "[core][assert]") {
  int evaluated = 0;
  [[maybe_unused]] const auto condition = [&](bool holds) {
    ++evaluated;
    return holds;
  };
  KVIST_ASSERT(condition(true));
#if defined(KVIST_CHECKED)
  CHECK(evaluated == 1);
  const Outcome broken = in_child([&] { KVIST_ASSERT(condition(false) && "rows ascend"); });
  CHECK(broken.aborted);
  CHECK(broken.said.find("assert_test.cpp") != std::string::npos);
  CHECK(broken.said.find("rows ascend") != std::string::npos);
#else
  CHECK(evaluated == 0);
  const Outcome unchecked = in_child([&] { KVIST_ASSERT(condition(false)); });
  CHECK(!unchecked.aborted);
  CHECK(unchecked.said.empty());
#endif
}
