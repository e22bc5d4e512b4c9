// SPDX-License-Identifier: Apache-2.0
#include <kvist/io/report.hpp>
#include <support/catch.hpp>

#include <algorithm>

using namespace kvist;

namespace {

std::size_t count(const std::string& text, const std::string& what) {
  std::size_t n = 0;
  for (std::size_t at = text.find(what); at != text.npos; at = text.find(what, at + 1)) ++n;
  return n;
}

/// Every opened element is closed in its order; enough of a parser for what is written here.
bool well_nested(const std::string& html) {
  std::vector<std::string> open;
  for (std::size_t at = html.find('<'); at != html.npos; at = html.find('<', at + 1)) {
    const std::size_t end = html.find('>', at);
    if (end == html.npos) return false;
    if (html[at + 1] == '!' || html[end - 1] == '/') continue;
    const bool closing = html[at + 1] == '/';
    std::string name =
        html.substr(at + 1 + closing, html.find_first_of(" >", at + 1 + closing) - at - 1 - closing);
    if (name == "meta") continue;
    if (!closing) open.push_back(name);
    else if (open.empty() || open.back() != name) return false;
    else open.pop_back();
  }
  return open.empty();
}

Plot example() {
  Plot p;
  p.title = "Fidelity & bytes";
  p.x_label = "bytes";
  p.y_label = "KL";
  p.series.push_back({"SnapKV", {{4e6, 0.05, 0.03, 0.08, "SnapKV at 20%"}, {2e6, 0.1, 0.08, 0.13, ""}}, false});
  p.series.push_back({"random <4+32>", {{4e6, 0.14, 0, 0, ""}}, true});
  return p;
}

}  // namespace

TEST_CASE("A table aligns its columns by characters", "[io][Table]") {
  const Table t{{{"policy"}, {"KL", Table::Align::right}},
                {{"full", "0"}, {"r\xC3\xA9sum\xC3\xA9 policy", "0.125"}, {"x"}}};
  CHECK(t.text() ==
        "policy            KL\n"
        "-------------  -----\n"
        "full               0\n"
        "r\xC3\xA9sum\xC3\xA9 policy  0.125\n"
        "x\n");
}

TEST_CASE("A plot draws every point with its interval, joins a series and names it", "[io][Plot]") {
  const std::string svg = example().svg();
  CHECK(well_nested(svg));
  CHECK(count(svg, "<circle") == 3);
  CHECK(count(svg, "class='line c0'") == 3);  // one line, two intervals
  CHECK(count(svg, ">SnapKV</text>") == 1);
  CHECK(count(svg, "random &lt;4+32&gt;") == 2);  // name, and note of its point
  CHECK(count(svg, "Fidelity &amp; bytes") == 2);
  CHECK(svg.find("nan") == svg.npos);
}

TEST_CASE("Points that a logarithm cannot show are left out", "[io][Plot]") {
  Plot p = example();
  p.series.push_back({"full", {{2e7, 0, 0, 0, ""}}, true});
  p.series.push_back({"broken", {{std::nan(""), 1, 0, 0, ""}, {1, -1, 0, 0, ""}}, false});
  CHECK(count(p.svg(), "<circle") == 3);
  Plot nothing;
  nothing.series.push_back({"full", {{2e7, 0, 0, 0, ""}}, true});
  CHECK(nothing.svg().empty());
  Plot one;
  one.series.push_back({"one", {{5, 5, 0, 0, ""}}, false});
  CHECK(one.svg().find("nan") == std::string::npos);
  CHECK(count(one.svg(), "<circle") == 1);
}

TEST_CASE("Marks of more than eight series differ by shape", "[io][Plot]") {
  CHECK(Plot::mark(0, false, 0, 0).find("<circle class='c0'") == 0);
  CHECK(Plot::mark(8, false, 0, 0).find("<rect class='c0'") == 0);
  CHECK(Plot::mark(16, false, 0, 0).find("<path class='c0'") == 0);
  CHECK(Plot::mark(3, true, 0, 0).find("class='ref'") != std::string::npos);
}

TEST_CASE("Labels of a plot never cover each other", "[io][Plot]") {
  Plot p;
  for (int i = 0; i < 12; ++i)
    p.series.push_back({"series" + std::to_string(i), {{1e6, 0.1 + 1e-4 * i, 0, 0, ""}}, false});
  const std::string svg = p.svg();
  std::vector<double> y;
  for (std::size_t at = svg.find("class='name"); at != svg.npos; at = svg.find("class='name", at + 1)) {
    const std::size_t from = svg.find(" y='", at) + 4;
    y.push_back(std::stod(svg.substr(from)));
  }
  REQUIRE(y.size() == 12);
  for (std::size_t i = 1; i < y.size(); ++i) CHECK(y[i] - y[i - 1] >= 13);
}

TEST_CASE("A report is one well-formed page without anything from elsewhere", "[io][Report]") {
  Report r("kvist: <model> & text");
  r.facts({{"model", "tiny"}, {"text", "a \"story\""}});
  r.command("kvist-eval run --policy 'SnapKV:budget=20%'");
  r.heading("fidelity");
  r.paragraph("Lower is better.");
  r.plot(example());
  r.table({{{"policy"}, {"KL", Table::Align::right}}, {{"<b>", "1"}, {"y"}}},
          {Plot::mark(0, false, 0, 0), ""});
  const std::string html = r.html();
  CHECK(well_nested(html));
  CHECK(html.rfind("<!DOCTYPE html>", 0) == 0);
  CHECK(count(html, "<title>kvist: &lt;model&gt; &amp; text</title>") == 1);
  CHECK(html.find("<b>") == html.npos);
  CHECK(count(html, "<tr>") == 3);
  for (const char* const outside : {"http", "url(", "src=", "@import", "<script"})
    CHECK(html.find(outside) == html.npos);
}

TEST_CASE("Single points of one x stand side by side", "[io][Plot]") {
  Plot p;
  for (int i = 0; i < 4; ++i)
    p.series.push_back({"p" + std::to_string(i), {{1e6, 0.1 * (i + 1), 0, 0, ""}}, false});
  p.series.push_back({"far", {{5e7, 0.1, 0, 0, ""}}, false});
  const std::string svg = p.svg();
  std::vector<double> x;
  for (std::size_t at = svg.find("<circle"); at != svg.npos; at = svg.find("<circle", at + 1))
    x.push_back(std::stod(svg.substr(svg.find("cx='", at) + 4)));
  REQUIRE(x.size() == 5);
  std::sort(x.begin(), x.end());
  for (std::size_t i = 1; i < x.size(); ++i) CHECK(x[i] - x[i - 1] > 12);
}

TEST_CASE("Names of many series stand in a column, none over another", "[io][Plot]") {
  Plot p;
  for (int i = 0; i < 40; ++i)
    p.series.push_back({"series" + std::to_string(i), {{1e6 + 1e5 * i, 0.1 / (i % 7 + 1), 0, 0, ""}}, false});
  p.height = 700;
  const std::string svg = p.svg();
  std::vector<double> y;
  for (std::size_t at = svg.find("class='name"); at != svg.npos; at = svg.find("class='name", at + 1))
    y.push_back(std::stod(svg.substr(svg.find(" y='", at) + 4)));
  REQUIRE(y.size() == 40);
  std::sort(y.begin(), y.end());
  for (std::size_t i = 1; i < y.size(); ++i) CHECK(y[i] - y[i - 1] >= 13);
  CHECK(y.back() < 700);
}
