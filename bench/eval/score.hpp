#pragma once
// SPDX-License-Identifier: Apache-2.0
#include "recording.hpp"

#include <kvist/reference/compare.hpp>
#include <kvist/reference/tasks.hpp>

#include <memory>
#include <span>
#include <vector>

namespace kvist_eval {

/// What the full cache says of the tokens after a text window.
struct FullWindow {
  std::vector<float> logits;  ///< [tokens, vocabulary], after each token of the window's `next`
  std::vector<kvist::compare::LogitRow> rows;  ///< [tokens]
  std::vector<std::vector<float>> attention;   ///< [layers] of [tokens, q_heads, dv]
  /// attention of those tokens to each entry of the prompt
  std::shared_ptr<const kvist::ScoresByPosition> masses;
  double nll = 0;  ///< mean over the tokens whose next one is known
};
/// Runs the window's continuation over the recording's full cache, which is left as it was.
Outcome<FullWindow> full_window(Engine& engine, Recording& prompt, const kvist::tasks::TextWindow& window);

/// How a policy's cache did on the same tokens; means over them.
struct WindowScore {
  double kl = 0, top1 = 0, nll = 0, output_error = 0;
};
/// Feeds the continuation to a prepared cache and compares. Frozen: at once, nothing more is evicted; live:
/// token by token.
Outcome<WindowScore> score_window(Engine& engine, Prepared& policy, const kvist::tasks::TextWindow& window,
                                  const FullWindow& full, bool live);

/// Does the cache answer: is each token of the payload the argmax after `feed` and the true tokens before it?
Outcome<bool> answers(Engine& engine, Prepared& policy, std::span<const Token> feed,
                      std::span<const Token> payload, bool live);
/// The same over the recording's full cache, which is left as it was; attention to the prompt is added to
/// `masses`.
Outcome<bool> full_answers(Engine& engine, Recording& prompt, std::span<const Token> feed,
                           std::span<const Token> payload, kvist::ScoresByPosition& masses);

/// Seconds of a single decode step, the mean of a few after a first one that does not count. The cache grows
/// by them.
Outcome<double> time_decode(Engine& engine, AnyCache& cache, Index budget, Token token, Index live_step);

}  // namespace kvist_eval
