// SPDX-License-Identifier: Apache-2.0
// peer/<ours>_against_<ggml's>/T:<entries>/d:<dim>/G:<group>: one decode step's attention over 8 KV heads and as many layers
// as make 512 MB of ours, by our stores and by ggml's CPU backend, repetition by repetition in turn, CPU time of one thread.
// Built only where find_package(ggml) finds it. ggml's ways: its fused operation (flash attention), and `unfused`, products
// and softmax one after another, which it has for keys and values that are not quantised.
#include "heads.hpp"

#include <ggml-cpu.h>
#include <ggml.h>

#include <cmath>
#include <cstring>
#include <memory>

namespace {

using namespace kvist;
using namespace kvist::bench;

constexpr int kv_heads = 8;

/// One layer of ggml's: keys and values [kv head][entry][dim] of a type, filled with the rows that our heads hold.
class PeerLayer {
 public:
  PeerLayer(ggml_type type, bool fused, Index n, int d, int group, const float* q, float scale) {
    const std::size_t row = ggml_row_size(type, d), side = row * std::size_t(n) * kv_heads;
    const std::size_t heads = std::size_t(kv_heads * group);
    const std::size_t work = heads * std::size_t(n + d) * sizeof(float) * 4;
    memory_ = Buffer<std::uint8_t>(2 * side + work + std::size_t(n) * 128 + (std::size_t{8} << 20));
    context_ = ggml_init({memory_.size(), memory_.data(), false});
    ggml_tensor* const queries = ggml_new_tensor_4d(context_, GGML_TYPE_F32, d, 1, std::int64_t(heads), 1);
    std::memcpy(queries->data, q, heads * std::size_t(d) * sizeof(float));
    ggml_tensor* const k = ggml_new_tensor_4d(context_, type, d, n, kv_heads, 1);
    const Index chunk = 1024;
    const auto rows_k = noise(std::size_t(chunk) * std::size_t(d), 1),
               rows_v = noise(std::size_t(chunk) * std::size_t(d), 2);
    fill(k, rows_k, n, d);
    if (fused) {
      ggml_tensor* const v = ggml_new_tensor_4d(context_, type, d, n, kv_heads, 1);
      fill(v, rows_v, n, d);
      ggml_tensor* const mask = ggml_new_tensor_4d(context_, GGML_TYPE_F16, n, 1, 1, 1);
      std::memset(mask->data, 0, ggml_nbytes(mask));
      out_ = ggml_flash_attn_ext(context_, queries, k, v, mask, scale, 0, 0);
    } else {
      ggml_tensor* const v = ggml_new_tensor_4d(context_, type, n, d, kv_heads, 1);  // [kv head][dim][entry]
      std::vector<float> turned(static_cast<std::size_t>(n));
      const auto* const traits = ggml_get_type_traits(type);
      for (int h = 0; h < kv_heads; ++h)
        for (int c = 0; c < d; ++c) {
          for (Index i = 0; i < n; ++i) turned[std::size_t(i)] = rows_v[std::size_t(i % chunk * d + c)];
          void* const to = static_cast<char*>(v->data) + ggml_row_size(type, n) * std::size_t(h * d + c);
          if (type == GGML_TYPE_F32) std::memcpy(to, turned.data(), turned.size() * sizeof(float));
          else traits->from_float_ref(turned.data(), to, n);
        }
      ggml_tensor* const logits = ggml_mul_mat(context_, k, queries);
      out_ = ggml_mul_mat(context_, v, ggml_soft_max_ext(context_, logits, nullptr, scale, 0));
    }
    graph_ = ggml_new_graph(context_);
    ggml_build_forward_expand(graph_, out_);
    plan_ = ggml_graph_plan(graph_, 1, nullptr);
    plan_memory_.resize(plan_.work_size + 64);
    plan_.work_data = plan_memory_.data();
  }
  PeerLayer(const PeerLayer&) = delete;
  PeerLayer& operator=(const PeerLayer&) = delete;
  ~PeerLayer() { ggml_free(context_); }

  void attend() { ggml_graph_compute(graph_, &plan_); }
  const float* out() const { return static_cast<const float*>(out_->data); }  ///< [q heads][dim]

 private:
  /// Requires: n a multiple of the rows.
  static void fill(ggml_tensor* to, const std::vector<float>& rows, Index n, int d) {
    const std::size_t row = ggml_row_size(to->type, d);
    const auto* const traits = ggml_get_type_traits(to->type);
    const Index chunk = Index(rows.size()) / d;
    for (Index i = 0; i < n * kv_heads; i += chunk) {
      const Index count = std::min(chunk, n * kv_heads - i);
      char* const at = static_cast<char*>(to->data) + std::size_t(i) * row;
      if (to->type == GGML_TYPE_F32) std::memcpy(at, rows.data(), std::size_t(count) * row);
      else traits->from_float_ref(rows.data(), at, std::int64_t(count) * d);
    }
  }

  Buffer<std::uint8_t> memory_;
  ggml_context* context_ = nullptr;
  ggml_tensor* out_ = nullptr;
  ggml_cgraph* graph_ = nullptr;
  ggml_cplan plan_{};
  std::vector<std::uint8_t> plan_memory_;
};

template <class S>
Counters peer(S store, ggml_type type, bool fused, Index n, int d, int group) {
  const StoreHeads<S> ours(std::move(store), n, d, std::size_t{512} << 20);
  const int layers = ours.count() / kv_heads;
  const auto q = noise(std::size_t(kv_heads * group * d), 7);
  const float scale = 1.0f / std::sqrt(float(d));
  std::vector<std::unique_ptr<PeerLayer>> theirs;
  for (int l = 0; l < layers; ++l)
    theirs.push_back(std::make_unique<PeerLayer>(type, fused, n, d, group, q.data(), scale));
  AttnBuffer buffer(group, d);
  std::vector<float> out(std::size_t(kv_heads * group * d));
  const auto we = [&](int) {
    for (int h = 0; h < ours.count(); ++h) {
      AttendArgs args;
      args.q = q.data() + std::ptrdiff_t(h % kv_heads) * group * d;
      args.group = group;
      args.scale = scale;
      const AttnState s = buffer.state();
      s.clear();
      ours[h].attend(args, s);
      finish(s, out.data() + std::ptrdiff_t(h % kv_heads) * group * d);
    }
  };
  const auto they = [&](int) {
    for (const auto& layer : theirs) layer->attend();
  };
  std::vector<double> mine, peers, ratios;
  timed(1, we), timed(1, they);
  double error = 0, norm = 0;  // both did the same work: their outputs differ by what the formats differ
  for (std::size_t i = 0; i < out.size(); ++i) {
    const double e = double(out[i]) - double(theirs[0]->out()[i]);
    error += e * e;
    norm += double(theirs[0]->out()[i]) * double(theirs[0]->out()[i]);
  }
  for (int r = 0; r < 9; ++r) {
    const double a = timed(1, we), b = timed(1, they);
    mine.push_back(a), peers.push_back(b), ratios.push_back(b / a);
  }
  const double entries = double(ours.count()) * double(n);
  return {{"ns_per_entry", median(mine) * 1e9 / entries},
          {"ggml_ns_per_entry", median(peers) * 1e9 / entries},
          {"ratio", median(ratios)},
          {"outputs_differ", std::sqrt(error / norm)}};
}

struct Match {
  const char* ours;
  const char* name;  ///< of ggml's type
  ggml_type type;
  bool fused;
};

Counters peer(const Match& m, Index n, int d, int group) {
  const std::string ours = m.ours;
  if (ours == "f32") return peer(DenseStore<float>(d, d), m.type, m.fused, n, d, group);
  if (ours == "f16") return peer(DenseStore<f16>(d, d), m.type, m.fused, n, d, group);
  if (ours == "bf16") return peer(DenseStore<bf16>(d, d), m.type, m.fused, n, d, group);
  return peer(packed_store(ours, d), m.type, m.fused, n, d, group);
}

const int registered = [] {
  static constexpr Match matches[] = {
      {"f32", "f32", GGML_TYPE_F32, true},          {"f16", "f16", GGML_TYPE_F16, true},
      {"f16", "f16_unfused", GGML_TYPE_F16, false}, {"bf16", "bf16", GGML_TYPE_BF16, true},
      {"int8", "q8_0", GGML_TYPE_Q8_0, true},       {"q8_0", "q8_0", GGML_TYPE_Q8_0, true},
      {"int4_128", "q4_0", GGML_TYPE_Q4_0, true},   {"int4_32", "q4_0", GGML_TYPE_Q4_0, true},
      {"q4_0", "q4_0", GGML_TYPE_Q4_0, true}};
  for (const Match& m : matches)
    for (const Index n : {4096, 32768, 131072})
      for (const int d : {64, 128})
        add("peer/" + std::string(m.ours) + "_against_" + m.name + "/T:" + std::to_string(n) +
                "/d:" + std::to_string(d) + "/G:4",
            [&m, n, d] { return peer(m, n, d, 4); });
  return 0;
}();

}  // namespace
