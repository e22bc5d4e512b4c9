// SPDX-License-Identifier: Apache-2.0
// Stamps the kernel bodies in KVIST_STAMP_BODY once per instruction set, each inside a namespace of its own and a target
// region, so that the including file needs no compiler flag. Included once per kernel family: no include guard.
//   #define KVIST_STAMP_BODY <kvist/kernels/detail/rows.ipp>
//   #define KVIST_STAMP_FLOAT        (optional: no avx512vnni copy, pick with KVIST_PICK_FLOAT)
//   #include <kvist/kernels/detail/stamp.hpp>
// A body may use what vec_<isa>.ipp and math.ipp offer (they come first, once per file) and must include nothing but
// other bodies.
#include <kvist/kernels/detail/stamp_base.hpp>

// In each region the vector layer comes first and the bodies that use it after: the order is not the formatter's.
// clang-format off

namespace kvist::inline KVIST_ABI {
namespace kernels::detail::base {
#if !defined(KVIST_DETAIL_VEC_BASE)
#define KVIST_DETAIL_VEC_BASE
using kvist::from_f32, kvist::to_f32;  // those of one number: kernels has namesakes for rows
#include <kvist/kernels/detail/vec_base.ipp>
#include <kvist/kernels/detail/math.ipp>
#endif
#include KVIST_STAMP_BODY
}  // namespace kernels::detail::base
}  // namespace kvist::inline KVIST_ABI

#if defined(__x86_64__)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif
namespace kvist::inline KVIST_ABI {
namespace kernels::detail::avx2 {
#if !defined(KVIST_DETAIL_VEC_AVX2)
#define KVIST_DETAIL_VEC_AVX2
#include <kvist/kernels/detail/vec_avx2.ipp>
#include <kvist/kernels/detail/math.ipp>
#endif
#include KVIST_STAMP_BODY
}  // namespace kernels::detail::avx2
}  // namespace kvist::inline KVIST_ABI
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq")
#endif
namespace kvist::inline KVIST_ABI {
namespace kernels::detail::avx512 {
#if !defined(KVIST_DETAIL_VEC_AVX512)
#define KVIST_DETAIL_VEC_AVX512
#include <kvist/kernels/detail/vec_avx512.ipp>
#include <kvist/kernels/detail/math.ipp>
#endif
#include KVIST_STAMP_BODY
}  // namespace kernels::detail::avx512
}  // namespace kvist::inline KVIST_ABI
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#if !defined(KVIST_STAMP_FLOAT)
#if defined(__clang__)
#pragma clang attribute push(                                                                \
    __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni"))), \
    apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")
#endif
namespace kvist::inline KVIST_ABI {
namespace kernels::detail::avx512vnni {
#define KVIST_DETAIL_VNNI
#if !defined(KVIST_DETAIL_VEC_AVX512VNNI)
#define KVIST_DETAIL_VEC_AVX512VNNI
#include <kvist/kernels/detail/vec_avx512.ipp>
#include <kvist/kernels/detail/math.ipp>
#endif
#include KVIST_STAMP_BODY
#undef KVIST_DETAIL_VNNI
}  // namespace kernels::detail::avx512vnni
}  // namespace kvist::inline KVIST_ABI
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif  // !KVIST_STAMP_FLOAT

#elif defined(__aarch64__)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("dotprod"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("arch=armv8.2-a+dotprod")
#endif
namespace kvist::inline KVIST_ABI {
namespace kernels::detail::neon {
#if !defined(KVIST_DETAIL_VEC_NEON)
#define KVIST_DETAIL_VEC_NEON
#include <kvist/kernels/detail/vec_neon.ipp>
#include <kvist/kernels/detail/math.ipp>
#endif
#include KVIST_STAMP_BODY
}  // namespace kernels::detail::neon
}  // namespace kvist::inline KVIST_ABI
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif

#undef KVIST_STAMP_BODY
#if defined(KVIST_STAMP_FLOAT)
#undef KVIST_STAMP_FLOAT
#endif
