#pragma once
// SPDX-License-Identifier: Apache-2.0
// The kernels of hadamard.hpp for every instruction set: dispatch.hpp says who includes this.
#include <kvist/kernels/hadamard.hpp>

#define KVIST_STAMP_BODY <kvist/kernels/detail/hadamard.ipp>
#define KVIST_STAMP_FLOAT
#include <kvist/kernels/detail/stamp.hpp>

namespace kvist::inline KVIST_ABI {
namespace kernels {

KVIST_KERNELS_INLINE const detail::HadamardTable& hadamard_table() {
  return KVIST_PICK_FLOAT(current_isa(), hadamard_table);
}

}  // namespace kernels
}  // namespace kvist::inline KVIST_ABI
