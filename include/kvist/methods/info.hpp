#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/version.hpp>

#include <cstdint>

namespace kvist::inline KVIST_ABI {
namespace methods {

/// How closely a method follows its source.
enum class Fidelity : std::uint8_t {
  exact,       ///< the source's rule, as published or as its code does it
  adapted,     ///< the rule, with stated differences (grouped heads, exact totals, ascending rows)
  simplified,  ///< a part of the source is left out, as stated
};
constexpr const char* name_of(Fidelity f) {
  return f == Fidelity::exact ? "exact" : f == Fidelity::adapted ? "adapted" : "simplified";
}

/// What is said of a method in lists and tables; literal text.
struct MethodInfo {
  const char* name = "";    ///< as its paper spells it; what a SPEC uses
  const char* title = "";   ///< of the paper, or what it does
  const char* source = "";  ///< authors, year, arXiv id
  const char* parts = "";   ///< its composition
  const char* needs = "";   ///< evidence
  const char* makes = "";   ///< drops, blends, moves, or a store
  Fidelity fidelity = Fidelity::exact;
  const char* note = "";  ///< deviations, one sentence; empty if exact
};

}  // namespace methods
}  // namespace kvist::inline KVIST_ABI
