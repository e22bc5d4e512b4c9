// SPDX-License-Identifier: Apache-2.0
// expect: constraint
#include <kvist/view/rows.hpp>

#if defined(KVIST_MISTAKE)
using Element = double;  // views hold f32, f16 or bf16
#else
using Element = float;
#endif
kvist::Rows<Element> rows;
