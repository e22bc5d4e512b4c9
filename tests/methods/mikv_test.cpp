// SPDX-License-Identifier: Apache-2.0
// MiKV by hand: a prompt of six tokens and a decode step, as literal numbers.
#include <kvist/methods/mikv.hpp>

#include "support/coded_rows.hpp"
#include "support/mikv_run.hpp"

using namespace kvist;
using namespace kvist::test;

namespace {

using Line = std::vector<float>;

const std::vector<Line> keys{{1, 16, -1, 2, .5f, 0, 1, .25f},   {2, 24, 0, -2, 0, 1, 2, 3},
                             {-1, -12, 2, 1, 1, -1, .5f, -.5f}, {0, 12, 1, 1, 2, .5f, -1, 1},
                             {2, -16, -1, 0, -3, -2, 0, 0},     {-2, 4, 2, -1, 1, 1, 1, 1}};
const std::vector<Line> queries{{2, 1.5f, 1, 2, 1, 1, 1, 1},  {2, -.5f, 2, 1, .5f, .5f, -1, 1},
                                {1, .25f, -2, 2, 0, 2, 1, 0}, {-1, .5f, 1, 1, 3, 1, 2, 2},
                                {2, -1, 1, -1, 1, 0, 0, 3},   {1, .5f, 2, 2, 1, 1, -1, 0}};
const std::vector<Line> values{{0, 1, 2, 3, 1, 1, 1, 1},       {3, 0, 1.25f, 2.5f, 0, -1, -2, -3},
                               {1, 1, 4, 4, 0, .5f, 1, 1.5f},  {-3, 0, -2, -1, 6, 0, 1, 2},
                               {2, 2.5f, 3, 3.5f, 0, 0, 0, 3}, {1, 0, .5f, 0, 1, 4, 2, 3}};

void close(const Line& got, const Line& want, double tolerance) {
  REQUIRE(got.size() == want.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    INFO("number " << i);
    CHECK(std::fabs(double(got[i]) - double(want[i])) <= tolerance);
  }
}
Line joined(const std::vector<Line>& rows) {
  Line out;
  for (const Line& r : rows) out.insert(out.end(), r.begin(), r.end());
  return out;
}

/// Bytes of the codes of a row of 8 channels in two groups, 2 bits each.
std::vector<unsigned> bytes(Line x) {
  const IntToken<f16> codec{2, 4};
  std::vector<std::byte> b(codec.block_bytes(8));
  codec.encode({}, x.data(), 1, 8, b.data());
  return {unsigned(b[0]), unsigned(b[1])};
}

MikvRun after_prompt() {
  MikvRun run(Shape{1, 1, 1, 8, 8}, 2, 4);
  for (std::size_t t = 0; t < 6; ++t) {
    run.give_key(0, keys[t], values[t]);
    run.give_query(0, queries[t]);
  }
  run.prompt(2);  // a third of six
  return run;
}

/// Root of the mean squared error of the logits that all queries give the low keys.
double logit_error(const Line& low) {
  double sum = 0;
  for (const Line& q : queries)
    for (std::size_t i = 0; i < 4; ++i) {
      double e = 0;
      for (std::size_t c = 0; c < 8; ++c)
        e += double(q[c]) * (double(keys[i + 1][c]) - double(low[i * 8 + c]));
      sum += e * e;
    }
  return std::sqrt(sum / 24);
}

}  // namespace

TEST_CASE("A prompt has the scores, tiers, balancer and codes of the worked example", "[methods][MiKV]") {
  MikvRun run = after_prompt();
  const double scores[6] = {2.758054, 1.430492, .130003, .791431, .874558, .015462};
  for (std::size_t i = 0; i < 6; ++i) CHECK(double(run.score(0, i)) == Approx(scores[i]).margin(1e-6));
  CHECK(run.positions(0, 0) == std::vector<Pos>{0, 5});
  CHECK(run.positions(0, 1) == std::vector<Pos>{1, 2, 3, 4});
  CHECK(run.balancer(0) == Line{1, .25f, 1, 1, 1, 1, 1, 1});

  const auto balanced = [](Line k) {
    k[1] *= .25f;
    return bytes(k);
  };
  CHECK(balanced(keys[1]) == std::vector<unsigned>{0x1E, 0xE4});
  CHECK(balanced(keys[2]) == std::vector<unsigned>{0xB1, 0x63});
  CHECK(balanced(keys[3]) == std::vector<unsigned>{0x5C, 0x8B});
  CHECK(balanced(keys[4]) == std::vector<unsigned>{0xA3, 0xF4});
  CHECK(bytes(values[1]) == std::vector<unsigned>{0x93, 0x1B});
  CHECK(bytes(values[2]) == std::vector<unsigned>{0xF0, 0xE4});
  CHECK(bytes(values[3]) == std::vector<unsigned>{0x9C, 0x43});
  CHECK(bytes(values[4]) == std::vector<unsigned>{0xE4, 0xC0});

  const auto low = run.low_rows(0);
  close(low.first,
        joined({{3.332031f, 23.992188f, .666016f, -2, 0, 1, 2, 3},
                {-1.333008f, -12, 2.000977f, .333984f, .999512f, -1, .333008f, -.333496f},
                {0, 12, 1, 1, 2, 1, -1, 1},
                {2, -16, 0, 0, -3, -2, 0, 0}}),
        1e-6);
  CHECK(logit_error(low.first) == Approx(1.7493).margin(5e-5));
  // without the balancer the loud channel wipes out its group
  Line plain;
  const IntToken<f16> codec{2, 4};
  for (std::size_t i = 1; i < 5; ++i) {
    std::vector<std::byte> b(codec.block_bytes(8));
    Line x(8);
    codec.encode({}, keys[i].data(), 1, 8, b.data());
    codec.decode({}, b.data(), 1, 8, x.data());
    plain.insert(plain.end(), x.begin(), x.end());
  }
  close({plain.begin(), plain.begin() + 4}, {-2, 23.992f, -2, -2}, 1e-3);
  CHECK(logit_error(plain) == Approx(5.0666).margin(5e-5));
}

TEST_CASE("A decode step has the logits, output and demotion of the worked example", "[methods][MiKV]") {
  MikvRun run = after_prompt();
  run.give_key(0, {1, 4, 1, 0, 1, 0, 1, 0}, {2, 0, 2, 0, 1, 1, 1, 1});
  run.give_query(0, {1, .25f, -1, 1, 1, 0, 0, 1});
  close(run.step(), {1.121095f, .355262f, .993845f, 1.883019f, 1.171359f, -.06809f, -.560629f, -.760044f}, 2e-5);
  // entry 5 goes: the step still read it exactly; entry 6 is the newest
  CHECK(run.positions(0, 0) == std::vector<Pos>{0, 6});
  CHECK(run.positions(0, 1) == std::vector<Pos>{1, 2, 3, 4, 5});
  const auto low = run.low_rows(0);
  close({low.first.begin() + 32, low.first.end()}, {-2, 2.664062f, 1.999023f, -.666992f, 1, 1, 1, 1}, 1e-6);
  close({low.second.begin() + 32, low.second.end()}, {.999756f, 0, .666504f, 0, 1, 4, 2, 3}, 1e-6);
  CHECK(bytes({-2, 1, 2, -1, 1, 1, 1, 1}) == std::vector<unsigned>{0x78, 0x00});
  CHECK(bytes({1, 0, .5f, 0, 1, 4, 2, 3}) == std::vector<unsigned>{0x23, 0x9C});
}

TEST_CASE("The logits of both tiers are those of the worked example", "[methods][MiKV]") {
  MikvRun run = after_prompt();
  run.give_key(0, {1, 4, 1, 0, 1, 0, 1, 0}, {2, 0, 2, 0, 1, 1, 1, 1});
  run.give_query(0, {1, .25f, -1, 1, 1, 0, 0, 1});
  auto& cache = run.cache();
  const Line k{1, 4, 1, 0, 1, 0, 1, 0}, v{2, 0, 2, 0, 1, 1, 1, 1}, q{1, .25f, -1, 1, 1, 0, 0, 1};
  REQUIRE(cache.append(0, 1, k.data(), v.data(), 6));
  Line logits(7);
  AttendArgs args;
  args.q = q.data();
  args.scale = 1.0f / std::sqrt(8.0f);
  args.logits = logits.data();
  args.logits_stride = 7;
  AttnBuffer buffer(1, 8);
  cache.head(0, 0).attend(args, buffer.state());
  // tier 0 holds entries 0, 5, 6, tier 1 entries 1 .. 4
  close(logits, {3.09359f, -.70711f, .70711f, 3.41676f, -1.88585f, 2.12132f, -1.76777f}, 1e-5);
  const auto p = [&](std::size_t i) {
    return std::exp(double(logits[i]) - double(buffer.state().m[0])) / double(buffer.state().l[0]);
  };
  const double want[7] = {.346183, .007739, .031832, .478251, .002381, .130934, .002679};
  for (std::size_t i = 0; i < 7; ++i) CHECK(p(i) == Approx(want[i]).margin(2e-6));
}

TEST_CASE("With the whole budget MiKV is the full cache, and with more bits the error falls",
          "[methods][MiKV]") {
  Numbers numbers(5);
  const Shape shape{1, 2, 1, 32, 32};
  std::vector<double> errors;
  for (const int bits : {0, 2, 3, 4, 8}) {  // 0: everything stays high
    MikvRun run(shape, std::max(bits, 2), 16), exact(shape, 2, 16);
    Numbers same(9);
    for (Index t = 0; t < 60; ++t) {
      const auto k = same.rows(1, 32), v = same.rows(1, 32), a = same.rows(1, 32), b = same.rows(1, 32);
      for (MikvRun* r : {&run, &exact}) {
        r->give_key(0, k, v);
        r->give_query(0, a);
        r->give_query(1, b);
      }
      if (t == 49) {
        run.prompt(bits == 0 ? 50 : 10);
        exact.prompt(50);
      }
      if (t < 50) continue;
      const auto x = run.step(), y = exact.step();
      double e = 0;
      for (std::size_t i = 0; i < x.size(); ++i) e += std::fabs(double(x[i]) - double(y[i]));
      if (t == 50) errors.push_back(0);
      errors.back() += e;
    }
    CHECK(Index(exact.positions(0, 0).size()) == 60);  // the share of the prompt: all
    CHECK(Index(run.positions(0, 0).size()) == (bits == 0 ? 60 : 12));
  }
  CHECK(errors[0] == 0);
  for (std::size_t i = 2; i < errors.size(); ++i) CHECK(errors[i] < errors[i - 1]);
}
