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

/// A scatter plot as SVG text, logarithmic in x and, if wanted, in y. Colours are classes of the page that it stands in (html.hpp).
struct Plot {
  std::string title, x_label, y_label;
  std::vector<PlotSeries> series;
  int width = 860, height = 500;
  bool log_y = true;
  double lo = 0, hi = 1;  ///< ends of a linear y axis

  /// Points that a logarithm has no place for (not above 0) are left out. Empty where none is left.
  std::string svg() const;

  static constexpr int colours = 8;
  /// The mark of a series, centred at (x, y): eight colours, then other shapes.
  static std::string mark(std::size_t series, bool reference, double x, double y, double r = 5) {
    const std::string paint = reference ? "ref" : fmt::format("c{}", series % colours);
    switch (series / colours % 3) {
      case 0: return fmt::format("<circle class='{}' cx='{:.1f}' cy='{:.1f}' r='{:.1f}'/>", paint, x, y, r);
      case 1:
        return fmt::format("<rect class='{}' x='{:.1f}' y='{:.1f}' width='{:.1f}' height='{:.1f}'/>", paint, x - 0.9 * r,
                           y - 0.9 * r, 1.8 * r, 1.8 * r);
      default:
        return fmt::format("<path class='{}' d='M{:.1f} {:.1f}l{:.1f} {:.1f}h{:.1f}z'/>", paint, x, y - 1.15 * r,
                           1.15 * r, 2.1 * r, -2.3 * r);
    }
  }

 private:
  struct Axis {
    double lo = 0, hi = 1;  // log10 of the value, or the value
    double from = 0, to = 1;
    bool log = true;
    double at(double value) const { return from + ((log ? std::log10(value) : value) - lo) / (hi - lo) * (to - from); }
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
        if ((dense || s == 1) && std::log10(v) >= axis.lo - 1e-9 && std::log10(v) <= axis.hi + 1e-9) out.push_back(v);
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
    double x, y, width;
    std::string text, paint;
    bool left;
  };
  static bool overlap(const Label& a, const Label& b) {
    const double a0 = a.left ? a.x - a.width : a.x, b0 = b.left ? b.x - b.width : b.x;
    return std::abs(a.y - b.y) < 13 && a0 < b0 + b.width + 4 && b0 < a0 + a.width + 4;
  }
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
  std::string out = fmt::format("<svg viewBox='0 0 {} {}' role='img' aria-label='{}' class='plot'>\n", width, height,
                                escape_html(title));
  out += fmt::format("<text class='title' x='{}' y='22'>{}</text>\n", x.from, escape_html(title));
  for (const double v : ticks(x))
    out += fmt::format("<path class='grid' d='M{0:.1f} {1:.1f}V{2:.1f}'/><text class='tick' x='{0:.1f}' y='{3:.1f}' "
                       "text-anchor='middle'>{4}</text>\n",
                       x.at(v), y.from, y.to, y.from + 18, number(v));
  for (const double v : ticks(y))
    out += fmt::format("<path class='grid' d='M{0:.1f} {1:.1f}H{2:.1f}'/><text class='tick' x='{3:.1f}' y='{4:.1f}' "
                       "text-anchor='end'>{5}</text>\n",
                       x.from, y.at(v), x.to, x.from - 8, y.at(v) + 4, number(v));
  out += fmt::format("<path class='axis' d='M{0:.1f} {1:.1f}V{2:.1f}H{3:.1f}'/>\n", x.from, y.to, y.from, x.to);
  out += fmt::format("<text class='label' x='{:.1f}' y='{}' text-anchor='middle'>{}</text>\n", (x.from + x.to) / 2,
                     height - 14, escape_html(x_label));
  out += fmt::format("<text class='label' transform='translate(18 {:.1f}) rotate(-90)' text-anchor='middle'>{}</text>\n",
                     (y.from + y.to) / 2, escape_html(y_label));

  std::vector<Label> labels;
  for (std::size_t i = 0; i < series.size(); ++i) {
    const PlotSeries& s = series[i];
    std::vector<PlotPoint> points;
    for (const PlotPoint& p : s.points)
      if (drawn(p)) points.push_back(p);
    if (points.empty()) continue;
    std::stable_sort(points.begin(), points.end(), [](const PlotPoint& a, const PlotPoint& b) { return a.x < b.x; });
    const std::string paint = s.reference ? "ref" : fmt::format("c{}", i % colours);
    if (points.size() > 1) {
      out += fmt::format("<path class='line {}{}' d='", paint, s.reference ? " dashed" : "");
      for (std::size_t j = 0; j < points.size(); ++j)
        out += fmt::format("{}{:.1f} {:.1f}", j ? "L" : "M", x.at(points[j].x), y.at(points[j].y));
      out += "'/>\n";
    }
    for (const PlotPoint& p : points) {
      if (interval(p))
        out += fmt::format("<path class='line {0}' d='M{1:.1f} {2:.1f}V{3:.1f}'/>", paint, x.at(p.x), y.at(p.lo), y.at(p.hi));
      out += fmt::format("<g>{}<title>{}</title></g>\n", mark(i, s.reference, x.at(p.x), y.at(p.y)),
                         escape_html(p.note.empty() ? s.name : p.note));
    }
    const PlotPoint& last = points.back();
    labels.push_back({x.at(last.x) + 10, y.at(last.y) + 4, 6.4 * double(s.name.size()), s.name, paint, false});
    if (labels.back().x + labels.back().width > x.to + 16) {
      labels.back().left = true;
      labels.back().x -= 20;
    }
  }
  // From the top down, a label that would cover another moves below it; a thin line leads back to its point.
  std::stable_sort(labels.begin(), labels.end(), [](const Label& a, const Label& b) { return a.y < b.y; });
  for (std::size_t i = 0; i < labels.size(); ++i) {
    const double wanted = labels[i].y;
    for (bool moved = true; moved;) {
      moved = false;
      for (std::size_t j = 0; j < i; ++j)
        if (overlap(labels[i], labels[j])) {
          labels[i].y = labels[j].y + 13.5;
          moved = true;
        }
    }
    const Label& l = labels[i];
    if (l.y > wanted + 6)
      out += fmt::format("<path class='lead' d='M{:.1f} {:.1f}L{:.1f} {:.1f}'/>", l.left ? l.x + 6 : l.x - 6, wanted - 3,
                         l.left ? l.x + 1 : l.x - 1, l.y - 4);
    out += fmt::format("<text class='name {}' x='{:.1f}' y='{:.1f}'{}>{}</text>\n", l.paint, l.x, l.y,
                       l.left ? " text-anchor='end'" : "", escape_html(l.text));
  }
  return out + "</svg>\n";
}

}  // namespace kvist::inline KVIST_ABI
