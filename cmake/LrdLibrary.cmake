# One static library per layer. Its name is lrd_<folder>; what it may include is what it links.
#
#   lrd_add_library(base SOURCES a.c b.c LINKS PkgConfig::JANSSON)
function(lrd_add_library layer)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINKS" ${ARGN})
  add_library(lrd_${layer} STATIC ${ARG_SOURCES})
  target_include_directories(lrd_${layer} PUBLIC "${PROJECT_SOURCE_DIR}/src" "${PROJECT_SOURCE_DIR}")
  target_link_libraries(lrd_${layer} PUBLIC ${ARG_LINKS} PRIVATE lrd_flags)
  if(LRD_SANITIZE OR LRD_FUZZ)
    target_link_libraries(lrd_${layer} PUBLIC lrd_flags)
  endif()
endfunction()
