// SPDX-License-Identifier: Apache-2.0
// The README's table of methods is what the registry says. KVIST_UPDATE_README=1 writes it.
#include <kvist/methods/registry.hpp>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "support/assets.hpp"
#include "support/catch.hpp"

using namespace kvist;

namespace {

std::string table() {
  std::string out = "| name | what | source | makes | fidelity |\n| --- | --- | --- | --- | --- |\n";
  for (const methods::Entry& e : methods::registry())
    out += std::string("| `") + e.info.name + "` | " + e.info.title + " | " + e.info.source + " | " +
           e.info.makes + " | " + methods::name_of(e.info.fidelity) +
           (*e.info.note ? std::string(": ") + e.info.note : "") + " |\n";
  return out;
}

std::string read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

}  // namespace

TEST_CASE("The README's table of methods is what the registry says", "[methods][readme]") {
  const std::string path = (test::source_path() / "README.md").string();
  std::string text = read(path);
  const std::string open = "from the registry -->\n", close = "<!-- end of methods -->";
  const std::size_t begin = text.find(open) + open.size(), end = text.find(close);
  REQUIRE(text.find(open) != text.npos);
  REQUIRE(end != text.npos);
  if (std::getenv("KVIST_UPDATE_README")) {
    text.replace(begin, end - begin, table());
    std::ofstream(path, std::ios::binary) << text;
    return;
  }
  INFO("run this test once with KVIST_UPDATE_README=1");
  CHECK(text.substr(begin, end - begin) == table());
}
