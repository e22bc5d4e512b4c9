// SPDX-License-Identifier: Apache-2.0
#include "../support/catch.hpp"
#include "support.hpp"

#include <kvist/core/little_endian.hpp>
#include <kvist/kernels/encode.hpp>
#include <kvist/storage/codec/affine.hpp>
#include <kvist/storage/codec/ggml.hpp>

#include <algorithm>
#include <cstring>
#include <limits>

using namespace kvist;
using namespace kvist::test;
using kernels::PackedLayout;

namespace {

enum class Rule { affine, q8_0, q4_0 };

/// Number by number, by the codecs' own definitions.
void slow_group(const PackedLayout& l, std::uint8_t* page, Index t, Index entries, int c, int channels,
                const float* x, std::ptrdiff_t stride) {
  const int top = (1 << l.bits) - 1;
  const Index n = entries * Index(channels);
  float least, largest;
  kvist::detail::range_of(x, n, stride, least, largest);
  const auto a = Affine<f16>::of(least, largest, top);
  l.scales(page)[l.scale_index(t, c)] = to_f16(a.scale);
  l.minimums(page)[l.scale_index(t, c)] = to_f16(a.minimum);
  for (Index i = 0; i < n; ++i)
    l.set_code(page, channels > 1 ? t : t + i, channels > 1 ? c + int(i) : c, a.code(x[i * stride], top));
}

void slow(Rule rule, const PackedLayout& l, std::uint8_t* page, Index t, const float* rows, Index n) {
  if (rule == Rule::affine && l.along == kernels::GroupAlong::entries) {
    for (int c = 0; c < l.dim; ++c) slow_group(l, page, t, n, c, 1, rows + c, l.dim);
    return;
  }
  for (Index i = 0; i < n; ++i, rows += l.dim)
    for (int c = 0; c < l.dim; c += l.group) {
      if (rule == Rule::affine) {
        const int channels = std::min(l.group, l.dim - c);
        slow_group(l, page, t + i, 1, c, channels, rows + c, 1);
        continue;
      }
      std::uint8_t block[34];
      if (rule == Rule::q8_0) ggml::Q8_0::encode(rows + c, block);
      else ggml::Q4_0::encode(rows + c, block);
      l.scales(page)[l.scale_index(t + i, c)] = f16{read_le<std::uint16_t>(block)};
      for (int j = 0; j < 32; ++j)
        l.set_code(page, t + i, c + j,
                   rule == Rule::q8_0 ? int(std::int8_t(block[2 + j])) + 128
                                      : (block[2 + j % 16] >> (j < 16 ? 0 : 4)) & 15);
    }
}

/// Rows of several kinds: whether a rule's exceptions are met depends on the numbers.
std::vector<float> numbers(int kind, Index n, int d) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  auto x = normals(std::size_t(n) * std::size_t(d), std::uint64_t(kind) * 1000 + std::uint64_t(d));
  for (std::size_t i = 0; i < x.size(); ++i) {
    float& v = x[i];
    if (kind == 1) v = std::round(v * 4) / 8;  // ties
    if (kind == 2) v = i % 3 == 0 ? 0.0f : i % 3 == 1 ? -0.0f : std::fabs(v);
    if (kind == 3) v = i % 2 == 0 ? -0.0f : 0.0f;
    if (kind == 4) v = 1.5f;
    if (kind == 5) v *= 1e-42f;
    if (kind == 6) v *= 1e5f;  // beyond f16
    if (kind == 7) v = v > 0 ? 3e38f : -3e38f;
    if (kind == 8 && i % 7 == 0) v = nan;
    if (kind == 9) v = nan;
    if (kind == 10 && i % 37 == 5) v = i % 2 == 0 ? inf : -inf;
    if (kind == 11) v *= 1e-7f;  // scales below the smallest normal f16
    if (kind == 12) v = -std::fabs(v) - 1;
    if (kind == 13) v = float(int(i % 255) - 127);  // ties of q8_0, q4_0: half codes
    if (kind == 14) v = float(int(i % 33) - 16) * 0.5f;
  }
  return x;
}
constexpr int kinds = 15;

void check(Rule rule, const PackedLayout& l) {
  REQUIRE(l.valid());
  struct Piece {
    Index t, n;
  };
  const bool along = l.along == kernels::GroupAlong::entries;
  const std::vector<Piece> pieces =
      along ? std::vector<Piece>{{0, l.group}, {128 - l.group, l.group}, {0, 1}, {0, std::min(l.group, 19)}}
            : std::vector<Piece>{{0, 128}, {0, 1}, {5, 1}, {127, 1}, {3, 40}, {63, 3}};
  for (int kind = 0; kind < kinds; ++kind)
    for (const Piece p : pieces) {
      const auto x = numbers(kind, p.n, l.dim);
      std::vector<std::uint8_t> want(l.bytes()), before;
      // what was there before, everywhere that a code or a scale has its place
      const auto old = numbers(0, PackedLayout::page, l.dim);
      for (Index t = 0; t < PackedLayout::page; t += along ? l.group : 1)
        slow(rule, l, want.data(), t, old.data() + std::ptrdiff_t(t) * l.dim, along ? l.group : 1);
      before = want;
      slow(rule, l, want.data(), p.t, x.data(), p.n);
      at_every_isa([&](kernels::Isa isa) {
        INFO(kernels::isa_name(isa) << " rule " << int(rule) << " keys " << l.keys << " bits " << l.bits
                                    << " d " << l.dim << " group " << l.group << " along " << along
                                    << " kind " << kind << " t " << p.t << " n " << p.n);
        std::vector<std::uint8_t> page = before;
        if (rule == Rule::affine) kernels::encode_affine(l, page.data(), p.t, x.data(), p.n);
        else if (rule == Rule::q8_0) kernels::encode_q8_0(l, page.data(), p.t, x.data(), p.n);
        else kernels::encode_q4_0(l, page.data(), p.t, x.data(), p.n);
        const bool same = page == want;
        CHECK(same);
      });
    }
}

}  // namespace

TEST_CASE("Rows become the codes, scales and minima of their codec bit for bit, and others keep theirs",
          "[kernels][encode]") {
  for (const int bits : {8, 4, 2})
    for (const int d : {3, 20, 64, 100, 128}) {
      for (const int group : {16, 32, 128}) check(Rule::affine, kernels::channel_keys(bits, d, group));
      for (const int group : {4, 12, 32, 128}) {
        check(Rule::affine, kernels::token_keys(bits, d, group, true));
        if (group % 16 == 0) check(Rule::affine, kernels::token_values(bits, d, group, true));
      }
    }
}

TEST_CASE("The widest rows are coded alike", "[kernels][encode]") {
  check(Rule::affine, kernels::channel_keys(4, 512, 128));
  check(Rule::affine, kernels::token_keys(4, 512, 4, true));
  check(Rule::affine, kernels::token_values(2, 512, 16, true));
  check(Rule::q8_0, kernels::token_keys(8, 512, 32, false));
  check(Rule::q4_0, kernels::token_values(4, 512, 32, false));
}

TEST_CASE("Blocks of q8_0 and q4_0 are those of their reference quantiser bit for bit", "[kernels][encode]") {
  for (const int d : {32, 64, 96, 128}) {
    check(Rule::q8_0, kernels::token_keys(8, d, 32, false));
    check(Rule::q8_0, kernels::token_values(8, d, 32, false));
    check(Rule::q4_0, kernels::token_keys(4, d, 32, false));
    check(Rule::q4_0, kernels::token_values(4, d, 32, false));
  }
}
