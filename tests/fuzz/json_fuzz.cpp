// SPDX-License-Identifier: Apache-2.0
// Any bytes: read or refused; what was read is written and read back as the same value.
#include <kvist/io/json.hpp>

#include <cstdint>
#include <cstdlib>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto value = kvist::Json::parse(std::string_view(reinterpret_cast<const char*>(data), size));
  if (!value)
    return value.error().got < 0 || value.error().got > static_cast<long long>(size) ? (std::abort(), 0) : 0;
  const auto again = kvist::Json::parse(value->dump(int(size % 3)));
  if (!again || !(*again == *value)) std::abort();
  return 0;
}
