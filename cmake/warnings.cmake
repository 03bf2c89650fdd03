# Warnings are errors, for the compiler of the host and for nvcc.

set(HPRESIL_WARNINGS -Wall -Wextra -Werror)

function(hpresil_warnings target)
  target_compile_options(${target} PRIVATE
    "$<$<COMPILE_LANGUAGE:CXX>:${HPRESIL_WARNINGS};-Wshadow;-Wconversion;-Wno-sign-conversion>"
    "$<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings;-Xcompiler=-Wall,-Wextra,-Werror>")
endfunction()
