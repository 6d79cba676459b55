#include "train/saver.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "lora/peft.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

lrd_status_t lrd_saver_open(lrd_saver_t *s, int64_t n_params)
{
    lrd_status_t status = LRD_OK;
    *s = (lrd_saver_t){.running = false};
    LRD_NEW(s->memory, 3 * n_params);
    s->snapshot.checkpoint.optimizer = (lrd_optimizer_state_t){
        .params = s->memory, .m = s->memory + n_params, .v = s->memory + 2 * n_params};
out:
    return status;
}

static void join(lrd_saver_t *s)
{
    if (s->running)
        pthread_join(s->thread, NULL);
    s->running = false;
}

void lrd_saver_close(lrd_saver_t *s)
{
    join(s);
    lrd_buf_release(&s->snapshot.about);
    lrd_buf_release(&s->snapshot.history);
    lrd_free(s->memory);
    *s = (lrd_saver_t){.running = false};
}

lrd_status_t lrd_snapshot_write_adapter(const lrd_snapshot_t *s, const char *folder)
{
    lrd_status_t status = LRD_OK;
    char *path = NULL;
    LRD_TRY(lrd_peft_write(folder, s->adapter, s->lora, s->checkpoint.optimizer.params,
                           &(lrd_peft_card_t){.base_model = s->settings->model.name_or_path,
                                              .revision = s->revision,
                                              .about = s->about.data}));
    LRD_ALLOC(path, lrd_path_join(folder, lrd_history_file));
    LRD_TRY(lrd_file_write(path, s->history.data, s->history.size));
out:
    lrd_free(path);
    return status;
}

static lrd_status_t write_folder(const lrd_snapshot_t *s)
{
    lrd_status_t status = LRD_OK;
    char *path = NULL, *partial = NULL;
    LRD_ALLOC(path, lrd_checkpoint_path(s->settings->training.output_dir, s->checkpoint.step));
    LRD_TRY(lrd_folder_begin(path, &partial));
    LRD_TRY(lrd_snapshot_write_adapter(s, partial));
    LRD_TRY(lrd_checkpoint_write(partial, s->adapter, &s->checkpoint));
    LRD_TRY(lrd_folder_commit(partial, path));
out:
    if (status != LRD_OK)
        lrd_folder_abandon(partial);
    lrd_free(partial);
    lrd_free(path);
    return status;
}

/* Removes the oldest checkpoints beyond the limit; all others where a run has started over. */
static lrd_status_t remove_old(const lrd_snapshot_t *s)
{
    lrd_status_t status = LRD_OK;
    const lrd_training_settings_t *t = &s->settings->training;
    int64_t *steps = NULL;
    size_t n = 0;
    char *path = NULL;
    if (t->save_total_limit == LRD_SETTING_NULL && !s->alone)
        goto out;
    LRD_TRY(lrd_checkpoint_list(t->output_dir, &steps, &n));
    const size_t most = s->alone ? 1 : (size_t)t->save_total_limit;
    size_t left = n;
    for (size_t i = 0; i < n && left > most; i++) {
        if (steps[i] == s->checkpoint.step || (steps[i] == s->best_step && !s->alone))
            continue;
        lrd_free(path);
        LRD_ALLOC(path, lrd_checkpoint_path(t->output_dir, steps[i]));
        LRD_TRY(lrd_folder_discard(path));
        left--;
    }
out:
    lrd_free(path);
    lrd_free(steps);
    return status;
}

static double thread_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *run(void *arg)
{
    lrd_saver_t *s = arg;
    const lrd_snapshot_t *snapshot = &s->snapshot;
    const double begun = lrd_clock_seconds();
    lrd_status_t status = LRD_OK;
    LRD_TRY(write_folder(snapshot));
    LRD_TRY(remove_old(snapshot));
    lrd_info("Wrote %s/checkpoint-%lld", snapshot->settings->training.output_dir,
             (long long)snapshot->checkpoint.step);
    lrd_debug("checkpoint-%lld: written in %.2f ms, %.2f ms of them of a processor",
              (long long)snapshot->checkpoint.step, 1e3 * (lrd_clock_seconds() - begun),
              1e3 * thread_seconds());
out:
    if (status != LRD_OK) /* the record of this thread ends with it */
        snprintf(s->cause, sizeof s->cause, "%s", lrd_error_text(status));
    s->status = status;
    atomic_store(&s->failed, status != LRD_OK);
    return NULL;
}

lrd_status_t lrd_saver_start(lrd_saver_t *s)
{
    lrd_status_t status = LRD_OK;
    sigset_t all, before;
    sigfillset(&all); /* signals are for the thread that trains */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int rc = pthread_create(&s->thread, NULL, run, s);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    LRD_CHECK(rc == 0, LRD_ERR_NO_MEMORY, "cannot start the thread that writes checkpoints: %s",
              strerror(rc));
    s->running = true;
out:
    return status;
}

lrd_status_t lrd_saver_wait(lrd_saver_t *s)
{
    lrd_status_t status = LRD_OK;
    join(s);
    LRD_CHECK(s->status == LRD_OK, s->status, "%s", s->cause);
out:
    return status;
}

lrd_status_t lrd_saver_poll(lrd_saver_t *s)
{
    return atomic_load(&s->failed) ? lrd_saver_wait(s) : LRD_OK;
}
