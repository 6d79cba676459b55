/* tests/kernels/op_support.h -- a backend with its stream and scratch, matrices on it, and how far
 * from the reference a result may be. Everything made here is freed by op_free_all. */
#ifndef LRD_TEST_OP_SUPPORT_H
#define LRD_TEST_OP_SUPPORT_H

#include "kernels/ops.h"
#include "op_reference.h"
#include "support/test_support.h"

extern lrd_backend_t *op_be;
extern lrd_stream_t *op_st;
extern lrd_scratch_t op_scratch;
extern const lrd_dtype_t op_dtypes[3]; /* F32, BF16, F16 */

/* Program arguments: --backend NAME. */
void op_arguments(int argc, char **argv);
bool op_is_checked(void); /* the backend is cpu_checked */
bool op_is_device(void);  /* the backend is a GPU's */

/* Fixtures of a group: they open and close the backend. */
int op_setup(void **state);
int op_teardown(void **state);

extern int op_threads; /* of backends that are opened from now on; 2 at first */

void op_open(const lrd_product_options_t *products); /* NULL: the backend's own rules */
void op_close(void);

void *op_device(size_t bytes);
void *op_upload(const void *data, size_t bytes);
void op_download(const void *data, void *host, size_t bytes);
void op_free_all(void);

/* Frees what was made since the mark. */
typedef struct op_mark {
    int n_live, n_kept;
} op_mark_t;
op_mark_t op_mark(void);
void op_free_to(op_mark_t mark);

ref_mat_t op_zeros(int64_t rows, int64_t cols);
ref_mat_t op_random(uint64_t *seed, int64_t rows, int64_t cols, double size);

/* To the device with `pad` elements between rows, which hold NaN; m becomes what was stored. */
lrd_mat_t op_put(ref_mat_t m, lrd_dtype_t dtype, int64_t pad);

/* An output that holds 1e4 everywhere. */
lrd_mat_t op_empty(int64_t rows, int64_t cols, lrd_dtype_t dtype, int64_t pad);

/* Back to the host; fails when something wrote between the rows. */
ref_mat_t op_get(lrd_mat_t m);

/* What is compared, for the table of tolerances. */
typedef enum op_quantity {
    OP_COPY,
    OP_NORM,
    OP_NORM_BACKWARD,
    OP_LINEAR,
    OP_LINEAR_GELU,
    OP_LINEAR_ROOM, /* with the adapter in the product (lrd_linear_fwd_t.x_room) */
    OP_LINEAR_ROOM_GELU,
    OP_LORA_F32,
    OP_LINEAR_DX,
    OP_GELU,
    OP_ATTENTION,
    OP_ATTENTION_BACKWARD,
    OP_HEAD_DH,
    OP_N_QUANTITIES
} op_quantity_t;

/* n: terms of the longest sum. */
double op_bound(op_quantity_t q, lrd_dtype_t compute, double n);
void op_near(const char *what, op_quantity_t q, lrd_dtype_t compute, double n, ref_mat_t have,
             ref_mat_t want);
void op_check(const char *what, op_quantity_t q, lrd_dtype_t compute, double n, lrd_mat_t have,
              ref_mat_t want);

/* "F32, T 3": where a failure is; shown by op_near. */
void op_context(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif /* LRD_TEST_OP_SUPPORT_H */
