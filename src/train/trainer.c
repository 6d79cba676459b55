#include "train/trainer.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/progress.h"
#include "kernels/op_profile.h"
#include "train/output.h"
#include "train/run_log.h"
#include "train/schedule.h"

#include <math.h>
#include <stdio.h>

typedef struct trainer {
    lrd_session_t s;
    double *lr;         /* [n_updates] */
    int64_t first_step; /* updates done before this process */
    int64_t adam_t;     /* updates taken before the one in work */
    lrd_progress_t progress;
    lrd_run_log_t log;
    double begun; /* of the window since the last log entry */
    int64_t tokens, updates;
    double waited_before;    /* `waited` as it began */
    int64_t skipped;         /* updates of it that came to nothing */
    int64_t micro_batches;   /* of the update in work */
    double updating, waited; /* seconds of all updates; those of rank 0 spent on other ranks */
    double device_updating, device_waited; /* the same of its device, where devices are connected */
} trainer_t;

static lrd_status_t report_start(const lrd_session_t *s)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t text = {0};
    const lrd_dataset_info_t *d = lrd_dataset_info(s->train);
    const int size = lrd_comm_size(s->o.comm);
    LRD_TRY(
        lrd_model_print_trainable(&s->engine.config, s->engine.weights->tied, s->adapter, &text));
    lrd_info("%s", text.data);
    lrd_info("%lld records of %lld tokens on average (%lld to %lld), %lld left out, %lld cut",
             (long long)d->n_records, (long long)(d->n_tokens / d->n_records),
             (long long)d->shortest_tokens, (long long)d->longest_tokens, (long long)d->n_dropped,
             (long long)d->n_truncated);
    lrd_info("%lld updates of %lld records on %d rank%s; %s", (long long)s->n_updates,
             (long long)s->records_per_update, size, size == 1 ? "" : "s", s->engine.machine);
    if (s->grid.n_stages > 1)
        lrd_info("%d replica%s of %d stages, %d run%s of layers on each", s->grid.n_replicas,
                 s->grid.n_replicas == 1 ? "" : "s", s->grid.n_stages, s->runs.n,
                 s->runs.n == 1 ? "" : "s");
out:
    lrd_buf_release(&text);
    return status;
}

/* How busy the stages were, beside what is possible with so many micro-batches (docs/pipeline.md). */
static void describe_stages(const trainer_t *t, const lrd_step_result_t *r, char text[48])
{
    const lrd_session_t *s = &t->s;
    const int p = s->grid.n_stages, v = s->placement.n_runs / p;
    const double m = ceil((double)t->micro_batches / s->grid.n_replicas);
    text[0] = '\0';
    if (p > 1)
        snprintf(text, 48, " busy %.0f %% of at most %.0f %%", 100 * r->busy,
                 100 * m / (m + (p - 1.0) / v));
}

static lrd_run_log_update_t since_last_entry(const trainer_t *t)
{
    return (lrd_run_log_update_t){.seconds = lrd_clock_seconds() - t->begun,
                                  .waited = t->waited - t->waited_before,
                                  .updates = t->updates,
                                  .tokens = t->tokens,
                                  .skipped = t->skipped};
}

/* A log entry, and its line or its place beside the bar. */
static lrd_status_t log_step(trainer_t *t, const lrd_step_result_t *r, double lr)
{
    lrd_status_t status = LRD_OK;
    lrd_history_t *h = &t->s.history;
    double loss;
    char note[208], stages[48];
    LRD_TRY(lrd_history_log_step(h, r->clock.grad_norm, lr, &loss));
    lrd_run_log_update_t u = since_last_entry(t);
    const double seconds = u.seconds;
    const double rate = seconds > 0 ? (double)t->tokens / seconds : 0;
    u.loss = loss;
    u.grad_norm = r->clock.grad_norm;
    u.learning_rate = lr;
    u.loss_scale = t->s.optimizer.scaler ? r->clock.loss_scale : 0;
    LRD_TRY(lrd_run_log_update(&t->log, &t->s, &u));
    describe_stages(t, r, stages);
    snprintf(note, sizeof note, "loss %.4f grad_norm %.4g lr %.4g %.0f tokens/s%s", loss,
             r->clock.grad_norm, lr, rate, stages);
    lrd_progress_update(&t->progress, h->global_step, note);
    if (!lrd_log_is_terminal()) {
        char left[24];
        const int64_t to_go = t->s.n_updates - h->global_step;
        const double per_update = seconds / (double)t->s.o.settings->training.logging_steps;
        lrd_format_duration(per_update * (double)to_go, left);
        lrd_info("update %lld/%lld epoch %.4g %s, %s left", (long long)h->global_step,
                 (long long)t->s.n_updates, h->epoch, note, left);
    }
    t->begun = lrd_clock_seconds();
    t->waited_before = t->waited;
    t->tokens = t->updates = t->skipped = 0;
out:
    return status;
}

static lrd_status_t evaluate(trainer_t *t)
{
    lrd_status_t status = LRD_OK;
    lrd_session_t *s = &t->s;
    const lrd_answering_t *a = s->o.answering;
    lrd_eval_result_t r = {.has_answers = s->answering};
    char answers[64] = "";
    const double begun = lrd_clock_seconds();
    LRD_TRY(lrd_evaluate(&s->evaluator, &r.loss));
    if (r.has_answers) {
        LRD_TRY(a->run(a->context, s->optimizer.params, &r.exact, &r.f1));
        snprintf(answers, sizeof answers, " eval_exact %.4g eval_f1 %.4g", r.exact, r.f1);
    }
    LRD_TRY(lrd_comm_abort(
        s->o.comm,
        lrd_history_log_eval(&s->history, &r, s->o.settings->training.metric_for_best_model)));
    lrd_info("update %lld/%lld eval_loss %.6g%s", (long long)s->history.global_step,
             (long long)s->n_updates, r.loss, answers);
    const double seconds = lrd_clock_seconds() - begun;
    LRD_TRY(lrd_comm_abort(s->o.comm, lrd_run_log_eval(&t->log, s, &r, seconds)));
    t->begun += lrd_clock_seconds() - begun;
out:
    return status;
}

/* Too many updates in a row that came to nothing end the run, on all ranks alike. */
static lrd_status_t check_finite(const trainer_t *t, const lrd_step_result_t *r)
{
    lrd_status_t status = LRD_OK;
    const int64_t most = t->s.o.settings->training.max_nonfinite_steps;
    LRD_CHECK(r->clock.bad_in_a_row < most, LRD_ERR_NONFINITE,
              "update %lld: loss or gradient was not finite in %d updates in a row (loss %g, "
              "gradient norm %g). Lower training.learning_rate, or look at the data; "
              "training.max_nonfinite_steps says how many are borne",
              (long long)t->s.history.global_step, (int)r->clock.bad_in_a_row, r->loss,
              r->clock.grad_norm);
    if (r->clock.bad && !t->s.optimizer.scaler)
        lrd_warn("update %lld was skipped: its gradient is not finite",
                 (long long)t->s.history.global_step);
out:
    return status;
}

static bool evaluation_is_due(const lrd_session_t *s)
{
    const int64_t every = s->o.settings->training.eval_steps, step = s->history.global_step;
    return every != LRD_SETTING_NULL && (step % every == 0 || step == s->n_updates);
}

/* Evaluates, unless asked to stop: then the evaluation is dropped. */
static lrd_status_t try_evaluate(trainer_t *t, bool *stopped_out)
{
    const lrd_status_t status = evaluate(t);
    if (status != LRD_ERR_INTERRUPTED)
        return status;
    lrd_error_clear();
    *stopped_out = true;
    return LRD_OK;
}

static lrd_status_t save(trainer_t *t, bool interrupted)
{
    lrd_status_t status = LRD_OK;
    const double begun = lrd_clock_seconds();
    LRD_TRY(lrd_output_checkpoint(&t->s, interrupted));
    const double seconds = lrd_clock_seconds() - begun;
    LRD_TRY(lrd_comm_abort(t->s.o.comm, lrd_run_log_checkpoint(&t->log, &t->s, seconds)));
    t->begun += lrd_clock_seconds() - begun;
out:
    return status;
}

/* One update, with all that is due behind it. */
static lrd_status_t run_update(trainer_t *t, bool *stopped_out)
{
    lrd_status_t status = LRD_OK;
    lrd_session_t *s = &t->s;
    const lrd_training_settings_t *x = &s->o.settings->training;
    lrd_update_t update;
    lrd_step_result_t r = {0};
    LRD_TRY(lrd_output_check(s));
    status = lrd_loader_update(s->loader, s->history.global_step, &update);
    const double begun = lrd_clock_seconds();
    if (status == LRD_OK)
        status = lrd_stepper_run(&s->stepper, &update, &r);
    LRD_TRY(lrd_comm_abort(s->o.comm, status));
    t->updating += lrd_clock_seconds() - begun;
    t->waited += r.waited;
    t->device_updating += r.device_seconds;
    t->device_waited += r.device_waited;
    if (r.dropped) {
        *stopped_out = true;
        if (s->history.global_step > t->first_step)
            LRD_TRY(save(t, true));
        goto out;
    }
    const double lr = t->lr[t->adam_t < s->n_updates ? t->adam_t : s->n_updates - 1];
    t->adam_t = r.clock.adam_t;
    s->history.global_step++;
    s->history.epoch = update.epoch_after;
    s->history.loss_sum += r.loss;
    s->history.loss_count++;
    t->tokens += update.n_tokens;
    t->updates++;
    t->skipped += r.clock.bad != 0;
    t->micro_batches = update.n_micro_batches;
    const int64_t step = s->history.global_step;
    if (step == 1)
        lrd_output_start_over(s);
    const bool is_last = step == s->n_updates;
    if (step % x->logging_steps == 0)
        LRD_TRY(lrd_comm_abort(s->o.comm, log_step(t, &r, lr)));
    if (r.reshared)
        LRD_TRY(lrd_comm_abort(s->o.comm, lrd_run_log_shares(&t->log, s)));
    LRD_TRY(check_finite(t, &r));
    *stopped_out = r.stop && !is_last;
    if (evaluation_is_due(s) && !*stopped_out)
        LRD_TRY(try_evaluate(t, stopped_out));
    if (step % x->save_steps == 0 || is_last || *stopped_out)
        LRD_TRY(save(t, *stopped_out));
out:
    return status;
}

/* The share of its own time that rank 0 spent on others, and its device. */
static void report_waiting(const trainer_t *t)
{
    char device[64] = "";
    if (lrd_comm_size(t->s.o.comm) == 1 || t->updating <= 0)
        return;
    if (t->device_updating > 0)
        snprintf(device, sizeof device, ", their devices in %.1f %%",
                 100 * t->device_waited / t->device_updating);
    lrd_info(
        "Ranks waited for each other and the network in %.1f %% of the time of updates%s (rank 0)",
        100 * t->waited / t->updating, device);
}

/* Of the training, and of answers that were generated meanwhile, while its own stayed. */
static lrd_graphs_taken_t graphs_taken(const lrd_session_t *s)
{
    const lrd_answering_t *a = s->o.answering;
    const lrd_graphs_taken_t own = lrd_graphs_taken(s->stage->graphs);
    const lrd_graphs_taken_t of_answers =
        s->answering ? a->graphs_taken(a->context) : (lrd_graphs_taken_t){0, 0};
    return (lrd_graphs_taken_t){own.most + of_answers.most, own.now + of_answers.now};
}

/* What libraries took of the device's memory for themselves, beside what was set aside for it. */
static void report_device(const trainer_t *t)
{
    const lrd_engine_t *e = &t->s.engine;
    const lrd_memory_t *m = &e->memory;
    const double nccl = (double)lrd_grid_taken(&t->s.grid);
    const lrd_graphs_taken_t graphs = graphs_taken(&t->s);
    const double own = (double)(m->model.capacity + m->step.capacity + m->scratch.bytes) + nccl +
                       (double)graphs.now;
    size_t free_bytes, total_bytes;
    if (m->nccl.bound + m->graphs.bound == 0)
        return;
    if (lrd_mem_info(e->backend, &free_bytes, &total_bytes) != LRD_OK) {
        lrd_error_clear(); /* the run is over, and well */
        return;
    }
    lrd_info("Device memory that libraries took on rank 0: NCCL %.1f of at most %.1f MiB, "
             "graphs %.1f of at most %.1f; %.1f MiB went elsewhere (kernels, cuBLASLt, other "
             "programs)",
             nccl / 0x1p20, (double)m->nccl.bound / 0x1p20, (double)graphs.most / 0x1p20,
             (double)m->graphs.bound / 0x1p20,
             ((double)e->free_bytes - (double)free_bytes - own) / 0x1p20);
}

/* Peak memory as the system counted it, beside what the layout said. */
static void report_end(const trainer_t *t, double seconds)
{
    char text[24];
    lrd_format_duration(seconds, text);
    const lrd_memory_t *m = &t->s.engine.memory;
    lrd_info("Done in %s: %s/adapter_model.safetensors", text,
             t->s.o.settings->training.output_dir);
    report_waiting(t);
    if (t->s.engine.backend->ops->reads_host_memory)
        lrd_info("Peak memory of rank 0: %.1f MiB resident; planned %.1f MiB (%.1f of them mapped)",
                 (double)lrd_mem_peak_bytes() / 0x1p20,
                 (double)(lrd_memory_needed(m) + m->mapped_bytes) / 0x1p20,
                 (double)m->mapped_bytes / 0x1p20);
    else
        lrd_info("Peak memory of rank 0: %.1f MiB resident on the host; planned %.1f MiB of it "
                 "pinned, and %.1f MiB of the device",
                 (double)lrd_mem_peak_bytes() / 0x1p20,
                 (double)(m->pinned_bytes + m->host_bytes) / 0x1p20,
                 (double)lrd_memory_needed(m) / 0x1p20);
    report_device(t);
}

/* Where the time of the updates went, at log level debug. */
static lrd_status_t report_profile(void)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t text = {0};
    double total = 0;
    for (int op = 0; op < LRD_N_OPS; op++)
        total += lrd_profile_read((lrd_op_t)op).seconds;
    for (int op = 0; op < LRD_N_OPS; op++) {
        const lrd_op_cost_t c = lrd_profile_read((lrd_op_t)op);
        if (c.calls > 0)
            LRD_TRY(lrd_buf_printf(
                &text, "\n  %-16s %8lld calls %11.6f s %5.1f %% %8.1f GFLOP/s %7.2f GB/s",
                lrd_op_name((lrd_op_t)op), (long long)c.calls, c.seconds, 100 * c.seconds / total,
                c.flops / c.seconds / 1e9, c.bytes / c.seconds / 1e9));
    }
    lrd_debug("Time of each op:%s", text.data != NULL ? text.data : " none ran");
out:
    lrd_buf_release(&text);
    return status;
}

static lrd_status_t prepare(trainer_t *t)
{
    lrd_status_t status = LRD_OK;
    const lrd_session_t *s = &t->s;
    LRD_NEW(t->lr, s->n_updates);
    lrd_schedule_fill(&s->o.settings->training, s->n_updates, t->lr);
    LRD_TRY(report_start(s));
out:
    return status;
}

/* An interrupted run may have left without the evaluation of its last update: it comes first. */
static lrd_status_t catch_up(trainer_t *t, bool *stopped_out)
{
    const lrd_session_t *s = &t->s;
    if (!s->resumes || !s->checkpoint.interrupted || !evaluation_is_due(s) ||
        lrd_history_has_eval(&s->history, s->history.global_step))
        return LRD_OK;
    return try_evaluate(t, stopped_out);
}

/* What an interruption leaves, for people. */
static void report_interruption(const trainer_t *t)
{
    const lrd_session_t *s = &t->s;
    const long long step = s->history.global_step;
    if (step > t->first_step)
        lrd_info("Interrupted after update %lld of %lld; %s/checkpoint-%lld stands. Run the same "
                 "command again to go on",
                 step, (long long)s->n_updates, s->o.settings->training.output_dir, step);
    else if (s->resumes)
        lrd_info("Interrupted before another update: the checkpoint of update %lld stands as it "
                 "was. Run the same command again to go on",
                 step);
    else
        lrd_info("Interrupted before the first update: there is nothing to keep yet. Run the same "
                 "command again to start");
}

static lrd_status_t log_end(trainer_t *t, const char *state)
{
    const lrd_run_log_update_t rest = since_last_entry(t);
    return lrd_run_log_end(&t->log, &t->s, state, &rest, t->updating, t->waited);
}

static lrd_status_t run(trainer_t *t, lrd_train_end_t *end)
{
    lrd_status_t status = LRD_OK;
    lrd_session_t *s = &t->s;
    const double begun = lrd_clock_seconds();
    bool stopped = false;
    LRD_TRY(lrd_agree(s->o.comm, prepare(t)));
    LRD_TRY(lrd_run_log_begin(&t->log, s));
    t->first_step = s->history.global_step = s->resumes ? s->checkpoint.step : 0;
    t->adam_t = s->resumes ? s->checkpoint.optimizer.clock.adam_t : 0;
    lrd_progress_begin(&t->progress, "Training", "updates", s->history.global_step, s->n_updates);
    t->progress.quiet = true;
    t->begun = begun;
    *end = LRD_TRAIN_FAILED;
    if (lrd_log_enabled(LRD_LOG_DEBUG))
        lrd_profile_start();
    LRD_TRY(catch_up(t, &stopped));
    while (s->history.global_step < s->n_updates && !stopped)
        LRD_TRY(run_update(t, &stopped));
    lrd_progress_end(&t->progress, s->history.global_step);
    if (lrd_profile_is_on())
        LRD_TRY(lrd_agree(s->o.comm, report_profile()));
    lrd_profile_stop();
    LRD_TRY(lrd_output_settle(s));
    if (stopped) {
        LRD_TRY(log_end(t, "interrupted"));
        report_interruption(t);
        *end = LRD_TRAIN_INTERRUPTED;
        goto out;
    }
    LRD_TRY(lrd_output_final(s));
    LRD_TRY(log_end(t, "done"));
    *end = LRD_TRAIN_DONE;
    report_end(t, lrd_clock_seconds() - begun);
out:
    return status;
}

lrd_status_t lrd_train(const lrd_session_options_t *options, lrd_train_end_t *end_out)
{
    lrd_status_t status = LRD_OK;
    trainer_t t = {.log = {.fd = -1, .off = true}};
    *end_out = LRD_TRAIN_NOT_BEGUN;
    LRD_TRY(lrd_session_open(options, &t.s));
    LRD_TRY(run(&t, end_out));
out:
    if (status == LRD_ERR_INTERRUPTED && *end_out == LRD_TRAIN_NOT_BEGUN) {
        lrd_info("Interrupted while starting: no update was made, and %s holds what it held. Run "
                 "the same command again",
                 options->settings->training.output_dir);
        lrd_error_clear();
        *end_out = LRD_TRAIN_INTERRUPTED;
        status = LRD_OK;
    }
    if (status != LRD_OK)
        lrd_run_log_fail(&t.log, &t.s, lrd_error_text(status));
    lrd_run_log_close(&t.log);
    lrd_log_status_line(NULL);
    lrd_free(t.lr);
    lrd_session_close(&t.s);
    return status;
}
