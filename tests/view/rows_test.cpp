// SPDX-License-Identifier: Apache-2.0
#include <kvist/view/mutable_rows.hpp>
#include <kvist/view/rows.hpp>

#include "support/catch.hpp"

#include <vector>

using namespace kvist;

namespace {

float content(Index i, int c) { return float(4 * i + c); }  // whole and below 256: exact in bf16

/// Rows as for_each_run yields them, [n][d].
template <class V>
std::vector<float> by_runs(const V& v) {
  std::vector<float> out(std::size_t(v.size()) * std::size_t(v.dim()), -1);
  Index next = 0;
  v.for_each_run([&](auto run, Index first) {
    CHECK(first == next);
    CHECK(run.n > 0);
    CHECK(run.d == v.dim());
    next = first + run.n;
    for (Index i = 0; i < run.n; ++i)
      for (int c = 0; c < run.d; ++c) out[std::size_t((first + i) * run.d + c)] = run.at(i, c);
  });
  CHECK(next == v.size());
  return out;
}

template <class V>
void shows_content(const V& v, Index n, int d) {
  REQUIRE(v.size() == n);
  REQUIRE(v.dim() == d);
  const std::vector<float> all = by_runs(v);
  for (Index i = 0; i < n; ++i)
    for (int c = 0; c < d; ++c) {
      CHECK(v.at(i, c) == content(i, c));
      CHECK(all[std::size_t(i * d + c)] == content(i, c));
    }
}

template <class T>
void check_type() {
  constexpr Index n = 11;
  constexpr int d = 3;
  std::vector<T> memory(4096);
  // Contiguous, padded, transposed.
  for (const auto& [stride, channel] :
       {std::pair<std::ptrdiff_t, std::ptrdiff_t>{d, 1}, {8, 2}, {1, n}, {1, 16}}) {
    for (Index i = 0; i < n; ++i)
      for (int c = 0; c < d; ++c) memory[std::size_t(i * stride + c * channel)] = from_f32<T>(content(i, c));
    const Rows<T> view{memory.data(), n, d, stride, channel};
    shows_content(view, n, d);
    shows_content(AnyRows(view), n, d);
    const Rows<T> part = view.part(4, 5);
    CHECK(part.n == 5);
    CHECK(part.at(2, 1) == content(6, 1));
  }
  // Pages in any order, rows or channels side by side inside them, the last page not full.
  for (const Index page : {1, 4, 11, 16})
    for (const bool channels_outside : {false, true}) {
      const Index pages = (n + page - 1) / page;
      std::vector<std::int32_t> table;
      for (Index p = 0; p < pages; ++p) table.push_back((p * 5 + 2) % (pages + 7));
      PagedRows<T> view{memory.data(), table.data(), n, d, page, std::ptrdiff_t(page) * d, d, 1};
      if (channels_outside) view.stride = 1, view.channel_stride = page;
      bool distinct = true;
      for (std::size_t a = 0; a < table.size(); ++a)
        for (std::size_t b = 0; b < a; ++b) distinct = distinct && table[a] != table[b];
      if (!distinct) continue;
      for (Index i = 0; i < n; ++i)
        for (int c = 0; c < d; ++c)
          memory[std::size_t(table[std::size_t(i / page)] * view.page_stride + (i % page) * view.stride +
                             c * view.channel_stride)] = from_f32<T>(content(i, c));
      shows_content(view, n, d);
      shows_content(AnyRows(view), n, d);
    }
}

}  // namespace

TEST_CASE("Rows of every type show their content at any strides, in one piece and in pages", "[view][Rows]") {
  check_type<float>();
  check_type<f16>();
  check_type<bf16>();
}

TEST_CASE("A reader's rows come in tiles that together are all rows", "[view][ReaderRows]") {
  struct Source {
    int d;
    mutable Index most = 0;
  };
  for (const int d : {1, 64, 3000, 8192}) {
    const Source source{d};
    const auto read = [](const void* context, Index first, Index count, float* out) {
      const Source& s = *static_cast<const Source*>(context);
      s.most = std::max(s.most, count);
      for (Index i = 0; i < count; ++i)
        for (int c = 0; c < s.d; ++c) out[std::ptrdiff_t(i) * s.d + c] = float(first + i) + float(c) / 16384;
    };
    const Index n = d > 1000 ? 7 : 300;
    const ReaderRows view{read, &source, n, d};
    Index next = 0;
    view.for_each_run([&](Rows<float> run, Index first) {
      CHECK(first == next);
      next += run.n;
      for (Index i = 0; i < run.n; ++i) {
        if (run.at(i, 0) != float(first + i)) FAIL("row " << first + i);
        if (run.at(i, d - 1) != float(first + i) + float(d - 1) / 16384) FAIL("row " << first + i);
      }
    });
    CHECK(next == n);
    CHECK(source.most * d <= ReaderRows::tile_floats);
    CHECK(view.at(n - 1, 0) == float(n - 1));
    CHECK(AnyRows(view).at(n / 2, 0) == float(n / 2));
  }
}

TEST_CASE("Views of nothing have no runs", "[view][Rows]") {
  const auto never = [](auto, Index) { FAIL("a run of nothing"); };
  Rows<float>{}.for_each_run(never);
  PagedRows<bf16>{}.for_each_run(never);
  ReaderRows{}.for_each_run(never);
  AnyRows().for_each_run(never);
  CHECK(AnyRows().size() == 0);
}

TEST_CASE("Rows that may be written read back what was written, at any strides", "[view][MutableRows]") {
  std::vector<f16> memory(256);
  const std::vector<std::int32_t> table{3, 0, 2};
  for (const MutableRows<f16>& m : {MutableRows<f16>{memory.data(), nullptr, 9, 4, 0, 0, 4, 1},
                                    MutableRows<f16>{memory.data(), nullptr, 9, 4, 0, 0, 1, 9},
                                    MutableRows<f16>{memory.data(), table.data(), 9, 4, 3, 12, 4, 1},
                                    MutableRows<f16>{memory.data(), table.data(), 9, 4, 3, 12, 1, 3}}) {
    std::vector<float> row(4), got(4);
    for (Index i = 0; i < 9; ++i) {
      for (int c = 0; c < 4; ++c) row[std::size_t(c)] = content(i, c);
      m.write(i, row);
    }
    for (Index i = 0; i < 9; ++i) {
      m.read(i, got);
      for (int c = 0; c < 4; ++c) CHECK(got[std::size_t(c)] == content(i, c));
    }
    m.copy(8, 1);
    m.read(1, got);
    CHECK(got[3] == content(8, 3));
    m.read(2, got);
    CHECK(got[0] == content(2, 0));
  }
}
