#pragma once
// SPDX-License-Identifier: Apache-2.0
// Every allocation of the program through operator new, counted and measured while `logging` is set. Include it in one
// file of an executable only. Its own memory is a fixed table.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

namespace kvist::test {

struct AllocatorLog {
  static inline bool logging = false;
  static inline long long taken = 0;  ///< allocations
  static inline long long held = 0;   ///< bytes asked for, less those given back

  static void* note(void* p, std::size_t n) {
    if (!logging || p == nullptr) return p;
    ++taken;
    for (std::size_t i = slot(p);; i = (i + 1) % size) {
      if (at[i].p != nullptr && at[i].p != gone()) continue;
      at[i] = {p, n};
      break;
    }
    held += (long long)n;
    return p;
  }
  /// What was taken before the log began is not in it.
  static void forget(void* p) {
    if (p == nullptr) return;
    for (std::size_t i = slot(p), tries = 0; at[i].p != nullptr && tries < size; i = (i + 1) % size, ++tries)
      if (at[i].p == p) {
        held -= (long long)at[i].n;
        at[i].p = gone();
        return;
      }
  }

 private:
  struct Place {
    void* p;
    std::size_t n;
  };
  static constexpr std::size_t size = 1 << 16;
  static inline Place at[size] = {};
  static void* gone() { return at; }
  static std::size_t slot(const void* p) {
    return std::size_t((std::uintptr_t(p) >> 4) * 0x9e3779b1u) % size;
  }
};

}  // namespace kvist::test

[[gnu::noinline]] void* operator new(std::size_t n, const std::nothrow_t&) noexcept {
  return kvist::test::AllocatorLog::note(std::malloc(n != 0 ? n : 1), n);
}
[[gnu::noinline]] void* operator new(std::size_t n) {
  if (void* p = operator new(n, std::nothrow)) return p;
  std::abort();
}
[[gnu::noinline]] void* operator new(std::size_t n, std::align_val_t a, const std::nothrow_t&) noexcept {
  const std::size_t to = std::size_t(a);
  return kvist::test::AllocatorLog::note(std::aligned_alloc(to, (n + to - 1) / to * to), n);
}
[[gnu::noinline]] void* operator new(std::size_t n, std::align_val_t a) {
  if (void* p = operator new(n, a, std::nothrow)) return p;
  std::abort();
}
[[gnu::noinline]] void operator delete(void* p) noexcept {
  kvist::test::AllocatorLog::forget(p), std::free(p);
}
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept { operator delete(p); }
[[gnu::noinline]] void operator delete(void* p, const std::nothrow_t&) noexcept { operator delete(p); }
[[gnu::noinline]] void operator delete(void* p, std::align_val_t) noexcept { operator delete(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t, std::align_val_t) noexcept {
  operator delete(p);
}
[[gnu::noinline]] void operator delete(void* p, std::align_val_t, const std::nothrow_t&) noexcept {
  operator delete(p);
}
