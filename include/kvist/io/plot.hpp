#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/version.hpp>
#include <kvist/io/html.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <string>
#include <vector>

namespace kvist::inline KVIST_ABI {

/// One point of a plot with its interval in y.
struct PlotPoint {
  double x = 0, y = 0;
  double lo = 0, hi = 0;  ///< no interval where equal
  std::string note;       ///< shown when the pointer rests on it
};

/// Points of one kind, joined by a line in the order of x.
struct PlotSeries {
  std::string name;
  std::vector<PlotPoint> points;
  bool reference = false;  ///< drawn in grey and dashed: anchors that others are measured against
};

/// A scatter plot as SVG text, logarithmic in x and, if wanted, in y. Colours are classes of the page that it
/// stands in (html.hpp).
struct Plot {
  std::string title, x_label, y_label;
  std::vector<PlotSeries> series;
  int width = 860, height = 500;
  bool log_y = true;
  double lo = 0, hi = 1;  ///< ends of a linear y axis
  double line_x = 0;      ///< > 0: a vertical line there, named line_name
  std::string line_name;

  /// Points that a logarithm has no place for (not above 0) are left out. Empty where none is left.
  std::string svg() const;

  static constexpr int colours = 8;
  /// The mark of a series, centred at (x, y): eight colours, then other shapes.
  static std::string mark(std::size_t series, bool reference, double x, double y, double r = 5) {
    const std::string paint = reference ? "ref" : fmt::format("c{}", series % colours);
    switch (series / colours % 3) {
      case 0:
        return fmt::format("<circle class='{}' cx='{:.1f}' cy='{:.1f}' r='{:.1f}'/>", paint, x, y, r);
      case 1:
        return fmt::format("<rect class='{}' x='{:.1f}' y='{:.1f}' width='{:.1f}' height='{:.1f}'/>", paint,
                           x - 0.9 * r, y - 0.9 * r, 1.8 * r, 1.8 * r);
      default:
        return fmt::format("<path class='{}' d='M{:.1f} {:.1f}l{:.1f} {:.1f}h{:.1f}z'/>", paint, x,
                           y - 1.15 * r, 1.15 * r, 2.1 * r, -2.3 * r);
    }
  }

 private:
  struct Axis {
    double lo = 0, hi = 1;  // log10 of the value, or the value
    double from = 0, to = 1;
    bool log = true;
    double at(double value) const {
      return from + ((log ? std::log10(value) : value) - lo) / (hi - lo) * (to - from);
    }
  };
  static std::vector<double> ticks(const Axis& axis) {
    std::vector<double> out;
    if (!axis.log) {
      for (int i = 0; i <= 5; ++i) out.push_back(axis.lo + (axis.hi - axis.lo) * i / 5);
      return out;
    }
    const double steps[] = {1, 2, 5};
    const bool dense = axis.hi - axis.lo < 2.5;
    for (int e = int(std::floor(axis.lo)); e <= int(std::ceil(axis.hi)); ++e)
      for (const double s : steps) {
        const double v = s * std::pow(10.0, e);
        if ((dense || s == 1) && std::log10(v) >= axis.lo - 1e-9 && std::log10(v) <= axis.hi + 1e-9)
          out.push_back(v);
      }
    return out;
  }
  static std::string number(double v) {
    if (v == 0) return "0";
    if (v >= 1e15 || v < 1e-4) return fmt::format("{:.0e}", v);
    const char* const units[] = {"", "k", "M", "G", "T"};
    int u = 0;
    while (v >= 999.5 && u < 4) {
      v /= 1000;
      ++u;
    }
    return fmt::format("{:g}{}", v, units[u]);
  }
  struct Label {
    double x, y;  // of the mark
    std::string text, paint;
  };
  static std::string names(std::vector<Label> labels, double column, double right, double top, double bottom);
};

inline std::string Plot::svg() const {
  const auto drawn = [&](const PlotPoint& p) {
    return p.x > 0 && (!log_y || p.y > 0) && std::isfinite(p.x) && std::isfinite(p.y);
  };
  const auto interval = [&](const PlotPoint& p) { return p.hi > p.lo && (!log_y || p.lo > 0); };
  Axis x{1e300, -1e300, 74, double(width) - 24, true}, y{1e300, -1e300, double(height) - 58, 44, log_y};
  for (const PlotSeries& s : series)
    for (const PlotPoint& p : s.points) {
      if (!drawn(p)) continue;
      x.lo = std::min(x.lo, std::log10(p.x));
      x.hi = std::max(x.hi, std::log10(p.x));
      if (!log_y) continue;
      y.lo = std::min(y.lo, std::log10(interval(p) ? p.lo : p.y));
      y.hi = std::max(y.hi, std::log10(interval(p) ? p.hi : p.y));
    }
  if (x.lo > x.hi) return {};
  if (line_x > 0) {
    x.lo = std::min(x.lo, std::log10(line_x));
    x.hi = std::max(x.hi, std::log10(line_x));
  }
  const bool crowded = series.size() > 8;
  if (crowded) {  // names stand in a column of their own
    std::size_t longest = 0;
    for (const PlotSeries& s : series) longest = std::max(longest, s.name.size());
    x.to -= 7.2 * double(longest);
  }
  for (Axis* a : {&x, &y}) {
    if (!a->log) {
      a->lo = lo;
      a->hi = hi;
      continue;
    }
    const double room = std::max(0.08 * (a->hi - a->lo), a == &x ? 0.12 : 0.08);
    a->lo -= room;
    a->hi += room;
  }
  std::string out = fmt::format("<svg viewBox='0 0 {} {}' role='img' aria-label='{}' class='plot'>\n", width,
                                height, escape_html(title));
  out += fmt::format("<text class='title' x='{}' y='22'>{}</text>\n", x.from, escape_html(title));
  for (const double v : ticks(x))
    out += fmt::format(
        "<path class='grid' d='M{0:.1f} {1:.1f}V{2:.1f}'/><text class='tick' x='{0:.1f}' y='{3:.1f}' "
        "text-anchor='middle'>{4}</text>\n",
        x.at(v), y.from, y.to, y.from + 18, number(v));
  for (const double v : ticks(y))
    out += fmt::format(
        "<path class='grid' d='M{0:.1f} {1:.1f}H{2:.1f}'/><text class='tick' x='{3:.1f}' y='{4:.1f}' "
        "text-anchor='end'>{5}</text>\n",
        x.from, y.at(v), x.to, x.from - 8, y.at(v) + 4, number(v));
  out += fmt::format("<path class='axis' d='M{0:.1f} {1:.1f}V{2:.1f}H{3:.1f}'/>\n", x.from, y.to, y.from, x.to);
  out += fmt::format("<text class='label' x='{:.1f}' y='{}' text-anchor='middle'>{}</text>\n",
                     (x.from + x.to) / 2, height - 14, escape_html(x_label));
  out += fmt::format(
      "<text class='label' transform='translate(18 {:.1f}) rotate(-90)' text-anchor='middle'>{}</text>\n",
      (y.from + y.to) / 2, escape_html(y_label));

  if (line_x > 0)
    out += fmt::format(
        "<path class='line ref dashed' d='M{0:.1f} {1:.1f}V{2:.1f}'/><text class='tick' x='{3:.1f}' "
        "y='{4:.1f}' "
        "text-anchor='end'>{5}</text>\n",
        x.at(line_x), y.from, y.to, x.at(line_x) - 6, y.to + 12, escape_html(line_name));

  // Single points of nearly equal x stand side by side, so that their intervals can be told apart.
  std::vector<double> aside(series.size(), 0.0);
  const auto single = [&](std::size_t i) { return series[i].points.size() == 1 && drawn(series[i].points[0]); };
  std::vector<char> placed(series.size(), 0);
  for (std::size_t i = 0; i < series.size(); ++i) {
    if (placed[i] || !single(i)) continue;
    std::vector<std::size_t> group;
    for (std::size_t j = i; j < series.size(); ++j)
      if (single(j) && !placed[j] && std::abs(x.at(series[j].points[0].x) - x.at(series[i].points[0].x)) < 4)
        group.push_back(j);
    std::stable_sort(group.begin(), group.end(), [&](std::size_t a, std::size_t b) {
      return series[a].points[0].y > series[b].points[0].y;
    });
    for (std::size_t r = 0; r < group.size(); ++r) {
      placed[group[r]] = 1;
      aside[group[r]] =
          (double(r) - 0.5 * double(group.size() - 1)) * std::min(22.0, 200.0 / double(group.size()));
    }
  }

  std::vector<Label> labels;
  for (std::size_t i = 0; i < series.size(); ++i) {
    const PlotSeries& s = series[i];
    std::vector<PlotPoint> points;
    for (const PlotPoint& p : s.points)
      if (drawn(p)) points.push_back(p);
    if (points.empty()) continue;
    std::stable_sort(points.begin(), points.end(),
                     [](const PlotPoint& a, const PlotPoint& b) { return a.x < b.x; });
    const std::string paint = s.reference ? "ref" : fmt::format("c{}", i % colours);
    if (points.size() > 1) {
      out += fmt::format("<path class='line {}{}' d='", paint, s.reference ? " dashed" : "");
      for (std::size_t j = 0; j < points.size(); ++j)
        out += fmt::format("{}{:.1f} {:.1f}", j ? "L" : "M", x.at(points[j].x), y.at(points[j].y));
      out += "'/>\n";
    }
    for (const PlotPoint& p : points) {
      const double at = x.at(p.x) + aside[i];
      if (interval(p) && (!crowded || points.size() == 1))  // else the table has them
        out += fmt::format("<path class='line {0}' d='M{1:.1f} {2:.1f}V{3:.1f}'/>", paint, at, y.at(p.lo),
                           y.at(p.hi));
      out += fmt::format("<g>{}<title>{}</title></g>\n", mark(i, s.reference, at, y.at(p.y)),
                         escape_html(p.note.empty() ? s.name : p.note));
    }
    const PlotPoint& last = points.back();
    labels.push_back({x.at(last.x) + aside[i], y.at(last.y), s.name, paint});
  }
  return out + names(std::move(labels), crowded ? x.to + 14 : 0, x.to, y.to, y.from) + "</svg>\n";
}

/// Names of series at their last points, or in a column at `column`; moved up and down as little as it takes
/// to be read.
inline std::string Plot::names(std::vector<Label> labels, double column, double right, double top,
                               double bottom) {
  double line = 14;
  std::stable_sort(labels.begin(), labels.end(), [](const Label& a, const Label& b) { return a.y < b.y; });
  struct Cluster {
    double sum = 0;  // of wanted first lines
    std::size_t first = 0, count = 0;
    double start() const { return sum / double(count); }
  };
  std::vector<Cluster> clusters;
  for (std::size_t i = 0; i < labels.size(); ++i) {
    clusters.push_back({labels[i].y, i, 1});
    while (clusters.size() > 1) {
      Cluster &a = clusters[clusters.size() - 2], &b = clusters.back();
      if (a.start() + line * double(a.count) <= b.start()) break;
      a.sum += b.sum - line * double(a.count) * double(b.count);
      a.count += b.count;
      clusters.pop_back();
    }
  }
  if (column > 0) {  // one after another over the whole height
    clusters.assign(1, Cluster{0, 0, labels.size()});
    line = std::min(line, (bottom - top) / double(std::max<std::size_t>(1, labels.size() - 1)));
  }
  std::string out;
  for (const Cluster& c : clusters) {
    const double height = line * double(c.count - 1);
    const double start = std::max(top, std::min(c.start(), bottom - height));
    for (std::size_t j = 0; j < c.count; ++j) {
      const Label& l = labels[c.first + j];
      const double y = start + line * double(j);
      const bool left = column <= 0 && l.x + 12 + 7.2 * double(l.text.size()) > right + 20;
      const double x = column > 0 ? column : left ? l.x - 12 : l.x + 12;
      if (column > 0 || std::abs(y - l.y) > 5)
        out += fmt::format("<path class='lead' d='M{:.1f} {:.1f}L{:.1f} {:.1f}'/>", left ? l.x - 6 : l.x + 6,
                           l.y, left ? x + 2 : x - 2, y);
      out += fmt::format("<text class='name {}' x='{:.1f}' y='{:.1f}'{}>{}</text>\n", l.paint, x, y + 4,
                         left ? " text-anchor='end'" : "", escape_html(l.text));
    }
  }
  return out;
}

}  // namespace kvist::inline KVIST_ABI
