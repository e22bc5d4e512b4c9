// SPDX-License-Identifier: Apache-2.0
// kvist-eval list: every method and store by name.
#include "commands.hpp"
#include "contestant.hpp"

#include <kvist/core/version.hpp>
#include <kvist/io/json.hpp>

#include <array>

namespace kvist_eval {
namespace {

using kvist::Json;
namespace m = kvist::methods;

std::string option_text(const m::OptionInfo& o) { return o.name + "=" + o.value; }

Json entry_json(const m::MethodInfo& info, const std::vector<m::OptionInfo>& options, bool evicts, bool store) {
  Json j = Json::object();
  j.set("name", info.name);
  j.set("kind", store ? "store" : "policy");
  j.set("title", info.title);
  j.set("source", info.source);
  j.set("parts", info.parts);
  j.set("needs", info.needs);
  j.set("makes", info.makes);
  j.set("fidelity", m::name_of(info.fidelity));
  j.set("note", info.note);
  j.set("budget", evicts);
  Json list = Json::array();
  for (const m::OptionInfo& o : options) {
    Json x = Json::object();
    x.set("name", o.name);
    x.set("default", o.value);
    x.set("doc", o.doc);
    list.push_back(std::move(x));
  }
  j.set("options", std::move(list));
  return j;
}

std::string entry_text(const m::MethodInfo& info, const std::vector<m::OptionInfo>& options, bool evicts) {
  std::string out = fmt::format("{}: {}\n", info.name, info.title);
  const auto line = [&](std::string_view name, std::string_view value) {
    if (!value.empty()) out += fmt::format("  {:<9} {}\n", name, value);
  };
  line("source", info.source);
  line("parts", info.parts);
  line("needs", info.needs);
  line("makes", info.makes);
  line("fidelity",
       *info.note ? fmt::format("{}: {}", m::name_of(info.fidelity), info.note) : m::name_of(info.fidelity));
  if (evicts)
    out +=
        "  option    budget=                   entries per KV head (204), a share of the prompt (20%), or "
        "bytes (64MB)\n";
  for (const m::OptionInfo& o : options)
    out += fmt::format("  option    {:<24}  {}\n", option_text(o), o.doc);
  return out + "\n";
}

Outcome<Good> run(const Args& args, const std::string&) {
  Json list = Json::array();
  std::string text =
      "Policies: NAME:option=value,... joined with a store by +, as SnapKV:window=32,budget=20%+f16\n\n";
  const auto add = [&](const m::MethodInfo& info, const std::vector<m::OptionInfo>& options, bool evicts,
                       bool store) {
    list.push_back(entry_json(info, options, evicts, store));
    text += entry_text(info, options, evicts);
  };
  for (const m::Entry& e : all_methods())
    if (!e.store) add(e.info, e.options, e.evicts, false);
  m::Oracle::Options common;
  m::ListOptions of_oracle;
  m::Oracle::fields(of_oracle, common);
  add(m::Oracle::info, of_oracle.out, true, false);
  text += "Stores: alone they keep everything in it (f16 = full+f16)\n\n";
  for (const m::Entry& e : all_methods())
    if (e.store) add(e.info, e.options, false, true);
  if (!args.has("json")) return write_result("", text);
  Json out = Json::object();
  out.set("kvist", kvist::version);
  out.set("methods", std::move(list));
  return write_result(args.text("json"), out.dump(1) + "\n");
}

constexpr std::array options{OptionSpec{"json", "FILE", "write the list as JSON (- for standard output)"}};

}  // namespace

const Command list_command{"list", "every method: options with defaults, parts, needs, source, fidelity",
                           "Names and options are what a SPEC (run --policy) takes.\n", options, &run};

}  // namespace kvist_eval
