# CUDA when a working nvcc is there. Sets HPRESIL_HAS_CUDA.
#
# HPRESIL_CUDA, a cache variable or else an environment variable: AUTO (the default), ON (no nvcc is an
# error) or OFF (nvcc is not looked for).

if(DEFINED ENV{HPRESIL_CUDA})
  set(_wanted "$ENV{HPRESIL_CUDA}")
else()
  set(_wanted AUTO)
endif()
set(HPRESIL_CUDA "${_wanted}" CACHE STRING "AUTO, ON or OFF")
string(TOUPPER "${HPRESIL_CUDA}" _wanted)

set(HPRESIL_HAS_CUDA OFF)
if(_wanted MATCHES "^(AUTO|ON|1|TRUE|YES)$")
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
      # Every major architecture this toolkit knows, and code that later ones can translate.
      set(CMAKE_CUDA_ARCHITECTURES all-major)
    endif()
    enable_language(CUDA)
    if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12.0)
      message(WARNING "CUDA ${CMAKE_CUDA_COMPILER_VERSION} has no C++20; building without CUDA")
    else()
      set(HPRESIL_HAS_CUDA ON)
      set(CMAKE_CUDA_STANDARD 20)
      set(CMAKE_CUDA_STANDARD_REQUIRED ON)
      set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
    endif()
  elseif(NOT _wanted STREQUAL "AUTO")
    message(FATAL_ERROR "HPRESIL_CUDA=${HPRESIL_CUDA}, but no working nvcc was found")
  endif()
elseif(NOT _wanted MATCHES "^(OFF|0|FALSE|NO)$")
  message(FATAL_ERROR "HPRESIL_CUDA=${HPRESIL_CUDA} is none of AUTO, ON, OFF")
endif()
message(STATUS "hpresil: CUDA ${HPRESIL_HAS_CUDA} ${CMAKE_CUDA_COMPILER_VERSION}")
