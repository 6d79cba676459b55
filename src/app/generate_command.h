/* app/generate_command.h -- what both ways of `generate` stand on. */
#ifndef LRD_APP_GENERATE_COMMAND_H
#define LRD_APP_GENERATE_COMMAND_H

#include "app/command.h"
#include "app/prompts.h"
#include "infer/inference.h"

typedef struct lrd_generate_app {
    lrd_app_t *app;
    lrd_inference_t inference;
    lrd_tokenizer_t *tokenizer;
    lrd_prompts_reader_t reader;
    lrd_sampling_t sampling;
} lrd_generate_app_t;

/* Reads prompts and commands from standard input until it ends or says /quit. */
lrd_status_t lrd_chat(lrd_generate_app_t *g);

#endif /* LRD_APP_GENERATE_COMMAND_H */
