#pragma once
// SPDX-License-Identifier: Apache-2.0
// What every stamped body needs, included outside the target regions.
#include <kvist/core/half.hpp>
#include <kvist/core/types.hpp>
#include <kvist/kernels/dispatch.hpp>
#include <kvist/view/rows.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#if defined(__x86_64__)
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push  // GCC 12's own header initialises "undefined" vectors with themselves
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#else
#include <immintrin.h>
#endif
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

/// Small helpers of a body must be inlined even where the optimiser would not: they pass vector registers.
#define KVIST_INLINE [[gnu::always_inline]] inline

// Loops over arrays of accumulators must be unrolled in full, or the arrays live in memory; -O2 does not do it by itself.
#if defined(__clang__)
#define KVIST_UNROLL _Pragma("clang loop unroll(full)")
#else
#define KVIST_UNROLL _Pragma("GCC unroll 16")
#endif
