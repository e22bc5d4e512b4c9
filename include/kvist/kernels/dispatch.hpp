#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/version.hpp>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <initializer_list>
#include <span>
#include <string_view>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

// Every file that uses a kernel compiles it for each level, which takes ten seconds and more. Programs of several files
// may define KVIST_KERNELS_EXTERN for all of them: then one file more includes kernels/detail/*_table.ipp.
#if defined(KVIST_KERNELS_EXTERN)
#define KVIST_KERNELS_INLINE
#else
#define KVIST_KERNELS_INLINE inline
#endif

namespace kvist::inline KVIST_ABI {
namespace kernels {

/// Levels of instruction set that the kernels exist for, from the poorest to the richest of each machine.
enum class Isa : std::uint8_t {
  base,        ///< plain C++ at the compiler's own baseline; what every other level is tested against
  avx2,        ///< AVX2 + FMA + F16C
  avx512,      ///< AVX-512 F, BW, VL, DQ
  avx512vnni,  ///< the same with VNNI (byte dot products)
  neon,        ///< AArch64 Advanced SIMD with the dot product instructions
};
inline constexpr int isa_count = 5;

/// "base", "avx2", "avx512", "avx512vnni" or "neon": the values of KVIST_ISA.
constexpr const char* isa_name(Isa isa) {
  constexpr const char* names[isa_count] = {"base", "avx2", "avx512", "avx512vnni", "neon"};
  return names[int(isa)];
}

/// Can this machine run the level? Asked of the CPU (and of the system that must save its registers).
inline bool isa_available(Isa isa) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  unsigned a = 0, b = 0, c = 0, d = 0;  // clang 14 knows no "f16c" to ask for: bit 29 of leaf 1
  const bool f16c = __get_cpuid(1, &a, &b, &c, &d) != 0 && ((c >> 29) & 1u) != 0;
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && f16c;
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  switch (isa) {
    case Isa::base:
      return true;
    case Isa::avx2:
      return avx2;
    case Isa::avx512:
      return avx512;
    case Isa::avx512vnni:
      return avx512 && __builtin_cpu_supports("avx512vnni");
    case Isa::neon:
      return false;
  }
  return false;
#elif defined(__aarch64__) && defined(__linux__)
  constexpr unsigned long dot_product_bit = 1ul << 20;  // HWCAP_ASIMDDP
  return isa == Isa::base || (isa == Isa::neon && (getauxval(AT_HWCAP) & dot_product_bit) != 0);
#elif defined(__aarch64__) && defined(__ARM_FEATURE_DOTPROD)
  return isa == Isa::base || isa == Isa::neon;
#else
  return isa == Isa::base;
#endif
}

/// The levels that this machine can run, poorest first; base is always one of them.
inline std::span<const Isa> available_isas() {
  struct List {
    Isa isa[isa_count];
    std::size_t n = 0;
    List() {
      for (const Isa i : {Isa::base, Isa::avx2, Isa::avx512, Isa::avx512vnni, Isa::neon})
        if (isa_available(i)) isa[n++] = i;
    }
  };
  static const List list;
  return {list.isa, list.n};
}

namespace detail {

struct IsaRequest {
  Isa isa = Isa::base;
  bool failed = false;
  IsaRequest() {
    const std::span<const Isa> levels = available_isas();
    isa = levels.back();
    const char* const wanted = std::getenv("KVIST_ISA");
    if (wanted == nullptr || *wanted == 0) return;
    failed = true;
    for (const Isa i : levels) {
      if (std::string_view(wanted) != isa_name(i)) continue;
      isa = i;
      failed = false;
    }
  }
};

inline const IsaRequest& isa_request() {
  static const IsaRequest request;
  return request;
}

inline std::atomic<int> forced_isa{-1};

}  // namespace detail

/// The level that kernels run at: what force_isa set, else the environment variable KVIST_ISA, else the best here.
inline Isa current_isa() {
  const int forced = detail::forced_isa.load(std::memory_order_relaxed);
  return forced >= 0 ? Isa(forced) : detail::isa_request().isa;
}

/// Whether KVIST_ISA names a level that does not exist or that this machine cannot run; the best one runs then.
inline bool isa_request_failed() { return detail::isa_request().failed; }

/// Makes kernels run at one level from now on, in all threads: for tests and benchmarks. False, and nothing changed,
/// where the machine cannot run it.
inline bool force_isa(Isa isa) {
  if (!isa_available(isa)) return false;
  detail::forced_isa.store(int(isa), std::memory_order_relaxed);
  return true;
}

/// Takes force_isa back.
inline void unforce_isa() { detail::forced_isa.store(-1, std::memory_order_relaxed); }

}  // namespace kernels
}  // namespace kvist::inline KVIST_ABI

// Tables of function pointers are constants of one namespace per level; these pick one by name. Families whose bodies
// gain nothing from VNNI are stamped at avx512 only and picked with KVIST_PICK_FLOAT.
#if defined(__x86_64__)
#define KVIST_PICK(isa, ...)                                                                         \
  (*((isa) == ::kvist::kernels::Isa::avx512vnni ? &::kvist::kernels::detail::avx512vnni::__VA_ARGS__ \
     : (isa) == ::kvist::kernels::Isa::avx512   ? &::kvist::kernels::detail::avx512::__VA_ARGS__     \
     : (isa) == ::kvist::kernels::Isa::avx2     ? &::kvist::kernels::detail::avx2::__VA_ARGS__       \
                                                : &::kvist::kernels::detail::base::__VA_ARGS__))
#define KVIST_PICK_FLOAT(isa, ...)                                                           \
  (*((isa) >= ::kvist::kernels::Isa::avx512 ? &::kvist::kernels::detail::avx512::__VA_ARGS__ \
     : (isa) == ::kvist::kernels::Isa::avx2 ? &::kvist::kernels::detail::avx2::__VA_ARGS__   \
                                            : &::kvist::kernels::detail::base::__VA_ARGS__))
#elif defined(__aarch64__)
#define KVIST_PICK(isa, ...)                                                             \
  (*((isa) == ::kvist::kernels::Isa::neon ? &::kvist::kernels::detail::neon::__VA_ARGS__ \
                                          : &::kvist::kernels::detail::base::__VA_ARGS__))
#define KVIST_PICK_FLOAT KVIST_PICK
#else
#define KVIST_PICK(isa, ...) (::kvist::kernels::detail::base::__VA_ARGS__)
#define KVIST_PICK_FLOAT KVIST_PICK
#endif
