// SPDX-License-Identifier: Apache-2.0
#include "contestant.hpp"

#include <kvist/storage/store/dense.hpp>

#include <charconv>

namespace kvist_eval {

namespace m = kvist::methods;

namespace {

bool is_oracle(const m::Clause& c) { return c.name == m::Oracle::info.name; }

/// The clause that names what evicts, or null.
template <class Clauses>
auto* evicting(Clauses& clauses) {
  for (auto& c : clauses) {
    const m::Entry* const e = m::find(c.name);
    if (is_oracle(c) || (e && e->evicts)) return &c;
  }
  return static_cast<decltype(&clauses[0])>(nullptr);
}

/// An option's value as a whole number: as given, else the default; nothing where the method lacks the option.
std::optional<kvist::Index> number(const m::Clause& c, std::string_view name) {
  std::string value;
  if (const m::Entry* const entry = m::find(c.name))
    for (const m::OptionInfo& o : entry->options)
      if (o.name == name) value = o.value;
  for (const auto& o : c.options)
    if (o.first == name) value = o.second;
  kvist::Index n = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), n);
  if (value.empty() || error != std::errc{} || end != value.data() + value.size()) return std::nullopt;
  return n;
}

void set(m::Clause& c, const std::string& name, kvist::Index n) {
  for (auto& o : c.options)
    if (o.first == name) {
      o.second = std::to_string(n);
      return;
    }
  c.options.emplace_back(name, std::to_string(n));
}

std::string text_of(const m::Clause& c, std::string_view budget) {
  std::string out = c.name;
  char separator = ':';
  for (const auto& [name, value] : c.options) {
    out += separator + name + "=" + value;
    separator = ',';
  }
  if (!budget.empty()) out += separator + ("budget=" + std::string(budget));
  return out;
}

Outcome<Contestant> contestant(const std::string& text) {
  std::string fault;
  auto spec = m::parse_spec(text, fault);
  if (!spec) return usage(fault.empty() ? std::string(spec.error().what) : fault);
  auto made = m::make(*spec, fault);
  if (!made) return usage(fault.empty() ? fmt::format("SPEC '{}': {}", text, made.error()) : fault);
  Contestant c;
  c.text = text;
  c.spec = *std::move(spec);
  c.evicts = made->evicts;
  c.free_size = made->policy.free_size();
  c.oracle = made->oracle;
  for (const m::Clause& clause : c.spec.clauses) {
    const m::Entry* const e = m::find(clause.name);
    if (is_oracle(clause) || (e && !e->store)) continue;
    c.store += (c.store.empty() ? "" : "+") + text_of(clause, {});
  }
  if (c.store.empty() && made->stores)
    c.store = text_of(c.spec.clauses[0], {});  // a method with tiers of its own
  return c;
}

/// The SPEC's text with a budget in its evicting clause.
std::string with_budget(const Contestant& c, std::string_view budget) {
  std::string out;
  const m::Clause* const target = evicting(c.spec.clauses);
  for (const m::Clause& clause : c.spec.clauses)
    out += (out.empty() ? "" : "+") + text_of(clause, &clause == target ? budget : std::string_view{});
  return out;
}

}  // namespace

Outcome<std::vector<Contestant>> contestants(const std::vector<std::string>& specs,
                                             const std::vector<std::string>& budgets) {
  std::vector<std::string> texts;
  for (const std::string& s : specs) {
    if (s != "all") {
      texts.push_back(s);
      continue;
    }
    for (const m::Entry& e : m::registry()) {
      std::string fault;
      if (e.make({}, fault)) texts.push_back(e.info.name);  // some stores need to be told what they turn
    }
    texts.push_back(m::Oracle::info.name);
  }
  for (const std::string& b : budgets)
    if (auto budget = kvist::Budget::parse(b); !budget)
      return usage(fmt::format("--budget '{}': {}", b, budget.error().what));
  std::vector<Contestant> out;
  const auto add = [&](Contestant c) {
    for (const Contestant& o : out)
      if (o.text == c.text) return;
    out.push_back(std::move(c));
  };
  for (const std::string& text : texts) {
    auto c = contestant(text);
    if (!c) return c.failure();
    const m::Clause* const target = evicting(c->spec.clauses);
    const bool wants_budget = c->evicts && !c->free_size && c->spec.budget.kind == kvist::Budget::Kind::none &&
                              target && !m::has_tolerance(*target);
    if (!wants_budget) {
      add(*std::move(c));
      continue;
    }
    if (budgets.empty())
      return usage(
          fmt::format("'{}' evicts and needs a budget: {}:budget=20% (run takes --budget for all, too)", text,
                      target->name));
    for (const std::string& b : budgets) {
      auto filled = contestant(with_budget(*c, b));
      if (!filled) return filled.failure();
      add(*std::move(filled));
    }
  }
  return out;
}

Outcome<m::MadeSpec> Contestant::make(kvist::Index question) const {
  m::Spec s = spec;
  std::string fault;
  auto made = m::make(s, fault);
  if (!made) return failed(fault.empty() ? std::string(made.error().what) : fault);
  if (question <= 0 || !evicts) return *std::move(made);
  // `window` is the observed window where the policy asks for that many queries (it may be a period, too). It is then
  // what the policy guards as well, so the question needs no other protection there.
  bool windowed = false;
  m::Clause* const target = evicting(s.clauses);
  if (target && !oracle) {
    const auto window = number(*target, "window");
    windowed = window && made->policy.with({}).wants().last_queries == *window;
    if (windowed) {
      set(*target, "window", question);
      made = m::make(s, fault);
      if (!made) return failed(fault.empty() ? std::string(made.error().what) : fault);
    }
  }
  kvist::PolicySettings settings = made->policy.settings();
  if (windowed) settings.at_least.recent += question;
  else settings.on_top = question;
  made->policy = made->policy.with(settings);
  return *std::move(made);
}

const std::vector<m::Entry>& all_methods() { return m::registry(); }

Outcome<m::StoreFactory> plain_store(const std::string& name) {
  std::string fault;
  const m::Entry* const entry = m::find(name);
  if (!entry || !entry->store) return failed(fmt::format("there is no store '{}'", name));
  auto made = entry->make({}, fault);
  if (!made) return failed(fmt::format("store '{}'", name), made.error());
  return std::move(made->stores);
}

m::StoreFactory default_stores() {
  return [](const kvist::Shape& s, int, int) {
    std::vector<kvist::AnyStore> one;
    one.emplace_back(kvist::DenseStore<float>(s.dim_k, s.dim_v));
    return one;
  };
}

}  // namespace kvist_eval
