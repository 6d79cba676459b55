/* kernels/cuda/cuda_single.h -- what single rows (kernels/ops.h) go through: their time is that of reading the
 * weights once, and keys and values once.
 *
 * What a row gets is the same among any number of rows, in any place. Tensors must begin, and rows
 * follow, at multiples of 16 bytes, as the model's do; others go the way of all rows. */
#ifndef LRD_CUDA_SINGLE_H
#define LRD_CUDA_SINGLE_H

#include "kernels/cuda/cuda_backend.h"

/* Whether the linear's single rows go through cuda_single_linear: a matter of its tensors' layout alone. */
bool cuda_single_takes_linear(const lrd_linear_fwd_t *a);

/* y = act(x W^T + bias) for rows begin .. end - 1, the adapters left out; or, accumulate:
 * y = act(x W^T + y), without the bias. */
lrd_status_t cuda_single_linear(lrd_stream_t *st, const lrd_linear_fwd_t *a, int64_t begin,
                                int64_t end, bool accumulate);

/* The same for attn_cached and its first n_single sequences, which enter their keys and values. */
bool cuda_single_takes_attn(const lrd_attn_cached_t *a);
lrd_status_t cuda_single_attn(lrd_stream_t *st, lrd_scratch_t scratch, const lrd_attn_cached_t *a);

#endif /* LRD_CUDA_SINGLE_H */
