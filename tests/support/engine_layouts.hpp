#pragma once
// SPDX-License-Identifier: Apache-2.0
// The KV memory of five engines, byte for byte as each lays it out, filled with one and the same sequence. Every formula
// in `at` is the engine's own index arithmetic, written out; the views come from the axes of the tensor, so that one
// checks the other. Shapes are written outermost first.
//   llama.cpp            src/llama-kv-cache.cpp, src/llama-graph.cpp
//   vLLM, CPU            vllm/v1/attention/backends/cpu_attn.py, csrc/cpu/cpu_attn.cpp
//   openvino.genai, CPU  block size 32; executor_pa.cpp of the CPU plugin
//   onnxruntime-genai    DefaultKeyValueCache, CombinedKeyValueCache, engine mode
//   gemma.cpp            one matrix, a ring of positions
#include <kvist/cache/apply_in_place.hpp>
#include <kvist/core/half.hpp>
#include <kvist/core/random.hpp>
#include <kvist/policy/policy.hpp>
#include <kvist/view/tensor_layout.hpp>

#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace kvist::test {

/// What all engines hold: multiples of 1/8 in [-1, 7/8], which every format here stores exactly, so that sums of products
/// are exact too and no order of summation can make a difference.
struct EngineData {
  static constexpr Shape shape{3, 4, 2, 32, 32};
  static constexpr Index n = 203;
  static constexpr Pos first = 100;  ///< position of entry 0
  std::vector<float> k, v;           ///< [layer][kv_head][n][d]

  EngineData() {
    Random random(17);
    for (auto* x : {&k, &v})
      for (std::size_t i = 0; i < std::size_t(shape.layers * shape.kv_heads * n * shape.dim_k); ++i)
        x->push_back(float(int(random.below(16)) - 8) / 8);
  }
  float at(bool value, int l, int h, Index i, int c) const {
    const std::size_t e =
        ((std::size_t(l) * 2 + std::size_t(h)) * std::size_t(n) + std::size_t(i)) * 32 + std::size_t(c);
    return value ? v[e] : k[e];
  }
};

/// An engine's memory with the sequence in it.
struct EngineMemory {
  std::string name;
  Abilities can;       ///< what the engine's own calls can carry out
  bool cells = false;  ///< its entries lie in cells that it frees one by one (llama.cpp)
  std::vector<std::vector<std::int32_t>> tables;  ///< [layers], or one for all; empty: rows one after another
  std::vector<std::int32_t>& table(int l) {
    static std::vector<std::int32_t> none;
    return tables.empty() ? none : tables[tables.size() == 1 ? 0 : std::size_t(l)];
  }

  virtual ~EngineMemory() = default;
  /// The first n entries as the engine's table names them.
  virtual Result<AnyRows> rows(bool value, int l, int h, Index n) = 0;
  /// Carries a plan out in place and returns how many entries stay; nothing where the memory cannot be written by element.
  virtual std::optional<Result<Index>> apply(const HeadPlan&, int, int, std::span<Pos>, Index) {
    return std::nullopt;
  }
  /// All bytes, and which of them (element by element) belong to an entry of the head, from entry `from` on.
  virtual std::vector<std::byte> bytes() const = 0;
  virtual std::vector<char> owned(int l, int h, Index from) const = 0;
};

/// A memory of f32, f16 or bf16 elements at strides.
template <Scalar T>
struct TensorMemory final : EngineMemory {
  /// Element of channel c of entry i, in the one buffer that holds all of the engine's tensors.
  std::function<std::size_t(bool value, int l, int h, Index i, int c)> at;
  /// Where the tensor of that layer begins, and its axes.
  std::function<std::size_t(bool value, int l)> base;
  std::function<std::vector<TensorAxis>(bool value, int l, int h)> axes;
  std::vector<T> buffer;

  void fill(const EngineData& data, std::size_t elements) {
    buffer.assign(elements, from_f32<T>(-7777.0f));  // foreign entries, padding and holes
    for_each([&](bool value, int l, int h, Index i, int c) {
      buffer[at(value, l, h, i, c)] = from_f32<T>(data.at(value, l, h, i, c));
    });
  }
  template <class F>
  void for_each(F f) const {
    for (const bool value : {false, true})
      for (int l = 0; l < EngineData::shape.layers; ++l)
        for (int h = 0; h < EngineData::shape.kv_heads; ++h)
          for (Index i = 0; i < EngineData::n; ++i)
            for (int c = 0; c < 32; ++c) f(value, l, h, i, c);
  }
  Result<AnyRows> rows(bool value, int l, int h, Index n) override {
    return rows_of(static_cast<const T*>(buffer.data()) + base(value, l), axes(value, l, h), table(l), n);
  }
  std::optional<Result<Index>> apply(const HeadPlan& plan, int l, int h, std::span<Pos> pos,
                                     Index shared) override {
    const Index n = Index(pos.size());
    const auto k = mutable_rows_of(buffer.data() + base(false, l), axes(false, l, h), table(l), n);
    const auto v = mutable_rows_of(buffer.data() + base(true, l), axes(true, l, h), table(l), n);
    if (!k) return Result<Index>(k.error());
    if (!v) return Result<Index>(v.error());
    std::vector<float> weight(std::size_t(n), 0.0f);
    return apply_in_place(plan, *k, *v, pos, weight, shared);
  }
  std::vector<std::byte> bytes() const override {
    std::vector<std::byte> out(buffer.size() * sizeof(T));
    std::memcpy(out.data(), buffer.data(), out.size());
    return out;
  }
  std::vector<char> owned(int l, int h, Index from) const override {
    std::vector<char> out(buffer.size() * sizeof(T), 0);
    for_each([&](bool value, int layer, int head, Index i, int c) {
      if (layer == l && head == h && i >= from)
        std::fill_n(out.begin() + std::ptrdiff_t(at(value, l, h, i, c) * sizeof(T)), sizeof(T), 1);
    });
    return out;
  }
};

/// A memory of codes that only a function can read: rows come through ReaderRows.
struct PackedMemory final : EngineMemory {
  std::function<float(bool value, int l, int h, Index i, int c)> decode;  ///< from the bytes
  std::vector<std::byte> memory;

  struct Place {
    const PackedMemory* from;
    bool value;
    int l, h;
  };
  std::vector<std::unique_ptr<Place>> places;

  Result<AnyRows> rows(bool value, int l, int h, Index n) override {
    places.push_back(std::make_unique<Place>(Place{this, value, l, h}));
    const auto read = [](const void* context, Index first, Index count, float* out) {
      const Place& p = *static_cast<const Place*>(context);
      for (Index i = first; i < first + count; ++i)
        for (int c = 0; c < 32; ++c) *out++ = p.from->decode(p.value, p.l, p.h, i, c);
    };
    return AnyRows(ReaderRows{read, places.back().get(), n, 32});
  }
  std::vector<std::byte> bytes() const override { return memory; }
  std::vector<char> owned(int, int, Index) const override { return std::vector<char>(memory.size(), 0); }

  template <class X>
  void put(std::size_t at, X x) {
    std::memcpy(memory.data() + at, &x, sizeof x);
  }
  template <class X>
  X get(std::size_t at) const {
    X x;
    std::memcpy(&x, memory.data() + at, sizeof x);
    return x;
  }
};

using Engines = std::vector<std::unique_ptr<EngineMemory>>;
constexpr std::size_t E_d = 32, E_heads = 2, E_layers = 3;

/// llama.cpp: K [stream][cell][kv_head][d]; V the same with flash attention, [stream][kv_head][d][cell] without. f16. A
/// cell belongs to a position in all layers and heads, so one choice holds for the sequence. `holes`: one stream for
/// all sequences, ours in every cell but each fourth, from cell 5 on, in an order of reuse; else the second of two streams.
inline std::unique_ptr<EngineMemory> llama_cpp(const EngineData& data, bool flash, bool holes) {
  auto m = std::make_unique<TensorMemory<f16>>();
  m->name =
      std::string("llama.cpp, ") + (flash ? "flash attention" : "transposed V") + (holes ? ", holes" : "");
  m->can.makes = drops;
  m->can.grain = Grain::sequence;
  m->cells = true;
  constexpr std::size_t cells = 512;  // a multiple of the padding
  const std::size_t streams = holes ? 1 : 2, stream = streams - 1, tensor = streams * cells * E_heads * E_d;
  std::vector<std::int32_t> where;
  for (std::int32_t cell = 5; holes && where.size() < std::size_t(EngineData::n); ++cell)
    if (cell % 4 != 0) where.push_back(cell);
  if (holes) {  // cells that were freed and used again by later tokens
    std::swap(where[20], where[150]);
    std::swap(where[21], where[80]);
    m->tables = {where};
  }
  m->base = [=](bool value, int l) { return (std::size_t(l) * 2 + (value ? 1 : 0)) * tensor; };
  m->at = [=, base = m->base](bool value, int l, int h, Index i, int c) {
    const std::size_t cell = holes ? std::size_t(where[std::size_t(i)]) : std::size_t(i);
    return base(value, l) +
           (value && !flash ? ((stream * E_heads + std::size_t(h)) * E_d + std::size_t(c)) * cells + cell
                            : ((stream * cells + cell) * E_heads + std::size_t(h)) * E_d + std::size_t(c));
  };
  m->axes = [=](bool value, int, int h) -> std::vector<TensorAxis> {
    if (value && !flash)
      return {{Axis::fixed, Index(streams), Index(stream)},
              {Axis::fixed, 2, h},
              {Axis::channel, 32},
              {Axis::row, 512}};
    return {
        {Axis::fixed, Index(streams), Index(stream)}, {Axis::row, 512}, {Axis::fixed, 2, h}, {Axis::channel, 32}};
  };
  m->fill(data, 2 * E_layers * tensor);
  return m;
}

/// llama.cpp with q8_0 keys and values (flash attention): [cell][kv_head][d / 32] blocks of an f16 scale and 32 codes.
inline std::unique_ptr<EngineMemory> llama_cpp_q8_0(const EngineData& data) {
  auto m = std::make_unique<PackedMemory>();
  m->name = "llama.cpp, q8_0";
  m->can.makes = drops;
  m->can.grain = Grain::sequence;
  m->cells = true;
  constexpr std::size_t block = 34, tensor = 256 * E_heads * block;
  const auto at = [](bool value, int l, int h, Index i) {
    return (std::size_t(l) * 2 + (value ? 1 : 0)) * tensor + (std::size_t(i) * E_heads + std::size_t(h)) * block;
  };
  m->memory.assign(2 * E_layers * tensor, std::byte{0x5a});
  for (const bool value : {false, true})
    for (int l = 0; l < 3; ++l)
      for (int h = 0; h < 2; ++h)
        for (Index i = 0; i < EngineData::n; ++i) {
          m->put(at(value, l, h, i), to_f16(0.125f));
          for (int c = 0; c < 32; ++c)
            m->put(at(value, l, h, i) + 2 + std::size_t(c), std::int8_t(data.at(value, l, h, i, c) * 8));
        }
  m->decode = [at, raw = m.get()](bool value, int l, int h, Index i, int c) {
    return to_f32(raw->get<f16>(at(value, l, h, i))) *
           float(raw->get<std::int8_t>(at(value, l, h, i) + 2 + std::size_t(c)));
  };
  return m;
}

/// Pages of a pool in no order, page 0 and others left to other sequences.
inline std::vector<std::int32_t> scattered_pages(std::size_t count, std::int32_t step, std::int32_t pool) {
  std::vector<std::int32_t> out;
  for (std::int32_t p = 3; out.size() < count; p = (p + step) % pool)
    if (p != 0) out.push_back(p);
  return out;
}

/// vLLM's CPU backend, vector kernels: [2][block][kv_head][...], a block of 32 tokens is [d][32] for keys and [32][d] for
/// values; bf16. One table for all layers and heads, blocks are shared by prefix.
inline std::unique_ptr<EngineMemory> vllm_cpu(const EngineData& data) {
  auto m = std::make_unique<TensorMemory<bf16>>();
  m->name = "vLLM, CPU blocks";
  m->can = {drops, Grain::sequence, 32, true, 0};
  constexpr std::size_t blocks = 16, size = 32, tensor = 2 * blocks * E_heads * size * E_d;
  const auto table = scattered_pages(7, 5, std::int32_t(blocks));
  m->tables = {table};
  m->base = [](bool, int l) { return std::size_t(l) * tensor; };
  m->at = [table](bool value, int l, int h, Index i, int c) {
    const std::size_t b = std::size_t(table[std::size_t(i) / size]), o = std::size_t(i) % size;
    const std::size_t block = ((value ? blocks : 0) + b) * E_heads + std::size_t(h);
    return std::size_t(l) * tensor + block * size * E_d +
           (value ? o * E_d + std::size_t(c) : std::size_t(c) * size + o);
  };
  m->axes = [](bool value, int, int h) -> std::vector<TensorAxis> {
    if (value)
      return {{Axis::fixed, 2, 1}, {Axis::page, 16}, {Axis::fixed, 2, h}, {Axis::row, 32}, {Axis::channel, 32}};
    return {{Axis::fixed, 2, 0}, {Axis::page, 16}, {Axis::fixed, 2, h}, {Axis::channel, 32}, {Axis::row, 32}};
  };
  m->fill(data, E_layers * tensor);
  return m;
}

/// The keys of the same backend for AMX, bf16: a block is [32 / 16][d / 2][16 tokens][2 channels]. No stride describes it.
inline std::vector<TensorAxis> vllm_amx_key_axes(int h) {
  return {{Axis::fixed, 2, 0}, {Axis::page, 16}, {Axis::fixed, 2, h}, {Axis::row, 2},
          {Axis::channel, 16}, {Axis::row, 16},  {Axis::channel, 2}};
}
/// And the values: [d / 16][32 / 2][16 channels][2 tokens].
inline std::vector<TensorAxis> vllm_amx_value_axes(int h) {
  return {{Axis::fixed, 2, 1}, {Axis::page, 16},    {Axis::fixed, 2, h}, {Axis::channel, 2},
          {Axis::row, 16},     {Axis::channel, 16}, {Axis::row, 2}};
}

/// vLLM's other backends: [2][block][offset][kv_head][d], f16, blocks of 16.
inline std::unique_ptr<EngineMemory> vllm_blocks(const EngineData& data) {
  auto m = std::make_unique<TensorMemory<f16>>();
  m->name = "vLLM, plain blocks";
  m->can = {drops, Grain::sequence, 16, true, 0};
  constexpr std::size_t blocks = 32, size = 16, tensor = 2 * blocks * size * E_heads * E_d;
  const auto table = scattered_pages(13, 7, std::int32_t(blocks));
  m->tables = {table};
  m->base = [](bool, int l) { return std::size_t(l) * tensor; };
  m->at = [table](bool value, int l, int h, Index i, int c) {
    const std::size_t b = std::size_t(table[std::size_t(i) / size]), o = std::size_t(i) % size;
    return std::size_t(l) * tensor +
           ((((value ? blocks : 0) + b) * size + o) * E_heads + std::size_t(h)) * E_d + std::size_t(c);
  };
  m->axes = [](bool value, int, int h) -> std::vector<TensorAxis> {
    return {{Axis::fixed, 2, value ? 1 : 0},
            {Axis::page, 32},
            {Axis::row, 16},
            {Axis::fixed, 2, h},
            {Axis::channel, 32}};
  };
  m->fill(data, E_layers * tensor);
  return m;
}

/// openvino.genai on CPUs: key_cache.N and value_cache.N [block][kv_head][32][d]; with eviction on, each layer has a table
/// of its own, and gives up whole blocks, equally many in each head.
template <Scalar T>
std::unique_ptr<EngineMemory> openvino(const EngineData& data, const char* type) {
  auto m = std::make_unique<TensorMemory<T>>();
  m->name = std::string("openvino.genai, ") + type;
  m->can = {drops, Grain::layer, 32, true, 0};
  constexpr std::size_t blocks = 12, tensor = blocks * E_heads * 32 * E_d;
  for (const std::int32_t step : {5, 7, 11})
    m->tables.push_back(scattered_pages(7, step, std::int32_t(blocks)));
  m->base = [](bool value, int l) { return (std::size_t(l) * 2 + (value ? 1 : 0)) * tensor; };
  m->at = [tables = m->tables, base = m->base](bool value, int l, int h, Index i, int c) {
    const std::size_t b = std::size_t(tables[std::size_t(l)][std::size_t(i) / 32]);
    return base(value, l) + ((b * E_heads + std::size_t(h)) * 32 + std::size_t(i) % 32) * E_d + std::size_t(c);
  };
  m->axes = [](bool, int, int h) -> std::vector<TensorAxis> {
    return {{Axis::page, 12}, {Axis::fixed, 2, h}, {Axis::row, 32}, {Axis::channel, 32}};
  };
  m->fill(data, 2 * E_layers * tensor);
  return m;
}

/// The same with u8 codes: values by token, [block][kv_head][32][8 + d], a row being its scale and zero point (f32) and
/// then the codes; keys by token, too, or by channel, [block][kv_head][32 + 8][d]: d scales, d zero points, 32 rows.
inline std::unique_ptr<EngineMemory> openvino_u8(const EngineData& data, bool keys_by_channel) {
  auto m = std::make_unique<PackedMemory>();
  m->name = std::string("openvino.genai, u8, keys by ") + (keys_by_channel ? "channel" : "token");
  m->can = {drops, Grain::layer, 32, true, 0};
  constexpr std::size_t blocks = 12, by_token = 32 * (8 + E_d), by_channel = (32 + 8) * E_d;
  static_assert(by_token == by_channel);  // for d = 32; a tensor each
  for (const std::int32_t step : {5, 7, 11})
    m->tables.push_back(scattered_pages(7, step, std::int32_t(blocks)));
  const auto block_at = [tables = m->tables](bool value, int l, int h, Index i) {
    const std::size_t b = std::size_t(tables[std::size_t(l)][std::size_t(i) / 32]);
    return (((std::size_t(l) * 2 + (value ? 1 : 0)) * blocks + b) * E_heads + std::size_t(h)) * by_token;
  };
  m->memory.assign(2 * E_layers * blocks * E_heads * by_token, std::byte{0x5a});
  const auto places = [=](bool value, int l, int h, Index i, int c) {
    struct {
      std::size_t scale, zero, code;
    } p{};
    const std::size_t block = block_at(value, l, h, i), o = std::size_t(i) % 32, ch = std::size_t(c);
    if (!value && keys_by_channel)
      p = {block + 4 * ch, block + 4 * E_d + 4 * ch, block + 8 * E_d + o * E_d + ch};
    else p = {block + o * (8 + E_d), block + o * (8 + E_d) + 4, block + o * (8 + E_d) + 8 + ch};
    return p;
  };
  for (const bool value : {false, true})
    for (int l = 0; l < 3; ++l)
      for (int h = 0; h < 2; ++h)
        for (Index i = 0; i < EngineData::n; ++i)
          for (int c = 0; c < 32; ++c) {
            const auto p = places(value, l, h, i, c);
            m->put(p.scale, 0.125f);
            m->put(p.zero, 128.0f);
            m->put(p.code, std::uint8_t(data.at(value, l, h, i, c) * 8 + 128));
          }
  m->decode = [places, raw = m.get()](bool value, int l, int h, Index i, int c) {
    const auto p = places(value, l, h, i, c);
    return (float(raw->get<std::uint8_t>(p.code)) - raw->get<float>(p.zero)) * raw->get<float>(p.scale);
  };
  return m;
}

/// onnxruntime-genai, one buffer of the largest length: past/present of each layer [batch][kv_head][seq][d], or keys and
/// values together [2][batch][kv_head][seq][d]. Eviction changes the length of all heads of a layer; layers may differ.
inline std::unique_ptr<EngineMemory> onnxruntime(const EngineData& data, bool combined) {
  auto m = std::make_unique<TensorMemory<float>>();
  m->name = std::string("onnxruntime-genai, ") + (combined ? "combined" : "default");
  m->can = {drops, Grain::layer, 1, true, 0};
  constexpr std::size_t seq = 256, batch = 2, tensor = batch * E_heads * seq * E_d;
  m->base = [=](bool value, int l) { return (std::size_t(l) * 2 + (value && !combined ? 1 : 0)) * tensor; };
  m->at = [=](bool value, int l, int h, Index i, int c) {
    const std::size_t kv = value ? 1 : 0;  // the second sequence of the batch
    return std::size_t(l) * 2 * tensor +
           (((kv * batch + 1) * E_heads + std::size_t(h)) * seq + std::size_t(i)) * E_d + std::size_t(c);
  };
  m->axes = [=](bool value, int, int h) {
    std::vector<TensorAxis> a{{Axis::fixed, 2, 1}, {Axis::fixed, 2, h}, {Axis::row, 256}, {Axis::channel, 32}};
    if (combined) a.insert(a.begin(), {Axis::fixed, 2, value ? 1 : 0});
    return a;
  };
  m->fill(data, 2 * E_layers * tensor);
  return m;
}

/// onnxruntime-genai's engine mode: [block][16][kv_head][d] with a table padded by -1.
inline std::unique_ptr<EngineMemory> onnxruntime_blocks(const EngineData& data) {
  auto m = std::make_unique<TensorMemory<f16>>();
  m->name = "onnxruntime-genai, blocks";
  m->can = {drops, Grain::layer, 16, true, 0};
  constexpr std::size_t blocks = 24, tensor = blocks * 16 * E_heads * E_d;
  auto table = scattered_pages(13, 5, std::int32_t(blocks));
  table.resize(16, -1);
  m->tables = {table};
  m->base = [](bool value, int l) { return (std::size_t(l) * 2 + (value ? 1 : 0)) * tensor; };
  m->at = [table, base = m->base](bool value, int l, int h, Index i, int c) {
    const std::size_t b = std::size_t(table[std::size_t(i) / 16]);
    return base(value, l) + ((b * 16 + std::size_t(i) % 16) * E_heads + std::size_t(h)) * E_d + std::size_t(c);
  };
  m->axes = [](bool, int, int h) -> std::vector<TensorAxis> {
    return {{Axis::page, 24}, {Axis::row, 16}, {Axis::fixed, 2, h}, {Axis::channel, 32}};
  };
  m->fill(data, 2 * E_layers * tensor);
  return m;
}

/// onnxruntime-genai's int4: [batch][kv_head][seq][(d + 1) / 2], two codes a byte, the low one first, value + 8; one static
/// scale per tensor.
inline std::unique_ptr<EngineMemory> onnxruntime_int4(const EngineData& data) {
  auto m = std::make_unique<PackedMemory>();
  m->name = "onnxruntime-genai, int4";
  m->can = {drops, Grain::layer, 1, true, 0};
  constexpr std::size_t seq = 256, row = (E_d + 1) / 2;
  const auto at = [](bool value, int l, int h, Index i, int c) {
    return (((std::size_t(l) * 2 + (value ? 1 : 0)) * E_heads + std::size_t(h)) * seq + std::size_t(i)) * row +
           std::size_t(c) / 2;
  };
  m->memory.assign(2 * E_layers * E_heads * seq * row, std::byte{0});
  for (const bool value : {false, true})
    for (int l = 0; l < 3; ++l)
      for (int h = 0; h < 2; ++h)
        for (Index i = 0; i < EngineData::n; ++i)
          for (int c = 0; c < 32; ++c) {
            const auto code = std::byte(unsigned(int(data.at(value, l, h, i, c) * 8) + 8) << (c % 2 * 4));
            m->memory[at(value, l, h, i, c)] |= code;
          }
  m->decode = [at, raw = m.get()](bool value, int l, int h, Index i, int c) {
    const unsigned code = unsigned(raw->memory[at(value, l, h, i, c)]) >> (c % 2 * 4) & 15u;
    return (float(code) - 8) * 0.125f;
  };
  return m;
}

/// gemma.cpp: one f32 matrix [position mod seq_len][layer][kv_head][K d | V d], rows padded to an odd multiple of a unit.
/// Each (layer, head) can have a list of its own. `wrapped`: the ring is shorter than the newest position.
inline std::unique_ptr<EngineMemory> gemma_cpp(const EngineData& data, bool wrapped) {
  auto m = std::make_unique<TensorMemory<float>>();
  m->name = std::string("gemma.cpp") + (wrapped ? ", wrapped" : "");
  m->can = {drops | blends, Grain::head, 1, false, 0};
  const std::size_t seq_len = wrapped ? 256 : 512, used = E_layers * E_heads * 2 * E_d, unit = 32,
                    stride = (used / unit + 1 + (used / unit) % 2) * unit;
  std::vector<std::int32_t> ring;
  for (Index i = 0; i < EngineData::n; ++i)
    ring.push_back(std::int32_t((EngineData::first + i) % Pos(seq_len)));
  m->tables = {ring};
  m->base = [](bool, int) { return std::size_t{0}; };
  m->at = [=](bool value, int l, int h, Index i, int c) {
    return std::size_t((EngineData::first + i) % Pos(seq_len)) * stride +
           (std::size_t(l) * E_heads + std::size_t(h)) * 2 * E_d + (value ? E_d : 0) + std::size_t(c);
  };
  m->axes = [=](bool value, int l, int h) -> std::vector<TensorAxis> {
    return {{Axis::row, Index(seq_len), 0, std::ptrdiff_t(stride)},
            {Axis::fixed, 3, l},
            {Axis::fixed, 2, h},
            {Axis::fixed, 2, value ? 1 : 0},
            {Axis::channel, 32}};
  };
  m->fill(data, seq_len * stride);
  return m;
}

/// All of them.
inline Engines engines(const EngineData& data) {
  Engines out;
  for (const bool holes : {false, true})
    for (const bool flash : {true, false}) out.push_back(llama_cpp(data, flash, holes));
  out.push_back(llama_cpp_q8_0(data));
  out.push_back(vllm_cpu(data));
  out.push_back(vllm_blocks(data));
  out.push_back(openvino<float>(data, "f32"));
  out.push_back(openvino<f16>(data, "f16"));
  out.push_back(openvino<bf16>(data, "bf16"));
  for (const bool by_channel : {false, true}) out.push_back(openvino_u8(data, by_channel));
  for (const bool combined : {false, true}) out.push_back(onnxruntime(data, combined));
  out.push_back(onnxruntime_blocks(data));
  out.push_back(onnxruntime_int4(data));
  for (const bool wrapped : {false, true}) out.push_back(gemma_cpp(data, wrapped));
  return out;
}

}  // namespace kvist::test
