# Python's headers: the interpreter's own, or those that scripts/make_venv.py put into the environment.

if(DEFINED Python_EXECUTABLE)
  cmake_path(GET Python_EXECUTABLE PARENT_PATH _bin)
  file(GLOB _headers ${_bin}/../headers/usr/include/python3.*)
  if(_headers)
    set(Python_INCLUDE_DIR ${_headers})
    include_directories(SYSTEM ${_headers}/..)  # pyconfig.h includes one by architecture from here
  endif()
endif()
find_package(Python 3.11 REQUIRED COMPONENTS Interpreter Development.Module)
