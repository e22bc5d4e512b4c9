#pragma once
// SPDX-License-Identifier: Apache-2.0
// What the laws are asked of, and how their answers are collected. Every method of the registry is a subject by its
// registry line alone; a law is a function of a subject and a setup, so that wrong policies can be shown to break it.
#include <functional>
#include <string>
#include <vector>

#include "conformance/engine.hpp"
#include "support/catch.hpp"

namespace kvist::test {

/// Does a law hold? `why` says what was seen where it does not.
struct Verdict {
  bool ok = true;
  std::string why;
  static Verdict no(std::string why) { return {false, std::move(why)}; }
};
inline Verdict error(const char* when, const Error& e) {
  return Verdict::no(std::string(when) + ": " + e.what + " (want " + std::to_string(e.want) + ", got " +
                     std::to_string(e.got) + ")");
}

/// A policy on trial: as its SPEC gives it, and once more with 3 first and 5 newest entries guarded.
struct Subject {
  std::string name;  ///< the SPEC
  AnyPolicy policy, guarded;
  bool evicts = true;
};
inline constexpr Guards trial_guards{3, 5};

/// Every policy of the registry, and variants by their options.
const std::vector<Subject>& subjects();

/// Why a law does not ask this method (or this SPEC alone) for that property; null where it does.
const char* exempt(const std::string& spec, const std::string& property);

/// A layer's heads can differ in length where the policy ranks each head alone; what ranks a layer as one refuses them.
inline bool refuses_ragged(const Subject& s, const Setup& setup) {
  return setup.ragged && exempt(s.name, "ragged") != nullptr;
}

using Law = std::function<Verdict(const Subject&, const Setup&)>;

/// The law holds for every subject on every setup.
inline void hold(const Law& law) {
  for (const Subject& s : subjects()) {
    if (!s.evicts) continue;
    for (const Setup& setup : setups()) {
      if (refuses_ragged(s, setup)) continue;
      const Verdict v = law(s, setup);
      INFO(s.name << " on " << setup.name << ": " << v.why);
      CHECK(v.ok);
    }
  }
}

/// The law reports this policy, which breaks it, on some setup; and holds for a right one that is like it otherwise.
inline void bites(const Law& law, AnyPolicy wrong, AnyPolicy right) {
  const Subject guilty{"wrong", wrong, wrong, true}, innocent{"right", right, right, true};
  int caught = 0;
  for (const Setup& setup : setups()) {
    caught += law(guilty, setup).ok ? 0 : 1;
    const Verdict v = law(innocent, setup);
    INFO("a policy that is right, on " << setup.name << ": " << v.why);
    CHECK(v.ok);
  }
  CHECK(caught > 0);
}

}  // namespace kvist::test
