#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/version.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace kvist::inline KVIST_ABI {

/// A table of texts, for terminals (aligned columns) and for reports.
struct Table {
  enum class Align : std::uint8_t { left, right };
  struct Column {
    std::string name;
    Align align = Align::left;
  };
  std::vector<Column> columns;
  std::vector<std::vector<std::string>> rows;  ///< [rows][columns]; missing cells are empty

  /// Lines of aligned columns, two blanks between them, a rule under the head. Characters count, not bytes.
  std::string text() const {
    std::vector<std::size_t> width;
    for (const Column& c : columns) width.push_back(length(c.name));
    for (const auto& row : rows)
      for (std::size_t i = 0; i < std::min(row.size(), width.size()); ++i)
        width[i] = std::max(width[i], length(row[i]));
    std::vector<std::string> head;
    std::string rule;
    for (std::size_t i = 0; i < columns.size(); ++i) {
      head.push_back(columns[i].name);
      rule += (i ? "  " : "") + std::string(width[i], '-');
    }
    std::string out = line(head, width) + rule + "\n";
    for (const auto& row : rows) out += line(row, width);
    return out;
  }

 private:
  static std::size_t length(std::string_view s) {
    std::size_t n = 0;
    for (const char c : s) n += (static_cast<unsigned char>(c) & 0xC0u) != 0x80u;
    return n;
  }
  std::string line(const std::vector<std::string>& cells, const std::vector<std::size_t>& width) const {
    std::string out;
    for (std::size_t i = 0; i < columns.size(); ++i) {
      const std::string_view cell = i < cells.size() ? std::string_view(cells[i]) : std::string_view{};
      const std::string pad(width[i] - length(cell), ' ');
      if (i) out += "  ";
      if (columns[i].align == Align::right) out += pad;
      out += cell;
      if (columns[i].align == Align::left) out += pad;
    }
    out.erase(out.find_last_not_of(' ') + 1);
    return out + "\n";
  }
};

}  // namespace kvist::inline KVIST_ABI
