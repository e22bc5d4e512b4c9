#pragma once
// SPDX-License-Identifier: Apache-2.0
// The kernels of packed.hpp for every instruction set: dispatch.hpp says who includes this.
#include <kvist/kernels/packed.hpp>

#define KVIST_STAMP_BODY <kvist/kernels/detail/packed.ipp>
#include <kvist/kernels/detail/stamp.hpp>

namespace kvist::inline KVIST_ABI {
namespace kernels {

KVIST_KERNELS_INLINE const detail::PackedTable& packed_table() {
  return KVIST_PICK(current_isa(), packed_table);
}

}  // namespace kernels
}  // namespace kvist::inline KVIST_ABI
