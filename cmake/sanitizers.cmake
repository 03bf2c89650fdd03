# HPRESIL_SANITIZE=address,undefined or =thread builds everything with these sanitizers; what they find ends the program.

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
