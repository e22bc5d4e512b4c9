// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/executor.hpp>
#include <kvist/core/types.hpp>
#include <kvist/core/version.hpp>
#include <support/catch.hpp>

#include <string>
#include <type_traits>
#include <vector>

using kvist::Index;
using kvist::Shape;

TEST_CASE("Stored halves are two plain bytes", "[core][f16][bf16]") {
  STATIC_REQUIRE(sizeof(kvist::f16) == 2);
  STATIC_REQUIRE(sizeof(kvist::bf16) == 2);
  STATIC_REQUIRE(std::is_trivially_copyable_v<kvist::f16>);
  STATIC_REQUIRE(std::is_trivially_copyable_v<kvist::bf16>);
  STATIC_REQUIRE(kvist::Scalar<float>);
  STATIC_REQUIRE(!kvist::Scalar<double>);
}

TEST_CASE("A Shape is valid when every size is positive and query heads divide over KV heads",
          "[core][Shape]") {
  const Shape smollm2{30, 9, 3, 64, 64};
  CHECK(smollm2.valid());
  CHECK(smollm2.group() == 3);
  CHECK(!Shape{}.valid());                 // no channels yet
  CHECK(!Shape{1, 8, 3, 64, 64}.valid());  // 8 heads over 3
  CHECK(!Shape{0, 9, 3, 64, 64}.valid());
  CHECK(!Shape{1, 9, 0, 64, 64}.valid());
  CHECK(!Shape{1, -3, 3, 64, 64}.valid());
  CHECK(!Shape{1, 9, 3, 0, 64}.valid());
  CHECK(!Shape{1, 9, 3, 64, -1}.valid());
}

TEST_CASE("Serial runs every index once, in order", "[core][Serial]") {
  std::vector<Index> seen;
  const kvist::Serial serial;
  serial.for_each(5, [&](Index i) { seen.push_back(i); });
  CHECK(seen == std::vector<Index>{0, 1, 2, 3, 4});
  serial.for_each(0, [&](Index i) { seen.push_back(i); });
  CHECK(seen.size() == 5);
}

TEST_CASE("The version's text is made of its numbers", "[core][version]") {
  const std::string numbers = std::to_string(KVIST_VERSION_MAJOR) + "." +
                              std::to_string(KVIST_VERSION_MINOR) + "." + std::to_string(KVIST_VERSION_PATCH);
  CHECK(numbers == KVIST_VERSION);
  CHECK(numbers == kvist::version);
}
