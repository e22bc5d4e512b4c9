# SPDX-License-Identifier: Apache-2.0
# cmake -DCOMPILER=.. -DINCLUDE=.. -DSOURCE=.. -P mistake.cmake: SOURCE compiles; with KVIST_MISTAKE defined it does
# not, and the compiler's output matches the file's `// expect: ` line. A line `// flags: ` adds compiler flags.
cmake_minimum_required(VERSION 3.22)
file(STRINGS ${SOURCE} expected REGEX "^// expect: ")
string(REGEX REPLACE "^// expect: " "" expected "${expected}")
if(expected STREQUAL "")
  message(FATAL_ERROR "${SOURCE} has no line `// expect: <regular expression>`")
endif()

file(STRINGS ${SOURCE} flags REGEX "^// flags: ")
string(REGEX REPLACE "^// flags: " "" flags "${flags}")
separate_arguments(flags)

set(command ${COMPILER} -std=c++20 -fsyntax-only ${flags} -I${INCLUDE} ${SOURCE})
execute_process(COMMAND ${command} RESULT_VARIABLE status ERROR_VARIABLE output)
if(NOT status EQUAL 0)
  message(FATAL_ERROR "does not compile without the mistake:\n${output}")
endif()
execute_process(COMMAND ${command} -DKVIST_MISTAKE RESULT_VARIABLE status ERROR_VARIABLE output)
if(status EQUAL 0)
  message(FATAL_ERROR "the mistake compiles")
endif()
if(NOT output MATCHES "${expected}")
  message(FATAL_ERROR "the compiler's message does not match `${expected}`:\n${output}")
endif()
