// SPDX-License-Identifier: Apache-2.0
#include "recording.hpp"

#include "progress.hpp"

#include <algorithm>
#include <cmath>
#include <optional>

namespace kvist_eval {

using kvist::Evidence;
using kvist::Needs;
using kvist::Wants;
namespace m = kvist::methods;

namespace {

std::vector<float> copy(const kvist::Cube& c) {
  std::vector<float> out;
  out.reserve(std::size_t(c.g) * std::size_t(c.w) * std::size_t(c.n));
  for (int g = 0; g < c.g; ++g)
    for (Index w = 0; w < c.w; ++w) {
      const auto row = c.row(g, w);
      out.insert(out.end(), row.begin(), row.end());
    }
  return out;
}

Outcome<AnyCache> empty_cache(Engine& engine, kvist::AnyPolicy policy, const m::StoreFactory& stores) {
  const kvist::Shape shape = engine.shape();
  const m::StoreFactory make = stores ? stores : default_stores();
  auto cache = AnyCache::make(
      shape, std::move(policy), [&](int l, int h) { return make(shape, l, h); }, &engine.config().rope);
  if (!cache) return failed("the policy does not fit the model", cache.error());
  return *std::move(cache);
}

kvist::AnyPolicy keep_everything() { return kvist::AnyPolicy(kvist::Policy<m::Never>()); }

/// Feeds a chunk to the recording's cache, copying the evidence.
Outcome<Good> feed_chunk(Engine& engine, Recording& r, std::span<const Token> ids, const Wants& wants,
                         Pass pass) {
  const kvist::Shape& s = engine.shape();
  auto chunk = std::make_shared<Chunk>();
  chunk->first = Pos(r.ids.size());
  chunk->n = Index(ids.size());
  chunk->heads.resize(std::size_t(s.layers * s.kv_heads));
  EvalCache cache(r.full, wants, [&](int layer, std::span<const Evidence> seen) {
    for (std::size_t h = 0; h < seen.size(); ++h) {
      const Evidence& e = seen[h];
      EvidenceCopy& c = chunk->heads[std::size_t(layer * s.kv_heads) + h];
      c.group = s.group();
      c.entries = chunk->first + chunk->n;
      c.first_query = e.first_query;
      c.queries_n = e.queries ? e.queries.w : 0;
      if (e.queries) c.queries = copy(e.queries);
      if (e.column_sums) {
        c.column_sums = copy(e.column_sums);
        c.seen_by.assign(e.seen_by.begin(), e.seen_by.end());
      }
      if (e.max_query) c.max_query = copy(e.max_query);
    }
  });
  pass.prompt = true;
  const Stopwatch watch;
  if (const auto done = engine.forward(ids, chunk->first, cache, pass); !done)
    return failed("the prompt", done.error());
  r.seconds += watch.seconds();
  r.ids.insert(r.ids.end(), ids.begin(), ids.end());
  r.chunks.push_back(std::move(chunk));
  return Good{};
}

/// Tokens in pieces of the recording's size.
Outcome<Good> feed(Engine& engine, Recording& r, std::span<const Token> ids, const Wants& wants, Pass pass = {}) {
  const std::size_t piece = r.piece > 0 ? std::size_t(r.piece) : ids.size();
  for (std::size_t i = 0; i < ids.size(); i += piece)
    if (auto done = feed_chunk(engine, r, ids.subspan(i, std::min(piece, ids.size() - i)), wants, pass); !done)
      return done;
  return Good{};
}

/// Evidence for a policy that wants `wants`, of the last queries it asked for. `probs` is memory for
/// probabilities.
Evidence evidence(const EvidenceCopy& c, const Wants& wants, Index w, const float* keys, int dim_k,
                  float scale, std::vector<float>& probs) {
  Evidence e;
  e.first_query = c.first_query + (c.queries_n - w);
  if (!c.queries.empty() && w > 0) {
    e.queries = {c.queries.data() + std::ptrdiff_t(c.queries_n - w) * dim_k,
                 c.group,
                 w,
                 dim_k,
                 std::ptrdiff_t(c.queries_n) * dim_k,
                 dim_k};
  }
  if (!c.column_sums.empty()) {
    e.column_sums = kvist::cube(c.column_sums.data(), c.group, 1, c.entries);
    e.seen_by = c.seen_by;
  }
  if (!c.max_query.empty()) e.max_query = kvist::cube(c.max_query.data(), c.group, 1, dim_k);
  if (any(wants.prefill & Needs::probs) && w > 0) {
    probs.assign(std::size_t(c.group) * std::size_t(w) * std::size_t(c.entries), 0.0f);
    for (int g = 0; g < c.group; ++g)
      for (Index i = 0; i < w; ++i) {
        const Index seen = std::min<Index>(c.entries, e.first_query + i + 1);  // causality
        const float* const q = e.queries.row(g, i).data();
        float* const p = probs.data() + (std::ptrdiff_t(g) * w + i) * c.entries;
        kvist::kernels::dot_group(kvist::rows(keys, seen, dim_k), q, 1, scale, p, seen);
        const float top = *std::max_element(p, p + seen);
        double sum = 0;
        for (Index j = 0; j < seen; ++j) sum += p[j] = std::exp(p[j] - top);
        for (Index j = 0; j < seen; ++j) p[j] = float(double(p[j]) / sum);
      }
    e.probs = kvist::cube(probs.data(), c.group, w, c.entries);
  }
  return e;
}

/// Hands the recorded prompt over to a cache: layer by layer, or, where the prompt came in pieces, piece by piece through
/// all layers, as it would have come with the model.
Outcome<Good> replay(Engine& engine, const Recording& prompt, AnyCache& cache, Index budget, double& seconds) {
  const kvist::Shape& s = engine.shape();
  const std::size_t heads = std::size_t(s.kv_heads), n = prompt.ids.size();
  const std::size_t dk = std::size_t(s.dim_k), dv = std::size_t(s.dim_v);
  std::vector<std::vector<float>> head_k(heads, std::vector<float>(n * dk));
  std::vector<float> head_v(n * dv), k, v;
  std::vector<std::vector<float>> probs(heads);
  std::vector<Evidence> seen(heads);
  const Wants wants = cache.wants();
  const auto hand_over = [&](int l, std::size_t c) -> Outcome<Good> {
    const Chunk& chunk = *prompt.chunks[c];
    const std::size_t first = std::size_t(chunk.first), count = std::size_t(chunk.n);
    k.resize(count * heads * dk);
    v.resize(count * heads * dv);
    for (std::size_t h = 0; h < heads; ++h) {
      prompt.full.read(l, int(h), 0, Index(first + count), head_k[h].data(), head_v.data());
      for (std::size_t i = 0; i < count; ++i) {
        std::copy_n(head_k[h].data() + (first + i) * dk, dk, k.data() + (i * heads + h) * dk);
        std::copy_n(head_v.data() + (first + i) * dv, dv, v.data() + (i * heads + h) * dv);
      }
    }
    if (const auto done = cache.append(l, chunk.n, k.data(), v.data(), chunk.first); !done)
      return failed("append", done.error());
    for (std::size_t h = 0; h < heads; ++h) {
      const EvidenceCopy& e = chunk.heads[std::size_t(l) * heads + h];
      const Index w =
          wants.last_queries == kvist::all_queries ? e.queries_n : std::min(e.queries_n, wants.last_queries);
      seen[h] = evidence(e, wants, w, head_k[h].data(), s.dim_k, engine.config().attention_scale, probs[h]);
    }
    kvist::Clock now;
    now.phase = kvist::Phase::prefill;
    now.budget = budget;
    now.last = c + 1 == prompt.chunks.size();
    const Stopwatch watch;
    if (const auto done = cache.observe(l, seen, now); !done) return failed("the policy", done.error());
    seconds += watch.seconds();
    return Good{};
  };
  const std::size_t layers = std::size_t(s.layers), chunks = prompt.chunks.size();
  for (std::size_t i = 0; i < layers * chunks; ++i) {
    const bool pieces = prompt.piece > 0;
    if (auto done = hand_over(int(pieces ? i % layers : i / chunks), pieces ? i / layers : i % chunks); !done)
      return done;
  }
  return Good{};
}

/// When a policy first evicts after a prompt of n tokens: 0 at its end, else the decode step; -1: not in n steps.
Index first_event(const kvist::AnyPolicy& policy, Index n, Index budget) {
  kvist::Clock now;
  now.phase = kvist::Phase::prefill;
  now.size = n;
  now.budget = budget;
  if (policy.due(now)) return 0;
  now.phase = kvist::Phase::decode;
  for (now.step = 1; now.step <= n; ++now.step)
    if (policy.due(now)) return now.step;
  return -1;
}

bool due_between_chunks(const kvist::AnyPolicy& policy, Index n, Index budget) {
  kvist::Clock now;
  now.phase = kvist::Phase::prefill;
  now.size = n;
  now.budget = budget;
  now.last = false;
  return policy.due(now);
}

}  // namespace

Wants recorded(const Wants& wants) {
  Wants out = wants;
  const Needs made = Needs::probs | Needs::rows;
  if (any(out.prefill & made)) out.prefill = Needs(unsigned(out.prefill) & ~unsigned(made)) | Needs::queries;
  return out;
}

Outcome<Recording> record(Engine& engine, std::span<const Token> ids, const Wants& wants, Pass pass,
                          Index piece) {
  auto full = empty_cache(engine, keep_everything(), {});
  if (!full) return full.failure();
  full->reserve(Index(ids.size()) + 160);
  Recording r{*std::move(full), {}, {}, 0, piece};
  if (auto done = feed(engine, r, ids, wants, std::move(pass)); !done) return done.failure();
  return r;
}

Outcome<Recording> extend(Engine& engine, const Recording& from, std::span<const Token> ids, const Wants& wants) {
  Recording r{from.full.clone(), from.chunks, from.ids, from.seconds, from.piece};
  if (auto done = feed(engine, r, ids, wants); !done) return done.failure();
  return r;
}

Outcome<AnyCache> whole(Engine& engine, const Recording& prompt, const m::StoreFactory& stores) {
  auto cache = empty_cache(engine, keep_everything(), stores);
  if (!cache) return cache.failure();
  double seconds = 0;
  if (auto done = replay(engine, prompt, *cache, 0, seconds); !done) return done.failure();
  return *std::move(cache);
}

namespace {

/// The policy at the end of the prompt with a budget of that many entries a head (0: none).
Outcome<Prepared> prepare_with(Engine& engine, const Recording& prompt, const Contestant& who,
                               const m::MadeSpec& made, Index budget, bool stepping) {
  const Index n = prompt.size();
  auto cache = empty_cache(engine, made.policy, made.stores);
  if (!cache) return cache.failure();
  Prepared out{*std::move(cache), budget, 0, 0};

  const Index first = first_event(made.policy, n, budget);
  if (stepping && who.evicts && first < 0 && n > budget)
    return failed(
        fmt::format("'{}' evicts for the first time more than {} steps after its prompt of {} tokens: it "
                    "would keep everything",
                    who.text, n, n));
  const Index period = stepping ? std::max<Index>(first, 0) : 0;
  const bool alone = made.policy.compact() || period > 0 ||
                     (prompt.chunks.size() > 1 && due_between_chunks(made.policy, n, budget));
  if (!alone) {
    if (auto done = replay(engine, prompt, out.cache, budget, out.seconds); !done) return done.failure();
    return out;
  }
  EvalCache eval(out.cache, budget);
  out.steps = std::min(4 * period, period > 0 ? (n - 1) / period * period : 0);
  const Index together = n - out.steps;
  Index fed = 0;
  while (fed < together) {  // a question that was recorded after its context is its prompt's end: one call
    const Index count = prompt.piece > 0 ? std::min(prompt.piece, together - fed) : together;
    Pass pass;
    pass.prompt = true;
    pass.last_chunk = fed + count == together;
    if (const auto done = engine.forward(std::span(prompt.ids).subspan(std::size_t(fed), std::size_t(count)),
                                         fed, eval, pass);
        !done)
      return failed("the policy's own run of the prompt", done.error());
    fed += count;
  }
  for (Index step = 1; step <= out.steps; ++step, ++fed) {
    Pass pass;
    pass.step = step;
    if (const auto done = engine.forward(std::span(prompt.ids).subspan(std::size_t(fed), 1), fed, eval, pass);
        !done)
      return failed("the policy's own run of the prompt", done.error());
  }
  out.seconds = eval.seconds();
  return out;
}

}  // namespace

Outcome<Prepared> prepare(Engine& engine, const Recording& prompt, const Contestant& who, Index question,
                          std::shared_ptr<const kvist::ScoresByPosition> masses, bool stepping) {
  auto made = who.make(question);
  if (!made) return made.failure();
  if (who.oracle)
    made->policy = kvist::AnyPolicy(m::Oracle::make(std::move(masses), made->policy.settings()));
  const kvist::Budget& asked = who.spec.budget;
  if (!who.evicts || asked.kind == kvist::Budget::Kind::none)
    return prepare_with(engine, prompt, who, *made, 0, stepping);
  const bool in_bytes = asked.kind == kvist::Budget::Kind::bytes;
  const Index n = prompt.size(), context = n - question;
  const int heads = engine.shape().layers * engine.shape().kv_heads;
  double entry_bytes = 0;
  if (in_bytes) {
    auto all = whole(engine, prompt, made->stores);
    if (!all) return all.failure();
    entry_bytes = double(all->bytes()) / (double(n) * heads);
  }
  const Index entries = asked.entries(context, entry_bytes, heads);
  if (entries < 1)
    return failed(fmt::format("the budget of '{}' leaves no entry of a prompt of {} tokens", who.text, context));
  auto first = prepare_with(engine, prompt, who, *made, entries + question, stepping);
  if (!first || !in_bytes) return first;

  // Exact windows, pages, tiers and layers left whole have their own price: the most entries whose cache fits are looked for,
  // until one takes 95 % of the budget. The question is on top.
  const double most = asked.value + entry_bytes * heads * question;
  double bytes = double(first->cache.bytes());
  const bool left_whole = !stepping && first_event(made->policy, n, entries + question) != 0;
  if ((bytes <= most && entries >= context) || left_whole) return first;
  Index low = 0, high = context;  // low fits or is fewer than the policy takes, high does not fit
  Index guess = entries;
  std::optional<Prepared> best;
  std::string refusal;  // of fewer entries than the policy takes
  bool interpolated = false;
  for (auto next = std::move(first);;
       next = prepare_with(engine, prompt, who, *made, guess + question, stepping)) {
    if (next && double(next->cache.bytes()) > most) {
      high = std::min(guess, context);
      bytes = double(next->cache.bytes());
    } else {
      low = guess;
      if (next) best.emplace(*std::move(next));
      else refusal = next.failure().message;
    }
    if (high - low <= 1 || (best && double(best->cache.bytes()) >= 0.95 * most)) break;
    guess = interpolated || low > 0 ? low + (high - low) / 2 : Index(double(high) * most / bytes);
    guess = std::clamp(guess, low + 1, high - 1);
    interpolated = true;
  }
  if (best) return *std::move(best);
  return failed(
      fmt::format("the budget of '{}' cannot be met: the cache takes {:.0f} bytes at {} entries a head, the "
                  "fewest that the policy takes{}{}",
                  who.text, bytes, high, refusal.empty() ? "" : "; with fewer: ", refusal));
}

}  // namespace kvist_eval
