// SPDX-License-Identifier: Apache-2.0
#include <kvist/cache/cache.hpp>
#include <kvist/methods/full.hpp>
#include <kvist/reference/transformer.hpp>
#include <kvist/storage/store/dense.hpp>

#include <cmath>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/plain_cache.hpp"
#include "support/small_model.hpp"

using namespace kvist;
using namespace kvist::test;

namespace {

LoadedModel made(const SmallModel& small) {
  std::string detail;
  auto loaded = load(small, &detail);
  INFO(detail);
  REQUIRE(loaded);
  return *std::move(loaded);
}

/// Largest difference to the f64 logits of the sequence's last rows, relative to the largest of those.
double error(const std::vector<std::vector<double>>& want, std::span<const float> got) {
  const std::size_t width = want[0].size(), rows = got.size() / width;
  REQUIRE(rows * width == got.size());
  REQUIRE(rows <= want.size());
  double worst = 0, most = 0;
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t i = 0; i < width; ++i) {
      const double w = want[want.size() - rows + r][i], e = std::fabs(double(got[r * width + i]) - w);
      most = std::max(most, std::fabs(w));
      worst = std::max(worst, std::isnan(e) ? 1e9 : e);
    }
  return worst / most;
}

template <class C>
std::vector<float> all_logits(Transformer<>& t, const std::vector<Token>& ids, C& cache, ForwardCall call = {}) {
  call.logits = all_tokens;
  const auto logits = t.forward(ids, cache.next_position(), cache, call);
  REQUIRE(logits);
  return {logits->begin(), logits->end()};
}

constexpr double tolerance = 2e-5;  // f32 through two layers against f64

}  // namespace

TEST_CASE("The transformer equals its formulas in f64 for every tensor type", "[reference][Transformer]") {
  ThreadPool pool(2);
  for (const TensorType type : {TensorType::f32, TensorType::f16, TensorType::bf16, TensorType::q4_0,
                                TensorType::q4_1, TensorType::q5_0, TensorType::q5_1, TensorType::q8_0,
                                TensorType::q4_k, TensorType::q5_k, TensorType::q6_k}) {
    INFO(type_name(type));
    SmallModel small;
    small.type = small.embedding = type;
    if (block_elements(type) == 256) {  // rows are whole blocks
      small.width = 256;
      small.ffn = 256;
      small.dim_k = small.dim_v = 64;
    }
    const LoadedModel m = made(small);
    Transformer transformer(m.model, pool);
    const std::vector<Token> ids = some_ids(11, small.vocabulary);
    const auto want = naive_logits(m.model, ids);
    PlainCache cache(m.model.shape());
    CHECK(error(want, all_logits(transformer, ids, cache)) < tolerance);
    PlainCache steps(m.model.shape());  // the same one by one: other code, same numbers
    for (std::size_t i = 0; i < ids.size(); ++i) {
      const auto one = transformer.forward(std::span(ids).subspan(i, 1), Pos(i), steps);
      REQUIRE(one);
      CHECK(error({want[i]}, *one) < tolerance);
    }
  }
}

TEST_CASE("The transformer equals its formulas in f64 for every kind of model", "[reference][Transformer]") {
  ThreadPool pool(2);
  std::vector<SmallModel> kinds;
  const auto kind = [&](auto change) {
    SmallModel small;
    change(small);
    small.seed = kinds.size() + 20;
    kinds.push_back(small);
  };
  kind([](SmallModel& s) { s.tied = false; });
  kind([](SmallModel& s) { s.biases = true; });
  kind([](SmallModel& s) { s.q_heads = s.kv_heads = 3; });
  kind([](SmallModel& s) { s.q_heads = 6, s.kv_heads = 1; });
  kind([](SmallModel& s) { s.dim_k = 10, s.dim_v = 22; });
  kind([](SmallModel& s) { s.width = 37, s.ffn = 41, s.vocabulary = 33; });
  kind([](SmallModel& s) { s.layers = 1, s.q_heads = s.kv_heads = 1; });
  kind([](SmallModel& s) { s.sizes["llama.rope.dimension_count"] = 6; });
  kind([](SmallModel& s) { s.numbers["llama.rope.freq_base"] = 500; });
  kind([](SmallModel& s) { s.numbers["llama.rope.scaling.factor"] = 3; });
  kind([](SmallModel& s) {
    s.strings["llama.rope.scaling.type"] = "yarn";
    s.numbers["llama.rope.scaling.factor"] = 4;
    s.sizes["llama.rope.scaling.original_context_length"] = 64;
  });
  kind([](SmallModel& s) { s.vectors["rope_freqs.weight"] = {1, 1, 2, 3, 4, 5, 6, 8}; });
  kind([](SmallModel& s) { s.numbers["llama.attention.scale"] = 0.5f; });
  for (const SmallModel& small : kinds) {
    INFO("kind " << small.seed - 20);
    const LoadedModel m = made(small);
    Transformer transformer(m.model, pool);
    const std::vector<Token> ids = some_ids(14, small.vocabulary);
    const auto want = naive_logits(m.model, ids);
    PlainCache cache(m.model.shape());
    ForwardCall first;
    first.logits = 3;
    const auto prompt = transformer.forward(std::span(ids).first(10), 0, cache, first);
    REQUIRE(prompt);
    CHECK(error({want.begin(), want.begin() + 10}, *prompt) < tolerance);
    for (std::size_t i = 10; i < ids.size(); ++i) {
      const auto one = transformer.forward(std::span(ids).subspan(i, 1), Pos(i), cache);
      REQUIRE(one);
      CHECK(error({want[i]}, *one) < tolerance);
    }
  }
}

TEST_CASE("Chunks of any sizes give the logits of one piece", "[reference][Transformer]") {
  ThreadPool pool(2);
  const LoadedModel m = made({});
  Transformer transformer(m.model, pool);
  const std::vector<Token> ids = some_ids(40, 50);
  const auto want = naive_logits(m.model, ids);
  for (const std::vector<std::size_t>& chunks :
       {std::vector<std::size_t>{40}, {1, 39}, {39, 1}, {5, 5, 5, 5, 20}, {3, 1, 1, 2, 4, 29}, {30, 1, 1, 1, 7}}) {
    const auto run = [&](auto cache) {
      std::vector<float> logits;
      std::size_t at = 0;
      for (const std::size_t size : chunks) {
        const std::vector<Token> piece(ids.begin() + std::ptrdiff_t(at),
                                       ids.begin() + std::ptrdiff_t(at + size));
        const std::vector<float> some = all_logits(transformer, piece, cache);
        logits.insert(logits.end(), some.begin(), some.end());
        at += size;
      }
      CHECK(error(want, logits) < tolerance);
    };
    run(PlainCache(m.model.shape()));
    run(*Cache<methods::Full::Type, DenseStore<float>>::make(  // attends to chunks itself
        m.model.shape(), methods::Full::Type(), [&](int, int) {
          std::vector<DenseStore<float>> one;
          one.emplace_back(m.model.shape().dim_k, m.model.shape().dim_v);
          return one;
        }));
  }
}

TEST_CASE("The transformer gives the same bits with any number of threads, evidence included",
          "[reference][Transformer]") {
  SmallModel small;
  small.type = TensorType::q4_1;
  small.embedding = TensorType::q8_0;
  small.width = 320;
  small.ffn = 640;
  small.vocabulary = 4000;
  const LoadedModel m = made(small);
  const std::vector<Token> ids = some_ids(150, small.vocabulary);
  const auto run = [&](int threads) {
    ThreadPool pool(threads);
    Transformer transformer(m.model, pool);
    PlainCache cache(m.model.shape());
    cache.want = {Needs::probs | Needs::column_sums | Needs::queries | Needs::max_query, Needs::none, 8};
    ForwardCall prompt;
    prompt.prompt = true;
    std::vector<float> all = all_logits(transformer, {ids.begin(), ids.begin() + 140}, cache, prompt);
    for (std::size_t i = 140; i < ids.size(); ++i) {
      const auto one = transformer.forward(std::span(ids).subspan(i, 1), Pos(i), cache);
      REQUIRE(one);
      all.insert(all.end(), one->begin(), one->end());
    }
    for (const auto& s : cache.seen)
      for (const auto* part : {&s.probs, &s.queries, &s.column_sums, &s.max_query})
        all.insert(all.end(), part->begin(), part->end());
    return all;
  };
  const std::vector<float> one = run(1);
  CHECK(one == run(2));
  CHECK(one == run(4));
}

TEST_CASE("A prompt's evidence reaches the cache layer by layer, after the append, and only when wanted",
          "[reference][Transformer]") {
  ThreadPool pool(1);
  const LoadedModel m = made({});
  Transformer transformer(m.model, pool);
  const std::vector<Token> ids = some_ids(20, 50);
  PlainCache cache(m.model.shape());
  cache.want = {Needs::probs | Needs::column_sums, Needs::none, 4};
  ForwardCall call;
  call.prompt = true;
  call.last_chunk = false;
  REQUIRE(transformer.forward(std::span(ids).first(12), 0, cache, call));
  call.last_chunk = true;
  REQUIRE(transformer.forward(std::span(ids).subspan(12, 7), 12, cache, call));
  CHECK(cache.observed == std::vector<Clock>{{Phase::prefill, 0, 12, 0, false},
                                             {Phase::prefill, 0, 12, 0, false},
                                             {Phase::prefill, 0, 19, 0, true},
                                             {Phase::prefill, 0, 19, 0, true}});
  REQUIRE(cache.seen.size() == 8);  // calls x layers x KV heads
  for (std::size_t i = 0; i < 8; ++i) {
    const PlainCache::Seen& s = cache.seen[i];
    CHECK(s.group == 2);
    CHECK(s.entries == (i < 4 ? 12 : 19));
    CHECK(s.w == 4);
    CHECK(s.first_query == (i < 4 ? 8 : 15));
    double mass = 0;
    for (const float p : s.column_sums) mass += double(p);
    CHECK(mass == Catch::Approx(2 * (i < 4 ? 12 : 7)));  // each query of each head of the group gives 1
    CHECK(s.queries.empty());
  }
  // not a prompt: nothing is handed over; a single token can be a prompt's chunk
  REQUIRE(transformer.forward(std::span(ids).subspan(18, 2), 19, cache));
  CHECK(cache.observed.size() == 4);
  REQUIRE(transformer.forward(std::span(ids).first(1), 21, cache, call));
  CHECK(cache.observed.size() == 6);
  CHECK(cache.stepped.empty());
  // a live step says its number, a frozen one nothing
  REQUIRE(transformer.forward(std::span(ids).first(1), 22, cache));
  CHECK(cache.stepped.empty());
  ForwardCall live;
  live.step = 3;
  REQUIRE(transformer.forward(std::span(ids).first(1), 23, cache, live));
  CHECK(cache.stepped == std::vector<Clock>(2, {Phase::decode, 3, 24, 0, true}));
}

TEST_CASE("Evicted entries are not attended to, whether tokens come one by one or together",
          "[reference][Transformer]") {
  ThreadPool pool(2);
  const LoadedModel m = made({});
  Transformer transformer(m.model, pool);
  const std::vector<Token> ids = some_ids(30, 50);
  const auto run = [&](const std::vector<std::size_t>& chunks, bool evict, bool biased) {
    PlainCache cache(m.model.shape());
    if (evict) cache.evict = {{1, 2, 3, 7}, {0, 15}};  // heads of different lengths
    ForwardCall prompt;
    prompt.prompt = true;
    prompt.logits = 0;
    REQUIRE(transformer.forward(std::span(ids).first(16), 0, cache, prompt));
    if (evict) CHECK(cache.size(0, 0) == 12);
    if (biased)
      for (int l = 0; l < 2; ++l)
        for (int h = 0; h < 2; ++h)
          for (Index i = 0; i < cache.size(l, h); ++i) cache.head(l, h).bias.push_back(float(i % 3));
    std::vector<float> logits;
    std::size_t at = 16;
    for (const std::size_t size : chunks) {
      const std::vector<float> some = all_logits(
          transformer, {ids.begin() + std::ptrdiff_t(at), ids.begin() + std::ptrdiff_t(at + size)}, cache);
      logits.insert(logits.end(), some.begin(), some.end());
      at += size;
    }
    return logits;
  };
  const auto differ = [](const std::vector<float>& a, const std::vector<float>& b) {
    REQUIRE(a.size() == b.size());
    double worst = 0;
    for (std::size_t i = 0; i < a.size(); ++i)
      worst = std::max(worst, std::fabs(double(a[i]) - double(b[i])));
    return worst;
  };
  const std::vector<std::size_t> one_by_one(14, 1);
  for (const bool biased : {false, true}) {
    const auto steps = run(one_by_one, true, biased);
    CHECK(differ(steps, run({14}, true, biased)) < 1e-4);
    CHECK(differ(steps, run({5, 1, 8}, true, biased)) < 1e-4);
    CHECK(differ(steps, run(one_by_one, false, biased)) > 1e-3);
  }
  CHECK(differ(run({14}, true, false), run({14}, true, true)) > 1e-3);
}

TEST_CASE("A cache that counts positions by slot gets raw keys and the same answers one by one and together",
          "[reference][Transformer]") {
  ThreadPool pool(2);
  const LoadedModel m = made({});
  Transformer transformer(m.model, pool);
  const std::vector<Token> ids = some_ids(30, 50);
  const auto run = [&](const std::vector<std::size_t>& chunks, bool evict) {
    PlainCache cache(m.model.shape());
    cache.key_form = KeyForm::raw;
    cache.count_by_slot = true;
    cache.rope = &m.model.rope();
    if (evict) cache.evict = {{1, 2, 3, 7}, {0, 15}};
    ForwardCall prompt;
    prompt.prompt = true;
    std::vector<float> logits = all_logits(transformer, {ids.begin(), ids.begin() + 16}, cache, prompt);
    cache.evict.clear();
    std::size_t at = 16;
    for (const std::size_t size : chunks) {
      const std::vector<float> some = all_logits(
          transformer, {ids.begin() + std::ptrdiff_t(at), ids.begin() + std::ptrdiff_t(at + size)}, cache);
      logits.insert(logits.end(), some.begin(), some.end());
      at += size;
    }
    return logits;
  };
  // nothing evicted: slots are positions
  CHECK(error(naive_logits(m.model, ids), run({14}, false)) < tolerance);
  const std::vector<float> steps = run(std::vector<std::size_t>(14, 1), true), chunk = run({14}, true);
  double worst = 0;
  for (std::size_t i = 0; i < steps.size(); ++i)
    worst = std::max(worst, std::fabs(double(steps[i]) - double(chunk[i])));
  CHECK(worst < 1e-4);
}

TEST_CASE("Hooks see what goes through the layers, and logits in blocks", "[reference][Transformer]") {
  struct Record {
    std::vector<float> q, k, raw, v, out, logits;
    Pos first = -1;
    Index next = 0;
    static void add(std::vector<float>& to, std::span<const float> x) {
      to.insert(to.end(), x.begin(), x.end());
    }
    void on_queries(int, std::span<const float> x, Pos p) { add(q, x), first = p; }
    void on_keys(int, std::span<const float> x, Pos) { add(k, x); }
    void on_keys_before_rope(int, std::span<const float> x, Pos) { add(raw, x); }
    void on_values(int, std::span<const float> x, Pos) { add(v, x); }
    void on_attention(int, std::span<const float> x, Pos) { add(out, x); }
    void on_logits(Index token, Index count, std::span<const float> x) {
      CHECK(token == next);
      next += count;
      add(logits, x);
    }
  };
  ThreadPool pool(2);
  const LoadedModel m = made({});
  Transformer transformer(m.model, pool);
  const std::vector<Token> ids = some_ids(100, 50);
  PlainCache cache(m.model.shape()), other(m.model.shape());
  const std::vector<float> want = all_logits(transformer, ids, other);
  Record many;
  ForwardCall call;
  call.logits = all_tokens;
  const auto kept = transformer.forward(ids, 0, cache, call, many);
  REQUIRE(kept);
  CHECK(kept->empty());
  CHECK(many.next == 100);
  REQUIRE(many.logits.size() == want.size());
  double worst = 0;
  for (std::size_t i = 0; i < want.size(); ++i)
    worst = std::max(worst, std::fabs(double(many.logits[i]) - double(want[i])));
  CHECK(worst < 1e-4);
  CHECK(many.q.size() == 2u * 100 * 4 * 16);
  CHECK(many.out.size() == many.q.size());
  CHECK(many.k.size() == 2u * 100 * 2 * 16);
  CHECK(many.raw.size() == many.k.size());
  CHECK(many.v.size() == many.k.size());
  CHECK(std::equal(many.k.begin(), many.k.begin() + 32, many.raw.begin()));  // position 0 turns nothing
  CHECK_FALSE(std::equal(many.k.begin() + 32, many.k.begin() + 64, many.raw.begin() + 32));
  CHECK(std::equal(many.v.begin(), many.v.begin() + 16, cache.head(0, 0).v.begin()));
  CHECK(std::equal(many.k.begin(), many.k.begin() + 16, cache.head(0, 0).k.begin()));

  Record one;
  one.next = 0;
  call.logits = 1;
  REQUIRE(transformer.forward(std::span(ids).first(1), 100, cache, call, one));
  CHECK(one.first == 100);
  CHECK(one.q.size() == 2u * 4 * 16);
  CHECK(one.out.size() == one.q.size());
  CHECK(one.raw.size() == one.k.size());
}

TEST_CASE("What cannot be run is an error, and nothing was appended", "[reference][Transformer]") {
  ThreadPool pool(1);
  const LoadedModel m = made({});
  Transformer transformer(m.model, pool);
  PlainCache cache(m.model.shape());
  const auto code = [&](const std::vector<Token>& ids, Pos first, PlainCache& c) {
    const auto logits = transformer.forward(ids, first, c);
    REQUIRE_FALSE(logits);
    return logits.error().code;
  };
  CHECK(code({}, 0, cache) == Errc::bad_shape);
  CHECK(code({1, 50}, 0, cache) == Errc::bad_value);
  CHECK(code({1, -1}, 0, cache) == Errc::bad_value);
  CHECK(code({1}, 5, cache) == Errc::bad_shape);
  CHECK(code({1}, -1, cache) == Errc::bad_shape);
  PlainCache other(Shape{2, 4, 1, 16, 16});
  CHECK(code({1}, 0, other) == Errc::bad_shape);
  PlainCache raw(m.model.shape());
  raw.key_form = KeyForm::raw;
  CHECK(code({1, 2}, 0, raw) == Errc::unsupported);
  CHECK(cache.size(0, 0) == 0);
  PlainCache full(m.model.shape());
  full.fail_at_layer = 1;
  CHECK(code({1, 2}, 0, full) == Errc::out_of_capacity);
  CHECK(code({1}, 0, full) == Errc::out_of_capacity);
  ForwardCall none;
  none.logits = 0;
  const auto silent = transformer.forward(std::vector<Token>{1, 2}, 0, cache, none);
  REQUIRE(silent);
  CHECK(silent->empty());
  CHECK(cache.size(1, 1) == 2);
}
