// SPDX-License-Identifier: Apache-2.0
// Includes everything, as other.cpp does; both link into one program.
#include <kvist/kvist.hpp>

#include <cstdio>
#include <string_view>

std::uint64_t first_number_elsewhere();
const char* abi_elsewhere();
const char* abi_with_other_flags();

#define KVIST_TEXT2(x) #x
#define KVIST_TEXT(x) KVIST_TEXT2(x)

int main() {
  if (first_number_elsewhere() != kvist::Random(42).next()) {
    std::fprintf(stderr, "two files disagree on the first random number\n");
    return 1;
  }
  if (std::string_view(abi_elsewhere()) != KVIST_TEXT(KVIST_ABI)) {
    std::fprintf(stderr, "same flags, but two inline namespaces: %s, %s\n", abi_elsewhere(),
                 KVIST_TEXT(KVIST_ABI));
    return 1;
  }
  if (std::string_view(abi_with_other_flags()) == KVIST_TEXT(KVIST_ABI)) {
    std::fprintf(stderr, "other flags, but the same inline namespace: %s\n", abi_with_other_flags());
    return 1;
  }
  return 0;
}
