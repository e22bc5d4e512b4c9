// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/random.hpp>
#include <kvist/reference/attention.hpp>
#include <kvist/reference/prefill_attention.hpp>
#include <kvist/reference/thread_pool.hpp>
#include <kvist/view/rows.hpp>

#include <cmath>
#include <vector>

#include "support/catch.hpp"

using namespace kvist;

namespace {

/// A call with random contents; `past` gives the entries of each KV head.
struct Case {
  Shape shape;
  Index n;
  std::vector<float> q, k, v, out;
  std::vector<std::vector<float>> past_k, past_v, bias;
  std::vector<PastRows> past;
  PrefillCall call;

  Case(const Shape& s, Index tokens, std::vector<Index> sizes, bool biased, std::uint64_t seed = 1)
      : shape(s), n(tokens) {
    Random random(seed);
    const auto fill = [&](std::vector<float>& x, std::size_t size) {
      x.resize(size);
      for (float& e : x) e = float(random.uniform() * 4 - 2);
    };
    const std::size_t N = std::size_t(n), heads = std::size_t(s.kv_heads);
    fill(q, N * std::size_t(s.q_heads * s.dim_k));
    fill(k, N * std::size_t(s.kv_heads * s.dim_k));
    fill(v, N * std::size_t(s.kv_heads * s.dim_v));
    out.assign(N * std::size_t(s.q_heads * s.dim_v), 99.0f);
    past_k.resize(heads);
    past_v.resize(heads);
    bias.resize(heads);
    for (std::size_t h = 0; h < heads; ++h) {
      fill(past_k[h], std::size_t(sizes[h]) * std::size_t(s.dim_k));
      fill(past_v[h], std::size_t(sizes[h]) * std::size_t(s.dim_v));
      if (biased) fill(bias[h], std::size_t(sizes[h]));
      past.push_back({past_k[h].data(), past_v[h].data(), sizes[h], biased ? bias[h].data() : nullptr});
    }
    call.n = n;
    call.q = q.data();
    call.k = k.data();
    call.v = v.data();
    call.past = past;
    call.scale = 1 / std::sqrt(float(s.dim_k));
    call.out = out.data();
    call.first_position = 1000;
  }

  Index entries(int h) const { return past[std::size_t(h)].n + n; }

  /// Token t of KV head h by the formula: what it sees is a head of its own.
  reference::Attention naive(int h, Index t) const {
    const PastRows& p = past[std::size_t(h)];
    std::vector<float> keys(past_k[std::size_t(h)]), values(past_v[std::size_t(h)]), own_bias, queries;
    for (Index i = 0; i <= t; ++i) {
      const auto kt = k.begin() + (i * shape.kv_heads + h) * shape.dim_k;
      const auto vt = v.begin() + (i * shape.kv_heads + h) * shape.dim_v;
      keys.insert(keys.end(), kt, kt + shape.dim_k);
      values.insert(values.end(), vt, vt + shape.dim_v);
    }
    if (p.bias) own_bias.assign(p.bias, p.bias + p.n);
    own_bias.resize(std::size_t(p.n + t + 1), 0.0f);
    AttendArgs args;
    args.q = q.data() + (std::ptrdiff_t(t) * shape.q_heads + h * shape.group()) * shape.dim_k;
    args.group = shape.group();
    args.scale = call.scale;
    args.bias = own_bias.data();
    return reference::attention(rows(keys.data(), p.n + t + 1, shape.dim_k),
                                rows(values.data(), p.n + t + 1, shape.dim_v), args);
  }
};

const Shape shapes[] = {{1, 4, 2, 16, 16}, {1, 3, 3, 8, 24}, {1, 6, 1, 64, 64}, {1, 2, 2, 20, 5}};

}  // namespace

TEST_CASE("PrefillAttention equals naive attention over any past, with biases and heads of different lengths",
          "[reference][PrefillAttention]") {
  ThreadPool pool(2);
  for (const Shape& shape : shapes) {
    PrefillAttention attention(shape);
    for (const Index n : {1, 2, 17, 70})
      for (const bool biased : {false, true}) {
        const std::vector<Index> all_sizes = {0, 45, 3, 0, 33, 1};
        for (std::size_t first = 0; first < 3; ++first) {
          std::vector<Index> sizes(all_sizes.begin() + std::ptrdiff_t(first), all_sizes.end());
          Case c(shape, n, sizes, biased);
          attention.run(c.call, pool);
          double worst = 0;
          for (int h = 0; h < shape.kv_heads; ++h)
            for (Index t = 0; t < n; ++t) {
              const reference::Attention want = c.naive(h, t);
              for (int g = 0; g < shape.group(); ++g)
                for (int i = 0; i < shape.dim_v; ++i) {
                  const float got =
                      c.out[std::size_t(((t * shape.q_heads) + h * shape.group() + g) * shape.dim_v + i)];
                  const double error = std::fabs(double(got) - want.out[std::size_t(g * shape.dim_v + i)]);
                  worst = std::max(worst, std::isnan(error) ? 1e9 : error);
                }
            }
          INFO(shape.q_heads << "/" << shape.kv_heads << " heads, " << n << " tokens");
          CHECK(worst < 3e-6);
        }
      }
  }
}

TEST_CASE("PrefillAttention gives the evidence that was asked for, as the formula has it, and no other",
          "[reference][PrefillAttention]") {
  ThreadPool pool(2);
  const Needs every = Needs::probs | Needs::queries | Needs::column_sums | Needs::max_query;
  for (const Shape& shape : shapes)
    for (const Index w : {1, 5, all_queries}) {
      Case c(shape, 40, {7, 0, 20}, true);
      c.call.wants.prefill = every;
      c.call.wants.last_queries = w;
      PrefillAttention attention(shape);
      attention.run(c.call, pool);
      const Index rows = w == all_queries ? c.n : w;
      REQUIRE(attention.evidence().size() == std::size_t(shape.kv_heads));
      double worst = 0, worst_sum = 0;
      for (int h = 0; h < shape.kv_heads; ++h) {
        const Evidence& e = attention.evidence()[std::size_t(h)];
        CHECK(covers(e.have(), every));
        CHECK(e.first_query == 1000 + c.n - rows);
        REQUIRE(e.probs.w == rows);
        REQUIRE(e.probs.n == c.entries(h));
        REQUIRE(e.column_sums.n == c.entries(h));
        REQUIRE(e.queries.n == shape.dim_k);
        REQUIRE(e.seen_by.size() == std::size_t(c.entries(h)));
        std::vector<std::vector<double>> sums(std::size_t(shape.group()),
                                              std::vector<double>(std::size_t(c.entries(h)), 0.0));
        for (Index t = 0; t < c.n; ++t) {
          const reference::Attention want = c.naive(h, t);
          const Index seen = c.past[std::size_t(h)].n + t + 1;
          for (int g = 0; g < shape.group(); ++g) {
            const Index row = t - (c.n - rows);
            for (Index i = 0; i < c.entries(h); ++i) {
              const double p = i < seen ? want.probs[std::size_t(g * seen + i)] : 0.0;
              sums[std::size_t(g)][std::size_t(i)] += p;
              if (row >= 0) {
                const double got = double(e.probs.row(g, row)[std::size_t(i)]);
                worst = std::max(worst, std::fabs(got - p));
                if (i >= seen && got != 0) worst = 1;
              }
            }
            for (int i = 0; row >= 0 && i < shape.dim_k; ++i)
              if (e.queries.row(g, row)[std::size_t(i)] !=
                  c.q[std::size_t((t * shape.q_heads + h * shape.group() + g) * shape.dim_k + i)])
                worst = 2;
          }
        }
        for (int g = 0; g < shape.group(); ++g) {
          for (Index i = 0; i < c.entries(h); ++i)
            worst_sum = std::max(worst_sum, std::fabs(double(e.column_sums.row(g, 0)[std::size_t(i)]) -
                                                      sums[std::size_t(g)][std::size_t(i)]));
          for (int i = 0; i < shape.dim_k; ++i) {
            float most = 0;
            for (Index t = 0; t < c.n; ++t)
              most = std::max(
                  most,
                  std::fabs(c.q[std::size_t((t * shape.q_heads + h * shape.group() + g) * shape.dim_k + i)]));
            CHECK(e.max_query.row(g, 0)[std::size_t(i)] == most);
          }
        }
        for (Index i = 0; i < c.entries(h); ++i) {
          const Index past = c.past[std::size_t(h)].n;
          CHECK(e.seen_by[std::size_t(i)] == float(i < past ? c.n : c.n - (i - past)));
        }
      }
      CHECK(worst < 1e-6);
      CHECK(worst_sum < 1e-5);
    }
  // each alone, and nothing
  Case c(shapes[0], 9, {2, 4}, false);
  PrefillAttention attention(shapes[0]);
  for (const Needs needs : {Needs::none, Needs::probs, Needs::queries, Needs::column_sums, Needs::max_query}) {
    c.call.wants = {needs, Needs::none, 3};
    attention.run(c.call, pool);
    for (const Evidence& e : attention.evidence()) {
      CHECK(bool(e.probs) == (needs == Needs::probs));
      CHECK(bool(e.queries) == (needs == Needs::queries));
      CHECK(bool(e.column_sums) == (needs == Needs::column_sums));
      CHECK(e.seen_by.empty() == (needs != Needs::column_sums));
      CHECK(bool(e.max_query) == (needs == Needs::max_query));
    }
  }
  c.call.wants = {Needs::rows, Needs::none, 3};
  attention.run(c.call, pool);
  CHECK(covers(attention.evidence()[0].have(), Needs::rows));
}

TEST_CASE("PrefillAttention gives the same bits for any number of threads and in used memory",
          "[reference][PrefillAttention]") {
  const Shape shape{1, 6, 2, 32, 32};
  const Needs every = Needs::probs | Needs::column_sums;
  const auto run = [&](int threads, bool used) {
    ThreadPool pool(threads);
    PrefillAttention attention(shape);
    if (used) {
      Case other(shape, 90, {500, 3}, true, 9);
      other.call.wants.prefill = every;
      attention.run(other.call, pool);
    }
    Case c(shape, 700, {100, 37}, true);
    c.call.wants = {every, Needs::none, 4};
    attention.run(c.call, pool);
    std::vector<float> all = c.out;
    for (const Evidence& e : attention.evidence()) {
      all.insert(all.end(), e.column_sums.data, e.column_sums.data + e.column_sums.g * e.column_sums.n);
      all.insert(all.end(), e.probs.data, e.probs.data + e.probs.g * e.probs.w * e.probs.n);
    }
    return all;
  };
  const std::vector<float> one = run(1, false);
  CHECK(one == run(2, false));
  CHECK(one == run(3, true));
}

TEST_CASE("PrefillAttention in two chunks equals one piece", "[reference][PrefillAttention]") {
  Serial serial;
  const Shape shape{1, 4, 2, 32, 32};
  Case whole(shape, 60, {0, 0}, false);
  PrefillAttention attention(shape);
  attention.run(whole.call, serial);
  // the first 25 tokens are the past of the rest
  std::vector<std::vector<float>> pk(2), pv(2);
  std::vector<PastRows> past;
  for (int h = 0; h < 2; ++h) {
    for (Index t = 0; t < 25; ++t) {
      const auto k = whole.k.begin() + (t * 2 + h) * 32, v = whole.v.begin() + (t * 2 + h) * 32;
      pk[std::size_t(h)].insert(pk[std::size_t(h)].end(), k, k + 32);
      pv[std::size_t(h)].insert(pv[std::size_t(h)].end(), v, v + 32);
    }
    past.push_back({pk[std::size_t(h)].data(), pv[std::size_t(h)].data(), 25, nullptr});
  }
  std::vector<float> out(35 * 4 * 32);
  PrefillCall rest = whole.call;
  rest.n = 35;
  rest.q += 25 * 4 * 32;
  rest.k += 25 * 2 * 32;
  rest.v += 25 * 2 * 32;
  rest.past = past;
  rest.out = out.data();
  attention.run(rest, serial);
  double worst = 0;
  for (std::size_t i = 0; i < out.size(); ++i)
    worst = std::max(worst, std::fabs(double(out[i]) - double(whole.out[25 * 4 * 32 + i])));
  CHECK(worst < 1e-6);
}
