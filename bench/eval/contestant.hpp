#pragma once
// SPDX-License-Identifier: Apache-2.0
#include "outcome.hpp"

#include <kvist/methods/spec.hpp>

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace kvist_eval {

/// A SPEC as it takes part in a run: looked up, its budget filled in.
struct Contestant {
  std::string text;  ///< as results name it
  kvist::methods::Spec spec;
  bool evicts = false, oracle = false;
  bool free_size = false;  ///< evicts without a budget
  std::string store;       ///< the SPEC's clauses that name stores; empty: the tool's default (f32)

  /// Policy and stores anew. `question` > 0: the prompt ends with a question of so many tokens, whose entries stay on top
  /// of budget and guards (PolicySettings::on_top): what a method splits is the budget without them, as H2O its halves.
  /// Methods that look at a window look at the question, which is what they guard then.
  Outcome<kvist::methods::MadeSpec> make(kvist::Index question = 0) const;
};

/// The SPECs of a run. `all` stands for every name of the registry; a SPEC that evicts and names no budget is
/// there once for each of `budgets`. Fails with a usage error that lists the valid names, or says that a
/// budget is missing.
Outcome<std::vector<Contestant>> contestants(const std::vector<std::string>& specs,
                                             const std::vector<std::string>& budgets);

/// methods::registry(), compiled in one place.
const std::vector<kvist::methods::Entry>& all_methods();

/// A store of the registry with its default options.
Outcome<kvist::methods::StoreFactory> plain_store(const std::string& name);

/// Stores of a contestant that names none: exact f32 rows, so that keeping everything is exact.
kvist::methods::StoreFactory default_stores();

}  // namespace kvist_eval
