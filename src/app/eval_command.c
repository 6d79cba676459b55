/* The official SQuAD v2.0 metrics of answers, as evaluate-v2.0.py prints them. */
#include "app/command.h"

#include "base/file.h"
#include "base/mem.h"
#include "data/squad.h"
#include "infer/squad_predictions.h"
#include "infer/squad_score.h"

typedef struct eval {
    const lrd_cli_t *cli;
    lrd_squad_t *data;
    lrd_squad_predictions_t predictions;
    lrd_squad_na_prob_t *na_prob;
    lrd_squad_answers_t answers;
    lrd_writer_t *output; /* NULL without --output */
} eval_t;

static lrd_status_t open_input(eval_t *e)
{
    lrd_status_t status = LRD_OK;
    LRD_TRY(lrd_squad_read(e->cli->data, &e->data));
    LRD_CHECK(lrd_squad_n_questions(e->data) > 0, LRD_ERR_FORMAT, "%s has no questions",
              e->cli->data);
    LRD_TRY(lrd_squad_predictions_read(e->cli->predictions, e->data, &e->predictions));
    e->answers = (lrd_squad_answers_t){.text = e->predictions.text,
                                       .n_questions = lrd_squad_n_questions(e->data),
                                       .na_prob_thresh = e->cli->na_prob_thresh};
    if (e->cli->na_prob_file != NULL)
        LRD_TRY(lrd_squad_na_probs_read(e->cli->na_prob_file, e->data, &e->na_prob,
                                        &e->answers.n_na_probs));
    e->answers.na_prob = e->na_prob;
    if (e->cli->output != NULL)
        LRD_TRY(lrd_writer_open(e->cli->output, &e->output));
out:
    return status;
}

/* To standard output as the script prints it; to --output as it writes its --out-file. */
static lrd_status_t put_metrics(eval_t *e, const lrd_squad_metrics_t *metrics)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t text = {0}, line = {0};
    lrd_json_writer_t print = {.buf = &text, .indent = 2}, write = {.buf = &line};
    lrd_squad_metrics_write(metrics, &print);
    LRD_TRY(lrd_json_writer_status(&print));
    LRD_TRY(lrd_buf_add_text(&text, "\n"));
    if (e->output != NULL) {
        lrd_squad_metrics_write(metrics, &write);
        LRD_TRY(lrd_json_writer_status(&write));
        LRD_TRY(lrd_writer_add(e->output, line.data, line.size));
        LRD_TRY(lrd_writer_commit(&e->output));
    }
    LRD_TRY(lrd_put_result(text.data, text.size));
out:
    lrd_buf_release(&line);
    lrd_buf_release(&text);
    return status;
}

lrd_status_t lrd_command_eval(lrd_app_t *app)
{
    lrd_status_t status = LRD_OK;
    eval_t e = {.cli = app->cli};
    lrd_squad_metrics_t metrics;
    LRD_TRY(open_input(&e));
    app->work_began = true;
    LRD_TRY(lrd_squad_score(e.data, &e.answers, &metrics));
    LRD_TRY(put_metrics(&e, &metrics));
out:
    lrd_writer_abandon(e.output);
    lrd_free(e.na_prob);
    lrd_squad_predictions_release(&e.predictions);
    lrd_squad_free(e.data);
    return status;
}
