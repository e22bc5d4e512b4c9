// SPDX-License-Identifier: Apache-2.0
// kvist-eval tokenize, logits, generate: single steps of the machine, for checking against other code.
#include "commands.hpp"
#include "contestant.hpp"
#include "engine.hpp"
#include "places.hpp"
#include "recording.hpp"
#include "score.hpp"

#include <kvist/io/file.hpp>
#include <kvist/io/json.hpp>
#include <kvist/io/npy.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

namespace kvist_eval {
namespace {

using kvist::Json;

Outcome<std::unique_ptr<Engine>> engine_of(const Args& args) {
  auto threads = threads_of(args);
  if (!threads) return threads.failure();
  announce_isa();
  return Engine::load(model_of(args), *threads);
}

Outcome<std::vector<Token>> read_ids(const std::string& path, Index vocabulary) {
  auto text = kvist::read_file(path, std::size_t{1} << 28);
  if (!text) return failed(fmt::format("ids '{}'", path), text.error());
  auto json = Json::parse(*text);
  if (!json) return failed(fmt::format("ids '{}'", path), json.error());
  if (!json->is_array()) return failed(fmt::format("ids '{}': wanted a JSON array of token ids", path));
  std::vector<Token> out;
  for (const Json& x : json->elements()) {
    const std::int64_t id = x.is_number() ? x.as_int(-1) : -1;
    if (id < 0 || id >= vocabulary)
      return failed(fmt::format("ids '{}': element {} is not a token id from 0 to {}", path, out.size(),
                                vocabulary - 1));
    out.push_back(Token(id));
  }
  return out;
}

/// --ids, --text or --prompt, exactly one of them.
Outcome<std::vector<Token>> input(const Args& args, const Engine& engine, bool prompt) {
  const int given = args.has("ids") + args.has("text") + args.has("prompt");
  if (given != 1)
    return usage(prompt ? "give one of --ids FILE, --text FILE and --prompt TEXT"
                        : "give one of --ids FILE and --text FILE");
  if (args.has("chat") && !args.has("prompt")) return usage("--chat wraps a --prompt");
  std::vector<Token> ids;
  if (args.has("ids")) {
    auto read = read_ids(args.text("ids"), engine.config().vocabulary);
    if (!read) return read.failure();
    ids = *std::move(read);
  } else if (args.has("text")) {
    auto text = read_text(args.text("text"));
    if (!text) return text.failure();
    ids = engine.encode(*text);
  } else if (args.has("chat")) {
    if (!engine.tokenizer().speaks_chatml())
      return failed("--chat: the model's file states no ChatML template");
    ids = engine.encode(kvist::Tokenizer::chat_prompt(args.text("prompt")));
  } else {
    ids = engine.encode(args.text("prompt"));
  }
  if (ids.empty()) return failed("there are no tokens");
  return ids;
}

Outcome<Good> tokenize(const Args& args, const std::string&) {
  if (!args.has("text")) return usage("tokenize wants --text FILE");
  auto text = read_text(args.text("text"));
  if (!text) return text.failure();
  auto path = find_model(model_of(args));
  if (!path) return path.failure();
  auto file = kvist::Gguf::open(*path);
  if (!file) return failed(fmt::format("model '{}'", *path), file.error());
  auto tokenizer = kvist::Tokenizer::from_gguf(*file);
  if (!tokenizer) return failed(fmt::format("tokenizer of '{}'", *path), tokenizer.error());
  const std::vector<Token> ids = tokenizer->encode(*text, !args.has("no-special"));
  Json out = Json::object();
  out.set("ids", ids);
  out.set("text", tokenizer->decode(ids));
  return write_result(args.text("json"), out.dump() + "\n");
}

/// --policy, full by default; one SPEC, with its budget.
Outcome<Contestant> contestant_of(const Args& args) {
  auto who = contestants({args.text("policy", "full")}, {});
  if (!who) return who.failure();
  if (who->size() != 1) return usage("--policy wants one SPEC here");
  if ((*who)[0].oracle) return usage("the oracle needs the continuation: it takes part in `run` alone");
  return std::move((*who)[0]);
}

/// The logits of a listing, row by row.
struct Listing {
  std::span<const Token> ids = {};
  std::size_t vocabulary = 0, top = 0;
  bool keep = false;
  Json positions = Json::array();
  std::vector<float> all = {};  ///< [listed, vocabulary] where kept

  /// Logits [count, vocabulary] after the tokens at positions first .. first + count - 1.
  void add(Pos first, Index count, std::span<const float> logits) {
    for (Index i = 0; i < count; ++i) {
      const auto x = logits.subspan(std::size_t(i) * vocabulary, vocabulary);
      const auto row = kvist::compare::summarise(x);
      const std::size_t p = std::size_t(first + i);
      Json j = Json::object();
      j.set("position", p);
      j.set("logsumexp", row.logsumexp);
      j.set("logprob_next",
            p + 1 < ids.size() ? Json(kvist::compare::log_probability(x, row, ids[p + 1])) : Json());
      j.set("top", best(x));
      positions.push_back(std::move(j));
    }
    if (keep) all.insert(all.end(), logits.begin(), logits.end());
  }
  Json best(std::span<const float> x) const {
    std::vector<Index> order(vocabulary);
    std::iota(order.begin(), order.end(), 0);
    const std::size_t k = std::min(top, vocabulary);
    std::partial_sort(order.begin(), order.begin() + std::ptrdiff_t(k), order.end(), [&](Index a, Index b) {
      const float fa = x[std::size_t(a)], fb = x[std::size_t(b)];
      return fa != fb ? fa > fb : a < b;
    });
    Json out = Json::array();
    for (std::size_t t = 0; t < k; ++t) {
      Json pair = Json::array();
      pair.push_back(order[t]);
      pair.push_back(double(x[std::size_t(order[t])]));
      out.push_back(std::move(pair));
    }
    return out;
  }
};

/// The prompt in the policy's cache. Its last logits are those of the full cache: what goes, goes after the
/// prompt. `last`, where given, gets them as `all`, and tokens are then made one by one: a prompt left whole
/// stays so.
Outcome<Prepared> compress(Engine& engine, std::span<const Token> prompt, const Contestant& who, Listing* last) {
  auto made = who.make();
  if (!made) return made.failure();
  Pass pass;
  if (last) {
    pass.logits = 1;
    pass.on_logits = [&](Index, Index count, std::span<const float> x) {
      last->all.assign(x.end() - std::ptrdiff_t(x.size()) / count, x.end());
    };
  }
  auto recording = record(engine, prompt, recorded(made->policy.wants()), pass);
  if (!recording) return recording.failure();
  return prepare(engine, *recording, who, 0, {}, !last);
}

double kept_fraction(const AnyCache& cache, Index n) {
  double entries = 0;
  const kvist::Shape& s = cache.shape();
  for (int l = 0; l < s.layers; ++l)
    for (int h = 0; h < s.kv_heads; ++h) entries += double(cache.size(l, h));
  return entries / (double(n) * s.layers * s.kv_heads);
}

Outcome<Good> logits(const Args& args, const std::string&) {
  auto last = args.number("last", 1 << 30, 1, 1 << 30);
  if (!last) return last.failure();
  auto top = args.number("top", 5, 0, 1 << 20);
  if (!top) return top.failure();
  auto at = args.number("compress-at", 0, 1, 1 << 30);
  if (!at) return at.failure();
  if (args.has("policy") != args.has("compress-at"))
    return usage(
        "--policy SPEC and --compress-at N go together: N tokens are the prompt that the policy compresses");
  auto who = contestant_of(args);
  if (!who) return who.failure();
  auto engine = engine_of(args);
  if (!engine) return engine.failure();
  auto ids = input(args, **engine, false);
  if (!ids) return ids.failure();
  const Index n = Index(ids->size()), prompt = Index(*at);
  if (prompt >= n)
    return usage(fmt::format("--compress-at wants a number from 1 to {}: there are {} tokens", n - 1, n));

  Listing listing{*ids, std::size_t((*engine)->config().vocabulary), std::size_t(*top), args.has("full")};
  Json out = Json::object();
  Pass pass;
  pass.logits = std::min(Index(*last), n - prompt);
  pass.prompt = prompt == 0;
  pass.on_logits = [&](Index first, Index count, std::span<const float> x) {
    listing.add(prompt + first, count, x);
  };
  double kept = 1, bytes = 0;
  if (prompt > 0) {
    auto cache = compress(**engine, std::span(*ids).first(std::size_t(prompt)), *who, nullptr);
    if (!cache) return cache.failure();
    kept = kept_fraction(cache->cache, prompt);
    bytes = double(cache->cache.bytes());
    EvalCache eval(cache->cache, cache->budget);
    if (const auto done = (*engine)->forward(std::span(*ids).subspan(std::size_t(prompt)), prompt, eval, pass);
        !done)
      return failed("the tokens after the prompt", done.error());
  } else {
    auto full = record(**engine, *ids, {}, pass);
    if (!full) return full.failure();
    bytes = double(full->full.bytes());
  }
  if (args.has("full")) {
    if (const auto done = kvist::save_npy(args.text("full"), {listing.positions.size(), listing.vocabulary},
                                          std::span<const float>(listing.all));
        !done)
      return failed(fmt::format("'{}'", args.text("full")), done.error());
  }
  out.set("positions", std::move(listing.positions));
  out.set("kept_fraction", kept);
  out.set("bytes", std::llround(bytes));
  return write_result(args.text("json"), out.dump() + "\n");
}

Outcome<Good> generate(const Args& args, const std::string&) {
  auto count = args.number("tokens", 64, 1, 1 << 20);
  if (!count) return count.failure();
  auto who = contestant_of(args);
  if (!who) return who.failure();
  auto engine = engine_of(args);
  if (!engine) return engine.failure();
  auto ids = input(args, **engine, true);
  if (!ids) return ids.failure();
  Listing last;
  auto cache = compress(**engine, *ids, *who, &last);
  if (!cache) return cache.failure();
  EvalCache eval(cache->cache, cache->budget);
  std::vector<float>& x = last.all;
  std::vector<Token> made;
  for (Index step = 1;; ++step) {
    const Token next = Token(std::max_element(x.begin(), x.end()) - x.begin());
    made.push_back(next);
    if (step >= *count || (args.has("chat") && (*engine)->tokenizer().ends_text(next))) break;
    Pass pass;
    pass.logits = 1;
    pass.step = cache->steps + step;
    pass.on_logits = [&](Index, Index, std::span<const float> row) { x.assign(row.begin(), row.end()); };
    if (const auto done = (*engine)->forward(std::span(&next, 1), cache->cache.next_position(), eval, pass);
        !done)
      return failed("a decode step", done.error());
  }
  Json out = Json::object();
  out.set("ids", made);
  out.set("text", (*engine)->tokenizer().decode(made));
  return write_result(args.text("json"), out.dump() + "\n");
}

constexpr OptionSpec model_option{
    "model", "M", "tiny (bundled), smollm2, or a GGUF file; default smollm2 where it is found, else tiny"};
constexpr OptionSpec json_option{"json", "FILE", "where the result goes; default standard output"};
constexpr OptionSpec threads_option{"threads", "N",
                                    "default what the machine has; results do not depend on it"};
constexpr OptionSpec ids_option{"ids", "FILE", "a JSON array of token ids"};

constexpr std::array tokenize_options{
    model_option, OptionSpec{"text", "FILE", "UTF-8 text"},
    OptionSpec{"no-special", "", "special tokens written out in the text are text like any other"},
    json_option};
constexpr std::array logits_options{
    model_option,
    ids_option,
    OptionSpec{"text", "FILE", "UTF-8 text"},
    OptionSpec{"policy", "SPEC", "what compresses the prompt"},
    OptionSpec{"compress-at", "N",
               "the first N tokens are the prompt; the rest is fed to what the policy left of it"},
    OptionSpec{"last", "N", "list the last N positions; default all (after the prompt)"},
    OptionSpec{"top", "K", "the K largest logits of each position; default 5"},
    OptionSpec{"full", "FILE.npy", "all logits as f32 [listed, vocabulary]"},
    json_option,
    threads_option};
constexpr std::array generate_options{
    model_option,
    ids_option,
    OptionSpec{"text", "FILE", "UTF-8 text"},
    OptionSpec{"prompt", "TEXT", "the prompt itself"},
    OptionSpec{"chat", "", "put the prompt into the model's chat template"},
    OptionSpec{"tokens", "N", "so many new tokens (a --chat may end before); default 64"},
    OptionSpec{"policy", "SPEC", "a policy that goes on deciding while tokens are made"},
    json_option,
    threads_option};

}  // namespace

const Command tokenize_command{
    "tokenize", "token ids of a text",
    "Writes {\"ids\":[..],\"text\":\"..\"}: the ids, and the ids decoded again. No start token is added.\n",
    tokenize_options, &tokenize};
const Command logits_command{
    "logits", "logits of given tokens, over the full cache or after a policy",
    "Writes "
    "{\"positions\":[{\"position\":p,\"logsumexp\":x,\"logprob_next\":y,\"top\":[[id,logit],..]}],\"kept_"
    "fraction\":..,\n"
    "\"bytes\":..}. Kept fraction and bytes are those of the prompt's cache after compression.\n",
    logits_options, &logits};
const Command generate_command{"generate", "greedy continuation",
                               "Writes {\"ids\":[new ids],\"text\":\"..\"}; a --chat stops at an end token, "
                               "which is the last id then.\n",
                               generate_options, &generate};

}  // namespace kvist_eval
