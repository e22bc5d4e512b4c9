#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/version.hpp>
#include <kvist/io/html.hpp>
#include <kvist/io/plot.hpp>
#include <kvist/io/table.hpp>

#include <fmt/format.h>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kvist::inline KVIST_ABI {

/// A report as one HTML file that needs nothing else: no script, no font, no picture from elsewhere. It
/// follows the reader's light or dark setting and prints well.
class Report {
 public:
  explicit Report(std::string title) : title_(std::move(title)) {}

  void heading(std::string_view text) { body_ += fmt::format("<h2>{}</h2>\n", escape_html(text)); }
  void paragraph(std::string_view text) { body_ += fmt::format("<p>{}</p>\n", escape_html(text)); }
  /// Names and what they are, one a line: the circumstances of a measurement.
  void facts(const std::vector<std::pair<std::string, std::string>>& rows) {
    body_ += "<dl>\n";
    for (const auto& [name, value] : rows)
      body_ += fmt::format("<dt>{}</dt><dd>{}</dd>\n", escape_html(name), escape_html(value));
    body_ += "</dl>\n";
  }
  void command(std::string_view text) { body_ += fmt::format("<pre>{}</pre>\n", escape_html(text)); }
  void plot(const Plot& plot) { body_ += "<figure>\n" + plot.svg() + "</figure>\n"; }
  /// `marks` [rows]: SVG of each row's mark in a plot, or empty; then the table is the plot's legend.
  void table(const Table& t, const std::vector<std::string>& marks = {}) {
    body_ += "<div class='scroll'><table>\n<thead><tr>";
    if (!marks.empty()) body_ += "<th></th>";
    for (const Table::Column& c : t.columns) cell("th", c, c.name);
    body_ += "</tr></thead>\n<tbody>\n";
    for (std::size_t r = 0; r < t.rows.size(); ++r) {
      body_ += "<tr>";
      if (!marks.empty())
        body_ += "<td>" +
                 (marks[r].empty() ? "" : "<svg class='mark' viewBox='-8 -8 16 16'>" + marks[r] + "</svg>") +
                 "</td>";
      for (std::size_t i = 0; i < t.columns.size(); ++i)
        cell("td", t.columns[i], i < t.rows[r].size() ? t.rows[r][i] : std::string());
      body_ += "</tr>\n";
    }
    body_ += "</tbody></table></div>\n";
  }

  std::string html() const {
    return fmt::format(
        "<!DOCTYPE html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'>\n"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>\n<title>{0}</title>\n"
        "<style>\n{1}</style>\n</head>\n<body>\n<main>\n<h1>{0}</h1>\n{2}</main>\n</body>\n</html>\n",
        escape_html(title_), style, body_);
  }

 private:
  void cell(const char* tag, const Table::Column& column, std::string_view text) {
    body_ += fmt::format("<{0}{1}>{2}</{0}>", tag, column.align == Table::Align::right ? " class='n'" : "",
                         escape_html(text));
  }

  static constexpr const char* style =
      ":root{--ink:#1c2126;--soft:#5d6873;--rule:#d9dee3;--paper:#fff;--band:#f5f7f9;--ref:#7b858f;--c0:#"
      "0b6fb8;--c1:#c8500a;"
      "--c2:#1a8754;--c3:#a6309b;--c4:#8a6d00;--c5:#d0243c;--c6:#0f8b95;--c7:#6a4bd0}\n"
      "@media(prefers-color-scheme:dark){:root{--ink:#e4e8ec;--soft:#9aa6b1;--rule:#39424b;--paper:#14181c;--"
      "band:#1c2227;"
      "--ref:#8d98a3;--c0:#5cb3f0;--c1:#f58e4e;--c2:#54c98c;--c3:#df7fd5;--c4:#d3b23c;--c5:#f5707f;--c6:#"
      "4ccbd5;"
      "--c7:#a893f7}}\n"
      "body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,'Segoe "
      "UI',Roboto,sans-serif}\n"
      "main{max-width:1080px;margin:0 auto;padding:28px 20px 60px}\n"
      "h1{font-size:1.5rem;line-height:1.25;margin:0 0 .6rem}h2{font-size:1.12rem;margin:2.2rem 0 .5rem}\n"
      "p{max-width:76ch;color:var(--soft);margin:.4rem 0}\n"
      "dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem 1rem;margin:.8rem "
      "0}dt{color:var(--soft)}dd{margin:0}\n"
      "pre{background:var(--band);border:1px solid var(--rule);border-radius:6px;padding:10px "
      "12px;white-space:pre-wrap;"
      "overflow-wrap:anywhere;font-size:13px}\n"
      ".scroll{overflow-x:auto}table{border-collapse:collapse;font-size:14px;font-variant-numeric:tabular-"
      "nums;"
      "margin:.6rem 0}\n"
      "th,td{padding:5px 12px 5px 0;text-align:left;white-space:nowrap;border-bottom:1px solid var(--rule)}\n"
      "th{color:var(--soft);font-weight:600}th.n,td.n{text-align:right}tbody "
      "tr:hover{background:var(--band)}\n"
      "figure{margin:1rem 0 "
      ".4rem}svg.plot{width:100%;height:auto;display:block}svg.mark{width:14px;height:14px;display:block}\n"
      "svg text{font-size:12px;fill:var(--soft)}svg "
      "text.title{font-size:15px;font-weight:600;fill:var(--ink)}\n"
      "svg text.label{font-size:13px;fill:var(--ink)}svg text.name{font-weight:600}\n"
      ".grid{stroke:var(--rule);fill:none}.axis{stroke:var(--soft);fill:none}.lead{stroke:var(--rule);fill:"
      "none}\n"
      ".line{fill:none!important;stroke-width:1.6;stroke-opacity:.75}.dashed{stroke-dasharray:5 4}\n"
      "svg .ref{fill:var(--ref);stroke:var(--ref)}svg .c0{fill:var(--c0);stroke:var(--c0)}svg "
      ".c1{fill:var(--c1);"
      "stroke:var(--c1)}svg .c2{fill:var(--c2);stroke:var(--c2)}svg .c3{fill:var(--c3);stroke:var(--c3)}svg "
      ".c4{"
      "fill:var(--c4);stroke:var(--c4)}svg .c5{fill:var(--c5);stroke:var(--c5)}svg "
      ".c6{fill:var(--c6);stroke:var(--c6)}"
      "svg .c7{fill:var(--c7);stroke:var(--c7)}svg text.name{stroke:none}\n"
      "@media print{tbody tr:hover{background:none}}\n";

  std::string title_, body_;
};

}  // namespace kvist::inline KVIST_ABI
