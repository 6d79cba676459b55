/* From logits to tokens on a backend, against a plain reference, and the distribution of what is
 * drawn. What may be drawn at all is compared by sample_process, which the op draws from. */
#include "kernels/cpu/cpu_sample.h"
#include "op_support.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ROWS = 1000, PAD = 3 };

static const lrd_sample_row_t plain = {
    .temperature = 1, .top_p = 1, .repetition_penalty = 1, .slot = -1};

/* Rows of one call. */
typedef struct batch {
    int64_t n, v, words;
    float *logit;   /* [n][v] */
    uint32_t *seen; /* [n][words]; row i has slot n - 1 - i */
    lrd_sample_row_t row[MAX_ROWS];
    int32_t token[MAX_ROWS]; /* after run */
} batch_t;

static batch_t *batch_new(int64_t n, int64_t v)
{
    batch_t *b = calloc(1, sizeof *b);
    *b = (batch_t){.n = n, .v = v, .words = (v + 31) / 32};
    assert_true(n <= MAX_ROWS);
    b->logit = calloc((size_t)(n * v), sizeof *b->logit);
    b->seen = calloc((size_t)(n * b->words), sizeof *b->seen);
    for (int64_t i = 0; i < n; i++) {
        b->row[i] = plain;
        b->row[i].slot = (int32_t)(n - 1 - i);
    }
    return b;
}

static void batch_free(batch_t *b)
{
    free(b->logit);
    free(b->seen);
    free(b);
}

static uint32_t *seen_of(const batch_t *b, int64_t i)
{
    return b->row[i].slot < 0 ? NULL : b->seen + b->row[i].slot * b->words;
}

/* Rows of the batch in the given order (NULL: as they are) as one call; seen stays as it was,
 * but the bits that the op has set are checked. */
static void batch_run(batch_t *b, const int *order, int64_t n)
{
    const lrd_limits_t limits = {.vocab = b->v, .sequences = n};
    const lrd_scratch_t scratch = {op_device(lrd_scratch_bytes(op_be, &limits)),
                                   lrd_scratch_bytes(op_be, &limits)};
    const int64_t ld = b->v + PAD;
    float *logit = malloc((size_t)(n * ld) * sizeof *logit);
    lrd_sample_row_t *row = malloc((size_t)n * sizeof *row);
    int32_t *token = malloc((size_t)n * sizeof *token);
    const size_t seen_bytes = (size_t)(b->n * b->words) * sizeof *b->seen;
    uint32_t *seen = malloc(seen_bytes);
    memset(logit, 0x7f, (size_t)(n * ld) * sizeof *logit); /* 3e38 between the rows */
    for (int64_t i = 0; i < n; i++) {
        const int64_t from = order != NULL ? order[i] : i;
        memcpy(logit + i * ld, b->logit + from * b->v, (size_t)b->v * sizeof *logit);
        row[i] = b->row[from];
    }
    const lrd_sample_t op = {
        .logits = {op_upload(logit, (size_t)(n * ld) * sizeof *logit), n, b->v, ld, LRD_F32},
        .row = op_upload(row, (size_t)n * sizeof *row),
        .seen = op_upload(b->seen, seen_bytes),
        .n_slots = (int32_t)b->n,
        .token = op_device((size_t)n * sizeof *token)};
    assert_ok(lrd_sample(op_st, scratch, &op));
    op_download(op.token, token, (size_t)n * sizeof *token);
    op_download(op.seen, seen, seen_bytes);
    for (int64_t i = 0; i < n; i++) {
        const int64_t from = order != NULL ? order[i] : i, t = token[i];
        b->token[from] = token[i];
        assert_true(t >= -1 && t < b->v);
        if (t < 0 || row[i].slot < 0)
            continue;
        uint32_t *word = &seen[row[i].slot * b->words + t / 32];
        assert_true((*word >> t % 32 & 1) == 1);
        if ((seen_of(b, from)[t / 32] >> t % 32 & 1) == 0)
            *word &= ~(1u << t % 32);
    }
    assert_memory_equal(seen, b->seen, seen_bytes); /* but for the tokens' bits */
    free(logit);
    free(row);
    free(token);
    free(seen);
    op_free_all();
}

/* What may be drawn from row i; logit and seen are as the op gets them. False: nothing. */
static bool process(const batch_t *b, int64_t i, sample_list_t *l, void **memory_out)
{
    *memory_out = aligned_alloc(64, sample_row_bytes(b->v));
    memset(*memory_out, 0xff, sample_row_bytes(b->v));
    sample_lay_out(l, b->v, *memory_out);
    return sample_process(l, &b->row[i], seen_of(b, i), b->logit + i * b->v, b->v);
}

static int32_t id_at(const sample_list_t *l, int64_t i)
{
    return l->all ? (int32_t)i : l->id[i];
}

/* ---- the reference ---- */

static double pick(uint64_t *seed, const double *of, int64_t n)
{
    return of[lrd_test_random_int(seed, n)];
}

static void random_settings(uint64_t *seed, lrd_sample_row_t *row, int64_t v)
{
    static const double temperatures[] = {1, 0.3, 0.7, 1.7, 30},
                        top_ps[] = {1, 1, 0.9, 0.5, 0.3, 0.99999, 1e-6, 0},
                        min_ps[] = {0, 0, 0.05, 0.3, 1, 1e-9}, penalties[] = {1, 1.3, 0.8, 5};
    const double top_ks[] = {0, 0, 1, 5, 50, 700, (double)v, (double)v + 7};
    row->temperature = (float)pick(seed, temperatures, 5);
    row->top_p = (float)pick(seed, top_ps, 8);
    row->min_p = (float)pick(seed, min_ps, 6);
    row->repetition_penalty = (float)pick(seed, penalties, 4);
    row->top_k = (int32_t)pick(seed, top_ks, 8);
    if (lrd_test_random_int(seed, 4) == 0)
        row->slot = -1;
    row->seed = (uint64_t)lrd_test_random_int(seed, INT64_MAX);
    row->request = (uint64_t)lrd_test_random_int(seed, INT64_MAX);
    row->index = (uint32_t)lrd_test_random_int(seed, 1 << 20);
}

/* About normal; rounded, so that many are equal; one far above the rest; all equal; half of them
 * -infinity; a wide range. */
enum { N_KINDS = 6 };
static float random_logit(uint64_t *seed, int kind, int64_t i, int64_t v)
{
    const double x = 3 * (lrd_test_random(seed) + lrd_test_random(seed) + lrd_test_random(seed));
    switch (kind) {
    case 1:
        return (float)round(x);
    case 2:
        return i == v * 2 / 3 ? 40.0f : (float)x;
    case 3:
        return -1.25f;
    case 4:
        return i != v / 2 && lrd_test_random(seed) < 0 ? -INFINITY : (float)x;
    case 5:
        return (float)(x * 1e3);
    default:
        return (float)x;
    }
}

static void fill(batch_t *b, uint64_t *seed, int first_kind)
{
    for (int64_t i = 0; i < b->n; i++) {
        for (int64_t j = 0; j < b->v; j++)
            b->logit[i * b->v + j] = random_logit(seed, (int)(first_kind + i) % N_KINDS, j, b->v);
        for (int64_t j = 0; j < b->v; j++) {
            if (lrd_test_random_int(seed, 1 + 4 * (i % 3) * (i % 3)) == 0)
                b->seen[i * b->words + j / 32] |= 1u << j % 32;
        }
        random_settings(seed, &b->row[i], b->v);
    }
}

static void describe(const batch_t *b, int64_t i)
{
    const lrd_sample_row_t *r = &b->row[i];
    fail_msg("V %ld, row %ld: temperature %g, top_k %d, top_p %.9g, min_p %g, penalty %g, slot %d",
             (long)b->v, (long)i, (double)r->temperature, r->top_k, (double)r->top_p,
             (double)r->min_p, (double)r->repetition_penalty, r->slot);
}

/* Kept, scores, probabilities and token of row i. Returns whether everything could be told. */
static bool check_row(const batch_t *b, int64_t i)
{
    ref_sample_t r;
    sample_list_t l;
    void *memory;
    assert_true(ref_sample(&b->row[i], seen_of(b, i), b->logit + i * b->v, b->v, &r));
    assert_true(process(b, i, &l, &memory));
    bool right = true;
    int64_t at = 0;
    for (int64_t j = 0; j < b->v && !r.unsure; j++) {
        while (at < l.n && l.score[at] == -INFINITY)
            at++;
        const bool kept = at < l.n && id_at(&l, at) == j;
        right &= kept == r.kept[j];
        if (kept && r.kept[j]) {
            right &= l.score[at] == r.score[j];
            /* Weights below e^-700 are 0. */
            right &= fabs(l.weight[at] / l.total - r.p[j]) <= 1e-12 * r.p[j] + 1e-300;
        }
        at += kept;
    }
    const int32_t token = ref_sample_draw(&r, &b->row[i]);
    if (!right || (!r.unsure && token != b->token[i]))
        describe(b, i);
    const bool told = !r.unsure;
    ref_sample_free(&r);
    free(memory);
    return told;
}

static void check_vocabulary(int64_t v, int64_t n, int rounds, uint64_t seed)
{
    int untold = 0;
    for (int k = 0; k < rounds; k++) {
        batch_t *b = batch_new(n, v);
        fill(b, &seed, k);
        batch_run(b, NULL, n);
        for (int64_t i = 0; i < n; i++)
            untold += !check_row(b, i);
        batch_free(b);
    }
    /* Equal scores whose sums meet 1 - top_p = 0.5 exactly; hardly ever anything else. */
    assert_true(untold * 20 <= rounds * n);
}

static void test_reference(void **state)
{
    (void)state;
    static const int64_t sizes[] = {1, 2, 31, 32, 33, 127, 128, 129, 1000};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        check_vocabulary(sizes[i], 120, 4, i);
    check_vocabulary(250880, 12, 2, 9);
}

/* Greedy, against a loop. */
static void test_greedy(void **state)
{
    (void)state;
    static const int64_t sizes[] = {1, 33, 128, 1000, 250880};
    uint64_t seed = 5;
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
        batch_t *b = batch_new(12, sizes[k]);
        fill(b, &seed, 0);
        for (int64_t i = 0; i < b->n; i++)
            b->row[i].temperature = 0;
        batch_run(b, NULL, b->n);
        for (int64_t i = 0; i < b->n; i++) {
            ref_sample_t r;
            lrd_sample_row_t only_penalty = plain;
            only_penalty.repetition_penalty = b->row[i].repetition_penalty;
            assert_true(ref_sample(&only_penalty, seen_of(b, i), b->logit + i * b->v, b->v, &r));
            int32_t most = 0;
            for (int32_t j = 0; j < b->v; j++)
                most = r.score[j] > r.score[most] ? j : most;
            if (b->token[i] != most)
                describe(b, i);
            ref_sample_free(&r);
        }
        batch_free(b);
    }
}

/* ---- what is drawn ---- */

/* Chi-square of d degrees of freedom exceeds d + 2 sqrt(d x) + 2 x with a chance of at most e^-x
 * (Laurent and Massart, Adaptive estimation of a quadratic functional, 2000, lemma 1); x = 20.7
 * makes that 1e-9. */
static void check_counts(const char *what, const int *count, const double *p, int cells, double n)
{
    double chi = 0, d = -1;
    for (int i = 0; i < cells; i++) {
        if (p[i] == 0) {
            assert_int_equal(count[i], 0);
            continue;
        }
        assert_true(n * p[i] >= 5); /* else the statistic is no chi-square */
        chi += (count[i] - n * p[i]) * (count[i] - n * p[i]) / (n * p[i]);
        d++;
    }
    if (chi > d + 2 * sqrt(d * 20.7) + 2 * 20.7)
        fail_msg("%s: chi-square %g with %g degrees of freedom", what, chi, d);
}

/* Frequencies over requests and positions; and of pairs: one request's consecutive tokens, and
 * neighbouring requests' at one position, are independent. */
static void test_frequencies(void **state)
{
    (void)state;
    enum { V = 9, STEPS = 60 };
    if (op_is_device())
        return; /* the numbers are the CPU's, test_reference compares what is made of them, and
                   60,000 rows take long where the device is emulated */
    static const float logit[V] = {0.5f, 1, -0.5f, 0.25f, -9, 1.5f, 0, -0.25f, 0.75f};
    static int32_t token[STEPS][MAX_ROWS];
    int count[V] = {0}, in_time[V * V] = {0}, across[V * V] = {0};
    double pair[V * V];
    batch_t *b = batch_new(MAX_ROWS, V);
    for (int i = 0; i < MAX_ROWS; i++) {
        memcpy(b->logit + (ptrdiff_t)i * V, logit, sizeof logit);
        b->row[i].temperature = 1.3f;
        b->row[i].top_k = 8;
        b->row[i].seed = 17;
        b->row[i].request = (uint64_t)i << (i % 2 ? 32 : 0);
    }
    for (uint32_t k = 0; k < STEPS; k++) {
        for (int i = 0; i < MAX_ROWS; i++)
            b->row[i].index = k;
        batch_run(b, NULL, MAX_ROWS);
        memcpy(token[k], b->token, sizeof token[k]);
    }
    for (int k = 0; k < STEPS; k++) {
        for (int i = 0; i < MAX_ROWS; i++) {
            count[token[k][i]]++;
            in_time[token[k][i] * V + token[(k + 1) % STEPS][i]]++;
            across[token[k][i] * V + token[k][(i + 1) % MAX_ROWS]]++;
        }
    }
    ref_sample_t r;
    assert_true(ref_sample(&b->row[0], NULL, logit, V, &r));
    for (int i = 0; i < V * V; i++)
        pair[i] = r.p[i / V] * r.p[i % V];
    check_counts("tokens", count, r.p, V, STEPS * MAX_ROWS);
    check_counts("consecutive tokens", in_time, pair, V * V, STEPS * MAX_ROWS);
    check_counts("neighbouring requests", across, pair, V * V, STEPS * MAX_ROWS);
    ref_sample_free(&r);
    batch_free(b);
}

/* A row's token does not depend on which rows it comes with, on their order or on threads. */
static void test_company(void **state)
{
    (void)state;
    enum { N = 24 };
    static const int threads[] = {1, 3, 8};
    int32_t want[N];
    int order[N];
    uint64_t seed = 12;
    batch_t *b = batch_new(N, 5003);
    fill(b, &seed, 0);
    for (int i = 0; i < N; i += 5)
        b->row[i].temperature = 0;
    batch_run(b, NULL, N);
    memcpy(want, b->token, sizeof want);
    for (int i = 0; i < N; i++)
        order[i] = i * 7 % N;
    batch_run(b, order, N);
    assert_memory_equal(b->token, want, sizeof want);
    for (int i = 0; i < N; i++) {
        b->token[i] = -2;
        batch_run(b, &i, 1);
        assert_int_equal(b->token[i], want[i]);
    }
    op_close();
    for (size_t k = 0; k < sizeof threads / sizeof threads[0]; k++) {
        op_threads = threads[k];
        op_open(NULL);
        batch_run(b, NULL, N);
        assert_memory_equal(b->token, want, sizeof want);
        op_close();
    }
    op_threads = 2;
    op_open(NULL);
    batch_free(b);
}

/* ---- edges ---- */

/* One row of V logits under a setting; seen is empty. */
static int32_t token_of(const float *logit, int64_t v, lrd_sample_row_t row)
{
    batch_t *b = batch_new(1, v);
    memcpy(b->logit, logit, (size_t)v * sizeof *logit);
    row.slot = 0;
    b->row[0] = row;
    batch_run(b, NULL, 1);
    const int32_t token = b->token[0];
    batch_free(b);
    return token;
}

static void test_not_finite(void **state)
{
    (void)state;
    const float inf = INFINITY;
    lrd_sample_row_t filtered = plain, greedy = plain;
    filtered.top_k = 2;
    filtered.top_p = 0.9f;
    filtered.min_p = 0.1f;
    greedy.temperature = 0;
    const lrd_sample_row_t settings[] = {plain, filtered, greedy};
    const float none[][3] = {
        {NAN, NAN, NAN}, {-inf, -inf, -inf}, {inf, inf, inf}, {NAN, inf, -inf}};
    const float second[][3] = {{NAN, 1, -inf},         {-inf, -FLT_MAX, -inf}, {-5, inf, FLT_MIN},
                               {-FLT_MAX, FLT_MAX, 0}, {NAN, inf, 0},          {NAN, -1e-45f, NAN}};
    for (size_t k = 0; k < 3; k++) {
        for (size_t i = 0; i < sizeof none / sizeof none[0]; i++)
            assert_int_equal(token_of(none[i], 3, settings[k]), -1);
        for (size_t i = 0; i < sizeof second / sizeof second[0]; i++)
            assert_int_equal(token_of(second[i], 3, settings[k]), 1);
    }
    /* A division that overflows leaves scores finite. */
    lrd_sample_row_t cold = plain, hot = plain;
    cold.temperature = FLT_MIN;
    hot.temperature = FLT_MAX;
    assert_int_equal(token_of((const float[]){-2, -1, -3}, 3, hot) >= 0, 1);
    assert_int_equal(token_of((const float[]){-1e20f, -1, -1e20f}, 3, cold), 1);
    assert_int_equal(token_of((const float[]){-1e20f, -1e30f, -inf}, 3, cold) >= 0, 1);
}

static void test_equals(void **state)
{
    (void)state;
    enum { V = 300 };
    float logit[V];
    lrd_sample_row_t row = plain;
    for (int i = 0; i < V; i++)
        logit[i] = i == 40 || i == 170 || i == 299 ? 2.0f : i % 2 == 0 ? 0.0f : -0.0f;
    row.temperature = 0;
    assert_int_equal(token_of(logit, V, row), 40); /* the lowest id */
    row.temperature = 1;
    row.top_p = 0;
    assert_int_equal(token_of(logit, V, row), 40);
    row.top_p = 1;
    row.top_k = 2; /* three are equal: all stay, and only they */
    int count[V] = {0};
    for (row.index = 0; row.index < 60; row.index++)
        count[token_of(logit, V, row)]++;
    assert_int_equal(count[40] + count[170] + count[299], 60);
    assert_true(count[40] > 0 && count[170] > 0 && count[299] > 0);
    /* -0 and 0 are equal: of 297 the four lowest ids, odd or even. */
    batch_t *b = batch_new(1, V);
    for (int i = 0; i < V; i++)
        b->logit[i] = logit[i] == 2 ? -50.0f : logit[i];
    b->row[0].top_p = 3.5f / 297;
    sample_list_t l;
    void *memory;
    assert_true(process(b, 0, &l, &memory));
    assert_int_equal(l.n, 4);
    for (int i = 0; i < 4; i++)
        assert_int_equal(id_at(&l, i), i);
    free(memory);
    batch_free(b);
}

/* How many of V logits a setting keeps. */
static int64_t kept_of(const float *logit, int64_t v, lrd_sample_row_t row)
{
    batch_t *b = batch_new(1, v);
    memcpy(b->logit, logit, (size_t)v * sizeof *logit);
    b->row[0] = row;
    sample_list_t l;
    void *memory;
    assert_true(process(b, 0, &l, &memory));
    const int64_t n = l.n;
    free(memory);
    batch_free(b);
    return n;
}

/* Where a condition turns, to the last bit. */
static void test_thresholds(void **state)
{
    (void)state;
    enum { V = 1000 };
    float logit[V] = {0};
    lrd_sample_row_t row = plain;
    row.top_p = 0.5f; /* of eight equals the cumulative sum of four is 1 - top_p: dropped */
    assert_int_equal(kept_of(logit, 8, row), 4);
    row.top_p = 0x1.000002p-1f;
    assert_int_equal(kept_of(logit, 8, row), 5);
    row.top_p = 1;
    for (row.min_p = 1; row.min_p > 1e-30f; row.min_p *= 0.77f) {
        const double least = log((double)row.min_p);
        float edge[3] = {0, (float)least, (float)least};
        if ((double)edge[1] < least)
            edge[2] = nextafterf(edge[1], 1);
        else if (row.min_p < 1)
            edge[1] = nextafterf(edge[2], -INFINITY);
        assert_int_equal(kept_of(edge, 3, row), row.min_p < 1 ? 2 : 3);
    }
    row.min_p = 0;
    for (int i = 0; i < V; i++)
        logit[i] = (float)(i * 377 % V + (i % SAMPLE_BLOCK == 5 ? V : 0)); /* one in each block */
    for (row.top_k = 1; row.top_k < V + 3; row.top_k += row.top_k < 30 ? 1 : 97)
        assert_int_equal(kept_of(logit, V, row), row.top_k < V ? row.top_k : V);
}

/* Without `seen` there is no penalty; a slot that is not there is refused. */
static void test_seen(void **state)
{
    (void)state;
    const lrd_limits_t limits = {.vocab = 4, .sequences = 1};
    const size_t bytes = lrd_scratch_bytes(op_be, &limits);
    const float logit[] = {1, 2, 4, 3};
    const uint32_t seen[] = {1u << 2};
    lrd_sample_row_t row = plain;
    row.temperature = 0;
    row.repetition_penalty = 2;
    row.slot = 0;
    int32_t token;
    lrd_sample_t op = {.logits = {op_upload(logit, sizeof logit), 1, 4, 4, LRD_F32},
                       .row = op_upload(&row, sizeof row),
                       .seen = op_upload(seen, sizeof seen),
                       .n_slots = 1,
                       .token = op_device(sizeof token)};
    const lrd_scratch_t scratch = {op_device(bytes), bytes};
    assert_ok(lrd_sample(op_st, scratch, &op));
    op_download(op.token, &token, sizeof token);
    assert_int_equal(token, 3);
    row.slot = 1;
    op.row = op_upload(&row, sizeof row);
    lrd_status_t status = lrd_sample(op_st, scratch, &op);
    if (status == LRD_OK)
        status = lrd_stream_sync(op_st); /* cpu_checked finds out there */
    if (op_is_device()) {
        assert_ok(status);
        op_download(op.token, &token, sizeof token);
        assert_int_equal(token, -1);
    } else {
        assert_fails(status, LRD_ERR_ARG, "slot 1 of 1");
    }
    op.seen = NULL;
    assert_ok(lrd_sample(op_st, scratch, &op));
    op_download(op.token, &token, sizeof token);
    assert_int_equal(token, 2);
    op.logits.rows = 0;
    assert_ok(lrd_sample(op_st, (lrd_scratch_t){0}, &op));
    assert_ok(lrd_stream_sync(op_st));
    op_free_all();
}

int main(int argc, char **argv)
{
    op_arguments(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference),   cmocka_unit_test(test_greedy),
        cmocka_unit_test(test_frequencies), cmocka_unit_test(test_company),
        cmocka_unit_test(test_not_finite),  cmocka_unit_test(test_equals),
        cmocka_unit_test(test_thresholds),  cmocka_unit_test(test_seen)};
    return cmocka_run_group_tests(tests, op_setup, op_teardown);
}
