#pragma once
// SPDX-License-Identifier: Apache-2.0
// Every method by name; methods/registry.hpp lists them for run-time choice.
#include <kvist/methods/anchors.hpp>
#include <kvist/methods/full.hpp>
#include <kvist/methods/h2o.hpp>
#include <kvist/methods/lazy_eviction.hpp>
#include <kvist/methods/snapkv.hpp>
#include <kvist/methods/streaming_llm.hpp>
