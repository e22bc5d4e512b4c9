// SPDX-License-Identifier: Apache-2.0
// kvist-eval: compares policies of the KV cache on a real model with full-cache attention, and shows single
// steps of the machine for checking.
#include "tool.hpp"

int main(int argc, char** argv) { return kvist_eval::tool({argv + 1, argv + argc}); }
