#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/assert.hpp>
#include <kvist/core/result.hpp>
#include <kvist/core/types.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string_view>
#include <type_traits>
#include <vector>

namespace kvist::inline KVIST_ABI {

// How objects say what they hold, once for writing and reading: a member
//   template <class V, class Self> static void fields(V& v, Self& self);
// walks over it. V is FieldWriter (Self is const then) or FieldReader, and `V::reads` tells which. A fault stays: what
// follows it is neither written nor read, so that a walk needs to ask good() only before it allocates or loops. An
// object that was read with a fault is good for nothing but to be thrown away.

/// Writes fields one after another in this machine's byte order.
class FieldWriter {
 public:
  static constexpr bool reads = false;
  /// Takes n bytes; false: no more can be written.
  using Put = bool (*)(void* to, const void* bytes, std::size_t n);

  FieldWriter(Put put, void* to) : put_(put), to_(to) {}

  bool good() const { return status_.has_value(); }
  const Status& status() const { return status_; }
  void fail(const Error& error) {
    if (good()) status_ = error;
  }

  /// What the reader's object must have alike: its kind, dimensions and options.
  void same(std::string_view kind) {
    same((long long)kind.size());
    block(kind.data(), kind.size());
  }
  template <class T>
  requires std::integral<T> || std::is_enum_v<T>
  void same(T x) {
    const std::int64_t wide = std::int64_t(x);
    block(&wide, 1);
  }
  /// An integer that must lie in least .. most.
  template <std::integral T>
  void number(const T& x, std::type_identity_t<T>, std::type_identity_t<T>) {
    same(x);
  }
  /// A number, and not NaN, that must lie in least .. most.
  template <std::floating_point T>
  void number(const T& x, std::type_identity_t<T>, std::type_identity_t<T>) {
    block(&x, 1);
  }
  /// n elements of which every pattern of bits is right.
  template <class T>
  requires std::is_trivially_copyable_v<T>
  void block(const T* at, std::size_t n) {
    if (n > 0 && good() && !put_(to_, at, n * sizeof(T)))
      fail({Errc::out_of_capacity, "a snapshot cannot be written to the end"});
  }
  /// All elements, at most `most`, and how many there is memory for.
  template <class T>
  void list(const std::vector<T>& x, std::size_t) {
    memory_of(x);
    same((long long)x.size());
    block(x.data(), x.size());
  }
  /// Just how many elements there is memory for.
  template <class T>
  void memory_of(const std::vector<T>& x) {
    same((long long)x.capacity());
  }

 private:
  Put put_;
  void* to_;
  Status status_ = Done{};
};

/// Reads what FieldWriter wrote, and believes none of it: what must be alike is compared, numbers are held to their
/// range, and memory is asked for only as far as `most_bytes` reaches.
class FieldReader {
 public:
  static constexpr bool reads = true;
  /// Gives n bytes; false: there are not so many.
  using Get = bool (*)(void* from, void* bytes, std::size_t n);

  FieldReader(Get get, void* from, std::uint64_t most_bytes) : get_(get), from_(from), left_(most_bytes) {}

  bool good() const { return status_.has_value(); }
  const Status& status() const { return status_; }
  void fail(const Error& error) {
    if (good()) status_ = error;
  }

  /// May n elements of `each` bytes be allocated? They count against most_bytes. A fault otherwise.
  bool allow(std::uint64_t n, std::size_t each) {
    if (good() && n > left_ / std::max<std::size_t>(each, 1))
      fail({Errc::out_of_capacity, "a snapshot asks for more memory than its reader gives",
            (long long)std::min<std::uint64_t>(left_, std::uint64_t(std::numeric_limits<long long>::max())),
            (long long)std::min<std::uint64_t>(n, std::uint64_t(std::numeric_limits<long long>::max()))});
    if (!good()) return false;
    left_ -= n * each;
    return true;
  }

  void same(std::string_view kind) {
    std::int64_t n = 0;
    block(&n, 1);
    char text[64];
    KVIST_ASSERT(kind.size() <= sizeof text);
    if (good() && n != std::int64_t(kind.size())) return differs(std::int64_t(kind.size()), n);
    block(text, kind.size());
    if (good() && std::string_view(text, kind.size()) != kind) differs(0, 0);
  }
  template <class T>
  requires std::integral<T> || std::is_enum_v<T>
  void same(T x) {
    std::int64_t wide = 0;
    block(&wide, 1);
    if (good() && wide != std::int64_t(x)) differs(std::int64_t(x), wide);
  }
  template <std::integral T>
  void number(T& x, std::type_identity_t<T> least, std::type_identity_t<T> most) {
    std::int64_t wide = 0;
    block(&wide, 1);
    if (!good()) return;
    if (wide < std::int64_t(least) || wide > std::int64_t(most))
      return fail({Errc::bad_file, "a number of a snapshot is outside its range",
                   wide < std::int64_t(least) ? (long long)least : (long long)most, (long long)wide});
    x = T(wide);
  }
  template <std::floating_point T>
  void number(T& x, std::type_identity_t<T> least, std::type_identity_t<T> most) {
    T got{};
    block(&got, 1);
    if (!good()) return;
    if (!(got >= least && got <= most))
      return fail({Errc::bad_file, "a number of a snapshot is outside its range, or is none"});
    x = got;
  }
  template <class T>
  requires std::is_trivially_copyable_v<T>
  void block(T* at, std::size_t n) {
    if (n > 0 && good() && !get_(from_, at, n * sizeof(T)))
      fail({Errc::bad_file, "a snapshot ends before all its fields"});
  }
  template <class T>
  void list(std::vector<T>& x, std::size_t most) {
    memory_of(x);
    std::uint64_t n = 0;
    number(n, 0, std::min<std::uint64_t>(most, x.capacity()));
    if (!good()) return;
    x.resize(std::size_t(n));
    block(x.data(), x.size());
  }
  template <class T>
  void memory_of(std::vector<T>& x) {
    std::uint64_t n = 0;
    number(n, 0, std::numeric_limits<std::int64_t>::max());
    if (!allow(n, sizeof(T))) return;
    x = {};
    x.reserve(std::size_t(n));
  }

 private:
  void differs(std::int64_t want, std::int64_t got) {
    fail({Errc::bad_shape,
          "a snapshot was written by an object of another kind, shape or option than the one it is read into",
          want, got});
  }

  Get get_;
  void* from_;
  std::uint64_t left_;  // bytes that may still be allocated
  Status status_ = Done{};
};

/// Walks over the fields of an object that says what they are; a fault where it does not.
template <class V, class T>
void visit_fields(V& v, T& x) {
  if constexpr (requires { std::remove_const_t<T>::fields(v, x); }) std::remove_const_t<T>::fields(v, x);
  else v.fail({Errc::unsupported, "a part of the cache does not say what it holds (it has no `fields`)"});
}

}  // namespace kvist::inline KVIST_ABI
