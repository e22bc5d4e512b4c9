// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/random.hpp>
#include <kvist/io/file.hpp>
#include <kvist/io/json.hpp>

#include <support/catch.hpp>

#include <bit>
#include <cmath>
#include <cstdio>
#include <limits>
#include <string>

using kvist::Json;

namespace {

long long fault_at(std::string_view text) {
  const auto r = Json::parse(text);
  REQUIRE_FALSE(r.has_value());
  CHECK(r.error().code == kvist::Errc::bad_file);
  return r.error().got;
}

}  // namespace

TEST_CASE("Json reads every kind of value", "[io][Json]") {
  const auto r = Json::parse(R"( {"a": [1, -2.5, 1e3, true, false, null], "b": {"c": "d"}, "": {}} )");
  REQUIRE(r.has_value());
  const Json& j = *r;
  CHECK(j.is_object());
  CHECK(j.size() == 3);
  CHECK(j["a"].size() == 6);
  CHECK(j["a"][0].is_integer());
  CHECK(j["a"][0].as_int() == 1);
  CHECK(j["a"][1].as_double() == -2.5);
  CHECK(j["a"][2].kind() == Json::Kind::number);
  CHECK(j["a"][2].as_int() == 1000);
  CHECK(j["a"][3].as_bool());
  CHECK_FALSE(j["a"][4].as_bool(true));
  CHECK(j["a"][5].is_null());
  CHECK(j["b"]["c"].as_string() == "d");
  CHECK(j[""].is_object());
  CHECK(j.members()[0].name == "a");
  CHECK(j.members()[2].name == "");
}

TEST_CASE("Json answers with the fallback for what is missing or of another kind", "[io][Json]") {
  const Json j = Json::object({{"a", 1}, {"b", "x"}});
  CHECK(j["none"][7]["deeper"].is_null());
  CHECK(j["none"].as_int(5) == 5);
  CHECK(j["b"].as_double(0.5) == 0.5);
  CHECK(j["a"].as_string("?") == "?");
  CHECK(j[0].is_null());
  CHECK(j["b"][-1].is_null());
  CHECK(Json(1.5).as_int(9) == 9);
  CHECK(Json(1e300).as_int(9) == 9);
  CHECK(j.find("none") == nullptr);
}

TEST_CASE("Json keeps 64-bit integers exactly and larger ones as doubles", "[io][Json]") {
  CHECK(Json::parse("9223372036854775807")->as_int() == std::numeric_limits<std::int64_t>::max());
  CHECK(Json::parse("-9223372036854775808")->as_int() == std::numeric_limits<std::int64_t>::min());
  CHECK(Json::parse("9223372036854775808")->kind() == Json::Kind::number);
  CHECK(Json::parse("9223372036854775808")->as_double() == 0x1p63);
  CHECK(Json(std::numeric_limits<std::uint64_t>::max()).as_double() == 0x1p64);
  const Json minus_zero = *Json::parse("-0");
  CHECK(minus_zero.kind() == Json::Kind::number);
  CHECK(std::signbit(minus_zero.as_double()));
}

TEST_CASE("Json reads escapes, surrogate pairs and plain UTF-8", "[io][Json]") {
  CHECK(Json::parse(R"("\"\\\/\b\f\n\r\t")")->as_string() == "\"\\/\b\f\n\r\t");
  CHECK(Json::parse(R"("\u0041\u00e9\u20AC\ud83d\ude00")")->as_string() ==
        "A\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
  CHECK(Json::parse("\"\xf0\x9f\x98\x80\xc3\xa9\"")->as_string() == "\xf0\x9f\x98\x80\xc3\xa9");
  CHECK(Json::parse(R"("a\u0000b")")->as_string() == std::string_view("a\0b", 3));
}

TEST_CASE("Json refuses what is not JSON and says where", "[io][Json]") {
  CHECK(fault_at("") == 0);
  CHECK(fault_at("  ") == 2);
  CHECK(fault_at("1 2") == 2);
  CHECK(fault_at("[1,]") == 3);
  CHECK(fault_at("[1 2]") == 3);
  CHECK(fault_at("{\"a\":1,}") == 7);
  CHECK(fault_at("{\"a\" 1}") == 5);
  CHECK(fault_at("{a:1}") == 1);
  CHECK(fault_at("{\"a\":1,\"b\":2,\"a\":3}") == 19);
  CHECK(fault_at("01") == 1);
  for (const char* text : {"+1",
                           "-",
                           ".5",
                           "1.",
                           "1e",
                           "1e+",
                           "1.e3",
                           "0x10",
                           "NaN",
                           "Infinity",
                           "-Infinity",
                           "tru",
                           "nul",
                           "True",
                           "1e999",
                           "-1e999",
                           "[",
                           "]",
                           "{",
                           "{\"a\"",
                           "{\"a\":",
                           "[1",
                           "'a'",
                           "/**/1",
                           "\"",
                           "\"\\",
                           "\"\\x\"",
                           "\"\\u12\"",
                           "\"\\u12g4\"",
                           "\"\\ud800\"",
                           "\"\\ud800\\n\"",
                           "\"\\ud800\\u0041\"",
                           "\"\\udc00\"",
                           "\"a\nb\"",
                           "\"\t\"",
                           "\"\xff\"",
                           "\"\xc0\x80\"",
                           "\"\xed\xa0\x80\"",
                           "\"\xf4\x90\x80\x80\"",
                           "\"\xc3",
                           "\xef\xbb\xbf"
                           "1",
                           "\v1"}) {
    INFO(text);
    CHECK_FALSE(Json::parse(text).has_value());
  }
  CHECK_FALSE(Json::parse(std::string_view("1\0", 2)).has_value());
}

TEST_CASE("Json ends nesting at the depth asked for", "[io][Json]") {
  const std::string deep = std::string(200, '[') + std::string(200, ']');
  CHECK(Json::parse(deep).has_value());
  CHECK_FALSE(Json::parse('[' + deep + ']').has_value());
  CHECK(fault_at(std::string(100000, '[')) == 200);
  CHECK(Json::parse("[[]]", 2).has_value());
  CHECK_FALSE(Json::parse("[[]]", 1).has_value());
  CHECK(Json::parse("7", 0).has_value());
}

TEST_CASE("Json writes doubles as the shortest text that reads back the same", "[io][Json]") {
  CHECK(Json(0.1).dump() == "0.1");
  CHECK(Json(1.0).dump() == "1.0");
  CHECK(Json(-0.0).dump() == "-0.0");
  CHECK(Json(1e22).dump() == "1e+22");
  CHECK(Json(5e-324).dump() == "5e-324");
  CHECK(Json(std::nan("")).dump() == "null");
  CHECK(Json(-std::numeric_limits<double>::infinity()).dump() == "null");
  kvist::Random random(7);
  int checked = 0;
  while (checked < 20000) {
    const double x = std::bit_cast<double>(random.next());
    if (!std::isfinite(x)) continue;
    const auto back = Json::parse(Json(x).dump());
    REQUIRE(back.has_value());
    REQUIRE(back->kind() == Json::Kind::number);
    REQUIRE(std::bit_cast<std::uint64_t>(back->as_double()) == std::bit_cast<std::uint64_t>(x));
    ++checked;
  }
}

TEST_CASE("Json writes strings that any reader takes", "[io][Json]") {
  CHECK(Json("a\"\\\n\r\t\x01\x7f/").dump() == "\"a\\\"\\\\\\n\\r\\t\\u0001\x7f/\"");
  CHECK(Json("\xc3\xa9\xf0\x9f\x98\x80").dump() == "\"\xc3\xa9\xf0\x9f\x98\x80\"");
  CHECK(Json("a\xff\xc3").dump() == "\"a\xef\xbf\xbd\xef\xbf\xbd\"");
}

TEST_CASE("Json writes on one line or indented and reads both back the same", "[io][Json]") {
  Json j;
  j.set("name", "x");
  j.set("ids", std::vector<int>{1, 2, 3});
  Json& rows = j.set("rows", Json::array());
  rows.push_back(Json::object({{"kl", 0.5}, {"ok", true}}));
  rows.push_back(Json::array());
  j.set("none", nullptr);
  j.set("empty", Json::object());
  j.set("name", "y");
  CHECK(j.dump() == R"({"name":"y","ids":[1,2,3],"rows":[{"kl":0.5,"ok":true},[]],"none":null,"empty":{}})");
  CHECK(j.dump(2) ==
        "{\n  \"name\": \"y\",\n  \"ids\": [1, 2, 3],\n  \"rows\": [\n    {\n      \"kl\": 0.5,\n      "
        "\"ok\": true\n"
        "    },\n    []\n  ],\n  \"none\": null,\n  \"empty\": {}\n}");
  CHECK(*Json::parse(j.dump()) == j);
  CHECK(*Json::parse(j.dump(4)) == j);
}

TEST_CASE("Json values are copied whole, moved, and assigned from their own parts", "[io][Json]") {
  Json a = Json::object({{"x", Json::array({1, "two", 3.5})}, {"y", false}});
  Json b = a;
  b.set("y", true);
  CHECK_FALSE(a["y"].as_bool(true));
  CHECK_FALSE(a == b);
  Json c = std::move(b);
  CHECK(c["x"] == a["x"]);
  a = Json(a["x"]);
  CHECK(a.dump() == R"([1,"two",3.5])");
  c = std::move(*c.find("x"));
  CHECK(c == a);
  CHECK(Json(1) != Json(1.0));
  CHECK(Json(std::nan("")) != Json(std::nan("")));
}

TEST_CASE("Every proper prefix of a JSON document is refused", "[io][Json]") {
  const std::string text = R"({"a":[1,2.5e-3,"x\u00e9\ud83d\ude00\n",{"b":null}],"c":true})";
  REQUIRE(Json::parse(text).has_value());
  for (std::size_t n = 0; n < text.size(); ++n)
    CHECK_FALSE(Json::parse(std::string_view(text).substr(0, n)).has_value());
}

TEST_CASE("Files are written and read whole, and their absence is an Error", "[io]") {
  const std::string path = "kvist_json_test.tmp";
  REQUIRE(kvist::write_file(path, std::string_view("a\0b\n", 4)).has_value());
  CHECK(kvist::read_file(path).value() == std::string("a\0b\n", 4));
  CHECK(kvist::read_file(path, 4).has_value());
  CHECK(kvist::read_file(path, 3).error().code == kvist::Errc::bad_file);
  std::remove(path.c_str());
  CHECK(kvist::read_file(path).error().code == kvist::Errc::not_found);
  CHECK(kvist::read_file(".").error().code == kvist::Errc::not_found);
  CHECK(kvist::write_file("no/such/folder/x", "").error().code == kvist::Errc::not_found);
}
