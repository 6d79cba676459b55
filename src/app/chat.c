/* The interactive way of `generate`: every line is a prompt, or a command that begins with '/'. */
#include "app/generate_command.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "infer/text_stream.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct chat {
    lrd_generate_app_t *g;
    const lrd_pool_entry_t *adapter; /* NULL: the base */
    uint64_t n_asked;
    bool quit;
} chat_t;

typedef struct command {
    const char *word, *argument, *help;
    lrd_status_t (*run)(chat_t *c, const char *argument);
} command_t;

static lrd_status_t say(const chat_t *c, const char *text)
{
    return lrd_generate_put(c->g, text, strlen(text));
}

/* Naming it is all that a swap is. */
static lrd_status_t run_adapter(chat_t *c, const char *name)
{
    lrd_status_t status = LRD_OK;
    const double begun = lrd_clock_seconds();
    const lrd_pool_entry_t *entry;
    LRD_TRY(lrd_pool_find(&c->g->inference.pool, "", name, &entry));
    LRD_TRY(lrd_inference_reserve(&c->g->inference, (lrd_generator_limits_t){.rank = entry->rank}));
    c->adapter = entry;
    lrd_info("adapter %s (%.3f ms)", entry->name, 1e3 * (lrd_clock_seconds() - begun));
out:
    return status;
}

static lrd_status_t run_base(chat_t *c, const char *argument)
{
    (void)argument;
    c->adapter = NULL;
    lrd_info("the base, without an adapter");
    return LRD_OK;
}

/* "DIR" or "NAME=DIR". The adapter in use may be replaced by one of its name. */
static lrd_status_t run_load(chat_t *c, const char *argument)
{
    lrd_status_t status = LRD_OK;
    lrd_pool_t *pool = &c->g->inference.pool;
    const lrd_pool_entry_t *entry;
    char *in_use = NULL;
    lrd_ask_adapter_t asked = {.name = NULL};
    if (c->adapter != NULL)
        LRD_ALLOC(in_use, lrd_strdup(c->adapter->name));
    LRD_TRY(lrd_ask_find_adapter(c->g->app, c->g->inference.grid.row, argument, &asked));
    const double begun = lrd_clock_seconds();
    const lrd_status_t loaded = lrd_pool_load(pool, asked.name, asked.folder, &entry);
    status = lrd_agree(c->g->inference.grid.row, loaded);
    if (loaded == LRD_OK) /* not on other ranks: they no longer have the same adapters */
        LRD_TRY(lrd_comm_abort(c->g->inference.grid.row, status));
    LRD_TRY(status);
    if (in_use != NULL)
        LRD_TRY(lrd_pool_find(pool, "", in_use, &c->adapter));
    lrd_info("loaded %s, %.2f MiB, in %.1f ms", entry->name,
             (double)lrd_pool_entry_bytes(entry) / 0x1p20, 1e3 * (lrd_clock_seconds() - begun));
    LRD_TRY(lrd_inference_reserve(&c->g->inference, (lrd_generator_limits_t){.rank = entry->rank}));
out:
    lrd_ask_adapter_release(&asked);
    lrd_free(in_use);
    return status;
}

static lrd_status_t run_unload(chat_t *c, const char *name)
{
    lrd_status_t status = LRD_OK;
    const bool in_use = c->adapter != NULL && strcmp(c->adapter->name, name) == 0;
    LRD_TRY(lrd_pool_unload(&c->g->inference.pool, name));
    if (in_use)
        c->adapter = NULL;
    lrd_info("unloaded %s%s", name, in_use ? "; the base answers now" : "");
out:
    return status;
}

static lrd_status_t run_list(chat_t *c, const char *argument)
{
    (void)argument;
    lrd_status_t status = LRD_OK;
    lrd_buf_t text = {0};
    LRD_TRY(lrd_pool_print(&c->g->inference.pool, &text));
    LRD_TRY(lrd_buf_printf(&text, "  in use: %s\n",
                           c->adapter != NULL ? c->adapter->name : "the base"));
    LRD_TRY(lrd_generate_put(c->g, text.data, text.size));
out:
    lrd_buf_release(&text);
    return status;
}

static lrd_status_t run_help(chat_t *c, const char *argument);

static lrd_status_t run_quit(chat_t *c, const char *argument)
{
    (void)argument;
    c->quit = true;
    return LRD_OK;
}

static const command_t commands[] = {
    {"/adapter", "NAME", "answer with this adapter", run_adapter},
    {"/base", NULL, "answer without one", run_base},
    {"/load", "[NAME=]DIR", "load an adapter beside the others", run_load},
    {"/unload", "NAME", "forget an adapter", run_unload},
    {"/list", NULL, "the adapters that are loaded, and their memory", run_list},
    {"/help", NULL, "this", run_help},
    {"/quit", NULL, "leave; so does the end of the input", run_quit},
};
enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

static lrd_status_t run_help(chat_t *c, const char *argument)
{
    (void)c;
    (void)argument;
    lrd_status_t status = LRD_OK;
    lrd_buf_t text = {0};
    LRD_TRY(lrd_buf_add_text(&text, "A line is a prompt; in it \\n is a new line, \\\\ a "
                                    "backslash. Ctrl-C ends an answer.\n"));
    for (int i = 0; i < N_COMMANDS; i++)
        LRD_TRY(lrd_buf_printf(&text, "  %-9s%-12s %s\n", commands[i].word,
                               commands[i].argument != NULL ? commands[i].argument : "",
                               commands[i].help));
    LRD_TRY(lrd_generate_put(c->g, text.data, text.size));
out:
    lrd_buf_release(&text);
    return status;
}

static lrd_status_t run_line(chat_t *c, char *line)
{
    lrd_status_t status = LRD_OK;
    const size_t n = strcspn(line, " \t");
    char *argument = line + n + strspn(line + n, " \t");
    for (int i = 0; i < N_COMMANDS; i++) {
        const command_t *x = &commands[i];
        if (strlen(x->word) != n || strncmp(line, x->word, n) != 0)
            continue;
        LRD_CHECK((argument[0] != '\0') == (x->argument != NULL), LRD_ERR_ARG, "usage: %s%s%s",
                  x->word, x->argument != NULL ? " " : "", x->argument != NULL ? x->argument : "");
        LRD_TRY(x->run(c, argument));
        goto out;
    }
    LRD_FAIL(LRD_ERR_ARG, "no command %.*s; /help lists them", (int)n, line);
out:
    return status;
}

/* \n and \\, in place. */
static void unescape(char *line)
{
    char *to = line;
    for (const char *from = line; *from != '\0'; from++) {
        if (from[0] == '\\' && (from[1] == 'n' || from[1] == '\\')) {
            *to++ = from[1] == 'n' ? '\n' : '\\';
            from++;
        } else {
            *to++ = *from;
        }
    }
    *to = '\0';
}

/* An answer as it comes. */
typedef struct answer {
    const lrd_generate_app_t *g;
    lrd_text_stream_t stream;
    size_t shown;
} answer_t;

static lrd_status_t show(answer_t *a)
{
    lrd_status_t status = LRD_OK;
    if (a->stream.shown > a->shown) {
        LRD_TRY(lrd_generate_put(a->g, a->stream.text.data + a->shown, a->stream.shown - a->shown));
        a->shown = a->stream.shown;
    }
out:
    return status;
}

static lrd_status_t on_token(void *context, size_t i, const lrd_reply_t *reply, bool *stop_out)
{
    (void)i;
    lrd_status_t status = LRD_OK;
    answer_t *a = context;
    LRD_TRY(lrd_text_stream_add(&a->stream, reply->token[reply->n - 1]));
    *stop_out = a->stream.stopped;
    LRD_TRY(show(a));
out:
    return status;
}

static lrd_status_t ask(chat_t *c, char *line)
{
    lrd_status_t status = LRD_OK;
    lrd_generate_app_t *g = c->g;
    const lrd_cli_t *cli = g->app->cli;
    lrd_prompts_t prompts = {0};
    lrd_reply_t reply = {0};
    answer_t answer = {.g = g};
    unescape(line);
    lrd_text_stream_begin(&answer.stream, g->tokenizer, cli->stop_text);
    LRD_TRY(lrd_prompts_add(&prompts, &g->reader, "the prompt", line, strlen(line), c->adapter));
    const lrd_prompt_request_t *p = &prompts.request[0];
    LRD_TRY(lrd_inference_reserve(
        &g->inference,
        (lrd_generator_limits_t){.slots = 1, .capacity = p->n + cli->max_new_tokens}));
    lrd_request_t request = {.prompt = p->token,
                             .n_prompt = p->n,
                             .max_new_tokens = cli->max_new_tokens,
                             .number = c->n_asked++};
    if (c->adapter != NULL)
        request.use = (lrd_adapter_use_t){c->adapter->adapter, c->adapter->params};
    const lrd_listener_t listener = {.context = &answer, .token = on_token, .cancel = g->app->stop};
    status = lrd_generator_abort(
        g->inference.generator,
        lrd_generate(g->inference.generator, &g->sampling, &request, 1, &listener, &reply));
    lrd_text_stream_end(&answer.stream);
    if (status == LRD_OK)
        status = show(&answer);
    if (status == LRD_OK || status == LRD_ERR_INTERRUPTED)
        (void)say(c, "\n");
    if (status == LRD_ERR_INTERRUPTED) { /* of this answer alone */
        *g->app->stop = 0;
        lrd_error_clear();
        status = LRD_OK;
    }
out:
    lrd_text_stream_release(&answer.stream);
    lrd_replies_release(&reply, 1);
    lrd_prompts_release(&prompts);
    return status;
}

/* The next line of rank 0's standard input, without its end, for all ranks of the row. */
typedef struct lines {
    char *text; /* [capacity] of getline */
    size_t capacity;
    int64_t bytes; /* of the line; negative: there is no more */
} lines_t;

static void read_line(lines_t *l)
{
    l->bytes = getline(&l->text, &l->capacity, stdin);
    if (l->bytes > 0 && l->text[l->bytes - 1] == '\n')
        l->bytes--;
    if (l->bytes >= 0)
        l->text[l->bytes] = '\0';
}

/* Room for a line of another rank. */
static lrd_status_t grow_line(lines_t *l)
{
    lrd_status_t status = LRD_OK;
    const size_t needed = (size_t)l->bytes + 1;
    if (l->capacity >= needed)
        return LRD_OK;
    char *grown = realloc(l->text, needed);
    LRD_CHECK(grown != NULL, LRD_ERR_NO_MEMORY, "out of memory");
    l->text = grown;
    l->capacity = needed;
out:
    return status;
}

static lrd_status_t share_line(lrd_comm_t *row, lines_t *l)
{
    lrd_status_t status = LRD_OK;
    LRD_TRY(lrd_comm_broadcast(row, &l->bytes, sizeof l->bytes, 0));
    if (l->bytes < 0)
        goto out;
    status = grow_line(l);
    LRD_TRY(lrd_agree(row, status));
    LRD_TRY(lrd_comm_broadcast(row, l->text, (size_t)l->bytes + 1, 0));
out:
    return status;
}

static lrd_status_t talk(chat_t *c)
{
    lrd_status_t status = LRD_OK;
    const lrd_grid_t *grid = &c->g->inference.grid;
    const bool terminal = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
    lines_t line = {NULL, 0, 0};
    if (terminal)
        lrd_info("A line is a prompt; /help lists the commands.");
    while (!c->quit) {
        if (terminal)
            LRD_TRY(say(c, "> "));
        if (grid->stage == 0)
            read_line(&line);
        if (grid->n_stages > 1)
            LRD_TRY(share_line(grid->row, &line));
        if (line.text == NULL || line.bytes < 0)
            break;
        if (line.text[0] == '\0')
            continue;
        const lrd_status_t one = line.text[0] == '/' ? run_line(c, line.text) : ask(c, line.text);
        if (one != LRD_OK && grid->stage == 0) /* said, and on with the next line */
            lrd_error("%s", lrd_error_text(one));
        lrd_error_clear();
    }
out:
    free(line.text);
    return status;
}

lrd_status_t lrd_chat(lrd_generate_app_t *g)
{
    lrd_status_t status = LRD_OK;
    chat_t c = {.g = g, .adapter = g->reader.fallback};
    LRD_TRY(lrd_generate_open_memory(
        g,
        (lrd_generator_limits_t){.slots = 1,
                                 .capacity = 512 + g->app->cli->max_new_tokens,
                                 .rank = lrd_pool_rank(&g->inference.pool),
                                 .penalty = g->sampling.repetition_penalty != 1},
        false));
    g->app->work_began = true;
    if (g->inference.grid.replica == 0) /* the first replica answers */
        LRD_TRY(talk(&c));
out:
    return status;
}
