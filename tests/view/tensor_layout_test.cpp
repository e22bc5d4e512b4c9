// SPDX-License-Identifier: Apache-2.0
#include <kvist/view/tensor_layout.hpp>

#include "support/catch.hpp"

#include <limits>
#include <numeric>
#include <vector>

using namespace kvist;

namespace {

using Axes = std::vector<TensorAxis>;

std::vector<float> counted(std::size_t size) {
  std::vector<float> x(size);
  std::iota(x.begin(), x.end(), 0.0f);
  return x;
}
Errc fault(const Axes& axes, const std::vector<std::int32_t>& table, Index n) {
  const auto x = counted(4096);
  const auto rows = rows_of(x.data(), axes, table, n);
  REQUIRE(!rows);
  return rows.error().code;
}

}  // namespace

TEST_CASE("Axes become strides, from the innermost out", "[view][tensor_layout]") {
  const auto x = counted(2 * 3 * 4 * 5);
  // [2][row 3][head 4][channel 5]
  for (Index head = 0; head < 4; ++head) {
    const auto rows = rows_of(
        x.data(), Axes{{Axis::fixed, 2, 1}, {Axis::row, 3}, {Axis::fixed, 4, head}, {Axis::channel, 5}}, {}, 3);
    REQUIRE(rows);
    CHECK(rows->size() == 3);
    CHECK(rows->dim() == 5);
    for (Index i = 0; i < 3; ++i)
      for (int c = 0; c < 5; ++c) CHECK(rows->at(i, c) == float(60 + i * 20 + head * 5 + c));
  }
  // [2][channel 5][row 12]: transposed
  const auto turned = rows_of(x.data(), Axes{{Axis::fixed, 2, 1}, {Axis::channel, 5}, {Axis::row, 12}}, {}, 7);
  REQUIRE(turned);
  CHECK(turned->size() == 7);
  CHECK(turned->at(3, 2) == 60 + 2 * 12 + 3);
  // a padded stride: [row 3 of 40][channel 5]
  const auto padded = rows_of(x.data(), Axes{{Axis::row, 3, 0, 40}, {Axis::channel, 5}}, {}, 3);
  REQUIRE(padded);
  CHECK(padded->at(2, 4) == 84);
}

TEST_CASE("A table names pages, or single cells where there are none", "[view][tensor_layout]") {
  const auto x = counted(6 * 2 * 4 * 3);
  const std::vector<std::int32_t> pages{4, 1, -1};
  const auto paged = rows_of(
      x.data(), Axes{{Axis::page, 6}, {Axis::fixed, 2, 1}, {Axis::row, 4}, {Axis::channel, 3}}, pages, 7);
  REQUIRE(paged);
  for (Index i = 0; i < 7; ++i)
    for (int c = 0; c < 3; ++c)
      CHECK(paged->at(i, c) == float((pages[std::size_t(i / 4)] * 2 + 1) * 12 + i % 4 * 3 + c));
  const std::vector<std::int32_t> cells{9, 2, 30};
  const auto single = rows_of(x.data(), Axes{{Axis::row, 48}, {Axis::channel, 3}}, cells, 3);
  REQUIRE(single);
  for (Index i = 0; i < 3; ++i) CHECK(single->at(i, 1) == float(cells[std::size_t(i)] * 3 + 1));
  // The same places to be written.
  auto y = x;
  const auto to = mutable_rows_of(y.data(), Axes{{Axis::row, 48}, {Axis::channel, 3}}, cells, 3);
  REQUIRE(to);
  to->copy(2, 0);
  CHECK(y[27] == 90);
  CHECK(y[26] == 26);
  CHECK(y[30] == 30);
}

TEST_CASE("A split axis is one where its parts follow one another, and tiles are not",
          "[view][tensor_layout]") {
  const auto x = counted(2 * 3 * 4 * 5);
  const auto joined = rows_of(x.data(), Axes{{Axis::row, 6}, {Axis::row, 4}, {Axis::channel, 5}}, {}, 24);
  REQUIRE(joined);
  CHECK(joined->at(23, 4) == 119);
  const auto channels = rows_of(x.data(), Axes{{Axis::row, 6}, {Axis::channel, 4}, {Axis::channel, 5}}, {}, 6);
  REQUIRE(channels);
  CHECK(channels->dim() == 20);
  // parts of one element change nothing
  const auto single =
      rows_of(x.data(), Axes{{Axis::row, 1}, {Axis::channel, 5}, {Axis::row, 24}, {Axis::channel, 1}}, {}, 24);
  REQUIRE(single);
  CHECK(single->at(3, 2) == 2 * 24 + 3);
  CHECK(fault({{Axis::row, 6}, {Axis::channel, 5}, {Axis::row, 4}}, {}, 24) == Errc::unsupported);
  CHECK(fault({{Axis::channel, 2}, {Axis::row, 6}, {Axis::channel, 5}}, {}, 6) == Errc::unsupported);
}

TEST_CASE("Layouts that do not fit are Errors, whatever the numbers", "[view][tensor_layout]") {
  const Axes good{{Axis::page, 6}, {Axis::row, 4}, {Axis::channel, 3}};
  const std::vector<std::int32_t> table{4, 1};
  CHECK(fault(good, table, 9) == Errc::bad_shape);  // more than two pages
  CHECK(fault(good, table, -1) == Errc::bad_shape);
  CHECK(fault(good, {}, 1) == Errc::bad_shape);   // no page
  CHECK(fault(good, {6}, 1) == Errc::bad_shape);  // a page the pool lacks
  CHECK(fault(good, {-1, 2}, 5) == Errc::bad_shape);
  CHECK(fault({{Axis::row, 4}, {Axis::channel, 3}}, {}, 5) == Errc::bad_shape);
  CHECK(fault({{Axis::row, 4}, {Axis::channel, 3}}, {4}, 1) == Errc::bad_shape);
  CHECK(fault({{Axis::row, 4}}, {}, 1) == Errc::bad_shape);
  CHECK(fault({{Axis::channel, 4}}, {}, 1) == Errc::bad_shape);
  CHECK(fault({}, {}, 0) == Errc::bad_shape);
  CHECK(fault({{Axis::fixed, 2, 2}, {Axis::row, 4}, {Axis::channel, 3}}, {}, 1) == Errc::bad_shape);
  CHECK(fault({{Axis::fixed, 2, -1}, {Axis::row, 4}, {Axis::channel, 3}}, {}, 1) == Errc::bad_shape);
  CHECK(fault({{Axis::row, 0}, {Axis::channel, 3}}, {}, 0) == Errc::bad_shape);
  CHECK(fault({{Axis::row, 4, 0, -3}, {Axis::channel, 3}}, {}, 1) == Errc::bad_shape);
  CHECK(fault({{Axis::row, 4, 0, 2}, {Axis::channel, 3}}, {}, 1) == Errc::bad_shape);  // rows over one another
  const Index most = std::numeric_limits<Index>::max();
  CHECK(fault({{Axis::row, most}, {Axis::fixed, most, 0}, {Axis::channel, 3}}, {}, 1) == Errc::bad_shape);
  CHECK(fault({{Axis::row, most}, {Axis::row, most}, {Axis::channel, 1}}, {}, 1) == Errc::bad_shape);
  CHECK(fault({{Axis::row, 4, 0, std::numeric_limits<std::ptrdiff_t>::max()}, {Axis::channel, 3}}, {}, 1) ==
        Errc::bad_shape);
  CHECK(fault({{Axis::row, 4}, {Axis::channel, most}}, {}, 1) == Errc::bad_shape);
  const auto x = counted(12);
  const auto none = rows_of(x.data(), Axes{{Axis::row, 4}, {Axis::channel, 3}}, {}, 0);
  REQUIRE(none);
  CHECK(none->size() == 0);
}
