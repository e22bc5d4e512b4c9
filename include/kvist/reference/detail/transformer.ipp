// SPDX-License-Identifier: Apache-2.0
// The forward pass; included by reference/transformer.hpp.

namespace kvist::inline KVIST_ABI {

template <Executor E>
void Transformer<E>::reserve(Index n, Index logits) {
  const ModelConfig& c = model_.config();
  const Shape& s = c.shape;
  const auto grow = [](detail::Floats& rows, std::size_t count, std::size_t width) {
    if (rows.size() < count * width) rows.resize(count * width);
  };
  const std::size_t tokens = std::size_t(n);
  if (n > room_) {
    room_ = n;
    for (detail::Floats* rows : {&x_, &h_}) grow(*rows, tokens, std::size_t(c.width));
    grow(q_, tokens, std::size_t(s.q_heads) * std::size_t(s.dim_k));
    grow(k_, tokens, std::size_t(s.kv_heads) * std::size_t(s.dim_k));
    grow(v_, tokens, std::size_t(s.kv_heads) * std::size_t(s.dim_v));
    grow(out_, tokens, std::size_t(s.q_heads) * std::size_t(s.dim_v));
    for (detail::Floats* rows : {&gate_, &up_}) grow(*rows, tokens, std::size_t(c.ffn_width));
    angles_.prepare(c.rope, 0, n);
  }
  grow(logits_, std::size_t(logits), std::size_t(c.vocabulary));
}

/// norm(x) = x / sqrt(mean(x^2) + epsilon)
template <Executor E>
void Transformer<E>::norm(const float* x, Index t, const std::vector<float>& weight, float* h) const {
  const Eigen::Index width = model_.config().width;
  const Eigen::Map<const Eigen::ArrayXf> row(x + t * width, width), w(weight.data(), width);
  const float mean = row.square().sum() / float(width);
  Eigen::Map<Eigen::ArrayXf>(h + t * width, width) =
      row * (1.0f / std::sqrt(mean + model_.config().norm_epsilon)) * w;
}

template <Executor E>
template <TransformerCache C, class Hooks>
Result<std::span<const float>> Transformer<E>::forward(std::span<const Token> ids, Pos first, C& cache,
                                                       const ForwardCall& call, Hooks&& hooks) {
  const ModelConfig& c = model_.config();
  const Eigen::Index width = c.width, ffn = c.ffn_width;
  if (ids.empty()) return Error{Errc::bad_shape, "a forward pass needs a token"};
  if (first < 0 || ids.size() > std::size_t(std::numeric_limits<Index>::max() - first))
    return Error{Errc::bad_shape, "positions of tokens must fit in 31 bits", 0, first};
  if (first != Pos(cache.next_position()))
    return Error{Errc::bad_shape, "the first token's position is not the one that the cache waits for",
                 cache.next_position(), first};
  if (Shape(cache.shape()) != c.shape) return Error{Errc::bad_shape, "the cache was made for another model"};
  for (const Token id : ids)
    if (id < 0 || id >= c.vocabulary)
      return Error{Errc::bad_value, "a token id lies outside the vocabulary", c.vocabulary, id};
  const Index n = Index(ids.size());
  const Index wanted = call.logits < 0 ? n : std::min(call.logits, n);
  constexpr bool streams = requires(std::span<const float> s) { hooks.on_logits(Index{}, Index{}, s); };
  reserve(n, streams ? std::min(wanted, logits_block) : wanted);
  const bool one = n == 1 && !call.prompt;
  if (KeyForm(cache.form()) == KeyForm::rotated) angles_.prepare(c.rope, first, n);
  else if (!one && !compact(cache))
    return Error{Errc::unsupported,
                 "many tokens at once need rotated keys, or raw ones whose positions are their slots"};

  for_each_row(n, [&](Index t) {  // x [n, width] = E[id]
    const WeightMatrix& e = model_.embedding();
    [[maybe_unused]] const Status done = dequantize(e.type, {e.row(ids[std::size_t(t)]), e.row_bytes()},
                                                    {x_.data() + t * width, std::size_t(width)});
  });

  for (int i = 0; i < c.shape.layers; ++i) {
    const LayerWeights& layer = model_.layer(i);
    for_each_row(n, [&](Index t) { norm(x_.data(), t, layer.attention_norm, h_.data()); });
    multiply({product(layer.q, q_), product(layer.k, k_), product(layer.v, v_)}, h_.data(), n);
    const Status attended = one                      ? attend_one(i, first, cache, call, hooks)
                            : few(cache, i, n, call) ? attend_few(i, n, first, cache, hooks)
                                                     : attend_many(i, n, first, cache, call, hooks);
    if (!attended) return attended.error();
    multiply({product(layer.o, h_)}, out_.data(), n);  // h [n, width] = out Wo^T

    for_each_row(n, [&](Index t) {  // x += h, then h = norm(x)
      Eigen::Map<Eigen::ArrayXf>(x_.data() + t * width, width) +=
          Eigen::Map<const Eigen::ArrayXf>(h_.data() + t * width, width);
      norm(x_.data(), t, layer.ffn_norm, h_.data());
    });
    multiply({product(layer.gate, gate_), product(layer.up, up_)}, h_.data(), n);
    for_each_row(n, [&](Index t) {  // gate = silu(gate) * up, silu(a) = a / (1 + exp(-a))
      Eigen::Map<Eigen::ArrayXf> gate(gate_.data() + t * ffn, ffn);
      gate = gate / (1.0f + (-gate).exp()) * Eigen::Map<const Eigen::ArrayXf>(up_.data() + t * ffn, ffn);
    });
    multiply({product(layer.down, h_)}, gate_.data(), n);  // h [n, width]
    for_each_row(n, [&](Index t) {
      Eigen::Map<Eigen::ArrayXf>(x_.data() + t * width, width) +=
          Eigen::Map<const Eigen::ArrayXf>(h_.data() + t * width, width);
    });
  }

  // logits [wanted, vocabulary] = norm(x) Wout^T
  const Index block = streams ? std::min(wanted, logits_block) : wanted;
  for (Index done = 0; done < wanted; done += block) {
    const Index from = n - wanted + done, count = std::min(block, wanted - done);
    for_each_row(count, [&](Index t) { norm(x_.data() + from * width, t, model_.output_norm(), h_.data()); });
    multiply({product(model_.output(), logits_)}, h_.data(), count);
    if constexpr (streams)
      hooks.on_logits(from, count,
                      std::span<const float>(logits_.data(), std::size_t(count) * std::size_t(c.vocabulary)));
  }
  return std::span<const float>(logits_.data(), streams ? 0 : std::size_t(wanted) * std::size_t(c.vocabulary));
}

/// A token of its own: the cache takes its key and value and does the attention.
template <Executor E>
template <TransformerCache C, class Hooks>
Status Transformer<E>::attend_one(int layer, Pos position, C& cache, const ForwardCall& call, Hooks& hooks) {
  const Shape& s = model_.shape();
  if constexpr (requires { hooks.on_keys_before_rope(layer, std::span<const float>{}, position); })
    hooks.on_keys_before_rope(layer, std::span<const float>(k_.data(), std::size_t(s.kv_heads * s.dim_k)),
                              position);
  if (KeyForm(cache.form()) == KeyForm::rotated) {
    angles_.rotate(q_.data(), s.q_heads, s.dim_k, position);
    angles_.rotate(k_.data(), s.kv_heads, s.dim_k, position);
  }
  show(hooks, layer, 1, position, q_.data());
  if (const Status done = cache.append(layer, Index{1}, k_.data(), v_.data(), position); !done) return done;
  if (const Status done =
          cache.attend(layer, q_.data(), model_.config().attention_scale, out_.data(), executor_);
      !done)
    return done;
  if constexpr (requires { hooks.on_attention(layer, std::span<const float>{}, position); })
    hooks.on_attention(layer, std::span<const float>(out_.data(), std::size_t(s.q_heads * s.dim_v)), position);
  if (call.step > 0) return cache.step(layer, clock(cache, layer, call, Phase::decode));
  return Done{};
}

/// A few tokens after others: the cache does the attention, then takes their keys and values.
template <Executor E>
template <TransformerCache C, class Hooks>
Status Transformer<E>::attend_few(int layer, Index n, Pos first, C& cache, Hooks& hooks) {
  const Shape& s = model_.shape();
  if constexpr (requires { hooks.on_keys_before_rope(layer, std::span<const float>{}, first); })
    hooks.on_keys_before_rope(
        layer, std::span<const float>(k_.data(), std::size_t(n) * std::size_t(s.kv_heads * s.dim_k)), first);
  for_each_row(n, [&](Index t) {
    angles_.rotate(q_.data() + std::ptrdiff_t(t) * s.q_heads * s.dim_k, s.q_heads, s.dim_k, first + t);
    angles_.rotate(k_.data() + std::ptrdiff_t(t) * s.kv_heads * s.dim_k, s.kv_heads, s.dim_k, first + t);
  });
  show(hooks, layer, n, first, q_.data());
  if constexpr (AttendsTokens<C, E>) {
    const LayerAttention how{model_.config().attention_scale, 0, 0, {}};
    const Status done =
        cache.attend_tokens(layer, n, q_.data(), k_.data(), v_.data(), first, how, out_.data(), executor_);
    if (!done) return done;
  }
  if constexpr (requires { hooks.on_attention(layer, std::span<const float>{}, first); })
    hooks.on_attention(
        layer, std::span<const float>(out_.data(), std::size_t(n) * std::size_t(s.q_heads * s.dim_v)), first);
  if (const Status done = cache.append(layer, n, k_.data(), v_.data(), first); !done) return done;
  if constexpr (requires { cache.settle(layer); }) cache.settle(layer);
  return Done{};
}

/// Many tokens: past rows and the call's own, exactly; then the tokens enter the cache, and the evidence follows.
template <Executor E>
template <TransformerCache C, class Hooks>
Status Transformer<E>::attend_many(int layer, Index n, Pos first, C& cache, const ForwardCall& call,
                                   Hooks& hooks) {
  const Shape& s = model_.shape();
  const std::size_t heads = std::size_t(s.kv_heads);
  const std::ptrdiff_t stride_q = std::ptrdiff_t(s.q_heads) * s.dim_k,
                       stride_k = std::ptrdiff_t(s.kv_heads) * s.dim_k;
  if constexpr (requires { hooks.on_keys_before_rope(layer, std::span<const float>{}, first); })
    hooks.on_keys_before_rope(layer, std::span<const float>(k_.data(), std::size_t(n * stride_k)), first);

  // the past rows of each head
  past_k_.resize(heads);
  past_v_.resize(heads);
  past_bias_.resize(heads);
  past_.assign(heads, PastRows{});
  Index longest = 0;
  for (int h = 0; h < s.kv_heads; ++h) {
    PastRows& past = past_[std::size_t(h)];
    past.n = Index(cache.size(layer, h));
    longest = std::max(longest, past.n);
    if (past.n == 0) continue;
    detail::Floats &pk = past_k_[std::size_t(h)], &pv = past_v_[std::size_t(h)];
    pk.resize(std::size_t(past.n) * std::size_t(s.dim_k));
    pv.resize(std::size_t(past.n) * std::size_t(s.dim_v));
    cache.read(layer, h, Index{0}, past.n, pk.data(), pv.data());
    past.k = pk.data();
    past.v = pv.data();
    // a copy: what the span points to may be made anew for the next head
    const std::span<const float> bias = cache.bias(layer, h);
    past_bias_[std::size_t(h)].assign(bias.begin(), bias.end());
    if (!bias.empty()) past.bias = past_bias_[std::size_t(h)].data();
  }

  const float *q = q_.data(), *k = k_.data();
  if (KeyForm(cache.form()) == KeyForm::rotated) {
    for_each_row(n, [&](Index t) {
      angles_.rotate(q_.data() + t * stride_q, s.q_heads, s.dim_k, first + t);
      angles_.rotate(k_.data() + t * stride_k, s.kv_heads, s.dim_k, first + t);
    });
  } else {  // positions are slots: entry i of a head stands at i, token t at size + t; the cache takes k as it is
    angles_.prepare(model_.rope(), 0, longest + n);
    turned_q_.assign(q_.begin(), q_.begin() + n * stride_q);
    turned_k_.assign(k_.begin(), k_.begin() + n * stride_k);
    for (int h = 0; h < s.kv_heads; ++h) {
      const Index size = past_[std::size_t(h)].n;
      for (Index i = 0; i < size; ++i)
        angles_.rotate(past_k_[std::size_t(h)].data() + std::ptrdiff_t(i) * s.dim_k, 1, s.dim_k, i);
      for (Index t = 0; t < n; ++t) {
        angles_.rotate(turned_q_.data() + t * stride_q + h * s.group() * s.dim_k, s.group(), s.dim_k, size + t);
        angles_.rotate(turned_k_.data() + t * stride_k + h * s.dim_k, 1, s.dim_k, size + t);
      }
    }
    q = turned_q_.data();
    k = turned_k_.data();
  }
  show(hooks, layer, n, first, q);

  PrefillCall work;
  work.n = n;
  work.q = q;
  work.k = k;
  work.v = v_.data();
  work.past = past_;
  work.scale = model_.config().attention_scale;
  work.out = out_.data();
  if (call.prompt) work.wants = cache.wants();
  work.first_position = first;
  attention_.run(work, executor_);
  if constexpr (requires { hooks.on_attention(layer, std::span<const float>{}, first); })
    hooks.on_attention(layer, std::span<const float>(out_.data(), std::size_t(n * s.q_heads * s.dim_v)), first);

  if (const Status done = cache.append(layer, n, k_.data(), v_.data(), first); !done) return done;
  if (!call.prompt) return Done{};
  return cache.observe(layer, attention_.evidence(), clock(cache, layer, call, Phase::prefill));
}

}  // namespace kvist::inline KVIST_ABI
