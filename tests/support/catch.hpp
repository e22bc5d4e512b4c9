#pragma once
// SPDX-License-Identifier: Apache-2.0
// Catch2 of either line (Debian's 2.13 or version 3) under one name, and KVIST_SKIP.

#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
using Catch::Approx;  // version 2 has it here, too
#else
#include <catch2/catch.hpp>
namespace Catch {
using Detail::Approx;  // version 3's name
}
#endif

#include <cstdio>
#include <string>
#include <string_view>

namespace kvist::test {

/// Whether the running case called KVIST_SKIP; catch_main.cpp reads and clears it when the case ends.
inline bool case_skipped = false;

/// Prints `SKIPPED: <name of the running case> (needs <what>)` and marks the case as skipped.
inline void skip_case(std::string_view what) {
  case_skipped = true;
  const std::string name = Catch::getResultCapture().getCurrentTestName();
  if (what.empty() || what == name) {
    std::printf("SKIPPED: %s\n", name.c_str());
  } else {
    std::printf("SKIPPED: %s (needs %.*s)\n", name.c_str(), int(what.size()), what.data());
  }
  std::fflush(stdout);
}

}  // namespace kvist::test

/// Ends the case here and counts it as skipped, not as passed: for cases whose file is not on this machine.
/// `what` names what is missing: KVIST_SKIP("the SmolLM2 model").
#define KVIST_SKIP(what)            \
  do {                              \
    ::kvist::test::skip_case(what); \
    SUCCEED("skipped");             \
    return;                         \
  } while (false)
