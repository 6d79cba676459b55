#include "train/session_data.h"

#include "base/file.h"
#include "base/mem.h"
#include "train/resume.h"

#include <stdio.h>
#include <string.h>

/* <cache>/<key>.h5: the key is the name's. */
static void remember_key(const char *path, char key[80])
{
    const char *base = lrd_path_base(path);
    const char *dot = strrchr(base, '.');
    snprintf(key, 80, "%.*s", (int)(dot != NULL ? dot - base : (long)strlen(base)), base);
}

/* The tokenized data set of a file, or of files that it stands for: built by rank 0 where need be, mapped by all.
 * Collective. */
static lrd_status_t open_data_file(lrd_session_t *s, const char *file, const lrd_names_t *files,
                                   const char *cache, const lrd_tokenizer_t *tokenizer,
                                   char key[80], lrd_dataset_t **set_out)
{
    enum { PATH_BYTES = 4096 };
    lrd_status_t status = LRD_OK;
    char *path = NULL, shared[PATH_BYTES] = "";
    const bool is_root = lrd_comm_rank(s->o.comm) == 0;
    const lrd_dataset_spec_t spec = {.path = file,
                                     .files = files,
                                     .settings = &s->o.settings->data,
                                     .tokenizer = tokenizer,
                                     .vocab_size = s->engine.config.vocab_size,
                                     .n_threads = s->o.n_threads,
                                     .stop = s->o.stop};
    if (is_root) {
        LRD_TRY(lrd_dataset_build(&spec, cache, &path));
        LRD_CHECK(strlen(path) < sizeof shared, LRD_ERR_CONFIG, "%s: the path is too long", path);
        snprintf(shared, sizeof shared, "%s", path);
    }
out:
    status = lrd_agree(s->o.comm, status);
    if (status == LRD_OK)
        status = lrd_comm_broadcast(s->o.comm, shared, sizeof shared, 0);
    if (status == LRD_OK)
        status = lrd_dataset_open(shared, set_out);
    status = lrd_agree(s->o.comm, status);
    remember_key(shared, key);
    lrd_free(path);
    return status;
}

/* Only rank 0 reads text. */
static lrd_status_t open_tokenizer(const lrd_session_t *s, lrd_tokenizer_t **tokenizer_out)
{
    lrd_status_t status = LRD_OK;
    lrd_tokenizer_t *t = NULL;
    const lrd_settings_t *x = s->o.settings;
    if (x->data.format == LRD_FORMAT_TOKENIZED || lrd_comm_rank(s->o.comm) != 0)
        goto out;
    LRD_TRY(lrd_tokenizer_load(s->o.model_folder, &t));
    LRD_CHECK(lrd_tokenizer_size(t) <= s->engine.config.vocab_size, LRD_ERR_FORMAT,
              "%s: its tokenizer.json has ids up to %d, the model's vocabulary has %lld rows: "
              "tokenizer and model do not match",
              s->o.model_folder, (int)lrd_tokenizer_size(t) - 1,
              (long long)s->engine.config.vocab_size);
    *tokenizer_out = t;
    t = NULL;
out:
    lrd_tokenizer_free(t);
    return status;
}

static uint64_t data_seed(const lrd_training_settings_t *t)
{
    return (uint64_t)(t->data_seed != LRD_SETTING_NULL ? t->data_seed : t->seed);
}

static lrd_status_t split_data(lrd_session_t *s)
{
    lrd_status_t status = LRD_OK;
    lrd_dataset_t *train, *eval;
    if (s->o.settings->data.validation_split <= 0)
        goto out;
    LRD_TRY(lrd_dataset_split(s->train, s->o.settings->data.validation_split,
                              data_seed(&s->o.settings->training), &train, &eval));
    lrd_dataset_close(s->train);
    s->train = train;
    s->eval = eval;
out:
    return status;
}

/* The loss of no target is no number. */
static lrd_status_t check_targets(const lrd_session_t *s)
{
    lrd_status_t status = LRD_OK;
    const lrd_dataset_t *const sets[] = {s->train, s->eval};
    for (int i = 0; i < 2; i++) {
        const lrd_dataset_info_t *d = sets[i] != NULL ? lrd_dataset_info(sets[i]) : NULL;
        LRD_CHECK(
            d == NULL || d->n_targets > 0, LRD_ERR_FORMAT,
            "%s: no token is a target: every label is -100, or the records have one token each",
            d->name);
    }
out:
    return status;
}

/* Collective. */
lrd_status_t lrd_session_open_data(lrd_session_t *s)
{
    lrd_status_t status = LRD_OK;
    const lrd_settings_t *x = s->o.settings;
    lrd_tokenizer_t *tokenizer = NULL;
    char *cache = NULL, eval_key[80];
    if (x->data.cache_dir != NULL)
        cache = lrd_strdup(x->data.cache_dir);
    else
        cache = lrd_path_join(x->training.output_dir, "data");
    status = cache != NULL ? open_tokenizer(s, &tokenizer)
                           : lrd_fail(LRD_ERR_NO_MEMORY, __FILE__, __LINE__, "out of memory");
    LRD_TRY(lrd_agree_unless_stopped(s->o.comm, status, s->o.stop));
    LRD_TRY(open_data_file(s, x->data.train_file, s->o.train_files, cache, tokenizer, s->data_key,
                           &s->train));
    if (x->data.eval_file != NULL)
        LRD_TRY(open_data_file(s, x->data.eval_file, s->o.eval_files, cache, tokenizer, eval_key,
                               &s->eval));
    LRD_TRY(lrd_agree_unless_stopped(s->o.comm, split_data(s), s->o.stop));
    LRD_TRY(lrd_agree_unless_stopped(s->o.comm, check_targets(s), s->o.stop));
out:
    lrd_tokenizer_free(tokenizer);
    lrd_free(cache);
    return status;
}

lrd_status_t lrd_session_open_loader(lrd_session_t *s)
{
    lrd_status_t status = LRD_OK;
    const lrd_training_settings_t *t = &s->o.settings->training;
    s->records_per_update =
        t->global_batch_size != LRD_SETTING_NULL
            ? t->global_batch_size
            : t->per_device_train_batch_size * t->gradient_accumulation_steps * s->grid.n_replicas;
    if (s->resumes)
        LRD_TRY(lrd_resume_check_batch(&s->checkpoint, t, &s->records_per_update));
    LRD_TRY(lrd_loader_create(
        s->train,
        &(lrd_loader_settings_t){.records_per_micro_batch = t->per_device_train_batch_size,
                                 .max_tokens = t->max_tokens_per_micro_batch != LRD_SETTING_NULL
                                                   ? t->max_tokens_per_micro_batch
                                                   : 0,
                                 .records_per_update = s->records_per_update,
                                 .seed = data_seed(t)},
        &s->loader));
    s->n_updates = lrd_loader_total_updates(s->loader, t->max_steps, t->num_train_epochs);
    if (s->resumes)
        LRD_TRY(lrd_resume_check_data(&s->checkpoint, s->data_key, s->n_updates));
out:
    return status;
}
