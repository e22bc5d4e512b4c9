// SPDX-License-Identifier: Apache-2.0
#include "../kernels/support.hpp"
#include "../support/catch.hpp"

#include <kvist/reference/attention.hpp>
#include <kvist/storage/store/dense.hpp>

using namespace kvist;
using namespace kvist::test;

namespace {

// A store and what it should hold.
template <Scalar T>
struct Pair {
  int dk, dv;
  DenseStore<T> store;
  std::vector<float> k, v;

  Pair(int dim_k, int dim_v) : dk(dim_k), dv(dim_v), store(dim_k, dim_v) {}
  void append(Index n, std::uint64_t seed) {
    const auto nk = normals(std::size_t(n * dk), seed), nv = normals(std::size_t(n * dv), seed + 1);
    store.append(nk.data(), nv.data(), n);
    for (const float x : nk) k.push_back(to_f32(from_f32<T>(x)));
    for (const float x : nv) v.push_back(to_f32(from_f32<T>(x)));
  }
  void drop(const std::vector<Index>& rows) {
    store.drop(rows);
    for (auto r = rows.rbegin(); r != rows.rend(); ++r) {
      k.erase(k.begin() + *r * dk, k.begin() + (*r + 1) * dk);
      v.erase(v.begin() + *r * dv, v.begin() + (*r + 1) * dv);
    }
  }
  void check(bool tight = true) const {
    const Index n = Index(k.size()) / dk;
    REQUIRE(store.size() == n);
    std::vector<float> gk(k.size()), gv(v.size());
    store.read(0, n, gk.data(), gv.data());
    CHECK(gk == k);
    CHECK(gv == v);
    if (n > 3) {  // a part, one of the two
      std::vector<float> part(std::size_t((n - 3) * dk));
      store.read(2, n - 3, part.data(), nullptr);
      CHECK(std::equal(part.begin(), part.end(), k.begin() + 2 * dk));
    }
    const auto q = normals(std::size_t(3 * dk), 99);
    AttendArgs args;
    args.q = q.data();
    args.group = 3;
    args.scale = 0.25f;
    AttnBuffer buffer(3, dv);
    store.attend(args, buffer.state());
    std::vector<float> out(std::size_t(3 * dv));
    finish(buffer.state(), out.data());
    const auto want = reference::attention(rows(k.data(), n, dk), rows(v.data(), n, dv), args);
    for (std::size_t i = 0; i < out.size(); ++i) CHECK(std::fabs(double(out[i]) - want.out[i]) <= 5e-6);
    if (tight)
      CHECK(store.bytes() <=
            std::size_t(n + std::max<Index>(n / 8, 15) + 15) * (std::size_t(dk + dv) * sizeof(T) + 1));
    CHECK(store.bytes() >= std::size_t(n * (dk + dv)) * sizeof(T));
  }
};

template <Scalar T>
void check_store() {
  at_every_isa([&](kernels::Isa isa) {
    INFO(kernels::isa_name(isa));
    for (const auto& [dk, dv] : {std::pair{64, 64}, {20, 36}, {128, 128}, {1, 1}}) {
      Pair<T> p(dk, dv);
      p.check();
      p.append(1, 1);
      p.check();
      p.append(37, 2);
      p.check();
      for (Index i = 0; i < 20; ++i) p.append(1, std::uint64_t(10 + i));
      p.check();
      p.append(140, 50);
      p.drop({0});
      p.check();
      p.drop({0, 1, 2, 15, 16, 17, 40, 41, 90, p.store.size() - 1});
      p.check();
      std::vector<Index> many;
      for (Index i = 0; i < p.store.size(); ++i)
        if (i % 4 != 1) many.push_back(i);
      p.drop(many);
      p.check();
      CHECK(p.store.capacity() == (p.store.size() + 15) / 16 * 16);  // memory really shrinks
      p.append(5, 70);
      p.check();
      p.drop({});
      p.check();
      many.clear();
      for (Index i = 0; i < p.store.size(); ++i) many.push_back(i);
      p.drop(many);
      p.check();
      CHECK(p.store.bytes() == 0);
    }
  });
}

}  // namespace

TEST_CASE("DenseStore of f32 holds what was appended, through drops", "[storage][DenseStore]") {
  check_store<float>();
}
TEST_CASE("DenseStore of f16 holds what was appended, through drops", "[storage][DenseStore]") {
  check_store<f16>();
}
TEST_CASE("DenseStore of bf16 holds what was appended, through drops", "[storage][DenseStore]") {
  check_store<bf16>();
}

TEST_CASE("DenseStore writes one entry, takes entries back and copies itself", "[storage][DenseStore]") {
  Pair<f16> p(24, 40);
  p.append(50, 1);
  const auto k = normals(24, 5), v = normals(40, 6);
  p.store.write(33, k.data(), nullptr);
  p.store.write(49, nullptr, v.data());
  for (int c = 0; c < 24; ++c) p.k[std::size_t(33 * 24 + c)] = to_f32(to_f16(k[std::size_t(c)]));
  for (int c = 0; c < 40; ++c) p.v[std::size_t(49 * 40 + c)] = to_f32(to_f16(v[std::size_t(c)]));
  p.check();
  DenseStore<f16> copy = p.store.clone();
  CHECK(copy.size() == 50);
  p.store.truncate(30);
  p.k.resize(30 * 24);
  p.v.resize(30 * 40);
  p.check(false);  // truncate keeps the memory
  CHECK(copy.size() == 50);
  DenseStore<f16> moved = std::move(p.store);
  CHECK(moved.size() == 30);
  CHECK(p.store.size() == 0);
}

TEST_CASE("DenseStore offers its rows as views of any kind", "[storage][DenseStore]") {
  Pair<bf16> p(32, 16);
  p.append(41, 3);
  const AnyRows keys(p.store.keys()), values(p.store.values());
  for (Index i = 0; i < 41; ++i) {
    for (int c = 0; c < 32; ++c) CHECK(keys.at(i, c) == p.k[std::size_t(i * 32 + c)]);
    for (int c = 0; c < 16; ++c) CHECK(values.at(i, c) == p.v[std::size_t(i * 16 + c)]);
  }
}

TEST_CASE("DenseStore allocates nothing up to what was reserved", "[storage][DenseStore]") {
  DenseStore<float> store(8, 8);
  store.reserve(100);
  const std::size_t bytes = store.bytes();
  const Index capacity = store.capacity();
  CHECK(capacity == 112);
  const auto x = normals(800, 1);
  for (int i = 0; i < 100; ++i) store.append(x.data() + 8 * i, x.data() + 8 * i, 1);
  CHECK(store.bytes() == bytes);
  store.reserve(10);
  CHECK(store.bytes() == bytes);
}
