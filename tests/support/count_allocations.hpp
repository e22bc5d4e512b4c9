#pragma once
// SPDX-License-Identifier: Apache-2.0
// Counts every allocation of the program. Include it in one file of an executable only.
#include <atomic>
#include <cstdlib>
#include <new>

namespace kvist::test {
inline std::atomic<long long> allocations{0};
}

[[gnu::noinline]] void* operator new(std::size_t n, const std::nothrow_t&) noexcept {
  ++kvist::test::allocations;
  return std::malloc(n != 0 ? n : 1);
}
[[gnu::noinline]] void* operator new(std::size_t n) {
  if (void* p = operator new(n, std::nothrow)) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, const std::nothrow_t&) noexcept { std::free(p); }
