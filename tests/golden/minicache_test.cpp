// SPDX-License-Identifier: Apache-2.0
// MiniCache against third-party code and the formula over recorded tensors: directions, norms, distances, retained rows.
#include <kvist/methods/minicache.hpp>

#include "support/recorded.hpp"

using namespace kvist;
using namespace kvist::test;

namespace {

/// Tokens 0 .. 79 of one head of layers 11 and 20 as a pair.
AnyStore pair_of(const Tensor& x, const Tensor& y, std::size_t head, const SharedDirectionOptions& o) {
  using Port = SharedDirectionStore<float>;
  AnyStore lower(Port(AnyStore(DenseStore<float>(64, 64)), 64, 64, o)), upper(Port(64, 64));
  REQUIRE(upper.couple(lower));
  std::vector<float> a, b;
  for (std::size_t t = 0; t < 80; ++t) {
    const Row r = x.row(head, t), s = y.row(head, t);
    a.insert(a.end(), r.begin(), r.end());
    b.insert(b.end(), s.begin(), s.end());
  }
  lower.append(a.data(), a.data(), 80);
  upper.append(b.data(), b.data(), 80);
  upper.settle();
  return lower;
}

}  // namespace

TEST_CASE("Shared directions and retained rows of recorded layers are those of reference code and formula",
          "[golden][MiniCache]") {
  if (!have_recorded("official/minicache")) KVIST_SKIP("reference values");
  struct Case {
    const char *name, *what;
    double t, gamma;
  };
  for (const Case& c :
       {Case{"k_t60_g5", "k", 0.6, 0.05}, Case{"v_t60_g5", "v", 0.6, 0.05}, Case{"k_t50_g10", "k", 0.5, 0.1}}) {
    const std::string at = std::string("official/minicache/") + c.name;
    const Tensor x = recorded(std::string("official/inputs/") + c.what + "11"),
                 y = recorded(std::string("official/inputs/") + c.what + "20");
    const Tensor dir = recorded(at + "_dir"), lower = recorded(at + "_mag_lower"),
                 upper = recorded(at + "_mag_upper"), dist = recorded(at + "_dist"),
                 retained = recorded(at + "_retained"), by_range = recorded(at + "_threshold_keep");
    for (std::size_t h = 0; h < 3; ++h) {
      INFO(c.name << " head " << h);
      for (std::size_t t = 0; t < 80; ++t) {
        const Row a = x.row(h, t), b = y.row(h, t);
        float e[64];
        const Slerp s = slerp(a.data(), b.data(), 64, c.t, e);
        CHECK(s.norm_x == Approx(double(lower.at(h, t))).epsilon(1e-5));
        CHECK(s.norm_y == Approx(double(upper.at(h, t))).epsilon(1e-5));
        CHECK(s.distance() == Approx(double(dist.at(h, t))).margin(1e-5));
        for (std::size_t k = 0; k < 64; ++k)
          CHECK(double(e[k]) == Approx(double(dir.at(h, t, k))).margin(2e-5));
      }
      using Retain = SharedDirectionOptions::Retain;
      AnyStore count = pair_of(x, y, h, {c.t, c.gamma, Retain::count}),
               range = pair_of(x, y, h, {c.t, c.gamma, Retain::range});
      CHECK(count.get<SharedDirectionStore<float>>()->pair().retained_slots(0) == retained.positions(h));
      std::vector<Index> want;
      for (Index t = 0; t < 80; ++t)
        if (by_range.at(h, std::size_t(t)) != 0) want.push_back(t);
      CHECK(range.get<SharedDirectionStore<float>>()->pair().retained_slots(0) == want);
    }
  }
}
