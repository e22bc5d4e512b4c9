#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/concepts.hpp>
#include <kvist/core/fields.hpp>

#include <memory>
#include <utility>

namespace kvist::inline KVIST_ABI {

/// A store chosen at run time, at one virtual call per head and operation. Copies are explicit: clone().
class AnyStore {
 public:
  template <class S>
  requires(!std::same_as<S, AnyStore> && Store<S>) AnyStore(S store)
      : p_(std::make_unique<Model<S>>(std::move(store))) {}

  void append(const float* k, const float* v, Index n) { p_->append(k, v, n); }
  void settle() { p_->settle(); }
  /// Nothing, where the store learns nothing from a prompt.
  void fit(const AnyHead& head, const Evidence& seen) { p_->fit(head, seen); }
  void drop(std::span<const Index> rows) { p_->drop(rows); }
  void truncate(Index n) { p_->truncate(n); }
  void reserve(Index n) { p_->reserve(n); }
  void write(Index i, const float* k, const float* v) { p_->write(i, k, v); }
  Index size() const { return p_->size(); }
  std::size_t bytes() const { return p_->bytes(); }
  void attend(const AttendArgs& args, const AttnState& state) const { p_->attend(args, state); }
  void read(Index first, Index n, float* k, float* v) const { p_->read(first, n, k, v); }
  AnyRows keys() const { return p_->keys(); }
  AnyRows values() const { return p_->values(); }
  AnyStore clone() const { return AnyStore(p_->clone()); }
  /// The store itself, where it is an S; else null.
  template <class S>
  S* get() {
    return p_->kind() == &kind_of<S> ? &static_cast<Model<S>&>(*p_).s : nullptr;
  }
  /// Stores that share with the one of the layer below are told of it. False where they need one that is not there.
  bool couple(AnyStore& below) { return p_->couple(below); }
  /// Is all there that it shares? True of stores that share nothing.
  bool coupled() const { return p_->coupled(); }
  /// Those of the store that was chosen: a snapshot does not know whether it was chosen at run time.
  template <class V, class Self>
  static void fields(V& v, Self& s) {
    s.p_->fields(v);
  }

 private:
  template <class S>
  static constexpr char kind_of = 0;  // its address stands for S
  struct Base {
    virtual ~Base() = default;
    virtual void append(const float*, const float*, Index) = 0;
    virtual void settle() = 0;
    virtual void fit(const AnyHead&, const Evidence&) = 0;
    virtual void drop(std::span<const Index>) = 0;
    virtual void truncate(Index) = 0;
    virtual void reserve(Index) = 0;
    virtual void write(Index, const float*, const float*) = 0;
    virtual Index size() const = 0;
    virtual std::size_t bytes() const = 0;
    virtual void attend(const AttendArgs&, const AttnState&) const = 0;
    virtual void read(Index, Index, float*, float*) const = 0;
    virtual AnyRows keys() const = 0;
    virtual AnyRows values() const = 0;
    virtual std::unique_ptr<Base> clone() const = 0;
    virtual const void* kind() const = 0;
    virtual bool couple(AnyStore& below) = 0;
    virtual bool coupled() const = 0;
    virtual void fields(FieldWriter&) const = 0;
    virtual void fields(FieldReader&) = 0;
  };
  template <class S>
  struct Model final : Base {
    S s;
    explicit Model(S store) : s(std::move(store)) {}
    void append(const float* k, const float* v, Index n) override { s.append(k, v, n); }
    void settle() override { s.settle(); }
    void fit([[maybe_unused]] const AnyHead& head, [[maybe_unused]] const Evidence& seen) override {
      if constexpr (requires { s.fit(head, seen); }) s.fit(head, seen);
    }
    void drop(std::span<const Index> rows) override { s.drop(rows); }
    void truncate(Index n) override { s.truncate(n); }
    void reserve(Index n) override { s.reserve(n); }
    void write(Index i, const float* k, const float* v) override { s.write(i, k, v); }
    Index size() const override { return s.size(); }
    std::size_t bytes() const override { return s.bytes(); }
    void attend(const AttendArgs& args, const AttnState& state) const override { s.attend(args, state); }
    void read(Index first, Index n, float* k, float* v) const override { s.read(first, n, k, v); }
    AnyRows keys() const override { return s.keys(); }
    AnyRows values() const override { return s.values(); }
    std::unique_ptr<Base> clone() const override { return std::make_unique<Model>(s.clone()); }
    const void* kind() const override { return &kind_of<S>; }
    bool couple([[maybe_unused]] AnyStore& below) override {
      if constexpr (requires { s.couple(below); }) return s.couple(below);
      else return true;
    }
    bool coupled() const override {
      if constexpr (requires { s.coupled(); }) return s.coupled();
      else return true;
    }
    void fields(FieldWriter& v) const override { visit_fields(v, s); }
    void fields(FieldReader& v) override { visit_fields(v, s); }
  };
  explicit AnyStore(std::unique_ptr<Base> p) : p_(std::move(p)) {}
  std::unique_ptr<Base> p_;
};

}  // namespace kvist::inline KVIST_ABI
