/* Order, updates, micro-batches. Oracles: vectors of torch's generator and of the Trainer's epochs,
 * the Trainer's own order and log of whole runs (where ../shared is), and invariants. */
#include "support/test_support.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "data/loader.h"

#include <stdlib.h>
#include <string.h>

static lrd_data_settings_t tokenized(void)
{
    return (lrd_data_settings_t){
        .format = LRD_FORMAT_TOKENIZED, .max_length = 2048, .on_too_long = LRD_TOO_LONG_ERROR};
}

static lrd_dataset_t *read_tokens(const char *path, int64_t vocab_size)
{
    const lrd_data_settings_t settings = tokenized();
    const lrd_dataset_spec_t spec = {.path = path, .settings = &settings, .vocab_size = vocab_size};
    lrd_dataset_t *set = NULL;
    assert_ok(lrd_dataset_tokenize(&spec, &set));
    return set;
}

/* Record i has length[i] tokens, the first of which is i;
 * labels of the first `ignored` tokens do not count. */
static lrd_dataset_t *make_set(const int *length, int n, int ignored)
{
    const char *path = lrd_test_temporary("made.jsonl");
    lrd_buf_t buf = {0};
    for (int i = 0; i < n; i++) {
        assert_ok(lrd_buf_printf(&buf, "{\"input_ids\":[%d", i));
        for (int t = 1; t < length[i]; t++)
            assert_ok(lrd_buf_printf(&buf, ",%d", 1000 + t));
        assert_ok(lrd_buf_printf(&buf, "],\"labels\":[%d", ignored > 0 ? -100 : i));
        for (int t = 1; t < length[i]; t++)
            assert_ok(lrd_buf_printf(&buf, ",%d", t < ignored ? -100 : 1000 + t));
        assert_ok(lrd_buf_add_text(&buf, "]}\n"));
    }
    assert_ok(lrd_file_write(path, buf.data, buf.size));
    lrd_buf_release(&buf);
    return read_tokens(path, 2000);
}

static lrd_dataset_t *make_equal(int n, int length)
{
    int lengths[200];
    for (int i = 0; i < n; i++)
        lengths[i] = length;
    return make_set(lengths, n, 0);
}

static lrd_loader_t *make_loader(const lrd_dataset_t *set, int64_t micro, int64_t max_tokens,
                                 int64_t update, uint64_t seed)
{
    const lrd_loader_settings_t settings = {.records_per_micro_batch = micro,
                                            .max_tokens = max_tokens,
                                            .records_per_update = update,
                                            .seed = seed};
    lrd_loader_t *loader = NULL;
    assert_ok(lrd_loader_create(set, &settings, &loader));
    return loader;
}

/* torch.randperm of seeds 42, 43, 44. */
static void test_order(void **state)
{
    (void)state;
    static const int64_t ten[30] = {2, 6, 1, 8, 4, 5, 0, 9, 3, 7, 8, 4, 9, 0, 5,
                                    1, 6, 7, 2, 3, 2, 6, 3, 8, 7, 9, 1, 4, 5, 0},
                         five[15] = {2, 4, 3, 0, 1, 3, 1, 4, 2, 0, 2, 4, 3, 1, 0};
    for (int n = 5; n <= 10; n += 5) {
        lrd_dataset_t *set = make_equal(n, 3);
        lrd_loader_t *loader = make_loader(set, 1, 0, 1, 42);
        for (int i = 3 * n - 1; i >= 0; i--) { /* backwards: any update, at any time */
            lrd_update_t u;
            assert_ok(lrd_loader_update(loader, i, &u));
            assert_int_equal(u.n_records, 1);
            assert_int_equal(u.record[0], n == 5 ? five[i] : ten[i]);
            assert_int_equal(u.epoch, i / n);
        }
        lrd_loader_free(loader);
        lrd_dataset_close(set);
    }
}

/* Epochs as the Trainer logs them; lengths of runs. */
static void test_epochs(void **state)
{
    (void)state;
    static const double logged[6] = {0.4, 0.8, 1.0, 1.4, 1.8, 2.0};
    lrd_dataset_t *set = make_equal(10, 4);
    lrd_loader_t *loader = make_loader(set, 2, 0, 4, 42);
    lrd_update_t u;
    assert_int_equal(lrd_loader_updates_per_epoch(loader), 3);
    for (int i = 0; i < 6; i++) {
        assert_ok(lrd_loader_update(loader, i, &u));
        assert_true(u.epoch_after == logged[i]);
    }
    assert_int_equal(lrd_loader_total_updates(loader, -1, 2.0), 6);
    assert_int_equal(lrd_loader_total_updates(loader, 7, 2.0), 7);
    assert_int_equal(lrd_loader_total_updates(loader, 0, 0.1), 1);
    assert_int_equal(lrd_loader_total_updates(loader, -1, 1.34), 5);
    lrd_loader_free(loader);

    loader = make_loader(set, 2, 0, 6, 42); /* 5 micro-batches in 2 updates */
    assert_int_equal(lrd_loader_updates_per_epoch(loader), 2);
    assert_int_equal(lrd_loader_total_updates(loader, -1, 1.5), 3);
    lrd_loader_free(loader);

    loader = make_loader(set, 2, 8, 4, 42); /* by tokens: records done / n */
    for (int i = 0; i < 6; i++) {
        assert_ok(lrd_loader_update(loader, i, &u));
        assert_true(u.epoch_after == logged[i]);
    }
    lrd_loader_free(loader);

    loader = make_loader(set, 4, 0, 6, 42); /* 4 + 2, then 4 */
    assert_ok(lrd_loader_update(loader, 0, &u));
    assert_int_equal(u.n_micro_batches, 2);
    assert_true(u.epoch_after == 2.0 / 3.0);
    assert_ok(lrd_loader_update(loader, 1, &u));
    assert_int_equal(u.n_micro_batches, 1);
    assert_true(u.epoch_after == 1.0);
    assert_fails(lrd_loader_update(loader, -1, &u), LRD_ERR_ARG, "update -1 does not exist");
    lrd_loader_free(loader);
    lrd_dataset_close(set);
}

static void check_micro_batches(const lrd_dataset_t *set, const lrd_loader_settings_t *s,
                                const lrd_loader_limits_t *limits, const lrd_update_t *u)
{
    int64_t n_tokens = 0, n_targets = 0;
    assert_true(u->n_micro_batches >= 1 && u->n_micro_batches <= limits->micro_batches);
    assert_int_equal(u->first[0], 0);
    assert_int_equal(u->first[u->n_micro_batches], u->n_records);
    for (int64_t m = 0; m < u->n_micro_batches; m++) {
        const int64_t n = u->first[m + 1] - u->first[m];
        int64_t tokens = 0;
        assert_true(n >= 1 && n <= limits->sequences);
        for (int64_t i = u->first[m]; i < u->first[m + 1]; i++) {
            const lrd_record_t r = lrd_dataset_record(set, u->record[i]);
            tokens += r.n_tokens;
            n_targets += r.n_targets;
            assert_true(r.n_tokens <= limits->longest_tokens);
        }
        assert_true(tokens <= limits->tokens);
        const bool last = m + 1 == u->n_micro_batches;
        if (s->max_tokens == 0 && !last)
            assert_int_equal(n, s->records_per_micro_batch);
        if (s->max_tokens > 0 && !last)
            assert_true(tokens + lrd_dataset_record(set, u->record[u->first[m + 1]]).n_tokens >
                        s->max_tokens);
        n_tokens += tokens;
    }
    assert_int_equal(u->n_tokens, n_tokens);
    assert_int_equal(u->n_targets, n_targets);
}

/* Every record once per epoch; limits hold; shares tile the update. */
static void check_epoch(const lrd_dataset_t *set, lrd_loader_t *loader,
                        const lrd_loader_settings_t *s, int64_t epoch)
{
    const int64_t n = lrd_dataset_info(set)->n_records,
                  per_epoch = lrd_loader_updates_per_epoch(loader);
    const lrd_loader_limits_t limits = lrd_loader_limits(loader);
    bool seen[200] = {false};
    int64_t n_seen = 0;
    double before = (double)epoch;
    for (int64_t i = 0; i < per_epoch; i++) {
        lrd_update_t u;
        assert_ok(lrd_loader_update(loader, epoch * per_epoch + i, &u));
        assert_int_equal(u.epoch, epoch);
        assert_true(u.epoch_after > before);
        before = u.epoch_after;
        assert_true(i + 1 == per_epoch || u.n_records == s->records_per_update);
        for (int64_t j = 0; j < u.n_records; j++) {
            assert_false(seen[u.record[j]]);
            seen[u.record[j]] = true;
            n_seen++;
        }
        check_micro_batches(set, s, &limits, &u);
    }
    assert_int_equal(n_seen, n);
    assert_true(before == (double)(epoch + 1));
}

static void test_invariants(void **state)
{
    (void)state;
    uint64_t random = 7;
    for (int round = 0; round < 60; round++) {
        int length[200];
        const int n = 1 + (int)lrd_test_random_int(&random, 120);
        for (int i = 0; i < n; i++)
            length[i] = 1 + (int)lrd_test_random_int(&random, 50);
        lrd_dataset_t *set = make_set(length, n, 3);
        const lrd_loader_settings_t s = {
            .records_per_micro_batch = 1 + lrd_test_random_int(&random, 9),
            .max_tokens = round % 2 == 0 ? 0 : 50 + lrd_test_random_int(&random, 100),
            .records_per_update = 1 + lrd_test_random_int(&random, 40),
            .seed = (uint64_t)round,
        };
        lrd_loader_t *loader = NULL;
        assert_ok(lrd_loader_create(set, &s, &loader));
        for (int64_t epoch = 0; epoch < 3; epoch++)
            check_epoch(set, loader, &s, epoch);
        lrd_loader_free(loader);
        lrd_dataset_close(set);
    }
}

/* The limits are reached, not only kept: memory is not asked for in vain. */
static void test_limits(void **state)
{
    (void)state;
    static const int length[8] = {3, 9, 1, 7, 1, 5, 2, 8};
    lrd_dataset_t *set = make_set(length, 8, 0);
    lrd_loader_t *loader = make_loader(set, 3, 0, 8, 1);
    lrd_loader_limits_t l = lrd_loader_limits(loader);
    assert_int_equal(l.tokens, 9 + 8 + 7);
    assert_int_equal(l.sequences, 3);
    assert_int_equal(l.longest_tokens, 9);
    assert_int_equal(l.micro_batches, 3);
    lrd_loader_free(loader);
    loader = make_loader(set, 100, 0, 2, 1); /* an update holds two records */
    l = lrd_loader_limits(loader);
    assert_int_equal(l.tokens, 17);
    assert_int_equal(l.sequences, 2);
    assert_int_equal(l.micro_batches, 1);
    lrd_loader_free(loader);
    loader = make_loader(set, 1, 10, 8, 1);
    l = lrd_loader_limits(loader);
    assert_int_equal(l.tokens, 10);
    assert_int_equal(l.sequences, 4);     /* 1 + 1 + 2 + 3 */
    assert_int_equal(l.micro_batches, 7); /* 36 tokens: 2 * 4 - 1 */
    lrd_loader_free(loader);
    loader = make_loader(set, 1, 1000, 8, 1); /* all of it in one */
    l = lrd_loader_limits(loader);
    assert_int_equal(l.tokens, 36);
    assert_int_equal(l.sequences, 8);
    assert_int_equal(l.micro_batches, 1);
    lrd_loader_free(loader);
    lrd_dataset_close(set);
}

static void test_greedy(void **state)
{
    (void)state;
    static const int length[5] = {5, 5, 5, 5, 5};
    lrd_dataset_t *set = make_set(length, 5, 0);
    lrd_loader_t *loader = make_loader(set, 1, 10, 5, 42);
    lrd_update_t u;
    assert_ok(lrd_loader_update(loader, 0, &u));
    assert_int_equal(u.n_micro_batches, 3);
    assert_int_equal(u.first[1], 2);
    assert_int_equal(u.first[2], 4);
    assert_int_equal(u.first[3], 5);
    assert_int_equal(u.n_tokens, 25);
    assert_int_equal(u.n_targets, 20);
    lrd_loader_free(loader);
    lrd_dataset_close(set);
}

static void test_pack(void **state)
{
    (void)state;
    static const int length[4] = {3, 1, 5, 2};
    static const int64_t record[3] = {2, 1, 0};
    static const int32_t token[9] = {2, 1001, 1002, 1003, 1004, 1, 0, 1001, 1002},
                         target[9] = {-1, 1002, 1003, 1004, -1, -1, -1, 1002, -1},
                         cu_seqlens[4] = {0, 5, 6, 9};
    lrd_dataset_t *set = make_set(length, 4, 2);
    lrd_batch_t b = {0};
    assert_ok(lrd_batch_pack(set, record, 1, 0, &b)); /* a larger one reuses it */
    assert_ok(lrd_batch_pack(set, record, 3, 0x10007, &b));
    assert_int_equal(b.n_tokens, 9);
    assert_int_equal(b.n_sequences, 3);
    assert_int_equal(b.n_targets, 4);
    assert_memory_equal(b.token, token, sizeof token);
    assert_memory_equal(b.target, target, sizeof target);
    assert_memory_equal(b.cu_seqlens, cu_seqlens, sizeof cu_seqlens);
    assert_memory_equal(b.record, record, sizeof record);
    assert_true(b.row_key[0] == 0x0000000200070000u);
    assert_true(b.row_key[4] == 0x0000000200070004u);
    assert_true(b.row_key[5] == 0x0000000100070000u);
    assert_true(b.row_key[8] == 0x0000000000070002u);
    assert_ok(lrd_batch_pack(set, record, 0, 0, &b));
    assert_int_equal(b.n_tokens, 0);
    assert_int_equal(b.cu_seqlens[0], 0);
    lrd_batch_release(&b);
    lrd_dataset_close(set);
}

/* N of an update is what its micro-batches hold, whoever packs them. */
static void test_targets_add_up(void **state)
{
    (void)state;
    static const int length[7] = {3, 1, 5, 2, 9, 4, 4};
    lrd_dataset_t *set = make_set(length, 7, 3);
    lrd_loader_t *loader = make_loader(set, 2, 0, 5, 3);
    lrd_batch_t b = {0};
    for (int64_t i = 0; i < 2; i++) {
        lrd_update_t u;
        int64_t n_targets = 0, n_tokens = 0;
        assert_ok(lrd_loader_update(loader, i, &u));
        for (int64_t m = 0; m < u.n_micro_batches; m++) {
            int64_t counted = 0;
            assert_ok(lrd_batch_pack(set, u.record + u.first[m], u.first[m + 1] - u.first[m],
                                     u.epoch, &b));
            for (int64_t t = 0; t < b.n_tokens; t++)
                counted += b.target[t] != LRD_NO_TARGET;
            assert_int_equal(counted, b.n_targets);
            n_targets += counted;
            n_tokens += b.n_tokens;
        }
        assert_int_equal(n_targets, u.n_targets);
        assert_int_equal(n_tokens, u.n_tokens);
    }
    lrd_batch_release(&b);
    lrd_loader_free(loader);
    lrd_dataset_close(set);
}

static void test_eval_batches(void **state)
{
    (void)state;
    static const int length[5] = {3, 1, 5, 2, 4};
    lrd_dataset_t *set = make_set(length, 5, 0);
    lrd_batch_t b = {0};
    assert_int_equal(lrd_eval_n_batches(set, 2), 3);
    assert_int_equal(lrd_eval_n_batches(set, 5), 1);
    assert_int_equal(lrd_eval_n_batches(set, 1000), 1);
    assert_ok(lrd_eval_batch(set, 2, 1, &b));
    assert_int_equal(b.n_sequences, 2);
    assert_int_equal(b.record[0], 2);
    assert_int_equal(b.record[1], 3);
    assert_int_equal(b.n_targets, 5);
    assert_ok(lrd_eval_batch(set, 2, 2, &b));
    assert_int_equal(b.n_sequences, 1);
    assert_int_equal(b.record[0], 4);
    assert_fails(lrd_eval_batch(set, 2, 3, &b), LRD_ERR_ARG, "evaluation batch 3 does not exist");
    assert_fails(lrd_eval_batch(set, 2, -1, &b), LRD_ERR_ARG, "evaluation batch -1");
    lrd_batch_release(&b);
    lrd_dataset_close(set);
}

static void test_bad_settings(void **state)
{
    (void)state;
    static const struct {
        lrd_loader_settings_t settings;
        const char *message;
    } bad[] = {
        {{.records_per_micro_batch = 1}, "an update of 0 records: expected at least 1"},
        {{.records_per_update = 1}, "training.per_device_train_batch_size is 0"},
        {{.records_per_update = 1, .max_tokens = -4}, "training.max_tokens_per_micro_batch is -4"},
        {{.records_per_update = 1, .max_tokens = 4},
         "the longest record has 5 tokens, more than training.max_tokens_per_micro_batch 4; raise"},
    };
    static const int length[2] = {3, 5};
    lrd_dataset_t *set = make_set(length, 2, 0);
    lrd_loader_t *loader = NULL;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_fails(lrd_loader_create(set, &bad[i].settings, &loader), LRD_ERR_CONFIG,
                     bad[i].message);
    lrd_dataset_close(set);
}

/* The order and the epochs of whole runs of transformers' Trainer. */
static void check_run(const char *name, const json_t *expected, const lrd_dataset_t *set,
                      int64_t micro, int64_t accumulation, uint64_t seed)
{
    static const char *const runs[] = {"float32", "float64", "bfloat16"};
    const json_t *order = json_object_get(expected, "order");
    lrd_loader_t *loader = make_loader(set, micro, 0, micro * accumulation, seed);
    size_t at = 0;
    for (size_t r = 0; r < 3; r++) {
        const json_t *log = json_object_get(json_object_get(expected, runs[r]), "log");
        if (r == 2 && log == NULL) /* not every case was run in bfloat16 */
            continue;
        at = 0;
        assert_true(json_array_size(log) > 0);
        for (size_t i = 0; i < json_array_size(log); i++) {
            const json_t *line = json_array_get(log, i);
            lrd_update_t u;
            assert_int_equal(json_integer_value(json_object_get(line, "step")), i + 1);
            assert_ok(lrd_loader_update(loader, (int64_t)i, &u));
            if (u.epoch_after != json_real_value(json_object_get(line, "epoch")))
                fail_msg("%s, step %zu: epoch %.17g", name, i + 1, u.epoch_after);
            for (int64_t j = 0; j < u.n_records; j++, at++)
                if (u.record[j] != json_integer_value(json_array_get(order, at)))
                    fail_msg("%s: record %zu of the order differs", name, at);
        }
    }
    assert_true(at > 0 && at <= json_array_size(order)); /* the Trainer fetches a batch ahead */
    assert_true(json_array_size(order) - at <= (size_t)micro);
    lrd_loader_free(loader);
}

static void test_trainer_runs(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int64_t vocab_size, micro, accumulation;
        uint64_t seed;
        int64_t total, max_steps;
        double epochs;
    } run[] = {
        {"qkv", 512, 4, 4, 42, 24, 24, 3},
        {"all-linear", 300, 4, 4, 3, 30, 30, 3},
        {"head80", 1000, 3, 3, 42, 24, -1, 2},
        {"head128-untied", 400, 8, 1, 42, 24, 24, 3},
        {"post-layernorm", 256, 4, 4, 42, 10, 10, 3},
    };
    if (lrd_test_shared("golden") == NULL) {
        print_message("SKIPPED: the reference runs are not beside the checkout\n");
        skip();
    }
    for (size_t i = 0; i < sizeof run / sizeof run[0]; i++) {
        char path[128];
        json_t *expected = NULL;
        snprintf(path, sizeof path, "golden/%s/expected.json", run[i].name);
        assert_ok(lrd_json_read(lrd_test_shared(path), 64u << 20, &expected));
        snprintf(path, sizeof path, "golden/%s/train.jsonl", run[i].name);
        lrd_dataset_t *set = read_tokens(lrd_test_shared(path), run[i].vocab_size);
        check_run(run[i].name, expected, set, run[i].micro, run[i].accumulation, run[i].seed);
        lrd_loader_t *loader =
            make_loader(set, run[i].micro, 0, run[i].micro * run[i].accumulation, 0);
        assert_int_equal(lrd_loader_total_updates(loader, run[i].max_steps, run[i].epochs),
                         run[i].total);
        lrd_loader_free(loader);
        lrd_dataset_close(set);
        json_decref(expected);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),          cmocka_unit_test(test_epochs),
        cmocka_unit_test(test_invariants),     cmocka_unit_test(test_limits),
        cmocka_unit_test(test_greedy),         cmocka_unit_test(test_pack),
        cmocka_unit_test(test_targets_add_up), cmocka_unit_test(test_eval_batches),
        cmocka_unit_test(test_bad_settings),   cmocka_unit_test(test_trainer_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
