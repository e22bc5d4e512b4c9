// SPDX-License-Identifier: Apache-2.0
#include <kvist/cache/cache.hpp>
#include <kvist/methods/full.hpp>
#include <kvist/reference/transformer.hpp>
#include <kvist/storage/store/dense.hpp>

#include <vector>

#include "support/catch.hpp"
#include "support/count_allocations.hpp"
#include "support/small_model.hpp"

using namespace kvist;
using namespace kvist::test;

TEST_CASE("Decoding allocates nothing once the cache has room, with one thread and with several",
          "[reference][Transformer]") {
  for (const TensorType type : {TensorType::q4_1, TensorType::q5_0, TensorType::f32})
    for (const int threads : {1, 3}) {
      SmallModel small;
      small.type = type;
      small.width = 256;
      small.ffn = 2048;  // products that are worth waking other threads for
      small.vocabulary = 8000;
      auto loaded = load(small);
      REQUIRE(loaded);
      const Shape shape = loaded->model.shape();
      ThreadPool pool(threads);
      Transformer transformer(loaded->model, pool);
      auto cache =
          Cache<methods::Full::Type, DenseStore<float>>::make(shape, methods::Full::Type(), [shape](int, int) {
            std::vector<DenseStore<float>> one;
            one.emplace_back(shape.dim_k, shape.dim_v);
            return one;
          });
      REQUIRE(cache);
      cache->reserve(64);
      const std::vector<Token> ids = some_ids(40, small.vocabulary);
      ForwardCall prompt;
      prompt.prompt = true;
      REQUIRE(transformer.forward(std::span(ids).first(20), 0, *cache, prompt));
      const long long before = allocations;
      bool good = true;
      for (std::size_t i = 20; i < ids.size(); ++i) {
        ForwardCall call;
        call.step = 0;
        good = good && transformer.forward(std::span(ids).subspan(i, 1), Pos(i), *cache, call);
      }
      const long long after = allocations;
      CHECK(good);
      CHECK(after == before);
    }
}
