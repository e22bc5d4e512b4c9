#pragma once
// SPDX-License-Identifier: Apache-2.0
// The kernels of softmax.hpp for every instruction set: dispatch.hpp says who includes this.
#include <kvist/kernels/softmax.hpp>

#define KVIST_STAMP_BODY <kvist/kernels/detail/softmax.ipp>
#define KVIST_STAMP_FLOAT
#include <kvist/kernels/detail/stamp.hpp>

namespace kvist::inline KVIST_ABI {
namespace kernels {

KVIST_KERNELS_INLINE const detail::SoftmaxTable& softmax_table() {
  return KVIST_PICK_FLOAT(current_isa(), softmax_table);
}

}  // namespace kernels
}  // namespace kvist::inline KVIST_ABI
