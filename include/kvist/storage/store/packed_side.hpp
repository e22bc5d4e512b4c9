#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>
#include <kvist/core/fields.hpp>
#include <kvist/kernels/encode.hpp>
#include <kvist/kernels/packed.hpp>
#include <kvist/storage/buffer.hpp>
#include <kvist/storage/codec/affine.hpp>
#include <kvist/storage/codec/ggml.hpp>

#include <algorithm>
#include <cstring>
#include <span>

namespace kvist::inline KVIST_ABI {

/// By which codec's rule the numbers of a PackedSide are coded.
enum class PackedRule : std::uint8_t {
  affine,  ///< IntChannel and IntToken with f16 scales and minima
  q8_0,
  q4_0,
  q4_1,  ///< ggml's blocks
};

/// The keys, or the values, of a BlockedStore as packed pages of 128 slots, which the fused kernels read without decoding.
/// The codes, scales and minima are those of the rule's codec; only their places differ. Except that scales and minima of
/// values are finite: infinite ones become the largest f16, NaN becomes 0. Kernels multiply whole pages by their weights, and
/// a hidden or dropped row must count nothing at weight 0.
/// Requires: layout.valid(), layout.dim <= 512; as layout_of() makes it for ggml's rules, else layout.minima and
/// layout.centre == 0.
class PackedSide {
 public:
  static constexpr Index quantum = kernels::PackedLayout::page;
  struct Query {
    static constexpr int most = 16 / kernels::PackedQuery::max_group;
    kernels::PackedQuery part[most];
    int group = 0;
  };

  PackedSide() = default;
  PackedSide(const kernels::PackedLayout& layout, kernels::Accuracy accuracy,
             PackedRule rule = PackedRule::affine)
      : layout_(layout), accuracy_(accuracy), rule_(rule) {
    KVIST_ASSERT(rule != PackedRule::affine || (layout.minima && layout.centre == 0));
  }
  /// The layout that holds blocks of 32 channels by one of ggml's rules. Requires: 32 divides dim.
  static kernels::PackedLayout layout_of(PackedRule rule, bool keys, int dim) {
    const int bits = rule == PackedRule::q8_0 ? 8 : 4;
    const bool minima = rule == PackedRule::q4_1;
    return keys ? kernels::token_keys(bits, dim, 32, minima) : kernels::token_values(bits, dim, 32, minima);
  }

  int dim() const { return layout_.dim; }
  Index unit() const { return layout_.along == kernels::GroupAlong::entries ? layout_.group : 1; }
  std::size_t bytes() const { return data_.bytes(); }
  const kernels::PackedLayout& layout() const { return layout_; }

  /// Room for that many slots, a multiple of 128.
  void resize(Index slots) {
    const std::size_t had = data_.size();
    data_.resize(std::size_t(slots / quantum) * layout_.bytes());
    if (data_.size() > had) std::memset(data_.data() + had, 0, data_.size() - had);
  }

  /// n rows [n, dim] into slots `slot` and on; slot is a multiple of unit().
  void encode(Index slot, const float* rows, Index n) {
    const bool along = layout_.along == kernels::GroupAlong::entries;
    for (Index i = 0; i < n;) {
      std::uint8_t* const page = page_of(slot + i);
      const Index t = (slot + i) % quantum, count = std::min(along ? layout_.group : quantum - t, n - i);
      const float* const x = rows + std::ptrdiff_t(i) * layout_.dim;
      if (rule_ == PackedRule::affine) kernels::encode_affine(layout_, page, t, x, count);
      else if (rule_ == PackedRule::q8_0) kernels::encode_q8_0(layout_, page, t, x, count);
      else if (rule_ == PackedRule::q4_0) kernels::encode_q4_0(layout_, page, t, x, count);
      else code_blocks(page, t, x, count);
      if (!layout_.keys) keep_finite(page, t, count);
      i += count;
    }
  }
  /// One slot gets a new row; others keep their bits. In a group along the tokens the row is fitted to its scales.
  void rewrite(Index slot, const float* row) {
    if (unit() == 1) return encode(slot, row, 1);
    std::uint8_t* const page = page_of(slot);
    const Index t = slot % quantum;
    for (int c = 0; c < layout_.dim; ++c) {
      const std::size_t s = layout_.scale_index(t, c);
      const Affine<f16> a{to_f32(layout_.scales(page)[s]), to_f32(layout_.minimums(page)[s])};
      layout_.set_code(page, t, c, a.code(row[c], (1 << layout_.bits) - 1));
    }
  }
  /// Copies a unit, bit for bit.
  void move(Index from, Index to) {
    std::uint8_t *const a = page_of(from), *const b = page_of(to);
    copy_slot(a, from % quantum, b, to % quantum);
  }
  /// Slot `to` becomes slot `from` of another side of this layout, bit for bit. Requires: unit() == 1.
  void take(const PackedSide& other, Index from, Index to) {
    KVIST_ASSERT(unit() == 1 && layout_ == other.layout_);
    copy_slot(other.page_of(from), from % quantum, page_of(to), to % quantum);
  }
  /// An empty side for rows of this one that take() brings.
  using Row = PackedSide;
  Row row_side() const { return PackedSide(layout_, accuracy_, rule_); }
  std::size_t slot_bytes() const { return layout_.bytes() / std::size_t(quantum); }

  void decode(Index slot, Index n, float* out) const {
    for (Index i = slot, end = slot + n; i < end;) {
      const Index count = std::min(quantum - i % quantum, end - i);
      kernels::unpack(layout_, page_of(i), i % quantum, count, out + std::ptrdiff_t(i - slot) * layout_.dim);
      i += count;
    }
  }

  void prepare(const float* q, int group, float scale, Query& out) const {
    out.group = group;
    for (int g = 0; g < group; g += most_queries)
      kernels::prepare(layout_, q + std::ptrdiff_t(g) * layout_.dim, std::min(most_queries, group - g), scale,
                       accuracy_, out.part[g / most_queries]);
  }
  /// Logits of the page's 128 slots from `at` on, a multiple of 128; those of slots that hold nothing are to be ignored.
  void logits(const Query& query, Index at, Index, float* out, std::ptrdiff_t stride) const {
    for (int g = 0; g < query.group; g += most_queries)
      kernels::key_logits(layout_, page_of(at), query.part[g / most_queries], out + g * stride, stride,
                          g == 0 ? ahead(at) : kernels::Ahead{});
  }
  /// o [group, dim] += sum of w[g * stride + i] * slot at + i over the page's 128 slots.
  void sum(Index at, Index, const float* w, std::ptrdiff_t stride, int group, float* o) const {
    for (int g = 0; g < group; g += most_queries)
      kernels::value_sum(layout_, page_of(at), w + g * stride, stride, std::min(most_queries, group - g),
                         accuracy_, o + std::ptrdiff_t(g) * layout_.dim, g == 0 ? ahead(at) : kernels::Ahead{});
  }

  PackedSide clone() const {
    PackedSide copy(layout_, accuracy_, rule_);
    copy.data_.resize(data_.size());
    if (data_.size() > 0) std::memcpy(copy.data_.data(), data_.data(), data_.size());
    return copy;
  }

  /// How rows are coded (accuracy is a choice of the reader); then the pages of `slots` slots, of `room` that there is
  /// memory for.
  template <class V, class Self>
  static void form(V& v, Self& s) {
    v.same("packed");
    const kernels::PackedLayout& l = s.layout_;
    v.same(l.keys), v.same(l.bits), v.same(l.dim), v.same(l.group), v.same(l.along), v.same(l.minima);
    v.same(s.rule_);
  }
  template <class V, class Self>
  static void fields(V& v, Self& s, Index slots, [[maybe_unused]] Index room) {
    if constexpr (V::reads) {
      if (!v.allow(std::uint64_t(room / quantum), s.layout_.bytes())) return;
      s.resize(room);
    }
    v.block(s.data_.data(), std::size_t((slots + quantum - 1) / quantum) * s.layout_.bytes());
  }

  std::span<const std::byte> coded() const { return std::as_bytes(std::span(data_.data(), data_.size())); }
  std::span<std::byte> coded() { return std::as_writable_bytes(std::span(data_.data(), data_.size())); }

 private:
  static constexpr int most_queries = kernels::PackedQuery::max_group;
  static constexpr std::size_t far = 16384;  // bytes of this side between what is read and what is asked for

  std::uint8_t* page_of(Index slot) { return data_.data() + std::size_t(slot / quantum) * layout_.bytes(); }
  const std::uint8_t* page_of(Index slot) const {
    return data_.data() + std::size_t(slot / quantum) * layout_.bytes();
  }

  /// Codes and scales of the unit at place `from` of page a go to place `to` of page b.
  void copy_slot(const std::uint8_t* a, Index from, std::uint8_t* b, Index to) {
    const Index u = unit();
    for (Index i = 0; i < u; ++i)
      for (int c = 0; c < layout_.dim; ++c) layout_.set_code(b, to + i, c, layout_.code(a, from + i, c));
    const int step = u > 1 ? 1 : layout_.group;
    for (int c = 0; c < layout_.dim; c += step) {
      const std::size_t s = layout_.scale_index(from, c), t = layout_.scale_index(to, c);
      layout_.scales(b)[t] = layout_.scales(a)[s];
      if (layout_.minima) layout_.minimums(b)[t] = layout_.minimums(a)[s];
    }
  }

  /// Scales and minima of the values at places t .. t+n-1: groups of channels, each group's for the 128 slots side by side.
  void keep_finite(std::uint8_t* page, Index t, Index n) {
    for (int row = 0; row < layout_.scale_rows(); ++row) {
      const std::ptrdiff_t at = std::ptrdiff_t(row) * quantum + t;
      finite(layout_.scales(page) + at, n);
      if (layout_.minima) finite(layout_.minimums(page) + at, n);
    }
  }
  static void finite(f16* x, Index n) {
    // Four at once: an exponent of ones, and only that, carries into the sign's place.
    Index i = 0;
    for (std::uint64_t four; i + 4 <= n; i += 4) {
      std::memcpy(&four, x + i, 8);
      if ((((four & 0x7c007c007c007c00u) + 0x0400040004000400u) & 0x8000800080008000u) != 0)
        for (Index j = i; j < i + 4; ++j) finite(x[j]);
    }
    for (; i < n; ++i) finite(x[i]);
  }
  static void finite(f16& x) {
    const unsigned size = x.bits & 0x7fffu;
    if (size >= 0x7c00u) x.bits = std::uint16_t(size > 0x7c00u ? 0u : (x.bits & 0x8000u) | 0x7bffu);
  }

  kernels::Ahead ahead(Index at) const {
    const std::size_t page = layout_.bytes(),
                      next = std::size_t(at / quantum) + std::max<std::size_t>(1, far / page);
    if ((next + 1) * page > data_.size()) return {};
    return {data_.data() + next * page, page};
  }

  /// Rows [n, dim] by the rule of q4_1, block by block.
  void code_blocks(std::uint8_t* page, Index t, const float* rows, Index n) {
    for (Index i = 0; i < n; ++i, ++t)
      for (int c = 0; c < layout_.dim; c += 32, rows += 32) {
        std::uint8_t block[ggml::Q4_1::bytes];
        ggml::Q4_1::encode(rows, block);
        const std::size_t s = layout_.scale_index(t, c);
        layout_.scales(page)[s] = f16{read_le<std::uint16_t>(block)};
        layout_.minimums(page)[s] = f16{read_le<std::uint16_t>(block + 2)};
        for (int j = 0; j < 32; ++j)
          layout_.set_code(page, t, c + j, (block[4 + j % 16] >> (j < 16 ? 0 : 4)) & 15);
      }
  }

  kernels::PackedLayout layout_;
  kernels::Accuracy accuracy_ = kernels::Accuracy::exact;
  PackedRule rule_ = PackedRule::affine;
  Buffer<std::uint8_t> data_;
};

}  // namespace kvist::inline KVIST_ABI
