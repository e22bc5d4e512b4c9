// SPDX-License-Identifier: Apache-2.0
// Catch2's main, compiled once for all test programs, with a listener that counts cases: where the environment
// variable KVIST_TEST_COUNTS names a file, the run ends by writing "passed failed skipped" to it.
#if !__has_include(<catch2/catch_all.hpp>)
#define CATCH_CONFIG_RUNNER
#endif
#include <support/catch.hpp>

#include <cstdlib>

namespace {

#if __has_include(<catch2/catch_all.hpp>)
using ListenerBase = Catch::EventListenerBase;
#else
using ListenerBase = Catch::TestEventListenerBase;
#endif

struct Counts {
  long passed = 0, failed = 0, skipped = 0;
};
Counts counts;

class CountingListener : public ListenerBase {
 public:
  using ListenerBase::ListenerBase;

  void testCaseEnded(const Catch::TestCaseStats& stats) override {
    if (stats.totals.testCases.failed > 0) {
      ++counts.failed;
    } else if (kvist::test::case_skipped) {
      ++counts.skipped;
    } else {
      ++counts.passed;
    }
    kvist::test::case_skipped = false;
  }
};
CATCH_REGISTER_LISTENER(CountingListener)

}  // namespace

int main(int argc, char** argv) {
  const char* path = std::getenv("KVIST_TEST_COUNTS");
  if (path) std::remove(path);  // a crash must not leave the counts of an earlier run behind
  const int status = Catch::Session().run(argc, argv);
  if (path) {
    if (std::FILE* file = std::fopen(path, "w")) {
      std::fprintf(file, "%ld %ld %ld\n", counts.passed, counts.failed, counts.skipped);
      std::fclose(file);
    }
  }
  return status;
}
