#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/methods/info.hpp>
#include <kvist/methods/method.hpp>
#include <kvist/methods/options.hpp>
#include <kvist/methods/store_factory.hpp>

#include <functional>
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
  /// Storage shared by layers, over the stores that the SPEC names besides (none: the default); `exact` says that those are f32.
  std::function<StoreFactory(StoreFactory inner, bool exact)> share = {};
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
namespace detail {
#if defined(KVIST_REGISTRY_EXTERN)
std::vector<Entry>& entries();
#else
inline std::vector<Entry>& entries();
#endif
}  // namespace detail

/// The entry of that name, or null.
inline const Entry* find(std::string_view name) {
  for (const Entry& e : registry())
    if (name == e.info.name) return &e;
  return nullptr;
}

namespace detail {

template <class M>
constexpr bool evicts() {
  if constexpr (requires { M::evicts; }) return M::evicts;
  else return true;
}

template <class M>
Result<Made> make_policy(const std::vector<OptionText>& given, std::string& fault) {
  typename M::Options options;
  CommonOptions common;
  ReadOptions read(given);
  M::fields(read, options);
  if constexpr (evicts<M>()) CommonOptions::fields(read, common);
  fault = read.fault();
  if (!fault.empty()) return Error{Errc::bad_option, "a method's options could not be read"};
  StoreFactory tiers;  // of methods that bring their own
  if constexpr (requires { M::make_stores(options); }) {
    auto made = M::make_stores(options);
    if (!made) return made.error();
    tiers = *std::move(made);
  }
  if constexpr (requires { M::make_any(options, common.settings()); }) {
    auto policy = M::make_any(options, common.settings());
    if (!policy) return policy.error();
    return Made{std::move(*policy), std::move(tiers)};
  } else {
    auto policy = M::make(options);
    if (!policy) return policy.error();
    return Made{with_settings(std::move(*policy), common.settings()), std::move(tiers)};
  }
}

template <class M>
Entry policy_entry() {
  typename M::Options options;
  ListOptions list;
  M::fields(list, options);
  if constexpr (evicts<M>()) {
    CommonOptions common;
    ListOptions more;
    CommonOptions::fields(more, common);
    for (OptionInfo& o : more.out) {
      bool known = false;
      for (const OptionInfo& mine : list.out) known = known || mine.name == o.name;
      if constexpr (requires { M::Type::can_merge(); })
        known = known || (o.name == "merge" && !M::Type::can_merge());  // any value but none is an Error
      if (!known) list.out.push_back(std::move(o));
    }
  }
  return {M::info, std::move(list.out), evicts<M>(), false, &make_policy<M>};
}

}  // namespace detail

/// Puts a method of the program's own in the registry, before those stores that follow the methods: SPECs can name it from
/// then on, and tools list and measure it as any other (examples/05_your_own_signal.cpp). `M` looks like those of methods/:
/// `info`, `Options`, `fields`, and `make` or `make_any`. To be called before other threads read the registry; entries that
/// find() gave out move. Fails with: bad_option where the name is taken.
template <class M>
Status add_method() {
  if (find(M::info.name) || std::string_view(M::info.name) == "oracle")
    return Error{Errc::bad_option, "a method or store of this name is in the registry already"};
  std::vector<Entry>& all = detail::entries();
  auto stores = all.begin();
  while (stores != all.end() && !stores->store) ++stores;
  all.insert(stores, detail::policy_entry<M>());
  return Done{};
}

}  // namespace methods
}  // namespace kvist::inline KVIST_ABI

#if !defined(KVIST_REGISTRY_EXTERN)
#include <kvist/methods/detail/registry.ipp>
#endif
