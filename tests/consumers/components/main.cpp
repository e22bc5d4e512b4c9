// SPDX-License-Identifier: Apache-2.0
// The reference room (Eigen, threads) and io (fmt) of an installed kvist: a file that is no model is refused in words.
#include <kvist/io/format.hpp>
#include <kvist/reference/matmul.hpp>
#include <kvist/reference/model.hpp>

#include <cstdio>

int main() {
  const auto model = kvist::Model::load("/dev/null");
  if (model) return 1;
  std::printf("%s\n", fmt::format("{}", model.error()).c_str());
  return 0;
}
