/* data/dataset.h -- a tokenized data set: built once, kept in a file, read by every rank.
 *
 *   rank 0:      lrd_dataset_build(&spec, cache_dir, &path)  tokenizes, or finds it done
 *   every rank:  lrd_dataset_open(path, &set)                maps the file: what is not read stays
 *                lrd_dataset_split(set, ...)                 on disk
 *   no cache:    lrd_dataset_tokenize(&spec, &set)           the same in memory
 *
 * A *record* is one example: tokens [T] and labels [T], a label being a token id or ignored. Its
 * *targets* are the labels of the tokens after the first: target[t] = label[t + 1], the last token
 * has none. Records keep the order of the source file.
 *
 * The file (HDF5, docs/formats.md) is an intermediate result that may be deleted at any time.
 */
#ifndef LRD_DATA_DATASET_H
#define LRD_DATA_DATASET_H

#include "base/file.h"
#include "base/settings.h"
#include "base/status.h"
#include "base/stop.h"
#include "data/tokenizer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { LRD_RECORD_MAX_TOKENS = 65536 }; /* a position fits into 16 bits of a row key */

/* What a data set is made from. All borrowed. */
typedef struct lrd_dataset_spec {
    const char *path;         /* the source file, or what stands for `files` in messages */
    const lrd_names_t *files; /* the source files, in order; NULL: path alone */
    /* Looked at are format, prompt_template, no_answer_text, loss_on, max_length, on_too_long. */
    const lrd_data_settings_t *settings;
    const lrd_tokenizer_t *tokenizer; /* NULL is fine with format tokenized */
    int64_t vocab_size;               /* rows of the model's embedding: every id must lie below */
    int n_threads;                    /* that tokenize; 0: as OpenMP says. Never changes a result */
    /* The template up to its last field, as a model is asked: on_too_long is not looked at, contexts
     * are shortened, and where that is not enough the first tokens go, so that no record is left
     * out. Not with tokenized. */
    bool prompt_only;
    const lrd_stop_t *stop; /* non-zero: leave with LRD_ERR_INTERRUPTED; NULL: never */
} lrd_dataset_spec_t;

typedef struct lrd_dataset lrd_dataset_t; /* immutable: threads may share it */

/* Tokenizes the source files into memory.
 *
 * Source files are JSON, JSON lines or Parquet (data/squad.h, data/rows.h).
 *
 * format
 *   squad      the fields are id, title, context, question and answer (the first answer's text, or
 *              no_answer_text where there is none); the template must end in the field answer
 *   jsonl      the template's fields are members of the line's object
 *   tokenized  ids and labels as they stand
 * loss_on
 *   all     every label is its token
 *   answer  the labels of tokens that begin before the first byte of the template's last field are
 *           ignored; a token that straddles that byte begins before it
 * on_too_long: what becomes of a record of more than max_length tokens
 *   error             LRD_ERR_FORMAT with its place and length
 *   drop              it is left out
 *   truncate_context  the field context loses tokens from its end
 *
 * truncate_context: let o[0] < ... < o[k - 1] be the offsets in the context at which the tokens of
 * the context alone begin, o[k] its end, each moved back to the start of a character; the record
 * becomes that of the context cut at o[m]. m starts at k less the tokens too many (shared by the
 * uses of {context} in the template), falls again by the tokens that are still too many (at least
 * 1) until the record, tokenized anew, fits, then grows by 1 while it still fits. So the record has
 * at most max_length tokens, one more token of context would not fit, and the other fields are
 * complete. A record that does not fit with an empty context is LRD_ERR_FORMAT.
 *
 * LRD_ERR_FORMAT also: the source is malformed, holds no record, or no record is left; a text
 * without tokens; an id outside the vocabulary ("tokenizer and model do not match").
 * LRD_ERR_CONFIG: a template that does not fit the format, truncate_context without a field context
 * (or with one that is the last field), max_length outside 1 .. 65,536. The first record in file
 * order that is wrong is the one that is named, on any number of threads. */
lrd_status_t lrd_dataset_tokenize(const lrd_dataset_spec_t *spec, lrd_dataset_t **set_out);

/* Makes sure that cache_dir (made if need be) holds the data set, and gives its path (lrd_free it):
 * <cache_dir>/<sha256 of everything that decides its content>.h5.
 * A file of that name that is complete and undamaged (all of it is read) is kept; a damaged one
 * is named in a warning, removed and built anew. Several processes may do this at the same time.
 * Errors: of lrd_dataset_tokenize, and LRD_ERR_IO. */
lrd_status_t lrd_dataset_build(const lrd_dataset_spec_t *spec, const char *cache_dir,
                               char **path_out);

/* Opens a file that lrd_dataset_build has written. LRD_ERR_FORMAT: it is not one, or is damaged
 * (the tokens themselves are not read). */
lrd_status_t lrd_dataset_open(const char *path, lrd_dataset_t **set_out);
void lrd_dataset_close(lrd_dataset_t *set); /* NULL is fine */

/* Splits off records for validation: two data sets that share the storage of `set`
 * (any of the three may be closed first). What is drawn is groups: articles for squad,
 * records otherwise. Of the source's n groups, max(1, floor(fraction * n + 1/2))
 * but at most n - 1 go to the validation set: the first of torch.randperm(n),
 * torch's CPU generator seeded with `seed`. The groups are counted in the source,
 * so that max_length does not move the border. Both parts keep the file's order.
 * LRD_ERR_CONFIG: fraction outside (0, 1), fewer than two groups, or a part without records. */
lrd_status_t lrd_dataset_split(const lrd_dataset_t *set, double fraction, uint64_t seed,
                               lrd_dataset_t **train_out, lrd_dataset_t **eval_out);

typedef struct lrd_dataset_info {
    const char *name;                        /* the source file, for messages */
    int64_t n_records, n_tokens, n_targets;  /* of this data set or part */
    int64_t longest_tokens, shortest_tokens; /* of a record */
    int64_t vocab_size;                      /* all ids lie below */
    /* of the whole source */
    int64_t n_source_records, n_groups, n_dropped, n_truncated;
    /* Records of loss_on: answer with a token that begins before the answer and ends in it,
     * which does not count. */
    int64_t n_straddled;
} lrd_dataset_info_t;
const lrd_dataset_info_t *lrd_dataset_info(const lrd_dataset_t *set);

typedef struct lrd_record {
    const int32_t *token; /* [n_tokens], owned by the data set */
    int64_t n_tokens;     /* at least 1 */
    int64_t n_targets;    /* how many of its targets count */
    int64_t source; /* squad: the question's number in the file, from 0; else the line, from 1 */
} lrd_record_t;

/* Record i of 0 .. n_records - 1. */
lrd_record_t lrd_dataset_record(const lrd_dataset_t *set, int64_t i);

/* Writes the targets of record i to target[n_tokens]: label[t + 1], or LRD_NO_TARGET. */
enum { LRD_NO_TARGET = -1 };
void lrd_dataset_targets(const lrd_dataset_t *set, int64_t i, int32_t *target);

#endif /* LRD_DATA_DATASET_H */
