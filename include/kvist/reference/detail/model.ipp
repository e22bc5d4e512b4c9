// SPDX-License-Identifier: Apache-2.0
// Reading a Model from its file; included by reference/model.hpp.

namespace kvist::inline KVIST_ABI {
namespace detail {

/// Looks tensors up and remembers which ones were asked for. The first fault is kept; what follows it is empty.
class TensorReader {
 public:
  TensorReader(const Gguf& file, std::string* detail)
      : file_(file), detail_(detail), used_(file.tensors().size()) {}

  const std::optional<Error>& fault() const { return fault_; }
  void fail(Error error, std::string about) {
    if (fault_) return;
    fault_ = error;
    if (detail_) *detail_ = std::move(about);
  }
  bool has(const std::string& name) const { return file_.find_tensor(name) != nullptr; }

  /// A matrix of `rows` rows (any number where 0) of `cols` weights.
  WeightMatrix matrix(const std::string& name, std::size_t rows, std::size_t cols) {
    const GgufTensor* const t = find(name);
    if (!t) return {};
    if (t->dims[0] != cols || t->dims[2] != 1 || t->dims[3] != 1) {
      fail({Errc::bad_file, "a tensor's rows do not have the length that the model's sizes ask for",
            (long long)cols, (long long)t->dims[0]},
           name);
      return {};
    }
    if ((rows != 0 && t->dims[1] != rows) || !std::in_range<Index>(t->dims[1])) {
      fail({Errc::bad_file, "a tensor does not have the number of rows that the model's sizes ask for",
            (long long)rows, (long long)t->dims[1]},
           name);
      return {};
    }
    return {t->type, t->data.data(), Index(t->dims[1]), Index(t->dims[0])};
  }
  /// A vector of `size` numbers, expanded; all must be finite.
  std::vector<float> vector(const std::string& name, std::size_t size) {
    const WeightMatrix m = matrix(name, 1, size);
    if (!m) return {};
    std::vector<float> out(size);
    if (const Status s = dequantize(m.type, {m.data, m.bytes()}, out); !s) fail(s.error(), name);
    if (!std::all_of(out.begin(), out.end(), [](float x) { return std::isfinite(x); }))
      fail({Errc::bad_file, "a tensor holds numbers that are not finite"}, name);
    return out;
  }
  /// name.weight with name.bias, where the file has one.
  Linear linear(const std::string& name, std::size_t rows, std::size_t cols) {
    Linear out{matrix(name + ".weight", rows, cols), {}};
    if (has(name + ".bias")) out.bias = vector(name + ".bias", std::size_t(out.w.rows));
    return out;
  }
  /// A tensor that nobody asked for would be left out of the forward pass without a word.
  void refuse_the_rest() {
    for (std::size_t i = 0; i < used_.size(); ++i) {
      const std::string_view name = file_.tensors()[i].name;
      if (!used_[i] && !name.ends_with("attn_rot_embd.weight"))  // old files: frequencies that follow from the base
        return fail({Errc::unsupported, "the file has a tensor that a plain Llama forward pass does not use"},
                    std::string(name));
    }
  }

 private:
  const GgufTensor* find(const std::string& name) {
    if (fault_) return nullptr;
    const GgufTensor* const t = file_.find_tensor(name);
    if (!t) {
      fail({Errc::not_found, "a tensor of the Llama architecture is missing"}, name);
      return nullptr;
    }
    used_[std::size_t(t - file_.tensors().data())] = true;
    if (!is_decoded(t->type)) {
      fail(unsupported_type(t->type), name);
      return nullptr;
    }
    return t;
  }

  const Gguf& file_;
  std::string* detail_;
  std::vector<bool> used_;
  std::optional<Error> fault_;
};

}  // namespace detail

inline Result<Model> Model::load(const std::string& path, std::string* detail) {
  Result<Gguf> file = Gguf::open(path);
  if (!file) {
    if (detail) *detail = path;
    return file.error();
  }
  return load(*std::move(file), detail);
}

inline Result<Model> Model::load(Gguf file, std::string* detail) {
  Model m(std::move(file));
  const Gguf& f = m.file_;
  ModelConfig& c = m.config_;
  detail::TensorReader tensors(f, detail);

  c.architecture = f.string("general.architecture").value_or("");
  c.name = f.string("general.name").value_or("");
  if (c.architecture != "llama") {
    tensors.fail({Errc::unsupported, "the model's architecture is not implemented; known: llama"},
                 "general.architecture is '" + c.architecture + "'");
    return *tensors.fault();
  }
  // Sizes: each must be there (or have a default) and be small enough that no product of two overflows.
  const auto size = [&](const char* key, std::uint64_t limit, std::optional<std::uint64_t> otherwise = {}) {
    const GgufEntry* const entry = f.find(key);
    const std::optional<std::uint64_t> value = entry ? f.u64(key) : otherwise;
    if (!value || *value == 0 || *value > limit) {
      tensors.fail(
          {Errc::bad_file, "a size in the model's metadata is missing, no single number, or out of range",
           (long long)limit, value ? (long long)std::min(*value, std::uint64_t{1} << 62) : 0},
          key);
      return 1;
    }
    return int(*value);
  };
  constexpr std::uint64_t most_channels = 1 << 20, most_heads = 1 << 12;
  c.width = size("llama.embedding_length", most_channels);
  c.ffn_width = size("llama.feed_forward_length", most_channels);
  c.shape.layers = size("llama.block_count", std::max<std::uint64_t>(1, f.tensors().size()));
  c.shape.q_heads = size("llama.attention.head_count", most_heads);
  c.shape.kv_heads = size("llama.attention.head_count_kv", most_heads, std::uint64_t(c.shape.q_heads));
  const auto each = std::optional(std::uint64_t(c.width / c.shape.q_heads));
  c.shape.dim_k = size("llama.attention.key_length", 8192, each);
  c.shape.dim_v = size("llama.attention.value_length", 8192, each);
  c.context_length = f.find("llama.context_length") ? size("llama.context_length", 1 << 30) : 0;
  if (tensors.fault()) return *tensors.fault();
  if (!c.shape.valid()) {
    tensors.fail({Errc::bad_file, "the number of KV heads must divide the number of query heads",
                  c.shape.q_heads, c.shape.kv_heads},
                 "llama.attention.head_count_kv");
    return *tensors.fault();
  }
  const double epsilon = f.f64("llama.attention.layer_norm_rms_epsilon").value_or(-1);
  if (!(epsilon >= 0 && epsilon < 1)) {
    tensors.fail({Errc::bad_file, "the epsilon of the norms is missing or out of range"},
                 "llama.attention.layer_norm_rms_epsilon");
    return *tensors.fault();
  }
  c.norm_epsilon = float(epsilon);
  c.attention_scale = float(f.f64("llama.attention.scale").value_or(1 / std::sqrt(double(c.shape.dim_k))));
  // What the file may ask for beyond a plain Llama model.
  const auto asks = [&](const char* key) { return f.find(key) && f.u64(key).value_or(1) != 0; };
  if (asks("llama.expert_count"))
    tensors.fail({Errc::unsupported, "mixtures of experts are not implemented"}, "llama.expert_count");
  if (asks("llama.attention.sliding_window"))
    tensors.fail({Errc::unsupported, "sliding-window attention is not implemented"},
                 "llama.attention.sliding_window");
  if (!f.boolean("llama.attention.causal").value_or(true))
    tensors.fail({Errc::unsupported, "attention that is not causal is not implemented"},
                 "llama.attention.causal");

  const std::size_t width = std::size_t(c.width), ffn = std::size_t(c.ffn_width);
  const std::size_t keys = std::size_t(c.shape.kv_heads) * std::size_t(c.shape.dim_k);
  const std::size_t values = std::size_t(c.shape.kv_heads) * std::size_t(c.shape.dim_v);
  const std::size_t group = std::size_t(c.shape.group());
  m.embedding_ = tensors.matrix("token_embd.weight", 0, width);
  c.vocabulary = m.embedding_.rows;
  if (!tensors.fault() && c.vocabulary == 0)
    tensors.fail({Errc::bad_file, "the vocabulary is empty"}, "token_embd.weight");
  m.output_norm_ = tensors.vector("output_norm.weight", width);
  m.output_ = tensors.has("output.weight") ? tensors.linear("output", std::size_t(c.vocabulary), width)
                                           : Linear{m.embedding_, {}};
  for (int i = 0; i < c.shape.layers && !tensors.fault(); ++i) {
    const std::string name = "blk." + std::to_string(i) + ".";
    LayerWeights layer;
    layer.attention_norm = tensors.vector(name + "attn_norm.weight", width);
    layer.q = tensors.linear(name + "attn_q", group * keys, width);
    layer.k = tensors.linear(name + "attn_k", keys, width);
    layer.v = tensors.linear(name + "attn_v", values, width);
    layer.o = tensors.linear(name + "attn_output", width, group * values);
    layer.ffn_norm = tensors.vector(name + "ffn_norm.weight", width);
    layer.gate = tensors.linear(name + "ffn_gate", ffn, width);
    layer.up = tensors.linear(name + "ffn_up", ffn, width);
    layer.down = tensors.linear(name + "ffn_down", width, ffn);
    m.layers_.push_back(std::move(layer));
  }
  std::vector<float> factors;
  if (const GgufTensor* const t = f.find_tensor("rope_freqs.weight"); t && t->dims[0] <= most_channels)
    factors = tensors.vector("rope_freqs.weight", t->dims[0]);
  tensors.refuse_the_rest();
  if (tensors.fault()) return *tensors.fault();

  Result<RopeTable> rope = rope_of_file(f, c.shape.dim_k, double(c.context_length), factors, detail);
  if (!rope) return rope.error();
  c.rope = *std::move(rope);
  return m;
}

}  // namespace kvist::inline KVIST_ABI
