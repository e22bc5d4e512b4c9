// SPDX-License-Identifier: Apache-2.0
// LazyEviction against its published code (form=code) and its formula (form=paper) over 400 recorded decode
// steps.
#include <kvist/methods/lazy_eviction.hpp>

#include "support/recorded.hpp"

using namespace kvist;
using namespace kvist::test;

namespace {

struct Case {
  const char* name;
  int layer;
  Index budget, window;
  double alpha;
};

/// One query head over its own survivors; after an event that a tie or rounding decided, goes on from the
/// stored set.
void compare(const Case& c, RecurrenceForm form, std::size_t head) {
  const std::string at =
      std::string("official/lazyeviction/") + (form == RecurrenceForm::code ? "code" : "paper") + c.name;
  const std::string layer_name = c.layer == 11 ? "11" : "20";
  const Tensor k = recorded("official/inputs/k" + layer_name), q = recorded("official/inputs/q" + layer_name);
  const Tensor steps = recorded(at + "_steps"), kept = recorded(at + "_kept"),
               margin = recorded(at + "_margin");
  std::optional<Tensor> last, longest;
  if (form == RecurrenceForm::code) last = recorded(at + "_last"), longest = recorded(at + "_mri");

  const auto policy = *methods::LazyEviction::make({c.window, c.alpha, form, Reduce::max});
  const Shape shape{1, 1, 1, 64, 64};
  auto state = *policy.start(shape);
  SmallLayer layer(shape);
  const Row zero(64);
  for (std::size_t t = 0; t < 128; ++t) layer.append(0, k.row(head, t), zero, Pos(t));
  run_call(policy, state, layer, prompt_clock(c.budget));
  std::size_t event = 0, exact = 0;
  for (std::size_t n = 1; n <= 400; ++n) {
    const std::size_t t = 127 + n;
    layer.append(0, k.row(head, t), zero, Pos(t));
    layer.give_probs(0, {{attention_row(layer, 0, q.row(3 * head, t))}});
    const std::size_t before = std::size_t(layer.size());
    run_call(policy, state, layer, step_clock(Index(n), c.budget));
    if (std::size_t(layer.size()) == before) continue;
    INFO(at << " head " << head << " step " << n);
    REQUIRE(event < steps.dim(0));
    REQUIRE(float(n) == steps.at(event));
    REQUIRE(layer.size() == c.budget);
    const std::vector<Pos> want = kept.positions(event, head);
    auto& entries = state.layers[0].heads[0].entries;
    if (layer.pos[0] == want) {
      ++exact;
      if (last)
        for (std::size_t i = 0; i < entries.size(); ++i) {
          CHECK(float(entries[i].last) == last->at(event, head, i));
          CHECK(float(entries[i].longest) == longest->at(event, head, i));
        }
    } else {
      CHECK(margin.at(event, head) < 1e-5f);
      if (!last) return;  // no records to go on from
      layer.pos[0].clear();
      layer.k[0].clear();
      layer.v[0].clear();
      entries.clear();
      for (std::size_t i = 0; i < want.size(); ++i) {
        layer.append(0, k.row(head, std::size_t(want[i])), zero, want[i]);
        entries.push_back({Index(last->at(event, head, i)), Index(longest->at(event, head, i))});
      }
    }
    ++event;
  }
  CHECK(event == steps.dim(0));
  CHECK(exact > 0);
}

}  // namespace

TEST_CASE("LazyEviction keeps what its published code and its formula keep", "[golden][LazyEviction]") {
  if (!have_recorded("official/lazyeviction")) KVIST_SKIP("reference values");
  for (const Case& c : {Case{"_l11_b160_w32", 11, 160, 32, 5e-4}, {"_l20_b144_w25", 20, 144, 25, 5e-3}})
    for (std::size_t head = 0; head < 3; ++head) {
      compare(c, RecurrenceForm::code, head);
      compare(c, RecurrenceForm::paper, head);
    }
}
