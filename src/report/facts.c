#include "report/facts.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/safetensors.h"
#include "report/pyjson.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char state_file[] = "trainer_state.json";
static const char evaluation_ending[] = ".evaluation.json";

lrd_status_t lrd_facts_remark(lrd_facts_t *f, const char *format, ...)
{
    lrd_status_t status = LRD_OK;
    char text[2048];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    json_t *remark = json_string(text);
    if (remark == NULL) { /* a name that is not UTF-8, or one that was cut within a character */
        for (size_t i = 0; text[i] != '\0'; i++)
            text[i] = (signed char)text[i] < 0 ? '?' : text[i];
        remark = json_string(text);
    }
    LRD_CHECK(remark != NULL && json_array_append(f->remarks, remark) == 0, LRD_ERR_NO_MEMORY,
              "out of memory for a report");
out:
    json_decref(remark);
    return status;
}

/* A failure to read a file is a remark; memory that runs out stays a failure. */
static lrd_status_t pass_over(lrd_facts_t *f, lrd_status_t status)
{
    char why[1024];
    if (status == LRD_OK || status == LRD_ERR_NO_MEMORY)
        return status;
    snprintf(why, sizeof why, "%s", lrd_error_text(status));
    lrd_error_clear();
    return lrd_facts_remark(f, "%s", why);
}

/* Reads a JSON file if it is there: NULL in *json_out where not, or with a remark. */
static lrd_status_t read_json(lrd_facts_t *f, const char *folder, const char *name,
                              json_t **json_out)
{
    lrd_status_t status = LRD_OK;
    char *path = NULL;
    json_t *json = NULL;
    LRD_ALLOC(path, lrd_path_join(folder, name));
    if (!lrd_file_exists(path))
        goto out;
    LRD_TRY(pass_over(f, lrd_pyjson_read(path, &json)));
    if (json != NULL && !json_is_object(json)) {
        json_decref(json);
        json = NULL;
        LRD_TRY(lrd_facts_remark(f, "%s: not a JSON object", path));
    }
    *json_out = json;
out:
    lrd_free(path);
    return status;
}

static double file_bytes(const char *path)
{
    struct stat s;
    return stat(path, &s) == 0 && S_ISREG(s.st_mode) ? (double)s.st_size : 0;
}

/* The files of a checkpoint. */
static lrd_status_t add_checkpoint(lrd_facts_t *f, const char *name, int64_t step)
{
    lrd_status_t status = LRD_OK;
    char *folder = NULL, *path = NULL;
    lrd_names_t names = {0};
    lrd_kept_t kept = {.step = step};
    bool has_state = false, has_adapter = false;
    LRD_ALLOC(folder, lrd_path_join(f->folder, name));
    LRD_TRY(pass_over(f, lrd_folder_list(folder, &names)));
    for (size_t i = 0; i < names.n; i++) {
        lrd_free(path);
        LRD_ALLOC(path, lrd_path_join(folder, names.name[i]));
        kept.bytes += file_bytes(path);
        has_state = has_state || strcmp(names.name[i], state_file) == 0;
        has_adapter = has_adapter || strcmp(names.name[i], "adapter_model.safetensors") == 0;
    }
    kept.is_whole = has_state && has_adapter;
    if (!kept.is_whole)
        LRD_TRY(lrd_facts_remark(f, "%s lacks %s", name,
                                 has_state ? "adapter_model.safetensors" : state_file));
    LRD_GROW(f->checkpoint, f->n_checkpoints, f->checkpoint_capacity);
    f->checkpoint[f->n_checkpoints++] = kept;
out:
    lrd_free(path);
    lrd_free(folder);
    lrd_names_free(&names);
    return status;
}

/* "checkpoint-N"; negative: another name. */
static int64_t step_of(const char *name)
{
    static const char prefix[] = "checkpoint-";
    if (strncmp(name, prefix, strlen(prefix)) != 0)
        return -1;
    const char *digits = name + strlen(prefix);
    const size_t n = strspn(digits, "0123456789");
    return n > 0 && n < 16 && digits[n] == '\0' ? strtoll(digits, NULL, 10) : -1;
}

static bool ends_with(const char *text, const char *ending)
{
    const size_t n = strlen(text), m = strlen(ending);
    return n > m && strcmp(text + n - m, ending) == 0;
}

static lrd_status_t add_evaluation(lrd_facts_t *f, const char *file)
{
    lrd_status_t status = LRD_OK;
    json_t *evaluation = NULL, *name = NULL;
    LRD_TRY(read_json(f, f->folder, file, &evaluation));
    if (evaluation == NULL)
        goto out;
    name = json_stringn(file, strlen(file) - strlen(evaluation_ending));
    if (name == NULL)
        name = json_string("?");
    LRD_CHECK(json_object_set(evaluation, "name", name) == 0 &&
                  json_array_append(f->evaluations, evaluation) == 0,
              LRD_ERR_NO_MEMORY, "out of memory for a report");
out:
    json_decref(name);
    json_decref(evaluation);
    return status;
}

static int by_step(const void *a, const void *b)
{
    const int64_t x = ((const lrd_kept_t *)a)->step, y = ((const lrd_kept_t *)b)->step;
    return (x > y) - (x < y);
}

static bool is_of_a_run(const char *name)
{
    static const char *const file[] = {"run.jsonl", "run.claim", "trainer_state.json",
                                       "adapter_config.json", "predictions.json"};
    bool is = ends_with(name, evaluation_ending);
    for (size_t i = 0; i < sizeof file / sizeof file[0]; i++)
        is = is || strcmp(name, file[i]) == 0;
    return is;
}

/* What the names in the folder tell. LRD_ERR_ARG: that it is no run's. */
static lrd_status_t look_around(lrd_facts_t *f)
{
    lrd_status_t status = LRD_OK;
    lrd_names_t names = {0};
    size_t known = 0, others = 0;
    LRD_TRY(lrd_folder_list(f->folder, &names));
    for (size_t i = 0; i < names.n; i++) {
        const char *name = names.name[i];
        const bool is_checkpoint = strncmp(name, "checkpoint-", 11) == 0;
        if (is_checkpoint && step_of(name) >= 0)
            LRD_TRY(add_checkpoint(f, name, step_of(name)));
        else if (is_checkpoint && strstr(name, ".partial") != NULL)
            LRD_TRY(lrd_facts_remark(
                f, "%s is not complete: it is being written, or what a killed run left", name));
        else if (ends_with(name, evaluation_ending))
            LRD_TRY(add_evaluation(f, name));
        known += is_checkpoint || is_of_a_run(name);
        others += name[0] != '.' && strcmp(name, "data") != 0 && !ends_with(name, ".html");
    }
    LRD_CHECK(known > 0 || others == 0, LRD_ERR_ARG,
              "%s is not the output_dir of a run: it has no run.jsonl, trainer_state.json, "
              "adapter_config.json or checkpoint-N",
              f->folder);
    if (f->n_checkpoints > 1)
        qsort(f->checkpoint, f->n_checkpoints, sizeof *f->checkpoint, by_step);
out:
    lrd_names_free(&names);
    return status;
}

static lrd_status_t read_log(lrd_facts_t *f)
{
    lrd_status_t status = LRD_OK;
    char *path = NULL;
    lrd_buf_t text = {0};
    LRD_ALLOC(path, lrd_path_join(f->folder, "run.jsonl"));
    if (!lrd_file_exists(path)) {
        LRD_TRY(lrd_facts_remark(
            f, "there is no run.jsonl: time, tokens, memory and ranks are not known"));
        goto out;
    }
    LRD_TRY(pass_over(f, lrd_file_read(path, (size_t)1 << 30, &text)));
    LRD_TRY(lrd_facts_add_log(f, text.data != NULL ? text.data : "", text.size));
out:
    lrd_buf_release(&text);
    lrd_free(path);
    return status;
}

/* Is what lies in a folder of an earlier run, to go by the history there? Not without one that can be read. */
static lrd_status_t find_other(lrd_facts_t *f, const char *folder, bool *is_other_out)
{
    lrd_status_t status = LRD_OK;
    char *path = NULL;
    json_t *state = NULL;
    *is_other_out = false;
    LRD_ALLOC(path, lrd_path_join(folder, state_file));
    if (lrd_file_exists(path))
        status = lrd_pyjson_read(path, &state);
    if (status != LRD_OK && status != LRD_ERR_NO_MEMORY) {
        lrd_error_clear(); /* whoever shows it says so */
        status = LRD_OK;
    }
    LRD_TRY(status);
    LRD_TRY(lrd_facts_compare_state(f, state, is_other_out));
    if (*is_other_out)
        LRD_TRY(lrd_facts_remark(f,
                                 "%s: adapter and history there are of an earlier run in this "
                                 "folder (its losses are others than those of run.jsonl) and are "
                                 "not shown",
                                 folder));
out:
    json_decref(state);
    lrd_free(path);
    return status;
}

static char *checkpoint_path(const lrd_facts_t *f, size_t i)
{
    return lrd_asprintf("%s/checkpoint-%lld", f->folder, (long long)f->checkpoint[i].step);
}

/* A run that starts over leaves the results of the one before until it has its own: its first checkpoint takes the place
 * of all others. */
static lrd_status_t leave_out_others(lrd_facts_t *f)
{
    lrd_status_t status = LRD_OK;
    char *folder = NULL;
    bool is_other = true;
    LRD_TRY(find_other(f, f->folder, &f->result_is_other));
    while (f->n_checkpoints > 0 && is_other) {
        lrd_free(folder);
        LRD_ALLOC(folder, checkpoint_path(f, f->n_checkpoints - 1));
        LRD_TRY(find_other(f, folder, &is_other));
        f->n_checkpoints -= is_other;
    }
out:
    lrd_free(folder);
    return status;
}

/* A candidate for the history, and the folder that it is of. */
static lrd_status_t try_state(lrd_facts_t *f, const char *folder, bool *taken_out)
{
    lrd_status_t status = LRD_OK;
    json_t *state = NULL;
    char *name = NULL;
    LRD_TRY(read_json(f, folder, state_file, &state));
    if (state == NULL)
        goto out;
    LRD_ALLOC(name, lrd_path_join(folder, state_file));
    LRD_TRY(lrd_facts_add_state(f, state, name, taken_out));
out:
    lrd_free(name);
    json_decref(state);
    return status;
}

/* The folder's own; where it has none of this run, that of the newest checkpoint that has. */
static lrd_status_t read_state(lrd_facts_t *f)
{
    lrd_status_t status = LRD_OK;
    char *folder = NULL;
    bool taken = false;
    if (!f->result_is_other) {
        LRD_TRY(try_state(f, f->folder, &taken));
        LRD_TRY(read_json(f, f->folder, "adapter_config.json", &f->config));
    }
    for (size_t i = f->n_checkpoints; i > 0 && !taken; i--) {
        lrd_free(folder);
        LRD_ALLOC(folder, checkpoint_path(f, i - 1));
        LRD_TRY(try_state(f, folder, &taken));
    }
    for (size_t i = f->n_checkpoints; i > 0 && f->config == NULL; i--) {
        lrd_free(folder);
        LRD_ALLOC(folder, checkpoint_path(f, i - 1));
        LRD_TRY(read_json(f, folder, "adapter_config.json", &f->config));
    }
    if (!taken)
        LRD_TRY(lrd_facts_remark(f, "there is no trainer_state.json of this run yet%s",
                                 f->start != NULL ? "; what run.jsonl tells is shown" : ""));
out:
    lrd_free(folder);
    return status;
}

/* Size and parameters of the adapter. */
static lrd_status_t read_adapter(lrd_facts_t *f)
{
    lrd_status_t status = LRD_OK;
    char *path = NULL;
    lrd_safetensors_t *file = NULL;
    LRD_ALLOC(path, lrd_path_join(f->folder, "adapter_model.safetensors"));
    f->adapter_bytes = f->result_is_other ? 0 : file_bytes(path);
    if (f->result_is_other)
        goto out;
    if (f->adapter_bytes == 0) {
        LRD_TRY(lrd_facts_remark(
            f, "there is no adapter_model.safetensors: it is written when the run is done"));
        goto out;
    }
    LRD_TRY(pass_over(f, lrd_safetensors_open(path, &file)));
    for (size_t i = 0; file != NULL && i < file->n_entries; i++)
        f->trainable += file->entry[i].n_elements;
out:
    lrd_safetensors_close(file);
    lrd_free(path);
    return status;
}

static int64_t whole(const json_t *object, const char *key)
{
    double value;
    return lrd_pyjson_real(object, key, &value) && value >= 0 && value <= 9e15 ? (int64_t)value : 0;
}

static lrd_outcome_t find_outcome(const lrd_facts_t *f)
{
    const char *state = lrd_pyjson_text(f->end, "state");
    if (f->start == NULL)
        return f->step > 0 && f->step == f->max_steps && f->adapter_bytes > 0 ? LRD_OUTCOME_DONE
                                                                              : LRD_OUTCOME_UNKNOWN;
    if (state == NULL)
        return LRD_OUTCOME_OPEN;
    return strcmp(state, "done") == 0          ? LRD_OUTCOME_DONE
           : strcmp(state, "interrupted") == 0 ? LRD_OUTCOME_INTERRUPTED
                                               : LRD_OUTCOME_FAILED;
}

static void sum_up(lrd_facts_t *f)
{
    const lrd_series_t *loss = &f->curve[LRD_CURVE_LOSS];
    f->step = whole(f->state, "global_step");
    if (whole(f->end, "step") > f->step)
        f->step = whole(f->end, "step");
    if (loss->n > 0 && loss->x[loss->n - 1] > (double)f->step)
        f->step = (int64_t)loss->x[loss->n - 1];
    f->max_steps = whole(f->start, "updates");
    if (f->max_steps == 0)
        f->max_steps = whole(f->state, "max_steps");
    if (whole(f->start, "trainable") > 0)
        f->trainable = whole(f->start, "trainable");
    f->outcome = find_outcome(f);
}

/* The last part of the folder's full name: "." has a name, too. */
static lrd_status_t find_name(lrd_facts_t *f)
{
    lrd_status_t status = LRD_OK;
    char *full = NULL;
    LRD_TRY(lrd_path_resolve(f->folder, &full));
    const char *base = lrd_path_base(full);
    LRD_ALLOC(f->name, lrd_strdup(base[0] != '\0' ? base : full));
out:
    lrd_free(full);
    return status;
}

lrd_status_t lrd_facts_read(const char *folder, lrd_facts_t *f)
{
    lrd_status_t status = LRD_OK;
    *f = (lrd_facts_t){.folder = folder};
    LRD_ALLOC(f->warnings, json_array());
    LRD_ALLOC(f->resumes, json_array());
    LRD_ALLOC(f->evaluations, json_array());
    LRD_ALLOC(f->remarks, json_array());
    LRD_CHECK(lrd_folder_exists(folder), LRD_ERR_ARG, "%s: no such folder", folder);
    LRD_TRY(find_name(f));
    LRD_TRY(look_around(f));
    LRD_TRY(read_log(f));
    LRD_TRY(leave_out_others(f));
    LRD_TRY(read_state(f));
    LRD_TRY(read_adapter(f));
    sum_up(f);
out:
    return status;
}

void lrd_facts_close(lrd_facts_t *f)
{
    json_decref(f->state);
    json_decref(f->config);
    json_decref(f->start);
    json_decref(f->end);
    json_decref(f->resumes);
    json_decref(f->warnings);
    json_decref(f->evaluations);
    json_decref(f->remarks);
    for (int c = 0; c < LRD_N_CURVES; c++)
        lrd_series_release(&f->curve[c]);
    lrd_free(f->checkpoint);
    lrd_free(f->name);
    *f = (lrd_facts_t){0};
}

const json_t *lrd_facts_setting(const lrd_facts_t *f, const char *section, const char *key)
{
    const json_t *settings = json_object_get(f->start, "settings");
    return json_object_get(json_object_get(settings, section), key);
}
