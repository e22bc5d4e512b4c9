// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/vector_rows.hpp>

#include "support/catch.hpp"

using namespace kvist;

TEST_CASE("Erased rows go, the others keep their order, and rows that are not there change nothing",
          "[core][vector_rows]") {
  std::vector<int> v{0, 1, 2, 3, 4, 5};
  detail::erase_rows(v, {});
  CHECK(v == std::vector<int>{0, 1, 2, 3, 4, 5});
  detail::erase_rows(v, {0, 2, 5});
  CHECK(v == std::vector<int>{1, 3, 4});
  detail::erase_rows(v, {2, 7});
  CHECK(v == std::vector<int>{1, 3});
  detail::erase_rows(v, {4, 9});
  CHECK(v == std::vector<int>{1, 3});
  detail::erase_rows(v, {0, 1});
  CHECK(v.empty());
}

TEST_CASE("Fitted memory holds the elements, or the room that was asked for", "[core][vector_rows]") {
  std::vector<int> v(1000, 7);
  v.resize(3);
  detail::fit_memory(v, 10);
  CHECK(v == std::vector<int>(3, 7));
  CHECK(v.capacity() == 10);
  detail::fit_memory(v, 0);
  CHECK(v == std::vector<int>(3, 7));
  CHECK(v.capacity() == 3);
}
