#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/types.hpp>

namespace kvist::inline KVIST_ABI {

/// Runs f(0) .. f(n-1), in any order, possibly at once, and returns when all are done. The caller brings it: the
/// library starts no threads of its own. `f` must not throw.
template <class E>
concept Executor = requires(E& e, Index n) {
  e.for_each(n, [](Index) {});
};

/// One after another on the calling thread.
struct Serial {
  template <class F>
  void for_each(Index n, F&& f) const {
    for (Index i = 0; i < n; ++i) f(i);
  }
};
static_assert(Executor<Serial>);

}  // namespace kvist::inline KVIST_ABI
