#pragma once
// SPDX-License-Identifier: Apache-2.0
// The kernels of select.hpp for every instruction set: dispatch.hpp says who includes this.
#include <kvist/kernels/select.hpp>

#define KVIST_STAMP_BODY <kvist/kernels/detail/select.ipp>
#define KVIST_STAMP_FLOAT
#include <kvist/kernels/detail/stamp.hpp>

namespace kvist::inline KVIST_ABI {
namespace kernels {

KVIST_KERNELS_INLINE const detail::SelectTable& select_table() {
  return KVIST_PICK_FLOAT(current_isa(), select_table);
}

}  // namespace kernels
}  // namespace kvist::inline KVIST_ABI
