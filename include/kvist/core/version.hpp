#pragma once
// SPDX-License-Identifier: Apache-2.0
// The version, and the name of the inline namespace that everything lives in.

#define KVIST_VERSION_MAJOR 0
#define KVIST_VERSION_MINOR 1
#define KVIST_VERSION_PATCH 0
#define KVIST_VERSION "0.1.0"

// Files of one program may be built with different flags (-mavx2 here, checked there). An inline function that
// the linker would fold into one must then have two names, or one file's code runs in the other: the inline
// namespace encodes what changes the code, the checked mode and the compile-time baseline.
#if defined(KVIST_CHECKED)
#define KVIST_DETAIL_CHECKED c
#else
#define KVIST_DETAIL_CHECKED u
#endif
#if defined(__AVX512F__) && defined(__AVX512BW__)
#define KVIST_DETAIL_BASELINE avx512
#elif defined(__AVX2__) && defined(__FMA__)
#define KVIST_DETAIL_BASELINE avx2
#elif defined(__ARM_FEATURE_DOTPROD)
#define KVIST_DETAIL_BASELINE neondot
#else
#define KVIST_DETAIL_BASELINE base
#endif
#define KVIST_DETAIL_JOIN2(a, b, c, d, e) a##b##c##d##e
#define KVIST_DETAIL_JOIN(a, b, c, d, e) KVIST_DETAIL_JOIN2(a, b, c, d, e)
#define KVIST_ABI KVIST_DETAIL_JOIN(v0_1_, KVIST_DETAIL_CHECKED, _, KVIST_DETAIL_BASELINE, _)

namespace kvist::inline KVIST_ABI {

/// The library's version, "major.minor.patch".
inline constexpr const char* version = KVIST_VERSION;

}  // namespace kvist::inline KVIST_ABI
