/* bench/sample_speed.c -- time of the op `sample` per row; prints one JSON object.
 *
 *   sample_speed [--repeat N] [--threads N] [--rows N] [--vocab V] [--spread S]
 *
 * Logits are normal with standard deviation S, others for each row, of BLOOM's vocabulary unless
 * told otherwise. Each setting runs N times on all rows; "best_us" and "median_us" are microseconds
 * per row.
 */
#include "base/clock.h"
#include "base/json_writer.h"
#include "base/mem.h"
#include "kernels/ops.h"

#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_REPEAT = 1000, MAX_ROWS = 4096 };

typedef struct bench {
    int repeat, n_threads, rows, vocab;
    double spread;
    lrd_backend_t *be;
    lrd_stream_t *st;
    lrd_scratch_t scratch;
    lrd_sample_t op;
    lrd_sample_row_t *row;
    float *logit;
    lrd_json_writer_t json;
} bench_t;

static uint64_t next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static lrd_status_t prepare(bench_t *b)
{
    lrd_status_t status = LRD_OK;
    const int64_t n = (int64_t)b->rows * b->vocab;
    const lrd_limits_t limits = {.vocab = b->vocab, .sequences = b->rows};
    const lrd_backend_options_t options = {.n_threads = b->n_threads};
    int32_t *token;
    uint32_t *seen;
    uint64_t seed = 88172645463325252u;
    LRD_TRY(lrd_backend_open("cpu", &options, &b->be));
    LRD_TRY(lrd_stream_create(b->be, &b->st));
    b->scratch.bytes = lrd_scratch_bytes(b->be, &limits);
    LRD_TRY(lrd_mem_alloc(b->be, LRD_MEM_DEVICE, b->scratch.bytes, &b->scratch.data));
    LRD_NEW(b->logit, (size_t)n);
    LRD_NEW(b->row, (size_t)b->rows);
    b->op.row = b->row;
    LRD_NEW(token, (size_t)b->rows);
    b->op.token = token;
    LRD_NEW(seen, (size_t)b->rows * (size_t)((b->vocab + 31) / 32));
    b->op.seen = seen;
    b->op.n_slots = b->rows;
    b->op.logits = (lrd_cmat_t){b->logit, b->rows, b->vocab, b->vocab, LRD_F32};
    for (int64_t i = 0; i < n; i++) {
        const double u = (double)(next(&seed) >> 11) * 0x1p-53, angle = (double)(next(&seed) >> 11);
        b->logit[i] = (float)(b->spread * sqrt(-2 * log(1 - u)) * cos(angle * 0x1p-53 * 6.2831853));
    }
    for (int i = 0; i < b->rows; i++) { /* a prompt of 500 tokens */
        for (int k = 0; k < 500; k++) {
            const uint64_t id = next(&seed) % (uint64_t)b->vocab;
            seen[(int64_t)i * ((b->vocab + 31) / 32) + (int64_t)(id / 32)] |= 1u << id % 32;
        }
    }
out:
    return status;
}

static int compare_doubles(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static lrd_status_t run(bench_t *b, const char *name, lrd_sample_row_t setting)
{
    lrd_status_t status = LRD_OK;
    double us[MAX_REPEAT];
    for (int k = 0; k < b->repeat; k++) {
        for (int i = 0; i < b->rows; i++) {
            b->row[i] = setting;
            b->row[i].slot = i;
            b->row[i].request = (uint64_t)i;
            b->row[i].index = (uint32_t)k;
        }
        const double begun = lrd_clock_seconds();
        LRD_TRY(lrd_sample(b->st, b->scratch, &b->op));
        LRD_TRY(lrd_stream_sync(b->st));
        us[k] = (lrd_clock_seconds() - begun) * 1e6 / b->rows;
    }
    qsort(us, (size_t)b->repeat, sizeof *us, compare_doubles);
    lrd_json_key(&b->json, name);
    lrd_json_open(&b->json, '{');
    lrd_json_key(&b->json, "best_us");
    lrd_json_real(&b->json, round(us[0] * 10) / 10);
    lrd_json_key(&b->json, "median_us");
    lrd_json_real(&b->json, round(us[b->repeat / 2] * 10) / 10);
    lrd_json_close(&b->json, '}');
out:
    return status;
}

static lrd_status_t run_all(bench_t *b)
{
    lrd_status_t status = LRD_OK;
    const lrd_sample_row_t plain = {.temperature = 1, .top_p = 1, .repetition_penalty = 1};
    lrd_sample_row_t greedy = plain, penalty, top_k = plain, top_p = plain, both, min_p = plain;
    greedy.temperature = 0;
    penalty = greedy;
    penalty.repetition_penalty = 1.2f;
    top_k.top_k = 50;
    top_p.top_p = 0.9f;
    both = top_k;
    both.top_p = 0.9f;
    both.temperature = 0.7f;
    both.repetition_penalty = 1.2f;
    min_p.min_p = 0.05f;
    LRD_TRY(prepare(b));
    lrd_json_open(&b->json, '{');
    lrd_json_key(&b->json, "vocab");
    lrd_json_int(&b->json, b->vocab);
    lrd_json_key(&b->json, "rows");
    lrd_json_int(&b->json, b->rows);
    lrd_json_key(&b->json, "threads");
    lrd_json_int(&b->json, b->n_threads);
    lrd_json_key(&b->json, "spread");
    lrd_json_real(&b->json, b->spread);
    LRD_TRY(run(b, "greedy", greedy));
    LRD_TRY(run(b, "greedy, penalty", penalty));
    LRD_TRY(run(b, "sample", plain));
    LRD_TRY(run(b, "top_k 50", top_k));
    LRD_TRY(run(b, "top_p 0.9", top_p));
    LRD_TRY(run(b, "min_p 0.05", min_p));
    LRD_TRY(run(b, "penalty, temperature, top_k 50, top_p 0.9", both));
    lrd_json_close(&b->json, '}');
    LRD_TRY(lrd_json_writer_status(&b->json));
out:
    return status;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"repeat", required_argument, NULL, 'r'}, {"threads", required_argument, NULL, 't'},
        {"rows", required_argument, NULL, 'n'},   {"vocab", required_argument, NULL, 'v'},
        {"spread", required_argument, NULL, 's'}, {0}};
    lrd_buf_t out = {0};
    bench_t b = {.repeat = 50,
                 .n_threads = 1,
                 .rows = 8,
                 .vocab = 250880,
                 .spread = 3,
                 .json = {.buf = &out, .indent = 1}};
    bool usage = false;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c == 's')
            b.spread = atof(optarg);
        else if (c == 'r' || c == 't' || c == 'n' || c == 'v')
            *(c == 'r'   ? &b.repeat
              : c == 't' ? &b.n_threads
              : c == 'n' ? &b.rows
                         : &b.vocab) = atoi(optarg);
        else
            usage = true;
    }
    if (usage || optind != argc || b.repeat < 1 || b.repeat > MAX_REPEAT || b.n_threads < 1 ||
        b.rows < 1 || b.rows > MAX_ROWS || b.vocab < 1) {
        fprintf(stderr,
                "usage: sample_speed [--repeat 1..%d] [--threads N] [--rows 1..%d] [--vocab V] "
                "[--spread S]\n",
                MAX_REPEAT, MAX_ROWS);
        return 2;
    }
    const lrd_status_t status = run_all(&b);
    if (status == LRD_OK)
        printf("%s\n", out.data);
    else
        fprintf(stderr, "sample_speed: %s\n", lrd_error_text(status));
    lrd_buf_release(&out);
    lrd_free(b.op.token);
    lrd_free(b.op.seen);
    lrd_free(b.row);
    lrd_free(b.logit);
    if (b.be != NULL)
        lrd_mem_free(b.be, LRD_MEM_DEVICE, b.scratch.data, b.scratch.bytes);
    lrd_stream_destroy(b.st);
    lrd_backend_close(b.be);
    return status != LRD_OK;
}
