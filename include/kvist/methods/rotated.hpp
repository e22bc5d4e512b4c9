#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/methods/info.hpp>
#include <kvist/methods/store_factory.hpp>
#include <kvist/storage/any_store.hpp>
#include <kvist/storage/store/rotated.hpp>

#include <utility>
#include <vector>

namespace kvist::inline KVIST_ABI {
namespace methods {

struct RotatedOptions {};

/// `rotated(STORE)`: keys and values are turned by a Hadamard matrix before STORE keeps them.
struct RotatedInner {
  static constexpr MethodInfo info{
      "rotated",
      "rotated(STORE): rows are turned by a Hadamard matrix before STORE keeps them",
      "Ashkboos et al. 2024, arXiv 2404.00456",
      "RotatedStore",
      "nothing",
      "a store",
      Fidelity::exact,
      ""};
  using Options = RotatedOptions;
  template <class V>
  static void fields(V&, Options&) {}
  static Result<StoreFactory> make(const Options&) {
    return Error{Errc::bad_option,
                 "rotated names the store that it turns rows for: rotated(int_token:bits=4,group=32)"};
  }
  /// The factory whose stores stand behind the matrix.
  static StoreFactory wrap(StoreFactory inner) {
    return [inner = std::move(inner)](const Shape& s, int layer, int head) -> Result<std::vector<AnyStore>> {
      for (const int d : {s.dim_k, s.dim_v})
        if (Status ok = RotatedStore<AnyStore>::validate(d); !ok) return ok.error();
      auto stores = inner(s, layer, head);
      if (!stores) return stores.error();
      std::vector<AnyStore> out;
      for (AnyStore& store : *stores)
        out.push_back(AnyStore(RotatedStore<AnyStore>(std::move(store), s.dim_k, s.dim_v)));
      return out;
    };
  }
};

}  // namespace methods
}  // namespace kvist::inline KVIST_ABI
