#pragma once
// SPDX-License-Identifier: Apache-2.0
// The kernels of rows.hpp for every instruction set: dispatch.hpp says who includes this.
#include <kvist/kernels/rows.hpp>

#define KVIST_STAMP_BODY <kvist/kernels/detail/rows.ipp>
#define KVIST_STAMP_FLOAT
#include <kvist/kernels/detail/stamp.hpp>

namespace kvist::inline KVIST_ABI {
namespace kernels {

template <Scalar T>
const detail::RowsTable<T>& rows_table() {
  return KVIST_PICK_FLOAT(current_isa(), rows_table<T>);
}
#if defined(KVIST_KERNELS_EXTERN)
template const detail::RowsTable<float>& rows_table<float>();
template const detail::RowsTable<f16>& rows_table<f16>();
template const detail::RowsTable<bf16>& rows_table<bf16>();
#endif

}  // namespace kernels
}  // namespace kvist::inline KVIST_ABI
