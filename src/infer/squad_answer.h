/* infer/squad_answer.h -- a model answers the questions of a SQuAD file.
 *
 * An answer is the continuation of the template up to its last field, without special tokens, white
 * space at both ends gone; equal to no_answer_text it becomes "". It does not depend on the number
 * of ranks, nor on the order of work.
 */
#ifndef LRD_INFER_SQUAD_ANSWER_H
#define LRD_INFER_SQUAD_ANSWER_H

#include "comm/comm.h"
#include "data/dataset.h"
#include "data/squad.h"
#include "infer/generator.h"
#include "infer/squad_score.h"

/* The questions of a file with their prompts. */
typedef struct lrd_squad_prompts {
    lrd_squad_t *data;
    lrd_dataset_t *prompts; /* record i: how question i is asked */
    lrd_tokenizer_t *tokenizer;
    size_t n;          /* questions to answer */
    int64_t *question; /* [n] their numbers in the file, ascending */
    char *no_answer_text;
    int32_t max_new_tokens;
} lrd_squad_prompts_t;

typedef struct lrd_squad_prompts_spec {
    const char *path, *model_folder;
    const lrd_names_t *files;            /* that `path` stands for; NULL: itself */
    const lrd_data_settings_t *settings; /* prompt_template, no_answer_text, max_length: prompt and
                                            answer together; longer contexts are shortened */
    int64_t vocab_size;
    int32_t max_new_tokens;
    const int64_t *question; /* [n_questions] only these; NULL: all */
    size_t n_questions;
    size_t limit; /* only the first so many; 0: no limit */
    int n_threads;
    const lrd_stop_t *stop; /* non-zero: leave with LRD_ERR_INTERRUPTED; NULL: never */
} lrd_squad_prompts_spec_t;

/* LRD_ERR_CONFIG: max_new_tokens leaves nothing of max_length. Not collective. */
lrd_status_t lrd_squad_prompts_open(const lrd_squad_prompts_spec_t *spec,
                                    lrd_squad_prompts_t *prompts_out);
void lrd_squad_prompts_close(lrd_squad_prompts_t *prompts); /* {0} is fine */

/* Tokens of the longest prompt with its answer. */
int32_t lrd_squad_prompts_capacity(const lrd_squad_prompts_t *prompts);

typedef struct lrd_squad_replies {
    lrd_text_t *text; /* [n] in the order of the questions */
    char *bytes;      /* what they point into */
    size_t n;
} lrd_squad_replies_t;

/* Answers them all, each rank its share; every rank gets all answers. With a progress bar.
 * Collective; failures are agreed on. *cancel non-zero on some rank: LRD_ERR_INTERRUPTED. */
lrd_status_t lrd_squad_answer_all(lrd_comm_t *comm, const lrd_squad_prompts_t *prompts,
                                  lrd_generator_t *generator, const lrd_sampling_t *sampling,
                                  lrd_adapter_use_t use, const lrd_stop_t *cancel,
                                  lrd_squad_replies_t *replies_out);
/* Exact match and F1 of these answers, in percent, as the official script counts them. */
lrd_status_t lrd_squad_replies_score(const lrd_squad_prompts_t *prompts,
                                     const lrd_squad_replies_t *replies, double *exact_out,
                                     double *f1_out);

void lrd_squad_replies_release(lrd_squad_replies_t *replies); /* {0} is fine */

#endif /* LRD_INFER_SQUAD_ANSWER_H */
