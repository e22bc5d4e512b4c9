// SPDX-License-Identifier: Apache-2.0
// CaM against its official code over recorded tensors: the streaming path as a whole, the probabilities of the decode path.
#include <kvist/cache/apply_in_place.hpp>
#include <kvist/cache/cache.hpp>
#include <kvist/methods/cam.hpp>
#include <kvist/storage/store/dense.hpp>

#include "support/recorded.hpp"

using namespace kvist;
using namespace kvist::test;

namespace {

Tensor uniforms;  // [eviction, head]: an entry at position 4 + e leaves as eviction e
double recorded_draw(int, int head, Pos pos) {
  return double(uniforms.at(std::size_t(pos - 4), std::size_t(head)));
}

}  // namespace

TEST_CASE("CaM's streaming path: values and outputs are those of its official code", "[golden][CaM]") {
  if (!have_recorded("official/cam")) KVIST_SKIP("reference values");
  const Tensor q = recorded("official/inputs/q20"), k = recorded("official/inputs/k20"),
               v = recorded("official/inputs/v20");
  const Tensor prob = recorded("official/cam/stream_l20_prob"),
               want_out = recorded("official/cam/stream_l20_out"),
               want_v = recorded("official/cam/stream_l20_v");
  uniforms = recorded("official/cam/stream_l20_uniform");
  methods::CaMOptions o;
  o.targets = 16;
  o.sinks = 4;
  o.recent = 40;
  auto policy = methods::CaM::make(o);
  REQUIRE(policy);
  policy->dispose.draw = recorded_draw;
  const Shape shape{1, 9, 9, 64, 64};  // the official code repeats keys to the query heads
  auto made = Cache<methods::CaM::Type, DenseStore<float>>::make(shape, *policy, [](int, int) {
    std::vector<DenseStore<float>> one;
    one.emplace_back(64, 64);
    return one;
  });
  REQUIRE(made);
  auto& cache = *made;
  Serial serial;
  double worst = 0;
  std::size_t spread = 0, other = 0;
  cache.on_plan = [&](const Plan& p) {
    for (std::size_t h = 0; h < 9; ++h) {
      if (p.heads[h].drop.empty()) continue;
      const std::size_t e = std::size_t(cache.next_position()) - 45;  // of the eviction
      const bool drawn = uniforms.at(e, h) < prob.at(e, h);
      spread += !p.heads[h].blend.empty();
      other += drawn != !p.heads[h].blend.empty();
    }
  };
  for (Index t = 0; t < 84; ++t) {
    std::vector<float> kt, vt, qt, out(9 * 64);
    for (std::size_t h = 0; h < 9; ++h) {
      const Row a = k.row(h / 3, std::size_t(t)), b = v.row(h / 3, std::size_t(t)),
                c = q.row(h, std::size_t(t));
      kt.insert(kt.end(), a.begin(), a.end());
      vt.insert(vt.end(), b.begin(), b.end());
      qt.insert(qt.end(), c.begin(), c.end());
    }
    REQUIRE(cache.append(0, 1, kt.data(), vt.data(), t));
    REQUIRE(cache.attend(0, qt.data(), 0.125f, out.data(), serial));
    REQUIRE(cache.step(0, Clock{Phase::decode, t + 1, 0, 44, true}));
    if (t < 44) continue;
    for (std::size_t i = 0; i < 3; ++i)  // query heads 0, 3, 6
      for (std::size_t c = 0; c < 64; ++c)
        worst = std::max(
            worst, std::abs(double(out[3 * i * 64 + c]) - double(want_out.at(std::size_t(t) - 44, i, c))));
  }
  INFO("outputs differ by at most " << worst << "; " << spread << " values were spread, " << other
                                    << " draws differ");
  CHECK(other == 0);
  CHECK(spread > 0);
  CHECK(worst <= 2e-5);
  for (std::size_t i = 0; i < 3; ++i) {
    std::vector<float> got(44 * 64);
    cache.read(0, int(3 * i), 0, 44, nullptr, got.data());
    for (std::size_t s = 0; s < 44; ++s)
      for (std::size_t c = 0; c < 64; ++c) CHECK(got[s * 64 + c] == Approx(want_v.at(i, s, c)).margin(2e-5));
  }
}

TEST_CASE("CaM's decode path: probabilities against all later entries are those of its official code",
          "[golden][CaM]") {
  if (!have_recorded("official/cam")) KVIST_SKIP("reference values");
  const Tensor q = recorded("official/inputs/q11"), k = recorded("official/inputs/k11");
  const Tensor want = recorded("official/cam/decode_l11_expect_prob");
  for (std::size_t step = 0; step < 16; ++step)
    for (std::size_t h = 0; h < 9; ++h) {
      const std::size_t last = 512 + step;  // the newest position; visible are 51 sinks and what is recent
      const std::size_t merged = last + 1 - 51 + 1, first = last - 51 + 0;
      std::vector<double> p(last + 1, 0.0);
      double top = -1e300, sum = 0;
      for (std::size_t j = 0; j <= last; ++j) {
        if (j >= 51 && j < first + 1) continue;
        double dot = 0;
        for (std::size_t c = 0; c < 64; ++c) dot += double(q.at(h, last, c)) * double(k.at(h / 3, j, c));
        top = std::max(top, p[j] = dot / 8);
      }
      for (std::size_t j = 0; j <= last; ++j)
        if (j < 51 || j >= first + 1) sum += p[j] = std::exp(p[j] - top);
      std::vector<float> scores;
      for (const double x : p) scores.push_back(float(x / sum));
      double later = 0;
      for (std::size_t j = merged + 1; j <= last; ++j) later += double(scores[j]) / double(last - merged);
      INFO("step " << step << " head " << h);
      CHECK(SpreadValues::probability(double(scores[merged]), later) ==
            Approx(double(want.at(step, h))).epsilon(1e-3).margin(1e-6));
    }
}

TEST_CASE("CaM's prefill path: values after all that left one after another are those of its official code",
          "[golden][CaM]") {
  if (!have_recorded("official/cam")) KVIST_SKIP("reference values");
  const Tensor v = recorded("official/inputs/v20"), prob = recorded("official/cam/prefill_l20_prob"),
               want = recorded("official/cam/prefill_l20_v");
  SpreadValues spread;
  spread.targets = 16;
  spread.deterministic = true;
  for (std::size_t head = 0; head < 3; ++head) {  // query heads 0, 3, 6
    std::vector<float> values, keys(96, 0.0f), scores(96, 1.0f);
    std::vector<Pos> pos;
    for (std::size_t t = 0; t < 96; ++t) {
      const Row r = v.row(head, t);
      values.insert(values.end(), r.begin(), r.end());
      pos.push_back(Pos(t));
      if (t >= 10 && t < 80)
        scores[t] = prob.at(t - 10, 3 * head);  // against 1, the largest: the recorded probabilities
    }
    const F32Head view{rows<float>(keys.data(), 96, 1), rows<float>(values.data(), 96, 64), pos};
    const Shape shape{1, 1, 1, 1, 64};
    const Clock now{Phase::prefill, 0, 96, 26, true};
    const Evidence none;
    Scratch scratch;
    HeadContext<F32Head> c{view, none, now, shape, scratch};
    HeadPlan plan;
    for (Index i = 10; i < 80; ++i) plan.drop.push_back(i);
    REQUIRE(spread.dispose(c, scores, plan));
    REQUIRE(check(plan, 96));
    REQUIRE(apply_in_place(plan, MutableRows<float>{keys.data(), nullptr, 96, 1, 0, 0, 1, 1},
                           MutableRows<float>{values.data(), nullptr, 96, 64, 0, 0, 64, 1}, pos));
    double worst = 0;
    for (std::size_t i = 0; i < 26; ++i)
      for (std::size_t d = 0; d < 64; ++d)
        worst = std::max(
            worst, std::abs(double(values[i * 64 + d]) - double(want.at(head, i < 10 ? i : i + 70, d))));
    INFO("head " << head << ": values differ by at most " << worst);
    CHECK(worst <= 2e-4);
  }
}
