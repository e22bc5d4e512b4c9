// SPDX-License-Identifier: Apache-2.0
// The one place where the transformer is compiled.
#include "engine.hpp"

#include "places.hpp"

#include <kvist/reference/transformer.hpp>

namespace kvist_eval {
namespace {

struct Hooks {
  const Pass& pass;
  void on_logits(Index first, Index count, std::span<const float> logits) const {
    if (pass.on_logits) pass.on_logits(first, count, logits);
  }
  void on_attention(int layer, std::span<const float> out, Pos) const {
    if (pass.on_attention) pass.on_attention(layer, out);
  }
};

}  // namespace

struct Engine::Runner {
  kvist::Transformer<kvist::ThreadPool> transformer;
};

Engine::Engine(std::string name, kvist::Model model, kvist::Tokenizer tokenizer, int threads)
    : name_(std::move(name)),
      model_(std::move(model)),
      tokenizer_(std::move(tokenizer)),
      pool_(threads),
      runner_(new Runner{kvist::Transformer<kvist::ThreadPool>(model_, pool_)}) {}
Engine::~Engine() = default;

Outcome<std::unique_ptr<Engine>> Engine::load(const std::string& name, int threads) {
  auto path = find_model(name);
  if (!path) return path.failure();
  std::string detail;
  auto model = kvist::Model::load(*path, &detail);
  if (!model) {
    Failure f = failed(fmt::format("model '{}'", *path), model.error());
    if (!detail.empty()) f.message += fmt::format(" [{}]", detail);
    return f;
  }
  auto tokenizer = kvist::Tokenizer::from_gguf(model->file());
  if (!tokenizer) return failed(fmt::format("tokenizer of '{}'", *path), tokenizer.error());
  return std::unique_ptr<Engine>(new Engine(name, *std::move(model), *std::move(tokenizer), threads));
}

kvist::Status Engine::forward(std::span<const Token> ids, Pos first, EvalCache& cache, const Pass& pass) {
  kvist::ForwardCall call;
  call.logits = pass.logits;
  call.prompt = pass.prompt;
  call.last_chunk = pass.last_chunk;
  call.step = pass.step;
  const auto done = runner_->transformer.forward(ids, first, cache, call, Hooks{pass});
  if (!done) return done.error();
  return kvist::Done{};
}

}  // namespace kvist_eval
