// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/result.hpp>
#include <support/catch.hpp>

#include <memory>
#include <string>
#include <type_traits>
#include <utility>

using kvist::Done;
using kvist::Errc;
using kvist::Error;
using kvist::Result;
using kvist::Status;

TEST_CASE("An Error is copied like plain bytes and compares by its four members", "[core][Error]") {
  STATIC_REQUIRE(std::is_trivially_copyable_v<Error>);
  constexpr Error a{Errc::bad_shape, "", 1, 2};
  STATIC_REQUIRE(a == Error{Errc::bad_shape, a.what, 1, 2});
  STATIC_REQUIRE(!(a == Error{Errc::bad_shape, a.what, 1, 3}));
  STATIC_REQUIRE(!(a == Error{Errc::bad_value, a.what, 1, 2}));
}

TEST_CASE("A Result holds either its value or an Error", "[core][Result]") {
  const Result<std::string> good = std::string("twig");
  REQUIRE(good.has_value());
  CHECK(bool(good));
  CHECK(*good == "twig");
  CHECK(good.value() == "twig");
  CHECK(good->size() == 4);
  CHECK(good.value_or("none") == "twig");

  const Result<std::string> bad = Error{Errc::not_found, "wants a name that exists", 0, 7};
  REQUIRE(!bad.has_value());
  CHECK(!bad);
  CHECK(bad.error().code == Errc::not_found);
  CHECK(bad.error().got == 7);
  CHECK(bad.value_or("none") == "none");
}

TEST_CASE("A Result can be changed in place and moved out of", "[core][Result]") {
  Result<std::unique_ptr<int>> owner = std::make_unique<int>(3);
  **owner = 4;
  const std::unique_ptr<int> taken = *std::move(owner);
  REQUIRE(taken);
  CHECK(*taken == 4);

  Result<int> number = 1;
  number.value() = 5;
  CHECK(*number == 5);
  number = Error{};
  CHECK(!number);
  CHECK(std::move(number).value_or(9) == 9);
}

TEST_CASE("A Status is Done or an Error", "[core][Status]") {
  const Status good = Done{};
  CHECK(good.has_value());
  CHECK(*good == Done{});
  const Status bad = Error{Errc::bad_budget, "wants a budget above the guards", 36, 20};
  CHECK(!bad);
  CHECK(bad.error().want == 36);
}
