/* bench/tokenizer_speed.c -- speed of the tokenizer on one thread; prints one JSON object.
 *
 *   tokenizer_speed [--repeat N] [--threads N] TOKENIZER SQUAD_FILE
 *
 * Encodes every context and every question of a SQuAD file in file order. For a comparison with
 * another program run the two in turn on the same pinned core (taskset -c 0 ...) and compare the
 * ratio. Reading the file and loading the vocabulary are outside the timed part. Per method:
 * "first_s", the first pass of a fresh encoder (its cache of words is empty); "best_s" and
 * "median_s" of the passes after it; and the rates of the best.
 *
 *   encode             one lrd_encoder_encode for each text, ids only
 *   encode_with_begins the same, with the offsets at which the tokens begin
 *   encode_regex       the same as encode, but BLOOM's pattern goes through Oniguruma
 *   encode_batch       one lrd_tokenizer_encode_batch of all texts, on --threads threads, with a
 *                      fresh encoder for each thread in every pass
 *
 * MB is 10^6 bytes of UTF-8.
 */
#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/json_writer.h"
#include "base/mem.h"
#include "data/tokenizer.h"
#include "data/tokenizer_parts.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_REPEAT = 1000, MAX_DATA_BYTES = 1 << 30 };

typedef struct bench {
    lrd_tokenizer_t *tokenizer;
    json_t *data;
    lrd_text_t *text;
    size_t n_texts, bytes;
    int repeat, n_threads;
    size_t n_tokens; /* of the first method, which all others must equal; 0: none yet */
    lrd_json_writer_t json;
} bench_t;

/* One text of the file. */
static lrd_status_t add_text(bench_t *bench, const json_t *text)
{
    lrd_status_t status = LRD_OK;
    LRD_CHECK(json_is_string(text), LRD_ERR_FORMAT, "the data is not a SQuAD file");
    if ((bench->n_texts & (bench->n_texts + 1)) == 0) { /* full at 0, 1, 3, 7, ... */
        lrd_text_t *grown;
        LRD_ALLOC(grown,
                  lrd_realloc_array(bench->text, 2 * bench->n_texts + 1, sizeof *bench->text));
        bench->text = grown;
    }
    bench->text[bench->n_texts++] =
        (lrd_text_t){.data = json_string_value(text), .bytes = json_string_length(text)};
    bench->bytes += json_string_length(text);
out:
    return status;
}

static lrd_status_t read_texts(bench_t *bench, const char *path)
{
    lrd_status_t status = LRD_OK;
    size_t i, j, k;
    json_t *article, *paragraph, *question;
    LRD_TRY(lrd_json_read(path, MAX_DATA_BYTES, &bench->data));
    json_array_foreach(json_object_get(bench->data, "data"), i, article)
    {
        json_array_foreach(json_object_get(article, "paragraphs"), j, paragraph)
        {
            LRD_TRY(add_text(bench, json_object_get(paragraph, "context")));
            json_array_foreach(json_object_get(paragraph, "qas"), k, question)
                LRD_TRY(add_text(bench, json_object_get(question, "question")));
        }
    }
    LRD_CHECK(bench->n_texts > 0, LRD_ERR_FORMAT, "%s has no texts", path);
out:
    return status;
}

typedef lrd_status_t pass_fn(bench_t *bench, lrd_encoder_t *encoder, size_t *n_tokens_out);

static lrd_status_t pass_one_by_one(bench_t *bench, lrd_encoder_t *encoder, bool with_begins,
                                    size_t *n_tokens_out)
{
    lrd_status_t status = LRD_OK;
    lrd_tokens_t tokens = {.with_begins = with_begins};
    size_t n_tokens = 0;
    for (size_t i = 0; i < bench->n_texts; i++) {
        tokens.n = 0;
        LRD_TRY(lrd_encoder_encode(encoder, bench->text[i].data, bench->text[i].bytes, &tokens));
        n_tokens += tokens.n;
    }
    *n_tokens_out = n_tokens;
out:
    lrd_tokens_release(&tokens);
    return status;
}

static lrd_status_t pass_encode(bench_t *bench, lrd_encoder_t *encoder, size_t *n_tokens_out)
{
    return pass_one_by_one(bench, encoder, false, n_tokens_out);
}

static lrd_status_t pass_begins(bench_t *bench, lrd_encoder_t *encoder, size_t *n_tokens_out)
{
    return pass_one_by_one(bench, encoder, true, n_tokens_out);
}

static lrd_status_t pass_regex(bench_t *bench, lrd_encoder_t *encoder, size_t *n_tokens_out)
{
    bench->tokenizer->splitter.regex_only = true;
    const lrd_status_t status = pass_one_by_one(bench, encoder, false, n_tokens_out);
    bench->tokenizer->splitter.regex_only = false;
    return status;
}

static lrd_status_t pass_batch(bench_t *bench, lrd_encoder_t *encoder, size_t *n_tokens_out)
{
    lrd_token_batch_t batch = {0};
    const lrd_status_t status = lrd_tokenizer_encode_batch(
        bench->tokenizer, bench->text, bench->n_texts, bench->n_threads, false, &batch);
    *n_tokens_out = batch.tokens.n;
    lrd_token_batch_release(&batch);
    return status;
}

static int compare_doubles(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Python's round(x, 6), near enough for times. */
static double micro(double seconds)
{
    return (double)(int64_t)(seconds * 1e6 + 0.5) / 1e6;
}

static lrd_status_t run_method(bench_t *bench, const char *name, pass_fn *pass)
{
    lrd_status_t status = LRD_OK;
    lrd_encoder_t *encoder = NULL;
    double seconds[1 + MAX_REPEAT];
    LRD_TRY(lrd_encoder_new(bench->tokenizer, &encoder));
    for (int i = 0; i <= bench->repeat; i++) {
        size_t n_tokens;
        const double begin = lrd_clock_seconds();
        LRD_TRY(pass(bench, encoder, &n_tokens));
        seconds[i] = lrd_clock_seconds() - begin;
        if (bench->n_tokens == 0)
            bench->n_tokens = n_tokens;
        LRD_CHECK(n_tokens == bench->n_tokens, LRD_ERR_INTERNAL, "%s gives %zu tokens, not %zu",
                  name, n_tokens, bench->n_tokens);
    }
    qsort(seconds + 1, (size_t)bench->repeat, sizeof *seconds, compare_doubles);
    const double best = seconds[1];
    const int middle = bench->repeat / 2;
    const double median =
        bench->repeat % 2 == 1 ? seconds[1 + middle] : (seconds[middle] + seconds[1 + middle]) / 2;
    lrd_json_key(&bench->json, name);
    lrd_json_open(&bench->json, '{');
    lrd_json_key(&bench->json, "first_s");
    lrd_json_real(&bench->json, micro(seconds[0]));
    lrd_json_key(&bench->json, "best_s");
    lrd_json_real(&bench->json, micro(best));
    lrd_json_key(&bench->json, "median_s");
    lrd_json_real(&bench->json, micro(median));
    lrd_json_key(&bench->json, "tokens_per_s");
    lrd_json_int(&bench->json, (int64_t)((double)bench->n_tokens / best));
    lrd_json_key(&bench->json, "MB_per_s");
    lrd_json_real(&bench->json, (double)(int64_t)((double)bench->bytes / best / 1e3) / 1e3);
    lrd_json_close(&bench->json, '}');
out:
    lrd_encoder_free(encoder);
    return status;
}

static lrd_status_t run_all(bench_t *bench, const char *tokenizer_path, const char *data_path)
{
    lrd_status_t status = LRD_OK;
    LRD_TRY(read_texts(bench, data_path));
    const double begin = lrd_clock_seconds();
    LRD_TRY(lrd_tokenizer_load(tokenizer_path, &bench->tokenizer));
    const double load_s = lrd_clock_seconds() - begin;
    lrd_json_open(&bench->json, '{');
    lrd_json_key(&bench->json, "library");
    lrd_json_text(&bench->json, "lora-dist");
    lrd_json_key(&bench->json, "threads");
    lrd_json_int(&bench->json, bench->n_threads);
    lrd_json_key(&bench->json, "vocab");
    lrd_json_int(&bench->json, lrd_tokenizer_size(bench->tokenizer));
    lrd_json_key(&bench->json, "data");
    lrd_json_text(&bench->json, lrd_path_base(data_path));
    lrd_json_key(&bench->json, "texts");
    lrd_json_int(&bench->json, (int64_t)bench->n_texts);
    lrd_json_key(&bench->json, "bytes");
    lrd_json_int(&bench->json, (int64_t)bench->bytes);
    lrd_json_key(&bench->json, "load_s");
    lrd_json_real(&bench->json, micro(load_s));
    LRD_TRY(run_method(bench, "encode", pass_encode));
    LRD_TRY(run_method(bench, "encode_with_begins", pass_begins));
    LRD_TRY(run_method(bench, "encode_regex", pass_regex));
    LRD_TRY(run_method(bench, "encode_batch", pass_batch));
    lrd_json_key(&bench->json, "tokens");
    lrd_json_int(&bench->json, (int64_t)bench->n_tokens);
    lrd_json_close(&bench->json, '}');
    LRD_TRY(lrd_json_writer_status(&bench->json));
out:
    return status;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"repeat", required_argument, NULL, 'r'}, {"threads", required_argument, NULL, 't'}, {0}};
    lrd_buf_t out = {0};
    bench_t bench = {.repeat = 5, .n_threads = 1, .json = {.buf = &out, .indent = 1}};
    bool usage = false;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c == 'r')
            bench.repeat = atoi(optarg);
        else if (c == 't')
            bench.n_threads = atoi(optarg);
        else
            usage = true;
    }
    if (usage || optind + 2 != argc || bench.repeat < 1 || bench.repeat > MAX_REPEAT ||
        bench.n_threads < 1) {
        fprintf(stderr,
                "usage: tokenizer_speed [--repeat 1..%d] [--threads N] TOKENIZER SQUAD_FILE\n",
                MAX_REPEAT);
        return 2;
    }
    const lrd_status_t status = run_all(&bench, argv[optind], argv[optind + 1]);
    if (status == LRD_OK)
        printf("%s\n", out.data);
    else
        fprintf(stderr, "tokenizer_speed: %s\n", lrd_error_text(status));
    lrd_tokenizer_free(bench.tokenizer);
    json_decref(bench.data);
    lrd_free(bench.text);
    lrd_buf_release(&out);
    return status != LRD_OK;
}
