// SPDX-License-Identifier: Apache-2.0
#include "../kernels/support.hpp"
#include "../support/catch.hpp"

#include <kvist/attention/attend.hpp>
#include <kvist/attention/tap.hpp>
#include <kvist/reference/attention.hpp>

#include <limits>

using namespace kvist;
using namespace kvist::test;

namespace {

constexpr float inf = std::numeric_limits<float>::infinity();

// Attends, finishes, and compares outputs, logits and probabilities with the f64 formula.
template <class K, class V>
void check(const K& keys, const V& values, AttendArgs args, double tolerance = 5e-6) {
  const Index n = keys.size();
  const std::size_t G = std::size_t(args.group), dv = std::size_t(values.dim());
  AttnBuffer buffer(args.group, values.dim());
  const AttnState state = buffer.state();
  std::vector<float> logits(G * std::size_t(n + 2), 7.0f), out(G * dv);
  args.logits = logits.data();
  args.logits_stride = n + 2;
  attend(keys, values, args, state);
  finish(state, out.data());
  const reference::Attention want = reference::attention(keys, values, args);
  for (std::size_t i = 0; i < out.size(); ++i) CHECK(std::fabs(double(out[i]) - want.out[i]) <= tolerance);
  for (std::size_t g = 0; g < G; ++g)
    for (Index i = 0; i < n; ++i) {
      const double l = want.logits[g * std::size_t(n) + std::size_t(i)];
      const float got = logits[g * std::size_t(n + 2) + std::size_t(i)];
      if (std::isinf(l)) CHECK(got == -inf);
      else CHECK(std::fabs(double(got) - l) <= 2e-5 * (1 + std::fabs(l)));
    }
  CHECK((logits[std::size_t(n)] == 7.0f && logits[std::size_t(n + 1)] == 7.0f));
  tap_probabilities(state, logits.data(), n, n + 2);
  for (std::size_t g = 0; g < G; ++g)
    for (Index i = 0; i < n; ++i)
      CHECK(std::fabs(double(logits[g * std::size_t(n + 2) + std::size_t(i)]) -
                      want.probs[g * std::size_t(n) + std::size_t(i)]) <= 5e-6);
  // without taps the result has the same bits
  AttnBuffer again(args.group, values.dim());
  args.logits = nullptr;
  attend(keys, values, args, again.state());
  for (std::size_t i = 0; i < G * dv; ++i) CHECK(again.state().o[i] == state.o[i]);
}

}  // namespace

TEST_CASE("Attention over any layout agrees with the formula in f64", "[attention][attend]") {
  at_every_isa([&](kernels::Isa isa) {
    INFO(kernels::isa_name(isa));
    for (const Index n : {0, 1, 5, 128, 129, 300}) {
      for (const int group : {1, 3, 4, 8, 17}) {
        const int dk = 20, dv = 36;
        INFO("n " << n << " G " << group);
        const auto k = normals(std::size_t(n * dk), 1), v = normals(std::size_t(n * dv), 2),
                   q = normals(std::size_t(group * dk), 3);
        AttendArgs args;
        args.q = q.data();
        args.group = group;
        args.scale = 0.3f;
        const Layout kl = layouts[std::size_t(n) % 3], vl = layouts[std::size_t(n + group) % 3];
        check(OwnRows<float>(k, n, dk, kl).view, OwnRows<float>(v, n, dv, vl).view, args);
        check(OwnRows<bf16>(k, n, dk, vl).view, OwnRows<f16>(v, n, dv, kl).view, args);
      }
    }
  });
}

TEST_CASE("Soft cap, bias, window and chosen rows follow the formula", "[attention][attend]") {
  at_every_isa([&](kernels::Isa isa) {
    INFO(kernels::isa_name(isa));
    const Index n = 290;
    const int dk = 64, dv = 64, group = 3;
    const auto k = normals(std::size_t(n * dk), 1), v = normals(std::size_t(n * dv), 2),
               q = normals(std::size_t(group * dk), 3), bias = normals(std::size_t(n), 4);
    const Rows<float> keys = rows(k.data(), n, dk), values = rows(v.data(), n, dv);
    AttendArgs args;
    args.q = q.data();
    args.group = group;
    args.scale = 0.5f;
    args.soft_cap = 4;
    check(keys, values, args, 2e-5);
    args.bias = bias.data();
    check(keys, values, args, 2e-5);
    for (const Index first : {1, 130, 289, 290}) {
      args.first = first;
      check(keys, values, args, 2e-5);
    }
    std::vector<Index> only;
    for (Index i = 0; i < n; ++i)
      if (i % 3 == 0 || (i > 100 && i < 250)) only.push_back(i);
    args.only = only;
    for (const Index first : {0, 120, 290}) {
      args.first = first;
      check(keys, values, args, 2e-5);
    }
    const Index one[1] = {17};
    args.only = one;
    args.first = 0;
    check(keys, values, args, 2e-5);
  });
}

TEST_CASE("Pages, readers and views of run-time kind give what plain rows give", "[attention][attend]") {
  const Index n = 77, page = 16;
  const int d = 48;
  const auto x = normals(std::size_t(n * d), 5), q = normals(std::size_t(4 * d), 6);
  std::vector<float> pool(std::size_t(8 * page * d), inf);
  const std::int32_t table[5] = {6, 1, 7, 0, 3};
  for (Index i = 0; i < n; ++i)
    std::copy_n(x.data() + i * d, d, pool.data() + (table[i / page] * page + i % page) * d);
  const PagedRows<float> paged{pool.data(), table, n, d, page, page * d, d, 1};
  struct Source {
    const float* x;
    int d;
  } source{x.data(), d};
  const ReaderRows reader{[](const void* context, Index first, Index count, float* out) {
                            const Source& s = *static_cast<const Source*>(context);
                            std::copy_n(s.x + std::ptrdiff_t(first) * s.d, std::ptrdiff_t(count) * s.d, out);
                          },
                          &source, n, d};
  const std::vector<Index> only = {0, 1, 2, 15, 16, 17, 40, 76};
  for (const bool chosen : {false, true}) {
    AttendArgs args;
    args.q = q.data();
    args.group = 4;
    args.scale = 0.2f;
    args.first = chosen ? 2 : 30;
    if (chosen) args.only = only;
    check(paged, reader, args);
    check(AnyRows(reader), AnyRows(paged), args);
    AttnBuffer a(4, d), b(4, d);
    attend(paged, paged, args, a.state());
    attend(rows(x.data(), n, d), rows(x.data(), n, d), args, b.state());
    for (int i = 0; i < 4 * d; ++i)
      CHECK(a.state().o[i] == Approx(b.state().o[i]).epsilon(1e-5).margin(1e-5));
  }
}

TEST_CASE("Attention adds to a state: parts of a head in any split give the whole", "[attention][attend]") {
  const Index n = 200;
  const int d = 32, group = 2;
  const auto k = normals(std::size_t(n * d), 1), v = normals(std::size_t(n * d), 2),
             q = normals(std::size_t(group * d), 3);
  const Rows<float> keys = rows(k.data(), n, d), values = rows(v.data(), n, d);
  AttendArgs args;
  args.q = q.data();
  args.group = group;
  const reference::Attention want = reference::attention(keys, values, args);
  for (const Index cut : {0, 1, 50, 199, 200}) {
    AttnBuffer one(group, d), other(group, d);
    attend(keys.part(0, cut), values.part(0, cut), args, one.state());
    attend(keys.part(cut, n - cut), values.part(cut, n - cut), args, other.state());
    attend(keys.part(0, 0), values.part(0, 0), args, other.state());
    AttnBuffer chained(group, d);
    attend(keys.part(cut, n - cut), values.part(cut, n - cut), args, chained.state());
    attend(keys.part(0, cut), values.part(0, cut), args, chained.state());
    merge(one.state(), other.state());
    std::vector<float> a(std::size_t(group * d)), b(a.size());
    finish(one.state(), a.data());
    finish(chained.state(), b.data());
    for (std::size_t i = 0; i < a.size(); ++i) {
      CHECK(std::fabs(double(a[i]) - want.out[i]) <= 5e-6);
      CHECK(std::fabs(double(b[i]) - want.out[i]) <= 5e-6);
    }
  }
}

TEST_CASE("A learnt sink takes probability without a value", "[attention][attend]") {
  const Index n = 10;
  const int d = 16;
  const auto x = normals(std::size_t(n * d), 1), q = normals(std::size_t(2 * d), 3);
  AttendArgs args;
  args.q = q.data();
  args.group = 2;
  const float sinks[2] = {3.0f, -2.0f};
  AttnBuffer buffer(2, d);
  attend(rows(x.data(), n, d), rows(x.data(), n, d), args, buffer.state());
  for (int g = 0; g < 2; ++g) add_sink(buffer.state(), g, sinks[g]);
  std::vector<float> out(std::size_t(2 * d));
  finish(buffer.state(), out.data());
  const auto want = reference::attention(rows(x.data(), n, d), rows(x.data(), n, d), args, sinks);
  for (std::size_t i = 0; i < out.size(); ++i) CHECK(std::fabs(double(out[i]) - want.out[i]) <= 5e-6);
}
