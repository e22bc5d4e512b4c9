// SPDX-License-Identifier: Apache-2.0
// What `kvist-eval codec` says of rows whose codes are known: bytes and errors follow from each codec's own definition.
#include "run_tool.hpp"

#include <kvist/io/npy.hpp>

#include <support/assets.hpp>

#include <cctype>
#include <cmath>
#include <functional>
#include <vector>

using namespace kvist;
using namespace kvist::test;

namespace {

void save(const Folder& f, const std::string& name, std::vector<std::size_t> shape,
          const std::function<float(int)>& value) {
  std::size_t n = 1;
  for (const std::size_t s : shape) n *= s;
  std::vector<float> x;
  for (int i = 0; i < int(n); ++i) x.push_back(value(i));
  REQUIRE(save_npy(f / name, shape, std::span<const float>(x)));
}

Json coded(const Folder& f, const std::string& codec, const std::string& rows) {
  const ToolRun r =
      tool(f, "codec --codec '" + codec + "' --rows '" + rows + "' --decoded y.npy --json r.json");
  INFO(codec << ": " << r.err);
  REQUIRE(r.status == 0);
  return f.json("r.json");
}

}  // namespace

TEST_CASE("codec says bytes and errors of rows whose codes are known", "[tool][codec]") {
  const Folder f;
  // one row of 64, a value a quarter off a grid of whole numbers from 0 to 15, -8 to 7, ...; and others
  const auto grid = [](int least, int steps) {
    return [=](int i) { return float(least + i % steps) + (i == 5 ? 0.25f : 0.0f); };
  };
  save(f, "0_15.npy", {1, 64}, grid(0, 16));
  save(f, "0_31.npy", {1, 64}, grid(0, 32));
  save(f, "m8_7.npy", {1, 64}, grid(-8, 16));
  save(f, "m16_15.npy", {1, 64}, grid(-16, 32));
  save(f, "to_127.npy", {1, 64},
       [](int i) { return i % 32 == 31 ? 127.0f : 4.0f * float(i % 32) + (i == 5 ? 0.25f : 0); });
  save(f, "one.npy", {1, 64}, [](int i) { return i == 0 ? 8.0f : 0.0f; });
  save(f, "loud.npy", {1, 64}, [&](int i) { return i == 7 ? 1000.0f : grid(0, 16)(i); });
  save(f, "tokens.npy", {2, 20, 4}, [](int i) {
    const int t = i / 4 % 20;
    return float(t < 16 ? t : t % 2 * 15) + (i == 9 ? 0.25f : 0.0f);
  });
  struct Known {
    const char *codec, *rows;
    int bytes;
    double max_error, squares;  ///< sum of squared errors
  };
  const double off = 0.25, sq = 0.0625;
  for (const Known& x : {
           Known{"f32", "0_15.npy", 256, 0, 0},
           {"f16", "0_15.npy", 128, 0, 0},
           {"bf16", "0_15.npy", 128, 0, 0},
           {"fp8_e4m3", "0_15.npy", 64, off, sq},  // 5.25 is between 5 and 5.5, of which 5 is even
           {"fp8_e5m2", "0_15.npy", 64, 1, 16 + sq},  // 9, 11, 13 and 15, four times each, are between even numbers
           {"int_token:bits=4,group=32", "0_15.npy", 40, off, sq},
           {"int_token:bits=4,group=0", "0_15.npy", 36, off, sq},
           {"int_token:bits=5,group=64", "0_31.npy", 44, off, sq},
           {"q4_1", "0_15.npy", 40, off, sq},
           {"q5_1", "0_31.npy", 48, off, sq},
           {"q4_0", "m8_7.npy", 36, off, sq},
           {"q5_0", "m16_15.npy", 44, off, sq},
           {"q8_0", "to_127.npy", 68, off, sq},
           {"rotated(int_token:bits=2,group=64)", "one.npy", 20, 0, 0},  // turned, all are 1
           {"with_outliers(int_token:bits=4,group=64):count=1", "loud.npy", 40, off, sq},
           // two matrices of 20 rows: a group of 16 and one that is not full, which takes as much
           {"int_channel:bits=4,group=16", "tokens.npy", 2 * 2 * 4 * (8 + 4), off, sq},
       }) {
    const Json r = coded(f, x.codec, x.rows);
    INFO(x.codec);
    const auto in = Npy::load(f / x.rows), out = Npy::load(f / "y.npy");
    REQUIRE((in && out));
    CHECK(out->shape() == in->shape());
    const double n = double(in->size());
    CHECK(r["bytes"].as_int() == x.bytes);
    CHECK(r["bits_per_element"].as_double() == Approx(8 * x.bytes / n));
    CHECK(r["max_error"].as_double() == Approx(x.max_error).margin(1e-9));
    CHECK(r["rms_error"].as_double() == Approx(std::sqrt(x.squares / n)).margin(1e-9));
    // and the decoded rows are those that the errors are of
    const std::vector<float> a = in->as_f32(), b = out->as_f32();
    double squares = 0;
    for (std::size_t i = 0; i < a.size(); ++i) squares += double(a[i] - b[i]) * double(a[i] - b[i]);
    CHECK(squares == Approx(x.squares).margin(1e-9));
  }
  // defaults, by their bytes
  CHECK(coded(f, "int_token", "0_15.npy")["bytes"].as_int() == 64 + 4);
  CHECK(coded(f, "int_channel", "tokens.npy")["bytes"].as_int() == 2 * 4 * (16 + 4));
  CHECK(coded(f, "iq4_nl", "0_15.npy")["bytes"].as_int() == 36);
  // without --json the result is standard output
  const ToolRun r = tool(f, "codec --codec f16 --rows 0_15.npy");
  CHECK(r.out == "{\"bytes\":128,\"bits_per_element\":16.0,\"max_error\":0.0,\"rms_error\":0.0}\n");
}

TEST_CASE("codec tells a wrong SPEC, which is usage, from rows that cannot be read", "[tool][codec]") {
  const Folder f;
  save(f, "x.npy", {2, 64}, [](int i) { return float(i); });
  save(f, "nan.npy", {1, 64}, [](int i) { return i == 9 ? std::nanf("") : 0.0f; });
  save(f, "empty.npy", {0, 64}, [](int) { return 0.0f; });
  const auto fails = [&](const std::string& arguments, int status, const std::string& what) {
    INFO(arguments);
    const ToolRun r = tool(f, "codec " + arguments);
    INFO(r.err);
    CHECK(r.status == status);
    CHECK(r.err.find(what) != r.err.npos);
    CHECK(r.out.empty());
  };
  fails("--codec f16", 2, "--rows");
  fails("--rows x.npy", 2, "--codec");
  fails("--codec q9_0 --rows x.npy", 2, "unknown codec 'q9_0'; the names are f32 f16");
  fails("--codec int_token:bits --rows x.npy", 2, "is not option=value");
  fails("--codec int_token:bits=x --rows x.npy", 2, "bits");
  fails("--codec int_token:colour=3 --rows x.npy", 2, "colour");
  fails("--codec int_token:bits=9 --rows x.npy", 2, "1 to 8 bits");
  fails("--codec int_channel:group=0 --rows x.npy", 2, "1 to 1024");
  fails("--codec 'with_outliers(f16):count=64' --rows x.npy", 2, "fewer than d");
  fails("--codec 'rotated(q9_0)' --rows x.npy", 2, "unknown codec 'q9_0'");
  std::string deep = "f16";
  for (int i = 0; i < 10; ++i) deep = "rotated(" + deep + ")";
  fails("--codec '" + deep + "' --rows x.npy", 2, "eight deep");
  fails("--codec f16 --rows none.npy", 1, "none.npy");
  fails("--codec f16 --rows nan.npy", 1, "no number");
  fails("--codec f16 --rows empty.npy", 1, "holds no rows");
}

TEST_CASE("codec's errors on recorded rows are those of the published coders", "[tool][codec][golden]") {
  const auto root = golden_path();
  const auto manifest = [&](const char* name) {
    return Json::parse(read_file(*root + "/official/" + name + "/manifest.json").value_or(std::string()));
  };
  if (!root || !manifest("gguf_blocks") || !manifest("kivi"))
    KVIST_SKIP("reference values of gguf_blocks and kivi");
  const Folder f;
  const auto cut = [&](const std::string& input, std::size_t head, std::size_t heads, std::size_t first,
                       std::size_t count) {
    const auto all = Npy::load(*root + "/official/" + input);
    REQUIRE(all);
    const std::vector<float> x = all->as_f32();
    std::vector<float> some;
    for (std::size_t h = head; h < head + heads; ++h) {
      const auto from = x.begin() + std::ptrdiff_t((h * all->dim(1) + first) * 64);
      some.insert(some.end(), from, from + std::ptrdiff_t(count * 64));
    }
    REQUIRE(save_npy(f / "x.npy", {heads, count, 64}, std::span<const float>(some)));
  };
  int compared = 0;
  const Json blocks = *manifest("gguf_blocks"), kivi = *manifest("kivi");
  for (const Json& c : blocks["cases"].elements()) {
    const Json& p = c["parameters"];
    std::string codec(p["type"].as_string());
    for (char& x : codec) x = char(std::tolower(x));
    if (codec == "mxfp4") continue;  // not one of the codecs
    cut(std::string(c["inputs"][0].as_string()), 0, 3, std::size_t(p["first_token"].as_int()),
        std::size_t(p["tokens"].as_int()));
    INFO(std::string(c["case"].as_string()));
    CHECK(coded(f, codec, "x.npy")["rms_error"].as_double() == Approx(c["rmse"].as_double()).epsilon(1e-4));
    ++compared;
  }
  for (const Json& c : kivi["cases"].elements()) {
    const std::string name(c["case"].as_string());
    const auto rmse = Npy::load(*root + "/official/kivi/" + name + "_rmse.npy");
    if (!rmse) continue;
    const Json& p = c["parameters"];
    const std::string codec = (name[0] == 'k' ? "int_channel:bits=" : "int_token:bits=") +
                              std::to_string(p["bits"].as_int()) +
                              ",group=" + std::to_string(p["group_size"].as_int());
    for (std::size_t h = 0; h < 3; ++h) {
      cut(std::string(c["inputs"][0].as_string()), h, 1, std::size_t(p["first_token"].as_int()),
          std::size_t(p["tokens"].as_int()));
      INFO(name << " head " << h);
      // scales and minima are f16 here, f32 there
      CHECK(coded(f, codec, "x.npy")["rms_error"].as_double() == Approx(rmse->as_f32()[h]).epsilon(1e-3));
      ++compared;
    }
  }
  CHECK(compared >= 20);
}
