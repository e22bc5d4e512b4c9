#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/result.hpp>
#include <kvist/core/types.hpp>
#include <kvist/storage/any_store.hpp>

#include <functional>
#include <vector>

namespace kvist::inline KVIST_ABI {
namespace methods {

/// Makes the stores of one head, one for each tier, tier 0 first. Fails with: bad_shape, where rows of the model's head
/// dimension cannot be stored so.
using StoreFactory = std::function<Result<std::vector<AnyStore>>(const Shape& shape, int layer, int head)>;

}  // namespace methods
}  // namespace kvist::inline KVIST_ABI
