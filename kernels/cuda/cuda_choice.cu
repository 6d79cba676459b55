#include "kernels/cuda/cuda_choice.h"

#include <stdio.h>
#include <stdlib.h>

/* Rows for which the library is asked for its algorithm, whatever the number of rows is. */
enum { NOMINAL_ROWS = 1024 };

/* No more is told of addresses, so that rows further down meet the same algorithm: what one load or
 * one transfer of the tensor memory accelerator wants. */
enum { MOST_ALIGNMENT = 16 };

/* Tuning: algorithms that are tried, and how often each runs. */
enum { MOST_TRIED = 16, WARM_UP = 2, REPEATS = 10, ROUNDS = 3 };

static product_key_t key_of(const cuda_backend_t *be, const cuda_product_t *p)
{
    product_key_t key;
    const uintptr_t all = (uintptr_t)p->x.data | (uintptr_t)p->w.data | (uintptr_t)p->y.data |
                          (uintptr_t)p->bias | (uintptr_t)p->aux.data | MOST_ALIGNMENT;
    memset(&key, 0, sizeof key); /* compared as bytes */
    key.n = p->y.cols;
    key.k = p->x.cols;
    key.ld_x = p->x.ld;
    key.ld_w = p->w.ld;
    key.ld_y = p->y.ld;
    key.dtype = p->x.dtype;
    key.y_dtype = p->y.dtype;
    key.transposed = p->transposed;
    key.accumulate = p->accumulate;
    key.epilogue = cuda_lt_epilogue(p);
    key.tf32 = cuda_lt_tf32(be, p);
    key.pieces = (int32_t)p->pieces;
    key.alignment = (uint32_t)(all & -all);
    return key;
}

/* ---- asking the library */

typedef struct found {
    cublasLtMatmulHeuristicResult_t result[MOST_TRIED];
    int n;
} found_t;

static lrd_status_t prepare(cublasLtMatmulPreference_t preference, uint32_t alignment)
{
    const uint64_t workspace = CUDA_WORKSPACE;
    const uint32_t no_split = CUBLASLT_REDUCTION_SCHEME_NONE;
    static const cublasLtMatmulPreferenceAttributes_t addresses[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    LT_CALL(cublasLtMatmulPreferenceSetAttribute(
        preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace));
    LT_CALL(cublasLtMatmulPreferenceSetAttribute(
        preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &no_split, sizeof no_split));
    for (cublasLtMatmulPreferenceAttributes_t at : addresses)
        LT_CALL(cublasLtMatmulPreferenceSetAttribute(preference, at, &alignment, sizeof alignment));
    return LRD_OK;
}

/* The product for the library's judgement. It looks at how the addresses of bias and aux are aligned, too: one that is
 * aligned just as the key says stands for each of them. */
static lrd_status_t describe_kind(cuda_backend_t *be, const cuda_product_t *p, int64_t rows,
                                  lt_product_t *lt)
{
    void *const aligned = (void *)(uintptr_t)key_of(be, p).alignment;
    cuda_product_t kind = *p;
    kind.bias = p->bias != NULL ? aligned : NULL;
    kind.aux.data = p->aux.data != NULL ? aligned : NULL;
    return cuda_lt_describe(be, &kind, rows, lt);
}

/* Keeps those that the library says are fine. */
static void keep_usable(found_t *found)
{
    int n = 0;
    for (int i = 0; i < found->n; i++) {
        if (found->result[i].state == CUBLAS_STATUS_SUCCESS)
            found->result[n++] = found->result[i];
    }
    found->n = n;
}

/* Up to `wanted` algorithms for the product with so many rows, best first by the library's judgement. None
 * is no error. */
static lrd_status_t ask(cuda_backend_t *be, const cuda_product_t *p, int64_t rows, int wanted,
                        found_t *found)
{
    cublasLtMatmulPreference_t preference;
    lt_product_t lt = {};
    LT_CALL(cublasLtMatmulPreferenceCreate(&preference));
    lrd_status_t status = prepare(preference, key_of(be, p).alignment);
    if (status == LRD_OK)
        status = describe_kind(be, p, rows, &lt);
    found->n = 0;
    if (status == LRD_OK &&
        cublasLtMatmulAlgoGetHeuristic(be->products, lt.desc, lt.w, lt.x, lt.y, lt.y, preference,
                                       wanted, found->result, &found->n) != CUBLAS_STATUS_SUCCESS)
        found->n = 0;
    keep_usable(found);
    cuda_lt_release(&lt);
    cublasLtMatmulPreferenceDestroy(preference);
    return status;
}

static bool is_accepted(cuda_backend_t *be, const lt_product_t *lt,
                        const cublasLtMatmulAlgo_t *algo)
{
    cublasLtMatmulHeuristicResult_t result = {};
    return cublasLtMatmulAlgoCheck(be->products, lt->desc, lt->w, lt->x, lt->y, lt->y, algo,
                                   &result) == CUBLAS_STATUS_SUCCESS &&
           result.workspaceSize <= CUDA_WORKSPACE;
}

/* ---- tuning */

/* As the tuning file spells it. */
static void describe_key(const product_key_t *key, char text[sizeof(lrd_choice_t::product)])
{
    static const char *const names[] = {"float32", "bfloat16", "float16"};
    static const lrd_dtype_t dtypes[] = {LRD_F32, LRD_BF16, LRD_F16};
    const char *from = "", *to = "";
    char pieces[24] = "";
    if (key->pieces > 0)
        snprintf(pieces, sizeof pieces, " in %d pieces", key->pieces);
    for (int i = 0; i < 3; i++) {
        from = key->dtype == (int32_t)dtypes[i] ? names[i] : from;
        to = key->y_dtype == (int32_t)dtypes[i] ? names[i] : to;
    }
    snprintf(text, sizeof(lrd_choice_t::product),
             "%ld x %ld%s%s %s to %s, ld %ld %ld %ld, epilogue %d%s, alignment %u%s", (long)key->n,
             (long)key->k, pieces, key->transposed ? " transposed" : "", from, to, (long)key->ld_x,
             (long)key->ld_w, (long)key->ld_y, key->epilogue, key->accumulate ? " added" : "",
             key->alignment, key->tf32 ? ", TF32" : "");
}

static lrd_status_t time_once(lrd_stream_t *st, const cuda_product_t *p, const lt_product_t *lt,
                              const cublasLtMatmulAlgo_t *algo, cudaEvent_t begin, cudaEvent_t end,
                              float *ms_out)
{
    for (int i = -WARM_UP; i < REPEATS; i++) {
        if (i == 0)
            CUDA_CALL(cudaEventRecord(begin, cuda_stream_of(st)));
        CUDA_TRY(cuda_lt_multiply(st, p, lt, algo));
    }
    CUDA_CALL(cudaEventRecord(end, cuda_stream_of(st)));
    CUDA_CALL(cudaEventSynchronize(end));
    CUDA_CALL(cudaEventElapsedTime(ms_out, begin, end));
    *ms_out /= REPEATS;
    return LRD_OK;
}

/* The fastest that takes the nominal number of rows too; the earlier of equals. */
static lrd_status_t time_all(lrd_stream_t *st, const cuda_product_t *p, const lt_product_t *own,
                             const lt_product_t *nominal, cudaEvent_t begin, cudaEvent_t end,
                             product_choice_t *choice)
{
    cuda_backend_t *be = cuda_backend_of(st);
    found_t found;
    CUDA_TRY(ask(be, p, p->x.rows, MOST_TRIED, &found));
    for (int i = 0; i < found.n; i++) {
        const cublasLtMatmulAlgo_t *algo = &found.result[i].algo;
        float least = 0;
        if (!is_accepted(be, nominal, algo))
            continue;
        for (int round = 0; round < ROUNDS; round++) {
            float ms = 0;
            CUDA_TRY(time_once(st, p, own, algo, begin, end, &ms));
            least = round == 0 || ms < least ? ms : least;
        }
        if (!choice->exists)
            choice->rule_ms = least;
        if (!choice->exists || least < choice->ms) {
            choice->exists = true;
            choice->algo = *algo;
            choice->ms = least;
        }
    }
    return LRD_OK;
}

static lrd_status_t tune(lrd_stream_t *st, const cuda_product_t *p, const lt_product_t *nominal,
                         product_choice_t *choice)
{
    lt_product_t own = {};
    cudaEvent_t begin, end;
    CUDA_CALL(cudaEventCreate(&begin));
    CUDA_CALL(cudaEventCreate(&end));
    lrd_status_t status = cuda_lt_describe(cuda_backend_of(st), p, p->x.rows, &own);
    if (status == LRD_OK)
        status = time_all(st, p, &own, nominal, begin, end, choice);
    cuda_lt_release(&own);
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
    return status;
}

enum { ALGO_WORDS = sizeof(cublasLtMatmulAlgo_t) / sizeof(uint64_t), WORD_DIGITS = 16 };

/* The algorithm that the tuning file names for the product, if it does. */
static lrd_status_t look_up(cuda_backend_t *be, const lt_product_t *nominal,
                            product_choice_t *choice)
{
    char product[sizeof(lrd_choice_t::product)];
    describe_key(&choice->key, product);
    for (size_t i = 0; i < be->n_tuned; i++) {
        const lrd_choice_t *c = &be->tuned[i];
        if (strcmp(c->product, product) != 0)
            continue;
        bool read = strlen(c->route) == (size_t)ALGO_WORDS * WORD_DIGITS;
        for (int w = 0; w < ALGO_WORDS && read; w++) {
            unsigned long word = 0;
            read = sscanf(c->route + w * WORD_DIGITS, "%16lx", &word) == 1;
            choice->algo.data[w] = word;
        }
        CUDA_CHECK(
            read && is_accepted(be, nominal, &choice->algo), LRD_ERR_CONFIG,
            "parallel.tuning_file: cuBLASLt does not know the algorithm that it names for %s: "
            "make one anew with lora-dist tune",
            product);
        choice->exists = true;
        break;
    }
    return LRD_OK;
}

lrd_status_t cuda_tuned(lrd_backend_t *backend, lrd_tuning_t *tuning_out)
{
    cuda_backend_t *be = (cuda_backend_t *)backend;
    size_t n = 0;
    for (const product_choice_t *c = be->choices; c != NULL; c = c->next)
        n++;
    lrd_choice_t *list = (lrd_choice_t *)calloc(n + 1, sizeof *list);
    CUDA_CHECK(list != NULL, LRD_ERR_NO_MEMORY, "out of memory");
    free(be->listed);
    be->listed = list;
    *tuning_out = {};
    cuda_machine(be, tuning_out->machine);
    tuning_out->choice = list + n;
    for (const product_choice_t *c = be->choices; c != NULL; c = c->next) {
        if (!c->exists)
            continue;
        lrd_choice_t *to = (lrd_choice_t *)--tuning_out->choice; /* the last one met comes first */
        tuning_out->n++;
        describe_key(&c->key, to->product);
        to->seconds = 1e-3 * (double)c->ms;
        to->rule_seconds = 1e-3 * (double)c->rule_ms;
        for (int w = 0; w < ALGO_WORDS; w++)
            snprintf(to->route + w * WORD_DIGITS, WORD_DIGITS + 1, "%016lx",
                     (unsigned long)c->algo.data[w]);
    }
    return LRD_OK;
}

/* ---- choosing */

static lrd_status_t decide(lrd_stream_t *st, const cuda_product_t *p, const lt_product_t *nominal,
                           product_choice_t *choice)
{
    cuda_backend_t *be = cuda_backend_of(st);
    found_t found;
    if (be->tunes)
        return tune(st, p, nominal, choice);
    CUDA_TRY(look_up(be, nominal, choice));
    if (choice->exists)
        return LRD_OK;
    CUDA_TRY(ask(be, p, NOMINAL_ROWS, 1, &found));
    choice->exists = found.n == 1;
    if (choice->exists)
        choice->algo = found.result[0].algo;
    return LRD_OK;
}

lrd_status_t cuda_choose(lrd_stream_t *st, const cuda_product_t *p, product_choice_t **choice_out)
{
    cuda_backend_t *be = cuda_backend_of(st);
    product_choice_t asked = {};
    lt_product_t nominal = {};
    asked.key = key_of(be, p);
    for (product_choice_t *c = be->choices; c != NULL; c = c->next) {
        if (memcmp(&c->key, &asked.key, sizeof asked.key) == 0) {
            *choice_out = c;
            return LRD_OK;
        }
    }
    lrd_status_t status = cuda_lt_describe(be, p, NOMINAL_ROWS, &nominal);
    if (status == LRD_OK)
        status = decide(st, p, &nominal, &asked);
    cuda_lt_release(&nominal);
    CUDA_TRY(status);
    product_choice_t *c = (product_choice_t *)malloc(sizeof *c);
    CUDA_CHECK(c != NULL, LRD_ERR_NO_MEMORY, "out of memory");
    asked.next = be->choices;
    *c = asked;
    be->choices = c;
    *choice_out = c;
    return LRD_OK;
}

lrd_status_t cuda_choice_algo(cuda_backend_t *be, const cuda_product_t *p, const lt_product_t *lt,
                              product_choice_t *choice, const cublasLtMatmulAlgo_t **algo_out)
{
    if (choice->rows != p->x.rows) {
        choice->rows_algo = choice->algo;
        if (!is_accepted(be, lt, &choice->algo)) {
            found_t found;
            CUDA_TRY(ask(be, p, p->x.rows, 1, &found));
            CUDA_CHECK(found.n == 1, LRD_ERR_UNSUPPORTED,
                       "cuBLASLt has no algorithm for a product of [%ld, %ld] and [%ld, %ld]",
                       (long)p->x.rows, (long)p->x.cols, (long)p->w.rows, (long)p->w.cols);
            choice->rows_algo = found.result[0].algo;
        }
        choice->rows = p->x.rows;
    }
    *algo_out = &choice->rows_algo;
    return LRD_OK;
}

void cuda_choices_forget(cuda_backend_t *be)
{
    while (be->choices != NULL) {
        product_choice_t *c = be->choices;
        be->choices = c->next;
        free(c);
    }
    free(be->tuned);
    free(be->listed);
}
