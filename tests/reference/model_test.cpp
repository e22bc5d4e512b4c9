// SPDX-License-Identifier: Apache-2.0
#include <kvist/reference/model.hpp>

#include <string>

#include "support/assets.hpp"
#include "support/catch.hpp"
#include "support/small_model.hpp"

using namespace kvist;
using namespace kvist::test;

namespace {

/// Loading fails with this code, and the detail names `about`.
void check_refused(const SmallModel& small, Errc code, const std::string& about) {
  INFO(about);
  std::string detail;
  const auto model = load(small, &detail);
  REQUIRE_FALSE(model);
  CHECK(model.error().code == code);
  CHECK(std::string(model.error().what).size() > 10);
  INFO(detail);
  CHECK(detail.find(about) != std::string::npos);
}

}  // namespace

TEST_CASE("Model reads its sizes, weights and rotation from the file", "[reference][Model]") {
  SmallModel small;
  small.dim_k = 12;
  small.dim_v = 20;
  small.strings["general.name"] = "a small one";
  small.numbers["llama.rope.freq_base"] = 5000;
  small.sizes["llama.rope.dimension_count"] = 8;
  const auto loaded = load(small);
  REQUIRE(loaded);
  const Model& m = loaded->model;
  CHECK(m.config().architecture == "llama");
  CHECK(m.config().name == "a small one");
  CHECK(m.shape() == Shape{2, 4, 2, 12, 20});
  CHECK(m.config().width == 64);
  CHECK(m.config().ffn_width == 96);
  CHECK(m.config().vocabulary == 50);
  CHECK(m.config().context_length == 128);
  CHECK(m.config().norm_epsilon == 1e-5f);
  CHECK(m.config().attention_scale == Catch::Approx(1 / std::sqrt(12.0)));
  CHECK(m.rope().rotary_dims() == 8);
  CHECK(m.rope().pairs == RopePairs::neighbours);
  CHECK(m.rope().frequency[1] == Catch::Approx(std::pow(5000.0, -0.25)));
  CHECK(m.tied());
  CHECK(m.layer(1).q.w.rows == 48);
  CHECK(m.layer(1).q.w.cols == 64);
  CHECK(m.layer(1).o.w.cols == 80);
  CHECK(m.layer(0).q.bias.empty());

  small.tied = false;
  small.biases = true;
  small.type = TensorType::q4_1;
  small.dim_v = 16;
  const auto other = load(small);
  REQUIRE(other);
  CHECK_FALSE(other->model.tied());
  CHECK(other->model.output().w.type == TensorType::q4_1);
  CHECK(other->model.layer(0).down.bias.size() == 64);
}

TEST_CASE("Model names what is missing or of another shape", "[reference][Model]") {
  for (const char* name : {"token_embd.weight", "output_norm.weight", "blk.1.attn_q.weight",
                           "blk.0.ffn_down.weight", "blk.1.ffn_norm.weight"}) {
    SmallModel small;
    small.without = name;
    check_refused(small, Errc::not_found, name);
    if (small.without == "token_embd.weight") continue;  // its rows are the vocabulary, whatever they are
    small.without.clear();
    small.wrong = name;
    check_refused(small, Errc::bad_file, name);
  }
  SmallModel small;
  small.layers = 3;
  small.sizes["llama.block_count"] = 4;
  check_refused(small, Errc::not_found, "blk.3.attn_norm.weight");
  std::string detail;
  const auto none = Model::load("/no/such/model.gguf", &detail);
  REQUIRE_FALSE(none);
  CHECK(none.error().code == Errc::not_found);
  CHECK(detail == "/no/such/model.gguf");
}

TEST_CASE("Model refuses what it would get wrong, by name", "[reference][Model]") {
  const auto refused = [](auto change, Errc code, const std::string& about) {
    SmallModel small;
    change(small);
    check_refused(small, code, about);
  };
  refused([](SmallModel& s) { s.strings["general.architecture"] = "gemma"; }, Errc::unsupported, "gemma");
  refused([](SmallModel& s) { s.strings["llama.rope.scaling.type"] = "longrope"; }, Errc::unsupported,
          "longrope");
  refused([](SmallModel& s) { s.sizes["llama.expert_count"] = 8; }, Errc::unsupported, "llama.expert_count");
  refused([](SmallModel& s) { s.sizes["llama.attention.sliding_window"] = 64; }, Errc::unsupported,
          "sliding_window");
  refused([](SmallModel& s) { s.sizes["llama.block_count"] = 4000000000u; }, Errc::bad_file, "block_count");
  refused([](SmallModel& s) { s.sizes["llama.feed_forward_length"] = 0; }, Errc::bad_file,
          "feed_forward_length");
  refused([](SmallModel& s) { s.sizes["llama.rope.dimension_count"] = 18; }, Errc::bad_file,
          "dimension_count");
  refused(
      [](SmallModel& s) {
        s.vectors["blk.0.attn_q_norm.weight"] = {1, 1};
      },
      Errc::unsupported, "attn_q_norm");
  refused(
      [](SmallModel& s) {
        s.vectors["rope_freqs.weight"] = {1, 1};
      },
      Errc::bad_file, "rope_freqs.weight");
  refused([](SmallModel& s) { s.vectors["rope_freqs.weight"] = {1, 1, 1, 0, 1, 1, 1, 1}; }, Errc::bad_file,
          "rope_freqs.weight");
  refused([](SmallModel& s) { s.numbers["llama.attention.layer_norm_rms_epsilon"] = -1; }, Errc::bad_file,
          "layer_norm_rms_epsilon");
  refused([](SmallModel& s) { s.numbers["llama.rope.freq_base"] = 0.5f; }, Errc::bad_file, "freq_base");
  refused([](SmallModel& s) { s.numbers["llama.embedding_length"] = 64; }, Errc::bad_file,
          "embedding_length");  // an f32
  refused([](SmallModel& s) { s.kv_heads = 3; }, Errc::bad_file, "head_count_kv");
}

TEST_CASE("Model takes any file of a model, cut or altered, without a crash", "[reference][Model]") {
  SmallModel small;
  small.layers = 1;
  small.width = 32;
  small.ffn = 32;
  small.vocabulary = 10;
  const std::string good = small.bytes();
  const auto try_load = [](const std::string& bytes) {
    auto file = Gguf::parse(std::as_bytes(std::span(bytes.data(), bytes.size())));
    return file && Model::load(*std::move(file));
  };
  REQUIRE(try_load(good));
  for (std::size_t n = 0; n < good.size(); n += n < 3000 ? 1 : 97) CHECK_FALSE(try_load(good.substr(0, n)));
  Random random(3);
  int loaded = 0;
  for (int i = 0; i < 3000; ++i) {
    std::string bad = good;
    for (int flips = 0; flips < 3; ++flips) bad[random.below(3000)] = char(random.below(256));
    loaded += try_load(bad);
  }
  CHECK(loaded < 3000);
}

TEST_CASE("The bundled model loads", "[reference][Model]") {
  const auto path = bundled_model_path();
  if (!path) KVIST_SKIP("the bundled model");
  std::string detail;
  const auto model = Model::load(*path, &detail);
  INFO(detail);
  REQUIRE(model);
  CHECK(model->shape().valid());
}
