// SPDX-License-Identifier: Apache-2.0
#include "runner.hpp"

#include "score.hpp"

#include <kvist/kernels/dispatch.hpp>

#include <unistd.h>
#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <optional>

namespace kvist_eval {

namespace compare = kvist::compare;
namespace tasks = kvist::tasks;

namespace {

/// A context with what is asked of it: a text window to go on with, or questions.
struct Sample {
  std::vector<Token> prompt;
  std::optional<tasks::TextWindow> window;
  std::vector<tasks::Question> questions;
};

/// What is known of a sample once the full cache has run it.
struct Reference {
  std::optional<Recording> prompt;
  std::optional<FullWindow> window;
  std::vector<Recording> asked;  ///< question=seen: the prompt with each question
  /// one, or one for each question (seen)
  std::vector<std::shared_ptr<const kvist::ScoresByPosition>> masses;
  std::vector<bool> hits;
  double decode_seconds = 0;
};

/// What is gathered of a policy over the samples.
struct Tally {
  std::vector<double> kl, top1, nll, nll_full, output_error;
  std::vector<int> hits;
  double kept = 0, bytes = 0, bytes_full = 0, bytes_full_f16 = 0, bytes_peak = 0;
  double prefill = 0, policy = 0, decode = 0, decode_full = 0;
  Index caches = 0, budget = 0;
  std::string error;
};

/// One task at one context.
class TaskRun {
 public:
  TaskRun(Engine& engine, const NamedText& text, const RunSettings& settings, Results& results,
          Progress& progress, std::string task, Index context)
      : engine_(engine),
        text_(text),
        settings_(settings),
        results_(results),
        progress_(progress),
        task_(std::move(task)),
        context_(context) {}

  Outcome<Good> run(const std::vector<Token>& tokens, const tasks::Haystack& hay) {
    for (const Contestant& c : settings_.contestants)
      if (!results_.find(key(c.text))) missing_.push_back(&c);
    if (missing_.empty()) return Good{};
    if (auto done = make_samples(tokens, hay); !done) return done;
    references_.resize(samples_.size());
    Index asked = 0;  // where the question is seen, windows are as long as it
    for (const Sample& s : samples_)
      for (const tasks::Question& q : s.questions) asked = std::max(asked, Index(q.ask.size()));
    for (const Contestant* c : missing_)
      if (auto made = c->make(settings_.seen ? asked : 0); made) wants_ = wants_ | made->policy.wants();
    if (retrieval()) {
      if (auto able = gate(); !able) return able.failure();
      else if (!*able) return Good{};
    }
    // One policy after another where all samples' runs fit in memory; else some together, so that a run that
    // had to be given up and made again serves several.
    const std::size_t together = fits() ? 1 : 8;
    for (std::size_t i = 0; i < missing_.size(); i += together) {
      const std::span<const Contestant* const> batch =
          std::span(missing_).subspan(i, std::min(together, missing_.size() - i));
      std::vector<Tally> tallies(batch.size());
      for (std::size_t s = 0; s < samples_.size(); ++s) {
        auto reference = reference_of(s);
        if (!reference) return reference.failure();
        for (std::size_t b = 0; b < batch.size(); ++b) {
          if (!tallies[b].error.empty()) continue;
          show(fmt::format("{} ({}/{}), sample {}/{}", batch[b]->text, i + b + 1, missing_.size(), s + 1,
                           samples_.size()));
          if (auto done = measure(*batch[b], s, **reference, tallies[b]); !done)
            tallies[b].error = done.failure().message;
        }
        if (!fits()) references_[s] = Reference{};
      }
      for (std::size_t b = 0; b < batch.size(); ++b)
        if (auto done = results_.put(key(batch[b]->text), row(batch[b]->text, tallies[b])); !done)
          return done;
    }
    return Good{};
  }

 private:
  bool retrieval() const { return task_ != "fidelity"; }
  RowKey key(const std::string& policy) const { return row_key(settings_, text_, task_, context_, policy); }
  void show(const std::string& what) { progress_.show(fmt::format("{} {}: {}", task_, context_, what)); }

  /// Do the recordings of all samples fit in a quarter of the machine's memory?
  bool fits() const {
    const kvist::Shape& s = engine_.shape();
    const std::size_t queries =
        any(recorded(wants_).prefill & kvist::Needs::queries) && wants_.last_queries == kvist::all_queries
            ? std::size_t(s.q_heads * s.dim_k)
            : 0;
    const std::size_t entry =
        (std::size_t(s.kv_heads) * std::size_t(s.dim_k + s.dim_v) + queries) * std::size_t(s.layers) * 4;
    const std::size_t copies =
        settings_.seen && retrieval() && !samples_.empty() ? 1 + samples_[0].questions.size() : 1;
    const std::size_t logits = retrieval() ? 0 : 64 * std::size_t(engine_.config().vocabulary) * 4;
    const std::size_t memory = std::size_t(sysconf(_SC_PHYS_PAGES)) * std::size_t(sysconf(_SC_PAGESIZE));
    return samples_.size() * (entry * std::size_t(context_) * copies + logits) < memory / 4;
  }

  Outcome<Good> make_samples(const std::vector<Token>& tokens, const tasks::Haystack& hay) {
    if (!retrieval()) {
      auto windows = tasks::text_windows(tokens, context_, key("").samples);
      if (!windows) {
        const kvist::Error& e = windows.error();
        if (e.code != kvist::Errc::bad_shape) return failed("fidelity", e);
        return failed(fmt::format(
            "fidelity at context {}: the text '{}' has {} tokens, enough for {} windows, not for {} "
            "(--samples, --context, --text)",
            context_, text_.name, tokens.size(), e.got, e.want));
      }
      for (auto& w : *windows) {
        Sample sample;
        sample.prompt = w.prompt;
        sample.window = std::move(w);
        samples_.push_back(std::move(sample));
      }
      return Good{};
    }
    // passkey asks one question a context: two contexts a sample, so that eight samples can pass the gate
    const bool passkey = task_ == "passkey";
    const std::span<const tasks::Frame> frames = std::span(tasks::facts8).first(passkey ? 1 : 8);
    const Index contexts = settings_.samples * (passkey ? 2 : 1);
    for (Index i = 0; i < contexts; ++i) {
      auto made = tasks::hide(
          frames, hay, [&](std::string_view s) { return engine_.encode(s); },
          [&](Token id) { return std::string(engine_.tokenizer().token_bytes(id)); }, context_,
          settings_.seed, std::uint64_t(i));
      if (!made)
        return failed(fmt::format("{} at context {} in the text '{}'", task_, context_, text_.name),
                      made.error());
      samples_.push_back({std::move(made->context), {}, std::move(made->questions)});
    }
    return Good{};
  }

  Outcome<Reference*> reference_of(std::size_t i) {
    Reference& r = references_[i];
    if (r.prompt) return &r;
    const Sample& sample = samples_[i];
    show(fmt::format("full cache, sample {}/{}", i + 1, samples_.size()));
    const kvist::Wants wants = recorded(wants_);
    auto prompt = record(engine_, sample.prompt, wants, {}, settings_.chunk);
    if (!prompt) return prompt.failure();
    r.prompt.emplace(*std::move(prompt));
    if (sample.window) {
      auto full = full_window(engine_, *r.prompt, *sample.window);
      if (!full) return full.failure();
      r.masses.push_back(full->masses);
      r.window.emplace(*std::move(full));
    } else {
      auto masses = std::make_shared<kvist::ScoresByPosition>();
      for (const tasks::Question& q : sample.questions) {
        Recording* base = &*r.prompt;
        std::vector<Token> feed = q.open;
        if (settings_.seen) {
          auto with = extend(engine_, *r.prompt, q.ask, wants);
          if (!with) return with.failure();
          r.asked.push_back(*std::move(with));
          base = &r.asked.back();
          masses = std::make_shared<kvist::ScoresByPosition>();
        } else {
          feed.insert(feed.begin(), q.ask.begin(), q.ask.end());
        }
        auto right = full_answers(engine_, *base, feed, q.payload, *masses);
        if (!right) return right.failure();
        r.hits.push_back(*right);
        if (settings_.seen) r.masses.push_back(masses);
      }
      if (!settings_.seen) r.masses.push_back(masses);
    }
    if (i == 0) {
      auto seconds = time_decode(engine_, r.prompt->full, 0, sample.prompt.back(), 0);
      if (!seconds) return seconds.failure();
      r.decode_seconds = *seconds;
      r.prompt->full.truncate(r.prompt->size());
    }
    return &r;
  }

  /// Runs all samples with the full cache: can the model do the task at all? Where not, every row says so.
  Outcome<bool> gate() {
    Index right = 0, asked = 0;
    for (std::size_t s = 0; s < samples_.size(); ++s) {
      auto reference = reference_of(s);
      if (!reference) return reference.failure();
      full_hits_.insert(full_hits_.end(), (*reference)->hits.begin(), (*reference)->hits.end());
      if (!fits()) references_[s] = Reference{};
    }
    for (const bool h : full_hits_) {
      right += h;
      ++asked;
    }
    const compare::Interval w = compare::wilson(right, asked);
    if (w.lo >= 0.7) return true;
    for (const Contestant* c : missing_) {
      Json j = Results::row(key(c->text));
      j.set("status", "model_cannot");
      j.set("error",
            fmt::format(
                "the full cache answers {} of {} questions: the lower 95 % bound of its accuracy is {:.2f}, "
                "below 0.7, so nothing can be compared (more --samples narrow the bound)",
                right, asked, w.lo));
      Json metrics = Json::object();
      metrics.set("accuracy_full", double(right) / double(asked));
      j.set("metrics", std::move(metrics));
      Json ci = Json::object();
      ci.set("accuracy_full", std::vector<double>{w.lo, w.hi});
      j.set("ci", std::move(ci));
      j.set("paired", Json::array());
      j.set("questions", asked);
      if (auto done = results_.put(key(c->text), std::move(j)); !done) return done.failure();
    }
    return false;
  }

  /// Adds a prepared cache's sizes to the tally.
  Outcome<Good> weigh(const Contestant& who, Recording& prompt, const Prepared& p, Tally& t) {
    const kvist::Shape& s = engine_.shape();
    double entries = 0;
    for (int l = 0; l < s.layers; ++l)
      for (int h = 0; h < s.kv_heads; ++h) entries += double(p.cache.size(l, h));
    t.kept += entries / (double(prompt.size()) * s.layers * s.kv_heads);
    t.bytes += double(p.cache.bytes());
    t.bytes_peak = std::max(t.bytes_peak, double(p.cache.bytes_peak()));
    auto full = full_bytes(who.store, prompt, who);
    if (!full) return full.failure();
    t.bytes_full += *full;
    auto half = full_bytes("f16", prompt, who);
    if (!half) return half.failure();
    t.bytes_full_f16 += *half;
    t.policy += p.seconds;
    t.prefill += prompt.seconds;
    t.budget = std::max(t.budget, p.budget);
    ++t.caches;
    return Good{};
  }

  /// Bytes of the whole prompt in a store, made once for each store and length.
  Outcome<double> full_bytes(const std::string& store, const Recording& prompt, const Contestant& who) {
    const auto key = std::pair(store, prompt.size());
    if (const auto known = full_bytes_.find(key); known != full_bytes_.end()) return known->second;
    kvist::methods::StoreFactory stores;
    if (store == who.store) {
      auto made = who.make();
      if (!made) return made.failure();
      stores = made->stores;
    } else {
      auto made = plain_store(store);
      if (!made) return made.failure();
      stores = *std::move(made);
    }
    auto cache = whole(engine_, prompt, stores);
    if (!cache) return cache.failure();
    return full_bytes_.emplace(key, double(cache->bytes())).first->second;
  }

  Outcome<Good> measure(const Contestant& who, std::size_t i, Reference& r, Tally& t) {
    const Sample& sample = samples_[i];
    if (sample.window || !settings_.seen) {
      auto p = prepare(engine_, *r.prompt, who, 0, r.masses[0], !settings_.live);
      if (!p) return p.failure();
      if (auto done = weigh(who, *r.prompt, *p, t); !done) return done;
      if (sample.window) {
        auto score = score_window(engine_, *p, *sample.window, *r.window, settings_.live);
        if (!score) return score.failure();
        t.kl.push_back(score->kl);
        t.top1.push_back(score->top1);
        t.nll.push_back(score->nll);
        t.nll_full.push_back(r.window->nll);
        t.output_error.push_back(score->output_error);
      } else {
        for (const tasks::Question& q : sample.questions) {
          std::vector<Token> feed = q.ask;
          feed.insert(feed.end(), q.open.begin(), q.open.end());
          Prepared branch{p->cache.clone(), p->budget, 0, p->steps};
          auto right = answers(engine_, branch, feed, q.payload, settings_.live);
          if (!right) return right.failure();
          t.hits.push_back(*right);
        }
      }
      return time_first(i, r, *p, t);
    }
    for (std::size_t q = 0; q < sample.questions.size(); ++q) {
      const tasks::Question& question = sample.questions[q];
      auto p = prepare(engine_, r.asked[q], who, Index(question.ask.size()), r.masses[q], !settings_.live);
      if (!p) return p.failure();
      if (auto done = weigh(who, r.asked[q], *p, t); !done) return done;
      auto right = answers(engine_, *p, question.open, question.payload, settings_.live);
      if (!right) return right.failure();
      t.hits.push_back(*right);
      if (q == 0)
        if (auto done = time_first(i, r, *p, t); !done) return done;
    }
    return Good{};
  }

  Outcome<Good> time_first(std::size_t i, const Reference& r, Prepared& p, Tally& t) {
    if (i != 0) return Good{};
    const Index step = settings_.live ? p.steps + 65 : 0;
    auto seconds = time_decode(engine_, p.cache, p.budget, samples_[i].prompt.back(), step);
    if (!seconds) return seconds.failure();
    t.decode = *seconds;
    t.decode_full = r.decode_seconds;
    return Good{};
  }

  Json row(const std::string& policy, const Tally& t) const {
    Json j = Results::row(key(policy));
    if (!t.error.empty()) {
      j.set("status", "error");
      j.set("error", t.error);
      return j;
    }
    j.set("status", "ok");
    Json metrics = Json::object(), ci = Json::object();
    const auto pair = [](const compare::Interval& x) { return std::vector<double>{x.lo, x.hi}; };
    if (!retrieval()) {
      const std::uint64_t seed = settings_.seed;
      const auto ppl = [&](const std::vector<double>& nll) {
        compare::Interval x = compare::bootstrap_mean(nll, seed);
        return compare::Interval{std::exp(x.lo), std::exp(x.hi)};
      };
      metrics.set("kl", compare::mean(t.kl));
      metrics.set("top1_agreement", compare::mean(t.top1));
      metrics.set("perplexity", std::exp(compare::mean(t.nll)));
      metrics.set("perplexity_full", std::exp(compare::mean(t.nll_full)));
      metrics.set("output_error", compare::mean(t.output_error));
      ci.set("kl", pair(compare::bootstrap_mean(t.kl, seed)));
      ci.set("top1_agreement", pair(compare::bootstrap_mean(t.top1, seed)));
      ci.set("perplexity", pair(ppl(t.nll)));
      ci.set("perplexity_full", pair(ppl(t.nll_full)));
      ci.set("output_error", pair(compare::bootstrap_mean(t.output_error, seed)));
      Json windows = Json::object();
      windows.set("kl", t.kl);
      windows.set("top1_agreement", t.top1);
      windows.set("nll", t.nll);
      windows.set("nll_full", t.nll_full);
      windows.set("output_error", t.output_error);
      j.set("windows", std::move(windows));
    } else {
      Index right = 0, full = 0;
      const Index n = Index(t.hits.size());
      std::vector<int> full_hits;
      for (const int h : t.hits) right += h;
      for (const bool h : full_hits_) {
        full += h;
        full_hits.push_back(h);
      }
      metrics.set("accuracy", double(right) / double(n));
      metrics.set("accuracy_full", double(full) / double(full_hits.size()));
      ci.set("accuracy", pair(compare::wilson(right, n)));
      ci.set("accuracy_full", pair(compare::wilson(full, Index(full_hits.size()))));
      j.set("questions", n);
      j.set("contexts", samples_.size());
      j.set("hits", t.hits);
      j.set("hits_full", full_hits);
    }
    j.set("metrics", std::move(metrics));
    j.set("ci", std::move(ci));
    j.set("paired", Json::array());
    const double n = double(t.caches);
    j.set("budget", t.budget);
    j.set("kept_fraction", t.kept / n);
    j.set("bytes", std::llround(t.bytes / n));
    j.set("bytes_peak", std::llround(t.bytes_peak));
    j.set("bytes_full", std::llround(t.bytes_full / n));
    j.set("bytes_full_f16", std::llround(t.bytes_full_f16 / n));
    Json seconds = Json::object();
    seconds.set("prefill", t.prefill / n);
    seconds.set("policy", t.policy / n);
    seconds.set("decode_per_token", t.decode);
    seconds.set("decode_per_token_full", t.decode_full);
    j.set("seconds", std::move(seconds));
    return j;
  }

  Engine& engine_;
  const NamedText& text_;
  const RunSettings& settings_;
  Results& results_;
  Progress& progress_;
  std::string task_;
  Index context_;
  std::vector<const Contestant*> missing_;
  std::vector<Sample> samples_;
  std::vector<Reference> references_;
  std::vector<bool> full_hits_;
  kvist::Wants wants_;
  std::map<std::pair<std::string, Index>, double> full_bytes_;
};

}  // namespace

RowKey row_key(const RunSettings& settings, const NamedText& text, const std::string& task, Index context,
               const std::string& policy) {
  RowKey k;
  k.policy = policy;
  k.task = task;
  k.text = text.name;
  k.text_sum = text.sum;
  // fidelity has no question
  k.question = settings.seen && task != "fidelity" ? "seen" : "unseen";
  k.decode = settings.live ? "live" : "frozen";
  k.context = context;
  const auto fewer = settings.windows.find(context);
  k.samples = task == "fidelity" && fewer != settings.windows.end() ? fewer->second : settings.samples;
  k.seed = settings.seed;
  k.chunk = settings.chunk;
  return k;
}

Outcome<Good> run_all(Engine& engine, const NamedText& text, const RunSettings& settings, Results& results,
                      Progress& progress) {
  progress.show("reading the text");
  std::vector<Token> tokens;
  tasks::Haystack hay;
  for (const std::string& task : settings.tasks) {
    if (task == "fidelity" && tokens.empty()) tokens = engine.encode(text.text);
    if (task != "fidelity" && hay.sentences.empty())
      hay = tasks::Haystack::of(text.text, [&](std::string_view s) { return engine.encode(s); });
    for (const Index context : settings.contexts) {
      TaskRun run(engine, text, settings, results, progress, task, context);
      if (auto done = run.run(tokens, hay); !done) return done;
    }
  }
  progress.clear();
  return Good{};
}

}  // namespace kvist_eval
