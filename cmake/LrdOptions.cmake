# What a user can choose when configuring, and the flags that every target of the project gets.
set(CMAKE_C_STANDARD 11)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS ON) # _GNU_SOURCE interfaces of glibc: sched_setaffinity, memmem, ...

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "Build type" FORCE)
endif()

option(LRD_WARNINGS_AS_ERRORS "Treat warnings as errors" OFF)
option(LRD_CUDA "Compile what runs on CUDA devices (fails when there is no CUDA toolkit)" OFF)
option(LRD_FUZZ "Build only the parsers and their libFuzzer targets (needs clang)" OFF)
set(LRD_SANITIZE "" CACHE STRING "Sanitizers for the whole build, such as address,undefined")

add_feature_info(cuda LRD_CUDA "kernels for CUDA devices")
add_feature_info(sanitizers LRD_SANITIZE "built with -fsanitize=${LRD_SANITIZE}")

add_library(lrd_flags INTERFACE)
target_compile_definitions(lrd_flags INTERFACE _GNU_SOURCE)
target_compile_options(lrd_flags INTERFACE
  $<$<COMPILE_LANGUAGE:C>:-Wall;-Wextra;-Wshadow;-Wstrict-prototypes;-Wmissing-prototypes;-Wpointer-arith;-Wvla;-Wundef;-Wformat=2;-Wno-unused-parameter>
  $<$<AND:$<COMPILE_LANGUAGE:C>,$<C_COMPILER_ID:GNU>>:-Wlogical-op;-Wduplicated-cond;-Wduplicated-branches>)
if(LRD_WARNINGS_AS_ERRORS)
  target_compile_options(lrd_flags INTERFACE $<$<COMPILE_LANGUAGE:C>:-Werror>)
endif()
# -O2, and never -march=native or -ffast-math: one binary serves every x86-64 machine (hot loops are cloned per
# instruction set), and NaN and infinity must be seen. -ffp-contract=off keeps results equal whatever is inlined.
target_compile_options(lrd_flags INTERFACE $<$<COMPILE_LANGUAGE:C>:-ffp-contract=off;-fno-strict-aliasing>)
if(LRD_SANITIZE)
  target_compile_options(lrd_flags INTERFACE $<$<COMPILE_LANGUAGE:C>:-fsanitize=${LRD_SANITIZE};-fno-omit-frame-pointer;-fno-sanitize-recover=all>)
  target_link_options(lrd_flags INTERFACE -fsanitize=${LRD_SANITIZE})
endif()
if(LRD_FUZZ)
  target_compile_options(lrd_flags INTERFACE -fsanitize=fuzzer-no-link;-Wno-unknown-pragmas)
endif()
