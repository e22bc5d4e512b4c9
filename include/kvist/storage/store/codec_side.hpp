#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>
#include <kvist/core/fields.hpp>
#include <kvist/kernels/rows.hpp>
#include <kvist/storage/buffer.hpp>
#include <kvist/storage/codec/any_codec.hpp>
#include <kvist/storage/codec/detail/rewrite_row.hpp>
#include <kvist/storage/codec/plain.hpp>
#include <kvist/storage/store/detail/sum_weighted.hpp>

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

namespace kvist::inline KVIST_ABI {

/// The keys, or the values, of a BlockedStore as any Codec writes them: blocks side by side, decoded to a small tile where
/// attention reads them.
template <Codec C>
class CodecSide {
 public:
  static constexpr Index quantum = 1;         ///< slots that room is made for at once, besides whole blocks
  static constexpr int most_channels = 8192;  ///< of a row
  struct Query {
    const float* q = nullptr;
    int group = 0;
    float scale = 1;
  };

  CodecSide() requires std::default_initializable<C>
  = default;
  /// Requires: 0 < dim <= most_channels.
  CodecSide(C codec, int dim) : codec_(std::move(codec)), dim_(dim) {
    KVIST_ASSERT(dim > 0 && dim <= most_channels);
  }

  int dim() const { return dim_; }
  Index unit() const { return codec_.block_rows(); }  ///< slots that are encoded together
  std::size_t bytes() const { return data_.bytes(); }
  const C& codec() const { return codec_; }

  /// Room for that many slots, a multiple of unit(); the first min(old, new) keep their bytes.
  void resize(Index slots) {
    const std::size_t had = data_.size();
    data_.resize(std::size_t(slots / unit()) * block_bytes());
    if (data_.size() > had) std::memset(data_.data() + had, 0, data_.size() - had);
  }

  /// n rows [n, dim] into slots `slot` and on; slot is a multiple of unit().
  void encode(Index slot, const float* rows, Index n) {
    for (Index i = 0; i < n; i += unit())
      codec_.encode(model_, rows + std::ptrdiff_t(i) * dim_, std::min(unit(), n - i), dim_, block(slot + i));
  }
  /// One slot gets a new row; others keep their bits, but for codecs of several rows that have no `rewrite`.
  void rewrite(Index slot, const float* row) {
    detail::rewrite_row(codec_, model_, block(slot), slot % unit(), dim_, row);
  }
  /// Copies a unit, bit for bit.
  void move(Index from, Index to) { std::memcpy(block(to), block(from), block_bytes()); }

  /// Slot `to` becomes slot `from` of another side: its block where rows are coded one by one, else the numbers that it
  /// decodes to. Requires: other.row_side() is a side like this one.
  template <Codec D>
  void take(const CodecSide<D>& other, Index from, Index to) {
    KVIST_ASSERT(unit() == 1 && dim_ == other.dim());
    if (other.unit() == 1) {
      std::memcpy(block(to), other.block(from), block_bytes());
      return;
    }
    std::vector<float> row(static_cast<std::size_t>(dim_));
    other.decode(from, 1, row.data());
    codec_.encode(model_, row.data(), 1, dim_, block(to));
  }
  /// An empty side for rows of this one that take() brings: coded as here, or f32 where rows are coded together.
  using Row = CodecSide<AnyCodec>;
  Row row_side() const { return Row(unit() == 1 ? AnyCodec(codec_) : AnyCodec(Plain<float>{}), dim_); }
  std::size_t slot_bytes() const { return block_bytes() / std::size_t(unit()); }

  void decode(Index slot, Index n, float* out) const {
    if (unit() == 1) {
      for (Index i = 0; i < n; ++i)
        codec_.decode(model_, block(slot + i), 1, dim_, out + std::ptrdiff_t(i) * dim_);
      return;
    }
    std::vector<float> whole;
    for (Index i = slot, end = slot + n; i < end;) {
      const Index inside = i % unit(), count = std::min(unit() - inside, end - i);
      float* const to = out + std::ptrdiff_t(i - slot) * dim_;
      if (inside == 0) {
        codec_.decode(model_, block(i), count, dim_, to);
      } else {
        whole.resize(std::size_t(inside + count) * std::size_t(dim_));
        codec_.decode(model_, block(i), inside + count, dim_, whole.data());
        std::copy_n(whole.data() + std::ptrdiff_t(inside) * dim_, std::ptrdiff_t(count) * dim_, to);
      }
      i += count;
    }
  }

  void prepare(const float* q, int group, float scale, Query& out) const { out = {q, group, scale}; }

  /// logits[g * stride + i] of slots at .. at+n-1.
  void logits(const Query& query, Index at, Index n, float* out, std::ptrdiff_t stride) const {
    for_each_tile(at, n, [&](const Rows<float>& run, Index first) {
      kernels::dot_group(run, query.q, query.group, query.scale, out + first, stride);
    });
  }
  /// o [group, dim] += sum of w[g * stride + i] * slot at + i.
  void sum(Index at, Index n, const float* w, std::ptrdiff_t stride, int group, float* o) const {
    for_each_tile(at, n, [&](const Rows<float>& run, Index first) {
      detail::sum_weighted(run, w + first, stride, group, o);
    });
  }

  CodecSide clone() const {
    CodecSide copy(codec_, dim_);
    copy.data_.resize(data_.size());
    if (data_.size() > 0) std::memcpy(copy.data_.data(), data_.data(), data_.size());
    return copy;
  }

  /// How rows are coded; then `slots` of `room` slots, both multiples of unit().
  template <class V, class Self>
  static void form(V& v, Self& s) {
    static_assert(std::is_same_v<typename C::Model, Nothing>,
                  "what a codec has learnt is not in snapshots yet");
    v.same("codec");
    v.same(s.dim_);
    visit_fields(v, s.codec_);
  }
  template <class V, class Self>
  static void fields(V& v, Self& s, Index slots, [[maybe_unused]] Index room) {
    if constexpr (V::reads) {
      if (!v.allow(std::uint64_t(room / s.unit()), s.block_bytes())) return;
      s.resize(room);
    }
    v.block(s.data_.data(), std::size_t(slots / s.unit()) * s.block_bytes());
  }

  std::span<const std::byte> coded() const { return {data_.data(), data_.size()}; }
  std::span<std::byte> coded() { return {data_.data(), data_.size()}; }

 private:
  template <Codec D>
  friend class CodecSide;

  static constexpr int tile_floats = most_channels;  // a row at least
  std::size_t block_bytes() const { return codec_.block_bytes(dim_); }
  std::byte* block(Index slot) { return data_.data() + std::size_t(slot / unit()) * block_bytes(); }
  const std::byte* block(Index slot) const {
    return data_.data() + std::size_t(slot / unit()) * block_bytes();
  }

  template <class F>
  void for_each_tile(Index at, Index n, F f) const {
    alignas(64) float tile[tile_floats];
    const Index most = std::max<Index>(1, tile_floats / dim_);
    for (Index i = 0; i < n;) {
      Index count = std::min(most, n - i);
      if (unit() <= most)
        count = std::min(count, most - (at + i + most) % unit());  // ends where a block ends
      decode(at + i, count, tile);
      f(Rows<float>{tile, count, dim_, dim_, 1}, i);
      i += count;
    }
  }

  C codec_;
  typename C::Model model_{};
  int dim_ = 0;
  Buffer<std::byte> data_;
};

}  // namespace kvist::inline KVIST_ABI
