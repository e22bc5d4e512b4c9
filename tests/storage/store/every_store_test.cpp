// SPDX-License-Identifier: Apache-2.0
// Every registered store answers like attention by its formula over the rows that it gives back: whole groups and tiles of
// many queries, a sliding window's edge, lists of rows, caps, biases, sinks, logits.
#include "../../support/catch.hpp"
#include "../../support/coded_rows.hpp"

#include <kvist/attention/tap.hpp>
#include <kvist/methods/spec.hpp>
#include <kvist/storage/codec/ggml.hpp>

using namespace kvist;
using namespace kvist::test;

namespace {

constexpr int d = 64;
const Shape shape{1, 4, 1, d, d};

struct Named {
  std::string name;
  double tolerance;  ///< of the output, relative: rows with loud channels, thus peaked weights
};

std::vector<Named> stores() {
  std::vector<Named> out{{"rotated(int8)", 3e-4},
                         {"rotated(q5_1)", 3e-6},
                         {"KIVI:bits=4,group=64,residual=64", 3e-4},
                         {"KIVI:bits=3,group=16,residual=16", 3e-6},
                         {"int_token:bits=4,group=32,outliers=2", 3e-6},
                         {"int8:accuracy=fast", 6e-2},
                         {"q8_0:accuracy=fast", 6e-2},
                         {"q4_0:accuracy=fast", 6e-2},
                         {"q4_1:accuracy=fast", 6e-2},
                         {"int_token:bits=4,group=32,accuracy=fast", 6e-2},
                         {"KIVI:bits=4,group=32,residual=32,accuracy=fast", 6e-2},
                         {"KIVI:bits=2,group=32,residual=32,accuracy=fast", 6e-2},
                         {"MiniCache:start=0+f16", 3e-4},
                         {"MiniCache:start=0+int8", 3e-4},
                         {"MiniCache:start=0,gamma=0.5+rotated(int8)", 3e-4}};
  for (const methods::Entry& e : methods::registry())
    if (e.store && std::string_view(e.info.name) != "rotated")
      out.push_back(
          {std::string(e.info.name) + (std::string_view(e.info.name) == "MiniCache" ? ":start=0" : ""), 3e-4});
  return out;
}

/// The store of each layer, told of each other: one, or two where layers share.
std::vector<AnyStore> made(const std::string& spec) {
  std::string fault;
  const auto parsed = methods::parse_spec(spec, fault);
  REQUIRE(parsed);
  auto made = methods::make(*parsed, fault);
  INFO(fault);
  REQUIRE(made);
  Shape s = shape;
  s.layers = made->shares ? 2 : 1;
  std::vector<AnyStore> out;
  for (int l = 0; l < s.layers; ++l) {
    auto stores = made->stores(s, l, 0);
    REQUIRE(stores);
    out.push_back(std::move((*stores)[0]));
    if (l > 0) REQUIRE(out[1].couple(out[0]));
    REQUIRE(out.back().coupled());
  }
  return out;
}

}  // namespace

TEST_CASE("Attention over every store is that of the rows it gives back", "[storage][stores]") {
  for (const Named& store : stores()) {
    INFO(store.name);
    Numbers numbers(31);
    auto layers = made(store.name);
    std::vector<std::vector<float>> rows_k, rows_v;
    for (std::size_t l = 0; l < layers.size(); ++l) {
      rows_k.push_back(numbers.rows(700, d)), rows_v.push_back(numbers.rows(700, d));
      for (std::size_t i = 0; l > 0 && i < rows_k[0].size(); ++i)  // an upper layer's are like the lower one's
        rows_k[l][i] = rows_k[0][i] + 0.3f * rows_k[l][i], rows_v[l][i] = rows_v[0][i] + 0.3f * rows_v[l][i];
      layers[l].append(rows_k[l].data(), rows_v[l].data(), 600);
      layers[l].settle();
    }
    for (std::size_t l = 0; l < layers.size(); ++l) {
      std::vector<Index> gone;  // dead rows in the middle of pages
      for (Index i = 100 + Index(l); i < 500; i += 3) gone.push_back(i);
      layers[l].drop(gone);
    }
    for (Index i = 600; i < 700; ++i)
      for (std::size_t l = 0; l < layers.size(); ++l) {
        layers[l].append(rows_k[l].data() + i * d, rows_v[l].data() + i * d, 1);
        layers[l].settle();
      }
    for (const AnyStore& s : layers) {
      const Index n = s.size();
      std::vector<float> k(std::size_t(n * d)), v(k), bias(static_cast<std::size_t>(n));
      s.read(0, n, k.data(), v.data());
      for (float& b : bias) b = float(numbers.random.uniform());
      std::vector<Index> some, last{n - 1};
      for (Index i = 0; i < n; ++i)
        if (numbers.random.below(9) == 0) some.push_back(i);
      for (int kind = 0; kind < 7; ++kind) {
        const int groups[] = {1, 4, 3, 8, 1, 64, 4};
        AttendArgs a;
        a.group = groups[kind];
        const auto q = numbers.rows(a.group, d);
        a.q = q.data();
        a.scale = 0.125f;
        if (kind == 1) a.first = n - 200;
        if (kind == 2) a.soft_cap = 2.5f, a.bias = bias.data();
        if (kind == 3) a.only = some;
        if (kind == 4) a.only = last, a.bias = bias.data();
        if (kind == 6) a.first = 130, a.only = some, a.soft_cap = 5;
        std::vector<float> logits(std::size_t(a.group * n), 7.0f), out(std::size_t(a.group * d));
        if (kind != 5) a.logits = logits.data(), a.logits_stride = n;
        AttnBuffer buffer(a.group, d);
        const AttnState state = buffer.state();
        s.attend(a, state);
        const bool sinks = kind == 1 || kind == 6;
        if (sinks)
          for (int g = 0; g < a.group; ++g) add_sink(state, g, 0.5f * float(g));
        finish(state, out.data());
        double error = 0, norm = 0, mass = 0;
        for (int g = 0; g < a.group; ++g) {
          auto want = exact_attention(a, g, k, v, d, n);
          if (sinks) {  // takes its share of the probability
            double sum = 0;
            for (const double x : want.logits) sum += std::exp(x);
            for (double& x : want.out) x *= sum / (sum + std::exp(0.5 * g));
          }
          for (int c = 0; c < d; ++c) {
            const double e = double(out[std::size_t(g * d + c)]) - want.out[std::size_t(c)];
            error += e * e;
            norm += want.out[std::size_t(c)] * want.out[std::size_t(c)];
          }
          if (a.logits == nullptr) continue;
          for (Index i = 0; i < n; ++i) {
            const double w = want.logits[std::size_t(i)], x = double(logits[std::size_t(g * n + i)]);
            REQUIRE(std::isinf(w) == std::isinf(x));
            if (!std::isinf(w)) REQUIRE(std::fabs(w - x) < 60 * store.tolerance);
          }
        }
        INFO("kind " << kind << ": relative error " << std::sqrt(error / norm));
        REQUIRE(std::sqrt(error / norm) < store.tolerance);
        if (a.logits == nullptr) continue;
        tap_probabilities(state, logits.data(), n, n);
        for (std::size_t i = 0; i < std::size_t(n); ++i) mass += double(logits[i]);
        if (!sinks) REQUIRE(mass == Approx(1).margin(1e-5));
        else REQUIRE(mass < 1);
      }
    }
  }
}

TEST_CASE("The blocks of q8_0, q4_0 and q4_1 decode to the same numbers in pages",
          "[storage][stores][ggml]") {
  const auto check = [](auto block, const std::string& name) {
    using Block = decltype(block);
    AnyStore s = std::move(made(name)[0]);
    Numbers numbers(5);
    auto rows = numbers.rows(200, d);
    for (std::size_t i = 0; i < 32; ++i) rows[64 + i] = 0;               // a block of zeros
    for (std::size_t i = 0; i < 64; ++i) rows[192 + i] = -3 + float(i);  // the largest is positive
    s.append(rows.data(), rows.data(), 200);
    s.settle();
    std::vector<float> k(rows), v(rows), want(rows);
    s.read(0, 200, k.data(), v.data());
    for (std::size_t i = 0; i < rows.size(); i += 32) {
      std::uint8_t bytes[Block::bytes];
      Block::encode(rows.data() + i, bytes);
      Block::decode(bytes, want.data() + i);
    }
    INFO(name);
    CHECK((k == want));
    CHECK((v == want));
    CHECK(s.bytes() == 256u / 32 * d * 2 * Block::bytes + 4 * 8);  // two pages of each side, and the bitmap
  };
  check(ggml::Q8_0{}, "q8_0");
  check(ggml::Q4_0{}, "q4_0");
  check(ggml::Q4_1{}, "q4_1");
}
