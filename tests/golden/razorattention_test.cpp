// SPDX-License-Identifier: Apache-2.0
// The compensation entry against its formula in f64 over recorded tensors, for 36 queries of a stream.
#include <kvist/cache/cache.hpp>
#include <kvist/policy/dispose/compensate.hpp>
#include <kvist/storage/store/dense.hpp>

#include "support/recorded.hpp"

using namespace kvist;
using namespace kvist::test;

namespace {

void compare(const std::string& name, int layer, Index capacity, Index sinks) {
  const std::string at = "official/razorattention/" + name, l = std::to_string(layer);
  const Tensor q = recorded("official/inputs/q" + l), k = recorded("official/inputs/k" + l),
               v = recorded("official/inputs/v" + l);
  const Tensor count = recorded(at + "_count"), want_k = recorded(at + "_k"), want_v = recorded(at + "_v");
  const Shape shape{1, 9, 3, 64, 64};
  using Streaming = Policy<Recency, KeepEnds, EveryStep, Compensate>;
  for (const bool weighted : {true, false}) {
    const Tensor want = recorded(at + (weighted ? "_ow" : "_o1"));
    Compensate compensate;
    compensate.weighted = weighted;
    auto made = Cache<Streaming, DenseStore<float>>::make(shape, Streaming(KeepEnds{sinks, 0}, compensate),
                                                          [](int, int) {
                                                            std::vector<DenseStore<float>> one;
                                                            one.emplace_back(64, 64);
                                                            return one;
                                                          });
    REQUIRE(made);
    auto& cache = *made;
    const auto rows_of = [&](const Tensor& x, std::size_t from, std::size_t n) {
      std::vector<float> out;
      for (std::size_t t = from; t < from + n; ++t)
        for (std::size_t h = 0; h < x.dim(0); ++h) {
          const Row r = x.row(h, t);
          out.insert(out.end(), r.begin(), r.end());
        }
      return out;
    };
    REQUIRE(cache.append(0, 492, rows_of(k, 0, 492).data(), rows_of(v, 0, 492).data(), 0));
    REQUIRE(cache.observe(0, {}, Clock{Phase::prefill, 0, 0, capacity, true}));
    Serial serial;
    std::vector<float> out(9 * 64);
    double worst = 0;
    for (std::size_t step = 0; step < 36; ++step) {
      const std::size_t t = 492 + step;
      for (int h = 0; h < 3; ++h) {
        CHECK(cache.size(0, h) == capacity);
        CHECK(cache.head(0, h).tier(0).pos[std::size_t(sinks) + 1] == Pos(count.at(step, 1)));
        if (weighted)
          CHECK(cache.bias(0, h)[std::size_t(sinks)] ==
                Approx(std::log(double(count.at(step, 0)))).margin(1e-5));
        if (step == 0 || step == 35) {
          std::vector<float> hk(64), hv(64);
          cache.read(0, h, sinks, 1, hk.data(), hv.data());
          for (std::size_t c = 0; c < 64; ++c) {
            CHECK(hk[c] == Approx(want_k.at(step == 0 ? 0 : 1, std::size_t(h), c)).margin(1e-5));
            CHECK(hv[c] == Approx(want_v.at(step == 0 ? 0 : 1, std::size_t(h), c)).margin(1e-5));
          }
        }
      }
      REQUIRE(cache.append(0, 1, rows_of(k, t, 1).data(), rows_of(v, t, 1).data(), Pos(t)));
      REQUIRE(cache.attend(0, rows_of(q, t, 1).data(), 0.125f, out.data(), serial));
      if (step % 6 == 0)
        for (std::size_t h = 0; h < 9; ++h)
          for (std::size_t c = 0; c < 64; ++c)
            worst = std::max(worst, std::abs(double(out[h * 64 + c]) - double(want.at(step / 6, h, c))));
      REQUIRE(cache.step(0, Clock{Phase::decode, Index(step) + 1, 0, capacity, true}));
    }
    INFO(name << (weighted ? " weighted" : " of weight 1") << ": outputs differ by at most " << worst);
    CHECK(worst <= 2e-5);
  }
}

}  // namespace

TEST_CASE("The compensation entry of a stream gives the outputs of its formula", "[golden][Compensate]") {
  if (!have_recorded("official/razorattention")) KVIST_SKIP("reference values");
  compare("l11_c100_s4", 11, 100, 4);
  compare("l20_c64_s2", 20, 64, 2);
}
