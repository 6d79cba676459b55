#include "train/checkpoint.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/partial.h"
#include "base/version.h"
#include "data/h5_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char file_name[] = "state.h5";
static const char format_name[] = "lora-dist checkpoint 1";

char *lrd_checkpoint_path(const char *output_dir, int64_t step)
{
    return lrd_asprintf("%s/checkpoint-%lld", output_dir, (long long)step);
}

/* Reals travel as text: the shortest digits that give the same double. */
static lrd_status_t put_real(hid_t file, const char *path, const char *name, double value)
{
    char text[32];
    lrd_format_real(value, text);
    return lrd_h5_put_text(file, path, name, text);
}

static lrd_status_t get_real(hid_t file, const char *path, const char *name, double *value_out)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t text = {0};
    char *end;
    LRD_TRY(lrd_h5_get_text(file, path, name, &text));
    const double value = strtod(text.data, &end);
    LRD_CHECK(end != text.data && *end == '\0', LRD_ERR_FORMAT,
              "%s: the attribute %s is not a number", path, name);
    *value_out = value;
out:
    lrd_buf_release(&text);
    return status;
}

/* The integers of a checkpoint, by name. */
#define INTS(X)                                               \
    X("global_step", c->step)                                 \
    X("max_steps", c->n_updates)                              \
    X("records_per_update", c->records_per_update)            \
    X("adam_t", c->optimizer.clock.adam_t)                    \
    X("scaler_growth_tracker", c->optimizer.clock.good_steps) \
    X("bad_in_a_row", c->optimizer.clock.bad_in_a_row)        \
    X("unlogged_losses", c->loss_count)                       \
    X("interrupted", c->interrupted)

#define REALS(X)                                   \
    X("loss_scale", c->optimizer.clock.loss_scale) \
    X("grad_norm", c->optimizer.clock.grad_norm)   \
    X("unlogged_loss_sum", c->loss_sum)

/* One hash over what the arrays hold: contiguous HDF5 arrays carry no checksum of their own. */
static lrd_status_t hash_arrays(const lrd_optimizer_state_t *o, int64_t n, char hex[LRD_SHA256_HEX])
{
    lrd_status_t status = LRD_OK;
    lrd_sha256_t *hash = NULL;
    const size_t bytes = (size_t)n * sizeof(float);
    LRD_TRY(lrd_sha256_begin(&hash));
    LRD_TRY(lrd_sha256_add(hash, o->params, bytes));
    LRD_TRY(lrd_sha256_add(hash, o->m, bytes));
    LRD_TRY(lrd_sha256_add(hash, o->v, bytes));
    LRD_TRY(lrd_sha256_end(hash, hex));
out:
    lrd_sha256_free(hash);
    return status;
}

/* "path r;path r;...": which tensors the arrays are made of. */
static lrd_status_t describe_shape(const lrd_adapter_t *a, char hex[LRD_SHA256_HEX])
{
    lrd_status_t status = LRD_OK;
    lrd_sha256_t *hash = NULL;
    lrd_buf_t text = {0};
    for (int i = 0; i < a->n_items; i++)
        LRD_TRY(lrd_buf_printf(&text, "%s %lld %lld %lld;", a->items[i].path,
                               (long long)a->items[i].r, (long long)a->items[i].n_in,
                               (long long)a->items[i].n_out));
    LRD_TRY(lrd_sha256_begin(&hash));
    LRD_TRY(lrd_sha256_add(hash, text.data, text.size));
    LRD_TRY(lrd_sha256_end(hash, hex));
out:
    lrd_buf_release(&text);
    lrd_sha256_free(hash);
    return status;
}

static lrd_status_t put_facts(hid_t file, const char *path, const lrd_adapter_t *adapter,
                              const lrd_checkpoint_t *c)
{
    lrd_status_t status = LRD_OK;
    char hex[LRD_SHA256_HEX], created[32];
    lrd_buf_t settings = {0};
    lrd_json_writer_t w = {.buf = &settings, .indent = -1};
    const time_t now = (time_t)lrd_clock_unix_seconds();
    struct tm tm;
    LRD_TRY(lrd_h5_put_text(file, path, "format", format_name));
    LRD_TRY(lrd_h5_put_text(file, path, "created_by", "lora-dist " LRD_VERSION));
    strftime(created, sizeof created, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &tm));
    LRD_TRY(lrd_h5_put_text(file, path, "created", created));
#define X(name, value) LRD_TRY(lrd_h5_put_int(file, path, name, (int64_t)(value)));
    INTS(X)
#undef X
#define X(name, value) LRD_TRY(put_real(file, path, name, (double)(value)));
    REALS(X)
#undef X
    LRD_TRY(lrd_settings_write_json(c->settings, &w));
    LRD_TRY(lrd_h5_put_text(file, path, "settings", settings.data));
    LRD_TRY(lrd_h5_put_text(file, path, "data_key", c->data_key));
    LRD_TRY(lrd_h5_put_text(file, path, "machine", c->machine));
    LRD_TRY(lrd_h5_put_text(file, path, "model_commit", c->base.commit));
    LRD_TRY(lrd_h5_put_text(file, path, "model_fingerprint", c->base.fingerprint));
    LRD_TRY(lrd_h5_put_int(file, path, "n_params", adapter->n_params));
    LRD_TRY(describe_shape(adapter, hex));
    LRD_TRY(lrd_h5_put_text(file, path, "adapter_sha256", hex));
    LRD_TRY(hash_arrays(&c->optimizer, adapter->n_params, hex));
    LRD_TRY(lrd_h5_put_text(file, path, "content_sha256", hex));
out:
    lrd_buf_release(&settings);
    return status;
}

lrd_status_t lrd_checkpoint_write(const char *folder, const lrd_adapter_t *adapter,
                                  const lrd_checkpoint_t *c)
{
    lrd_status_t status = LRD_OK;
    hid_t file = -1;
    char *path = NULL;
    const size_t n = (size_t)adapter->n_params;
    LRD_ALLOC(path, lrd_path_join(folder, file_name));
    LRD_TRY(lrd_h5_create(path, &file));
    LRD_TRY(put_facts(file, path, adapter, c));
    LRD_TRY(lrd_h5_put_array(file, path, "params", H5T_IEEE_F32LE, n, c->optimizer.params));
    LRD_TRY(lrd_h5_put_array(file, path, "exp_avg", H5T_IEEE_F32LE, n, c->optimizer.m));
    LRD_TRY(lrd_h5_put_array(file, path, "exp_avg_sq", H5T_IEEE_F32LE, n, c->optimizer.v));
    LRD_TRY(lrd_h5_put_array(file, path, "tensor_begin", H5T_STD_I64LE,
                             2 * (size_t)adapter->n_items + 1, adapter->begin));
    LRD_TRY(lrd_h5_close(&file, path));
out:
    if (file >= 0)
        H5Fclose(file);
    lrd_free(path);
    return status;
}

/* An attribute must have this text. */
static lrd_status_t expect_text(hid_t file, const char *path, const char *name, const char *text,
                                lrd_status_t otherwise, const char *meaning)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t found = {0};
    LRD_TRY(lrd_h5_get_text(file, path, name, &found));
    LRD_CHECK(strcmp(found.data, text) == 0, otherwise, "%s: %s", path, meaning);
out:
    lrd_buf_release(&found);
    return status;
}

static lrd_status_t copy_text(hid_t file, const char *path, const char *name, char *text,
                              size_t size)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t found = {0};
    LRD_TRY(lrd_h5_get_text(file, path, name, &found));
    snprintf(text, size, "%s", found.data);
out:
    lrd_buf_release(&found);
    return status;
}

static lrd_status_t get_settings(hid_t file, const char *path, lrd_settings_t **settings_out)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t text = {0};
    json_t *json = NULL;
    LRD_TRY(lrd_h5_get_text(file, path, "settings", &text));
    LRD_TRY(lrd_json_parse(text.data, text.size, path, &json));
    LRD_TRY(lrd_settings_read_json(json, path, settings_out));
out:
    json_decref(json);
    lrd_buf_release(&text);
    return status;
}

/* Checkpoints of before it was kept have neither. */
static lrd_status_t get_base(hid_t file, const char *path, lrd_model_identity_t *base)
{
    lrd_status_t status = LRD_OK;
    if (lrd_h5_has(file, "model_commit"))
        LRD_TRY(copy_text(file, path, "model_commit", base->commit, sizeof base->commit));
    if (lrd_h5_has(file, "model_fingerprint"))
        LRD_TRY(copy_text(file, path, "model_fingerprint", base->fingerprint,
                          sizeof base->fingerprint));
out:
    return status;
}

static lrd_status_t get_facts(hid_t file, const char *path, lrd_checkpoint_t *c)
{
    lrd_status_t status = LRD_OK;
    int64_t i;
    double d;
#define X(name, value)                             \
    LRD_TRY(lrd_h5_get_int(file, path, name, &i)); \
    value = (__typeof__(value))i;
    INTS(X)
#undef X
#define X(name, value)                       \
    LRD_TRY(get_real(file, path, name, &d)); \
    value = (__typeof__(value))d;
    REALS(X)
#undef X
    LRD_CHECK(c->step >= 0 && c->n_updates >= c->step && c->records_per_update > 0 &&
                  c->optimizer.clock.adam_t >= 0 && c->optimizer.clock.adam_t <= c->step,
              LRD_ERR_FORMAT, "%s: its counters contradict each other", path);
    LRD_TRY(copy_text(file, path, "data_key", c->data_key, sizeof c->data_key));
    LRD_TRY(copy_text(file, path, "machine", c->machine, sizeof c->machine));
    LRD_TRY(get_base(file, path, &c->base));
    LRD_TRY(get_settings(file, path, &c->settings));
out:
    return status;
}

/* Reads one array [n_params] out of the mapped file. */
static lrd_status_t get_array(hid_t file, const char *path, const lrd_map_t *map, const char *name,
                              int64_t n, float **array_out)
{
    lrd_status_t status = LRD_OK;
    uint64_t offset;
    const size_t bytes = (size_t)n * sizeof(float);
    LRD_TRY(lrd_h5_find_array(file, path, name, H5T_IEEE_F32LE, (size_t)n, &offset));
    LRD_CHECK(offset <= map->size && bytes <= map->size - offset, LRD_ERR_FORMAT,
              "%s: the file is cut off inside %s", path, name);
    LRD_NEW(*array_out, n);
    memcpy(*array_out, map->data + offset, bytes);
out:
    return status;
}

lrd_status_t lrd_checkpoint_read(const char *folder, const lrd_adapter_t *adapter,
                                 lrd_checkpoint_t *checkpoint_out)
{
    lrd_status_t status = LRD_OK;
    hid_t file = -1;
    char *path = NULL, hex[LRD_SHA256_HEX];
    lrd_map_t map = {0};
    lrd_checkpoint_t c = {0};
    const int64_t n = adapter->n_params;
    LRD_ALLOC(path, lrd_path_join(folder, file_name));
    LRD_CHECK(lrd_file_exists(path), LRD_ERR_FORMAT,
              "%s holds no %s: it is not a checkpoint (output_dir/checkpoint-N is one)", folder,
              file_name);
    LRD_TRY(lrd_h5_open(path, &file));
    LRD_TRY(lrd_file_map(path, &map));
    LRD_TRY(expect_text(file, path, "format", format_name, LRD_ERR_FORMAT,
                        "not a checkpoint of this version"));
    LRD_TRY(describe_shape(adapter, hex));
    LRD_TRY(expect_text(file, path, "adapter_sha256", hex, LRD_ERR_CONFIG,
                        "it is of another adapter: targets, ranks or model differ"));
    LRD_TRY(get_facts(file, path, &c));
    LRD_TRY(get_array(file, path, &map, "params", n, &c.optimizer.params));
    LRD_TRY(get_array(file, path, &map, "exp_avg", n, &c.optimizer.m));
    LRD_TRY(get_array(file, path, &map, "exp_avg_sq", n, &c.optimizer.v));
    LRD_TRY(hash_arrays(&c.optimizer, n, hex));
    LRD_TRY(
        expect_text(file, path, "content_sha256", hex, LRD_ERR_FORMAT, "its arrays are damaged"));
    *checkpoint_out = c;
    c = (lrd_checkpoint_t){0};
out:
    lrd_checkpoint_release(&c);
    lrd_file_unmap(&map);
    if (file >= 0)
        H5Fclose(file);
    lrd_free(path);
    return status;
}

void lrd_checkpoint_release(lrd_checkpoint_t *c)
{
    lrd_free(c->optimizer.params);
    lrd_free(c->optimizer.m);
    lrd_free(c->optimizer.v);
    lrd_settings_free(c->settings);
    *c = (lrd_checkpoint_t){0};
}

static int by_step(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* N of "checkpoint-N", written as lrd_checkpoint_path does; negative: another name. */
static int64_t step_of(const char *name)
{
    char again[64];
    long long step;
    if (sscanf(name, "checkpoint-%lld", &step) != 1 || step < 0)
        return -1;
    snprintf(again, sizeof again, "checkpoint-%lld", step);
    return strcmp(again, name) == 0 ? step : -1;
}

lrd_status_t lrd_checkpoint_list(const char *output_dir, int64_t **steps_out, size_t *n_out)
{
    lrd_status_t status = LRD_OK;
    lrd_names_t names = {0};
    int64_t *steps = NULL;
    size_t n = 0;
    if (lrd_folder_exists(output_dir))
        LRD_TRY(lrd_folder_list(output_dir, &names));
    LRD_NEW(steps, names.n + 1);
    for (size_t i = 0; i < names.n; i++) {
        const int64_t step = step_of(names.name[i]);
        if (step >= 0)
            steps[n++] = step;
    }
    qsort(steps, n, sizeof *steps, by_step);
    *steps_out = steps;
    *n_out = n;
    steps = NULL;
out:
    lrd_free(steps);
    lrd_names_free(&names);
    return status;
}

/* Of a checkpoint, or of the result. */
static bool is_partial_folder(const char *name)
{
    static const char begin[] = "checkpoint-", end[] = ".partial";
    const size_t n = strlen(name);
    return strcmp(name, "adapter.partial") == 0 ||
           (strncmp(name, begin, sizeof begin - 1) == 0 && n >= sizeof begin + sizeof end - 1 &&
            strcmp(name + n - (sizeof end - 1), end) == 0);
}

lrd_status_t lrd_checkpoint_tidy(const char *output_dir)
{
    lrd_status_t status = LRD_OK;
    lrd_names_t names = {0};
    char *path = NULL;
    lrd_partial_tidy_folder(output_dir);
    LRD_TRY(lrd_folder_list(output_dir, &names));
    for (size_t i = 0; i < names.n; i++) {
        if (!is_partial_folder(names.name[i]))
            continue;
        lrd_free(path);
        LRD_ALLOC(path, lrd_path_join(output_dir, names.name[i]));
        LRD_TRY(lrd_folder_remove(path));
    }
out:
    lrd_free(path);
    lrd_names_free(&names);
    return status;
}
