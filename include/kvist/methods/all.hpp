#pragma once
// SPDX-License-Identifier: Apache-2.0
// Every method by name; methods/registry.hpp lists them for run-time choice.
#include <kvist/methods/adakv.hpp>
#include <kvist/methods/anchors.hpp>
#include <kvist/methods/cake.hpp>
#include <kvist/methods/cam.hpp>
#include <kvist/methods/chunkkv.hpp>
#include <kvist/methods/d2o.hpp>
#include <kvist/methods/ems.hpp>
#include <kvist/methods/expected_attention.hpp>
#include <kvist/methods/full.hpp>
#include <kvist/methods/h2o.hpp>
#include <kvist/methods/key_norm.hpp>
#include <kvist/methods/keydiff.hpp>
#include <kvist/methods/kvmerger.hpp>
#include <kvist/methods/lagkv.hpp>
#include <kvist/methods/lazy_eviction.hpp>
#include <kvist/methods/pyramidkv.hpp>
#include <kvist/methods/rkv.hpp>
#include <kvist/methods/scissorhands.hpp>
#include <kvist/methods/snapkv.hpp>
#include <kvist/methods/streaming_llm.hpp>
#include <kvist/methods/tome.hpp>
#include <kvist/methods/tova.hpp>
