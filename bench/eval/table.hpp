#pragma once
// SPDX-License-Identifier: Apache-2.0
#include "results.hpp"

#include <kvist/io/table.hpp>

#include <span>
#include <string>
#include <vector>

namespace kvist_eval {

/// Rows of one task and context as a table for people, and what stands above it.
struct ResultTable {
  std::string title;
  kvist::Table table;
  std::vector<const Json*> rows;  ///< those of the table, in its order
};

/// One table for each (task, context, question, decode) of the rows, in their order.
std::vector<ResultTable> result_tables(std::span<const Json> rows);

/// The whole run as one HTML page: circumstances, command, plots of loss against bytes, tables.
std::string report_html(const Json& document, const std::string& command_line, std::span<const Json> rows);

}  // namespace kvist_eval
