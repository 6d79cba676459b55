#include "train/session_answering.h"

#include "base/mem.h"

lrd_status_t lrd_session_open_answering(lrd_session_t *s)
{
    lrd_status_t status = LRD_OK;
    const lrd_settings_t *x = s->o.settings;
    lrd_answering_task_t task = {.settings = x,
                                 .model_folder = s->o.model_folder,
                                 .file = x->data.eval_file,
                                 .files = s->o.eval_files,
                                 .config = &s->engine.config,
                                 .n_threads = s->o.n_threads,
                                 .stop = s->o.stop};
    if (s->o.answering == NULL || s->eval == NULL)
        goto out;
    if (task.file == NULL) {
        const int64_t n = lrd_dataset_info(s->eval)->n_records;
        LRD_NEW(s->eval_question, n);
        for (int64_t i = 0; i < n; i++)
            s->eval_question[i] = lrd_dataset_record(s->eval, i).source;
        task.file = x->data.train_file;
        task.files = s->o.train_files;
        task.question = s->eval_question;
        task.n_questions = (size_t)n;
    }
    s->answering = true; /* to be closed, also half open */
    LRD_TRY(s->o.answering->open(s->o.answering->context, &task));
out:
    return status;
}

lrd_status_t lrd_session_take_place(lrd_session_t *s)
{
    if (!s->answering)
        return LRD_OK;
    return s->o.answering->take(
        s->o.answering->context,
        &(lrd_answering_place_t){
            .grid = &s->grid, .engine = &s->engine, .adapter = s->part, .graphs = s->graphs});
}
