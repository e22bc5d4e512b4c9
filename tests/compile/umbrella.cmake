# SPDX-License-Identifier: Apache-2.0
# cmake -DCOMPILER=.. -DINCLUDE=.. -P umbrella.cmake: <kvist/kvist.hpp> includes every header but those of reference/,
# io/ and detail/ folders and those that need Eigen, and none of reference/ and io/.
file(GLOB_RECURSE headers RELATIVE ${INCLUDE} ${INCLUDE}/kvist/*.hpp)
execute_process(COMMAND ${COMPILER} -std=c++20 -x c++ -M -I${INCLUDE} ${INCLUDE}/kvist/kvist.hpp
                OUTPUT_VARIABLE reached RESULT_VARIABLE status)
if(NOT status EQUAL 0)
  message(FATAL_ERROR "<kvist/kvist.hpp> does not compile")
endif()
string(REGEX REPLACE "[ \t\r\n\\]+" ";" reached "${reached}")
set(faults "")
foreach(header ${headers})
  list(FIND reached ${INCLUDE}/${header} at)
  if(header MATCHES "^kvist/(reference|io)/")
    if(NOT at EQUAL -1)
      string(APPEND faults "\n  <kvist/kvist.hpp> must not include ${header}")
    endif()
  elseif(at EQUAL -1 AND NOT header MATCHES "/detail/|^kvist/view/eigen.hpp$")
    string(APPEND faults "\n  <kvist/kvist.hpp> does not reach ${header}: add it to its room's part of the umbrella")
  endif()
endforeach()
if(faults)
  message(FATAL_ERROR "${faults}")
endif()
