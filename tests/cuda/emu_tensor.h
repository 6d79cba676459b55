/* tests/cuda/emu_tensor.h -- tensor-core instructions by their definition (PTX ISA, "Warp-level matrix
 * instructions"), for kernels/cuda/cuda_tile.cuh. */
#ifndef LRD_EMU_TENSOR_H
#define LRD_EMU_TENSOR_H

#include "emu_traffic.h"

typedef struct emu_matrices {
    const void *row;
    uint32_t *out;
} emu_matrices_t;

template <bool transposed> static void emu_run_matrices(void *const *brought, unsigned)
{
    for (int lane = 0; lane < EMU_WARP; lane++) {
        uint32_t *out = ((const emu_matrices_t *)brought[lane])->out;
        for (int m = 0; m < 4; m++) {
            uint16_t element[2];
            for (int i = 0; i < 2; i++) {
                const int pair = lane % 4 * 2 + i;
                const int row = transposed ? pair : lane / 4, col = transposed ? lane / 4 : pair;
                const void *from = ((const emu_matrices_t *)brought[m * 8 + row])->row;
                if ((uintptr_t)from % 16 != 0)
                    emu_die("ldmatrix: a row at %p, not a multiple of 16 bytes", from);
                element[i] = ((const uint16_t *)from)[col];
            }
            out[m] = element[0] | (uint32_t)element[1] << 16;
        }
    }
}

template <bool transposed> static inline void load_matrices(const void *row, uint32_t *out)
{
    emu_matrices_t m = {row, out};
    emu_traffic_load(row, 16);
    emu_together(0xffffffffu, emu_run_matrices<transposed>, &m);
}

typedef struct emu_multiply {
    float *c;
    const uint32_t *a, *b;
} emu_multiply_t;

template <class T> static inline float emu_half(uint32_t pair, int which)
{
    const T x = {(uint16_t)(pair >> 16 * which)};
    return to_f32(x);
}

/* The products of two 16-bit numbers are exact in float32; their sum is rounded once here. */
template <class T> static void emu_run_multiply(void *const *brought, unsigned)
{
    float a[16][16], b[16][8];
    for (int lane = 0; lane < EMU_WARP; lane++) {
        const emu_multiply_t *m = (const emu_multiply_t *)brought[lane];
        const int group = lane / 4, pair = lane % 4 * 2;
        for (int i = 0; i < 2; i++) {
            a[group][pair + i] = emu_half<T>(m->a[0], i);
            a[group + 8][pair + i] = emu_half<T>(m->a[1], i);
            a[group][pair + 8 + i] = emu_half<T>(m->a[2], i);
            a[group + 8][pair + 8 + i] = emu_half<T>(m->a[3], i);
            b[pair + i][group] = emu_half<T>(m->b[0], i);
            b[pair + 8 + i][group] = emu_half<T>(m->b[1], i);
        }
    }
    for (int lane = 0; lane < EMU_WARP; lane++) {
        float *c = ((const emu_multiply_t *)brought[lane])->c;
        for (int i = 0; i < 4; i++) {
            const int row = lane / 4 + i / 2 * 8, col = lane % 4 * 2 + i % 2;
            double sum = (double)c[i];
            for (int k = 0; k < 16; k++)
                sum += (double)a[row][k] * (double)b[k][col];
            c[i] = (float)sum;
        }
    }
}

template <class T>
static inline void tensor_multiply(float *c, const uint32_t *a, const uint32_t *b, T)
{
    emu_multiply_t m = {c, a, b};
    emu_together(0xffffffffu, emu_run_multiply<T>, &m);
}

template <class T> static inline uint32_t pack_pair(float low, float high, T)
{
    T pair[2];
    uint32_t packed;
    from_f32(low, &pair[0]);
    from_f32(high, &pair[1]);
    memcpy(&packed, pair, sizeof packed);
    return packed;
}

static inline float fast_exp2(float x)
{
    return exp2f(x);
}

/* Copies aside land when they are waited for: what reads too early reads what was there before. */
enum { EMU_COPIES = 256 };
typedef struct emu_copies {
    int n;
    struct {
        void *to;
        const void *from; /* nullptr: zeros */
        size_t bytes;
    } copy[EMU_COPIES];
} emu_copies_t;
emu_copies_t *emu_copies(); /* of the fiber that runs now */

static inline void emu_copy_aside(void *to, const void *from, size_t bytes)
{
    emu_copies_t *c = emu_copies();
    if ((uintptr_t)to % bytes != 0 || (uintptr_t)from % bytes != 0)
        emu_die("cp.async from %p to %p: not multiples of %zu bytes", from, to, bytes);
    if (c->n == EMU_COPIES)
        emu_die("more than %d copies aside in a thread", EMU_COPIES);
    if (from != nullptr)
        emu_traffic_load(from, (int)bytes);
    emu_traffic_store(to, (int)bytes);
    c->copy[c->n++] = {to, from, bytes};
}

static inline void copy_aside(void *to, const void *from, bool there = true)
{
    emu_copy_aside(to, there ? from : nullptr, 16);
}

static inline void copy_word_aside(void *to, const void *from, bool there)
{
    emu_copy_aside(to, there ? from : nullptr, 4);
}

static inline void copies_wait()
{
    emu_copies_t *c = emu_copies();
    emu_traffic_pause(true);
    for (int i = 0; i < c->n; i++) {
        if (c->copy[i].from != nullptr)
            memcpy(c->copy[i].to, c->copy[i].from, c->copy[i].bytes);
        else
            memset(c->copy[i].to, 0, c->copy[i].bytes);
    }
    emu_traffic_pause(false);
    c->n = 0;
}

#endif /* LRD_EMU_TENSOR_H */
