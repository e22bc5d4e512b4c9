#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/result.hpp>
#include <kvist/core/types.hpp>
#include <kvist/reference/dequantize.hpp>
#include <kvist/reference/gguf.hpp>
#include <kvist/reference/rope_of_file.hpp>
#include <kvist/reference/weights.hpp>
#include <kvist/view/rope.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kvist::inline KVIST_ABI {

/// A token's number in the vocabulary.
using Token = std::int32_t;

/// The sizes and constants of a model, as its file states them.
struct ModelConfig {
  std::string architecture, name;
  Shape shape;    ///< layers and attention heads
  int width = 0;  ///< channels of a token's state
  int ffn_width = 0;
  int vocabulary = 0;
  int context_length = 0;  ///< tokens trained on; 0 where the file does not say
  float norm_epsilon = 0;
  float attention_scale = 0;  ///< multiplies q.k: 1/sqrt(dim_k) unless the file says otherwise
  RopeTable rope;
};

/// y = W x + b; b [W.rows] is empty where the file has none.
struct Linear {
  WeightMatrix w;
  std::vector<float> bias;
};

/// The weights of one layer.
struct LayerWeights {
  std::vector<float> attention_norm, ffn_norm;  ///< [width]
  Linear q, k, v;   ///< [q_heads * dk, width], [kv_heads * dk, width], [kv_heads * dv, width]
  Linear o;         ///< [width, q_heads * dv]
  Linear gate, up;  ///< [ffn_width, width]
  Linear down;      ///< [width, ffn_width]
};

/// A language model of Llama architecture from a GGUF file. Matrices stay in the file (mapped into memory) in its own
/// blocks; a Model is never changed after loading and may serve any number of transformers at once.
class Model {
 public:
  /// Reads the file's metadata and finds and checks every tensor. `detail`, where given, gets what an Error cannot hold:
  /// the name of the tensor or key at fault.
  /// Fails with: not_found (no such file, a tensor is missing); bad_file (a shape or value that cannot be);
  /// unsupported (architecture, tensor type, RoPE scaling, or a tensor that this forward pass would leave out).
  static Result<Model> load(const std::string& path, std::string* detail = nullptr);
  static Result<Model> load(Gguf file, std::string* detail = nullptr);

  const ModelConfig& config() const { return config_; }
  const Shape& shape() const { return config_.shape; }
  const RopeTable& rope() const { return config_.rope; }
  const LayerWeights& layer(int i) const { return layers_[std::size_t(i)]; }
  const WeightMatrix& embedding() const { return embedding_; }  ///< [vocabulary, width]
  const Linear& output() const { return output_; }  ///< [vocabulary, width]; the embedding where tied
  bool tied() const { return output_.w.data == embedding_.data; }
  const std::vector<float>& output_norm() const { return output_norm_; }  ///< [width]
  const Gguf& file() const { return file_; }

 private:
  explicit Model(Gguf file) : file_(std::move(file)) {}

  Gguf file_;
  ModelConfig config_;
  WeightMatrix embedding_;
  Linear output_;
  std::vector<float> output_norm_;
  std::vector<LayerWeights> layers_;
};

}  // namespace kvist::inline KVIST_ABI

#include <kvist/reference/detail/model.ipp>
