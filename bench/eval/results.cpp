// SPDX-License-Identifier: Apache-2.0
#include "results.hpp"

#include "commands.hpp"

#include <kvist/core/version.hpp>
#include <kvist/io/file.hpp>
#include <kvist/reference/compare.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <optional>

namespace kvist_eval {

namespace compare = kvist::compare;

namespace {

std::vector<double> numbers(const Json& list) {
  std::vector<double> out;
  for (const Json& x : list.elements()) out.push_back(x.as_double());
  return out;
}

/// "random" of a SPEC's first clause, and the text of its budget.
std::string method_of(std::string_view policy) {
  return std::string(policy.substr(0, policy.find_first_of(":+")));
}
std::string budget_of(std::string_view policy) {
  constexpr std::string_view key = "budget=";
  const std::size_t at = policy.find(key);
  if (at == policy.npos) return {};
  policy.remove_prefix(at + key.size());
  return std::string(policy.substr(0, policy.find_first_of(",+")));
}

bool same_place(const Json& a, const Json& b) {
  for (const char* const key :
       {"task", "text", "text_sum", "context", "samples", "seed", "question", "decode", "chunk"})
    if (!(a[key] == b[key])) return false;
  return true;
}

/// a against b over the same windows or questions; null where they cannot be compared.
Json pair_of(const Json& a, const Json& b) {
  Json out = Json::object();
  if (a["task"].as_string() == "fidelity") {
    const auto x = numbers(a["windows"]["kl"]), y = numbers(b["windows"]["kl"]);
    if (x.empty() || x.size() != y.size()) return {};
    const compare::Paired p = compare::paired_ratio(x, y, std::uint64_t(a["seed"].as_int()));
    if (std::isnan(p.ratio)) return {};
    out.set("against", b["policy"]);
    out.set("metric", "kl");
    out.set("ratio", p.ratio);
    out.set("lo", p.lo);
    out.set("hi", p.hi);
    out.set("won", p.won);
    out.set("n", p.n);
    return out;
  }
  const auto x = numbers(a["hits"]), y = numbers(b["hits"]);
  if (x.empty() || x.size() != y.size()) return {};
  Index won = 0, lost = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    won += x[i] > y[i];
    lost += x[i] < y[i];
  }
  // questions of one context are not independent: contexts are drawn, and the ratio is that of their
  // accuracies
  const std::size_t contexts = std::size_t(
                        std::clamp<std::int64_t>(a["contexts"].as_int(1), 1, std::int64_t(x.size()))),
                    each = x.size() / contexts;
  std::vector<double> p(contexts), q(contexts);
  for (std::size_t i = 0; i < contexts * each; ++i) {
    p[i / each] += x[i] / double(each);
    q[i / each] += y[i] / double(each);
  }
  const compare::Paired ratio = compare::paired_ratio(p, q, std::uint64_t(a["seed"].as_int()));
  out.set("against", b["policy"]);
  out.set("metric", "accuracy");
  out.set("ratio", ratio.ratio);  // null where b has none right
  out.set("lo", ratio.lo);
  out.set("hi", ratio.hi);
  out.set("won", won);
  out.set("lost", lost);
  out.set("n", Index(x.size()));
  out.set("p", compare::mcnemar(won, lost));
  return out;
}

}  // namespace

Outcome<Results> Results::open(std::string path, Json model, std::string isa) {
  Results r;
  r.path_ = std::move(path);
  r.isa_ = std::move(isa);
  r.model_ = std::move(model);
  if (r.path_.empty()) return r;
  if (auto able = check_writable(r.path_ + ".part"); !able) return able.failure();
  std::error_code ignored;
  if (!std::filesystem::exists(r.path_, ignored)) return r;
  auto text = kvist::read_file(r.path_);
  if (!text) return failed(fmt::format("results '{}'", r.path_), text.error());
  if (text->empty()) return r;
  auto json = Json::parse(*text);
  if (!json) return failed(fmt::format("results '{}'", r.path_), json.error());
  if (!(*json)["results"].is_array())
    return failed(fmt::format("'{}' exists and holds no results of kvist-eval run: not overwritten", r.path_));
  const Json& theirs = (*json)["model"];  // by its bytes: one file has many names
  if (!(theirs["sum"] == r.model_["sum"] && theirs["bytes"] == r.model_["bytes"]))
    return failed(fmt::format(
        "'{}' holds results of another model file, {} ({} bytes, checksum {}), not of {} ({}, {}): give "
        "another --json file",
        r.path_, theirs["name"].as_string(), theirs["bytes"].as_int(), theirs["sum"].as_string(),
        r.model_["name"].as_string(), r.model_["bytes"].as_int(), r.model_["sum"].as_string()));
  for (const auto& [member, mine] :
       {std::pair{"kvist", std::string_view(kvist::version)}, std::pair{"isa", std::string_view(r.isa_)}})
    if (const auto held = (*json)[member].as_string(); held != mine)
      return failed(fmt::format("'{}' holds results of {} {}, not of {}: give another --json file", r.path_,
                                member, held, mine));
  for (const Json& row : (*json)["results"].elements()) r.rows_.push_back(row);
  return r;
}

Json Results::row(const RowKey& key) {
  Json j = Json::object();
  j.set("policy", key.policy);
  j.set("task", key.task);
  j.set("text", key.text);
  j.set("text_sum", key.text_sum);
  j.set("context", key.context);
  j.set("samples", key.samples);
  j.set("seed", key.seed);
  j.set("question", key.question);
  j.set("decode", key.decode);
  if (key.chunk > 0) j.set("chunk", key.chunk);
  return j;
}

bool Results::same(const Json& row, const RowKey& key) {
  const Json wanted = Results::row(key);
  return same_place(row, wanted) && row["policy"] == wanted["policy"];
}

const Json* Results::find(const RowKey& key) const {
  for (const Json& row : rows_)
    if (same(row, key) && row["status"].as_string() != "error") return &row;
  return nullptr;
}

Outcome<Good> Results::put(const RowKey& key, Json row) {
  bool placed = false;
  for (Json& old : rows_)
    if (!placed && same(old, key)) {
      old = row;
      placed = true;
    }
  if (!placed) rows_.push_back(std::move(row));
  compare();
  if (path_.empty()) return Good{};
  const std::string beside = path_ + ".part";
  if (const auto done = kvist::write_file(beside, document().dump(1) + "\n"); !done)
    return failed(fmt::format("results '{}'", beside), done.error());
  std::error_code error;
  std::filesystem::rename(beside, path_, error);
  if (error)
    return failed(fmt::format("results '{}': cannot be put in its place: {}", path_, error.message()));
  return Good{};
}

void Results::compare() {
  for (Json& row : rows_) {
    if (row["status"].as_string() != "ok") continue;
    // against random that keeps as much, and against the file's first policy
    const Json *random = nullptr, *first = nullptr;
    const std::string budget = budget_of(row["policy"].as_string());
    int closeness = 0;  // 1: as many entries, 2: the same budget
    for (const Json& other : rows_) {
      if (other["status"].as_string() != "ok" || !same_place(row, other)) continue;
      if (!first) first = &other;
      if (method_of(other["policy"].as_string()) != "random") continue;
      const double kept = row["kept_fraction"].as_double(), theirs = other["kept_fraction"].as_double();
      const int close = budget_of(other["policy"].as_string()) == budget ? 2
                        : std::abs(kept - theirs) < 0.02 * theirs        ? 1
                                                                         : 0;
      if (close <= closeness) continue;
      closeness = close;
      random = &other;
    }
    Json paired = Json::array();
    for (const Json* const other : {random, first}) {
      if (!other || other == &row || (other == first && first == random && paired.size() > 0)) continue;
      Json p = pair_of(row, *other);
      if (!p.is_null()) paired.push_back(std::move(p));
    }
    row.set("paired", std::move(paired));
  }
}

Json Results::document() const {
  Json out = Json::object();
  out.set("kvist", kvist::version);
  out.set("model", model_);
  out.set("isa", isa_);
  out.set("results", Json::array(rows_));
  return out;
}

}  // namespace kvist_eval
