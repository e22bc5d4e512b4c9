// SPDX-License-Identifier: Apache-2.0
#include "score.hpp"

#include "progress.hpp"

#include <algorithm>
#include <cmath>

namespace kvist_eval {

using kvist::Evidence;
namespace compare = kvist::compare;

namespace {

/// Adds column sums over all query heads of each KV head to the masses of the prompt's entries.
void add_masses(kvist::ScoresByPosition& masses, const kvist::Shape& s, Index prompt, int layer,
                std::span<const Evidence> seen) {
  masses.kv_heads = s.kv_heads;
  masses.heads.resize(std::size_t(s.layers * s.kv_heads));
  for (std::size_t h = 0; h < seen.size(); ++h) {
    std::vector<float>& m = masses.heads[std::size_t(layer * s.kv_heads) + h];
    m.resize(std::size_t(prompt), 0.0f);
    for (int g = 0; g < seen[h].column_sums.g; ++g) {
      const auto row = seen[h].column_sums.row(g, 0);
      for (std::size_t i = 0; i < m.size(); ++i) m[i] += row[i];
    }
  }
}

const kvist::Wants masses_wanted{kvist::Needs::column_sums, kvist::Needs::none, 0};

/// Adds what tokens after the prompt attend to, in a pass of its own: a pass that wants evidence takes another way through
/// attention, which rounds differently from the one that policies are scored by.
Outcome<Good> watch(Engine& engine, Recording& prompt, std::span<const Token> ids,
                    kvist::ScoresByPosition& masses) {
  EvalCache cache(prompt.full, masses_wanted, [&](int layer, std::span<const Evidence> seen) {
    add_masses(masses, engine.shape(), prompt.size(), layer, seen);
  });
  Pass pass;
  pass.prompt = true;
  if (const auto done = engine.forward(ids, prompt.size(), cache, pass); !done)
    return failed("the full cache's evidence", done.error());
  prompt.full.truncate(prompt.size());
  return Good{};
}

/// Feeds tokens after the prompt: at once, or one by one as live decode steps.
kvist::Status feed(Engine& engine, Prepared& policy, std::span<const Token> ids, Pass pass, bool live) {
  EvalCache cache(policy.cache, policy.budget);
  const Pos first = policy.cache.next_position();
  if (!live) return engine.forward(ids, first, cache, pass);
  const Index n = Index(ids.size()), wanted = pass.logits < 0 ? n : pass.logits;
  for (Index i = 0; i < n; ++i) {
    Pass one;
    one.step = policy.steps + i + 1;
    one.logits = i >= n - wanted ? 1 : 0;
    one.on_logits = [&](Index, Index, std::span<const float> logits) { pass.on_logits(i, 1, logits); };
    one.on_attention = pass.on_attention;
    if (const auto done = engine.forward(ids.subspan(std::size_t(i), 1), first + i, cache, one); !done)
      return done;
  }
  return kvist::Done{};
}

/// The token that should follow token i of the window, and how many are known.
Token target(const kvist::tasks::TextWindow& w, std::size_t i) {
  return i + 1 < w.next.size() ? w.next[i + 1] : w.after;
}
std::size_t targets(const kvist::tasks::TextWindow& w) { return w.next.size() - (w.after < 0); }

/// Collects whether the rows' argmax are the payload; rows are the last of a pass of n tokens.
struct PayloadCheck {
  std::span<const Token> payload;
  Index first = 0;  ///< token of the pass after which payload[0] is expected
  bool right = true;
  void operator()(Index row, Index count, std::span<const float> logits) {
    const std::size_t vocabulary = logits.size() / std::size_t(count);
    for (Index i = 0; i < count; ++i) {
      const auto x = logits.subspan(std::size_t(i) * vocabulary, vocabulary);
      const Token top = Token(std::max_element(x.begin(), x.end()) - x.begin());
      right = right && top == payload[std::size_t(row + i - first)];
    }
  }
};

std::vector<Token> with_payload(std::span<const Token> feed, std::span<const Token> payload) {
  std::vector<Token> ids(feed.begin(), feed.end());
  ids.insert(ids.end(), payload.begin(), payload.end() - 1);
  return ids;
}

}  // namespace

Outcome<FullWindow> full_window(Engine& engine, Recording& prompt, const kvist::tasks::TextWindow& window) {
  const kvist::Shape& s = engine.shape();
  const std::size_t n = window.next.size(), vocabulary = std::size_t(engine.config().vocabulary);
  FullWindow out;
  out.logits.resize(n * vocabulary);
  out.rows.resize(n);
  out.attention.resize(std::size_t(s.layers));
  kvist::ScoresByPosition masses;
  if (auto done = watch(engine, prompt, window.next, masses); !done) return done.failure();
  EvalCache cache(prompt.full, 0);
  Pass pass;
  pass.logits = -1;
  pass.on_logits = [&](Index first, Index, std::span<const float> logits) {
    std::copy(logits.begin(), logits.end(),
              out.logits.begin() + std::ptrdiff_t(std::size_t(first) * vocabulary));
  };
  pass.on_attention = [&](int layer, std::span<const float> o) {
    out.attention[std::size_t(layer)].assign(o.begin(), o.end());
  };
  if (const auto done = engine.forward(window.next, prompt.size(), cache, pass); !done)
    return failed("the full cache's continuation", done.error());
  prompt.full.truncate(prompt.size());
  engine.pool().for_each(Index(n), [&](Index i) {
    out.rows[std::size_t(i)] =
        compare::summarise(std::span(out.logits).subspan(std::size_t(i) * vocabulary, vocabulary));
  });
  for (std::size_t i = 0; i < targets(window); ++i)
    out.nll -= compare::log_probability(std::span(out.logits).subspan(i * vocabulary, vocabulary),
                                        out.rows[i], target(window, i)) /
               double(targets(window));
  out.masses = std::make_shared<const kvist::ScoresByPosition>(std::move(masses));
  return out;
}

Outcome<WindowScore> score_window(Engine& engine, Prepared& policy, const kvist::tasks::TextWindow& window,
                                  const FullWindow& full, bool live) {
  const kvist::Shape& s = engine.shape();
  const std::size_t n = window.next.size(), vocabulary = std::size_t(engine.config().vocabulary);
  std::vector<double> kl(n), nll(n);
  std::vector<char> same(n);
  double error = 0;
  std::vector<Index> seen(std::size_t(s.layers), 0);  // tokens of each layer so far
  Pass pass;
  pass.logits = -1;
  pass.on_logits = [&](Index first, Index count, std::span<const float> logits) {
    engine.pool().for_each(count, [&](Index j) {
      const std::size_t i = std::size_t(first + j);
      const auto mine = logits.subspan(std::size_t(j) * vocabulary, vocabulary);
      const auto theirs = std::span(full.logits).subspan(i * vocabulary, vocabulary);
      const compare::LogitRow row = compare::summarise(mine);
      kl[i] = compare::divergence(theirs, full.rows[i], mine, row);
      same[i] = row.top == full.rows[i].top;
      if (i < targets(window)) nll[i] = -compare::log_probability(mine, row, target(window, i));
    });
  };
  pass.on_attention = [&](int layer, std::span<const float> out) {
    const std::size_t dv = std::size_t(s.dim_v), heads = out.size() / dv;
    const float* const o = out.data();
    const float* const f = full.attention[std::size_t(layer)].data() +
                           std::size_t(seen[std::size_t(layer)]) * std::size_t(s.q_heads) * dv;
    for (std::size_t h = 0; h < heads; ++h) {
      double difference = 0, size = 0;
      for (std::size_t c = 0; c < dv; ++c) {
        const double a = double(o[h * dv + c]), b = double(f[h * dv + c]);
        difference += (a - b) * (a - b);
        size += b * b;
      }
      if (size > 0) error += std::sqrt(difference / size);
    }
    seen[std::size_t(layer)] += Index(heads / std::size_t(s.q_heads));
  };
  if (const auto done = feed(engine, policy, window.next, pass, live); !done)
    return failed("the continuation", done.error());
  WindowScore out;
  out.kl = compare::mean(kl);
  for (const char x : same) out.top1 += double(x) / double(n);
  for (const double x : nll) out.nll += x / double(targets(window));
  out.output_error = error / (double(n) * s.layers * s.q_heads);
  return out;
}

Outcome<bool> answers(Engine& engine, Prepared& policy, std::span<const Token> feed_ids,
                      std::span<const Token> payload, bool live) {
  const std::vector<Token> ids = with_payload(feed_ids, payload);
  PayloadCheck check{payload, Index(feed_ids.size()) - 1};
  Pass pass;
  pass.logits = Index(payload.size());
  pass.on_logits = [&](Index first, Index count, std::span<const float> logits) {
    check(first, count, logits);
  };
  if (const auto done = feed(engine, policy, ids, pass, live); !done)
    return failed("the question", done.error());
  return check.right;
}

Outcome<bool> full_answers(Engine& engine, Recording& prompt, std::span<const Token> feed_ids,
                           std::span<const Token> payload, kvist::ScoresByPosition& masses) {
  const std::vector<Token> ids = with_payload(feed_ids, payload);
  PayloadCheck check{payload, Index(feed_ids.size()) - 1};
  if (auto done = watch(engine, prompt, ids, masses); !done) return done.failure();
  EvalCache cache(prompt.full, 0);
  Pass pass;
  pass.logits = Index(payload.size());
  pass.on_logits = [&](Index first, Index count, std::span<const float> logits) {
    check(first, count, logits);
  };
  if (const auto done = engine.forward(ids, prompt.size(), cache, pass); !done)
    return failed("the full cache's answer", done.error());
  prompt.full.truncate(prompt.size());
  return check.right;
}

Outcome<double> time_decode(Engine& engine, AnyCache& cache, Index budget, Token token, Index live_step) {
  EvalCache eval(cache, budget);
  double sum = 0;
  constexpr int steps = 3;
  for (int i = 0; i <= steps; ++i) {
    Pass pass;
    pass.logits = 1;
    if (live_step > 0) pass.step = live_step + i;
    const Stopwatch watch;
    if (const auto done = engine.forward(std::span(&token, 1), cache.next_position(), eval, pass); !done)
      return failed("a decode step", done.error());
    if (i > 0) sum += watch.seconds() / steps;
  }
  return sum;
}

}  // namespace kvist_eval
