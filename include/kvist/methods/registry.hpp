#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/methods/info.hpp>
#include <kvist/methods/method.hpp>
#include <kvist/methods/options.hpp>
#include <kvist/methods/store_factory.hpp>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace kvist::inline KVIST_ABI {
namespace methods {

/// What a name and its options become: a policy, stores, or both (a method that demotes brings its tiers).
struct Made {
  std::optional<AnyPolicy> policy;
  StoreFactory stores;
};

/// A method or store that can be named in a SPEC.
struct Entry {
  MethodInfo info;
  std::vector<OptionInfo> options;
  bool evicts = false;  ///< takes a budget and the common options
  bool store = false;   ///< says how entries are stored
  /// `fault` gets the sentence that names an unreadable or unknown option. Fails with: bad_option.
  Result<Made> (*make)(const std::vector<OptionText>& given, std::string& fault) = nullptr;
};

/// Every method and store by name, methods first, in the order of lists and tables. `oracle` is made by the tool alone.
///
/// The list instantiates every method, which takes a compiler half a minute. Programs of several files define
/// KVIST_REGISTRY_EXTERN for all of them, and one file more includes methods/detail/registry.ipp after this header.
#if defined(KVIST_REGISTRY_EXTERN)
const std::vector<Entry>& registry();
#else
inline const std::vector<Entry>& registry();
#endif

/// The entry of that name, or null.
inline const Entry* find(std::string_view name) {
  for (const Entry& e : registry())
    if (name == e.info.name) return &e;
  return nullptr;
}

}  // namespace methods
}  // namespace kvist::inline KVIST_ABI

#if !defined(KVIST_REGISTRY_EXTERN)
#include <kvist/methods/detail/registry.ipp>
#endif
