// SPDX-License-Identifier: Apache-2.0
// The kernels, compiled once (KVIST_KERNELS_EXTERN).
#include <kvist/kernels/detail/packed_table.ipp>
#include <kvist/kernels/detail/rows_table.ipp>
#include <kvist/kernels/detail/softmax_table.ipp>
