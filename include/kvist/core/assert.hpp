#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/version.hpp>

/// KVIST_ASSERT(condition): a precondition of a hot path, checked where KVIST_CHECKED is defined.
/// A failure prints the condition with its place and aborts: it is a bug of the caller, never bad data.
#if defined(KVIST_CHECKED)
#include <cstdio>
#include <cstdlib>
#define KVIST_ASSERT(condition)                                                                            \
  ((condition)                                                                                             \
       ? void(0)                                                                                           \
       : (std::fprintf(stderr, "%s:%d: kvist: precondition failed: %s\n", __FILE__, __LINE__, #condition), \
          std::abort()))
#else
#define KVIST_ASSERT(condition) void(0)
#endif
