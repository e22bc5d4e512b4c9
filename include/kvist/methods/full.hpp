#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/methods/info.hpp>
#include <kvist/methods/method.hpp>
#include <kvist/policy/policy.hpp>

namespace kvist::inline KVIST_ABI {
namespace methods {

/// For policies that never plan.
struct Never {
  static constexpr Role role = Role::schedule;
  bool due(const Clock&) const { return false; }
};

struct FullOptions {};

/// Keeps everything: what other policies are measured against.
struct Full {
  static constexpr MethodInfo info{"full",    "Everything stays", "", "no plan", "nothing",
                                   "nothing", Fidelity::exact,    ""};
  static constexpr bool evicts = false;
  using Options = FullOptions;
  using Type = Policy<Never>;
  template <class V>
  static void fields(V&, Options&) {}
  static Result<Type> make(const Options&) { return Type(); }
};

}  // namespace methods
}  // namespace kvist::inline KVIST_ABI
