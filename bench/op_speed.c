/* bench/op_speed.c -- time of every op beside its operations and bytes; prints one JSON object.
 *
 *   op_speed [--backend NAME] [--dtype D] [--hidden C] [--heads H] [--vocab V] [--tokens T]
 *            [--length L] [--context P] [--rank R] [--repeat N] [--threads N]
 *
 * The cases of op_cases.h. Each op runs three times, then N times between two synchronizations. "ms" is the mean;
 * "tflops" and "gb_per_s" count what kernels/op_count.c counts: the least that the op must do.
 */
#include "base/clock.h"
#include "base/json_writer.h"
#include "bench/op_cases.h"

#include <math.h>
#include <stdio.h>

enum { WARM_UP = 3 };

typedef struct bench {
    op_user_t user; /* first */
    op_shapes_t shapes;
    lrd_json_writer_t json;
} bench_t;

static double rounded(double x)
{
    return round(x * 1e4) / 1e4;
}

static lrd_status_t begin(op_user_t *user, const char *about)
{
    lrd_json_writer_t *json = &((bench_t *)user)->json;
    const op_shapes_t *s = &((bench_t *)user)->shapes;
    lrd_json_open(json, '{');
    lrd_json_key(json, "device");
    lrd_json_text(json, about);
    lrd_json_key(json, "dtype");
    lrd_json_text(json, s->dtype_name);
    lrd_json_key(json, "hidden");
    lrd_json_int(json, s->hidden);
    lrd_json_key(json, "tokens");
    lrd_json_int(json, s->tokens);
    lrd_json_key(json, "length");
    lrd_json_int(json, s->length);
    lrd_json_key(json, "context");
    lrd_json_int(json, s->context);
    return lrd_json_writer_status(json);
}

static lrd_status_t report(lrd_json_writer_t *json, const op_case_t *c, double seconds)
{
    lrd_json_key(json, c->label);
    lrd_json_open(json, '{');
    lrd_json_key(json, "ms");
    lrd_json_real(json, rounded(seconds * 1e3));
    lrd_json_key(json, "tflops");
    lrd_json_real(json, rounded(c->flops / seconds * 1e-12));
    lrd_json_key(json, "gb_per_s");
    lrd_json_real(json, rounded(c->bytes / seconds * 1e-9));
    lrd_json_close(json, '}');
    return lrd_json_writer_status(json);
}

static lrd_status_t take_time(op_user_t *user, const op_case_t *c)
{
    lrd_status_t status = LRD_OK;
    bench_t *b = (bench_t *)user;
    double begun = 0;
    for (int i = -WARM_UP; i < b->shapes.repeat; i++) {
        if (i == 0) {
            LRD_TRY(lrd_stream_sync(c->st));
            begun = lrd_clock_seconds();
        }
        LRD_TRY(op_case_enqueue(c, WARM_UP + i));
    }
    LRD_TRY(lrd_stream_sync(c->st));
    LRD_TRY(report(&b->json, c, (lrd_clock_seconds() - begun) / b->shapes.repeat));
out:
    return status;
}

int main(int argc, char **argv)
{
    lrd_buf_t out = {0};
    bench_t b = {.user = {begin, take_time}, .json = {.buf = &out, .indent = 1}};
    if (!op_shapes_read(&b.shapes, argc, argv))
        return 2;
    lrd_status_t status = op_cases_run(&b.shapes, &b.user);
    if (status == LRD_OK) {
        lrd_json_close(&b.json, '}');
        status = lrd_json_writer_status(&b.json);
    }
    if (status == LRD_OK)
        printf("%s\n", out.data);
    else
        fprintf(stderr, "op_speed: %s\n", lrd_error_text(status));
    lrd_buf_release(&out);
    return status != LRD_OK;
}
