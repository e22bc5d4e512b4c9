#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/methods/info.hpp>
#include <kvist/methods/method.hpp>
#include <kvist/methods/store_factory.hpp>
#include <kvist/storage/any_store.hpp>
#include <kvist/storage/store/dense.hpp>

#include <vector>

namespace kvist::inline KVIST_ABI {
namespace methods {

struct ExactOptions {};

/// Entries stored as they come, in the element type T.
template <Scalar T>
struct Exact {
  static constexpr const char* name = std::same_as<T, float> ? "f32" : std::same_as<T, f16> ? "f16" : "bf16";
  static constexpr MethodInfo info{name,      "Exact rows, no code", "", "DenseStore", "nothing",
                                   "a store", Fidelity::exact,       ""};
  using Options = ExactOptions;
  template <class V>
  static void fields(V&, Options&) {}
  static Result<StoreFactory> make(const Options&) {
    return StoreFactory([](const Shape& s, int, int) {
      std::vector<AnyStore> one;
      one.emplace_back(DenseStore<T>(s.dim_k, s.dim_v));
      return one;
    });
  }
};
using ExactF32 = Exact<float>;
using ExactF16 = Exact<f16>;
using ExactBf16 = Exact<bf16>;

}  // namespace methods
}  // namespace kvist::inline KVIST_ABI
