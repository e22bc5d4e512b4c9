// SPDX-License-Identifier: Apache-2.0
// Caches whose layers share storage two by two: MiniCache alone, with policies, over coded directions.
#include <kvist/cache/cache.hpp>
#include <kvist/methods/spec.hpp>
#include <kvist/storage/store/shared_direction.hpp>

#include "support/catch.hpp"
#include "support/coded_rows.hpp"

using namespace kvist;
using namespace kvist::test;

namespace {

using AnyCache = Cache<AnyPolicy, AnyStore>;
constexpr int d = 64;
const Shape shape{7, 4, 2, d, d};  // pairs (3,4), (5,6)

Result<AnyCache> try_cache(const std::string& text, const Shape& s = shape) {
  std::string fault;
  const auto spec = methods::parse_spec(text, fault);
  if (!spec) return spec.error();
  auto made = methods::make(*spec, fault);
  if (!made) return made.error();
  return AnyCache::make(s, made->policy, [&](int l, int h) { return made->stores(s, l, h); });
}
AnyCache cache_of(const std::string& text) {
  INFO(text);
  auto c = try_cache(text);
  REQUIRE(c);
  return *std::move(c);
}

/// Tokens whose layers are like their neighbours', as those of models are.
struct Tokens {
  Numbers numbers;
  std::vector<std::vector<float>> k, v;  // [layers] of the last call
  explicit Tokens(std::uint64_t seed) : numbers(seed) {}
  void next(Index n) {
    k.assign(std::size_t(shape.layers), {});
    v = k;
    auto last_k = numbers.rows(n, 2 * d), last_v = numbers.rows(n, 2 * d);
    for (std::size_t l = 0; l < k.size(); ++l) {
      const auto a = numbers.rows(n, 2 * d), b = numbers.rows(n, 2 * d);
      for (std::size_t i = 0; i < a.size(); ++i)
        last_k[i] = 0.8f * last_k[i] + 0.4f * a[i], last_v[i] = 0.8f * last_v[i] + 0.4f * b[i];
      k[l] = last_k;
      v[l] = last_v;
    }
  }
};

void prompt(AnyCache& cache, Index n, Index budget, Tokens& tokens) {
  tokens.next(n);
  const Pos first = cache.next_position();
  for (int l = 0; l < shape.layers; ++l) {
    REQUIRE(cache.append(l, n, tokens.k[std::size_t(l)].data(), tokens.v[std::size_t(l)].data(), first));
    const Index held = cache.head(l, 0).tier(0).store.size();
    const auto q = tokens.numbers.rows(4 * n, d);
    std::vector<float> sums(std::size_t(4 * held)), seen_by(std::size_t(held), 1.0f);
    for (float& x : sums) x = float(tokens.numbers.random.uniform());
    std::vector<Evidence> seen(2);
    for (std::size_t h = 0; h < 2; ++h) {
      seen[h].queries = cube(q.data() + h * std::size_t(2 * n) * d, 2, n, d);
      seen[h].first_query = first;
      seen[h].column_sums = cube(sums.data() + h * std::size_t(2 * held), 2, 1, held);
      seen[h].seen_by = seen_by;
    }
    REQUIRE(cache.observe(l, seen, Clock{Phase::prefill, 0, 0, budget, true}));
  }
}
/// One step through all layers; the largest relative difference of outputs to attention over the rows that the cache shows.
double step(AnyCache& cache, Index number, Index budget, Tokens& tokens) {
  tokens.next(1);
  const Pos at = cache.next_position();
  double worst = 0;
  for (int l = 0; l < shape.layers; ++l) {
    REQUIRE(cache.append(l, 1, tokens.k[std::size_t(l)].data(), tokens.v[std::size_t(l)].data(), at));
    const auto q = tokens.numbers.rows(4, d);
    std::vector<float> out(4 * d);
    Serial serial;
    REQUIRE(cache.attend(l, q.data(), 0.125f, out.data(), serial));
    for (int h = 0; h < 2; ++h) {
      const Index n = cache.size(l, h);
      std::vector<float> hk(std::size_t(n * d)), hv(hk);
      cache.read(l, h, 0, n, hk.data(), hv.data());
      AttendArgs a;
      a.q = q.data() + 2 * h * d;
      a.scale = 0.125f;
      const auto weights = cache.bias(l, h);
      a.bias = weights.empty() ? nullptr : weights.data();
      for (int g = 0; g < 2; ++g) {
        const auto want = exact_attention(a, g, hk, hv, d, n);
        double error = 0, norm = 0;
        for (std::size_t c = 0; c < std::size_t(d); ++c) {
          const double got = double(out[std::size_t(2 * h + g) * d + c]);
          error += (got - want.out[c]) * (got - want.out[c]);
          norm += want.out[c] * want.out[c];
        }
        worst = std::max(worst, std::sqrt(error / norm));
      }
    }
    REQUIRE(cache.step(l, Clock{Phase::decode, number, 0, budget, true}));
  }
  return worst;
}
std::size_t bytes_of(const AnyCache& cache, int layer) {
  return cache.head(layer, 0).bytes() + cache.head(layer, 1).bytes();
}

}  // namespace

TEST_CASE("Layers from the middle on share two by two, and bytes fall by the formula", "[cache][MiniCache]") {
  const Index n = 1000;
  Tokens one(1), two(1);
  AnyCache plain = cache_of("f16"), shared = cache_of("MiniCache+f16");
  prompt(plain, n, 0, one);
  prompt(shared, n, 0, two);
  for (int l = 0; l < 3; ++l) CHECK(bytes_of(shared, l) == bytes_of(plain, l));
  const double pos = double(n) * sizeof(Pos) * 2 * 2;  // of two layers with two heads
  for (const int l : {3, 5}) {
    const double want =
        2 * 2 * double(n) * (2 * d + 2 * 2 + 0.05 * (2 * 2 * d + 4));  // keys and values, two heads
    const double got = double(bytes_of(shared, l) + bytes_of(shared, l + 1)) - pos;
    INFO("layers " << l << " and " << l + 1 << ": " << got << " bytes, formula " << want);
    CHECK(got >= want);
    CHECK(got <= 1.02 * want);
  }
  CHECK(shared.bytes() < plain.bytes());
  CHECK(shared.bytes_peak() < plain.bytes_peak());
  Tokens three(1);
  const Shape odd{8, 4, 2, d, d};
  auto left_over = try_cache("MiniCache:start=5", odd);  // 5 with 6, 7 by itself
  REQUIRE(left_over);
  CHECK(left_over->head(7, 0).tier(0).store.bytes() == 0);
  CHECK(try_cache("MiniCache:start=8", odd).error().code == Errc::bad_option);
}

TEST_CASE("Decode over shared layers is attention over what they hold, with any directions",
          "[cache][MiniCache]") {
  for (const char* const text : {"MiniCache", "MiniCache+f16", "MiniCache:gamma=0,t=0.5+bf16",
                                 "MiniCache:gamma=1", "MiniCache:retain=range,start=0", "MiniCache+int8",
                                 "KIVI:bits=4,group=32,residual=32+MiniCache", "MiniCache+rotated(int8)"}) {
    INFO(text);
    Tokens tokens(2);
    AnyCache cache = cache_of(text);
    prompt(cache, 150, 0, tokens);
    for (Index i = 1; i <= 80; ++i) REQUIRE(step(cache, i, 0, tokens) < 2e-3);
    CHECK(cache.size(4, 1) == 230);
  }
}

TEST_CASE("With all rows retained sharing loses nothing", "[cache][MiniCache]") {
  Tokens one(3), two(3);
  AnyCache plain = cache_of("f32"), shared = cache_of("MiniCache:gamma=1");
  prompt(plain, 60, 0, one);
  prompt(shared, 60, 0, two);
  for (Index i = 1; i <= 10; ++i) step(plain, i, 0, one), step(shared, i, 0, two);
  for (int l = 0; l < shape.layers; ++l) {
    std::vector<float> a(70 * d), b(a), c(a), e(a);
    plain.read(l, 1, 0, 70, a.data(), b.data());
    shared.read(l, 1, 0, 70, c.data(), e.data());
    CHECK((a == c));
    CHECK((b == e));
  }
}

TEST_CASE("MiniCache and KIVI at 4 bits in one cache hold less than each alone", "[cache][MiniCache]") {
  const Index n = 1000;
  std::vector<std::size_t> bytes;
  std::vector<double> error;
  Tokens first(4);
  AnyCache exact = cache_of("f32");
  prompt(exact, n, 0, first);
  for (const char* const text :
       {"MiniCache+f16", "KIVI:bits=4,group=32,residual=32", "MiniCache+KIVI:bits=4,group=32,residual=32"}) {
    Tokens tokens(4);
    AnyCache cache = cache_of(text);
    prompt(cache, n, 0, tokens);
    bytes.push_back(cache.bytes());
    double sum = 0, all = 0;
    for (int l = 0; l < shape.layers; ++l) {
      std::vector<float> a(std::size_t(n) * d), b(a);
      exact.read(l, 0, 0, n, a.data(), nullptr);
      cache.read(l, 0, 0, n, b.data(), nullptr);
      for (std::size_t i = 0; i < a.size(); ++i)
        sum += std::pow(double(a[i]) - double(b[i]), 2), all += std::pow(double(a[i]), 2);
    }
    error.push_back(std::sqrt(sum / all));
  }
  INFO(error[0] << " " << error[1] << " " << error[2]);
  CHECK(bytes[2] < bytes[0] / 2);
  CHECK(double(bytes[2]) < 0.85 * double(bytes[1]));
  CHECK(error[2] < error[0] + error[1]);
  CHECK(error[2] > 0);
}

TEST_CASE("Policies evict from shared layers, each its own entries", "[cache][MiniCache]") {
  for (const char* const text :
       {"SnapKV:window=8+MiniCache", "H2O+MiniCache",
        "StreamingLLM+MiniCache+KIVI:bits=4,group=32,residual=32", "H2O:merge=nearest+MiniCache",
        "StreamingLLM:merge=compensate+MiniCache+f16"}) {
    INFO(text);
    Tokens tokens(5);
    AnyCache cache = cache_of(text);
    prompt(cache, 200, 90, tokens);
    const std::size_t before = cache.bytes();
    CHECK(cache.size(3, 0) == 90);
    for (Index i = 1; i <= 60; ++i) REQUIRE(step(cache, i, 90, tokens) < 5e-3);
    if (std::string(text).find("SnapKV") == 0) continue;
    for (int l = 0; l < shape.layers; ++l) CHECK(cache.size(l, 1) == 90);
    CHECK(double(cache.bytes()) < 1.6 * double(before));
  }
}

TEST_CASE("Layers that keep the same entries share what is left, also of few", "[cache][MiniCache]") {
  for (const Index budget : {32, 64, 200}) {
    Tokens one(8), two(8);
    AnyCache plain = cache_of("StreamingLLM+f16"), shared = cache_of("StreamingLLM+MiniCache:start=1+f16");
    prompt(plain, 300, budget, one);
    prompt(shared, 300, budget, two);
    INFO(budget << " entries: " << bytes_of(shared, 1) + bytes_of(shared, 2) << " bytes of "
                << bytes_of(plain, 1) + bytes_of(plain, 2));
    CHECK(double(bytes_of(shared, 1) + bytes_of(shared, 2)) <
          0.75 * double(bytes_of(plain, 1) + bytes_of(plain, 2)));
  }
}

TEST_CASE("Branches of shared layers are apart, and tokens taken back leave both layers",
          "[cache][MiniCache]") {
  Tokens tokens(6);
  AnyCache cache = cache_of("H2O+MiniCache");
  prompt(cache, 100, 60, tokens);
  for (Index i = 1; i <= 5; ++i) step(cache, i, 60, tokens);
  AnyCache branch = cache.clone();
  Tokens a = tokens, b = tokens, other(9);
  AnyCache third = cache.clone();
  for (Index i = 6; i <= 20; ++i) {
    step(cache, i, 60, a);
    step(third, i, 60, other);
    step(branch, i, 60, b);
  }
  for (int l = 0; l < shape.layers; ++l) {
    std::vector<float> x(60 * d), y(x);
    cache.read(l, 1, 0, 60, x.data(), nullptr);
    branch.read(l, 1, 0, 60, y.data(), nullptr);
    CHECK((x == y));
  }
  AnyCache whole = cache_of("MiniCache");
  Tokens c(7);
  prompt(whole, 50, 0, c);
  for (Index i = 1; i <= 9; ++i) step(whole, i, 0, c);
  whole.truncate(53);
  for (int l = 0; l < shape.layers; ++l) CHECK(whole.size(l, 0) == 53);
  for (Index i = 4; i <= 9; ++i) REQUIRE(step(whole, i, 0, c) < 1e-4);
  for (int l = 0; l < shape.layers; ++l) CHECK(whole.size(l, 0) == 59);
}

TEST_CASE("SPECs of shared layers: one of them, over one store", "[cache][MiniCache]") {
  CHECK(try_cache("MiniCache+MiniCache").error().code == Errc::bad_option);
  CHECK(try_cache("MiniCache:t=2").error().code == Errc::bad_option);
  CHECK(try_cache("MiniCache:gamma=-1").error().code == Errc::bad_option);
  CHECK(try_cache("MiKV+MiniCache").error().code == Errc::unsupported);
  CHECK(try_cache("MiniCache+f16+int8").error().code == Errc::bad_option);
  std::string fault;
  for (const char* const text : {"rotated(MiniCache:start=0)", "f16+rotated(MiniCache)",
                                 "MiniCache+rotated(MiniCache)", "rotated(rotated(int8))"}) {
    INFO(text);
    CHECK(methods::make(methods::parse_spec(text, fault).value(), fault).error().code == Errc::bad_option);
  }
  CHECK(methods::make(methods::parse_spec("rotated(MiniCache)", fault).value(), fault).error().code ==
        Errc::bad_option);
  CHECK(fault == "rotated(MiniCache): sharing goes outside, as in MiniCache+rotated(int8)");
}

TEST_CASE("A port that no other layer's port stands behind is refused, also inside another store",
          "[cache][MiniCache]") {
  using Port = SharedDirectionStore<float>;
  const Shape two{2, 1, 1, d, d};
  const auto made = [&](auto lower, auto upper) {
    return AnyCache::make(two, AnyPolicy(Policy<methods::Never>()),
                          [&](int l, int) -> Result<std::vector<AnyStore>> {
                            std::vector<AnyStore> one;
                            one.push_back(l == 0 ? lower() : upper());
                            return one;
                          });
  };
  const auto lower = [] { return AnyStore(Port(AnyStore(DenseStore<float>(d, d)), d, d, {})); };
  const auto upper = [] { return AnyStore(Port(d, d)); };
  const auto turned = [](auto port) {
    return [port] { return AnyStore(RotatedStore<AnyStore>(port(), d, d)); };
  };
  CHECK(made(lower, upper));
  CHECK(made(upper, upper).error().code == Errc::unsupported);
  CHECK(made(upper, lower).error().code == Errc::unsupported);
  CHECK(made(turned(lower), turned(upper)).error().code == Errc::unsupported);
  CHECK(made(lower, turned(upper)).error().code == Errc::unsupported);
}
