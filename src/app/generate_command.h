/* app/generate_command.h -- what both ways of `generate` stand on. */
#ifndef LRD_APP_GENERATE_COMMAND_H
#define LRD_APP_GENERATE_COMMAND_H

#include "app/ask.h"
#include "app/prompts.h"
#include "infer/inference.h"

typedef struct lrd_generate_app {
    lrd_app_t *app;
    lrd_settings_t *settings;
    char *model;                /* folder */
    lrd_ask_adapter_t *adapter; /* [cli->adapters.n] */
    lrd_inference_t inference;
    lrd_tokenizer_t *tokenizer;
    lrd_prompts_reader_t reader;
    lrd_sampling_t sampling;
} lrd_generate_app_t;

/* What is said goes to standard output, of rank 0 alone: all ranks of its row have the same to say. */
lrd_status_t lrd_generate_put(const lrd_generate_app_t *g, const char *text, size_t bytes);

/* Which ranks hold which layers, and memory for requests like this, on all replicas or the first alone.
 * Collective. */
lrd_status_t lrd_generate_open_memory(lrd_generate_app_t *g, lrd_generator_limits_t limits,
                                      bool all);

/* Reads prompts and commands from rank 0's standard input until it ends or says /quit. */
lrd_status_t lrd_chat(lrd_generate_app_t *g);

#endif /* LRD_APP_GENERATE_COMMAND_H */
