// SPDX-License-Identifier: Apache-2.0
// kvist-eval codec: what a codec makes of recorded rows.
#include "commands.hpp"

#include <kvist/io/json.hpp>
#include <kvist/io/npy.hpp>
#include <kvist/methods/options.hpp>
#include <kvist/methods/spec.hpp>
#include <kvist/storage/codec/adapt/rotated.hpp>
#include <kvist/storage/codec/adapt/with_outliers.hpp>
#include <kvist/storage/codec/any_codec.hpp>
#include <kvist/storage/codec/fp8.hpp>
#include <kvist/storage/codec/ggml.hpp>
#include <kvist/storage/codec/int_channel.hpp>
#include <kvist/storage/codec/int_token.hpp>
#include <kvist/storage/codec/plain.hpp>

#include <algorithm>
#include <array>
#include <cmath>

namespace kvist_eval {
namespace {

using kvist::AnyCodec;
using kvist::Index;
using kvist::Json;
namespace m = kvist::methods;

constexpr const char* codec_names =
    "f32 f16 bf16 int_token int_channel q8_0 q4_0 q4_1 q5_0 q5_1 iq4_nl fp8_e4m3 fp8_e5m2 rotated(CODEC) "
    "with_outliers(CODEC)";

/// The codec that a SPEC names: NAME, NAME:option=value,... or ADAPTER(SPEC):option=value,...
Outcome<AnyCodec> codec_of(std::string_view text, int depth = 0) {
  if (depth > 8) return usage("codec adapters are nested more than eight deep");
  const auto close = text.rfind(')');
  const bool adapter = text.find('(') < text.find(':') && close != text.npos;
  const std::size_t colon = text.find(':', adapter ? close : 0);
  const std::string_view head = text.substr(0, colon);
  std::vector<m::OptionText> given;
  if (colon != text.npos)
    for (const std::string_view option : m::detail::split(text.substr(colon + 1), ',')) {
      const std::size_t equals = option.find('=');
      if (equals == option.npos || equals == 0)
        return usage(fmt::format("codec '{}': '{}' is not option=value", text, option));
      given.emplace_back(std::string(option.substr(0, equals)), std::string(option.substr(equals + 1)));
    }
  m::ReadOptions read(given);
  const auto made = [&](AnyCodec codec) -> Outcome<AnyCodec> {
    if (const std::string fault = read.fault(); !fault.empty())
      return usage(fmt::format("codec '{}': {}", text, fault));
    return codec;
  };
  if (adapter) {
    for (const std::string_view name : {"rotated", "with_outliers"}) {
      const auto inside = m::detail::inside(head, name);
      if (!inside) continue;
      auto inner = codec_of(*inside, depth + 1);
      if (!inner) return inner;
      if (name == "rotated") return made(kvist::Rotated<AnyCodec>{*inner});
      int count = 1;
      read("count", count, "");
      return made(kvist::WithOutliers<AnyCodec>{*inner, count});
    }
  } else if (head == "int_token" || head == "int_channel") {
    int bits = head == "int_token" ? 8 : 4, group = head == "int_token" ? 64 : 32;
    read("bits", bits, "");
    read("group", group, "");
    if (head == "int_token") return made(kvist::IntToken<kvist::f16>{bits, group});
    return made(kvist::IntChannel<kvist::f16>{bits, group});
  } else {
    namespace g = kvist::ggml;
    if (head == "f32") return made(kvist::Plain<float>{});
    if (head == "f16") return made(kvist::Plain<kvist::f16>{});
    if (head == "bf16") return made(kvist::Plain<kvist::bf16>{});
    if (head == "q8_0") return made(g::Blocks<g::Q8_0>{});
    if (head == "q4_0") return made(g::Blocks<g::Q4_0>{});
    if (head == "q4_1") return made(g::Blocks<g::Q4_1>{});
    if (head == "q5_0") return made(g::Blocks<g::Q5_0>{});
    if (head == "q5_1") return made(g::Blocks<g::Q5_1>{});
    if (head == "iq4_nl") return made(g::Blocks<g::Iq4Nl>{});
    if (head == "fp8_e4m3") return made(kvist::Fp8<kvist::E4M3>{});
    if (head == "fp8_e5m2") return made(kvist::Fp8<kvist::E5M2>{});
  }
  return usage(fmt::format("unknown codec '{}'; the names are {}", head, codec_names));
}

Outcome<Good> run(const Args& args, const std::string&) {
  if (!args.has("codec") || !args.has("rows"))
    return usage("kvist-eval codec wants --codec SPEC and --rows X.npy");
  const auto codec = codec_of(args.text("codec"));
  if (!codec) return codec.failure();
  const auto npy = kvist::Npy::load(args.text("rows"));
  if (!npy) return failed(fmt::format("--rows '{}'", args.text("rows")), npy.error());
  if (npy->rank() < 1 || npy->size() == 0)
    return failed(fmt::format("--rows '{}' holds no rows", args.text("rows")));
  const std::size_t d = npy->dim(npy->rank() - 1), tokens = npy->rank() > 1 ? npy->dim(npy->rank() - 2) : 1;
  if (d > 8192)
    return failed(fmt::format("--rows '{}': rows of {} channels; codecs take up to 8192", args.text("rows"), d));
  const std::vector<float> x = npy->as_f32();
  for (const float v : x)
    if (!std::isfinite(v))
      return failed(fmt::format("--rows '{}' holds a value that is no number", args.text("rows")));
  if (const auto ok = codec->validate(int(d)); !ok)
    return usage(fmt::format("codec '{}': {}", args.text("codec"), ok.error()));

  // Groups along the tokens end with the matrix [tokens, d] that they lie in.
  std::vector<float> decoded(x.size());
  const std::size_t block = std::size_t(codec->block_rows()), block_bytes = codec->block_bytes(int(d));
  std::vector<std::byte> bytes(block_bytes);
  std::size_t stored = 0;
  for (std::size_t first = 0; first < x.size(); first += tokens * d)
    for (std::size_t t = 0; t < tokens; t += block) {
      const Index n = Index(std::min(block, tokens - t));
      codec->encode({}, x.data() + first + t * d, n, int(d), bytes.data());
      codec->decode({}, bytes.data(), n, int(d), decoded.data() + first + t * d);
      stored += block_bytes;
    }
  double worst = 0, square = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double e = std::fabs(double(decoded[i]) - double(x[i]));
    worst = std::max(worst, e);
    square += e * e;
  }
  if (args.has("decoded"))
    if (const auto done = kvist::save_npy(args.text("decoded"), npy->shape(), std::span<const float>(decoded));
        !done)
      return failed(fmt::format("'{}'", args.text("decoded")), done.error());
  Json out = Json::object();
  out.set("bytes", stored);
  out.set("bits_per_element", 8.0 * double(stored) / double(x.size()));
  out.set("max_error", worst);
  out.set("rms_error", std::sqrt(square / double(x.size())));
  return write_result(args.text("json"), out.dump() + "\n");
}

constexpr std::array options{
    OptionSpec{
        "codec", "SPEC",
        "f16, int_token:bits=8,group=64, int_channel:bits=4,group=32, q8_0, fp8_e4m3, rotated(SPEC), ..."},
    OptionSpec{"rows", "X.npy", "rows, f32 or f16 [..., tokens, d]"},
    OptionSpec{"decoded", "Y.npy", "what the codes stand for, f32, in the shape of X"},
    OptionSpec{"json", "FILE", "where the result goes; default standard output"}};

}  // namespace

const Command codec_command{
    "codec", "what a codec makes of recorded rows",
    "Writes {\"bytes\":..,\"bits_per_element\":..,\"max_error\":..,\"rms_error\":..}. Scales and minima are "
    "counted; a last group\n"
    "along the tokens that is not full takes the bytes of a full one.\n"
    "Codecs: f32 f16 bf16 int_token int_channel q8_0 q4_0 q4_1 q5_0 q5_1 iq4_nl fp8_e4m3 fp8_e5m2, "
    "rotated(CODEC),\n"
    "with_outliers(CODEC):count=N.\n",
    options, &run};

}  // namespace kvist_eval
