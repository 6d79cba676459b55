/* kernels/cuda/cuda_attention.h -- what the attention kernels share. */
#ifndef LRD_CUDA_ATTENTION_H
#define LRD_CUDA_ATTENTION_H

#include "kernels/cuda/cuda_backend.h"

/* Four warps, each with 16 rows of a tile. */
enum { ATTN_THREADS = 128, ATTN_ROWS = 64 };

/* How the tiles that pass by fit the shared memory of every device, 99 KiB at heads of 128: rows of a tile in the
 * forward and in the backward, and whether the next one is loaded while one is in use. */
template <class T> struct attn_tiling_t {
    enum { KEYS = 64, STEP = 32, STAGES = 2 };
};
template <> struct attn_tiling_t<float> {
    enum { KEYS = 32, STEP = 16, STAGES = 1 };
};

/* Runs the statement with D as the head size in tiles: head_dim with zeros behind. */
#define CUDA_DISPATCH_HEAD(head_dim, ...) \
    do {                                  \
        if ((head_dim) <= 32) {           \
            constexpr int D = 32;         \
            __VA_ARGS__;                  \
        } else if ((head_dim) <= 64) {    \
            constexpr int D = 64;         \
            __VA_ARGS__;                  \
        } else if ((head_dim) <= 96) {    \
            constexpr int D = 96;         \
            __VA_ARGS__;                  \
        } else {                          \
            constexpr int D = 128;        \
            __VA_ARGS__;                  \
        }                                 \
    } while (0)

#endif /* LRD_CUDA_ATTENTION_H */
