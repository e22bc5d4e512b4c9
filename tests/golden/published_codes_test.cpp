// SPDX-License-Identifier: Apache-2.0
// Eviction methods against what their published code keeps of the same recorded tensors: 512 prompt tokens and 16 decode
// steps of a real model, in the layout with 9 heads (keys repeated, as most codes have it) and with 3 KV heads.
#include <kvist/cache/cache.hpp>
#include <kvist/io/file.hpp>
#include <kvist/io/json.hpp>
#include <kvist/methods/adakv.hpp>
#include <kvist/methods/h2o.hpp>
#include <kvist/methods/keydiff.hpp>
#include <kvist/methods/pyramidkv.hpp>
#include <kvist/methods/snapkv.hpp>
#include <kvist/methods/streaming_llm.hpp>
#include <kvist/methods/tova.hpp>
#include <kvist/storage/store/dense.hpp>

#include "support/recorded.hpp"

using namespace kvist;
using namespace kvist::test;

namespace {

constexpr std::size_t prompt = 512, steps = 16;

/// Recorded keys and queries of one layer, seen as `heads` KV heads (9: keys repeated to the query heads; or 3).
struct Recorded {
  int heads;
  Tensor k, q;
  std::size_t q_first;  ///< token of q's first row: layer 28 has the last 32 prompt queries only

  Recorded(int layer, int kv_heads) : heads(kv_heads) {
    const std::string name = (layer < 10 ? "0" : "") + std::to_string(layer);
    k = recorded("official/inputs/k" + name);
    q = recorded(std::string("official/inputs/") + (layer == 28 ? "qw" : "q") + name);
    q_first = layer == 28 ? prompt - 32 : 0;
  }
  SmallLayer empty() const { return SmallLayer(Shape{1, 9, heads, 64, 64}); }
  void append(SmallLayer& layer, std::size_t first, std::size_t count) const {
    for (int h = 0; h < heads; ++h)
      for (std::size_t t = first; t < first + count; ++t)
        layer.append(h, k.row(std::size_t(h * 3 / heads), t), Row(64), Pos(t));
  }
  Row query(int h, int g, std::size_t t) const {
    return q.row(std::size_t(h * (9 / heads) + g), t - q_first);
  }
  void give_queries(SmallLayer& layer, std::size_t end, std::size_t count) const {
    layer.forget_evidence();
    for (int h = 0; h < heads; ++h) {
      std::vector<std::vector<Row>> rows_of(std::size_t(9 / heads));
      for (int g = 0; g < 9 / heads; ++g)
        for (std::size_t t = end - count; t < end; ++t) rows_of[std::size_t(g)].push_back(query(h, g, t));
      layer.give_queries(h, rows_of);
    }
  }
  /// Column sums of the whole causal prompt.
  void give_prompt_sums(SmallLayer& layer) const {
    for (int h = 0; h < heads; ++h) {
      std::vector<std::vector<Row>> rows_of(std::size_t(9 / heads));
      SmallLayer seen(Shape{1, 9, heads, 64, 64});
      for (std::size_t t = 0; t < prompt; ++t) {
        seen.append(h, k.row(std::size_t(h * 3 / heads), t), Row(64), Pos(t));
        for (int g = 0; g < 9 / heads; ++g)
          rows_of[std::size_t(g)].push_back(attention_row(seen, h, query(h, g, t)));
      }
      layer.give_sums(h, rows_of);
    }
  }
};

Json manifest(const std::string& method) {
  const auto text = read_file(*golden_path() + "/official/" + method + "/manifest.json");
  REQUIRE(text);
  auto json = Json::parse(*text);
  REQUIRE(json);
  return std::move(*json);
}

/// Equal sets; or, where the published margin is within rounding of the scores, a few swapped entries at the cut.
void same_set(const std::vector<Pos>& got, const std::vector<Pos>& want, float margin, float tolerance = 1e-5f) {
  if (got == want) {
    SUCCEED();
    return;
  }
  CHECK(got.size() == want.size());
  CHECK(margin < tolerance);
}

}  // namespace

TEST_CASE("SnapKV keeps what its published code keeps", "[golden][SnapKV]") {
  if (!have_recorded("official/snapkv")) KVIST_SKIP("reference values of snapkv");
  const Json all = manifest("snapkv");
  for (const Json& c : all["cases"].elements()) {
    const Json& p = c["parameters"];
    const std::string name(c["case"].as_string());
    INFO(name);
    const bool grouped = name.find("gqa") != name.npos;
    const Recorded r(int(p["layer"].as_int()), grouped ? 3 : 9);
    const Index window = Index(p["window_size"].as_int());
    SmallLayer layer = r.empty();
    r.append(layer, 0, prompt);
    r.give_queries(layer, prompt, std::size_t(window));
    const auto policy = *methods::SnapKV::make(
        {window, int(p["kernel_size"].as_int()),
         p["pooling"].as_string() == "maxpool" ? PoolMode::max : PoolMode::avg,
         grouped && p["gqa_score_agg"].as_string() == "max" ? Reduce::max : Reduce::mean, false});
    auto state = *policy.start(layer.shape);
    run_call(policy, state, layer, prompt_clock(Index(p["max_capacity_prompt"].as_int())));
    const Tensor kept = recorded("official/snapkv/" + name + "_kept"),
                 margin = recorded("official/snapkv/" + name + "_margin");
    for (std::size_t h = 0; h < std::size_t(r.heads); ++h)
      same_set(layer.pos[h], kept.positions(h), margin.at(h));
  }
}

TEST_CASE("PyramidKV's official total keeps what its published code keeps", "[golden][PyramidKV]") {
  if (!have_recorded("official/pyramidkv")) KVIST_SKIP("reference values of pyramidkv");
  const Json all = manifest("pyramidkv");
  for (const Json& c : all["cases"].elements()) {
    const Json& p = c["parameters"];
    const std::string name(c["case"].as_string());
    INFO(name);
    const Index window = Index(p["window_size"].as_int()), budget = Index(p["max_capacity_prompt"].as_int());
    const Ladder ladder{int(p["beta"].as_int()), false};
    if (name.rfind("budgets", 0) == 0) {
      const Tensor want = recorded("official/pyramidkv/" + name);
      const std::vector<LayerStat> seen(30, LayerStat{0, 0, Index(prompt)});
      std::vector<Index> got(30);
      REQUIRE(ladder.allocate({30, seen, {0, window}, budget}, got));
      for (std::size_t l = 0; l < 30; ++l) CHECK(float(got[l]) == want.at(l));
      continue;
    }
    const int at = int(p["layer"].as_int());
    const Recorded r(at, int(p["heads"].as_int()));
    SmallLayer layer = r.empty();
    layer.shape.layers = 30;
    r.append(layer, 0, prompt);
    r.give_queries(layer, prompt, std::size_t(window));
    const auto policy =
        *methods::PyramidKV::make({window, ladder.beta, int(p["kernel_size"].as_int()),
                                   p["pooling"].as_string() == "maxpool" ? PoolMode::max : PoolMode::avg,
                                   Reduce::mean, methods::Total::official});
    auto state = *policy.start(layer.shape);
    for (auto& l : state.layers) l.stat.size = Index(prompt);  // the layers before it saw the same prompt
    run_call(policy, state, layer, prompt_clock(budget), at);
    const Tensor kept = recorded("official/pyramidkv/" + name),
                 margin = recorded("official/pyramidkv/" + name + "_margin");
    for (std::size_t h = 0; h < std::size_t(r.heads); ++h)
      same_set(layer.pos[h], kept.positions(h), margin.at(h));
  }
}

TEST_CASE("AdaKV's official total keeps what its published code keeps", "[golden][AdaKV]") {
  if (!have_recorded("official/adakv")) KVIST_SKIP("reference values of adakv");
  const Json all = manifest("adakv");
  for (const Json& c : all["cases"].elements()) {
    const Json& p = c["parameters"];
    const std::string name(c["case"].as_string());
    INFO(name);
    const bool grouped = p["gqa_support"].as_bool();
    const Recorded r(int(p["layer"].as_int()), grouped ? 3 : 9);
    const Index window = Index(p["window_size"].as_int());
    SmallLayer layer = r.empty();
    r.append(layer, 0, prompt);
    r.give_queries(layer, prompt, std::size_t(window));
    methods::AdaKVOptions o;
    o.window = window;
    o.kernel = int(p["kernel_size"].as_int());
    o.pool = p["pooling"].as_string() == "maxpool" ? PoolMode::max : PoolMode::avg;
    o.floor = p["floor_alpha"].as_double();
    o.normalise = p["normalize"].as_bool();
    o.reduce = grouped && p["gqa_func"].as_string() == "max" ? Reduce::max : Reduce::mean;
    o.total = methods::Total::official;
    const auto policy = *methods::AdaKV::make(o);
    auto state = *policy.start(layer.shape);
    run_call(policy, state, layer, prompt_clock(Index(p["base_capacity"].as_int())));
    const Tensor kept = recorded("official/adakv/" + name + "_kept"),
                 length = recorded("official/adakv/" + name + "_len"),
                 margin = recorded("official/adakv/" + name + "_margin");
    for (std::size_t h = 0; h < std::size_t(r.heads); ++h) {
      CHECK(float(layer.size(int(h))) == length.at(h));
      same_set(layer.pos[h], kept.positions(h), margin.at(h));
    }
  }
}

TEST_CASE("KeyDiff keeps what kvpress keeps, at once and block by block", "[golden][KeyDiff]") {
  if (!have_recorded("official/keydiff")) KVIST_SKIP("reference values of keydiff");
  const Json all = manifest("keydiff");
  for (const Json& c : all["cases"].elements()) {
    const Json& p = c["parameters"];
    const std::string name(c["case"].as_string());
    INFO(name);
    const Recorded r(int(p["layer"].as_int()), 3);
    const bool blocks = name.rfind("block", 0) == 0;
    const Index budget = Index(p["budget"].as_int());
    const std::size_t chunk = blocks ? std::size_t(p["block"].as_int()) : prompt;
    const auto policy = *methods::KeyDiff::make({});
    SmallLayer layer = r.empty();
    auto state = *policy.start(layer.shape);
    // kvpress fills the budget first, then takes block by block.
    for (std::size_t at = 0; at < prompt;) {
      const std::size_t count = blocks && at == 0 ? std::size_t(budget) : std::min(chunk, prompt - at);
      r.append(layer, at, count);
      at += count;
      Clock now = prompt_clock(budget);
      now.last = at == prompt;
      run_call(policy, state, layer, now);
    }
    const Tensor kept = recorded("official/keydiff/" + name + "_kept");
    for (std::size_t h = 0; h < 3; ++h)
      same_set(layer.pos[h], kept.positions(h),
               blocks ? 1.0f : recorded("official/keydiff/" + name + "_margin").at(h));
  }
}

TEST_CASE("TOVA keeps what its published code keeps, step by step", "[golden][TOVA]") {
  if (!have_recorded("official/tova")) KVIST_SKIP("reference values of tova");
  const Json all = manifest("tova");
  for (const Json& c : all["cases"].elements()) {
    const Json& p = c["parameters"];
    const std::string name(c["case"].as_string());
    const Recorded r(int(p["layer"].as_int()), 3);
    const Index budget = Index(p["cache_size"].as_int());
    const Tensor kept = recorded("official/tova/" + name + "_kept"),
                 margin = recorded("official/tova/" + name + "_margin");
    const auto policy = *methods::TOVA::make({});
    SmallLayer layer = r.empty();
    auto state = *policy.start(layer.shape);
    r.append(layer, 0, prompt);
    r.give_queries(layer, prompt, 1);
    run_call(policy, state, layer, prompt_clock(budget));
    for (std::size_t event = 0;; ++event) {
      INFO(name << " event " << event);
      same_set(layer.pos[0], kept.positions(event), margin.at(event));
      if (layer.pos[0] != kept.positions(event) || event == steps) break;
      const std::size_t t = prompt + event;
      r.append(layer, t, 1);
      r.give_queries(layer, t + 1, 1);
      run_call(policy, state, layer, step_clock(Index(event) + 1, budget));
    }
  }
}

TEST_CASE("H2O keeps what its published code keeps, step by step", "[golden][H2O]") {
  if (!have_recorded("official/h2o")) KVIST_SKIP("reference values of h2o");
  const Json all = manifest("h2o");
  for (const Json& c : all["cases"].elements()) {
    const std::string name(c["case"].as_string());
    if (name.rfind("real", 0) != 0)
      continue;  // the other cases are the masked simulation and other codes' variants
    const Json& p = c["parameters"];
    const Recorded r(int(p["layer"].as_int()), int(p["heads"].as_int()));
    methods::H2OOptions o;
    o.heavy = int(p["hh_size"].as_int());
    o.recent = int(p["recent_size"].as_int());
    const Tensor kept = recorded("official/h2o/" + name + "_kept"),
                 margin = recorded("official/h2o/" + name + "_margin");
    const auto policy = *methods::H2O::make(o);
    SmallLayer layer = r.empty();
    auto state = *policy.start(layer.shape);
    r.append(layer, 0, prompt);
    r.give_prompt_sums(layer);
    run_call(policy, state, layer, prompt_clock(o.heavy + o.recent));
    const auto wanted = [&](std::size_t event, std::size_t h) {
      std::vector<Pos> out;
      const std::size_t width = kept.dim(2);
      for (std::size_t i = 0; i < width; ++i) out.push_back(Pos(kept.at(event, h, i)));
      return out;
    };
    bool same = true;
    for (std::size_t event = 0; same; ++event) {
      for (std::size_t h = 0; h < std::size_t(r.heads); ++h) {
        INFO(name << " event " << event << " head " << h);
        same_set(layer.pos[h], wanted(event, h), margin.at(event, h));
        same = same && layer.pos[h] == wanted(event, h);
      }
      if (event == steps) break;
      const std::size_t t = prompt + event;
      r.append(layer, t, 1);
      layer.forget_evidence();
      for (int h = 0; h < r.heads; ++h) {
        std::vector<std::vector<Row>> rows_of(std::size_t(9 / r.heads));
        for (int g = 0; g < 9 / r.heads; ++g)
          rows_of[std::size_t(g)].push_back(attention_row(layer, h, r.query(h, g, t)));
        layer.give_probs(h, rows_of);
      }
      run_call(policy, state, layer, step_clock(Index(event) + 1, o.heavy + o.recent));
    }
  }
}

TEST_CASE("StreamingLLM holds the positions that its published code holds", "[golden][StreamingLLM]") {
  if (!have_recorded("official/streamingllm")) KVIST_SKIP("reference values of streamingllm");
  const Json all = manifest("streamingllm");
  for (const Json& c : all["cases"].elements()) {
    const std::string name(c["case"].as_string());
    if (name.rfind("call", 0) != 0)
      continue;  // "make_room" does so before a chunk arrives; "posshift" is attention, below
    const Json& p = c["parameters"];
    const Tensor want = recorded("official/streamingllm/" + name);
    const Index sinks = Index(p["start_size"].as_int());
    const auto policy = methods::StreamingLLM::keep({sinks, methods::PositionScheme::keep});
    SmallLayer layer = SmallLayer::one_head();
    auto state = *policy.start(layer.shape);
    std::size_t event = 0;
    Pos next = 0;
    for (const Json& chunk : p["chunks"].elements()) {
      for (Index i = 0; i < Index(chunk.as_int()); ++i) layer.append(0, Row(2), Row(2), next++);
      run_call(policy, state, layer, prompt_clock(sinks + Index(p["recent_size"].as_int())));
      INFO(name << " event " << event);
      CHECK(layer.pos[0] == want.positions(event++));
    }
  }
}

TEST_CASE("StreamingLLM's renumbered positions give the attention of its published code",
          "[golden][StreamingLLM]") {
  if (!have_recorded("official/streamingllm")) KVIST_SKIP("reference values of streamingllm");
  const Json all = manifest("streamingllm");
  int compared = 0;
  for (const Json& c : all["cases"].elements()) {
    const std::string name(c["case"].as_string());
    if (name.rfind("posshift", 0) != 0) continue;
    const Json& p = c["parameters"];
    const std::string layer = std::to_string(p["layer"].as_int());
    const Tensor k = recorded("official/inputs/k" + layer), v = recorded("official/inputs/v" + layer),
                 q = recorded("official/inputs/q" + layer),
                 want = recorded("official/streamingllm/" + name + "_out");
    const RopeTable rope = RopeTable::standard(64, p["rope_base"].as_double(), RopePairs::half_split);
    // [count, heads, 64] from token `first` on; `turn_back`: as they were before the rotation.
    const auto rows_of = [&](const Tensor& of, std::size_t first, std::size_t count, bool turn_back) {
      Row out;
      for (std::size_t t = first; t < first + count; ++t)
        for (std::size_t h = 0; h < of.dim(0); ++h) {
          Row one = of.row(h, t);
          if (turn_back) rope.rotate(one, -double(t));
          out.insert(out.end(), one.begin(), one.end());
        }
      return out;
    };
    using Compact = Cache<methods::StreamingLLM::CompactType, DenseStore<float>>;
    const Index sinks = Index(p["start_size"].as_int()), slots = sinks + Index(p["recent_size"].as_int());
    auto cache = Compact::make(
        Shape{1, 9, 3, 64, 64}, methods::StreamingLLM::compact({sinks, methods::PositionScheme::compact}),
        [](int, int) {
          std::vector<DenseStore<float>> one;
          one.emplace_back(64, 64);
          return one;
        },
        &rope);
    REQUIRE(cache);
    const Index budget = slots - 1;  // the code makes room for a token before it comes
    REQUIRE(cache->append(0, Index(prompt), rows_of(k, 0, prompt, true).data(),
                          rows_of(v, 0, prompt, false).data(), 0));
    REQUIRE(cache->observe(0, {}, prompt_clock(budget)));
    Serial serial;
    Row out(9 * 64);
    for (std::size_t step = 0; step < steps; ++step) {
      const std::size_t t = prompt + step;
      REQUIRE(cache->append(0, 1, rows_of(k, t, 1, true).data(), rows_of(v, t, 1, false).data(), Pos(t)));
      REQUIRE(cache->size(0, 0) == slots);
      REQUIRE(cache->attend(0, rows_of(q, t, 1, true).data(), 0.125f, out.data(), serial));
      float worst = 0;
      for (std::size_t i = 0; i < out.size(); ++i)
        worst = std::max(worst, std::abs(out[i] - want.data[step * 9 * 64 + i]));
      INFO(name << " step " << step);
      CHECK(worst < 2e-5f);
      REQUIRE(cache->step(0, step_clock(Index(step) + 1, budget)));
      ++compared;
    }
  }
  CHECK(compared > 0);
}
