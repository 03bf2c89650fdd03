# HPRESIL_SANITIZE=address,undefined or =thread builds everything with these sanitizers; what they find ends the program.

# Translated in half the time, with line numbers in what a sanitizer prints.
set(CMAKE_CXX_FLAGS_QUICK "-O1 -g1" CACHE STRING "The flags of the build type Quick")

set(HPRESIL_SANITIZE "" CACHE STRING "address, undefined, thread, a list with commas, or empty")
if(HPRESIL_SANITIZE)
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${HPRESIL_SANITIZE}>
                      $<$<COMPILE_LANGUAGE:CXX>:-fno-sanitize-recover=all>
                      $<$<COMPILE_LANGUAGE:CXX>:-fno-omit-frame-pointer>)
  add_link_options(-fsanitize=${HPRESIL_SANITIZE})
endif()

# The fuzzer follows which code its inputs reach.
if(HPRESIL_FUZZ)
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-fsanitize=fuzzer-no-link>)
endif()
