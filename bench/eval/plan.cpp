// SPDX-License-Identifier: Apache-2.0
// kvist-eval plan: a policy over recorded tensors, as an engine that owns its memory would ask it.
#include "commands.hpp"
#include "contestant.hpp"

#include <kvist/io/json.hpp>
#include <kvist/io/npy.hpp>
#include <kvist/policy/any_policy.hpp>

#include <algorithm>
#include <array>
#include <cmath>

namespace kvist_eval {
namespace {

using kvist::AnyHead;
using kvist::AnyLayer;
using kvist::Evidence;
using kvist::Index;
using kvist::Json;
using kvist::Needs;
using kvist::Pos;

/// Recorded rows [layers, heads, n, d]; a layer axis of one where the file has none.
struct Rows4 {
  std::size_t layers = 0, heads = 0, n = 0, d = 0;
  std::vector<float> data;
  const float* row(std::size_t l, std::size_t h, std::size_t i) const {
    return data.data() + ((l * heads + h) * n + i) * d;
  }
};

Outcome<Rows4> load(const char* option, const std::string& path) {
  auto npy = kvist::Npy::load(path);
  if (!npy) return failed(fmt::format("--{} '{}'", option, path), npy.error());
  if (npy->rank() != 3 && npy->rank() != 4)
    return failed(fmt::format("--{} '{}': wanted [layers, heads, n, d] or [heads, n, d], not {} axes", option,
                              path, npy->rank()));
  if (npy->size() == 0) return failed(fmt::format("--{} '{}' is empty", option, path));
  const std::size_t o = npy->rank() - 3;
  Rows4 r{o ? npy->dim(0) : 1, npy->dim(o), npy->dim(o + 1), npy->dim(o + 2), npy->as_f32()};
  if (r.d > 4096 || r.n > (std::size_t{1} << 24) || r.layers > 4096 || r.heads > 4096)
    return failed(fmt::format("--{} '{}': [{}, {}, {}, {}] is larger than any model", option, path, r.layers,
                              r.heads, r.n, r.d));
  for (const float x : r.data)
    if (!std::isfinite(x))
      return failed(fmt::format("--{} '{}' holds a value that is no number", option, path));
  return r;
}

/// An engine's memory of one head: rows that stay, in the order of their positions, and those a policy moved
/// to another tier, which are attended to and no longer planned over.
struct HeadMemory {
  std::vector<float> k, v, log_weight;
  std::vector<Pos> pos;
  std::vector<float> moved_k;
  std::vector<Pos> moved_pos;

  void apply(const kvist::HeadPlan& plan, std::size_t d, std::size_t dv) {
    for (const kvist::Self& s : plan.self) {
      scale(k, s.dst, d, s.wk);
      scale(v, s.dst, dv, s.wv);
      log_weight[std::size_t(s.dst)] = s.log_weight;
    }
    for (const kvist::Blend& b : plan.blend) {
      add(k, b.dst, b.src, d, b.wk);
      add(v, b.dst, b.src, dv, b.wv);
    }
    std::vector<char> gone(pos.size(), 0);
    for (const Index i : plan.drop) gone[std::size_t(i)] = 1;
    for (const kvist::Move& m : plan.move) {
      gone[std::size_t(m.src)] = 1;
      moved_k.insert(moved_k.end(), k.begin() + std::ptrdiff_t(std::size_t(m.src) * d),
                     k.begin() + std::ptrdiff_t((std::size_t(m.src) + 1) * d));
      moved_pos.push_back(pos[std::size_t(m.src)]);
    }
    std::size_t to = 0;
    for (std::size_t i = 0; i < pos.size(); ++i) {
      if (gone[i]) continue;
      std::copy_n(k.begin() + std::ptrdiff_t(i * d), d, k.begin() + std::ptrdiff_t(to * d));
      std::copy_n(v.begin() + std::ptrdiff_t(i * dv), dv, v.begin() + std::ptrdiff_t(to * dv));
      pos[to] = pos[i];
      log_weight[to++] = log_weight[i];
    }
    pos.resize(to);
    log_weight.resize(to);
    k.resize(to * d);
    v.resize(to * dv);
  }
  std::vector<Pos> kept() const {
    std::vector<Pos> out = pos;
    out.insert(out.end(), moved_pos.begin(), moved_pos.end());
    std::sort(out.begin(), out.end());
    return out;
  }
  std::vector<Pos> moved() const {
    std::vector<Pos> out = moved_pos;
    std::sort(out.begin(), out.end());
    return out;
  }

 private:
  static void scale(std::vector<float>& x, Index row, std::size_t d, float w) {
    for (std::size_t c = 0; c < d; ++c) x[std::size_t(row) * d + c] *= w;
  }
  static void add(std::vector<float>& x, Index to, Index from, std::size_t d, float w) {
    for (std::size_t c = 0; c < d; ++c) x[std::size_t(to) * d + c] += w * x[std::size_t(from) * d + c];
  }
};

/// Evidence of one head with the memory that it points to.
struct HeadEvidence {
  std::vector<float> probs, queries, sums, seen_by, max_query;
  Evidence evidence;
};

class Recorded {
 public:
  Recorded(Rows4 k, Rows4 v, Rows4 q, kvist::Shape shape, kvist::AnyPolicy policy,
           kvist::AnyPolicy::State state, const kvist::RopeTable& rope)
      : k_(std::move(k)),
        v_(std::move(v)),
        q_(std::move(q)),
        shape_(shape),
        policy_(std::move(policy)),
        state_(std::move(state)),
        rope_(rope),
        memory_(std::size_t(shape.layers * shape.kv_heads)),
        budgets_(memory_.size(), -1) {}

  /// `count` entries arrive at once: a prompt, or (step > 0) one entry with its query.
  Outcome<Good> arrive(Index count, Index step, Index budget) {
    const bool prompt = step == 0;
    kvist::Clock now;
    now.phase = prompt ? kvist::Phase::prefill : kvist::Phase::decode;
    now.step = step;
    now.budget = budget;
    scores_.assign(memory_.size(), {});
    for (int l = 0; l < shape_.layers; ++l) {
      std::vector<HeadEvidence> seen(std::size_t(shape_.kv_heads));
      std::vector<Evidence> evidence;
      std::vector<AnyHead> heads;
      now.size = 0;
      for (int h = 0; h < shape_.kv_heads; ++h) {
        append(l, h, count);
        if (auto done = look(l, h, count, prompt, seen[std::size_t(h)]); !done) return done;
        evidence.push_back(seen[std::size_t(h)].evidence);
        HeadMemory& m = at(l, h);
        const Index n = Index(m.pos.size());
        heads.push_back({kvist::rows(m.k.data(), n, shape_.dim_k), kvist::rows(m.v.data(), n, shape_.dim_v),
                         m.pos, kvist::KeyForm::rotated, m.log_weight});
        now.size = std::max(now.size, n);
      }
      const AnyLayer view{heads};
      const kvist::LayerCall<AnyLayer> call{view, evidence, now, l, {}, &rope_};
      if (const auto done = policy_.observe(call, state_); !done) return failed("the policy", done.error());
      if (!policy_.due(now)) continue;
      std::vector<kvist::Plan> plans;
      if (const auto done = policy_.plan(call, state_, plans); !done)
        return failed("the policy", done.error());
      for (int h = 0; h < shape_.kv_heads; ++h) {
        const auto s = policy_.scores(state_, l, h);
        scores_[std::size_t(l * shape_.kv_heads + h)].assign(s.begin(), s.end());
      }
      for (const kvist::Plan& p : plans) {
        for (int h = 0; h < shape_.kv_heads; ++h) {
          HeadMemory& m = at(p.layer, h);
          const kvist::HeadPlan& hp = p.heads[std::size_t(h)];
          if (const auto ok = kvist::check(hp, Index(m.pos.size())); !ok)
            return failed("the policy's plan is malformed", ok.error());
          if (prompt) budgets_[std::size_t(p.layer * shape_.kv_heads + h)] = p.cost[std::size_t(h)].after;
          m.apply(hp, std::size_t(shape_.dim_k), std::size_t(shape_.dim_v));
        }
        policy_.applied(p, state_);
      }
    }
    arrived_ += count;
    return Good{};
  }

  std::vector<Pos> kept(int l, int h) const { return memory_[std::size_t(l * shape_.kv_heads + h)].kept(); }
  std::vector<Pos> moved(int l, int h) const { return memory_[std::size_t(l * shape_.kv_heads + h)].moved(); }
  /// What the head was given by the prompt's last plan, of the first tier; -1 where there was none.
  Index budget(int l, int h) const { return budgets_[std::size_t(l * shape_.kv_heads + h)]; }
  /// Scores of the last call's entries by row; empty where nothing was planned.
  const std::vector<float>& scores(int l, int h) const {
    return scores_[std::size_t(l * shape_.kv_heads + h)];
  }

 private:
  HeadMemory& at(int l, int h) { return memory_[std::size_t(l * shape_.kv_heads + h)]; }

  void append(int l, int h, Index count) {
    HeadMemory& m = at(l, h);
    for (Index i = arrived_; i < arrived_ + count; ++i) {
      const float* const k = k_.row(std::size_t(l), std::size_t(h), std::size_t(i));
      m.k.insert(m.k.end(), k, k + shape_.dim_k);
      if (v_.n > 0) {
        const float* const v = v_.row(std::size_t(l), std::size_t(h), std::size_t(i));
        m.v.insert(m.v.end(), v, v + shape_.dim_v);
      } else {
        m.v.resize(m.v.size() + std::size_t(shape_.dim_v), 0.0f);
      }
      m.pos.push_back(i);
      m.log_weight.push_back(0);
    }
  }

  /// Query of entry i; Q holds those of the last entries only. Null where it lacks it.
  const float* query(int l, int q_head, Index i) const {
    const std::ptrdiff_t row = std::ptrdiff_t(i) - (std::ptrdiff_t(k_.n) - std::ptrdiff_t(q_.n));
    return q_.n == 0 || row < 0 ? nullptr : q_.row(std::size_t(l), std::size_t(q_head), std::size_t(row));
  }

  /// The evidence that the policy wants of the last `count` entries' queries, over all that the head holds.
  Outcome<Good> look(int l, int h, Index count, bool prompt, HeadEvidence& out) {
    const kvist::Wants wants = policy_.wants();
    const Needs needs = prompt ? wants.prefill : wants.step;
    if (!any(needs)) return Good{};
    const Index w = !prompt                                    ? 1
                    : wants.last_queries == kvist::all_queries ? count
                                                               : std::min(count, wants.last_queries);
    const bool every = any(needs & (Needs::column_sums | Needs::max_query));
    const Index first = arrived_ + count - (every ? count : w);
    const int group = shape_.group();
    const std::size_t d = std::size_t(shape_.dim_k), n = at(l, h).pos.size(), g_count = std::size_t(group);
    if (!query(l, h * group, first))
      return failed(fmt::format(
          "the policy wants the queries of entries {} to {}; --q holds those of the last {} of {}", first,
          arrived_ + count - 1, q_.n, k_.n));
    out.queries.resize(g_count * std::size_t(w) * d);
    out.probs.assign(any(needs & Needs::probs) ? g_count * std::size_t(w) * n : 0, 0.0f);
    out.sums.assign(any(needs & Needs::column_sums) ? g_count * n : 0, 0.0f);
    out.max_query.assign(g_count * d, 0.0f);
    out.seen_by.assign(n, 0.0f);
    std::vector<float> p;
    for (int g = 0; g < group; ++g)
      for (Index i = first; i < arrived_ + count; ++i) {
        const float* const q = query(l, h * group + g, i);
        const Index in_window = i - (arrived_ + count - w);
        if (in_window >= 0)
          std::copy_n(q, d, out.queries.data() + (std::size_t(g) * std::size_t(w) + std::size_t(in_window)) * d);
        for (std::size_t c = 0; c < d; ++c)
          out.max_query[std::size_t(g) * d + c] =
              std::max(out.max_query[std::size_t(g) * d + c], std::abs(q[c]));
        if (!any(needs & (Needs::probs | Needs::column_sums))) continue;
        attend(at(l, h), q, i, p);
        if (in_window >= 0 && !out.probs.empty())
          std::copy(p.begin(), p.end(),
                    out.probs.begin() +
                        std::ptrdiff_t((std::size_t(g) * std::size_t(w) + std::size_t(in_window)) * n));
        if (!out.sums.empty())
          for (std::size_t j = 0; j < n; ++j) out.sums[std::size_t(g) * n + j] += p[j];
      }
    for (std::size_t j = 0; j < n; ++j)
      out.seen_by[j] = float(std::min<Index>(count, arrived_ + count - std::max(arrived_, at(l, h).pos[j])));
    Evidence& e = out.evidence;
    e.first_query = arrived_ + count - w;
    if (any(needs & (Needs::queries | Needs::rows)))
      e.queries = kvist::cube(out.queries.data(), group, w, Index(d));
    if (!out.probs.empty()) e.probs = kvist::cube(out.probs.data(), group, w, Index(n));
    if (!out.sums.empty()) {
      e.column_sums = kvist::cube(out.sums.data(), group, 1, Index(n));
      e.seen_by = out.seen_by;
    }
    if (any(needs & Needs::max_query)) e.max_query = kvist::cube(out.max_query.data(), group, 1, Index(d));
    return Good{};
  }

  /// Probabilities of a query at position `now` over the head's rows, moved ones counted in the sum; f64
  /// sums.
  void attend(const HeadMemory& m, const float* q, Pos now, std::vector<float>& p) const {
    const std::size_t d = std::size_t(shape_.dim_k), n = m.pos.size();
    const double scale = 1 / std::sqrt(double(d));
    const auto dot = [&](const std::vector<float>& k, std::size_t i) {
      double s = 0;
      for (std::size_t c = 0; c < d; ++c) s += double(q[c]) * double(k[i * d + c]);
      return s * scale;
    };
    std::vector<double> logits(n + m.moved_pos.size());
    double top = -1e300, sum = 0;
    std::size_t seen = 0;
    for (; seen < n && m.pos[seen] <= now; ++seen)
      top = std::max(top, logits[seen] = dot(m.k, seen) + double(m.log_weight[seen]));
    for (std::size_t i = 0; i < m.moved_pos.size(); ++i)
      top = std::max(top, logits[n + i] = dot(m.moved_k, i));
    for (std::size_t i = 0; i < seen; ++i) sum += logits[i] = std::exp(logits[i] - top);
    for (std::size_t i = 0; i < m.moved_pos.size(); ++i) sum += std::exp(logits[n + i] - top);
    p.assign(n, 0.0f);
    for (std::size_t i = 0; i < seen; ++i) p[i] = float(logits[i] / sum);
  }

  Rows4 k_, v_, q_;
  kvist::Shape shape_;
  kvist::AnyPolicy policy_;
  kvist::AnyPolicy::State state_;
  const kvist::RopeTable& rope_;
  std::vector<HeadMemory> memory_;
  std::vector<Index> budgets_;
  std::vector<std::vector<float>> scores_;
  Index arrived_ = 0;
};

Outcome<Good> run(const Args& args, const std::string&) {
  for (const char* const needed : {"policy", "k"})
    if (!args.has(needed)) return usage(fmt::format("plan wants --{}", needed));
  if (args.has("prefill") && args.has("chunks")) return usage("give --prefill or --chunks, not both");
  const std::string pairs = args.text("pairs", "half");
  if (pairs != "half" && pairs != "neighbours")
    return usage(fmt::format("--pairs is half or neighbours, not '{}'", pairs));
  auto who = contestants({args.text("policy")}, {});
  if (!who) return who.failure();
  if (who->size() != 1 || (*who)[0].oracle) return usage("--policy wants one SPEC here, and not the oracle");
  const Contestant& c = (*who)[0];
  auto made = c.make();
  if (!made) return made.failure();
  announce_isa();

  auto k = load("k", args.text("k"));
  if (!k) return k.failure();
  Rows4 v, q;
  if (args.has("v")) {
    auto read = load("v", args.text("v"));
    if (!read) return read.failure();
    v = *std::move(read);
    if (v.layers != k->layers || v.heads != k->heads || v.n != k->n)
      return failed(fmt::format("--v is [{}, {}, {}, d], --k is [{}, {}, {}, d]", v.layers, v.heads, v.n,
                                k->layers, k->heads, k->n));
  }
  if (args.has("q")) {
    auto read = load("q", args.text("q"));
    if (!read) return read.failure();
    q = *std::move(read);
    if (q.layers != k->layers || q.d != k->d || q.n > k->n || q.heads % k->heads != 0)
      return failed(fmt::format(
          "--q is [{}, {}, {}, {}], which does not fit --k [{}, {}, {}, {}]: equal layers and d, query heads "
          "a multiple of KV heads, no more rows",
          q.layers, q.heads, q.n, q.d, k->layers, k->heads, k->n, k->d));
  }
  const kvist::Wants wants = made->policy.wants();
  if (any(wants.prefill | wants.step) && q.n == 0)
    return usage(fmt::format("'{}' wants queries: --q", c.text));
  const kvist::methods::Clause& clause = c.spec.clauses[0];
  const bool loss = kvist::methods::has_tolerance(clause) ||
                    std::any_of(clause.options.begin(), clause.options.end(),
                                [](const auto& o) { return o.first == "account_loss" && o.second == "yes"; });
  if (v.n == 0 && (loss || (made->policy.makes() & kvist::blends)))
    return usage(fmt::format("'{}' {}: --v", c.text,
                             loss ? "states what the output loses, which takes values" : "blends values"));
  if (v.n == 0)
    for (const kvist::methods::Entry& e : all_methods())
      if (c.spec.clauses[0].name == e.info.name &&
          std::string_view(e.info.needs).find("value") != std::string_view::npos)
        return usage(fmt::format("'{}' needs {}: --v", c.text, e.info.needs));

  const Index n = Index(k->n);
  std::vector<Index> chunks;
  if (args.has("chunks")) {
    auto list = Args::list("chunks", args.text("chunks"));
    if (!list) return list.failure();
    Index sum = 0;
    for (const std::string& s : *list) {
      auto size = Args::whole("chunks", s, 1, n);
      if (!size) return size.failure();
      chunks.push_back(Index(*size));
      sum += chunks.back();
      if (sum > n) return usage(fmt::format("--chunks adds up to more than the {} entries of --k", n));
    }
  }
  auto prefill = args.number("prefill", n, 1, n);
  if (!prefill) return prefill.failure();
  auto base = args.text("rope-base", "10000");
  double rope_base = 0;
  const auto [end, error] = std::from_chars(base.data(), base.data() + base.size(), rope_base);
  if (error != std::errc{} || end != base.data() + base.size() || !(rope_base > 1) || !std::isfinite(rope_base))
    return usage(fmt::format("--rope-base wants a number above 1, not '{}'", base));

  kvist::Shape shape{int(k->layers), int(q.n ? q.heads : k->heads), int(k->heads), int(k->d),
                     int(v.n ? v.d : k->d)};
  const kvist::RopeTable rope = kvist::RopeTable::standard(
      shape.dim_k, rope_base, pairs == "half" ? kvist::RopePairs::half_split : kvist::RopePairs::neighbours);
  const Index prompt = chunks.empty() ? Index(*prefill) : chunks[0];
  if (c.spec.budget.kind == kvist::Budget::Kind::bytes)
    return usage("plan has no store: give the budget in entries or as a share");
  const Index budget =
      c.evicts && c.spec.budget.kind != kvist::Budget::Kind::none ? c.spec.budget.entries(prompt, 0, 0) : 0;
  if (c.evicts && c.spec.budget.kind != kvist::Budget::Kind::none && budget < 1)
    return failed(fmt::format("the budget of '{}' leaves no entry of a prompt of {}", c.text, prompt));
  auto state = made->policy.start(shape);
  if (!state) return failed("the policy does not fit the tensors", state.error());
  Recorded run(*std::move(k), std::move(v), std::move(q), shape, made->policy, *std::move(state), rope);

  const std::size_t all_heads = std::size_t(shape.layers * shape.kv_heads);
  const bool moves = made->policy.makes() & kvist::moves;
  std::vector<std::vector<Pos>> kept(all_heads), moved(all_heads);
  std::vector<Json> steps(all_heads, Json::array());
  const auto each = [&](auto f) {
    for (int l = 0; l < shape.layers; ++l)
      for (int h = 0; h < shape.kv_heads; ++h) f(l, h, std::size_t(l * shape.kv_heads + h));
  };
  const auto note_step = [&] {
    each([&](int l, int h, std::size_t i) { steps[i].push_back(Json(run.kept(l, h))); });
  };
  std::vector<float> scores;
  if (chunks.empty()) {
    if (auto done = run.arrive(prompt, 0, budget); !done) return done;
    each([&](int l, int h, std::size_t i) {
      kept[i] = run.kept(l, h);
      moved[i] = run.moved(l, h);
      std::vector<float> s = run.scores(l, h);
      s.resize(std::size_t(prompt), std::nanf(""));
      scores.insert(scores.end(), s.begin(), s.end());
    });
    for (Index step = 1; prompt + step <= n; ++step) {
      if (auto done = run.arrive(1, step, budget); !done) return done;
      note_step();
    }
  } else {
    if (args.has("scores"))
      return usage("--scores are those at a prompt's end: give --prefill, not --chunks");
    Index step = 0;
    for (std::size_t i = 0; i < chunks.size(); ++i) {
      const Index size = chunks[i];
      step = size == 1 && i > 0 ? step + 1 : 0;  // the first call is a prompt, whatever its size
      if (auto done = run.arrive(size, step, budget); !done) return done;
      note_step();
    }
    each([&](int l, int h, std::size_t i) {
      kept[i] = run.kept(l, h);
      moved[i] = run.moved(l, h);
    });
  }
  if (args.has("scores")) {
    if (const auto done = kvist::save_npy(
            args.text("scores"), {std::size_t(shape.layers), std::size_t(shape.kv_heads), std::size_t(prompt)},
            std::span<const float>(scores));
        !done)
      return failed(fmt::format("'{}'", args.text("scores")), done.error());
  }
  Json layers = Json::array();
  for (int l = 0; l < shape.layers; ++l) {
    Json heads = Json::array();
    for (int h = 0; h < shape.kv_heads; ++h) {
      const std::size_t i = std::size_t(l * shape.kv_heads + h);
      Json j = Json::object();
      j.set("budget", run.budget(l, h) >= 0 ? run.budget(l, h) : budget);
      j.set("kept", kept[i]);
      if (moves) j.set("moved", moved[i]);
      j.set("steps", std::move(steps[i]));
      heads.push_back(std::move(j));
    }
    Json layer = Json::object();
    layer.set("heads", std::move(heads));
    layers.push_back(std::move(layer));
  }
  Json out = Json::object();
  out.set("layers", std::move(layers));
  return write_result(args.text("json"), out.dump() + "\n");
}

constexpr std::array options{
    OptionSpec{"policy", "SPEC", "the policy, with its budget"},
    OptionSpec{"k", "K.npy", "keys, rotated, f32 or f16 [layers, kv_heads, n, d] or [kv_heads, n, d]"},
    OptionSpec{"v", "V.npy", "values of the same shape, where the policy wants them"},
    OptionSpec{"q", "Q.npy",
               "queries of the last w entries, rotated, [layers, q_heads, w, d] or [q_heads, w, d]"},
    OptionSpec{"prefill", "N", "the first N entries are the prompt, the rest arrives one a step; default all"},
    OptionSpec{"chunks", "A,B,...",
               "entries arrive in calls of these sizes, 1 being a step; kept is after the last"},
    OptionSpec{"rope-base", "B", "of the rotation, for policies that look at raw keys; default 10000"},
    OptionSpec{"pairs", "P", "half (channels f and f + d/2) or neighbours (2f and 2f + 1); default half"},
    OptionSpec{"scores", "FILE.npy",
               "the policy's scores at the prompt's end, f32 [layers, kv_heads, N]; NaN where it gave none"},
    OptionSpec{"json", "FILE", "where the result goes; default standard output"}};

}  // namespace

const Command plan_command{
    "plan", "what a policy keeps of recorded tensors, without a model",
    "Writes {\"layers\":[{\"heads\":[{\"budget\":..,\"kept\":[..],\"steps\":[[..],..]}]}]}: positions kept "
    "after the prompt and after\n"
    "each step; where a policy moves entries to another tier, \"moved\" lists those of \"kept\" and the "
    "budget is the first\n"
    "tier's. Every head attends over its own survivors. A share as budget is that of the prompt (or first "
    "chunk).\n",
    options, &run};

}  // namespace kvist_eval
