// SPDX-License-Identifier: Apache-2.0
// prefill/tokens:<n>/threads:<n>: a prompt through the reference transformer, against its products alone: the linear
// layers (weights expanded to f32 before the clock starts) and the causal half of Q K^T and P V, done with Eigen at the
// same flags on the same threads in between. `ratio` and `cpu_ratio` are medians of prefill over products.
// step/<store>/depth:<n>/threads:1: one token at that depth; tokens_per_cpu_second.
// Both need SmolLM2-135M-Instruct (cmake/model.sh) and are left out where it is not found.
#include "kernels/heads.hpp"
#include "measure.hpp"

#include <kvist/cache/cache.hpp>
#include <kvist/methods/full.hpp>
#include <kvist/reference/transformer.hpp>

#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "support/assets.hpp"

namespace {

using namespace kvist;
using namespace kvist::bench;

double process_seconds() {
  timespec t{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return double(t.tv_sec) + double(t.tv_nsec) * 1e-9;
}

struct Took {
  double wall = 0, cpu = 0;
};
template <class F>
Took took(F&& f) {
  const double wall = now(), cpu = process_seconds();
  f();
  return {now() - wall, process_seconds() - cpu};
}

std::shared_ptr<const Model> the_model() {
  static const std::shared_ptr<const Model> model = []() -> std::shared_ptr<const Model> {
    const auto path = test::model_path();
    if (!path) return nullptr;
    auto loaded = Model::load(*path);
    return loaded ? std::make_shared<const Model>(*std::move(loaded)) : nullptr;
  }();
  return model;
}

/// A cache that keeps everything, in stores that `make(head dimension)` gives.
template <class Make>
auto full_cache(const Shape& shape, Make make) {
  using S = decltype(make(0));
  return *Cache<methods::Full::Type, S>::make(shape, methods::Full::Type(), [shape, make](int, int) {
    std::vector<S> one;
    one.push_back(make(shape.dim_k));
    return one;
  });
}

template <Scalar T>
DenseStore<T> dense(int d) {
  return DenseStore<T>(d, d);
}

std::vector<Token> some_ids(Index n, int vocabulary) {
  std::vector<Token> ids;
  for (Index i = 0; i < n; ++i) ids.push_back(Token((std::int64_t(i) * 7919 + 13) % vocabulary));
  return ids;
}

/// The products of one layer for n tokens, cut into tasks for a pool.
class Products {
 public:
  Products(const Model& model, Index n) : shape_(model.shape()), n_(n) {
    const LayerWeights& layer = model.layer(0);
    for (const Linear* l : {&layer.q, &layer.k, &layer.v, &layer.o, &layer.gate, &layer.up, &layer.down}) {
      One one;
      one.w.resize(l->w.rows, l->w.cols);
      [[maybe_unused]] const Status done =
          dequantize(l->w.type, {l->w.data, l->w.bytes()}, {one.w.data(), std::size_t(one.w.size())});
      one.x = detail::Matrix::Random(n, l->w.cols);
      one.y.resize(n, l->w.rows);
      linear_.push_back(std::move(one));
    }
    for (int h = 0; h < shape_.q_heads; ++h) {
      Half half;
      half.q = detail::Matrix::Random(n, shape_.dim_k);
      half.k = detail::Matrix::Random(n / 2, shape_.dim_k);
      half.v = detail::Matrix::Random(n / 2, shape_.dim_v);
      half.p.resize(n, n / 2);
      half.o.resize(n, shape_.dim_v);
      heads_.push_back(std::move(half));
    }
  }
  void run(ThreadPool& pool) {
    constexpr Index parts = 4;
    const Index rows = n_ / parts;
    for (One& one : linear_)
      pool.for_each(parts, [&](Index i) {
        one.y.middleRows(i * rows, rows).noalias() = one.x.middleRows(i * rows, rows) * one.w.transpose();
      });
    pool.for_each(parts * shape_.q_heads, [&](Index task) {
      Half& h = heads_[std::size_t(task / parts)];
      const Index first = task % parts * rows;
      h.p.middleRows(first, rows).noalias() = h.q.middleRows(first, rows) * h.k.transpose();
      h.o.middleRows(first, rows).noalias() = h.p.middleRows(first, rows) * h.v;
    });
  }

 private:
  struct One {
    detail::Matrix x, w, y;
  };
  struct Half {
    detail::Matrix q, k, v, p, o;
  };
  Shape shape_;
  Index n_;
  std::vector<One> linear_;
  std::vector<Half> heads_;
};

Counters prefill(Index n, int threads) {
  const Model& model = *the_model();
  ThreadPool pool(threads);
  Transformer transformer(model, pool);
  Products products(model, n);
  const std::vector<Token> ids = some_ids(n, model.config().vocabulary);
  std::vector<double> wall, cpu, alone_wall, alone_cpu, ratio, cpu_ratio;
  for (int r = 0; r < 4; ++r) {
    auto cache = full_cache(model.shape(), dense<float>);
    const Took all = took([&] { benchmark::DoNotOptimize(bool(transformer.forward(ids, 0, cache))); });
    const Took alone = took([&] {
      for (int l = 0; l < model.shape().layers; ++l) products.run(pool);
    });
    if (r == 0) continue;  // memory is touched for the first time
    wall.push_back(all.wall);
    cpu.push_back(all.cpu);
    alone_wall.push_back(alone.wall);
    alone_cpu.push_back(alone.cpu);
    ratio.push_back(all.wall / alone.wall);
    cpu_ratio.push_back(all.cpu / alone.cpu);
  }
  return {{"seconds", median(wall)},
          {"cpu_seconds", median(cpu)},
          {"products_seconds", median(alone_wall)},
          {"products_cpu_seconds", median(alone_cpu)},
          {"ratio", median(ratio)},
          {"cpu_ratio", median(cpu_ratio)},
          {"tokens_per_second", double(n) / median(wall)}};
}

template <class Make>
Counters step(Index depth, Make make) {
  const Model& model = *the_model();
  ThreadPool pool(1);
  Transformer transformer(model, pool);
  auto cache = full_cache(model.shape(), make);
  constexpr Index steps = 24;
  cache.reserve(depth + 8 * steps);
  const Shape shape = model.shape();
  if (depth > 0) {  // what the entries hold does not matter for the time
    const std::vector<float> k(std::size_t(depth) * std::size_t(shape.kv_heads * shape.dim_k), 0.1f);
    const std::vector<float> v(std::size_t(depth) * std::size_t(shape.kv_heads * shape.dim_v), 0.1f);
    for (int l = 0; l < shape.layers; ++l)
      if (!cache.append(l, depth, k.data(), v.data(), 0) ||
          !cache.observe(l, {}, Clock{Phase::prefill, 0, depth}))
        return {};
  }
  const std::vector<Token> ids = some_ids(8 * steps, model.config().vocabulary);
  std::vector<double> seconds;
  for (Index i = 0; i < 6 * steps; i += steps) {
    const double t = thread_seconds();
    for (Index j = i; j < i + steps; ++j) {
      ForwardCall call;
      call.step = j + 1;
      benchmark::DoNotOptimize(
          bool(transformer.forward(std::span(ids).subspan(std::size_t(j), 1), depth + j, cache, call)));
    }
    if (i > 0) seconds.push_back((thread_seconds() - t) / double(steps));
  }
  return {{"cpu_ms", median(seconds) * 1e3}, {"tokens_per_cpu_second", 1 / median(seconds)}};
}

[[maybe_unused]] const bool registered = [] {
  if (!the_model()) {
    std::fprintf(stderr, "prefill and step benchmarks are left out: no SmolLM2 model (cmake/model.sh)\n");
    return false;
  }
  for (const auto& [n, threads] : {std::pair{Index{512}, 1}, {Index{2048}, 1}, {Index{2048}, 2}})
    add("prefill/tokens:" + std::to_string(n) + "/threads:" + std::to_string(threads),
        [n = n, threads = threads] { return prefill(n, threads); });
  for (const Index depth : {0, 2048, 8000}) {
    const auto name = [depth](const std::string& store) {
      return "step/" + store + "/depth:" + std::to_string(depth) + "/threads:1";
    };
    add(name("f32"), [=] { return step(depth, dense<float>); });
    add(name("f16"), [=] { return step(depth, dense<f16>); });
    for (const char* format : {"int8", "int4_128", "int4_128_accurate", "int4_32", "q8_0", "q4_0"})
      add(name(format), [=] { return step(depth, [format](int d) { return packed_store(format, d); }); });
  }
  return true;
}();

}  // namespace
