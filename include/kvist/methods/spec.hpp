#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/methods/anchors.hpp>
#include <kvist/methods/full.hpp>
#include <kvist/methods/registry.hpp>
#include <kvist/methods/rotated.hpp>
#include <kvist/methods/stores.hpp>
#include <kvist/policy/budget/budget.hpp>

#include <charconv>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace kvist::inline KVIST_ABI {
namespace methods {

/// `NAME:option=value,...`: one method or store of a SPEC, its budget taken out.
struct Clause {
  std::string name;
  std::vector<OptionText> options;
};

/// Does a tolerance stand for the budget? 0, the default, does not.
inline bool has_tolerance(const Clause& clause) {
  for (const auto& [name, value] : clause.options)
    if (name == "tolerance") {
      double x = 0;
      const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), x);
      return error != std::errc{} || x != 0;  // what is no number is refused by who reads it
    }
  return false;
}

/// What a SPEC says: clauses joined by '+', and the budget that one of them named.
struct Spec {
  std::string text;
  std::vector<Clause> clauses;
  Budget budget;
};

/// A policy with the stores that its SPEC asks for (none: the caller's default).
struct MadeSpec {
  AnyPolicy policy;
  StoreFactory stores;
  bool evicts = false;
  bool shares = false;  ///< layers share what is stored
  bool oracle = false;  ///< the caller must hand in scores: until then `policy` has the settings alone
};

namespace detail {

/// Splits at `separator` outside parentheses.
inline std::vector<std::string_view> split(std::string_view s, char separator) {
  std::vector<std::string_view> out;
  int depth = 0;
  std::size_t begin = 0;
  for (std::size_t i = 0; i < s.size(); ++i) {
    depth += s[i] == '(' ? 1 : s[i] == ')' ? -1 : 0;
    if (s[i] == separator && depth == 0) {
      out.push_back(s.substr(begin, i - begin));
      begin = i + 1;
    }
  }
  out.push_back(s.substr(begin));
  return out;
}

/// The text between the parentheses of `name(...)`, where `clause` is that.
inline std::optional<std::string_view> inside(std::string_view clause, std::string_view name) {
  if (clause.size() < name.size() + 2 || clause.substr(0, name.size()) != name ||
      clause[name.size()] != '(' || clause.back() != ')')
    return std::nullopt;
  return clause.substr(name.size() + 1, clause.size() - name.size() - 2);
}

}  // namespace detail

/// Reads the grammar alone; names and options are looked up by make(). `fault` gets a sentence where it fails.
/// Fails with: bad_option.
inline Result<Spec> parse_spec(std::string_view text, std::string& fault) {
  const auto wrong = [&](std::string why) {
    fault = "SPEC '" + std::string(text) + "': " + std::move(why);
    return Error{Errc::bad_option, "a SPEC is NAME:option=value,... joined by +"};
  };
  Spec spec;
  spec.text = std::string(text);
  for (const std::string_view part : detail::split(text, '+')) {
    const std::size_t colon = part.find(':'), paren = part.find('(');
    const bool has_options = colon != part.npos && (paren == part.npos || colon < paren);
    Clause clause{std::string(has_options ? part.substr(0, colon) : part), {}};
    if (clause.name.empty()) return wrong("a name is missing");
    if (has_options) {
      for (const std::string_view option : detail::split(part.substr(colon + 1), ',')) {
        const std::size_t equals = option.find('=');
        if (equals == option.npos || equals == 0)
          return wrong("'" + std::string(option) + "' is not option=value");
        const std::string name(option.substr(0, equals)), value(option.substr(equals + 1));
        for (const auto& o : clause.options)
          if (o.first == name) return wrong("option '" + name + "' is given twice");
        if (name != "budget") {
          clause.options.emplace_back(name, value);
          continue;
        }
        const auto budget = Budget::parse(value);
        if (!budget) return wrong(budget.error().what);
        if (spec.budget.kind != Budget::Kind::none) return wrong("a budget is given twice");
        spec.budget = *budget;
      }
    }
    spec.clauses.push_back(std::move(clause));
  }
  return spec;
}

/// Looks names and options up and makes policy and stores. One policy at most; a SPEC of stores alone keeps everything.
/// `fault` gets a sentence that lists the valid names where it fails. Fails with: bad_option, not_found, what a method says.
/// `depth` counts the parentheses around the SPEC.
inline Result<MadeSpec> make(const Spec& spec, std::string& fault, int depth = 0) {
  if (depth > 8) {
    fault = "a SPEC is nested more than eight deep";
    return Error{Errc::bad_option, "a SPEC is nested more than eight deep", 8, depth};
  }
  std::optional<AnyPolicy> policy;
  StoreFactory stores;
  bool evicts = false, oracle = false, exact = false;
  std::function<StoreFactory(StoreFactory, bool)> share;
  for (const Clause& clause : spec.clauses) {
    if (clause.name == Oracle::info.name) {
      if (policy) {
        fault = "SPEC '" + spec.text + "' names two policies";
        return Error{Errc::bad_option, "a SPEC has at most one policy and one store"};
      }
      Oracle::Options options;
      ReadOptions read(clause.options);
      Oracle::fields(read, options);
      if (const std::string wrong = read.fault(); !wrong.empty()) {
        fault = clause.name + ": " + wrong;
        return Error{Errc::bad_option, "a method's options could not be read"};
      }
      policy = with_settings(Policy<Never>(), options.settings());
      evicts = oracle = true;
      continue;
    }
    if (const auto inner = detail::inside(clause.name, RotatedInner::info.name)) {
      if (!clause.options.empty() || stores) {
        fault =
            stores ? "SPEC '" + spec.text + "' names two stores" : "rotated takes no options, its store does";
        return Error{Errc::bad_option, "a SPEC has at most one policy and one store"};
      }
      auto parsed = parse_spec(*inner, fault);
      if (!parsed) return parsed.error();
      auto made = make(*parsed, fault, depth + 1);
      if (!made) return made.error();
      if (made->shares) {
        fault = "rotated(" + std::string(*inner) + "): sharing goes outside, as in MiniCache+rotated(int8)";
        return Error{Errc::bad_option, "rotated turns one layer's rows: sharing goes outside"};
      }
      if (detail::inside(parsed->clauses[0].name, RotatedInner::info.name)) {
        fault = "rotated(" + std::string(*inner) + ") turns rows twice, which is not at all";
        return Error{Errc::bad_option, "rotated in rotated turns nothing"};
      }
      if (!made->stores || made->evicts || parsed->clauses.size() != 1) {
        fault = "rotated(" + std::string(*inner) + ") wants one store in the parentheses";
        return Error{Errc::bad_option, "rotated wants one store in the parentheses"};
      }
      stores = RotatedInner::wrap(std::move(made->stores));
      continue;
    }
    const Entry* entry = find(clause.name);
    if (!entry) {
      fault = "unknown method or store '" + clause.name + "'; the names are";
      for (const Entry& e : registry()) fault += std::string(" ") + e.info.name;
      fault += " oracle";
      return Error{Errc::not_found, "a SPEC names an unknown method or store"};
    }
    auto made = entry->make(clause.options, fault);
    if (!made) {
      if (fault.empty()) fault = made.error().what;
      fault = clause.name + ": " + fault;
      return made.error();
    }
    if ((made->policy && policy) || (made->stores && stores) || (made->share && share)) {
      fault = "SPEC '" + spec.text + "' names two " + (made->policy && policy ? "policies" : "stores");
      return Error{Errc::bad_option, "a SPEC has at most one policy and one store"};
    }
    if (made->policy) {
      policy = std::move(made->policy);
      evicts = entry->evicts;
    }
    if (made->stores) {
      stores = std::move(made->stores);
      exact = clause.name == ExactF32::info.name;
    }
    if (made->share) share = std::move(made->share);
  }
  if (share) stores = share(std::move(stores), exact);
  if (spec.budget.kind != Budget::Kind::none)
    for (const Clause& clause : spec.clauses)
      if (has_tolerance(clause)) {
        fault = "SPEC '" + spec.text + "' gives a budget and a tolerance, which stands for one";
        return Error{Errc::bad_option, "a tolerance stands for the budget: give one of them"};
      }
  if (spec.budget.kind != Budget::Kind::none && policy && policy->free_size()) {
    fault = "SPEC '" + spec.text + "' gives a budget and a threshold, which stands for one";
    return Error{Errc::bad_option, "a threshold stands for the budget: give one of them"};
  }
  if (spec.budget.kind != Budget::Kind::none && !evicts) {
    fault = "SPEC '" + spec.text + "' gives a budget to what keeps everything";
    return Error{Errc::bad_option, "only methods that evict take a budget"};
  }
  return MadeSpec{policy ? std::move(*policy) : AnyPolicy(Policy<Never>()), std::move(stores), evicts,
                  share != nullptr, oracle};
}

}  // namespace methods
}  // namespace kvist::inline KVIST_ABI
