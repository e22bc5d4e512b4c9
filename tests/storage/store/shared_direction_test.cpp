// SPDX-License-Identifier: Apache-2.0
// Directions that two layers share, and what each layer sees of them.
#include <kvist/storage/share/pairs.hpp>
#include <kvist/storage/share/slerp.hpp>
#include <kvist/storage/store/dense.hpp>
#include <kvist/storage/store/shared_direction.hpp>
#include <kvist/view/rope.hpp>

#include "support/catch.hpp"
#include "support/coded_rows.hpp"

using namespace kvist;
using namespace kvist::test;

namespace {

constexpr double pi = 3.14159265358979323846;
using Options = SharedDirectionOptions;
using Port = SharedDirectionStore<float>;

/// Both ports of a pair over exact directions.
struct Both {
  AnyStore lower, upper;
  Port& low() { return *lower.get<Port>(); }
  Port& up() { return *upper.get<Port>(); }
  AnyStore& port(int layer) { return layer == 0 ? lower : upper; }
};
Both pair_of(int dk, int dv, const Options& o = {}) {
  Both b{AnyStore(Port(AnyStore(DenseStore<float>(dk, dv)), dk, dv, o)), AnyStore(Port(dk, dv))};
  REQUIRE(b.upper.couple(b.lower));
  return b;
}
std::vector<float> read_keys(const AnyStore& s, int d) {
  std::vector<float> k(std::size_t(s.size()) * std::size_t(d));
  s.read(0, s.size(), k.data(), nullptr);
  return k;
}

/// What a layer should hold: rows by token, and whether it still does.
struct Model {
  std::vector<std::vector<float>> k, v;
  std::vector<char> held;
};

}  // namespace

TEST_CASE("Spherical interpolation: the worked example of MiniCache", "[storage][slerp]") {
  const float x[5][3] = {{3, 4, 0}, {1, 0, 0}, {0, 2, 0}, {1, 1, 1}, {0, 0, 5}};
  const float y[5][3] = {{6, 8, 0}, {1, 1, 0}, {0, 0, 2}, {1, 1, 0}, {0, 3, 4}};
  const double degrees[5] = {0, 45, 90, 35.264390, 36.869898}, distance[5] = {0, .25, .5, .195913, .204833};
  const double e[5][3] = {{.6, .8, 0},
                          {.891007, .453990, 0},
                          {0, .587785, .809017},
                          {.685786, .685786, .243712},
                          {0, .376579, .926385}};
  const double norm_x[5] = {5, 1, 2, 1.732051, 5}, norm_y[5] = {10, 1.414214, 2, 1.414214, 5};
  const double error_x[5] = {0, .466891, 1.815962, .635997, 1.918535},
               error_y[5] = {0, .442463, 1.236068, .347289, 1.283452};
  for (int i = 0; i < 5; ++i) {
    float out[3];
    const Slerp s = slerp(x[i], y[i], 3, 0.6, out);
    CHECK(s.angle * 180 / pi == Approx(degrees[i]).margin(1e-5));
    CHECK(s.distance() == Approx(distance[i]).margin(1e-6));
    CHECK(s.norm_x == Approx(norm_x[i]).margin(1e-6));
    CHECK(s.norm_y == Approx(norm_y[i]).margin(1e-6));
    double ex = 0, ey = 0;
    for (int c = 0; c < 3; ++c) {
      CHECK(double(out[c]) == Approx(e[i][c]).margin(1e-6));
      ex += std::pow(s.norm_x * double(out[c]) - double(x[i][c]), 2);
      ey += std::pow(s.norm_y * double(out[c]) - double(y[i][c]), 2);
    }
    CHECK(std::sqrt(ex) == Approx(error_x[i]).margin(1e-5));
    CHECK(std::sqrt(ey) == Approx(error_y[i]).margin(1e-5));
  }
}

TEST_CASE("Edges of the interpolation: one direction, right angles, opposite rows, zeros",
          "[storage][slerp]") {
  const float a[4] = {2, 0, 0, 0}, b[4] = {5, 0, 0, 0}, y[4] = {0, 1, 0, 0}, back[4] = {-2, 0, 0, 0},
              zero[4] = {};
  float e[4];
  Slerp s = slerp(a, b, 4, 0.6, e);
  CHECK((s.norm_x == 2 && s.norm_y == 5 && s.angle == 0));
  CHECK((e[0] == 1 && e[1] == 0));
  slerp(a, y, 4, 0.5, e);
  CHECK(e[0] == Approx(.707107).margin(1e-6));
  CHECK(e[1] == Approx(.707107).margin(1e-6));
  slerp(a, y, 4, 0.6, e);
  CHECK(e[0] == Approx(.587785).margin(1e-6));
  CHECK(e[1] == Approx(.809017).margin(1e-6));
  for (const double t : {0.5, 0.6}) {
    s = slerp(a, back, 4, t, e);
    CHECK(s.distance() == Approx(1).margin(1e-9));  // always retained
    CHECK(std::abs(e[0]) == Approx(1).margin(1e-6));
  }
  s = slerp(a, zero, 4, 0.6, e);
  CHECK((s.norm_x == 2 && s.norm_y == 0 && e[0] == 1));
  s = slerp(zero, zero, 4, 0.6, e);
  CHECK((s.norm_x == 0 && e[0] == 0 && e[3] == 0));
}

TEST_CASE("Rotating before or after gives the same direction", "[storage][slerp]") {
  const RopeTable rope = RopeTable::standard(4, 10000, RopePairs::half_split);
  std::vector<float> x{1, 2, 0, 1}, y{2, 1, 1, 0}, e(4), turned(4);
  const Slerp s = slerp(x.data(), y.data(), 4, 0.6, e.data());
  CHECK(s.angle == Approx(.841069).margin(1e-6));
  const double want[4] = {.710453, .626445, .264820, .180813}, after[4] = {.361629, .612265, .666407, .224185};
  for (std::size_t c = 0; c < 4; ++c) CHECK(double(e[c]) == Approx(want[c]).margin(1e-6));
  rope.rotate(e, 7);
  rope.rotate(x, 7);
  rope.rotate(y, 7);
  slerp(x.data(), y.data(), 4, 0.6, turned.data());
  for (std::size_t c = 0; c < 4; ++c) {
    CHECK(double(e[c]) == Approx(after[c]).margin(1e-6));
    CHECK(double(turned[c]) == Approx(after[c]).margin(1e-6));
  }
}

TEST_CASE("The error of a shared direction is 2 |x| sin(t A / 2), and 2 |y| sin((1-t) A / 2)",
          "[storage][slerp]") {
  Random random(1);
  for (int trial = 0; trial < 500; ++trial) {
    const int d = 2 + int(random.below(20));
    const double t = random.uniform();
    std::vector<float> x, y, e(static_cast<std::size_t>(d));
    for (int c = 0; c < d; ++c)
      x.push_back(float(2 * random.uniform() - 1)), y.push_back(float(2 * random.uniform() - 1));
    const Slerp s = slerp(x.data(), y.data(), d, t, e.data());
    double unit = 0, ex = 0, ey = 0;
    for (std::size_t c = 0; c < e.size(); ++c) {
      unit += double(e[c]) * double(e[c]);
      ex += std::pow(s.norm_x * double(e[c]) - double(x[c]), 2);
      ey += std::pow(s.norm_y * double(e[c]) - double(y[c]), 2);
    }
    CHECK(unit == Approx(1).margin(1e-6));
    CHECK(std::sqrt(ex) == Approx(2 * s.norm_x * std::sin(t * s.angle / 2)).margin(1e-5));
    CHECK(std::sqrt(ey) == Approx(2 * s.norm_y * std::sin((1 - t) * s.angle / 2)).margin(1e-5));
    // t = 0 and 1 give one layer's direction; the halfway direction does not know which is which
    std::vector<float> a(e), b(e);
    slerp(x.data(), y.data(), d, 0, a.data());
    slerp(x.data(), y.data(), d, 1, b.data());
    for (std::size_t c = 0; c < e.size(); ++c) {
      CHECK(double(a[c]) == Approx(double(x[c]) / s.norm_x).margin(1e-6));
      CHECK(double(b[c]) == Approx(double(y[c]) / s.norm_y).margin(1e-6));
    }
    slerp(x.data(), y.data(), d, 0.5, a.data());
    slerp(y.data(), x.data(), d, 0.5, b.data());
    for (std::size_t c = 0; c < e.size(); ++c) CHECK(double(a[c]) == Approx(double(b[c])).margin(1e-6));
  }
}

TEST_CASE("Which layers make pairs", "[storage][Pairs]") {
  const auto places = [](int start, int layers) {
    std::string out;
    for (int l = 0; l < layers; ++l) out += ".lu"[int(Pairs{start}.place(l, layers))];
    return out;
  };
  CHECK(places(-1, 8) == "....lulu");
  CHECK(places(-1, 30) == "...............lululululululu.");
  CHECK(places(-1, 1) == ".");
  CHECK(places(0, 5) == "lulu.");
  CHECK(places(3, 4) == "....");
  CHECK(Pairs{4}.validate(4).error().code == Errc::bad_option);
  CHECK(Pairs{-2}.validate(4).error().code == Errc::bad_option);
}

TEST_CASE("Rows of the worked example, retained by range and by count", "[storage][SharedDirectionStore]") {
  const float x[15] = {3, 4, 0, 1, 0, 0, 0, 2, 0, 1, 1, 1, 0, 0, 5},
              y[15] = {6, 8, 0, 1, 1, 0, 0, 0, 2, 1, 1, 0, 0, 3, 4};
  const std::vector<double> low{3, 4,        0,        .891007, .453990, 0,        0,       2,
                                0, 1.187816, 1.187816, .422122, 0,       1.882895, 4.631923},
      up{6, 8, 0, 1.260074, .642040, 0, 0, 0, 2, .969848, .969848, .344661, 0, 1.882895, 4.631923};
  const auto run = [&](double gamma, Options::Retain retain) {
    Both b = pair_of(3, 3, {0.6, gamma, retain});
    b.lower.append(x, x, 5);
    b.lower.settle();  // waits
    CHECK(b.low().pair().slots() == 0);
    b.upper.append(y, y, 5);
    b.upper.settle();
    CHECK(b.low().pair().slots() == 5);
    return b;
  };
  for (const auto& [gamma, retain] :
       {std::pair{0.05, Options::Retain::range}, std::pair{0.4, Options::Retain::range},
        std::pair{0.05, Options::Retain::count}}) {
    Both b = run(gamma, retain);
    for (int w = 0; w < 2; ++w) CHECK(b.low().pair().retained_slots(w) == std::vector<Index>{2});
    const auto k = read_keys(b.lower, 3), m = read_keys(b.upper, 3);
    for (std::size_t i = 0; i < 15; ++i) {
      CHECK(double(k[i]) == Approx(low[i]).margin(1e-5));
      CHECK(double(m[i]) == Approx(up[i]).margin(1e-5));
    }
  }
  Both two = run(0.4, Options::Retain::count);
  CHECK(two.low().pair().retained_slots(0) == std::vector<Index>{1, 2});
  Both none = run(0, Options::Retain::count);
  CHECK(none.low().pair().retained(0) == 0);
  Both all = run(1, Options::Retain::count);  // lossless
  CHECK(read_keys(all.lower, 3) == std::vector<float>(x, x + 15));
  CHECK(read_keys(all.upper, 3) == std::vector<float>(y, y + 15));
}

TEST_CASE("Equal layers are restored, merged rows keep their norms, retained rows their bits",
          "[storage][SharedDirectionStore]") {
  Numbers numbers(2);
  const Index n = 200;
  const auto x = numbers.rows(n, 16), y = numbers.rows(n, 16), v = numbers.rows(n, 8);
  Both same = pair_of(16, 8);
  same.lower.append(x.data(), v.data(), n);
  same.upper.append(x.data(), v.data(), n);
  same.upper.settle();
  const auto again = read_keys(same.upper, 16);
  for (std::size_t i = 0; i < x.size(); ++i) CHECK(again[i] == Approx(x[i]).margin(1e-5));
  Both b = pair_of(16, 8);
  b.lower.append(x.data(), v.data(), n);
  b.upper.append(y.data(), v.data(), n);
  b.upper.settle();
  const auto& kept = b.low().pair().retained_slots(0);
  CHECK(kept.size() == 10);  // 5 % of 200
  for (int layer = 0; layer < 2; ++layer) {
    const auto got = read_keys(b.port(layer), 16);
    const auto& want = layer == 0 ? x : y;
    for (std::size_t i = 0; i < std::size_t(n); ++i) {
      double a = 0, c = 0;
      for (std::size_t k = 0; k < 16; ++k)
        a += std::pow(double(got[i * 16 + k]), 2), c += std::pow(double(want[i * 16 + k]), 2);
      CHECK(std::sqrt(a) == Approx(std::sqrt(c)).epsilon(1e-5));
      if (std::binary_search(kept.begin(), kept.end(), Index(i)))
        CHECK(std::equal(got.begin() + std::ptrdiff_t(i * 16), got.begin() + std::ptrdiff_t(i * 16 + 16),
                         want.begin() + std::ptrdiff_t(i * 16)));
    }
  }
}

TEST_CASE("Bytes of a pair are those of the formula", "[storage][SharedDirectionStore]") {
  const int d = 128;
  const Index n = 2000;
  Numbers numbers(3);
  const auto x = numbers.rows(n, d), y = numbers.rows(n, d);
  using Half = SharedDirectionStore<f16>;
  AnyStore lower(Half(AnyStore(DenseStore<f16>(d, d)), d, d, {})), upper(Half(d, d));
  REQUIRE(upper.couple(lower));
  lower.append(x.data(), y.data(), n);
  const std::size_t waiting = lower.bytes();
  upper.append(y.data(), x.data(), n);
  upper.settle();
  CHECK(double(lower.bytes() + upper.bytes()) < 1.2 * double(waiting));  // of two layers
  // for keys and for values: a direction and two norms a token, two rows and an index for each that is retained
  const double want = 2 * double(n) * (2 * d + 2 * 2 + 0.05 * (2 * 2 * d + 4));
  const double got = double(lower.bytes() + upper.bytes());
  CHECK(got >= want);
  CHECK(got <= want * 1.005);
  CHECK(want / (2 * double(n)) == Approx(285.8).margin(.1));  // "about 286 B" of 512
}

TEST_CASE("Attention reads directions, norms and retained rows as the restored rows would be read",
          "[storage][SharedDirectionStore]") {
  Numbers numbers(4);
  for (const Index n : {1, 5, 127, 300}) {
    for (const int d : {8, 20}) {
      Both b = pair_of(d, d, {0.6, 0.1, Options::Retain::count});
      const auto xk = numbers.rows(n, d), xv = numbers.rows(n, d), yk = numbers.rows(n, d),
                 yv = numbers.rows(n, d);
      b.lower.append(xk.data(), xv.data(), n);
      b.upper.append(yk.data(), yv.data(), n);
      b.upper.settle();
      for (int more = 0; more < 3; ++more) {  // some rows wait
        const auto k = numbers.rows(1, d), v = numbers.rows(1, d);
        b.lower.append(k.data(), v.data(), 1);
        b.upper.append(v.data(), k.data(), 1);
      }
      for (int layer = 0; layer < 2; ++layer) {
        AnyStore& s = b.port(layer);
        const Index size = s.size();
        REQUIRE(size == n + 3);
        std::vector<float> hk(std::size_t(size * d)), hv(hk), bias;
        s.read(0, size, hk.data(), hv.data());
        for (Index i = 0; i < size; ++i) bias.push_back(float(numbers.random.uniform()));
        const auto q = numbers.rows(19, d);
        std::vector<Index> only;
        for (Index i = 0; i < size; i += 2) only.push_back(i);
        for (int kind = 0; kind < 5; ++kind) {
          AttendArgs a;
          a.q = q.data();
          a.group = 19;
          a.scale = 0.3f;
          if (kind == 1) a.bias = bias.data();
          if (kind == 2) a.first = size / 3, a.soft_cap = 5;
          if (kind == 3) a.only = only;
          if (kind == 4) a.only = std::span(only).first(1), a.bias = bias.data();
          std::vector<float> logits(std::size_t(19 * size), 7.0f), out(std::size_t(19 * d));
          a.logits = logits.data();
          a.logits_stride = size;
          AttnBuffer buffer(19, d);
          s.attend(a, buffer.state());
          finish(buffer.state(), out.data());
          for (int g = 0; g < 19; ++g) {
            const auto want = exact_attention(a, g, hk, hv, d, size);
            for (std::size_t c = 0; c < std::size_t(d); ++c)
              CHECK(double(out[std::size_t(g * d) + c]) == Approx(want.out[c]).margin(3e-5));
            for (Index i = 0; i < size; ++i) {
              const double got = double(logits[std::size_t(g * size + i)]), w = want.logits[std::size_t(i)];
              CHECK((got == w || std::abs(got - w) < 1e-4 * (1 + std::abs(w))));
            }
          }
        }
      }
    }
  }
}

TEST_CASE("Whatever each layer lets go, writes or takes back, it sees its own rows in order",
          "[storage][SharedDirectionStore]") {
  const int d = 6;
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    Numbers numbers(seed);
    Random& random = numbers.random;
    Both b = pair_of(d, d, {0.6, 1, Options::Retain::count});  // lossless, so that rows can be compared
    std::vector<Model> model(2);
    const auto held = [&](int layer) {
      std::vector<Index> out;
      for (std::size_t i = 0; i < model[std::size_t(layer)].held.size(); ++i)
        if (model[std::size_t(layer)].held[i]) out.push_back(Index(i));
      return out;
    };
    const auto check_all = [&] {
      for (int layer = 0; layer < 2; ++layer) {
        const auto tokens = held(layer);
        REQUIRE(b.port(layer).size() == Index(tokens.size()));
        const auto k = read_keys(b.port(layer), d);
        for (std::size_t i = 0; i < tokens.size(); ++i)
          for (std::size_t c = 0; c < std::size_t(d); ++c)
            REQUIRE(k[i * std::size_t(d) + c] ==
                    Approx(model[std::size_t(layer)].k[std::size_t(tokens[i])][c]).margin(1e-5));
      }
    };
    for (int round = 0; round < 30; ++round) {
      const Index n = round % 7 == 0 ? 1 + Index(random.below(80)) : 1;
      for (int layer = 0; layer < 2; ++layer) {
        const auto k = numbers.rows(n, d), v = numbers.rows(n, d);
        b.port(layer).append(k.data(), v.data(), n);
        for (Index i = 0; i < n; ++i) {
          Model& m = model[std::size_t(layer)];
          m.k.emplace_back(k.begin() + i * d, k.begin() + (i + 1) * d);
          m.held.push_back(1);
        }
        const auto tokens = held(layer);
        if (random.uniform() < 0.5) {  // drop some
          std::vector<Index> rows;
          for (Index i = 0; i < Index(tokens.size()); ++i)
            if (random.uniform() < (random.uniform() < 0.2 ? 0.5 : 0.1)) rows.push_back(i);
          b.port(layer).drop(rows);
          for (const Index i : rows) model[std::size_t(layer)].held[std::size_t(tokens[std::size_t(i)])] = 0;
        } else if (!tokens.empty() && random.uniform() < 0.5) {
          const std::size_t i = std::size_t(random.below(tokens.size()));
          const auto k2 = numbers.rows(1, d);
          b.port(layer).write(Index(i), k2.data(), nullptr);
          model[std::size_t(layer)].k[std::size_t(tokens[i])] = k2;
        }
        b.port(layer).settle();
      }
      check_all();
      if (random.uniform() < 0.2) {  // the newest tokens are taken back
        const std::size_t total = model[0].held.size(),
                          stay = total - std::size_t(random.below(std::min<std::size_t>(total, 6)));
        for (int layer = 0; layer < 2; ++layer) {
          Model& m = model[std::size_t(layer)];
          Index rows = 0;
          for (std::size_t i = 0; i < stay; ++i) rows += m.held[i] ? 1 : 0;
          b.port(layer).truncate(rows);
          m.k.resize(stay);
          m.held.resize(stay);
        }
        check_all();
      }
    }
    CHECK(b.low().pair().slots() <= Index(model[0].held.size()));
    const Index one = b.lower.size();
    std::vector<Index> every;
    for (Index i = 0; i < one; ++i) every.push_back(i);
    b.lower.drop(every);
    every.clear();
    for (Index i = 0; i < b.upper.size(); ++i) every.push_back(i);
    b.upper.drop(every);
    CHECK(b.low().pair().slots() == 0);  // dead in both: freed
  }
}

TEST_CASE("Copies are apart, and an upper port wants the lower one", "[storage][SharedDirectionStore]") {
  Numbers numbers(6);
  Both b = pair_of(8, 8);
  const auto x = numbers.rows(40, 8), y = numbers.rows(40, 8);
  b.lower.append(x.data(), x.data(), 40);
  b.upper.append(y.data(), y.data(), 40);
  b.upper.settle();
  Both c{b.lower.clone(), b.upper.clone()};
  REQUIRE(c.upper.couple(c.lower));
  const auto before = read_keys(b.upper, 8);
  const std::vector<Index> drop{0, 3, 9};
  c.upper.drop(drop);
  c.lower.append(x.data(), x.data(), 1);
  CHECK(b.upper.size() == 40);
  CHECK(c.upper.size() == 37);
  CHECK(read_keys(b.upper, 8) == before);
  AnyStore other(DenseStore<float>(8, 8)), alone(Port(8, 8));
  CHECK_FALSE(alone.couple(other));
  CHECK_FALSE(alone.couple(b.upper));
  CHECK(other.couple(b.lower));
}
