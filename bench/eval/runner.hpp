#pragma once
// SPDX-License-Identifier: Apache-2.0
#include "contestant.hpp"
#include "engine.hpp"
#include "places.hpp"
#include "progress.hpp"
#include "results.hpp"

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace kvist_eval {

/// What `run` was asked for.
struct RunSettings {
  std::vector<std::string> tasks;
  std::vector<Index> contexts;
  std::vector<Contestant> contestants;
  Index samples = 8;
  std::map<Index, Index> windows;  ///< of fidelity at a context where the text has fewer than `samples`
  Index chunk = 0;                 ///< tokens of each call of a prompt; 0: at once
  bool seen = false, live = false;
  std::uint64_t seed = 1;
};

/// Runs what the results lack, task by task and context by context. The full cache's run of each sample is
/// shared by all policies, and the rows of a policy are saved as soon as its last sample is done.
Outcome<Good> run_all(Engine& engine, const NamedText& text, const RunSettings& settings, Results& results,
                      Progress& progress);

/// The key of a contestant's row.
RowKey row_key(const RunSettings& settings, const NamedText& text, const std::string& task, Index context,
               const std::string& policy);

}  // namespace kvist_eval
