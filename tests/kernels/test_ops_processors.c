/* What remains of a row of logits, against transformers' logits processors. */
#include "base/json.h"
#include "kernels/cpu/cpu_sample.h"
#include "op_support.h"

#include <math.h>
#include <stdlib.h>

enum { MAX_V = 64 };

static int32_t id_at(const sample_list_t *l, int64_t i)
{
    return l->all ? (int32_t)i : l->id[i];
}

/* A list of numbers; null is -infinity. */
static int64_t read_numbers(const json_t *list, double *x, int64_t room)
{
    const int64_t n = (int64_t)json_array_size(list);
    assert_true(n > 0 && n <= room);
    for (int64_t i = 0; i < n; i++) {
        const json_t *value = json_array_get(list, (size_t)i);
        x[i] = json_is_null(value) ? -INFINITY : json_number_value(value);
    }
    return n;
}

static float setting(const json_t *settings, const char *name, double neutral)
{
    const json_t *value = json_object_get(settings, name);
    return (float)(value != NULL ? json_number_value(value) : neutral);
}

/* A row after all processors: -infinity and 0 where an id is dropped. */
typedef struct processed {
    int64_t v;
    double score[MAX_V], p[MAX_V];
} processed_t;

static void of_list(const sample_list_t *l, processed_t *out)
{
    for (int64_t i = 0; i < out->v; i++) {
        out->score[i] = -INFINITY;
        out->p[i] = 0;
    }
    for (int64_t i = 0; i < l->n; i++) {
        out->score[id_at(l, i)] = (double)l->score[i];
        out->p[id_at(l, i)] = l->weight[i] / l->total;
    }
}

static void of_reference(const ref_sample_t *r, processed_t *out)
{
    for (int64_t i = 0; i < out->v; i++) {
        out->score[i] = r->kept[i] ? (double)r->score[i] : -INFINITY;
        out->p[i] = r->p[i];
    }
}

/* The same ids, scores and probabilities; but of equals at the edge of top_p only as many, for
 * which of them torch keeps is left open. */
static void check_processed(const processed_t *have, const processed_t *want)
{
    int n_have = 0, n_want = 0;
    double least = INFINITY;
    for (int64_t i = 0; i < want->v; i++) {
        n_have += have->score[i] > -INFINITY;
        n_want += want->score[i] > -INFINITY;
        if (want->score[i] > -INFINITY)
            least = fmin(least, want->score[i]);
    }
    assert_int_equal(n_have, n_want);
    for (int64_t i = 0; i < want->v; i++) {
        const double a = have->score[i], b = want->score[i];
        if (a == -INFINITY || b == -INFINITY) {
            assert_true(a == b || fmax(a, b) == least);
        } else {
            assert_true(fabs(a - b) <= 1e-6 * fabs(b));
            assert_true(fabs(have->p[i] - want->p[i]) <= 1e-6);
        }
    }
}

static lrd_sample_row_t row_of(const json_t *settings)
{
    lrd_sample_row_t row = {.temperature = 1, .top_p = 1};
    row.repetition_penalty = setting(settings, "repetition_penalty", 1);
    if (!json_is_false(json_object_get(settings, "do_sample"))) {
        row.temperature = setting(settings, "temperature", 1);
        row.top_k = (int32_t)setting(settings, "top_k", 50);
        row.top_p = setting(settings, "top_p", 1);
        row.min_p = setting(settings, "min_p", 0);
    }
    return row;
}

/* What the op chooses. */
static int32_t token_of(const float *logit, int64_t v, const uint32_t *seen,
                        const lrd_sample_row_t *row)
{
    const lrd_limits_t limits = {.vocab = v, .sequences = 1};
    const size_t bytes = lrd_scratch_bytes(op_be, &limits);
    int32_t token;
    const lrd_sample_t op = {.logits = {op_upload(logit, (size_t)v * 4), 1, v, v, LRD_F32},
                             .row = op_upload(row, sizeof *row),
                             .seen = op_upload(seen, (size_t)(v + 31) / 32 * 4),
                             .n_slots = 1,
                             .token = op_device(sizeof token)};
    assert_ok(lrd_sample(op_st, (lrd_scratch_t){op_device(bytes), bytes}, &op));
    op_download(op.token, &token, sizeof token);
    op_free_all();
    return token;
}

static void check_golden_case(const json_t *x)
{
    double raw[MAX_V], ids[MAX_V];
    const json_t *settings = json_object_get(x, "settings");
    const int64_t v = read_numbers(json_object_get(x, "scores"), raw, MAX_V);
    const int64_t n_ids = read_numbers(json_object_get(x, "input_ids"), ids, MAX_V);
    processed_t want = {.v = v}, have = want;
    assert_true(read_numbers(json_object_get(x, "processed"), want.score, MAX_V) == v);
    assert_true(read_numbers(json_object_get(x, "probabilities"), want.p, MAX_V) == v);
    float logit[MAX_V];
    uint32_t seen[(MAX_V + 31) / 32] = {0};
    for (int64_t i = 0; i < v; i++)
        logit[i] = (float)raw[i];
    for (int64_t i = 0; i < n_ids; i++)
        seen[(int)ids[i] / 32] |= 1u << (int)ids[i] % 32;
    lrd_sample_row_t row = row_of(settings);
    sample_list_t l;
    ref_sample_t r;
    void *memory = aligned_alloc(64, sample_row_bytes(v));
    sample_lay_out(&l, v, memory);
    assert_true(sample_process(&l, &row, seen, logit, v));
    of_list(&l, &have);
    check_processed(&have, &want);
    assert_true(ref_sample(&row, seen, logit, v, &r)); /* and the reference itself */
    of_reference(&r, &have);
    check_processed(&have, &want);
    row.temperature = 0; /* no filter drops the largest score */
    assert_int_equal(token_of(logit, v, seen, &row),
                     json_integer_value(json_object_get(x, "argmax")));
    ref_sample_free(&r);
    free(memory);
}

static int check_golden_file(const char *path)
{
    json_t *root, *x;
    size_t i;
    assert_ok(lrd_json_read(path, 1 << 20, &root));
    json_t *cases = json_object_get(root, "cases");
    const int n = (int)json_array_size(cases);
    json_array_foreach(cases, i, x) check_golden_case(x);
    json_decref(root);
    return n;
}

static void test_transformers(void **state)
{
    (void)state;
    assert_int_equal(check_golden_file(lrd_test_golden("sample/processors.json")), 28);
    const char *more = lrd_test_shared("golden/generate/processors.json");
    if (more != NULL)
        assert_int_equal(check_golden_file(more), 42);
}

int main(int argc, char **argv)
{
    op_arguments(argc, argv);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_transformers)};
    return cmocka_run_group_tests(tests, op_setup, op_teardown);
}
