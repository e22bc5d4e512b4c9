// SPDX-License-Identifier: Apache-2.0
// MiKV against its formulas in f64: scores, tiers, balancer, codes of the low tier, demotions and outputs of decode.
#include <kvist/cache/cache.hpp>
#include <kvist/methods/mikv.hpp>

#include "support/mikv_run.hpp"
#include "support/recorded.hpp"

using namespace kvist;
using namespace kvist::test;

namespace {

struct Case {
  const char* name;
  int layer;
  Index prompt;
  Index high;  // entries of the prompt that stay high
  int bits;
};

void compare(const Case& c) {
  const std::string at = "official/mikv/" + std::string(c.name), layer = std::to_string(c.layer);
  const Tensor q = recorded("official/inputs/q" + layer), k = recorded("official/inputs/k" + layer),
               v = recorded("official/inputs/v" + layer);
  const Tensor hi0 = recorded(at + "_hi0"), lo0 = recorded(at + "_lo0"),
               balancer = recorded(at + "_balancer"), kcode = recorded(at + "_kcode"),
               kscale = recorded(at + "_kscale"), kmin = recorded(at + "_kmin"),
               vcode = recorded(at + "_vcode"), vscale = recorded(at + "_vscale"),
               vmin = recorded(at + "_vmin"), hi = recorded(at + "_hi"), out = recorded(at + "_out");
  MikvRun run(Shape{1, 9, 3, 64, 64}, c.bits, 32);
  const auto token = [&](std::size_t t) {
    for (std::size_t h = 0; h < 3; ++h) run.give_key(h, k.row(h, t), v.row(h, t));
    for (std::size_t h = 0; h < 9; ++h) run.give_query(h, q.row(h, t));
  };
  for (std::size_t t = 0; t < std::size_t(c.prompt); ++t) token(t);
  run.prompt(c.high);
  std::size_t wrong_codes = 0, codes = 0;
  for (std::size_t h = 0; h < 3; ++h) {
    INFO(c.name << " head " << h);
    CHECK(run.positions(h, 0) == hi0.positions(h));
    CHECK(run.positions(h, 1) == lo0.positions(h));
    const auto b = run.balancer(h);
    for (std::size_t e = 0; e < 64; ++e)
      CHECK(std::fabs(b[e] - balancer.at(h, e)) <= 1e-5f * balancer.at(h, e));
    // decoded rows of the low tier: keys as they are divided by the balancer, values as they are
    const auto rows = run.low_rows(h);
    const std::size_t n = lo0.positions(h).size();
    REQUIRE(rows.first.size() == n * 64);
    for (std::size_t i = 0; i < n; ++i)
      for (std::size_t e = 0; e < 64; ++e) {
        const std::size_t code = (h * n + i) * 64 + e, group = (h * n + i) * 2 + e / 32;
        const float want_k = (kcode.data[code] * kscale.data[group] + kmin.data[group]) / balancer.at(h, e);
        const float want_v = vcode.data[code] * vscale.data[group] + vmin.data[group];
        wrong_codes += std::fabs(rows.first[i * 64 + e] - want_k) > 1e-4f * (1 + std::fabs(want_k));
        wrong_codes += std::fabs(rows.second[i * 64 + e] - want_v) > 1e-4f * (1 + std::fabs(want_v));
        codes += 2;
      }
  }
  INFO(c.name << ": " << wrong_codes << " of " << codes << " decoded numbers differ");
  CHECK(double(wrong_codes) <= 1e-3 * double(codes));  // ties of rounding
  double worst = 0;
  for (std::size_t s = 0; s < 24; ++s) {
    token(std::size_t(c.prompt) + s);
    const auto o = run.step();
    for (std::size_t h = 0; h < 9; ++h)
      for (std::size_t e = 0; e < 64; ++e)
        worst = std::max(worst, std::fabs(double(o[h * 64 + e]) - double(out.at(s, h, e))));
    for (std::size_t h = 0; h < 3; ++h) {
      INFO(c.name << " head " << h << " step " << s);
      CHECK(run.positions(h, 0) == hi.positions(h, s));
    }
  }
  INFO(c.name << ": outputs differ by at most " << worst);
  CHECK(worst <= 2e-3);
}

}  // namespace

TEST_CASE("MiKV's tiers, codes and outputs are those of its formulas over recorded tensors",
          "[golden][MiKV]") {
  if (!have_recorded("official/mikv")) KVIST_SKIP("reference values");
  compare({"l11_p64_b2", 11, 64, 16, 2});
  compare({"l20_p60_b4", 20, 60, 12, 4});
}
