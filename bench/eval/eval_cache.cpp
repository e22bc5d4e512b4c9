// SPDX-License-Identifier: Apache-2.0
#include "eval_cache.hpp"

template class kvist::Cache<kvist::AnyPolicy, kvist::AnyStore>;
