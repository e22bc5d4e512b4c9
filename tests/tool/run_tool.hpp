#pragma once
// SPDX-License-Identifier: Apache-2.0
// Runs kvist-eval as a user does, and reads what it wrote.
#include <kvist/io/file.hpp>
#include <kvist/io/json.hpp>

#include <support/catch.hpp>

#include <sys/wait.h>
#include <unistd.h>
#include <cstdlib>
#include <filesystem>
#include <string>

namespace kvist::test {

struct ToolRun {
  int status = -1;
  std::string out, err;
};

/// A folder of the running test alone, emptied first and removed at the end.
class Folder {
 public:
  Folder() : path_(std::filesystem::temp_directory_path() / ("kvist-tool-test-" + std::to_string(getpid()))) {
    std::filesystem::remove_all(path_);
    std::filesystem::create_directories(path_);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  std::string text(const std::string& name) const { return read_file(*this / name).value_or(std::string()); }
  void write(const std::string& name, std::string_view text) const {
    REQUIRE(write_file(*this / name, text));
  }
  Json json(const std::string& name) const {
    auto j = Json::parse(text(name));
    REQUIRE(j);
    return *std::move(j);
  }

 private:
  std::filesystem::path path_;
};

/// `kvist-eval ARGUMENTS`, run in the folder.
inline ToolRun tool(const Folder& folder, const std::string& arguments) {
  const std::string command =
      "cd '" + (folder / "") + "' && '" KVIST_EVAL_PATH "' " + arguments + " >out 2>err </dev/null";
  const int status = std::system(command.c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, folder.text("out"), folder.text("err")};
}

}  // namespace kvist::test
