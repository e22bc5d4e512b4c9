#pragma once
// SPDX-License-Identifier: Apache-2.0
// The kernels of pool.hpp for every instruction set: dispatch.hpp says who includes this.
#include <kvist/kernels/pool.hpp>

#define KVIST_STAMP_BODY <kvist/kernels/detail/pool.ipp>
#define KVIST_STAMP_FLOAT
#include <kvist/kernels/detail/stamp.hpp>

namespace kvist::inline KVIST_ABI {
namespace kernels {

KVIST_KERNELS_INLINE const detail::PoolTable& pool_table() {
  return KVIST_PICK_FLOAT(current_isa(), pool_table);
}

}  // namespace kernels
}  // namespace kvist::inline KVIST_ABI
