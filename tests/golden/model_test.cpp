// SPDX-License-Identifier: Apache-2.0
// SmolLM2-135M-Instruct against values made with another implementation (its weights expanded to f32, f32 arithmetic).
// The tolerances are those that the values' README derives from the f32 noise seen there.
#include <kvist/cache/cache.hpp>
#include <kvist/io/file.hpp>
#include <kvist/io/json.hpp>
#include <kvist/io/npy.hpp>
#include <kvist/kernels/dispatch.hpp>
#include <kvist/methods/full.hpp>
#include <kvist/reference/model.hpp>
#include <kvist/reference/transformer.hpp>
#include <kvist/storage/store/dense.hpp>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "support/assets.hpp"
#include "support/catch.hpp"

using namespace kvist;
using namespace kvist::kernels;

namespace {

using FullCache = Cache<methods::Full::Type, DenseStore<float>>;

FullCache full_cache(const Model& model) {
  const Shape shape = model.shape();
  auto cache = FullCache::make(shape, methods::Full::Type(), [shape](int, int) {
    std::vector<DenseStore<float>> one;
    one.emplace_back(shape.dim_k, shape.dim_v);
    return one;
  });
  REQUIRE(cache);
  return *std::move(cache);
}

/// The model and the folder of its values, or null where one is missing.
struct Golden {
  Model model;
  std::string folder;

  std::vector<float> f32(const std::string& name) const { return load(name).as_f32(); }
  std::vector<Token> ids(const std::string& name) const {
    auto ids = load(name).as_i32();
    REQUIRE(ids);
    return *ids;
  }
  std::vector<std::string> prompts() const {
    auto text = read_file(folder + "/prompts.json");
    REQUIRE(text);
    auto json = Json::parse(*text);
    REQUIRE(json);
    std::vector<std::string> names;
    for (const JsonMember& m : json->members())
      if (m.name.find('/') == std::string::npos) names.push_back(m.name);
    REQUIRE(!names.empty());
    return names;
  }

 private:
  Npy load(const std::string& name) const {
    INFO(name);
    auto npy = Npy::load(folder + "/" + name + ".npy");
    REQUIRE(npy);
    return *std::move(npy);
  }
};

const Golden* golden() {
  static const std::unique_ptr<Golden> one = []() -> std::unique_ptr<Golden> {
    const auto path = test::model_path();
    const auto folder = test::golden_path();
    if (!path || !folder || !test::detail::existing(*folder + "/model/prompts.json")) return nullptr;
    std::string detail;
    auto model = Model::load(*path, &detail);
    INFO(detail);
    REQUIRE(model);
    return std::make_unique<Golden>(Golden{*std::move(model), *folder + "/model"});
  }();
  return one.get();
}

double log_sum_exp(std::span<const float> logits) {
  const double top = double(*std::max_element(logits.begin(), logits.end()));
  double sum = 0;
  for (const float x : logits) sum += std::exp(double(x) - top);
  return top + std::log(sum);
}

double largest_difference(std::span<const float> a, std::span<const float> b) {
  REQUIRE(a.size() == b.size());
  double most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) most = std::max(most, std::fabs(double(a[i]) - double(b[i])));
  return most;
}

/// KL(want || got) of the distributions that two rows of logits stand for.
double divergence(std::span<const float> want, std::span<const float> got) {
  const double w = log_sum_exp(want), g = log_sum_exp(got);
  double sum = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    const double p = double(want[i]) - w;
    sum += std::exp(p) * (p - (double(got[i]) - g));
  }
  return sum;
}

std::span<const float> row(std::span<const float> all, std::size_t i, std::size_t width) {
  return all.subspan(i * width, width);
}

}  // namespace

TEST_CASE("The reference transformer gives the reference logits at the end of each prompt",
          "[golden][model]") {
  const Golden* g = golden();
  if (!g) KVIST_SKIP("the SmolLM2 model and its reference values");
  ThreadPool pool(2);
  Transformer transformer(g->model, pool);
  const std::size_t vocabulary = std::size_t(g->model.config().vocabulary);
  for (const std::string& name : g->prompts()) {
    INFO(name);
    const std::string at = "prompts/" + name + "/";
    const std::vector<Token> ids = g->ids(at + "ids"), top = g->ids(at + "top32_ids");
    const std::vector<float> last = g->f32(at + "logits_last"), exact = g->f32(at + "logits_last_f64");
    const std::vector<float> top_logits = g->f32(at + "top32_logits"), lse = g->f32(at + "lse");
    FullCache cache = full_cache(g->model);
    ForwardCall call;
    call.logits = 8;
    call.prompt = true;
    const auto logits = transformer.forward(ids, 0, cache, call);
    REQUIRE(logits);
    REQUIRE(logits->size() == 8 * vocabulary);
    const auto mine = row(*logits, 7, vocabulary);
    CHECK(largest_difference(mine, last) < 1e-3);
    CHECK(largest_difference(mine, exact) < 1e-3);
    CHECK(std::fabs(divergence(exact, mine)) < 1e-7);
    for (std::size_t i = 0; i < 8; ++i) {
      const auto one = row(*logits, i, vocabulary);
      CHECK(log_sum_exp(one) == Catch::Approx(double(lse[i])).margin(1e-3));
      double worst = 0;
      for (std::size_t j = 0; j < 32; ++j)
        worst = std::max(
            worst, std::fabs(double(one[std::size_t(top[i * 32 + j])]) - double(top_logits[i * 32 + j])));
      CHECK(worst < 1e-3);
      // nothing outside the list is above its last entry
      const auto above =
          std::count_if(one.begin(), one.end(), [&](float x) { return x > top_logits[i * 32 + 31] + 1e-3f; });
      CHECK(above <= 32);
    }
  }
}

TEST_CASE("Greedy continuations are the reference's token by token, at every level of the kernels",
          "[golden][model]") {
  const Golden* g = golden();
  if (!g) KVIST_SKIP("the SmolLM2 model and its reference values");
  ThreadPool pool(2);
  Transformer transformer(g->model, pool);
  for (const std::string& name : g->prompts()) {
    const std::string at = "prompts/" + name + "/";
    const std::vector<Token> ids = g->ids(at + "ids"), want = g->ids(at + "greedy_ids");
    const std::vector<float> margin = g->f32(at + "greedy_margin");
    FullCache prompt = full_cache(g->model);
    const auto logits = transformer.forward(ids, 0, prompt);
    REQUIRE(logits);
    const std::vector<float> first(logits->begin(), logits->end());
    for (const Isa isa : {Isa::base, Isa::avx2, Isa::avx512, Isa::avx512vnni, Isa::neon}) {
      if (!force_isa(isa)) continue;
      INFO(name << " at " << isa_name(isa));
      FullCache cache = prompt.clone();
      std::span<const float> next = first;
      Pos position = Pos(ids.size());
      std::size_t same = 0;
      for (std::size_t i = 0; i < want.size(); ++i, ++position) {
        const Token token = Token(std::max_element(next.begin(), next.end()) - next.begin());
        if (token != want[i]) {
          CHECK(margin[i] < 1e-3f);  // two tokens closer than the noise
          break;
        }
        ++same;
        const auto step = transformer.forward(std::span(&token, 1), position, cache);
        REQUIRE(step);
        next = *step;
      }
      CHECK(same > 0);
    }
    unforce_isa();
  }
}

TEST_CASE("Teacher-forced log-probabilities of 2048 tokens are the reference's", "[golden][model]") {
  const Golden* g = golden();
  if (!g) KVIST_SKIP("the SmolLM2 model and its reference values");
  struct Scores {
    std::span<const Token> ids;
    std::size_t vocabulary;
    std::vector<double> logprob;
    void on_logits(Index first, Index count, std::span<const float> logits) {
      for (Index i = 0; i < count; ++i)
        if (const std::size_t next = std::size_t(first + i + 1); next < ids.size()) {
          const auto one = row(logits, std::size_t(i), vocabulary);
          logprob.push_back(double(one[std::size_t(ids[next])]) - log_sum_exp(one));
        }
    }
  };
  const std::vector<Token> ids = g->ids("teacher_forced/book2048_ids");
  const std::vector<float> want = g->f32("teacher_forced/book2048_logprob_f64");
  ThreadPool pool(2);
  Transformer transformer(g->model, pool);
  FullCache cache = full_cache(g->model);
  Scores scores{ids, std::size_t(g->model.config().vocabulary), {}};
  ForwardCall call;
  call.logits = all_tokens;
  const auto kept = transformer.forward(ids, 0, cache, call, scores);
  REQUIRE(kept);
  CHECK(kept->empty());
  REQUIRE(scores.logprob.size() == want.size());
  double worst = 0, mean = 0, mean_want = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    worst = std::max(worst, std::fabs(scores.logprob[i] - double(want[i])));
    mean += scores.logprob[i] / double(want.size());
    mean_want += double(want[i]) / double(want.size());
  }
  CHECK(worst < 1e-3);
  CHECK(std::fabs(mean - mean_want) < 1e-4);
  CHECK(std::exp(-mean) == Catch::Approx(22.30683137903602).epsilon(1e-4));
}

TEST_CASE("Queries, keys, values and attention outputs of single layers are the reference's",
          "[golden][model]") {
  const Golden* g = golden();
  if (!g) KVIST_SKIP("the SmolLM2 model and its reference values");
  struct Record {
    std::vector<float> q, k, raw_k, v, out;
    int wanted = 0;
    static void keep(std::vector<float>& to, std::span<const float> x) { to.assign(x.begin(), x.end()); }
    void on_queries(int layer, std::span<const float> x, Pos) {
      if (layer == wanted) keep(q, x);
    }
    void on_keys(int layer, std::span<const float> x, Pos) {
      if (layer == wanted) keep(k, x);
    }
    void on_keys_before_rope(int layer, std::span<const float> x, Pos) {
      if (layer == wanted) keep(raw_k, x);
    }
    void on_values(int layer, std::span<const float> x, Pos) {
      if (layer == wanted) keep(v, x);
    }
    void on_attention(int layer, std::span<const float> x, Pos) {
      if (layer == wanted) keep(out, x);
    }
  };
  ThreadPool pool(2);
  Transformer transformer(g->model, pool);
  const std::size_t d = 64;
  // mine [n, heads, 64] against theirs [heads, n, 64]; pair f is (2f, 2f+1) here and (f, f+32) there
  const auto compare = [&](const std::string& file, const std::vector<float>& mine, bool pairs,
                           double tolerance) {
    INFO(file);
    const std::vector<float> want = g->f32(file);
    REQUIRE(mine.size() == want.size());
    double worst = 0, most = 0;
    const std::size_t heads =
        file.find("_k") != std::string::npos || file.find("_v") != std::string::npos ? 3 : 9;
    const std::size_t tokens = want.size() / heads / d;
    for (std::size_t t = 0; t < tokens; ++t)
      for (std::size_t h = 0; h < heads; ++h)
        for (std::size_t c = 0; c < d; ++c) {
          const std::size_t theirs = pairs ? (c % 2 == 0 ? c / 2 : c / 2 + d / 2) : c;
          const double w = double(want[(h * tokens + t) * d + theirs]);
          most = std::max(most, std::fabs(w));
          worst = std::max(worst, std::fabs(double(mine[(t * heads + h) * d + c]) - w));
        }
    CHECK(worst <= tolerance * most);
  };
  for (const std::string name : {"book", "passkey"}) {
    const std::vector<Token> ids = g->ids("prompts/" + name + "/ids");
    for (const int layer : {0, 14, 29}) {
      Record record;
      record.wanted = layer;
      FullCache cache = full_cache(g->model);
      ForwardCall call;
      call.logits = 0;
      REQUIRE(transformer.forward(ids, 0, cache, call, record));
      const std::string at = "layers/" + name + "/layer" + std::to_string(layer);
      compare(at + "_q", record.q, true, 5e-5);
      compare(at + "_k", record.k, true, 5e-5);
      compare(at + "_v", record.v, false, 2e-5);
      if (name != "book") continue;
      compare(at + "_k_before_rope", record.raw_k, true, 2e-5);
      compare(at + "_attn_out", record.out, false, 2e-5);
    }
  }
}

TEST_CASE("The real model gives the same bits with one thread and with two", "[golden][model]") {
  const Golden* g = golden();
  if (!g) KVIST_SKIP("the SmolLM2 model and its reference values");
  const std::vector<Token> ids = g->ids("prompts/book/ids");
  const auto run = [&](int threads) {
    ThreadPool pool(threads);
    Transformer transformer(g->model, pool);
    FullCache cache = full_cache(g->model);
    std::vector<float> all;
    const auto feed = [&](std::size_t first, std::size_t count, Index wanted) {
      ForwardCall call;
      call.logits = wanted;
      call.prompt = count > 1;
      const auto logits = transformer.forward(std::span(ids).subspan(first, count), Pos(first), cache, call);
      REQUIRE(logits);
      all.insert(all.end(), logits->begin(), logits->end());
    };
    feed(0, 200, all_tokens);
    feed(200, 53, 3);
    for (std::size_t i = 253; i < 256; ++i) feed(i, 1, 1);
    return all;
  };
  CHECK(run(1) == run(2));
}

TEST_CASE("A prompt in chunks or token by token gives the real model's logits of one piece",
          "[golden][model]") {
  const Golden* g = golden();
  if (!g) KVIST_SKIP("the SmolLM2 model and its reference values");
  const std::vector<Token> ids = g->ids("prompts/book/ids");
  const std::vector<float> want = g->f32("prompts/book/logits_last_f64");
  ThreadPool pool(2);
  Transformer transformer(g->model, pool);
  for (const std::size_t chunk : {1, 3, 100}) {
    INFO(chunk);
    FullCache cache = full_cache(g->model);
    std::vector<float> last;
    for (std::size_t i = 0; i < ids.size(); i += chunk) {
      const auto piece = std::span(ids).subspan(i, std::min(chunk, ids.size() - i));
      const auto logits = transformer.forward(piece, Pos(i), cache);
      REQUIRE(logits);
      last.assign(logits->begin(), logits->end());
    }
    CHECK(largest_difference(last, want) < 1e-3);
  }
}
