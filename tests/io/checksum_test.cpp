// SPDX-License-Identifier: Apache-2.0
#include <kvist/io/checksum.hpp>

#include <string>

#include "support/catch.hpp"

using namespace kvist;

namespace {

std::uint64_t sum_of(const std::string& bytes, std::size_t piece) {
  Checksum sum;
  for (std::size_t at = 0; at < bytes.size(); at += piece)
    sum.add(bytes.data() + at, std::min(piece, bytes.size() - at));
  return sum.value();
}

}  // namespace

TEST_CASE("A checksum does not depend on the pieces that bytes come in", "[io][Checksum]") {
  std::string bytes;
  for (int i = 0; i < 300; ++i) bytes += char(i * 37);
  for (const std::size_t piece : {1, 3, 7, 8, 9, 64, 299}) CHECK(sum_of(bytes, piece) == sum_of(bytes, 300));
}

TEST_CASE("A checksum tells every changed byte, a missing one and an added zero", "[io][Checksum]") {
  std::string bytes(41, 'x');
  const std::uint64_t whole = sum_of(bytes, 41);
  for (char& c : bytes) {
    c = 'y';
    CHECK(sum_of(bytes, 41) != whole);
    c = 'x';
  }
  CHECK(sum_of(bytes.substr(0, 40), 41) != whole);
  CHECK(sum_of(bytes + '\0', 42) != whole);
  CHECK(sum_of("", 1) != sum_of(std::string(1, '\0'), 1));
}
