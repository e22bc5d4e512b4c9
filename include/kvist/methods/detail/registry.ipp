#pragma once
// SPDX-License-Identifier: Apache-2.0
// What methods/registry.hpp declares: see there for who includes this.
#include <kvist/methods/all.hpp>
#include <kvist/methods/coded_stores.hpp>
#include <kvist/methods/kivi.hpp>
#include <kvist/methods/mikv.hpp>
#include <kvist/methods/minicache.hpp>
#include <kvist/methods/registry.hpp>
#include <kvist/methods/stores.hpp>

#if defined(KVIST_REGISTRY_EXTERN)
#define KVIST_REGISTRY_INLINE
#else
#define KVIST_REGISTRY_INLINE inline
#endif

namespace kvist::inline KVIST_ABI {
namespace methods {
namespace detail {

template <class M>
Result<Made> make_store(const std::vector<OptionText>& given, std::string& fault) {
  typename M::Options options;
  ReadOptions read(given);
  M::fields(read, options);
  fault = read.fault();
  if (!fault.empty()) return Error{Errc::bad_option, "a store's options could not be read"};
  if constexpr (requires { M::wrap(options, StoreFactory{}, true); }) {  // what layers share, over another store
    if (Status s = M::validate(options); !s) return s.error();
    return Made{std::nullopt, {}, [options](StoreFactory inner, bool exact) {
                  return M::wrap(options, std::move(inner), exact);
                }};
  } else {
    auto factory = M::make(options);
    if (!factory) return factory.error();
    return Made{std::nullopt, std::move(*factory)};
  }
}

template <class M>
Entry store_entry() {
  typename M::Options options;
  ListOptions list;
  M::fields(list, options);
  return {M::info, std::move(list.out), false, true, &make_store<M>};
}

template <class... Ms>
void add_policies(std::vector<Entry>& out) {
  (out.push_back(policy_entry<Ms>()), ...);
}
template <class... Ms>
void add_stores(std::vector<Entry>& out) {
  (out.push_back(store_entry<Ms>()), ...);
}

}  // namespace detail

namespace detail {
KVIST_REGISTRY_INLINE std::vector<Entry>& entries() {
  static std::vector<Entry> all = [] {
    std::vector<Entry> out;
    add_policies<Full, RandomEviction, Window,                                     //
                 StreamingLLM, H2O, SnapKV, PyramidKV, AdaKV, TOVA, Scissorhands,  //
                 KeyNormEviction, KeyDiff, LazyEviction, CAKE, RKV, ChunkKV, Mikv, LagKV,
                 ExpectedAttentionEviction, KVMerger, D2O, CaM, ToMe, EMS>(out);
    add_stores<ExactF32, ExactF16, ExactBf16, Int8, IntTokenStore, IntChannelStore, Q8_0Store, Q4_0Store, Q4_1Store,
               Q5_0Store, Q5_1Store, Iq4NlStore, Fp8E4M3Store, Fp8E5M2Store, Kivi, RotatedInner, MiniCache>(out);
    return out;
  }();
  return all;
}
}  // namespace detail

KVIST_REGISTRY_INLINE const std::vector<Entry>& registry() { return detail::entries(); }

}  // namespace methods
}  // namespace kvist::inline KVIST_ABI

#undef KVIST_REGISTRY_INLINE
