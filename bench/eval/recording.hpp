#pragma once
// SPDX-License-Identifier: Apache-2.0
#include "contestant.hpp"
#include "engine.hpp"

#include <memory>
#include <vector>

namespace kvist_eval {

/// The evidence of one head, copied.
struct EvidenceCopy {
  int group = 0;
  Index queries_n = 0, entries = 0;
  Pos first_query = 0;
  std::vector<float> queries;      // [G, w, dk]
  std::vector<float> column_sums;  // [G, entries]
  std::vector<float> seen_by;      // [entries]
  std::vector<float> max_query;    // [G, dk]
};

/// A part of a prompt that was fed at once.
struct Chunk {
  Pos first = 0;
  Index n = 0;
  std::vector<EvidenceCopy> heads;  ///< [layers * kv_heads]
};

/// A prompt run once with the full cache: what every policy is then handed as an engine would hand it over,
/// layer by layer. Attention inside a prompt given at once does not depend on the policy, so one run serves
/// all of them.
struct Recording {
  AnyCache full;  ///< f32
  std::vector<std::shared_ptr<const Chunk>> chunks;
  std::vector<Token> ids;
  double seconds = 0;
  Index piece = 0;  ///< tokens of each call of the prompt; 0: it was given at once

  Index size() const { return Index(ids.size()); }
};

/// What must be recorded for policies that want this: probabilities are made of queries when they are needed,
/// so that nobody holds T x T.
kvist::Wants recorded(const kvist::Wants& wants);

/// `pass` says which logits are wanted besides. In calls of `piece` tokens, or (0, and where logits are wanted) at once.
Outcome<Recording> record(Engine& engine, std::span<const Token> ids, const kvist::Wants& wants,
                          Pass pass = {}, Index piece = 0);
/// A copy that goes on.
Outcome<Recording> extend(Engine& engine, const Recording& from, std::span<const Token> ids,
                          const kvist::Wants& wants);

/// A policy's cache at the end of a prompt.
struct Prepared {
  AnyCache cache;
  Index budget = 0;    ///< entries per KV head; 0: none
  double seconds = 0;  ///< of the policy's own work
  Index steps = 0;     ///< decode steps that the end of the prompt was fed by
};

/// Brings a contestant to the end of the recorded prompt. The last `question` tokens are kept on top of the
/// budget. Policies that leave a prompt whole, that evict between its chunks, or that renumber positions run
/// it themselves. `masses`: what the oracle keeps. `stepping` false: a prompt left whole stays so
/// (decode=live). A budget in bytes becomes the most entries whose cache holds no more, up to 5 % of it; fails where there
/// are none.
Outcome<Prepared> prepare(Engine& engine, const Recording& prompt, const Contestant& who, Index question,
                          std::shared_ptr<const kvist::ScoresByPosition> masses = {}, bool stepping = true);

/// The full cache of the recorded prompt in other stores: what the bytes of a policy are compared with.
Outcome<AnyCache> whole(Engine& engine, const Recording& prompt, const kvist::methods::StoreFactory& stores);

}  // namespace kvist_eval
