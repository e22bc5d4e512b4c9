#pragma once
// SPDX-License-Identifier: Apache-2.0
#include "outcome.hpp"

#include <kvist/core/types.hpp>
#include <kvist/io/json.hpp>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace kvist_eval {

using kvist::Index;
using kvist::Json;

/// What tells one result from another.
struct RowKey {
  std::string policy, task, text, text_sum, question, decode;
  Index context = 0, samples = 0;
  Index chunk = 0;  ///< of the prompt; 0: given at once
  std::uint64_t seed = 1;
};

/// The results of a run as its JSON file holds them. A file that exists is read first, so that a later run
/// adds what is missing; it is written anew (a file beside it, then renamed) after every row.
class Results {
 public:
  /// `path` may be empty: nothing is kept. Fails where the file exists and is not a result file of this
  /// model, this version of kvist and these kernels: its rows would stand for what was not measured.
  static Outcome<Results> open(std::string path, Json model, std::string isa);

  /// The finished row of that key, or null. Rows that ended in an error are not finished: they are tried
  /// again.
  const Json* find(const RowKey& key) const;
  /// Puts a row in its place, brings all comparisons up to date, and saves.
  Outcome<Good> put(const RowKey& key, Json row);

  const std::vector<Json>& rows() const { return rows_; }
  Json document() const;

  static Json row(const RowKey& key);  ///< with the members that name it
  static bool same(const Json& row, const RowKey& key);

 private:
  void compare();

  std::string path_, isa_;
  Json model_;
  std::vector<Json> rows_;
};

}  // namespace kvist_eval
