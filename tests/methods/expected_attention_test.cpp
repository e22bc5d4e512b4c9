// SPDX-License-Identifier: Apache-2.0
#include <kvist/methods/expected_attention.hpp>

#include "support/catch.hpp"
#include "support/small_layer.hpp"

using namespace kvist;
using namespace kvist::test;
using methods::ExpectedAttentionEviction;

namespace {

/// Scores of head `h` after the layer's queries came in calls of these sizes.
std::vector<float> scores(const ExpectedAttention& signal, SmallLayer& layer, const RopeTable& rope,
                          int h = 0, std::vector<Index> calls = {}) {
  const AnyLayer view = layer.view();
  const Evidence all = layer.seen[std::size_t(h)];
  Scratch scratch;
  ExpectedAttention::PerHead own;
  const Clock now = prompt_clock(5);
  if (calls.empty()) calls = {all.queries.w};
  Index at = 0;
  for (const Index count : calls) {
    Evidence part = all;
    part.queries.data += at * all.queries.stride_w;
    part.queries.w = count;
    part.first_query = all.first_query + at;
    const AnyContext c{view.head(h), part, now, layer.shape, scratch, &rope, 0, h};
    REQUIRE(signal.observe(c, {}, own));
    at += count;
  }
  const AnyContext c{view.head(h), all, now, layer.shape, scratch, &rope, 0, h};
  std::vector<float> out(std::size_t(layer.size(h)));
  REQUIRE(signal.score(c, {}, own, out));
  return out;
}

/// The definition in f64, with matrices.
std::vector<double> formula(const ExpectedAttention& signal, const SmallLayer& layer, const RopeTable& rope,
                            int h) {
  const std::size_t d = std::size_t(layer.shape.dim_k), n = std::size_t(layer.size(h)),
                    s = std::size_t(signal.sinks);
  const auto rotation = [&](double position) {
    std::vector<double> r(d * d, 0.0);
    for (std::size_t i = 0; i < d; ++i) r[i * d + i] = 1;
    for (std::size_t f = 0; f < rope.frequency.size(); ++f) {
      const auto [a, b] = rope.channels(int(f));
      const std::size_t i = std::size_t(a), j = std::size_t(b);
      r[i * d + i] = r[j * d + j] = std::cos(position * rope.frequency[f]);
      r[j * d + i] = std::sin(position * rope.frequency[f]);
      r[i * d + j] = -r[j * d + i];
    }
    return r;
  };
  const auto times = [&](const std::vector<double>& m, const std::vector<double>& x) {
    std::vector<double> y(d, 0.0);
    for (std::size_t i = 0; i < d; ++i)
      for (std::size_t j = 0; j < d; ++j) y[i] += m[i * d + j] * x[j];
    return y;
  };
  std::vector<double> r(d * d, 0.0);
  for (Index i = 0; i < signal.future; ++i) {
    const auto one = rotation(double(n) + i);
    for (std::size_t e = 0; e < d * d; ++e) r[e] += one[e] / signal.future;
  }
  std::vector<double> out(n, 0.0);
  const Evidence& e = layer.seen[std::size_t(h)];
  const double count = double(n - s);
  for (int g = 0; g < e.queries.g; ++g) {
    std::vector<std::vector<double>> q;
    std::vector<double> mean(d, 0.0);
    for (std::size_t t = s; t < n; ++t) {
      const auto row = e.queries.row(g, Index(t));
      q.push_back(times(rotation(-double(t)), std::vector<double>(row.begin(), row.end())));
      for (std::size_t i = 0; i < d; ++i) mean[i] += q.back()[i] / count;
    }
    const std::vector<double> future_mean = times(r, mean);
    std::vector<double> logits;
    double top = -1e300, total = 0;
    for (std::size_t j = s; j < n; ++j) {
      std::vector<double> k(d), back(d, 0.0);
      for (std::size_t i = 0; i < d; ++i) k[i] = double(layer.k[std::size_t(h)][j * d + i]);
      for (std::size_t i = 0; i < d; ++i)
        for (std::size_t m = 0; m < d; ++m) back[i] += r[m * d + i] * k[m];  // R^T k
      double z = 0, variance = 0;
      for (std::size_t i = 0; i < d; ++i) z += k[i] * future_mean[i];
      for (const auto& x : q) {
        double dot = 0;
        for (std::size_t i = 0; i < d; ++i) dot += (x[i] - mean[i]) * back[i];
        variance += dot * dot / count;
      }
      logits.push_back(z / std::sqrt(double(d)) + variance / double(2 * d));
      top = std::max(top, logits.back());
    }
    for (const double z : logits) total += std::exp(z - top);
    for (std::size_t j = s; j < n; ++j) out[j] += std::exp(logits[j - s] - top) / total / e.queries.g;
  }
  double most = 0;
  const std::size_t dv = std::size_t(layer.shape.dim_v);
  for (std::size_t j = s; j < n; ++j) {
    double norm = 0;
    for (std::size_t i = 0; i < dv; ++i) norm += std::pow(double(layer.v[std::size_t(h)][j * dv + i]), 2);
    out[j] = (out[j] + double(signal.epsilon)) * std::sqrt(norm);
    most = std::max(most, out[j]);
  }
  for (std::size_t j = 0; j < s; ++j) out[j] = most + 1;
  return out;
}

/// Four queries with mean (1, .5) and covariance ((.2, .1), (.1, .4)), and the worked example's entries.
SmallLayer worked_layer(bool values = true) {
  SmallLayer layer = SmallLayer::one_head();
  const std::vector<Row> keys{{1, 0}, {0, 1}, {1, 1}, {-1, 1}, {2, -1}, {0, 0}};
  const std::vector<float> lengths{1, 2, 1.41421356f, 5, .5f, 2};
  for (std::size_t i = 0; i < keys.size(); ++i)
    layer.append(0, keys[i], {0, values ? lengths[i] : 1.0f}, Pos(i));
  const float a = std::sqrt(.4f), b = .2f / a, c = std::sqrt(.7f);
  layer.give_queries(0, {{{1 + a, .5f + b}, {1 - a, .5f - b}, {1, .5f + c}, {1, .5f - c}}});
  return layer;
}

}  // namespace

TEST_CASE("ExpectedAttention weighs expected probabilities by the length of values",
          "[methods][ExpectedAttention]") {
  const RopeTable none;
  SmallLayer layer = worked_layer(), plain = worked_layer(false);
  const std::vector<float> p{.170057f, .125535f, .281375f, .061897f, .281375f, .079761f};
  const std::vector<float> want{.170057f, .251069f, .397925f, .309486f, .140688f, .159521f};
  const std::vector<float> got = scores({1, 0, 0}, layer, none), unweighed = scores({1, 0, 0}, plain, none);
  for (std::size_t i = 0; i < want.size(); ++i) {
    CHECK(got[i] == Approx(want[i]).margin(2e-6));
    CHECK(unweighed[i] == Approx(p[i]).margin(2e-6));
  }
  for (const bool values : {true, false}) {
    const auto policy = *ExpectedAttentionEviction::make({1, 0, 0});
    SmallLayer mine = worked_layer(values);
    auto state = *policy.start(mine.shape);
    run_call(policy, state, mine, prompt_clock(3), 0, {}, &none);
    CHECK(mine.pos[0] == (values ? std::vector<Pos>{1, 2, 3} : std::vector<Pos>{0, 2, 4}));
  }
}

TEST_CASE("The mean rotation over angles 6 to 9 shrinks", "[methods][ExpectedAttention]") {
  const detail::MeanRotation mean(RopeTable::standard(2, 10000, RopePairs::half_split), 6, 4);
  CHECK(mean.cosine[0] == Approx(.164361).margin(1e-6));
  CHECK(mean.sine[0] == Approx(.444762).margin(1e-6));
}

TEST_CASE("ExpectedAttention's scores are the formula's in f64 for any rotation and any cut into calls",
          "[methods][ExpectedAttention]") {
  Random random(41);
  for (const RopePairs pairs : {RopePairs::half_split, RopePairs::neighbours}) {
    for (const int rotary : {0, 6, 10}) {
      const RopeTable rope = RopeTable::standard(rotary, 100, pairs);
      SmallLayer layer(Shape{1, 6, 2, 10, 7});
      layer.append_random(45, random);
      layer.give_random_evidence(45, random);
      for (int h = 0; h < 2; ++h) {
        const ExpectedAttention signal{20, 3, .01f};
        const std::vector<double> want = formula(signal, layer, rope, h);
        const std::vector<float> whole = scores(signal, layer, rope, h),
                                 cut = scores(signal, layer, rope, h, {2, 30, 1, 12});
        for (std::size_t j = 0; j < want.size(); ++j) {
          CHECK(double(whole[j]) == Approx(want[j]).epsilon(2e-5));
          CHECK(cut[j] == Approx(whole[j]).epsilon(1e-5));
        }
      }
    }
  }
}

TEST_CASE("Equal queries and one coming position make one virtual query", "[methods][ExpectedAttention]") {
  Random random(43);
  const RopeTable rope = RopeTable::standard(8, 1000, RopePairs::half_split);
  SmallLayer layer(Shape{1, 1, 1, 8, 8});
  layer.append_random(20, random);
  for (auto& v : layer.v[0]) v = .5f;
  const Row q{.5f, -1, 2, .3f, -.7f, 1, .2f, .9f};
  std::vector<Row> rotated;
  for (Pos p = 0; p < 20; ++p) {
    rotated.push_back(q);
    rope.rotate(rotated.back(), p);
  }
  layer.give_queries(0, {rotated});
  Row next = q;
  rope.rotate(next, 20);
  const std::vector<float> got = scores({1, 0, 0}, layer, rope);
  double total = 0, dot_of[20];
  for (std::size_t j = 0; j < 20; ++j) {
    double dot = 0;
    for (std::size_t c = 0; c < 8; ++c) dot += double(next[c]) * double(layer.k[0][j * 8 + c]);
    total += dot_of[j] = std::exp(dot / std::sqrt(8.0));
  }
  for (std::size_t j = 0; j < 20; ++j)
    CHECK(double(got[j]) == Approx(dot_of[j] / total * .5 * std::sqrt(8.0)).epsilon(1e-5));
}

TEST_CASE(
    "ExpectedAttention's sinks are the first positions of the sequence, wherever it starts and whoever is "
    "gone",
    "[methods][ExpectedAttention]") {
  Random random(53);
  const RopeTable none;
  SmallLayer layer(Shape{1, 2, 1, 8, 8});
  layer.append_random(30, random);
  layer.give_random_evidence(30, random);
  const std::vector<float> at_zero = scores({20, 4, 0}, layer, none);
  CHECK(*std::max_element(at_zero.begin() + 4, at_zero.end()) < at_zero[0]);

  SmallLayer later = layer;
  later.queries = layer.queries;
  for (Pos& p : later.pos[0]) p += 1000;
  later.seen[0].queries.data = later.queries[0].data();
  later.seen[0].first_query += 1000;
  CHECK(scores({20, 4, 0}, later, none) == at_zero);

  // Two sinks and two others leave: the sinks that stay are sinks, the first rows are not.
  const ExpectedAttention signal{20, 4, 0};
  Scratch scratch;
  ExpectedAttention::PerHead own;
  const AnyLayer whole = layer.view();
  const Clock now = prompt_clock(5);
  REQUIRE(signal.observe(AnyContext{whole.head(0), layer.seen[0], now, layer.shape, scratch, &none}, {}, own));
  SmallLayer cut = layer;
  Plan gone{0, std::vector<HeadPlan>(1), {}};
  gone.heads[0].drop = {1, 2, 7, 20};
  cut.apply(gone);
  const AnyLayer rest = cut.view();
  std::vector<float> out(26);
  REQUIRE(signal.score(AnyContext{rest.head(0), {}, now, layer.shape, scratch, &none}, {}, own, out));
  CHECK(cut.pos[0][2] == 4);
  CHECK((out[0] == out[1] && out[0] > *std::max_element(out.begin() + 2, out.end())));
  // All sinks leave: what is left ranks as before, since sinks never shared in the softmax.
  SmallLayer bare = layer;
  gone.heads[0].drop = {0, 1, 2, 3};
  bare.apply(gone);
  const AnyLayer without = bare.view();
  REQUIRE(signal.score(AnyContext{without.head(0), {}, now, layer.shape, scratch, &none}, {}, own, out));
  for (std::size_t i = 0; i < 26; ++i) CHECK(out[i] == Approx(at_zero[i + 4]).epsilon(1e-6));
}

TEST_CASE("ExpectedAttention keeps its sinks, takes short prompts, and refuses what it cannot do",
          "[methods][ExpectedAttention]") {
  Random random(47);
  const RopeTable rope = RopeTable::standard(8, 1000, RopePairs::neighbours);
  for (const Index n : {1, 4, 5, 12, 60}) {
    SmallLayer layer(Shape{1, 6, 3, 8, 8});
    layer.append_random(n, random);
    layer.give_random_evidence(n, random);
    const auto policy = *ExpectedAttentionEviction::make({});
    auto state = *policy.start(layer.shape);
    run_call(policy, state, layer, prompt_clock(10), 0, {}, &rope);
    for (const auto& pos : layer.pos) {
      REQUIRE(Index(pos.size()) == std::min<Index>(n, 10));
      for (std::size_t i = 0; i < std::min<std::size_t>(4, pos.size()); ++i) CHECK(pos[i] == Pos(i));
    }
  }
  const Shape shape{1, 1, 1, 8, 8};
  CHECK((*ExpectedAttentionEviction::make({0, 4, 0})).start(shape).error().code == Errc::bad_option);
  CHECK((*ExpectedAttentionEviction::make({512, -1, 0})).start(shape).error().code == Errc::bad_option);
  CHECK((*ExpectedAttentionEviction::make({512, 4, -1})).start(shape).error().code == Errc::bad_option);
  SmallLayer layer(shape);
  layer.append_random(20, random);
  layer.give_random_evidence(20, random);
  const auto policy = *ExpectedAttentionEviction::make({});
  auto state = *policy.start(shape);
  const AnyLayer view = layer.view();
  const LayerCall<AnyLayer> without{view, layer.seen, prompt_clock(10), 0};
  CHECK(policy.observe(without, state).error().code == Errc::missing_evidence);
  const RopeTable wide = RopeTable::standard(10, 1000, RopePairs::neighbours);
  const LayerCall<AnyLayer> too_wide{view, layer.seen, prompt_clock(10), 0, {}, &wide};
  CHECK(policy.observe(too_wide, state).error().code == Errc::bad_shape);
}
