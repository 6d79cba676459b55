/* app/command.h -- the subcommands. Each is one file; main.c picks one. */
#ifndef LRD_APP_COMMAND_H
#define LRD_APP_COMMAND_H

#include "app/cli.h"
#include "comm/comm.h"

#include <signal.h>
#include <stdbool.h>

typedef struct lrd_app {
    lrd_comm_t *comm;
    const lrd_cli_t *cli;
    volatile sig_atomic_t *stop; /* this process was asked to stop */
    bool work_began;             /* set by commands: failures are not the input's any more */
    bool interrupted;            /* set by train */
} lrd_app_t;

/* Collective. */
lrd_status_t lrd_command_train(lrd_app_t *app);
lrd_status_t lrd_command_eval(lrd_app_t *app);
lrd_status_t lrd_command_score(lrd_app_t *app);
lrd_status_t lrd_command_generate(lrd_app_t *app);

/* Not collective: main runs them on rank 0 alone. Results go to standard output. */
lrd_status_t lrd_command_inspect(lrd_app_t *app);
lrd_status_t lrd_command_merge(lrd_app_t *app);
lrd_status_t lrd_command_tokenize(lrd_app_t *app);
lrd_status_t lrd_command_tune(lrd_app_t *app);
lrd_status_t lrd_command_plan(lrd_app_t *app);
lrd_status_t lrd_command_download(lrd_app_t *app);
lrd_status_t lrd_command_push(lrd_app_t *app);
lrd_status_t lrd_command_report(lrd_app_t *app);
lrd_status_t lrd_command_info(lrd_app_t *app);

/* Settings of the file and the command line, which are the same on all ranks: else LRD_ERR_CONFIG. The caller
 * frees them. Collective; failures are agreed on. */
lrd_status_t lrd_read_settings(const lrd_app_t *app, lrd_settings_t **settings_out);

/* Threads for a command that rank 0 runs alone: one, where other ranks are there, since they are not asked. */
lrd_status_t lrd_threads_alone(const lrd_app_t *app, int *n_threads_out);

/* Writes a whole result to standard output. */
lrd_status_t lrd_put_result(const char *text, size_t bytes);

#endif /* LRD_APP_COMMAND_H */
