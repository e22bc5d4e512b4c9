#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/version.hpp>

#include <cstddef>
#include <cstring>
#include <new>
#include <type_traits>
#include <utility>

namespace kvist::inline KVIST_ABI {

/// A block of `size` trivial elements at a cache line's boundary, for stores: no growth policy, no hidden slack, moved
/// but never copied. Elements are not set to anything.
template <class T>
requires std::is_trivially_copyable_v<T>
class Buffer {
 public:
  static constexpr std::size_t alignment = 64;

  Buffer() = default;
  explicit Buffer(std::size_t size)
      : data_(size == 0 ? nullptr
                        : static_cast<T*>(::operator new (size * sizeof(T), std::align_val_t{alignment}))),
        size_(size) {}
  Buffer(Buffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~Buffer() {
    if (data_ != nullptr) ::operator delete (data_, std::align_val_t{alignment});
  }

  T* data() { return data_; }
  const T* data() const { return data_; }
  std::size_t size() const { return size_; }
  std::size_t bytes() const { return size_ * sizeof(T); }
  T& operator[](std::size_t i) { return data_[i]; }
  const T& operator[](std::size_t i) const { return data_[i]; }

  /// A new size; the first min(old, new) elements stay.
  void resize(std::size_t size) {
    if (size == size_) return;
    Buffer next(size);
    const std::size_t keep = size < size_ ? size : size_;
    if (keep > 0) std::memcpy(static_cast<void*>(next.data_), data_, keep * sizeof(T));
    *this = std::move(next);
  }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace kvist::inline KVIST_ABI
