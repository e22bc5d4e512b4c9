// SPDX-License-Identifier: Apache-2.0
#include <kvist/io/format.hpp>
#include <support/catch.hpp>

using namespace kvist;

TEST_CASE("An error reads as a sentence with its numbers", "[io][format]") {
  const Error e{Errc::bad_budget, "the guarded entries do not fit in the budget of a head", 36, 20};
  CHECK(
      fmt::format("{}", e) ==
      "the budget cannot be met: the guarded entries do not fit in the budget of a head (wanted 36, got 20)");
  CHECK(fmt::format("{}", Error{Errc::not_found, "a file cannot be opened", 0, 0}) ==
        "not found: a file cannot be opened");
  CHECK(fmt::format("{:>60}|", Error{Errc::not_found, "x", 0, 0}).size() == 61);
}

TEST_CASE("Every error code has words of its own", "[io][format]") {
  for (int i = 0; i <= int(Errc::not_found); ++i)
    for (int j = 0; j < i; ++j) CHECK(describe(Errc(i)) != describe(Errc(j)));
}

TEST_CASE("Bytes are written with three figures", "[io][format]") {
  CHECK(bytes_text(0) == "0 B");
  CHECK(bytes_text(999) == "999 B");
  CHECK(bytes_text(1000) == "1 kB");
  CHECK(bytes_text(94371840) == "94.4 MB");
  CHECK(bytes_text(999999) == "1 MB");
  CHECK(bytes_text(1.5e9) == "1.5 GB");
}

TEST_CASE("A shape names its sizes", "[io][format]") {
  CHECK(fmt::format("{}", Shape{30, 9, 3, 64, 64}) == "30 layers, 9 query heads, 3 KV heads, dim 64");
}
