/* lora-dist: main. Reads the command line, joins the other ranks, runs one command, and turns what
 * became of it into an exit code: the same on all ranks. */
#include "app/command.h"

#include "base/log.h"
#include "base/mem.h"
#include "base/version.h"
#include "comm/cpus.h"

#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_INPUT = 2, EXIT_INTERRUPTED = 75 };

static volatile sig_atomic_t stop;

/* The first signal asks the command to come to an end in order; a second one leaves at once. What
 * comes within a second is the first again: launcher and batch system may both pass it on. */
static void on_signal(int number)
{
    static volatile sig_atomic_t asked; /* `stop` may be another rank's doing */
    static volatile time_t first;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (asked != 0 && stop != 0) {
        if (now.tv_sec > first + 1)
            _exit(128 + number);
        return;
    }
    first = now.tv_sec;
    asked = 1;
    stop = 1;
}

static char lost_page[256];

/* A mapped file (weights, tokenized records) has become shorter, or its device does not answer. */
static void on_lost_page(int number)
{
    const ssize_t written = write(STDERR_FILENO, lost_page, strlen(lost_page));
    (void)number;
    (void)written;
    _exit(EXIT_FAILED);
}

/* Open MPI would print a trace instead; the other ranks notice by themselves. */
static void watch_mapped_files(const lrd_comm_t *comm)
{
    snprintf(lost_page, sizeof lost_page,
             "error: rank %d (%s): a file that is in use (weights or tokenized records) has become "
             "shorter, or can no longer be read\n",
             lrd_comm_rank(comm), lrd_comm_host(comm));
    signal(SIGBUS, on_lost_page);
}

static void handle_signals(void (*handler)(int))
{
    static const int numbers[] = {SIGTERM, SIGINT, SIGUSR1, SIGUSR2};
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    action.sa_flags = SA_RESTART;
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        sigaction(numbers[i], &action, NULL);
}

/* A launcher leaves this file when it is asked to stop: a signal that it passes on may be too early
 * for this process to hear it (launch/signals.sh). */
static bool was_asked_before(void)
{
    const char *file = getenv("LRD_STOP_FILE");
    return file != NULL && access(file, F_OK) == 0;
}

/* Of the commands that look at `stop`; the others just end. A file that outgrows a limit is an error
 * of the write, not the process's end. */
static void watch_signals(lrd_command_t command)
{
    signal(SIGXFSZ, SIG_IGN);
    if (command != LRD_COMMAND_TRAIN && command != LRD_COMMAND_EVAL &&
        command != LRD_COMMAND_GENERATE && command != LRD_COMMAND_MERGE &&
        command != LRD_COMMAND_DOWNLOAD && command != LRD_COMMAND_PUSH)
        return;
    handle_signals(on_signal);
    if (was_asked_before())
        stop = 1;
}

lrd_status_t lrd_put_result(const char *text, size_t bytes)
{
    lrd_status_t status = LRD_OK;
    LRD_CHECK(bytes == 0 || fwrite(text, 1, bytes, stdout) == bytes, LRD_ERR_IO,
              "cannot write to standard output");
    LRD_CHECK(fflush(stdout) == 0, LRD_ERR_IO, "cannot write to standard output");
out:
    return status;
}

lrd_status_t lrd_threads_alone(const lrd_app_t *app, int *n_threads_out)
{
    *n_threads_out = app->cli->threads > 0 ? app->cli->threads : 1;
    if (lrd_comm_size(app->comm) > 1)
        return LRD_OK;
    return lrd_cpus_threads(app->comm, app->cli->threads, n_threads_out);
}

static lrd_status_t run_command(lrd_app_t *app)
{
    static lrd_status_t (*const together[LRD_N_COMMANDS])(lrd_app_t *) = {
        [LRD_COMMAND_TRAIN] = lrd_command_train,
        [LRD_COMMAND_EVAL] = lrd_command_eval,
        [LRD_COMMAND_SCORE] = lrd_command_score,
        [LRD_COMMAND_GENERATE] = lrd_command_generate};
    static lrd_status_t (*const alone[LRD_N_COMMANDS])(lrd_app_t *) = {
        [LRD_COMMAND_INSPECT] = lrd_command_inspect,   [LRD_COMMAND_MERGE] = lrd_command_merge,
        [LRD_COMMAND_TOKENIZE] = lrd_command_tokenize, [LRD_COMMAND_TUNE] = lrd_command_tune,
        [LRD_COMMAND_INFO] = lrd_command_info,         [LRD_COMMAND_PLAN] = lrd_command_plan,
        [LRD_COMMAND_DOWNLOAD] = lrd_command_download, [LRD_COMMAND_PUSH] = lrd_command_push,
        [LRD_COMMAND_REPORT] = lrd_command_report};
    const lrd_command_t command = app->cli->command;
    if (together[command] != NULL)
        return together[command](app);
    return lrd_comm_rank(app->comm) == 0 ? alone[command](app) : LRD_OK;
}

/* Failures that lie in what the user gave, found before any work began,
 * have a code of their own. */
static int exit_code(const lrd_app_t *app, lrd_status_t status)
{
    switch (status) {
    case LRD_OK:
        return app->interrupted ? EXIT_INTERRUPTED : EXIT_DONE;
    case LRD_ERR_ARG:
    case LRD_ERR_SHAPE:
    case LRD_ERR_CONFIG:
    case LRD_ERR_UNSUPPORTED:
    case LRD_ERR_UNAVAILABLE:
    case LRD_ERR_IO:
    case LRD_ERR_FORMAT:
        return app->work_began ? EXIT_FAILED : EXIT_INPUT;
    case LRD_ERR_INTERRUPTED:
        return app->cli->command == LRD_COMMAND_DOWNLOAD ? EXIT_INTERRUPTED : EXIT_FAILED;
    default:
        return EXIT_FAILED;
    }
}

static int fail(lrd_app_t *app, lrd_status_t status)
{
    if (status != LRD_OK && (app->comm == NULL || lrd_comm_rank(app->comm) == 0))
        lrd_error("%s", lrd_error_text(status));
    return exit_code(app, status);
}

/* Help and version need no ranks. */
static lrd_status_t print_about(const lrd_cli_t *cli)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t text = {0};
    if (cli->version)
        LRD_TRY(lrd_buf_add_text(&text, "lora-dist " LRD_VERSION "\n"));
    else
        LRD_TRY(lrd_cli_print_help(cli, &text));
    LRD_TRY(lrd_put_result(text.data, text.size));
out:
    lrd_buf_release(&text);
    return status;
}

int main(int argc, char **argv)
{
    lrd_status_t status = LRD_OK;
    lrd_cli_t cli = {0};
    lrd_app_t app = {.cli = &cli, .stop = &stop};
    setlocale(LC_CTYPE, "C.UTF-8");
    lrd_mem_adopt_json();
    lrd_cpus_undo_default_binding();
    const lrd_status_t parsed = lrd_cli_parse(argc, (const char *const *)argv, &cli);
    if (parsed == LRD_OK && (cli.help || cli.version)) {
        status = print_about(&cli);
        goto out;
    }
    if (parsed == LRD_OK)
        watch_signals(cli.command);
    LRD_TRY(lrd_comm_open(_exit, &app.comm));
    watch_mapped_files(app.comm);
    if (parsed == LRD_OK)
        lrd_cli_apply_log(&cli);
    LRD_TRY(lrd_agree(app.comm, parsed));
    status = lrd_agree(app.comm, run_command(&app));
out:;
    if (lrd_mem_allocations() > 0) /* for tests that make each of them fail */
        lrd_debug("%ld allocations", lrd_mem_allocations());
    if (lrd_comm_meetings() > 0)
        lrd_debug("%ld meetings", lrd_comm_meetings());
    handle_signals(SIG_IGN); /* the outcome is decided, whatever order the ranks leave in */
    const int code = fail(&app, status);
    lrd_comm_close(app.comm);
    lrd_cli_release(&cli);
    return code;
}
