/* app/cli.h -- the command line: which command, with which options.
 *
 *   lora-dist [train] --config F ...
 *   lora-dist COMMAND [options]
 *
 * One table of commands and one of options (cli.c) make the parser, its messages and the help.
 * Nothing is printed and nothing read: the caller does both.
 */
#ifndef LRD_APP_CLI_H
#define LRD_APP_CLI_H

#include "base/buf.h"
#include "base/settings.h"
#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*  enumerator, name, arguments in the usage line, what it does */
#define LRD_COMMAND_LIST(X)                                                                    \
    X(LRD_COMMAND_TRAIN, "train", "--config F [--set section.key=value]...",                   \
      "fine-tune: alone, or on many ranks under mpirun or srun")                               \
    X(LRD_COMMAND_PLAN, "plan", "--config F [--ranks N] [--memory 24GiB[,16GiB...]]",          \
      "say where every layer would go, what each rank would hold, how long an update takes")   \
    X(LRD_COMMAND_INSPECT, "inspect", "--config F | --model DIR [--adapter DIR]",              \
      "print the model as a tree, as PyTorch does, and its number of trainable parameters")    \
    X(LRD_COMMAND_SCORE, "score",                                                              \
      "--model DIR [--adapter DIR] --data F.jsonl [--logits-out F.safetensors]",               \
      "print a JSON object for each record: n_tokens, loss, perplexity")                       \
    X(LRD_COMMAND_GENERATE, "generate",                                                        \
      "--model DIR [--adapter [NAME=]DIR]... [--prompt TEXT | --prompt-file F]",               \
      "continue text, with the base or adapters beside it; without a prompt: interactive")     \
    X(LRD_COMMAND_EVAL, "eval",                                                                \
      "--config F [--adapter DIR] [--limit N] [--output F] | "                                 \
      "--data F.json --predictions P.json [--na-prob-file N.json] [--na-prob-thresh X]",       \
      "answer the questions of a SQuAD v2.0 file and print the official metrics; or score "    \
      "a file of answers")                                                                     \
    X(LRD_COMMAND_MERGE, "merge", "--model DIR --adapter DIR --out DIR",                       \
      "write the model with the adapter folded in, as a folder that needs no adapter")         \
    X(LRD_COMMAND_TOKENIZE, "tokenize", "--model DIR [--decode] [--skip-special-tokens]",      \
      "turn a JSON string on each line of standard input into a list of token ids, or back")   \
    X(LRD_COMMAND_TUNE, "tune", "--config F [--out F]",                                        \
      "time the products of a run on this machine and write a tuning file")                    \
    X(LRD_COMMAND_DOWNLOAD, "download",                                                        \
      "ORG/NAME[@REVISION] | --dataset ORG/NAME[@REVISION][#SPLIT]",                           \
      "fetch a model or an adapter of the Hub, unless it is here, and print its folder; or a " \
      "data set's split and its files")                                                        \
    X(LRD_COMMAND_PUSH, "push",                                                                \
      "--adapter DIR --repo ORG/NAME [--private] [--revision R] [--message TEXT]",             \
      "publish an adapter on the Hub and print its address")                                   \
    X(LRD_COMMAND_REPORT, "report", "DIR... [--out F.html]",                                   \
      "make one page about one run or several, from what they left in their output_dir")       \
    X(LRD_COMMAND_INFO, "info", "", "print version, backends, devices and libraries")

typedef enum lrd_command {
#define X(name, word, usage, help) name,
    LRD_COMMAND_LIST(X)
#undef X
        LRD_N_COMMANDS
} lrd_command_t;

/* What an option that may be repeated was given, in order; the array is owned. */
typedef struct lrd_cli_list {
    const char **text;
    size_t n;
} lrd_cli_list_t;

/* Texts are borrowed from argv, or static. NULL: the option was not given. */
typedef struct lrd_cli {
    lrd_command_t command;
    bool has_command;   /* a command was named; else it is train */
    bool help, version; /* print that and do nothing; nothing else was checked then */
    const char *config;
    const char *model, *adapter; /* folders or Hub names */
    const char *repo;            /* download: of its argument */
    lrd_cli_list_t folders;      /* report: its arguments */
    const char *revision, *message;
    bool is_private, is_dataset;
    const char *data, *logits_out, *out, *output;
    const char *predictions, *na_prob_file;
    double na_prob_thresh; /* 1 where it is not given */
    bool decode, skip_special_tokens;
    const char *dtype;      /* one of LRD_MODEL_DTYPE_LIST */
    const char *backend;    /* "auto", "cpu", "cuda" or "cpu_checked" */
    const char *log_level;  /* as lrd_log_level_parse takes it */
    const char *log_format; /* as lrd_log_format_parse takes it */
    int threads;            /* 0: not given */
    int ranks;              /* plan; 0: not given */
    const char *memory;     /* plan */
    lrd_cli_list_t set;     /* "section.key=value" */

    /* generate, eval */
    lrd_cli_list_t adapters; /* "NAME=DIR" or "DIR" */
    const char *prompt, *prompt_file, *stop_text;
    int max_new_tokens, batch_size;
    int limit; /* 0: all questions */
    bool do_sample;
    double temperature, top_p, min_p, repetition_penalty;
    int top_k;
    int64_t seed;
} lrd_cli_t;

/* argv[0] is ignored. LRD_ERR_ARG: wrong usage, with the nearest right word (exit code 2). */
lrd_status_t lrd_cli_parse(int argc, const char *const *argv, lrd_cli_t *cli_out);
void lrd_cli_release(lrd_cli_t *cli); /* {0} is fine */

/* Level and format of the log as the options say. */
void lrd_cli_apply_log(const lrd_cli_t *cli);

/* The settings of --config, or the defaults without it, changed by --set in the order given and
 * then by --dtype, and checked (lrd_settings_check). Errors are those of base/settings.h. */
lrd_status_t lrd_cli_read_settings(const lrd_cli_t *cli, lrd_settings_t **settings_out);

/* Appends the help: on the command if one was named, else on the program. */
lrd_status_t lrd_cli_print_help(const lrd_cli_t *cli, lrd_buf_t *buf);

/* The word for a command. */
const char *lrd_command_name(lrd_command_t command);

#endif /* LRD_APP_CLI_H */
