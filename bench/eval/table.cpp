// SPDX-License-Identifier: Apache-2.0
#include "table.hpp"

#include <kvist/io/report.hpp>

#include <algorithm>
#include <cmath>
#include <map>

namespace kvist_eval {

using kvist::Table;

namespace {

std::string figure(double x) {
  if (x == 0) return "0";
  if (x < 1e-3) return fmt::format("{:.1e}", x);
  return fmt::format("{:.4f}", x);
}
std::string interval(const Json& ci, int digits) {
  if (!ci.is_array()) return {};
  return fmt::format("{:.{}f}..{:.{}f}", ci[0].as_double(), digits, ci[1].as_double(), digits);
}

bool same_table(const Json& a, const Json& b) {
  for (const char* const key : {"task", "context", "question", "decode", "text", "samples", "seed", "chunk"})
    if (!(a[key] == b[key])) return false;
  return true;
}

const Json* against_random(const Json& row) {
  for (const Json& p : row["paired"].elements())
    if (p["against"].as_string().substr(0, 6) == "random") return &p;
  return nullptr;
}

std::vector<std::string> cells(const Json& row) {
  const bool fidelity = row["task"].as_string() == "fidelity";
  std::vector<std::string> out{std::string(row["policy"].as_string())};
  const std::string_view status = row["status"].as_string();
  if (status != "ok") {
    out.push_back(status == "error" ? "error" : "-");
    return out;
  }
  const Json& m = row["metrics"];
  const Json& ci = row["ci"];
  const Json* const random = against_random(row);
  if (fidelity) {
    out.push_back(figure(m["kl"].as_double()));
    out.push_back(m["kl"].as_double() == 0 ? "" : interval(ci["kl"], 3));
    out.push_back(random ? fmt::format("{:.2f}", (*random)["ratio"].as_double()) : "");
    out.push_back(random ? fmt::format("{}/{}", (*random)["won"].as_int(), (*random)["n"].as_int()) : "");
    out.push_back(fmt::format("{:.3f}", m["top1_agreement"].as_double()));
    out.push_back(fmt::format("{:.2f}", m["perplexity"].as_double()));
  } else {
    out.push_back(fmt::format("{:.3f}", m["accuracy"].as_double()));
    out.push_back(interval(ci["accuracy"], 2));
    out.push_back(random ? fmt::format("{}:{}", (*random)["won"].as_int(), (*random)["lost"].as_int()) : "");
    out.push_back(random ? figure((*random)["p"].as_double()) : "");
  }
  const double bytes = row["bytes"].as_double(), full = row["bytes_full"].as_double();
  out.push_back(fmt::format("{:.1f} %", 100 * row["kept_fraction"].as_double()));
  out.push_back(kvist::bytes_text(bytes));
  out.push_back(full > 0 ? fmt::format("{:.1f} %", 100 * bytes / full) : "");
  out.push_back(kvist::bytes_text(row["bytes_peak"].as_double()));
  out.push_back(fmt::format("{:.3f}", row["seconds"]["policy"].as_double()));
  return out;
}

}  // namespace

std::vector<ResultTable> result_tables(std::span<const Json> rows) {
  std::vector<ResultTable> out;
  for (const Json& row : rows) {
    ResultTable* mine = nullptr;
    for (ResultTable& t : out)
      if (same_table(*t.rows[0], row)) mine = &t;
    if (!mine) {
      ResultTable t;
      const bool fidelity = row["task"].as_string() == "fidelity";
      t.title = fmt::format("{}, context {}, {} {}{}, text {}", row["task"].as_string(),
                            row["context"].as_int(), row["samples"].as_int(), fidelity ? "windows" : "samples",
                            fidelity ? "" : fmt::format(", question {}", row["question"].as_string()),
                            row["text"].as_string());
      if (row["decode"].as_string() != "frozen") t.title += ", decode live";
      if (row["chunk"].as_int() > 0) t.title += fmt::format(", prompt in calls of {}", row["chunk"].as_int());
      using C = Table::Column;
      const auto right = Table::Align::right;
      if (fidelity)
        t.table.columns = {C{"policy"},     C{"KL", right},    C{"95 %", right},      C{"x random", right},
                           C{"won", right}, C{"top-1", right}, C{"perplexity", right}};
      else
        t.table.columns = {C{"policy"}, C{"accuracy", right}, C{"95 %", right}, C{"won:lost", right},
                           C{"p", right}};
      for (const char* const name : {"kept", "bytes", "of full", "peak", "policy s"})
        t.table.columns.push_back(C{name, right});
      out.push_back(std::move(t));
      mine = &out.back();
    }
    mine->rows.push_back(&row);
    mine->table.rows.push_back(cells(row));
  }
  return out;
}

namespace {

/// The policy without its budget: points of one name are one series.
std::string series_name(std::string_view policy) {
  std::string out(policy);
  for (const std::string_view lead : {":budget=", ",budget="}) {
    const std::size_t at = out.find(lead);
    if (at == out.npos) continue;
    const std::size_t end = std::min(out.find_first_of(",+", at + lead.size()), out.size());
    if (lead[0] == ':' && end < out.size() && out[end] == ',')
      out = out.substr(0, at) + ":" + out.substr(end + 1);
    else out.erase(at, end - at);
  }
  return out;
}

bool is_anchor(std::string_view name) {
  return name == "full" || name == "random" || name == "window" || name == "oracle";
}

}  // namespace

std::string report_html(const Json& document, const std::string& command_line, std::span<const Json> rows) {
  const Json& model = document["model"];
  kvist::Report report(fmt::format("KV-cache policies on {}", model["name"].as_string()));
  report.paragraph(
      "What each policy keeps of the cache, what that costs against attention over the full cache, and the "
      "bytes "
      "that are really stored.");
  std::vector<std::pair<std::string, std::string>> facts{
      {"model", fmt::format("{} ({}), {} layers, {} query heads, {} KV heads, dim {}",
                            model["name"].as_string(), model["arch"].as_string(), model["layers"].as_int(),
                            model["q_heads"].as_int(), model["kv_heads"].as_int(), model["head_dim"].as_int())}};
  if (!rows.empty()) facts.emplace_back("text", rows.front()["text"].as_string());
  facts.emplace_back(
      "kvist", fmt::format("{}, kernels at {}", document["kvist"].as_string(), document["isa"].as_string()));
  report.facts(facts);
  report.command(command_line);
  for (const ResultTable& t : result_tables(rows)) {
    const bool fidelity = t.rows[0]->operator[]("task").as_string() == "fidelity";
    report.heading(t.title);
    kvist::Plot plot;
    plot.x_label = "bytes of the cache after the prompt";
    if (fidelity) {
      plot.title = "Loss against bytes (lower and further left is better)";
      plot.y_label = "KL to the full cache, nats per token";
    } else {
      plot.title = "Accuracy against bytes (higher and further left is better)";
      plot.y_label = "share of questions answered";
      plot.log_y = false;
      plot.lo = 0;
      plot.hi = 1;
    }
    std::vector<std::string> marks;
    for (const Json* row : t.rows) {
      const std::string name = series_name((*row)["policy"].as_string());
      auto series =
          std::find_if(plot.series.begin(), plot.series.end(), [&](const auto& s) { return s.name == name; });
      if (series == plot.series.end()) {
        plot.series.push_back({name, {}, is_anchor(name)});
        series = plot.series.end() - 1;
      }
      marks.push_back(kvist::Plot::mark(std::size_t(series - plot.series.begin()), series->reference, 0, 0));
      if ((*row)["status"].as_string() != "ok") continue;
      const char* const metric = fidelity ? "kl" : "accuracy";
      const double y = (*row)["metrics"][metric].as_double();
      const Json& ci = (*row)["ci"][metric];
      series->points.push_back({(*row)["bytes"].as_double(), y, ci[0].as_double(), ci[1].as_double(),
                                fmt::format("{}: {}, {}", (*row)["policy"].as_string(), figure(y),
                                            kvist::bytes_text((*row)["bytes"].as_double()))});
    }
    for (const Json* row : t.rows)
      if ((*row)["policy"].as_string() == "full" && (*row)["status"].as_string() == "ok") {
        plot.line_x = (*row)["bytes"].as_double();
        plot.line_name = "full cache";
      }
    plot.height = std::max(plot.height, 120 + 14 * int(plot.series.size()));
    report.plot(plot);
    report.table(t.table, marks);
    for (const Json* row : t.rows)
      if (!(*row)["error"].as_string().empty())
        report.paragraph(fmt::format("{}: {}", (*row)["policy"].as_string(), (*row)["error"].as_string()));
  }
  report.heading("How to read this");
  report.paragraph(
      "KL: divergence of the next-token distribution from that of the full cache, mean over the scored "
      "tokens, in "
      "nats. 95 %: bootstrap over windows (fidelity), Wilson (accuracy). x random: ratio of mean KLs against "
      "random eviction at the same budget, over the same windows; won: windows in which the policy was "
      "closer. "
      "won:lost: questions that only this policy, or only random, answered; p: exact McNemar test. Kept: "
      "entries "
      "after the prompt. Bytes: keys, values, codes, scales, positions. Policy s: seconds that the policy "
      "took "
      "beside the prompt's own run.");
  return report.html();
}

}  // namespace kvist_eval
