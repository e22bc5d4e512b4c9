#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>
#include <kvist/core/fields.hpp>
#include <kvist/storage/codec/detail/rewrite_row.hpp>

#include <memory>
#include <utility>

namespace kvist::inline KVIST_ABI {

/// A codec chosen at run time (of those that learn nothing), at one virtual call per run of rows. Copies share it.
class AnyCodec {
 public:
  using Model = Nothing;

  template <class C>
  requires(!std::same_as<C, AnyCodec> && std::same_as<typename C::Model, Nothing> && Codec<C>)
      AnyCodec(C codec)
      : p_(std::make_shared<const Holder<C>>(std::move(codec))) {}

  /// Can rows of d channels be coded?
  Status validate(int d) const { return p_->validate(d); }
  Index block_rows() const { return p_->block_rows(); }
  std::size_t block_bytes(int d) const { return p_->block_bytes(d); }
  void encode(const Model&, const float* rows, Index n, int d, std::byte* out) const {
    p_->encode(rows, n, d, out);
  }
  void decode(const Model&, const std::byte* in, Index n, int d, float* out) const {
    p_->decode(in, n, d, out);
  }
  void rewrite(const Model&, std::byte* block, Index i, int d, const float* row) const {
    p_->rewrite(block, i, d, row);
  }
  template <class V, class Self>
  static void fields(V& v, Self& c) {
    c.p_->fields(v);
  }

 private:
  struct Base {
    virtual ~Base() = default;
    virtual Status validate(int) const = 0;
    virtual Index block_rows() const = 0;
    virtual std::size_t block_bytes(int) const = 0;
    virtual void encode(const float*, Index, int, std::byte*) const = 0;
    virtual void decode(const std::byte*, Index, int, float*) const = 0;
    virtual void rewrite(std::byte*, Index, int, const float*) const = 0;
    virtual void fields(FieldWriter&) const = 0;  // a codec has options only: to read is to compare
    virtual void fields(FieldReader&) const = 0;
  };
  template <class C>
  struct Holder final : Base {
    C c;
    explicit Holder(C codec) : c(std::move(codec)) {}
    Status validate(int d) const override {
      if constexpr (requires { c.validate(d); }) return c.validate(d);
      else return Done{};
    }
    Index block_rows() const override { return c.block_rows(); }
    std::size_t block_bytes(int d) const override { return c.block_bytes(d); }
    void encode(const float* rows, Index n, int d, std::byte* out) const override {
      c.encode(Model{}, rows, n, d, out);
    }
    void decode(const std::byte* in, Index n, int d, float* out) const override {
      c.decode(Model{}, in, n, d, out);
    }
    void rewrite(std::byte* block, Index i, int d, const float* row) const override {
      detail::rewrite_row(c, Model{}, block, i, d, row);
    }
    void fields(FieldWriter& v) const override { visit_fields(v, c); }
    void fields(FieldReader& v) const override { visit_fields(v, c); }
  };
  std::shared_ptr<const Base> p_;
};
static_assert(Codec<AnyCodec>);

}  // namespace kvist::inline KVIST_ABI
