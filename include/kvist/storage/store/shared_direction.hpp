#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/attention/attend.hpp>
#include <kvist/core/fields.hpp>
#include <kvist/storage/any_store.hpp>
#include <kvist/storage/share/direction_pair.hpp>

#include <memory>
#include <span>
#include <utility>

namespace kvist::inline KVIST_ABI {

/// One layer's port to storage that two layers share: for each token and head one unit direction of keys and one of values,
/// which both layers scale by norms of their own. Rows whose directions are far apart are kept as they are, for keys and for
/// values each in a list of its own.
///
/// The lower layer's rows wait, as they are in T, until the upper layer has been given the same tokens and has attended to them
/// (its settle(), or the next token's append to the lower layer once 64 wait); then both become one. Attention multiplies the
/// direction's product with the query by the norm, and the probability of the direction of the value: nothing is restored.
/// A token that one layer has let go before stays with the other's own direction. What either layer drops stays for the other,
/// and is freed when both have. write() keeps the row as it is given.
///
/// The directions lie in a store of their own, of any kind: exact or coded, their rows are numbers between -1 and 1. Norms and
/// retained rows are T. bytes() of the lower layer holds the directions; both together, of n tokens with rows of d channels in
/// T directions: n (d + 2) + ceil(gamma n) 2 d numbers, and an index for each retained row, for keys and for values each, and
/// two bits a token.
/// Source: Liu et al. 2024, arXiv 2405.14366 (MiniCache).
///
/// Ports are made one by one, and coupled before they are used: the upper layer's to the lower one's (Cache does that). Both
/// must be given the same tokens in the same order, and truncated before either goes on.
template <Scalar T>
class SharedDirectionStore {
 public:
  using Pair = detail::DirectionPair<T>;

  /// The lower layer's port, with the store for directions.
  SharedDirectionStore(AnyStore directions, int dim_k, int dim_v, const SharedDirectionOptions& options)
      : pair_(std::make_shared<Pair>(std::move(directions), dim_k, dim_v, options)),
        dim_k_(dim_k),
        dim_v_(dim_v) {}
  /// The upper layer's port, to be coupled.
  SharedDirectionStore(int dim_k, int dim_v) : layer_(1), dim_k_(dim_k), dim_v_(dim_v) {}

  bool upper() const { return layer_ == 1; }
  /// The upper port shares what the lower one holds. False where it has no lower port of its kind before it.
  bool couple(AnyStore& below) {
    if (!upper()) return true;
    SharedDirectionStore* const lower = below.get<SharedDirectionStore>();
    if (lower == nullptr || lower->upper()) return false;
    pair_ = lower->pair_;
    return true;
  }
  bool coupled() const { return pair_ != nullptr; }
  const Pair& pair() const { return *pair_; }

  Index size() const { return pair_ ? pair_->size(layer_) : 0; }
  std::size_t bytes() const { return pair_ ? pair_->bytes(layer_) : 0; }
  void reserve(Index n) { pair_->reserve(n); }
  void append(const float* k, const float* v, Index n) {
    KVIST_ASSERT(pair_ != nullptr);
    pair_->append(layer_, k, v, n);
  }
  void settle() { pair_->settle(); }
  void drop(std::span<const Index> rows_of) { pair_->drop(layer_, rows_of); }
  void truncate(Index n) { pair_->truncate(layer_, n); }
  void write(Index i, const float* k, const float* v) { pair_->write(layer_, i, k, v); }
  void read(Index first, Index n, float* k, float* v) const { pair_->read(layer_, first, n, k, v); }
  void attend(const AttendArgs& args, const AttnState& state) const { pair_->attend(layer_, args, state); }
  ReaderRows keys() const {
    return {[](const void* s, Index first, Index n, float* out) {
              static_cast<const SharedDirectionStore*>(s)->read(first, n, out, nullptr);
            },
            this, size(), dim_k_};
  }
  ReaderRows values() const {
    return {[](const void* s, Index first, Index n, float* out) {
              static_cast<const SharedDirectionStore*>(s)->read(first, n, nullptr, out);
            },
            this, size(), dim_v_};
  }
  /// The lower port's copy holds a copy of everything; the upper one's has to be coupled to it.
  SharedDirectionStore clone() const {
    SharedDirectionStore c(dim_k_, dim_v_);
    c.layer_ = layer_;
    if (!upper()) c.pair_ = pair_->clone();
    return c;
  }
  /// The lower port's fields are those of both.
  template <class V, class Self>
  static void fields(V& v, Self& s) {
    v.same("port"), v.same(s.layer_);
    if (!s.upper() && s.pair_) visit_fields(v, *s.pair_);
  }

 private:
  std::shared_ptr<Pair> pair_;
  int layer_ = 0;
  int dim_k_, dim_v_;
};

}  // namespace kvist::inline KVIST_ABI
