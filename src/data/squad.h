/* data/squad.h -- reading SQuAD v2.0: its own files, or records of questions.
 *
 *   {"version": "v2.0", "data": [{"title": ..., "paragraphs": [{"context": ..., "qas": [
 *     {"id": ..., "question": ..., "is_impossible": ..., "answers": [{"text": ..., ...}]}]}]}]}
 *
 * Source: the format of rajpurkar's SQuAD-explorer. answer_start, is_impossible and
 * plausible_answers are not looked at: whether a question can be answered is told by its list of
 * answers, as the official scoring does it. A title may be missing (then it is empty), as in
 * Hugging Face's reader of the format.
 *
 * The Hub's data set squad_v2 has a record per question, in Parquet files; such records are read from JSON lines and lists
 * too (data/rows.h):
 *
 *   {"id": ..., "title": ..., "context": ..., "question": ..., "answers": {"text": [...], "answer_start": [...]}}
 *
 * Records of one title are of one article, wherever they stand, and where there is no title those of one context. The same
 * questions in the same order give the same as SQuAD's own file, whose titles differ.
 */
#ifndef LRD_DATA_SQUAD_H
#define LRD_DATA_SQUAD_H

#include "base/buf.h"
#include "base/file.h"
#include "base/status.h"
#include "data/text.h"

#include <stddef.h>
#include <stdint.h>

typedef struct lrd_squad lrd_squad_t; /* immutable: threads may share it */

/* One question. Texts are owned by the file object, exactly as in
 * the file (nothing is stripped). */
typedef struct lrd_squad_question {
    lrd_text_t id, title, context, question;
    size_t n_answers;        /* 0: the passage does not answer it */
    uint32_t article;        /* i of data[i].paragraphs[j].qas[k] */
    uint32_t paragraph, qas; /* j, k; of records: of runs of one title and of one context */
} lrd_squad_question_t;

/* Reads and checks a file (JSON: at most 1 GiB). LRD_ERR_FORMAT: not JSON, or not of this form, with the
 * path of the first offending member in file order, such as data[3].paragraphs[0].qas[2]. A file
 * without a question is fine. */
lrd_status_t lrd_squad_read(const char *path, lrd_squad_t **squad_out);

/* The same of several files, of which `name` stands in messages; NULL: of the file `name`. Several have to be of records. */
lrd_status_t lrd_squad_read_files(const char *name, const lrd_names_t *files,
                                  lrd_squad_t **squad_out);

/* SQuAD's own form in memory; `name` stands in messages. */
lrd_status_t lrd_squad_parse(const char *text, size_t bytes, const char *name,
                             lrd_squad_t **squad_out);
void lrd_squad_free(lrd_squad_t *squad); /* NULL is fine */

size_t lrd_squad_n_articles(const lrd_squad_t *squad);
size_t lrd_squad_n_questions(const lrd_squad_t *squad);

/* Question i in file order. Valid as long as the file object. */
const lrd_squad_question_t *lrd_squad_question(const lrd_squad_t *squad, size_t i);

/* Text of answer k < n_answers of question i. */
lrd_text_t lrd_squad_answer(const lrd_squad_t *squad, size_t i, size_t k);

/* Appends the place of question i for messages:
 * "train.json: data[3].paragraphs[0].qas[2] (id 56be...)", "train.parquet: record 17 (id 56be...)". */
lrd_status_t lrd_squad_place(const lrd_squad_t *squad, size_t i, lrd_buf_t *buf);

#endif /* LRD_DATA_SQUAD_H */
