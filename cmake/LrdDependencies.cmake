# What the program needs beyond its parsers.
find_package(OpenMP REQUIRED COMPONENTS C)
find_package(MPI REQUIRED COMPONENTS C)
find_package(CURL 7.85 REQUIRED)

# Serial HDF5, also where the MPI flavour is installed: only rank 0 writes.
set(HDF5_PREFER_PARALLEL FALSE)
find_package(HDF5 REQUIRED COMPONENTS C)

if(LRD_CUDA)
  include(CheckLanguage)
  check_language(CUDA)
  if(NOT CMAKE_CUDA_COMPILER)
    message(FATAL_ERROR "LRD_CUDA is ON but no CUDA compiler was found: install the CUDA toolkit (nvcc on PATH) or configure with -DLRD_CUDA=OFF")
  endif()
  set(CMAKE_CUDA_ARCHITECTURES "80-real;90-real;90-virtual" CACHE STRING "CUDA targets")
  set(CMAKE_CUDA_STANDARD 17)
  enable_language(CUDA)
  find_package(CUDAToolkit REQUIRED)
  # NCCL lies beside the toolkit or where Debian packages put it.
  find_path(LRD_NCCL_INCLUDE nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
  find_library(LRD_NCCL_LIBRARY nccl HINTS ${CUDAToolkit_LIBRARY_DIR})
  if(NOT LRD_NCCL_INCLUDE OR NOT LRD_NCCL_LIBRARY)
    message(WARNING "NCCL (nccl.h, libnccl.so) was not found: GPUs of several ranks will exchange data through host memory")
  endif()
endif()
