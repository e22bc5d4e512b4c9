// SPDX-License-Identifier: Apache-2.0
// Who stands before the laws: the registry, variants of its methods, and the few properties that a method cannot have.
#include <kvist/methods/registry.hpp>
#include <kvist/methods/spec.hpp>

#include <cstring>

#include "conformance/laws.hpp"

namespace kvist::test {

namespace {

/// Options that change what a method does; every method also runs with its defaults.
constexpr const char* variants[] = {
    "StreamingLLM:positions=compact",
    "H2O:normalise=yes",
    "H2O:heavy=40,recent=8",
    "SnapKV:pool=max,reduce=max,window=8",
    "SnapKV:pool=none,reduce=sum,window=8",
    "SnapKV:window=8,reduce_after=yes,pool=max",
    "LazyEviction:window=6",
    "LazyEviction:window=5,form=paper,reduce=mean",
    "CAKE:window=8",
    "CAKE:window=8,cascade=no,tau1=1.6,tau2=0.4",
    "TOVA:sinks=4",
    "PyramidKV:window=8",
    "AdaKV:window=8",
    "AdaKV:window=8,floor=0",
    "Scissorhands:batch=4,history=16",
    "Scissorhands:history=8",
    "PyramidKV:window=16,beta=4,pool=avg",
    "KeyDiff:sinks=2,recent=4",
    "KeyNorm:sinks=2,recent=4",
    "ExpectedAttention:future=64",
    "LagKV:lag=8",
    "ChunkKV:chunk=5",
    "RKV:window=4",
    "SnapKV:window=8,schedule=per_chunk",
    "SnapKV:window=8,schedule=every:4",
    "H2O:schedule=over_budget:3",
    "KeyNorm:schedule=every_step",
    "AdaKV:window=8,schedule=every_step",
    "PyramidKV:window=8,schedule=over_budget",
    "CAKE:window=8,schedule=per_chunk",
    "LazyEviction:window=6,schedule=every_step",
    "ExpectedAttention:schedule=every_step",
    "SnapKV:window=8,merge=nearest",
    "SnapKV:window=8,merge=runs",
    "H2O:merge=nearest",
    "H2O:merge=values",
    "H2O:merge=compensate",
    "StreamingLLM:merge=compensate",
    "StreamingLLM:positions=compact,merge=runs",
    "AdaKV:window=8,merge=nearest",
    "KVMerger:mass=count,sigma=0",
    "KVMerger:sinks=3,recent=9,top=0.1",
    "ToMe:chunk=8,mass=none",
    "CaM:deterministic=yes,targets=4",
    "D2O:weights=normalised,total=official",
    "D2O:heavy=16,recent=32",
    "EMS:window=8,merged=0.5",
};

struct Exemption {
  const char *spec, *property, *why;  // of a method, or of one SPEC
};
constexpr Exemption exemptions[] = {
    {"TOVA", "ragged", "one choice for all heads of a layer wants heads of one length"},
    {"H2O:heavy=40,recent=8", "full", "its two counts add up to another budget"},
    {"MiKV", "foreign", "its first tier's share is of all tokens that were ever given to it"},
    {"MiKV", "budget", "the first tier's share holds, so it grows with the sequence; nothing is given up"},
    {"H2O", "unlearn", "sums of attention cannot be taken apart: an engine observes what it has accepted"},
    {"MiKV", "unlearn", "sums of attention cannot be taken apart: an engine observes what it has accepted"},
    {"KVMerger", "unlearn",
     "sums of attention cannot be taken apart: an engine observes what it has accepted"},
    {"D2O", "unlearn", "sums of attention cannot be taken apart: an engine observes what it has accepted"},
    {"D2O:weights=normalised,total=official", "exact", "the published code rounds each layer's parts down"},
    {"D2O:heavy=16,recent=32", "full", "its two counts add up to another budget"},
    {"D2O:heavy=16,recent=32", "counts", "its two counts are parts of each layer's own budget"},
    {"LazyEviction", "unlearn", "the last hit and the longest gap are kept, not the hits before them"},
    {"RKV", "unlearn", "remembers its window's queries only: the oldest went for those that were taken back"},
    {"Scissorhands:batch=4,history=16", "unlearn",
     "the oldest rows of a full history went for those taken back"},
    {"Scissorhands:history=8", "unlearn", "the oldest rows of a full history went for those taken back"},
    {"random", "unlearn", "each head draws in the order in which entries arrive"},
    {"ExpectedAttention", "foreign",
     "the first positions of a sequence are its sinks, also when they are gone"},
    {"ChunkKV", "ragged", "one choice for all heads of a layer wants heads of one length"},
    {"CAKE", "exact",
     "a share that rises again does not bring back what is gone; the layer grows to it by decoding"},
    {"Scissorhands:batch=4,history=16", "exact", "a batch leaves at once, so that the next tokens find room"},
    {"Scissorhands", "foreign", "a hit is a probability above 1/n over all n entries held, whoever they are"},
    {"random", "foreign",
     "each head draws in the order in which entries arrive, so that one more entry moves all later "
     "draws"},
};

Subject make_subject(const std::string& text) {
  const auto made = [](const std::string& spec_text) {
    std::string fault;
    const auto spec = methods::parse_spec(spec_text, fault);
    INFO(spec_text << ": " << fault);
    REQUIRE(spec);
    auto out = methods::make(*spec, fault);
    INFO(fault);
    REQUIRE(out);
    return std::move(*out);
  };
  auto plain = made(text);
  std::string guarded = text;
  if (plain.evicts)
    for (const char* option : {"sinks=3", "recent=5"}) {
      const std::string name(option, std::strchr(option, '=') + 1);
      if (text.find(":" + name) != text.npos || text.find("," + name) != text.npos) continue;
      guarded += (guarded.find(':') == guarded.npos ? ":" : ",") + std::string(option);
    }
  // A variant that sets guards of its own is tried with those.
  const bool own = text.find("sinks=") != text.npos || text.find("recent=") != text.npos;
  return {text, plain.policy, own ? plain.policy : made(guarded).policy, plain.evicts};
}

}  // namespace

const std::vector<Subject>& subjects() {
  static const std::vector<Subject> all = [] {
    std::vector<Subject> out;
    for (const methods::Entry& e : methods::registry())
      if (!e.store) out.push_back(make_subject(e.info.name));
    for (const char* v : variants)
      if (methods::find(std::string(v, std::strchr(v, ':')))) out.push_back(make_subject(v));
    return out;
  }();
  return all;
}

const char* exempt(const std::string& spec, const std::string& property) {
  for (const Exemption& e : exemptions)
    if ((spec == e.spec || spec.substr(0, spec.find(':')) == e.spec) && property == e.property) return e.why;
  return nullptr;
}

}  // namespace kvist::test

using namespace kvist;
using namespace kvist::test;

TEST_CASE("Every policy of the registry stands before the laws", "[conformance]") {
  std::size_t policies = 0;
  for (const methods::Entry& e : methods::registry()) policies += e.store ? 0 : 1;
  CHECK(policies >= 7);
  CHECK(subjects().size() > policies);
}

TEST_CASE("What ranks a layer as one refuses heads of different lengths, and says so", "[conformance]") {
  for (const Subject& s : subjects())
    for (const Setup& setup : setups()) {
      if (!refuses_ragged(s, setup)) continue;
      INFO(s.name << " on " << setup.name);
      auto drive = Drive::start(s.policy, setup);
      REQUIRE(drive);
      const Status went = drive->prompt(96);
      REQUIRE(!went);
      CHECK(went.error().code == Errc::bad_shape);
      CHECK(drive->evictions == 0);
    }
}
