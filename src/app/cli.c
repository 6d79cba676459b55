#include "app/cli.h"

#include "base/log.h"
#include "base/mem.h"
#include "base/nearest.h"
#include "base/version.h"
#include "infer/squad_score.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name, *usage, *help;
} command_info[] = {
#define X(enumerator, word, usage, help) {word, usage, help},
    LRD_COMMAND_LIST(X)
#undef X
};

static const char *const dtype_names[] = {
#define X(enumerator, text) text,
    LRD_MODEL_DTYPE_LIST(X)
#undef X
        NULL};
static const char *const backend_names[] = {"auto", "cpu", "cuda", "cpu_checked", NULL};
static const char *const level_names[] = {"error", "warn", "info", "debug", NULL};
static const char *const format_names[] = {"text", "json", NULL};

enum { ALL = (1 << LRD_N_COMMANDS) - 1, HELP_COLUMN = 24 };

typedef enum option_kind {
    FLAG,    /* bool */
    TEXT,    /* const char * */
    CHOICE,  /* const char *, one of choice[] */
    INTEGER, /* int, least to most */
    LONG,    /* int64_t, least to most */
    REAL,    /* double, least to most */
    LIST     /* lrd_cli_list_t */
} option_kind_t;

typedef struct option {
    const char *name, *argument; /* argument NULL: takes none */
    option_kind_t kind;
    size_t offset;      /* in lrd_cli_t */
    unsigned commands;  /* that take it: bits by command */
    unsigned needed;    /* that cannot do without */
    const void *values; /* of a CHOICE: its names, NULL behind the last; of a number: its range_t */
    const char *help;
} option_t;

typedef struct range {
    double least, most;
} range_t;

#define ON(command)        (1u << LRD_COMMAND_##command)
#define AT(member)         offsetof(lrd_cli_t, member)
#define RANGE(least, most) (&(const range_t){least, most})
#define ASKING             (ON(GENERATE) | ON(EVAL))

/* A name may stand twice where it means different things to different commands. */
static const option_t options[] = {
    {"--model", "DIR", TEXT, AT(model),
     ON(INSPECT) | ON(SCORE) | ON(MERGE) | ON(TOKENIZE) | ON(GENERATE),
     ON(SCORE) | ON(MERGE) | ON(TOKENIZE) | ON(GENERATE), NULL,
     "the model: a folder, or its name on the Hub"},
    {"--adapter", "DIR", TEXT, AT(adapter), ON(INSPECT) | ON(SCORE) | ON(MERGE), ON(MERGE), NULL,
     "a PEFT adapter of that model: a folder, or its name on the Hub"},
    {"--adapter", "DIR", TEXT, AT(adapter), ON(PUSH), ON(PUSH), NULL,
     "the folder of an adapter, such as training.output_dir"},
    {"--repo", "ORG/NAME", TEXT, AT(repo), ON(PUSH), ON(PUSH), NULL,
     "the repository to publish to; made if it is not there"},
    {"--dataset", NULL, FLAG, AT(is_dataset), ON(DOWNLOAD), 0, NULL,
     "it is a data set, of which one split is fetched (default: train)"},
    {"--private", NULL, FLAG, AT(is_private), ON(PUSH), 0, NULL, "make it a private one"},
    {"--revision", "R", TEXT, AT(revision), ON(PUSH), 0, NULL,
     "an existing branch to publish to (default: main)"},
    {"--message", "TEXT", TEXT, AT(message), ON(PUSH), 0, NULL,
     "of the commit (default: Upload model)"},
    {"--adapter", "[NAME=]DIR", LIST, AT(adapters), ON(GENERATE) | ON(EVAL), 0, NULL,
     "a PEFT adapter, called NAME or as its folder is; generate: may be repeated"},
    {"--prompt", "TEXT", TEXT, AT(prompt), ON(GENERATE), 0, NULL, "continue this text"},
    {"--prompt-file", "F", TEXT, AT(prompt_file), ON(GENERATE), 0, NULL,
     "continue each line's: {\"prompt\": TEXT} or {\"input_ids\": [...]}, with \"adapter\": NAME, "
     "or null for the base"},
    {"--max-new-tokens", "N", INTEGER, AT(max_new_tokens), ASKING, 0, RANGE(1, 1 << 20),
     "the longest answer (default: 200)"},
    {"--do-sample", NULL, FLAG, AT(do_sample), ASKING, 0, NULL,
     "draw tokens by their probability, instead of taking the most probable"},
    {"--temperature", "X", REAL, AT(temperature), ASKING, 0, RANGE(1e-6, 1e6),
     "divide scores by X before drawing (default: 1.0)"},
    {"--top-k", "N", INTEGER, AT(top_k), ASKING, 0, RANGE(0, INT_MAX),
     "draw among the N best; 0: among all (default: 50)"},
    {"--top-p", "X", REAL, AT(top_p), ASKING, 0, RANGE(1e-9, 1),
     "draw among the best that together have probability X (default: 1.0)"},
    {"--min-p", "X", REAL, AT(min_p), ASKING, 0, RANGE(0, 1),
     "leave out what has less than X of the best one's probability (default: 0.0)"},
    {"--repetition-penalty", "X", REAL, AT(repetition_penalty), ASKING, 0, RANGE(1e-3, 1e3),
     "make tokens that were there before less likely, above 1 (default: 1.0)"},
    {"--seed", "N", LONG, AT(seed), ASKING, 0, RANGE(0, 9007199254740992.0),
     "of what is drawn (default: 42)"},
    {"--stop", "TEXT", TEXT, AT(stop_text), ON(GENERATE), 0, NULL,
     "end an answer before this text"},
    {"--batch-size", "N", INTEGER, AT(batch_size), ASKING, 0, RANGE(1, 4096),
     "answers in work at once on each rank (default: 16)"},
    {"--limit", "N", INTEGER, AT(limit), ON(EVAL), 0, RANGE(1, INT_MAX),
     "only the first N questions"},
    {"--data", "F.jsonl", TEXT, AT(data), ON(SCORE), ON(SCORE), NULL,
     "records to score: {\"input_ids\": [...]} on each line, or a Parquet file"},
    {"--logits-out", "F", TEXT, AT(logits_out), ON(SCORE), 0, NULL,
     "write the logits of record i as float32 tensor \"i\" of a safetensors file"},
    {"--data", "F.json", TEXT, AT(data), ON(EVAL), 0, NULL,
     "the questions and their answers, as data.eval_file names them (the default)"},
    {"--predictions", "P.json", TEXT, AT(predictions), ON(EVAL), 0, NULL,
     "only score this file: {\"id\": \"text\", ...}, an empty text for \"no answer\""},
    {"--na-prob-file", "N.json", TEXT, AT(na_prob_file), ON(EVAL), 0, NULL,
     "{\"id\": number, ...}: how probable it is that a question has no answer"},
    {"--na-prob-thresh", "X", REAL, AT(na_prob_thresh), ON(EVAL), 0, NULL,
     "a question of a higher probability counts as answered with \"no answer\" (default: 1.0)"},
    {"--output", "F", TEXT, AT(output), ASKING, 0, NULL,
     "write the answers to this file; eval: instead of <training.output_dir>/predictions.json"},
    {"--decode", NULL, FLAG, AT(decode), ON(TOKENIZE), 0, NULL,
     "from lists of token ids to strings"},
    {"--skip-special-tokens", NULL, FLAG, AT(skip_special_tokens), ON(TOKENIZE), 0, NULL,
     "leave special tokens out when decoding"},
    {"--out", "F", TEXT, AT(out), ON(TUNE), 0, NULL, "write to this file"},
    {"--out", "F.html", TEXT, AT(out), ON(REPORT), 0, NULL,
     "write to this file, - for standard output (default: report.html in the first DIR)"},
    {"--out", "DIR", TEXT, AT(out), ON(MERGE), ON(MERGE), NULL,
     "write the merged model to this folder, which must not be there yet"},
    {"--ranks", "N", INTEGER, AT(ranks), ON(PLAN), 0, RANGE(1, 65536),
     "plan for so many ranks (default: parallel.data x parallel.pipeline)"},
    {"--memory", "24GiB[,16GiB...]", TEXT, AT(memory), ON(PLAN), 0, NULL,
     "what each rank has; the last one for all others (default: its part of what is free here)"},
    {"--config", "F", TEXT, AT(config), ALL, ON(TRAIN) | ON(TUNE) | ON(PLAN), NULL,
     "the settings, a YAML file (docs/configuration.md)"},
    {"--set", "section.key=value", LIST, AT(set), ALL, 0, NULL,
     "change one setting; may be repeated"},
    {"--dtype", "TYPE", CHOICE, AT(dtype), ALL, 0, dtype_names,
     "the base model's element type (default: the file's)"},
    {"--backend", "NAME", CHOICE, AT(backend), ALL, 0, backend_names,
     "what computes (default: auto)"},
    {"--threads", "N", INTEGER, AT(threads), ALL, 0, RANGE(1, 4096),
     "threads of each rank (default: OMP_NUM_THREADS, or the rank's share of the cores)"},
    {"--log-level", "LEVEL", CHOICE, AT(log_level), ALL, 0, level_names,
     "how much to say on standard error (default: info)"},
    {"--log-format", "FORMAT", CHOICE, AT(log_format), ALL, 0, format_names,
     "how to say it (default: text)"},
    {"--help", NULL, FLAG, AT(help), ALL, 0, NULL, "print this"},
    {"--version", NULL, FLAG, AT(version), ALL, 0, NULL, "print the version"},
};
enum { N_OPTIONS = sizeof options / sizeof options[0] };

const char *lrd_command_name(lrd_command_t command)
{
    return command_info[command].name;
}

static int find_command(const char *word)
{
    for (int i = 0; i < LRD_N_COMMANDS; i++) {
        if (strcmp(command_info[i].name, word) == 0)
            return i;
    }
    return -1;
}

static lrd_status_t fail_command(const char *word)
{
    lrd_status_t status = LRD_OK;
    const char *names[LRD_N_COMMANDS];
    lrd_buf_t list = {0};
    for (int i = 0; i < LRD_N_COMMANDS; i++) {
        names[i] = command_info[i].name;
        LRD_TRY(lrd_buf_printf(&list, "%s%s", i > 0 ? ", " : "", names[i]));
    }
    const char *meant = lrd_nearest(word, names, LRD_N_COMMANDS);
    LRD_CHECK(meant == NULL, LRD_ERR_ARG, "unknown command \"%.80s\"; did you mean %s?", word,
              meant);
    LRD_FAIL(LRD_ERR_ARG, "unknown command \"%.80s\"; there are %s", word, list.data);
out:
    lrd_buf_release(&list);
    return status;
}

/* The option whose name is word[0..n), taken by this command; else why there is none. */
static lrd_status_t find_option(lrd_command_t command, const char *word, size_t n,
                                const option_t **option_out)
{
    lrd_status_t status = LRD_OK;
    const char *names[N_OPTIONS];
    size_t n_names = 0;
    char name[64] = "";
    bool is_known = false;
    if (n == 2 && strncmp(word, "-h", 2) == 0) {
        word = "--help";
        n = strlen(word);
    }
    memcpy(name, word, n < sizeof name - 1 ? n : sizeof name - 1);
    for (int i = 0; i < N_OPTIONS; i++) {
        const bool is_taken = (options[i].commands & 1u << command) != 0;
        const bool is_meant = strcmp(options[i].name, name) == 0;
        if (is_taken && is_meant) {
            *option_out = &options[i];
            goto out;
        }
        is_known = is_known || is_meant;
        if (is_taken)
            names[n_names++] = options[i].name;
    }
    LRD_CHECK(!is_known, LRD_ERR_ARG, "%s does not take %s (lora-dist %s --help)",
              command_info[command].name, name, command_info[command].name);
    const char *meant = lrd_nearest(name, names, n_names);
    LRD_CHECK(meant == NULL, LRD_ERR_ARG, "unknown option %s; did you mean %s?", name, meant);
    LRD_FAIL(LRD_ERR_ARG, "unknown option %s (lora-dist %s --help lists them)", name,
             command_info[command].name);
out:
    return status;
}

static lrd_status_t check_range(const option_t *option, const char *text, double value)
{
    lrd_status_t status = LRD_OK;
    const range_t *r = option->values;
    LRD_CHECK(r == NULL || (value >= r->least && value <= r->most), LRD_ERR_ARG,
              "%s %.80s is out of range: %.17g to %.17g", option->name, text, r->least, r->most);
out:
    return status;
}

/* All of them fit a double without rounding. */
static lrd_status_t read_integer(const option_t *option, const char *text, int64_t *value_out)
{
    lrd_status_t status = LRD_OK;
    const range_t *r = option->values;
    int64_t value = 0;
    for (size_t i = 0; text[i] != '\0'; i++) {
        LRD_CHECK(text[i] >= '0' && text[i] <= '9', LRD_ERR_ARG,
                  "%s %.80s: expected a whole number, %.17g to %.17g", option->name, text, r->least,
                  r->most);
        value = value < INT64_MAX / 100 ? value * 10 + (text[i] - '0') : INT64_MAX / 100;
    }
    LRD_TRY(check_range(option, text, (double)value));
    *value_out = value;
out:
    return status;
}

static lrd_status_t read_real(const option_t *option, const char *text, double *value_out)
{
    lrd_status_t status = LRD_OK;
    char *end;
    const double value = strtod(text, &end);
    LRD_CHECK(strspn(text, "+-.0123456789eE") == strlen(text) && *end == '\0' && isfinite(value),
              LRD_ERR_ARG, "%s %.80s: expected a number", option->name, text);
    LRD_TRY(check_range(option, text, value));
    *value_out = value;
out:
    return status;
}

static lrd_status_t read_name(const option_t *option, const char *text, const char **name_out)
{
    lrd_status_t status = LRD_OK;
    const char *const *names = option->values;
    lrd_buf_t list = {0};
    size_t n = 0;
    for (; names[n] != NULL; n++) {
        if (strcmp(names[n], text) == 0) {
            *name_out = names[n];
            goto out;
        }
        LRD_TRY(lrd_buf_printf(&list, "%s%s", n > 0 ? ", " : "", names[n]));
    }
    const char *meant = lrd_nearest(text, names, n);
    LRD_FAIL(LRD_ERR_ARG, "%s %.80s: expected one of %s%s%s%s", option->name, text, list.data,
             meant != NULL ? " (did you mean " : "", meant != NULL ? meant : "",
             meant != NULL ? "?)" : "");
out:
    lrd_buf_release(&list);
    return status;
}

static lrd_status_t append(lrd_cli_list_t *list, const char *text)
{
    lrd_status_t status = LRD_OK;
    const char **grown;
    LRD_ALLOC(grown, lrd_realloc_array(list->text, list->n + 1, sizeof *grown));
    list->text = grown;
    list->text[list->n++] = text;
out:
    return status;
}

/* Takes an option's argument; NULL for a flag. */
static lrd_status_t apply(lrd_cli_t *cli, const option_t *option, const char *argument)
{
    lrd_status_t status = LRD_OK;
    void *member = (char *)cli + option->offset;
    int64_t integer;
    switch (option->kind) {
    case FLAG:
        *(bool *)member = true;
        break;
    case TEXT:
        *(const char **)member = argument;
        break;
    case CHOICE:
        LRD_TRY(read_name(option, argument, member));
        break;
    case INTEGER:
        LRD_TRY(read_integer(option, argument, &integer));
        *(int *)member = (int)integer;
        break;
    case LONG:
        LRD_TRY(read_integer(option, argument, member));
        break;
    case REAL:
        LRD_TRY(read_real(option, argument, member));
        break;
    case LIST:
        LRD_TRY(append(member, argument));
        break;
    }
out:
    return status;
}

/* The option that begins at argv[*at], with its argument; *at moves behind them. `given` has a bit
 * for each option that came before. */
static lrd_status_t parse_option(lrd_cli_t *cli, int argc, const char *const *argv, int *at,
                                 uint64_t *given)
{
    lrd_status_t status = LRD_OK;
    const char *word = argv[(*at)++];
    const char *equals = strchr(word, '=');
    const char *argument = equals != NULL ? equals + 1 : NULL;
    const option_t *option = NULL;
    LRD_TRY(find_option(cli->command, word, equals != NULL ? (size_t)(equals - word) : strlen(word),
                        &option));
    const uint64_t bit = (uint64_t)1 << (option - options);
    LRD_CHECK((*given & bit) == 0 || option->kind == LIST, LRD_ERR_ARG, "%s is given twice",
              option->name);
    *given |= bit;
    LRD_CHECK(option->kind != FLAG || argument == NULL, LRD_ERR_ARG, "%s takes no argument",
              option->name);
    if (option->kind != FLAG && argument == NULL) {
        LRD_CHECK(*at < argc && strncmp(argv[*at], "--", 2) != 0, LRD_ERR_ARG,
                  "%s needs an argument: %s %s", option->name, option->name, option->argument);
        argument = argv[(*at)++];
    }
    LRD_CHECK(option->kind == FLAG || argument[0] != '\0', LRD_ERR_ARG,
              "%s: the argument is empty: %s %s", option->name, option->name, option->argument);
    LRD_TRY(apply(cli, option, argument));
out:
    return status;
}

static lrd_status_t check_inspect(const lrd_cli_t *cli)
{
    lrd_status_t status = LRD_OK;
    LRD_CHECK((cli->config == NULL) != (cli->model == NULL), LRD_ERR_ARG,
              "inspect needs one of --config F and --model DIR (lora-dist inspect --help)");
    LRD_CHECK(cli->adapter == NULL || cli->model != NULL, LRD_ERR_ARG,
              "--adapter DIR needs --model DIR: with --config the adapter is "
              "lora.adapter_name_or_path");
out:
    return status;
}

/* Either answers a file's questions, or scores answers that are there. */
static lrd_status_t check_eval(const lrd_cli_t *cli, uint64_t given)
{
    lrd_status_t status = LRD_OK;
    if (cli->predictions == NULL) {
        LRD_CHECK(cli->config != NULL, LRD_ERR_ARG,
                  "eval needs --config F, to answer questions, or --data F.json with --predictions "
                  "P.json, to score answers (lora-dist eval --help)");
        LRD_CHECK(cli->na_prob_file == NULL, LRD_ERR_ARG,
                  "--na-prob-file belongs to --predictions P.json");
        LRD_CHECK(cli->adapters.n <= 1, LRD_ERR_ARG, "eval takes one --adapter");
        goto out;
    }
    LRD_CHECK(cli->data != NULL, LRD_ERR_ARG,
              "eval --predictions P.json needs --data F.json (lora-dist eval --help)");
    for (int i = 0; i < N_OPTIONS; i++) {
        const bool asks = options[i].commands != ALL && (options[i].commands & ASKING) == ASKING;
        LRD_CHECK((given & (uint64_t)1 << i) == 0 || !(asks || options[i].offset == AT(limit)),
                  LRD_ERR_ARG, "%s does nothing beside --predictions P.json", options[i].name);
    }
out:
    return status;
}

/* What the command cannot do without. */
static lrd_status_t check_needed(const lrd_cli_t *cli, uint64_t given)
{
    lrd_status_t status = LRD_OK;
    const char *name = command_info[cli->command].name;
    for (int i = 0; i < N_OPTIONS; i++) {
        LRD_CHECK((options[i].needed & 1u << cli->command) == 0 || (given & (uint64_t)1 << i) != 0,
                  LRD_ERR_ARG, "%s needs %s %s (lora-dist %s --help)", name, options[i].name,
                  options[i].argument, name);
    }
    LRD_CHECK(cli->command != LRD_COMMAND_DOWNLOAD || cli->repo != NULL, LRD_ERR_ARG,
              "download needs the name of a repository: lora-dist download ORG/NAME[@REVISION]");
    LRD_CHECK(cli->command != LRD_COMMAND_REPORT || cli->folders.n > 0, LRD_ERR_ARG,
              "report needs the folder of a run, its training.output_dir: lora-dist report DIR...");
    if (cli->command == LRD_COMMAND_INSPECT)
        LRD_TRY(check_inspect(cli));
    if (cli->command == LRD_COMMAND_GENERATE)
        LRD_CHECK(cli->prompt == NULL || cli->prompt_file == NULL, LRD_ERR_ARG,
                  "generate takes one of --prompt TEXT and --prompt-file F");
    if (cli->command == LRD_COMMAND_EVAL)
        LRD_TRY(check_eval(cli, given));
out:
    return status;
}
lrd_status_t lrd_cli_parse(int argc, const char *const *argv, lrd_cli_t *cli_out)
{
    lrd_status_t status = LRD_OK;
    lrd_cli_t cli = {.command = LRD_COMMAND_TRAIN,
                     .backend = "auto",
                     .log_level = "info",
                     .log_format = "text",
                     .na_prob_thresh = LRD_SQUAD_NA_PROB_THRESH,
                     .max_new_tokens = 200,
                     .batch_size = 16,
                     .temperature = 1,
                     .top_p = 1,
                     .repetition_penalty = 1,
                     .top_k = 50,
                     .seed = 42};
    uint64_t given = 0;
    int at = 1;
    if (argc > 1 && argv[1][0] != '-') {
        const int command = find_command(argv[at++]);
        if (command < 0)
            LRD_TRY(fail_command(argv[1]));
        cli.command = (lrd_command_t)command;
        cli.has_command = true;
    }
    while (at < argc && !cli.help && !cli.version) {
        if (argv[at][0] != '-' && cli.command == LRD_COMMAND_DOWNLOAD && cli.repo == NULL) {
            cli.repo = argv[at++];
            continue;
        }
        if (argv[at][0] != '-' && cli.command == LRD_COMMAND_REPORT) {
            LRD_TRY(append(&cli.folders, argv[at++]));
            continue;
        }
        LRD_CHECK(argv[at][0] == '-' || find_command(argv[at]) < 0 || cli.has_command, LRD_ERR_ARG,
                  "the command stands first: lora-dist %s ...", argv[at]);
        LRD_CHECK(argv[at][0] == '-', LRD_ERR_ARG, "unexpected \"%.80s\": %s takes options only",
                  argv[at], command_info[cli.command].name);
        LRD_TRY(parse_option(&cli, argc, argv, &at, &given));
    }
    if (!cli.help && !cli.version)
        LRD_TRY(check_needed(&cli, given));
    *cli_out = cli;
    cli = (lrd_cli_t){0};
out:
    lrd_cli_release(&cli);
    return status;
}

void lrd_cli_release(lrd_cli_t *cli)
{
    lrd_free(cli->set.text);
    lrd_free(cli->adapters.text);
    lrd_free(cli->folders.text);
    *cli = (lrd_cli_t){0};
}

void lrd_cli_apply_log(const lrd_cli_t *cli)
{
    lrd_log_level_t level;
    lrd_log_format_t format;
    if (lrd_log_level_parse(cli->log_level, &level))
        lrd_log_set_level(level);
    if (lrd_log_format_parse(cli->log_format, &format))
        lrd_log_set_format(format);
}

lrd_status_t lrd_cli_read_settings(const lrd_cli_t *cli, lrd_settings_t **settings_out)
{
    lrd_status_t status = LRD_OK;
    lrd_settings_t *settings = NULL;
    char *dtype = NULL;
    if (cli->config != NULL)
        LRD_TRY(lrd_settings_read(cli->config, &settings));
    else
        LRD_TRY(lrd_settings_create(&settings));
    for (size_t i = 0; i < cli->set.n; i++)
        LRD_TRY(lrd_settings_set(settings, cli->set.text[i]));
    if (cli->dtype != NULL) {
        LRD_ALLOC(dtype, lrd_asprintf("model.dtype=%s", cli->dtype));
        LRD_TRY(lrd_settings_set(settings, dtype));
    }
    LRD_TRY(lrd_settings_check(settings));
    *settings_out = settings;
    settings = NULL;
out:
    lrd_free(dtype);
    lrd_settings_free(settings);
    return status;
}

/* One line of help, its second column aligned where the first is short enough. */
static lrd_status_t add_line(lrd_buf_t *buf, const char *name, const char *argument,
                             const char *help)
{
    lrd_status_t status = LRD_OK;
    const size_t start = buf->size;
    LRD_TRY(lrd_buf_printf(buf, "  %s%s%s", name, argument != NULL ? " " : "",
                           argument != NULL ? argument : ""));
    if (buf->size - start >= HELP_COLUMN)
        LRD_TRY(lrd_buf_printf(buf, "\n%*s%s", HELP_COLUMN, "", help));
    else
        LRD_TRY(lrd_buf_printf(buf, "%*s%s", HELP_COLUMN - (int)(buf->size - start), "", help));
out:
    return status;
}

/* The options that are (or are not) common to all commands, of those that `taken_by` takes; with a
 * heading where there are any. */
static lrd_status_t add_options(lrd_buf_t *buf, const char *heading, unsigned taken_by, bool common)
{
    lrd_status_t status = LRD_OK;
    bool has_heading = false;
    for (int i = 0; i < N_OPTIONS; i++) {
        const option_t *o = &options[i];
        if ((o->commands & taken_by) == 0 || (o->commands == ALL) != common)
            continue;
        LRD_TRY(lrd_buf_add_text(buf, has_heading ? "" : heading));
        has_heading = true;
        LRD_TRY(add_line(buf, o->name, o->argument, o->help));
        const char *const *names = o->kind == CHOICE ? o->values : NULL;
        for (size_t k = 0; names != NULL && names[k] != NULL; k++)
            LRD_TRY(lrd_buf_printf(buf, "%s%s", k == 0 ? ": " : ", ", names[k]));
        LRD_TRY(lrd_buf_add_text(buf, "\n"));
    }
out:
    return status;
}

static lrd_status_t print_command_help(lrd_command_t command, lrd_buf_t *buf)
{
    lrd_status_t status = LRD_OK;
    const unsigned bit = 1u << command;
    const char *usage = command_info[command].usage;
    LRD_TRY(lrd_buf_printf(buf, "Usage: lora-dist %s%s%s\n\n%s: %s\n", command_info[command].name,
                           usage[0] != '\0' ? " " : "", usage, command_info[command].name,
                           command_info[command].help));
    LRD_TRY(add_options(buf, "\nOptions:\n", bit, false));
    LRD_TRY(add_options(buf, "\nOptions of all commands:\n", bit, true));
    if (command == LRD_COMMAND_TRAIN) {
        LRD_TRY(lrd_buf_add_text(buf, "\nSettings, by section, with their defaults:\n\n"));
        LRD_TRY(lrd_settings_print_help(buf));
    }
out:
    return status;
}

lrd_status_t lrd_cli_print_help(const lrd_cli_t *cli, lrd_buf_t *buf)
{
    lrd_status_t status = LRD_OK;
    if (cli->has_command) {
        LRD_TRY(print_command_help(cli->command, buf));
        goto out;
    }
    LRD_TRY(lrd_buf_add_text(
        buf, "lora-dist " LRD_VERSION ": fine-tunes BLOOM language models with LoRA\n"
             "\n"
             "Usage: lora-dist [train] --config F [--set section.key=value]...\n"
             "       lora-dist COMMAND [options]\n"
             "       lora-dist COMMAND --help\n"
             "\n"
             "Commands:\n"));
    for (int i = 0; i < LRD_N_COMMANDS; i++) {
        LRD_TRY(add_line(buf, command_info[i].name, NULL, command_info[i].help));
        LRD_TRY(lrd_buf_add_text(buf, "\n"));
    }
    LRD_TRY(add_options(buf, "\nOptions of all commands:\n", ALL, true));
    LRD_TRY(lrd_buf_add_text(
        buf, "\n"
             "Results go to standard output, everything else to standard error.\n"
             "Exit codes: 0 done; 1 failed while running; 2 wrong usage, settings or input;\n"
             "75 interrupted with a complete checkpoint: run the same command again.\n"));
out:
    return status;
}
