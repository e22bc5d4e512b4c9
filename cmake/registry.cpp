// SPDX-License-Identifier: Apache-2.0
// The list of all methods, compiled once (KVIST_REGISTRY_EXTERN).
#include <kvist/methods/registry.hpp>

#include <kvist/methods/detail/registry.ipp>
