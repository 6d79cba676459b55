/* kernels/cpu/cpu_micro.h -- the innermost products: rows times packed panels.
 *
 *   c[i][32 p + j]  (+)=  sum over k of a(i, k) * panel[p][k][j],    j = 0 .. 31
 *
 * Every element of c is one chain of multiply-adds in ascending k, whatever else the call holds:
 * equal rows give equal bits among any number of rows and panels, cutting k into several calls
 * (accumulate) changes nothing, and so neither does the number of threads. Instruction sets with a
 * fused multiply-add agree with each other to the bit.
 */
#ifndef LRD_CPU_MICRO_H
#define LRD_CPU_MICRO_H

#include "base/dtype.h"
#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

enum { MICRO_PANEL = 32 };

/* Elements are float32, or pairs of bfloat16 that lie side by side in k: 32 bits either way, and k
 * counts them. */
typedef struct micro {
    int64_t n_rows, n_panels, k;
    const void *a;
    int64_t a_row, a_step; /* elements from a(i, k) to a(i + 1, k), and to a(i, k + 1); one is 1 */
    const void *panel;
    int64_t panel_stride, panel_step; /* elements from panel to panel, and from k to k + 1 */
    float *c;                         /* [n_rows][ldc], 32 n_panels columns */
    int64_t ldc;
    bool accumulate; /* the chains go on from what c holds */
} micro_t;

/* Few rows times weights as they lie, one row of w for each of 16 columns:
 *
 *   c[i][j]  +=  sum over k of a(i, k) * w[j][k],    j = 0 .. 15
 *
 * the same chains as above. Where reading the weights is all that costs, this saves writing them
 * down in panels. */
enum { DIRECT_COLS = 16, DIRECT_K = 16 };

typedef struct micro_direct {
    int64_t n_rows, k; /* k: a multiple of DIRECT_K */
    const void *a;     /* float32, or pairs */
    int64_t a_row;     /* elements from row to row */
    lrd_dtype_t dtype; /* of w: F32, BF16, F16; a is float32 */
    bool pairs;        /* w and a are pairs of bfloat16 */
    const uint8_t *w;
    int64_t w_row_bytes;
    float *c; /* [n_rows][ldc] */
    int64_t ldc;
} micro_direct_t;

void micro_direct_avx512(const micro_direct_t *m); /* cpu_direct.c; no pairs */
void micro_direct_bf16(const micro_direct_t *m);

/* What an instruction set offers. */
typedef struct micro_isa {
    const char *name;
    void (*f32)(const micro_t *m);
    void (*pairs)(const micro_t *m);         /* NULL: it multiplies no bfloat16 */
    bool pairs_faster;                       /* than float32 on the same numbers widened */
    void (*direct)(const micro_direct_t *m); /* NULL: it goes through panels */
} micro_isa_t;

/* Those that this machine runs, the fastest first; the last one runs everywhere. */
const micro_isa_t *const *micro_isas(int *n_out);

/* The fastest, or what the environment's LRD_CPU_ISA names, so that tests run the paths of other
 * machines. LRD_ERR_UNAVAILABLE: this machine does not have that one. */
lrd_status_t micro_choose(const micro_isa_t **isa_out);

#endif /* LRD_CPU_MICRO_H */
