/* The command line: commands, options, what is refused and how; help; exit codes of the program. */
#include "support/test_support.h"

#include "app/cli.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

enum { MAX_WORDS = 24 };

/* Parses words that end with NULL, the program's name left out. */
static lrd_status_t parse(lrd_cli_t *cli, const char *const *words)
{
    const char *argv[MAX_WORDS + 1] = {"lora-dist"};
    int argc = 1;
    while (words[argc - 1] != NULL && argc < MAX_WORDS) {
        argv[argc] = words[argc - 1];
        argc++;
    }
    return lrd_cli_parse(argc, argv, cli);
}

#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})
#define assert_refused(text, ...)                                                        \
    do {                                                                                 \
        lrd_cli_t assert_refused_cli = {.set.n = 77};                                    \
        assert_fails(parse(&assert_refused_cli, WORDS(__VA_ARGS__)), LRD_ERR_ARG, text); \
        assert_int_equal(assert_refused_cli.set.n, 77); /* untouched */                  \
    } while (0)

enum { N_OWN = 16 };

/* What each command takes beside what all take, and the shortest line that is right. */
static const struct {
    lrd_command_t command;
    const char *words[6], *options[N_OWN];
} commands[] = {
    {LRD_COMMAND_TRAIN, {"train", "--config", "F"}, {NULL}},
    {LRD_COMMAND_INSPECT, {"inspect", "--model", "D"}, {"--model", "--adapter"}},
    {LRD_COMMAND_SCORE,
     {"score", "--model", "D", "--data", "F"},
     {"--model", "--adapter", "--data", "--logits-out"}},
    {LRD_COMMAND_GENERATE,
     {"generate", "--model", "D"},
     {"--model", "--adapter", "--prompt", "--prompt-file", "--max-new-tokens", "--do-sample",
      "--temperature", "--top-k", "--top-p", "--min-p", "--repetition-penalty", "--seed", "--stop",
      "--batch-size", "--output"}},
    {LRD_COMMAND_EVAL,
     {"eval", "--data", "F", "--predictions", "P"},
     {"--adapter", "--data", "--predictions", "--na-prob-file", "--na-prob-thresh",
      "--max-new-tokens", "--do-sample", "--temperature", "--top-k", "--top-p", "--min-p",
      "--repetition-penalty", "--seed", "--batch-size", "--limit", "--output"}},
    {LRD_COMMAND_MERGE,
     {"merge", "--model=D", "--adapter=D", "--out=D"},
     {"--model", "--adapter", "--out"}},
    {LRD_COMMAND_TOKENIZE,
     {"tokenize", "--model", "D"},
     {"--model", "--decode", "--skip-special-tokens"}},
    {LRD_COMMAND_PLAN, {"plan", "--config", "F"}, {"--ranks", "--memory"}},
    {LRD_COMMAND_TUNE, {"tune", "--config", "F"}, {"--out"}},
    {LRD_COMMAND_DOWNLOAD, {"download", "org/model"}, {NULL}},
    {LRD_COMMAND_PUSH,
     {"push", "--adapter", "D", "--repo", "me/a"},
     {"--adapter", "--repo", "--private", "--revision", "--message"}},
    {LRD_COMMAND_REPORT, {"report", "D", "--out=-", "E"}, {"--out"}},
    {LRD_COMMAND_INFO, {"info"}, {NULL}},
};
enum { N_COMMANDS = sizeof commands / sizeof commands[0] };
static const char *const common_options[] = {"--config",     "--set",     "--dtype",
                                             "--backend",    "--threads", "--log-level",
                                             "--log-format", "--help",    "--version"};
enum { N_COMMON = sizeof common_options / sizeof common_options[0] };

static void test_commands(void **state)
{
    assert_int_equal(N_COMMANDS, LRD_N_COMMANDS);
    for (int i = 0; i < N_COMMANDS; i++) {
        lrd_cli_t cli;
        assert_ok(parse(&cli, commands[i].words));
        assert_int_equal(cli.command, commands[i].command);
        assert_true(cli.has_command);
        assert_string_equal(lrd_command_name(cli.command), commands[i].words[0]);
        lrd_cli_release(&cli);
    }
}

static void test_folders(void **state)
{
    lrd_cli_t cli;
    assert_ok(parse(&cli, WORDS("report", "info", "--out", "-", "b")));
    assert_int_equal(cli.folders.n, 2);
    assert_string_equal(cli.folders.text[0], "info");
    assert_string_equal(cli.folders.text[1], "b");
    assert_string_equal(cli.out, "-");
    lrd_cli_release(&cli);
}

static void test_defaults(void **state)
{
    lrd_cli_t cli;
    assert_ok(parse(&cli, WORDS("--config", "F.yaml")));
    assert_int_equal(cli.command, LRD_COMMAND_TRAIN);
    assert_false(cli.has_command);
    assert_string_equal(cli.config, "F.yaml");
    assert_string_equal(cli.backend, "auto");
    assert_string_equal(cli.log_level, "info");
    assert_string_equal(cli.log_format, "text");
    assert_null(cli.dtype);
    assert_null(cli.model);
    assert_null(cli.adapter);
    assert_null(cli.data);
    assert_null(cli.logits_out);
    assert_null(cli.out);
    assert_null(cli.output);
    assert_null(cli.predictions);
    assert_null(cli.na_prob_file);
    assert_true(cli.na_prob_thresh == 1.0);
    assert_int_equal(cli.threads, 0);
    assert_int_equal(cli.set.n, 0);
    assert_false(cli.help || cli.version || cli.decode || cli.skip_special_tokens);
    lrd_cli_release(&cli);
    lrd_cli_release(&cli); /* {0} is fine */
}

static void test_options(void **state)
{
    lrd_cli_t cli;
    assert_ok(parse(&cli, WORDS("train", "--config=a=b", "--set", "lora.r=4", "--set=lora.seed=7",
                                "--dtype=bfloat16", "--backend", "cpu", "--threads", "4096",
                                "--log-level=debug", "--log-format", "json")));
    assert_string_equal(cli.config, "a=b");
    assert_int_equal(cli.set.n, 2);
    assert_string_equal(cli.set.text[0], "lora.r=4");
    assert_string_equal(cli.set.text[1], "lora.seed=7");
    assert_string_equal(cli.dtype, "bfloat16");
    assert_string_equal(cli.backend, "cpu");
    assert_int_equal(cli.threads, 4096);
    assert_string_equal(cli.log_level, "debug");
    assert_string_equal(cli.log_format, "json");
    lrd_cli_release(&cli);

    assert_ok(parse(&cli, WORDS("score", "--model", "m", "--adapter", "a", "--data", "d",
                                "--logits-out", "-o")));
    assert_string_equal(cli.model, "m");
    assert_string_equal(cli.adapter, "a");
    assert_string_equal(cli.data, "d");
    assert_string_equal(cli.logits_out, "-o");
    lrd_cli_release(&cli);

    assert_ok(parse(&cli, WORDS("eval", "--data", "d", "--predictions=p", "--na-prob-file", "n",
                                "--na-prob-thresh", "-2.5e-1")));
    assert_string_equal(cli.data, "d");
    assert_string_equal(cli.predictions, "p");
    assert_string_equal(cli.na_prob_file, "n");
    assert_true(cli.na_prob_thresh == -0.25);
    lrd_cli_release(&cli);

    assert_ok(parse(&cli, WORDS("eval", "--config", "F", "--adapter=a", "--limit", "7",
                                "--max-new-tokens=24", "--batch-size", "3", "--output", "o")));
    assert_int_equal(cli.adapters.n, 1);
    assert_int_equal(cli.limit, 7);
    assert_int_equal(cli.max_new_tokens, 24);
    assert_int_equal(cli.batch_size, 3);
    assert_string_equal(cli.output, "o");
    lrd_cli_release(&cli);

    assert_ok(parse(&cli, WORDS("generate", "--model=m", "--adapter", "a=b", "--adapter", "c",
                                "--prompt", "p", "--do-sample", "--temperature", "0.5", "--top-k=0",
                                "--seed=9007199254740992", "--stop=x")));
    assert_int_equal(cli.adapters.n, 2);
    assert_string_equal(cli.adapters.text[0], "a=b");
    assert_string_equal(cli.adapters.text[1], "c");
    assert_string_equal(cli.prompt, "p");
    assert_true(cli.do_sample && cli.temperature == 0.5 && cli.top_k == 0);
    assert_true(cli.seed == 9007199254740992);
    assert_string_equal(cli.stop_text, "x");
    assert_int_equal(cli.max_new_tokens, 200);
    assert_int_equal(cli.batch_size, 16);
    lrd_cli_release(&cli);

    assert_ok(parse(&cli, WORDS("tokenize", "--skip-special-tokens", "--model=m", "--decode")));
    assert_true(cli.decode && cli.skip_special_tokens);
    lrd_cli_release(&cli);

    assert_ok(parse(&cli, WORDS("tune", "--config", "F", "--out", "t")));
    assert_string_equal(cli.out, "t");
    lrd_cli_release(&cli);

    assert_ok(parse(&cli, WORDS("merge", "--model", "m", "--adapter", "a", "--out", "o")));
    assert_string_equal(cli.model, "m");
    assert_string_equal(cli.adapter, "a");
    assert_string_equal(cli.out, "o");
    lrd_cli_release(&cli);
}

static void test_unknown_words(void **state)
{
    assert_refused("did you mean train?", "trian", "--config", "F");
    assert_refused("did you mean tokenize?", "tokenise");
    assert_refused("there are train, plan, inspect, score, generate, eval, merge, tokenize, "
                   "tune, download, push, report, info",
                   "xyzzyplugh");
    assert_refused("unknown command \"\"", "");
    assert_refused("unknown option --confg; did you mean --config?", "--confg", "F");
    assert_refused("unknown option --thread; did you mean --threads?", "info", "--thread=1");
    assert_refused("train --help lists them", "--xyzzyplughxyzzy");
    assert_refused("unknown option -x", "-x");
    assert_refused("unknown option --", "info", "--");
    assert_refused("unknown option -", "info", "-");
    /* The nearest of those the command takes, and what another command takes. */
    assert_refused("info does not take --adapter", "info", "--adapter", "a");
    assert_refused("info does not take --out", "info", "--out", "a");
    assert_refused("train does not take --model (lora-dist train --help)", "--model", "m");
    assert_refused("info does not take --data", "info", "--data", "d"); /* two commands do */
    assert_refused("score does not take --predictions", "score", "--predictions", "p");
    assert_refused("the command stands first: lora-dist info", "--config", "F", "info");
    assert_refused("unexpected \"F.yaml\": train takes options only", "train", "F.yaml");
    assert_refused("unexpected \"info\"", "info", "info");
    /* A long word is cut, not run over. */
    char word[5000];
    memset(word, 'w', sizeof word - 1);
    word[sizeof word - 1] = '\0';
    assert_refused("unknown command", word);
    memcpy(word, "--", 2);
    assert_refused("unknown option --www", "info", word);
    assert_refused("is out of range", "info", "--threads", "99999999999999999999999999");
}

static void test_arguments(void **state)
{
    assert_refused("--config needs an argument: --config F", "--config");
    assert_refused("--config needs an argument", "--config", "--set", "a.b=c");
    assert_refused("--config: the argument is empty", "--config=");
    assert_refused("--config: the argument is empty", "--config", "");
    assert_refused("--set needs an argument: --set section.key=value", "info", "--set");
    assert_refused("--help takes no argument", "--help=yes");
    assert_refused("--decode takes no argument", "tokenize", "--decode=1");
    assert_refused("--config is given twice", "--config", "a", "--config=b");
    assert_refused("--threads is given twice", "info", "--threads", "1", "--threads", "1");
    assert_refused("--decode is given twice", "tokenize", "--decode", "--decode");
    assert_refused("--threads x: expected a whole number, 1 to 4096", "info", "--threads", "x");
    assert_refused("expected a whole number", "info", "--threads", "-1");
    assert_refused("expected a whole number", "info", "--threads", "1.5");
    assert_refused("--threads 0 is out of range: 1 to 4096", "info", "--threads", "0");
    assert_refused("--threads 4097 is out of range", "info", "--threads", "4097");
    assert_refused("--threads: the argument is empty", "info", "--threads=");
    static const char *const not_real[] = {"x",  "1x",  "nan", "inf", "-Infinity", "1e999",
                                           " 1", "0x1", "1,5", "-",   ".",         "1e"};
    for (size_t i = 0; i < sizeof not_real / sizeof not_real[0]; i++)
        assert_refused("expected a number", "eval", "--na-prob-thresh", not_real[i]);
    assert_refused("--dtype: the argument is empty: --dtype TYPE", "info", "--dtype", "");
    assert_refused("--set: the argument is empty", "info", "--set", "");
    assert_refused("--dtype float61: expected one of auto, float32, float16, bfloat16 "
                   "(did you mean float16?)",
                   "info", "--dtype", "float61");
    assert_refused("--backend opencl: expected one of auto, cpu, cuda, cpu_checked", "info",
                   "--backend", "opencl");
    assert_refused(
        "--log-level wran: expected one of error, warn, info, debug (did you mean warn?)", "info",
        "--log-level", "wran");
    assert_refused("--log-format xml: expected one of text, json", "info", "--log-format", "xml");
}

static void test_needed(void **state)
{
    lrd_cli_t cli;
    const char *const none[] = {NULL};
    assert_fails(parse(&cli, none), LRD_ERR_ARG, "train needs --config F");
    assert_refused("tune needs --config F", "tune");
    assert_refused("report needs the folder of a run", "report", "--out", "-");
    assert_refused("score needs --model DIR", "score");
    assert_refused("score needs --data F.jsonl", "score", "--model", "m");
    assert_refused("download needs the name of a repository", "download");
    assert_refused("unexpected \"b/c\"", "download", "a/b", "b/c");
    assert_refused("push needs --repo ORG/NAME", "push", "--adapter", "out");
    assert_refused("eval --predictions P.json needs --data F.json (lora-dist eval --help)", "eval",
                   "--predictions", "p");
    assert_refused("eval needs --config F, to answer questions, or --data F.json with", "eval",
                   "--data", "d");
    assert_refused("--limit does nothing beside", "eval", "--data", "d", "--predictions", "p",
                   "--limit", "3");
    assert_refused("--na-prob-file belongs to --predictions", "eval", "--config", "F",
                   "--na-prob-file", "n");
    assert_refused("eval takes one --adapter", "eval", "--config", "F", "--adapter", "a",
                   "--adapter", "b");
    assert_refused("generate needs --model DIR", "generate", "--prompt", "p");
    assert_refused("one of --prompt TEXT and --prompt-file F", "generate", "--model", "m",
                   "--prompt", "p", "--prompt-file", "f");
    assert_refused("--temperature 0 is out of range", "generate", "--temperature", "0");
    assert_refused("--top-p 1.5 is out of range", "generate", "--top-p", "1.5");
    assert_refused("--seed -1: expected a whole number", "generate", "--seed", "-1");
    assert_refused("--seed 99999999999999999999 is out of range", "generate", "--seed",
                   "99999999999999999999");
    assert_refused("merge needs --adapter DIR", "merge", "--model", "m", "--out", "o");
    assert_refused("merge needs --out DIR", "merge", "--model", "m", "--adapter", "a");
    assert_refused("--out is given twice", "merge", "--out", "a", "--out", "b");
    assert_refused("--out needs an argument: --out DIR", "merge", "--out");
    assert_refused("--out needs an argument: --out F", "tune", "--out");
    assert_refused("tokenize needs --model DIR (lora-dist tokenize --help)", "tokenize");
    assert_refused("inspect needs one of --config F and --model DIR", "inspect");
    assert_refused("inspect needs one of", "inspect", "--config", "F", "--model", "m");
    assert_refused("--adapter DIR needs --model DIR", "inspect", "--config", "F", "--adapter", "a");
}

static char *help_text(lrd_cli_t *cli, lrd_buf_t *buf)
{
    assert_true(cli->help);
    assert_ok(lrd_cli_print_help(cli, buf));
    assert_ok(lrd_buf_add(buf, "", 1));
    lrd_cli_release(cli);
    return buf->data;
}

/* The help has the option at the beginning of a line. */
static void assert_option(const char *help, const char *option, bool expected)
{
    char line[64];
    const size_t n = (size_t)snprintf(line, sizeof line, "\n  %s", option);
    const char *at = strstr(help, line);
    const bool found = at != NULL && (at[n] == ' ' || at[n] == '\n');
    if (found != expected)
        fail_msg("%s is%s in the help", option, found ? "" : " not");
}

static bool takes(int i, const char *option)
{
    for (int k = 0; k < N_OWN && commands[i].options[k] != NULL; k++) {
        if (strcmp(commands[i].options[k], option) == 0)
            return true;
    }
    return false;
}

static void test_command_help(void **state)
{
    for (int i = 0; i < N_COMMANDS; i++) {
        lrd_cli_t cli;
        lrd_buf_t buf = {0};
        char usage[64];
        assert_ok(parse(&cli, WORDS(commands[i].words[0], "--help")));
        const char *help = help_text(&cli, &buf);
        snprintf(usage, sizeof usage, "Usage: lora-dist %s", commands[i].words[0]);
        assert_true(lrd_test_contains(help, usage));
        for (int k = 0; k < N_COMMON; k++)
            assert_option(help, common_options[k], true);
        for (int k = 0; k < N_COMMANDS; k++) { /* its own, and no other's */
            for (int j = 0; j < N_OWN && commands[k].options[j] != NULL; j++)
                assert_option(help, commands[k].options[j], takes(i, commands[k].options[j]));
        }
        lrd_buf_release(&buf);
    }
}

static void test_help(void **state)
{
    lrd_cli_t cli;
    lrd_buf_t buf = {0};
    assert_ok(parse(&cli, WORDS("-h")));
    const char *help = help_text(&cli, &buf);
    for (int i = 0; i < N_COMMANDS; i++)
        assert_option(help, commands[i].words[0], true);
    for (int k = 0; k < N_COMMON; k++)
        assert_option(help, common_options[k], true);
    assert_true(lrd_test_contains(help, "75 interrupted"));
    lrd_buf_release(&buf);

    /* The settings stand in the help on train. */
    assert_ok(parse(&cli, WORDS("train", "--help")));
    help = help_text(&cli, &buf);
    for (int key = 0; key < LRD_N_KEYS; key++) {
        const char *name = strchr(lrd_key_name((lrd_key_t)key), '.') + 1;
        if (!lrd_test_contains(help, name))
            fail_msg("%s is not in the help on train", name);
    }
    lrd_buf_release(&buf);

    /* Behind them nothing is checked: they help who is lost. */
    assert_ok(parse(&cli, WORDS("score", "--version", "--nonsense")));
    assert_true(cli.version);
    lrd_cli_release(&cli);
}

static void test_read_settings(void **state)
{
    lrd_settings_t *settings;
    lrd_cli_t cli;
    assert_ok(parse(&cli, WORDS("inspect", "--model", "m", "--dtype", "float16", "--set",
                                "lora.r=3", "--set", "lora.r=5", "--set", "model.dtype=float32")));
    assert_ok(lrd_cli_read_settings(&cli, &settings));
    assert_int_equal(settings->lora.r, 5);                            /* the last one counts */
    assert_int_equal(settings->model.dtype, LRD_MODEL_DTYPE_FLOAT16); /* --dtype comes last */
    lrd_settings_free(settings);
    lrd_cli_release(&cli);

    assert_ok(parse(&cli, WORDS("--config", "/nonexistent/F.yaml")));
    assert_fails(lrd_cli_read_settings(&cli, &settings), LRD_ERR_IO, "/nonexistent/F.yaml");
    lrd_cli_release(&cli);
    assert_ok(parse(&cli, WORDS("info", "--set", "lora.rr=3")));
    assert_fails(lrd_cli_read_settings(&cli, &settings), LRD_ERR_CONFIG, "lora.r");
    lrd_cli_release(&cli);
    assert_ok(parse(&cli, WORDS("info", "--set", "lora")));
    assert_fails(lrd_cli_read_settings(&cli, &settings), LRD_ERR_CONFIG, "--set");
    lrd_cli_release(&cli);
}

/* Runs the program; which of its outputs must have text, and which must not. */
static void assert_exit(int expected, bool has_result, const char *words)
{
    char command[4096], result[1024], errors[1024];
    const char *program = getenv("LRD_PROGRAM");
    const char *out = lrd_test_temporary("stdout"), *err = lrd_test_temporary("stderr");
    assert_non_null(program);
    snprintf(command, sizeof command, "'%s' %s > '%s' 2> '%s'", program, words, out, err);
    const int code = system(command);
    FILE *file = fopen(out, "r");
    assert_non_null(file);
    const size_t n_result = fread(result, 1, sizeof result, file);
    fclose(file);
    file = fopen(err, "r");
    assert_non_null(file);
    errors[fread(errors, 1, sizeof errors - 1, file)] = '\0';
    fclose(file);
    if (!WIFEXITED(code) || WEXITSTATUS(code) != expected || (n_result > 0) != has_result)
        fail_msg("%s: status %d, expected exit code %d; %zu bytes of results\n%s", words, code,
                 expected, n_result, errors);
    if (expected == 2) { /* one line that says what is wrong */
        assert_int_equal(strncmp(errors, "error: ", 7), 0);
        assert_ptr_equal(strchr(errors, '\n'), errors + strlen(errors) - 1);
    }
}

static void test_exit_codes(void **state)
{
    assert_exit(0, true, "--help");
    assert_exit(0, true, "-h");
    assert_exit(0, true, "--version");
    assert_exit(0, true, "info");
    for (int i = 0; i < N_COMMANDS; i++) {
        char words[64];
        snprintf(words, sizeof words, "%s --help", commands[i].words[0]);
        assert_exit(0, true, words);
    }
    assert_exit(2, false, "");
    assert_exit(2, false, "trian");
    assert_exit(2, false, "--confg F");
    assert_exit(2, false, "--config");
    assert_exit(2, false, "--config a --config b");
    assert_exit(2, false, "--config /nonexistent/F.yaml");
    assert_exit(2, false, "info --threads 0");
    assert_exit(2, false, "score --model /nonexistent --data /nonexistent");
    assert_exit(2, false, "eval --data /nonexistent");
    assert_exit(2, false, "eval --data /nonexistent --predictions /nonexistent");
    assert_exit(2, false, "inspect --model /nonexistent");
    assert_exit(2, false, "tokenize --model /nonexistent < /dev/null");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_commands),      cmocka_unit_test(test_folders),
        cmocka_unit_test(test_defaults),      cmocka_unit_test(test_options),
        cmocka_unit_test(test_unknown_words), cmocka_unit_test(test_arguments),
        cmocka_unit_test(test_needed),        cmocka_unit_test(test_command_help),
        cmocka_unit_test(test_help),          cmocka_unit_test(test_read_settings),
        cmocka_unit_test(test_exit_codes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
