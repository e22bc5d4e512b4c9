// SPDX-License-Identifier: Apache-2.0
// encode/<format>/d:<dim>: f32 keys and values of a prompt (512 MB), in chunks of 512 entries, into stores: appended, then
// coded. The read-only pass reads the same f32 rows.
#include "heads.hpp"

namespace {

using namespace kvist;
using namespace kvist::bench;

constexpr std::size_t input_bytes = std::size_t{512} << 20;
constexpr Index entries = 8192, chunk = 512;  // of a head, of an append

template <class S, class Make>
Counters encode(int d, Make make) {
  const std::size_t row = std::size_t(d), of_head = std::size_t(entries) * row;
  const int heads = int(input_bytes / (2 * of_head * sizeof(float)));
  Buffer<float> k(std::size_t(heads) * of_head), v(std::size_t(heads) * of_head);
  const auto x = noise(of_head, 5);
  std::vector<S> stores;
  for (int h = 0; h < heads; ++h) {
    std::copy(x.begin(), x.end(), k.data() + std::size_t(h) * of_head);
    std::copy(x.begin(), x.end(), v.data() + std::size_t(h) * of_head);
    stores.push_back(make());
    stores.back().reserve(entries);
  }
  const Timing t = against_read(
      1, 5,
      [&](int) {
        for (int h = 0; h < heads; ++h) {
          S& s = stores[std::size_t(h)];
          s.truncate(0);
          for (Index i = 0; i < entries; i += chunk) {
            const std::size_t at = std::size_t(h) * of_head + std::size_t(i) * row;
            s.append(k.data() + at, v.data() + at, chunk);
            s.settle();
          }
        }
      },
      [&](int) {
        read_only(k.data(), k.bytes());
        read_only(v.data(), v.bytes());
      });
  return {{"ns_per_entry", t.seconds * 1e9 / (double(heads) * double(entries))},
          {"gb_per_s", double(k.bytes() + v.bytes()) / t.seconds * 1e-9},
          {"read_fraction", t.fraction}};
}

Counters encode(const std::string& format, int d) {
  if (format == "f32") return encode<DenseStore<float>>(d, [d] { return DenseStore<float>(d, d); });
  if (format == "f16") return encode<DenseStore<f16>>(d, [d] { return DenseStore<f16>(d, d); });
  if (format == "bf16") return encode<DenseStore<bf16>>(d, [d] { return DenseStore<bf16>(d, d); });
  return encode<PackedStore>(d, [&] { return packed_store(format, d); });
}

const int registered = [] {
  for (const char* format :
       {"f32", "f16", "bf16", "int8", "int4_128", "int4_32", "int2_128", "int2_32", "q8_0", "q4_0"})
    for (const int d : {64, 128})
      add("encode/" + std::string(format) + "/d:" + std::to_string(d),
          [name = std::string(format), d] { return encode(name, d); });
  return 0;
}();

}  // namespace
