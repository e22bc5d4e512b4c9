// SPDX-License-Identifier: Apache-2.0
// read/<bytes> and decode/<format>/T:<entries>/d:<dim>/G:<group>/threads:<n>: one decode step's attention over 8 KV heads
// and as many layers as make 512 MB. cached/<format>/d:<dim>/G:<group>: the same kernels over 1,024 entries of one head
// again and again, so that memory does not count.
#include "heads.hpp"

#include <kvist/attention/attend_packed.hpp>

#include <memory>

namespace {

using namespace kvist;
using namespace kvist::bench;
using kernels::Accuracy;
using kernels::PackedLayout;

constexpr int kv_heads = 8;
constexpr std::size_t wanted_bytes = std::size_t{512} << 20;

struct Heads {
  virtual ~Heads() = default;
  virtual std::size_t bytes_of_head() const = 0;
  virtual int count() const = 0;
  virtual void attend(int head, const AttendArgs& args, const AttnState& state) const = 0;
  virtual void read(int head) const = 0;
};

int heads_for(std::size_t bytes_of_head) {
  const std::size_t layer = bytes_of_head * kv_heads;
  return int(std::max<std::size_t>(1, (wanted_bytes + layer - 1) / layer)) * kv_heads;
}

template <Scalar T>
struct DenseHeads final : Heads {
  std::vector<DenseStore<T>> heads;
  DenseHeads(Index n, int d) {
    const Index chunk = 1024;
    const auto x = noise(std::size_t(chunk * d), 1);
    const int all = heads_for(std::size_t(n) * std::size_t(d) * 2 * sizeof(T));
    for (int h = 0; h < all; ++h) {
      heads.emplace_back(d, d);
      heads.back().reserve(n);
      for (Index i = 0; i < n; i += chunk) heads.back().append(x.data(), x.data(), std::min(chunk, n - i));
    }
  }
  std::size_t bytes_of_head() const override {
    return std::size_t(heads[0].size()) * std::size_t(heads[0].dim_k()) * 2 * sizeof(T);
  }
  int count() const override { return int(heads.size()); }
  void attend(int h, const AttendArgs& args, const AttnState& state) const override {
    heads[std::size_t(h)].attend(args, state);
  }
  void read(int h) const override {
    const DenseStore<T>& s = heads[std::size_t(h)];
    read_only(s.keys().pool, bytes_of_head() / 2);
    read_only(s.values().data, bytes_of_head() / 2);
  }
};

struct PackedHeads final : Heads {
  PackedLayout k, v;
  Accuracy accuracy;
  Index n;
  int all;
  std::size_t page_bytes;
  Buffer<std::uint8_t> memory;
  std::vector<const std::uint8_t*> key_pages, value_pages;

  PackedHeads(PackedLayout keys, PackedLayout values, Accuracy a, Index entries)
      : k(keys), v(values), accuracy(a), n(entries), page_bytes(keys.bytes() + values.bytes()) {
    const Index pages = (n + PackedLayout::page - 1) / PackedLayout::page;
    all = heads_for(std::size_t(pages) * page_bytes);
    memory = Buffer<std::uint8_t>(std::size_t(pages) * page_bytes * std::size_t(all));
    Random random(3);
    std::uint8_t* at = memory.data();
    for (std::size_t i = 0; i < page_bytes; ++i) at[i] = std::uint8_t(random.next());
    for (const PackedLayout& l : {k, v}) {
      std::uint8_t* const page = &l == &k ? at : at + k.bytes();
      for (int s = 0; s < l.scale_row() * l.scale_rows(); ++s) {
        l.scales(page)[s] = to_f16(0.1f + float(random.uniform()) * 0.01f);
        if (l.minima) l.minimums(page)[s] = to_f16(float(random.uniform()) - 1);
      }
    }
    for (int h = 0; h < all; ++h)
      for (Index p = 0; p < pages; ++p) {
        std::uint8_t* const to = at + std::size_t(h * pages + p) * page_bytes;
        if (to != at) std::memcpy(to, at, page_bytes);
        key_pages.push_back(to);
        value_pages.push_back(to + k.bytes());
      }
  }
  std::size_t bytes_of_head() const override { return memory.bytes() / std::size_t(all); }
  int count() const override { return all; }
  void attend(int h, const AttendArgs& args, const AttnState& state) const override {
    const std::size_t first = std::size_t(h) * (key_pages.size() / std::size_t(all));
    attend_packed({k, key_pages.data() + first}, {v, value_pages.data() + first}, n, args, state, accuracy);
  }
  void read(int h) const override {
    read_only(memory.data() + std::size_t(h) * bytes_of_head(), bytes_of_head());
  }
};

std::unique_ptr<Heads> make(const std::string& format, Index n, int d) {
  using namespace kernels;
  const auto packed = [&](PackedLayout k, PackedLayout v, Accuracy a) -> std::unique_ptr<Heads> {
    return std::make_unique<PackedHeads>(k, v, a, n);
  };
  if (format == "f32") return std::make_unique<DenseHeads<float>>(n, d);
  if (format == "f16") return std::make_unique<DenseHeads<f16>>(n, d);
  if (format == "bf16") return std::make_unique<DenseHeads<bf16>>(n, d);
  if (format == "int8")
    return packed(token_keys(8, d, d, false), token_values(8, d, d, false), Accuracy::exact);
  if (format == "int8_fast")
    return packed(token_keys(8, d, d, false), token_values(8, d, d, false), Accuracy::fast);
  if (format == "int4_128")
    return packed(channel_keys(4, d, 128), token_values(4, d, 128, true), Accuracy::fast);
  if (format == "int4_128_accurate")
    return packed(channel_keys(4, d, 128), token_values(4, d, 128, true), Accuracy::exact);
  if (format == "int4_32")
    return packed(channel_keys(4, d, 32), token_values(4, d, 32, true), Accuracy::fast);
  if (format == "int2_128")
    return packed(channel_keys(2, d, 128), token_values(2, d, 128, true), Accuracy::fast);
  if (format == "int2_32")
    return packed(channel_keys(2, d, 32), token_values(2, d, 32, true), Accuracy::fast);
  if (format == "q8_0")
    return packed(token_keys(8, d, 32, false), token_values(8, d, 32, false), Accuracy::exact);
  if (format == "q4_0")
    return packed(token_keys(4, d, 32, false), token_values(4, d, 32, false), Accuracy::fast);
  return nullptr;
}

/// One format and size is made once for all groups and thread counts.
const Heads& heads_of(const std::string& format, Index n, int d) {
  static std::string held_key;
  static std::unique_ptr<Heads> held;
  const std::string key = format + "/" + std::to_string(n) + "/" + std::to_string(d);
  if (key != held_key) {
    held.reset();
    held = make(format, n, d);
    held_key = key;
  }
  return *held;
}

Counters cached(const std::string& format, int d, int group) {
  constexpr Index n = 1024;
  constexpr int times = 2000;
  const Heads& heads = heads_of(format, n, d);
  const auto q = noise(std::size_t(group * d), 7);
  const AttendArgs args = question(q, group);
  AttnBuffer buffer(group, d);
  const AttnState state = buffer.state();
  std::vector<double> seconds;
  for (int r = 0; r < 9; ++r)
    seconds.push_back(timed(1, [&](int) {
      for (int i = 0; i < times; ++i) {
        state.clear();
        heads.attend(0, args, state);
      }
    }));
  return {{"ns_per_entry", median(seconds) * 1e9 / (double(times) * n)}};
}

Counters decode(const std::string& format, Index n, int d, int group, int threads) {
  const Heads& heads = heads_of(format, n, d);
  const auto q = noise(std::size_t(group * d), 7);
  const AttendArgs args = question(q, group);
  std::vector<AttnBuffer> buffers;
  for (int t = 0; t < threads; ++t) buffers.emplace_back(group, d);
  const Timing t = against_read(
      threads, 9,
      [&](int id) {
        for (int h = id; h < heads.count(); h += threads) {
          const AttnState s = buffers[std::size_t(id)].state();
          s.clear();
          heads.attend(h, args, s);
        }
      },
      [&](int id) {
        for (int h = id; h < heads.count(); h += threads) heads.read(h);
      });
  const double all = double(heads.count());
  return {{"ns_per_entry", t.seconds * 1e9 / (all * double(n))},
          {"gb_per_s", all * double(heads.bytes_of_head()) / t.seconds * 1e-9},
          {"read_fraction", t.fraction}};
}

const int registered = [] {
  for (const std::size_t bytes : {std::size_t{1} << 20, std::size_t{16} << 20, wanted_bytes})
    add("read/" + std::to_string(bytes), [bytes] {
      Buffer<std::uint8_t> memory(bytes);
      std::memset(memory.data(), 1, bytes);
      const int times = int(std::max<std::size_t>(1, wanted_bytes / bytes));
      std::vector<double> seconds;
      for (int r = 0; r < 9; ++r)
        seconds.push_back(timed(1, [&](int) {
          for (int i = 0; i < times; ++i) read_only(memory.data(), bytes);
        }));
      return Counters{{"gb_per_s", double(bytes) * times / median(seconds) * 1e-9}};
    });
  std::vector<int> threads = {1};
  if (std::thread::hardware_concurrency() >= 2) threads.push_back(2);
  for (const char* format : {"f32", "f16", "bf16", "int8", "int8_fast", "int4_128", "int4_128_accurate",
                             "int4_32", "int2_128", "int2_32", "q8_0", "q4_0"}) {
    for (const int d : {64, 128})
      for (const int group : {1, 3, 4, 8})
        add("cached/" + std::string(format) + "/d:" + std::to_string(d) + "/G:" + std::to_string(group),
            [=] { return cached(format, d, group); });
    for (const Index n : {4096, 32768, 131072, 262144})
      for (const int d : {64, 128})
        for (const int group : {1, 3, 4, 8})
          for (const int t : threads)
            add("decode/" + std::string(format) + "/T:" + std::to_string(n) + "/d:" + std::to_string(d) +
                    "/G:" + std::to_string(group) + "/threads:" + std::to_string(t),
                [=] { return decode(format, n, d, group, t); });
  }
  return 0;
}();

}  // namespace
