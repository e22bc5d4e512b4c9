// SPDX-License-Identifier: Apache-2.0
// repack/<format>/<what>: entries are dropped from stores (256 MB, d = 128) and the others close up. what: `half`, every
// other entry goes; `blocks`, every other 128 entries go; `thin`, one of 16 stays, and rows of keys coded along the tokens
// leave for f32. The read-only pass reads what the stores held before.
#include "heads.hpp"

#include <kvist/storage/store/thinned.hpp>

namespace {

using namespace kvist;
using namespace kvist::bench;

constexpr std::size_t store_bytes = std::size_t{256} << 20;
constexpr Index entries = 32768;
constexpr int d = 128;

std::vector<Index> losers(const std::string& what) {
  std::vector<Index> gone;
  for (Index i = 0; i < entries; ++i)
    if (what == "half" ? i % 2 == 0 : what == "blocks" ? i / 128 % 2 == 0 : i % 16 != 5) gone.push_back(i);
  return gone;
}

/// `wrap` makes the store that drops of the one that was filled.
template <class S, class Wrap>
Counters repack(S first, const std::string& what, Wrap wrap) {
  const StoreHeads<S> full(std::move(first), entries, d, store_bytes, false);
  const auto gone = losers(what);
  using Dropping = decltype(wrap(full[0].clone()));
  std::vector<double> seconds, fractions;
  std::size_t after = 0;
  for (int r = 0; r < 5; ++r) {
    std::vector<Dropping> stores;
    for (int h = 0; h < full.count(); ++h) stores.push_back(wrap(full[h].clone()));
    const double read = timed(1, [&](int) {
      for (int h = 0; h < full.count(); ++h) full.read(h);
    });
    const double work = timed(1, [&](int) {
      for (Dropping& s : stores) s.drop(gone);
    });
    seconds.push_back(work);
    fractions.push_back(read / work);
    after = stores[0].bytes();
  }
  const double kept = double(full.count()) * double(entries - Index(gone.size()));
  return {{"ns_per_kept_entry", median(seconds) * 1e9 / kept},
          {"bytes_left", double(after) / double(full.bytes_of_head())},
          {"read_fraction", median(fractions)}};
}

Counters repack(const std::string& format, const std::string& what) {
  const auto as_it_is = [](auto s) { return s; };
  if (format == "f16") return repack(DenseStore<f16>(d, d), what, as_it_is);
  if (what == "thin")
    return repack(packed_store(format, d), what, [](PackedStore s) { return ThinnedStore(std::move(s)); });
  return repack(packed_store(format, d), what, as_it_is);
}

const int registered = [] {
  const std::pair<const char*, const char*> cases[] = {
      {"f16", "half"},  {"f16", "blocks"},      {"int8", "half"},      {"int8", "blocks"},
      {"q4_0", "half"}, {"int4_128", "blocks"}, {"int4_32", "blocks"}, {"int4_32", "thin"}};
  for (const auto& [format, what] : cases)
    add("repack/" + std::string(format) + "/" + what,
        [f = std::string(format), w = std::string(what)] { return repack(f, w); });
  return 0;
}();

}  // namespace
