// SPDX-License-Identifier: Apache-2.0
// Any bytes: read or refused; what is read has as many elements as its shape says.
#include <kvist/io/npy.hpp>

#include <cstdint>
#include <cstdlib>
#include <string>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto npy = kvist::Npy::parse(std::string(reinterpret_cast<const char*>(data), size));
  if (!npy) return 0;
  std::size_t elements = 1;
  for (const std::size_t dim : npy->shape()) elements *= dim;
  if (npy->as_f32().size() != elements || npy->as_f64().size() != elements) std::abort();
  const auto integers = npy->as_i32();
  if (integers && integers->size() != elements) std::abort();
  const auto again = kvist::npy_bytes<float>(npy->shape(), npy->as_f32());
  if (!again || !kvist::Npy::parse(*again).has_value()) std::abort();
  return 0;
}
