// SPDX-License-Identifier: Apache-2.0
// The kernels, compiled once (KVIST_KERNELS_EXTERN).
#include <kvist/kernels/detail/encode_table.ipp>
#include <kvist/kernels/detail/hadamard_table.ipp>
#include <kvist/kernels/detail/packed_table.ipp>
#include <kvist/kernels/detail/pool_table.ipp>
#include <kvist/kernels/detail/rows_table.ipp>
#include <kvist/kernels/detail/select_table.ipp>
#include <kvist/kernels/detail/softmax_table.ipp>
