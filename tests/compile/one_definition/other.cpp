// SPDX-License-Identifier: Apache-2.0
#include <kvist/kvist.hpp>

#define KVIST_TEXT2(x) #x
#define KVIST_TEXT(x) KVIST_TEXT2(x)

std::uint64_t first_number_elsewhere();
std::uint64_t first_number_elsewhere() { return kvist::Random(42).next(); }

const char* abi_elsewhere();
const char* abi_elsewhere() { return KVIST_TEXT(KVIST_ABI); }
