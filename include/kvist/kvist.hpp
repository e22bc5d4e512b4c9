#pragma once
// SPDX-License-Identifier: Apache-2.0
// Everything but reference/ and io/ (which need Eigen and fmt).

#include <kvist/attention/state.hpp>
#include <kvist/core/assert.hpp>
#include <kvist/core/executor.hpp>
#include <kvist/core/half.hpp>
#include <kvist/core/little_endian.hpp>
#include <kvist/core/plan.hpp>
#include <kvist/core/random.hpp>
#include <kvist/core/result.hpp>
#include <kvist/core/types.hpp>
#include <kvist/core/utf8.hpp>
#include <kvist/core/version.hpp>
#include <kvist/view/evidence.hpp>
#include <kvist/view/head.hpp>
#include <kvist/view/rope.hpp>
#include <kvist/view/rows.hpp>
