// SPDX-License-Identifier: Apache-2.0
// Built with other flags than the rest of the program (see ../CMakeLists.txt).
#include <kvist/kvist.hpp>

#define KVIST_TEXT2(x) #x
#define KVIST_TEXT(x) KVIST_TEXT2(x)

const char* abi_with_other_flags();
const char* abi_with_other_flags() { return KVIST_TEXT(KVIST_ABI); }
