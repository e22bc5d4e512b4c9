#pragma once
// SPDX-License-Identifier: Apache-2.0
// Llama models of a few channels, made in memory, and the forward pass by its formulas in f64.
#include <kvist/core/random.hpp>
#include <kvist/reference/model.hpp>

#include <cmath>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "support/gguf_writer.hpp"

namespace kvist::test {

/// Stored blocks of `elements` random weights of about the size `scale`, of any type that is decoded.
inline std::string random_blocks(TensorType type, std::size_t elements, Random& random, float scale = 0.2f) {
  const auto number = [&] { return float(random.uniform() * 2 - 1); };
  const auto half = [](float x) { return GgufWriter::encoded(to_f16(x).bits); };
  std::string out;
  if (type == TensorType::f32 || type == TensorType::f16 || type == TensorType::bf16) {
    for (std::size_t i = 0; i < elements; ++i) {
      const float x = scale * number();
      if (type == TensorType::f32) out += GgufWriter::encoded(x);
      else if (type == TensorType::f16) out += half(x);
      else out += GgufWriter::encoded(to_bf16(x).bits);
    }
    return out;
  }
  // Blocks: any bytes are good codes; the f16 scales are set to what makes the values small.
  const std::size_t bytes = block_bytes(type);
  for (std::size_t b = 0; b < elements / block_elements(type); ++b) {
    std::string block(bytes, '\0');
    for (char& c : block) c = char(random.below(256));
    const auto put = [&](std::size_t at, float x) { block.replace(at, 2, half(x)); };
    const float size = scale * (0.5f + 0.5f * float(random.uniform()));
    switch (type) {
      case TensorType::q4_0:
        put(0, size / 8);
        break;
      case TensorType::q5_0:
        put(0, size / 16);
        break;
      case TensorType::q8_0:
        put(0, size / 128);
        break;
      case TensorType::q4_1:
        put(0, size / 8), put(2, -size);
        break;
      case TensorType::q5_1:
        put(0, size / 16), put(2, -size);
        break;
      case TensorType::q4_k:
        put(0, size / 8 / 32), put(2, size / 32);
        break;
      case TensorType::q5_k:
        put(0, size / 16 / 32), put(2, size / 32);
        break;
      case TensorType::q6_k:
        put(208, size / 32 / 64);
        break;
      default:
        break;
    }
    out += block;
  }
  return out;
}

/// What a small model looks like.
struct SmallModel {
  int layers = 2, q_heads = 4, kv_heads = 2, dim_k = 16, dim_v = 16, width = 64, ffn = 96, vocabulary = 50;
  TensorType type = TensorType::f32;  ///< of the matrices
  TensorType embedding = TensorType::f32;
  bool tied = true, biases = false;
  std::uint64_t seed = 1;
  std::map<std::string, std::uint32_t> sizes;  ///< further metadata, or other values of what is written anyway
  std::map<std::string, float> numbers;        ///< the same, as f32
  std::map<std::string, std::string> strings;  ///< further metadata; general.architecture may be replaced
  std::map<std::string, std::vector<float>> vectors;  ///< further tensors [n]
  std::string without;                                ///< name of a tensor to leave out
  std::string wrong;                                  ///< name of a tensor that gets one row more

  std::string bytes() const {
    GgufWriter w;
    Random random(seed);
    const auto number = [&](const std::string& key, int value) {
      if (!numbers.count(key) && !sizes.count(key)) w.u32(key, std::uint32_t(value));
    };
    w.string("general.architecture",
             strings.count("general.architecture") ? strings.at("general.architecture") : "llama");
    number("llama.context_length", 128);
    number("llama.embedding_length", width);
    number("llama.block_count", layers);
    number("llama.feed_forward_length", ffn);
    number("llama.attention.head_count", q_heads);
    number("llama.attention.head_count_kv", kv_heads);
    number("llama.attention.key_length", dim_k);
    number("llama.attention.value_length", dim_v);
    if (!numbers.count("llama.attention.layer_norm_rms_epsilon"))
      w.f32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
    for (const auto& [key, value] : sizes) w.u32(key, value);
    for (const auto& [key, value] : numbers) w.f32(key, value);
    for (const auto& [key, value] : strings)
      if (key != "general.architecture") w.string(key, value);

    const auto vector = [&](const std::string& name, int n, float around) {
      if (name == without) return;
      std::vector<float> values;
      for (int i = 0; i < n + (name == wrong ? 1 : 0); ++i)
        values.push_back(around + 0.3f * float(random.uniform() * 2 - 1));
      w.tensor_f32(name, {values.size()}, values);
    };
    const auto matrix = [&](const std::string& name, TensorType t, int rows, int cols) {
      if (name + ".weight" == without) return;
      const std::uint64_t r = std::uint64_t(rows + (name + ".weight" == wrong ? 1 : 0));
      w.tensor(name + ".weight", {std::uint64_t(cols), r}, t,
               random_blocks(t, std::size_t(r) * std::size_t(cols), random));
      if (biases && name != "token_embd") vector(name + ".bias", rows, 0);
    };
    matrix("token_embd", embedding, vocabulary, width);
    vector("output_norm.weight", width, 1);
    if (!tied) matrix("output", type, vocabulary, width);
    for (int i = 0; i < layers; ++i) {
      const std::string at = "blk." + std::to_string(i) + ".";
      vector(at + "attn_norm.weight", width, 1);
      matrix(at + "attn_q", type, q_heads * dim_k, width);
      matrix(at + "attn_k", type, kv_heads * dim_k, width);
      matrix(at + "attn_v", type, kv_heads * dim_v, width);
      matrix(at + "attn_output", type, width, q_heads * dim_v);
      vector(at + "ffn_norm.weight", width, 1);
      matrix(at + "ffn_gate", type, ffn, width);
      matrix(at + "ffn_up", type, ffn, width);
      matrix(at + "ffn_down", type, width, ffn);
    }
    for (const auto& [name, values] : vectors) w.tensor_f32(name, {values.size()}, values);
    return w.bytes();
  }
};

/// A model with the bytes that it reads from.
struct LoadedModel {
  std::unique_ptr<std::string> bytes;
  Model model;
};

inline Result<LoadedModel> load(const SmallModel& small, std::string* detail = nullptr) {
  auto bytes = std::make_unique<std::string>(small.bytes());
  auto file = Gguf::parse(std::as_bytes(std::span(bytes->data(), bytes->size())));
  if (!file) return file.error();
  auto model = Model::load(*std::move(file), detail);
  if (!model) return model.error();
  return LoadedModel{std::move(bytes), *std::move(model)};
}

/// The forward pass of a whole sequence, formula by formula in f64: logits [n, vocabulary].
inline std::vector<std::vector<double>> naive_logits(const Model& m, const std::vector<Token>& ids) {
  using Row = std::vector<double>;
  const ModelConfig& c = m.config();
  const std::size_t n = ids.size(), width = std::size_t(c.width);
  const int dk = c.shape.dim_k, dv = c.shape.dim_v, group = c.shape.group();
  const auto expanded = [](const WeightMatrix& w) {
    std::vector<float> out(std::size_t(w.rows) * std::size_t(w.cols));
    const Status done = dequantize(w.type, {w.data, w.bytes()}, out);
    if (!done) out.clear();
    return out;
  };
  const auto times = [&](const Linear& l, const Row& x) {
    const std::vector<float> w = expanded(l.w);
    Row y(std::size_t(l.w.rows));
    for (std::size_t r = 0; r < y.size(); ++r) {
      y[r] = l.bias.empty() ? 0.0 : double(l.bias[r]);
      for (std::size_t i = 0; i < x.size(); ++i) y[r] += double(w[r * x.size() + i]) * x[i];
    }
    return y;
  };
  const auto norm = [&](const Row& x, const std::vector<float>& weight) {
    double mean = 0;
    for (const double v : x) mean += v * v / double(x.size());
    Row y(x.size());
    for (std::size_t i = 0; i < x.size(); ++i)
      y[i] = x[i] / std::sqrt(mean + double(c.norm_epsilon)) * double(weight[i]);
    return y;
  };
  const auto rotate = [&](Row& x, int heads, std::size_t position) {
    for (int h = 0; h < heads; ++h)
      for (std::size_t f = 0; f < c.rope.frequency.size(); ++f) {
        const auto [i, j] = c.rope.channels(int(f));
        double &a = x[std::size_t(h * dk + i)], &b = x[std::size_t(h * dk + j)];
        const double angle = double(position) * c.rope.frequency[f], s = double(c.rope.scale);
        const double u = a, v = b;
        a = s * (u * std::cos(angle) - v * std::sin(angle));
        b = s * (u * std::sin(angle) + v * std::cos(angle));
      }
  };
  const std::vector<float> embedding = expanded(m.embedding());
  std::vector<Row> x(n, Row(width));
  for (std::size_t t = 0; t < n; ++t)
    for (std::size_t i = 0; i < width; ++i) x[t][i] = double(embedding[std::size_t(ids[t]) * width + i]);
  for (int l = 0; l < c.shape.layers; ++l) {
    const LayerWeights& layer = m.layer(l);
    std::vector<Row> q(n), k(n), v(n);
    for (std::size_t t = 0; t < n; ++t) {
      const Row h = norm(x[t], layer.attention_norm);
      q[t] = times(layer.q, h), k[t] = times(layer.k, h), v[t] = times(layer.v, h);
      rotate(q[t], c.shape.q_heads, t);
      rotate(k[t], c.shape.kv_heads, t);
    }
    for (std::size_t t = 0; t < n; ++t) {
      Row out(std::size_t(c.shape.q_heads * dv));
      for (int h = 0; h < c.shape.q_heads; ++h) {
        Row p(t + 1);
        double top = -1e300, sum = 0;
        for (std::size_t s = 0; s <= t; ++s) {
          for (int i = 0; i < dk; ++i)
            p[s] += q[t][std::size_t(h * dk + i)] * k[s][std::size_t(h / group * dk + i)];
          p[s] *= double(c.attention_scale);
          top = std::max(top, p[s]);
        }
        for (double& e : p) sum += e = std::exp(e - top);
        for (std::size_t s = 0; s <= t; ++s)
          for (int i = 0; i < dv; ++i)
            out[std::size_t(h * dv + i)] += p[s] / sum * v[s][std::size_t(h / group * dv + i)];
      }
      const Row o = times(layer.o, out);
      for (std::size_t i = 0; i < width; ++i) x[t][i] += o[i];
      const Row h = norm(x[t], layer.ffn_norm);
      Row gate = times(layer.gate, h);
      const Row up = times(layer.up, h);
      for (std::size_t i = 0; i < gate.size(); ++i) gate[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
      const Row down = times(layer.down, gate);
      for (std::size_t i = 0; i < width; ++i) x[t][i] += down[i];
    }
  }
  std::vector<Row> logits;
  for (std::size_t t = 0; t < n; ++t) logits.push_back(times(m.output(), norm(x[t], m.output_norm())));
  return logits;
}

/// Token ids that repeat late.
inline std::vector<Token> some_ids(std::size_t n, int vocabulary, std::uint64_t seed = 7) {
  Random random(seed);
  std::vector<Token> ids;
  for (std::size_t i = 0; i < n; ++i) ids.push_back(Token(random.below(std::uint64_t(vocabulary))));
  return ids;
}

}  // namespace kvist::test
