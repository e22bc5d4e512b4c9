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
  double tolerance;  ///< of the output, relative; of the logits a third
};

// What was measured, and a quarter more. Rows that are decoded are worked on in f32; kernels at the codes round queries and
// weights to 16 bits (exact) or 8 (fast). Every eighth channel of the rows and queries is four times as loud: the others get
// less of a query's 8 bits, keys coded per channel get least, and a few large weights carry the output's error unaveraged.
constexpr double decoded = 3e-6, exact = 3e-4, fast = 3e-2, fast_int8 = 4e-2, fast_channels = 5e-2;

std::vector<Named> stores() {
  std::vector<Named> out{{"rotated(int8)", exact},
                         {"rotated(q5_1)", decoded},
                         {"KIVI:bits=4,group=64,residual=64", exact},
                         {"KIVI:bits=3,group=16,residual=16", decoded},
                         {"int_token:bits=4,group=32,outliers=2", decoded},
                         {"int8:accuracy=fast", fast_int8},
                         {"q8_0:accuracy=fast", fast},
                         {"q4_0:accuracy=fast", fast},
                         {"q4_1:accuracy=fast", fast},
                         {"int_token:bits=4,group=32,accuracy=fast", fast},
                         {"KIVI:bits=4,group=32,residual=32,accuracy=fast", fast_channels},
                         {"KIVI:bits=2,group=32,residual=32,accuracy=fast", fast_channels},
                         {"MiniCache:start=0+f16", decoded},
                         {"MiniCache:start=0+int8", decoded},
                         {"MiniCache:start=0,gamma=0.5+rotated(int8)", decoded}};
  for (const methods::Entry& e : methods::registry()) {
    const std::string_view name = e.info.name;
    if (!e.store || name == "rotated") continue;
    const std::string_view kernels[] = {"int8", "int_token", "q8_0", "q4_0", "q4_1", "KIVI"};
    const bool at_codes = std::find(std::begin(kernels), std::end(kernels), name) != std::end(kernels);
    out.push_back({std::string(name) + (name == "MiniCache" ? ":start=0" : ""), at_codes ? exact : decoded});
  }
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
        double error = 0, norm = 0, mass = 0, logit_error = 0, logit_norm = 0, worst_logit = 0;
        Index seen = 0;
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
            if (std::isinf(w)) continue;
            logit_error += (w - x) * (w - x), logit_norm += w * w, ++seen;
            worst_logit = std::max(worst_logit, std::fabs(w - x));
          }
        }
        INFO("kind " << kind << ": relative error " << std::sqrt(error / norm));
        REQUIRE(std::sqrt(error / norm) < store.tolerance);
        if (a.logits == nullptr) continue;
        const double rms = std::sqrt(logit_norm / double(seen));
        INFO("logits: relative error " << std::sqrt(logit_error / logit_norm) << ", worst "
                                       << worst_logit / rms);
        REQUIRE(std::sqrt(logit_error / logit_norm) < store.tolerance / 3);
        REQUIRE(worst_logit < store.tolerance / 3 * 5 * rms);
        tap_probabilities(state, logits.data(), n, n);
        for (std::size_t i = 0; i < std::size_t(n); ++i) mass += double(logits[i]);
        if (!sinks) REQUIRE(mass == Approx(1).margin(1e-5));
        else REQUIRE(mass < 1);
      }
    }
  }
}

TEST_CASE(
    "Rows that hold no numbers leave the others' attention alone when they are hidden, and when they are "
    "gone",
    "[storage][stores]") {
  const float inf = std::numeric_limits<float>::infinity();
  for (const Named& store : stores())
    for (const float bad : {std::nanf(""), inf, -inf, 1e30f}) {
      if (store.name.find("MiniCache") != store.name.npos) continue;  // directions of two layers
      // rows that share a range with an infinity keep little else
      if (store.name == "int_channel" && !std::isnan(bad)) continue;
      INFO(store.name << " " << bad);
      Numbers numbers(41);
      AnyStore s = std::move(made(store.name)[0]);
      auto rows_k = numbers.rows(500, d), rows_v = numbers.rows(500, d);
      std::vector<Index> bad_rows{50, 51, 130, 296}, good;
      for (const Index i : bad_rows)
        for (int c = 0; c < d; ++c) {
          rows_k[std::size_t(i * d + c)] = std::nanf("");
          rows_v[std::size_t(i * d + c)] = i == 51 && c % 3 == 0 ? 1.0f : bad;
        }
      const auto check = [&](const char* what, Index first, const std::vector<Index>& only,
                             const std::vector<Index>& hidden) {
        INFO(what);
        const Index n = s.size();
        std::vector<float> k(std::size_t(n * d)), v(k), out(std::size_t(2 * d));
        s.read(0, n, k.data(), v.data());
        for (const Index i : hidden)
          std::fill_n(k.begin() + i * d, d, 0.0f), std::fill_n(v.begin() + i * d, d, 0.0f);
        const auto q = numbers.rows(2, d);
        AttendArgs a;
        a.q = q.data();
        a.group = 2;
        a.scale = 0.125f;
        a.first = first;
        a.only = only;
        AttnBuffer buffer(2, d);
        s.attend(a, buffer.state());
        finish(buffer.state(), out.data());
        double error = 0, norm = 0;
        for (int g = 0; g < 2; ++g) {
          const auto want = exact_attention(a, g, k, v, d, n);
          for (int c = 0; c < d; ++c) {
            const double e = double(out[std::size_t(g * d + c)]) - want.out[std::size_t(c)];
            error += e * e;
            norm += want.out[std::size_t(c)] * want.out[std::size_t(c)];
          }
        }
        REQUIRE(std::sqrt(error / norm) < store.tolerance);
      };
      for (Index i = 0; i < 300; ++i)
        if (std::find(bad_rows.begin(), bad_rows.end(), i) == bad_rows.end()) good.push_back(i);
      s.append(rows_k.data(), rows_v.data(), 300);
      check("a list, nothing coded", 0, good, bad_rows);
      check("a window, nothing coded", 297, {}, bad_rows);
      s.settle();
      check("a list", 0, good, bad_rows);
      check("a window", 297, {}, bad_rows);
      s.drop(bad_rows);
      check("gone", 0, {}, {});
      for (Index i = 300; i < 420; ++i) {
        s.append(rows_k.data() + i * d, rows_v.data() + i * d, 1);
        s.settle();
      }
      check("gone for long", 0, {}, {});
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
