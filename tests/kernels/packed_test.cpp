// SPDX-License-Identifier: Apache-2.0
#include "../support/catch.hpp"
#include "support.hpp"

#include <kvist/attention/attend_packed.hpp>
#include <kvist/reference/attention.hpp>

#include <limits>
#include <set>

using namespace kvist;
using namespace kvist::test;
using kernels::Accuracy;
using kernels::GroupAlong;
using kernels::PackedLayout;

namespace {

// A page list packed by the definition: minimum and step of each group, codes to the nearest.
struct Packed {
  PackedLayout layout;
  std::vector<std::uint8_t> memory;
  std::vector<const std::uint8_t*> pages;
  std::vector<float> decoded;  // [n, dim]

  Packed(PackedLayout l, const std::vector<float>& x, Index n) : layout(l) {
    REQUIRE(l.valid());
    const int d = l.dim;
    const Index count = (n + PackedLayout::page - 1) / PackedLayout::page;
    memory.assign(std::size_t(count) * l.bytes() + 64, 0);
    std::uint8_t* const base = memory.data() + (64 - reinterpret_cast<std::uintptr_t>(memory.data()) % 64) % 64;
    decoded.resize(x.size());
    for (Index p = 0; p < count; ++p) {
      std::uint8_t* const page = base + std::size_t(p) * l.bytes();
      pages.push_back(page);
      const Index rows = std::min<Index>(PackedLayout::page, n - p * PackedLayout::page);
      const auto at = [&](Index t, int c) { return x[std::size_t((p * PackedLayout::page + t) * d + c)]; };
      const auto pack_group = [&](Index t0, Index t1, int c0, int c1) {
        float lo = 1e30f, hi = -1e30f;
        for (Index t = t0; t < t1; ++t)
          for (int c = c0; c < c1; ++c) {
            lo = std::min(lo, at(t, c));
            hi = std::max(hi, at(t, c));
          }
        const int top = (1 << l.bits) - 1;
        const float step =
            l.minima ? (hi - lo) / float(top) : std::max(std::fabs(lo), std::fabs(hi)) / (l.centre - 1);
        const std::size_t s = l.scale_index(t0, c0);
        l.scales(page)[s] = to_f16(std::max(step, 1e-4f));
        if (l.minima) l.minimums(page)[s] = to_f16(lo);
        const float sf = to_f32(l.scales(page)[s]), mf = l.minima ? to_f32(l.minimums(page)[s]) : 0;
        for (Index t = t0; t < t1; ++t)
          for (int c = c0; c < c1; ++c)
            l.set_code(page, t, c, std::clamp(int(std::nearbyint((at(t, c) - mf) / sf + l.centre)), 0, top));
      };
      if (l.along == GroupAlong::entries) {
        for (Index t = 0; t < rows; t += l.group)
          for (int c = 0; c < d; ++c) pack_group(t, std::min<Index>(rows, t + l.group), c, c + 1);
      } else {
        for (Index t = 0; t < rows; ++t)
          for (int c = 0; c < d; c += l.group) pack_group(t, t + 1, c, std::min(d, c + l.group));
      }
      kernels::unpack(l, page, 0, rows,
                      decoded.data() + std::size_t(p) * std::size_t(PackedLayout::page) * std::size_t(d));
    }
  }
  PackedPages view() const { return {layout, pages.data()}; }
};

double relative(const std::vector<float>& got, const std::vector<double>& want) {
  double e = 0, w = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    e += (double(got[i]) - want[i]) * (double(got[i]) - want[i]);
    w += want[i] * want[i];
  }
  return std::sqrt(e / std::max(w, 1e-30));
}

struct Case {
  PackedLayout k, v;
};
std::vector<Case> cases() {
  using kernels::channel_keys, kernels::token_keys, kernels::token_values;
  return {{channel_keys(4, 128, 128), token_values(4, 128, 128, true)},
          {channel_keys(4, 64, 32), token_values(4, 64, 32, true)},
          {channel_keys(2, 128, 128), token_values(2, 128, 128, true)},
          {channel_keys(2, 64, 32), token_values(2, 64, 32, true)},
          {channel_keys(8, 64, 64), token_values(8, 64, 64, true)},
          {token_keys(8, 128, 128, false), token_values(8, 128, 128, false)},
          {token_keys(8, 64, 32, false), token_values(8, 64, 32, false)},
          {token_keys(4, 64, 32, false), token_values(4, 64, 32, false)},
          {token_keys(4, 80, 16, true), token_values(4, 96, 96, true)},
          {channel_keys(4, 20, 16), token_values(8, 48, 16, true)},
          {channel_keys(2, 70, 16), token_values(2, 100, 48, true)},
          {token_keys(2, 30, 8, true), token_values(4, 33, 16, true)},
          {channel_keys(4, 512, 128), token_values(4, 512, 512, true)}};
}

}  // namespace

TEST_CASE("Packed places are distinct and lie within the codes", "[kernels][packed]") {
  for (const Case& c : cases())
    for (const PackedLayout& l : {c.k, c.v}) {
      REQUIRE(l.valid());
      std::set<std::pair<std::size_t, int>> seen;
      bool inside = true;
      for (Index t = 0; t < PackedLayout::page; ++t)
        for (int ch = 0; ch < l.dim; ++ch) {
          const auto p = l.place(t, ch);
          inside = inside && p.byte < l.code_bytes();
          seen.insert({p.byte, p.shift});
        }
      CHECK(inside);
      CHECK(seen.size() == std::size_t(PackedLayout::page) * std::size_t(l.dim));
      CHECK(l.bytes() % 64 == 0);
    }
  CHECK(kernels::channel_keys(4, 128, 128).bytes() == 8192 + 512);  // 4.25 bits an element
  CHECK(kernels::token_values(4, 128, 128, true).bytes() == 8192 + 512);
}

TEST_CASE("Attention from packed codes agrees with exact arithmetic on the decoded values",
          "[kernels][packed]") {
  at_every_isa([&](kernels::Isa isa) {
    for (const Case& c : cases()) {
      for (const int group : {1, 2, 3, 4, 8}) {
        if (group != 4 && c.k.dim > 100) continue;
        const Index n = group == 4 ? 333 : 140;
        INFO(kernels::isa_name(isa) << " bits " << c.k.bits << " dim " << c.k.dim << " group " << c.k.group
                                    << " G " << group);
        const Packed k(c.k, normals(std::size_t(n * c.k.dim), 1), n),
            v(c.v, normals(std::size_t(n * c.v.dim), 2), n);
        const auto q = normals(std::size_t(group * c.k.dim), 3);
        AttendArgs args;
        args.q = q.data();
        args.group = group;
        args.scale = 1.0f / std::sqrt(float(c.k.dim));
        std::vector<float> logits(std::size_t(group * n));
        const auto want =
            reference::attention(rows(k.decoded.data(), n, c.k.dim), rows(v.decoded.data(), n, c.v.dim), args);
        for (const Accuracy accuracy : {Accuracy::fast, Accuracy::exact}) {
          AttnBuffer buffer(group, c.v.dim);
          args.logits = logits.data();
          args.logits_stride = n;
          attend_packed(k.view(), v.view(), n, args, buffer.state(), accuracy);
          std::vector<float> out(std::size_t(group * c.v.dim));
          finish(buffer.state(), out.data());
          CHECK(relative(out, want.out) <= (accuracy == Accuracy::fast ? 4e-2 : 2e-4));
          CHECK(relative(logits, want.logits) <= (accuracy == Accuracy::fast ? 2e-2 : 2e-4));
        }
      }
    }
  });
}

TEST_CASE("The errors of attention from packed codes on random normal data are at most those of this table",
          "[kernels][packed]") {
  // Of the output and the logits, relative to exact arithmetic on the decoded values: 4096 entries of 128 channels, four
  // queries. Groups are of the keys' entries (channel_keys) or of channels (token_keys, all values). What is rounded are the
  // queries and the weights, so that bits and group of the codes hardly matter. Bounds are a sixth above what was measured.
  struct Row {
    bool channels;  ///< keys coded per channel
    int bits, group;
    double out_fast, out_exact, logits_fast, logits_exact;
  };
  constexpr Row table[] = {
      {true, 8, 32, 1.9e-2, 8.4e-5, 9.9e-3, 3.9e-5},  {true, 8, 128, 1.9e-2, 8.1e-5, 9.6e-3, 3.8e-5},
      {true, 4, 32, 1.9e-2, 8.7e-5, 9.9e-3, 3.9e-5},  {true, 4, 128, 1.6e-2, 8.4e-5, 9.6e-3, 3.8e-5},
      {true, 2, 32, 2e-2, 8.8e-5, 9.9e-3, 3.9e-5},    {true, 2, 128, 2.1e-2, 9.6e-5, 9.6e-3, 3.8e-5},
      {false, 8, 32, 1.7e-2, 8e-5, 7.1e-3, 2.8e-5},   {false, 8, 128, 1.8e-2, 8e-5, 9.3e-3, 3.9e-5},
      {false, 4, 32, 1.7e-2, 7.7e-5, 7.1e-3, 2.8e-5}, {false, 4, 128, 1.8e-2, 7.7e-5, 9.3e-3, 3.9e-5},
      {false, 2, 32, 1.9e-2, 8.6e-5, 7.1e-3, 2.8e-5}, {false, 2, 128, 2e-2, 8.7e-5, 9.2e-3, 3.8e-5}};
  const Index n = 4096;
  const int d = 128, group = 4;
  for (const Row& row : table) {
    const Packed k(row.channels ? kernels::channel_keys(row.bits, d, row.group)
                                : kernels::token_keys(row.bits, d, row.group, true),
                   normals(std::size_t(n * d), 1), n);
    const Packed v(kernels::token_values(row.bits, d, row.group, true), normals(std::size_t(n * d), 2), n);
    const auto q = normals(std::size_t(group * d), 3);
    std::vector<float> logits(std::size_t(group * n)), out(std::size_t(group * d));
    AttendArgs args;
    args.q = q.data();
    args.group = group;
    args.scale = 1.0f / std::sqrt(float(d));
    const auto want = reference::attention(rows(k.decoded.data(), n, d), rows(v.decoded.data(), n, d), args);
    args.logits = logits.data();
    args.logits_stride = n;
    at_every_isa([&](kernels::Isa isa) {
      for (const Accuracy accuracy : {Accuracy::fast, Accuracy::exact}) {
        const bool fast = accuracy == Accuracy::fast;
        AttnBuffer buffer(group, d);
        attend_packed(k.view(), v.view(), n, args, buffer.state(), accuracy);
        finish(buffer.state(), out.data());
        INFO(kernels::isa_name(isa) << (row.channels ? " channel" : " token") << " keys, bits " << row.bits
                                    << " group " << row.group << (fast ? " fast" : " exact"));
        CHECK(relative(out, want.out) <= (fast ? row.out_fast : row.out_exact));
        CHECK(relative(logits, want.logits) <= (fast ? row.logits_fast : row.logits_exact));
      }
    });
  }
}

TEST_CASE("Packed attention honours window, chosen rows, bias, soft cap and dead rows", "[kernels][packed]") {
  at_every_isa([&](kernels::Isa isa) {
    INFO(kernels::isa_name(isa));
    const Index n = 300;
    const int d = 64, group = 3;
    const Packed k(kernels::channel_keys(4, d, 32), normals(std::size_t(n * d), 1), n);
    const Packed v(kernels::token_values(4, d, 32, true), normals(std::size_t(n * d), 2), n);
    const auto q = normals(std::size_t(group * d), 3), bias = normals(std::size_t(n), 4);
    AttendArgs args;
    args.q = q.data();
    args.group = group;
    args.scale = 0.2f;
    args.soft_cap = 3;
    args.bias = bias.data();
    std::vector<std::uint64_t> live(5, ~std::uint64_t{0});
    std::vector<Index> alive, some;
    for (Index i = 0; i < n; ++i) {
      if (i % 5 == 0 || (i > 130 && i < 200)) live[std::size_t(i / 64)] &= ~(std::uint64_t{1} << (i % 64));
      else alive.push_back(i);
      if (i % 7 == 3 && i < 128) some.push_back(i);
    }
    for (const Index first : {0, 10, 150, 290}) {
      for (const int kind : {0, 1, 2}) {  // all, dead rows, chosen rows
        AttendArgs a = args;
        a.first = first;
        if (kind == 2) a.only = some;
        AttendArgs ref = a;
        if (kind == 1) ref.only = alive;
        const auto want = reference::attention(rows(k.decoded.data(), n, d), rows(v.decoded.data(), n, d), ref);
        AttnBuffer buffer(group, d);
        std::vector<float> logits(std::size_t(group * n), 5.0f);
        a.logits = logits.data();
        a.logits_stride = n;
        attend_packed(k.view(), v.view(), n, a, buffer.state(), Accuracy::exact,
                      kind == 1 ? live.data() : nullptr);
        std::vector<float> out(std::size_t(group * d));
        finish(buffer.state(), out.data());
        CHECK(relative(out, want.out) <= 5e-4);
        bool same = true;
        for (std::size_t i = 0; i < logits.size(); ++i)
          same = same && (std::isinf(want.logits[i]) ? std::isinf(logits[i])
                                                     : std::fabs(double(logits[i]) - want.logits[i]) < 2e-3);
        CHECK(same);
      }
    }
  });
}
