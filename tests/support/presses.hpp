#pragma once
// SPDX-License-Identifier: Apache-2.0
// Reference values of NVIDIA/kvpress over one prompt: what each press kept and how it scored, and the
// prompt's recorded queries, keys and values of three layers.
#include <kvist/io/json.hpp>

#include "support/recorded.hpp"

namespace kvist::test {

/// One press at one share removed.
struct Press {
  std::string name;
  double ratio = 0;
  std::size_t run = 0;  ///< row of the arrays
};

class Presses {
 public:
  explicit Presses(const std::string& prompt)
      : prompt_(prompt),
        kept_(recorded("model/presses/" + prompt + "/kept")),
        gap_(recorded("model/presses/" + prompt + "/gap")) {
    auto text = read_file(*golden_path() + "/model/presses/manifest.json");
    REQUIRE(text);
    auto json = Json::parse(*text);
    REQUIRE(json);
    manifest_ = (*json)["prompts"][prompt];
    tokens_ = Index(manifest_["T"].as_int());
    REQUIRE(tokens_ > 0);
  }

  Index tokens() const { return tokens_; }
  /// Entries kept at a share removed, by kvpress's rule: int(T * (1 - ratio)) in double.
  Index budget(double ratio) const { return Index(double(tokens_) * (1 - ratio)); }

  std::vector<Press> runs(const std::string& name) const {
    std::vector<Press> out;
    for (const Json& r : manifest_["runs"].elements())
      if (r["press"].as_string() == name)
        out.push_back({name, r["ratio"].as_double(), std::size_t(r["run"].as_int())});
    REQUIRE(!out.empty());
    return out;
  }
  /// Positions that one head kept.
  std::vector<Pos> kept(const Press& p, int layer, int head) const {
    const std::size_t bytes = kept_.dim(3),
                      first = ((p.run * kept_.dim(1) + std::size_t(layer)) * 3 + std::size_t(head)) * bytes;
    std::vector<Pos> out;
    for (Pos j = 0; j < tokens_; ++j)
      if (int(kept_.at(first + std::size_t(j / 8))) >> (j % 8) & 1) out.push_back(j);
    return out;
  }
  /// Smallest kept minus largest dropped score of one head.
  float gap(const Press& p, int layer, int head) const {
    return gap_.at(p.run, std::size_t(layer), std::size_t(head));
  }
  /// Scores [T] of one head of layer 0, 14 or 29 by a press; `ratio`: which of its runs, in order.
  Row scores(const std::string& name, std::size_t ratio, int layer, int head) const {
    const Tensor all = recorded("model/presses/" + prompt_ + "/scores/" + name);
    const std::size_t n = std::size_t(tokens_), l = layer == 0 ? 0 : layer == 14 ? 1 : 2;
    const auto first = all.data.begin() + std::ptrdiff_t(((ratio * 3 + l) * 3 + std::size_t(head)) * n);
    return Row(first, first + tokens_);
  }

  /// A recorded layer with the queries of its last `window` tokens as evidence.
  SmallLayer layer(int l, std::size_t window) const {
    const std::string at = "model/layers/" + prompt_ + "/layer" + std::to_string(l);
    const Tensor q = recorded(at + "_q"), k = recorded(at + "_k"), v = recorded(at + "_v");
    SmallLayer layer(Shape{30, 9, 3, 64, 64});
    append_recorded(layer, k, &v, 0, std::size_t(tokens_));
    give_recorded_queries(layer, q, std::size_t(tokens_) - window, window);
    return layer;
  }

 private:
  std::string prompt_;
  Tensor kept_, gap_;
  Json manifest_;
  Index tokens_ = 0;
};

}  // namespace kvist::test
