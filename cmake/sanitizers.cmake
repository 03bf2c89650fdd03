# HPRESIL_SANITIZE=address or =thread builds everything with that sanitizer.

set(HPRESIL_SANITIZE "" CACHE STRING "address, thread, undefined, or empty")
if(HPRESIL_SANITIZE)
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${HPRESIL_SANITIZE}>
                      $<$<COMPILE_LANGUAGE:CXX>:-fno-omit-frame-pointer>)
  add_link_options(-fsanitize=${HPRESIL_SANITIZE})
endif()
