/* Data files: the input is read as a SQuAD file, as JSON lines of fields and of tokens,
 * and as a prompt template. What is accepted keeps the promises of the headers. */
#include "fuzz/fuzz_target.h"

#include "base/mem.h"
#include "data/jsonl.h"
#include "data/prompt.h"
#include "data/squad.h"

#include <string.h>

enum { VOCAB_SIZE = 300, MAX_TEMPLATE = 4096 };

static void check_text(lrd_text_t text)
{
    FUZZ_CHECK(text.data != NULL);
    FUZZ_CHECK(text.data[text.bytes] == '\0'); /* reads its end: jansson ends texts so */
}

static void read_squad(const char *data, size_t size)
{
    lrd_squad_t *s = NULL;
    lrd_buf_t place = {0};
    if (lrd_squad_parse(data, size, "fuzz", &s) != LRD_OK) {
        FUZZ_CHECK(s == NULL);
        return;
    }
    for (size_t i = 0; i < lrd_squad_n_questions(s); i++) {
        const lrd_squad_question_t *q = lrd_squad_question(s, i);
        check_text(q->id);
        check_text(q->title);
        check_text(q->context);
        check_text(q->question);
        FUZZ_CHECK(q->article < lrd_squad_n_articles(s));
        for (size_t k = 0; k < q->n_answers; k++)
            check_text(lrd_squad_answer(s, i, k));
        lrd_buf_clear(&place);
        FUZZ_CHECK(lrd_squad_place(s, i, &place) == LRD_OK);
    }
    lrd_buf_release(&place);
    lrd_squad_free(s);
}

static void read_fields(const lrd_jsonl_t *lines, json_t *object, const lrd_prompt_t *prompt)
{
    lrd_text_t value[2];
    lrd_buf_t text = {0};
    size_t last_at = 0;
    if (lrd_jsonl_fields(lines, object, prompt, value) != LRD_OK)
        return;
    check_text(value[0]);
    check_text(value[1]);
    FUZZ_CHECK(lrd_prompt_render(prompt, value, &text, &last_at) == LRD_OK);
    FUZZ_CHECK(text.size == value[0].bytes + value[1].bytes + strlen("\n."));
    FUZZ_CHECK(last_at == value[0].bytes + strlen("\n"));
    lrd_buf_release(&text);
}

static void read_tokens(const lrd_jsonl_t *lines, const json_t *object, lrd_jsonl_tokens_t *tokens)
{
    if (lrd_jsonl_tokens(lines, object, VOCAB_SIZE, tokens) != LRD_OK)
        return;
    FUZZ_CHECK(tokens->n > 0);
    for (size_t i = 0; i < tokens->n; i++) {
        FUZZ_CHECK(tokens->token[i] >= 0 && tokens->token[i] < VOCAB_SIZE);
        FUZZ_CHECK(tokens->label[i] == LRD_LABEL_IGNORED ||
                   (tokens->label[i] >= 0 && tokens->label[i] < VOCAB_SIZE));
    }
}

/* Lines that fail are passed over, so that those behind them are read as well. */
static void read_lines(const char *data, size_t size)
{
    lrd_jsonl_t lines;
    lrd_prompt_t *prompt = NULL;
    lrd_jsonl_tokens_t tokens = {0};
    FUZZ_CHECK(lrd_prompt_create("{a}\n{text}.", "fuzz", &prompt) == LRD_OK);
    lrd_jsonl_begin(&lines, "fuzz", data, size);
    while (lines.at < lines.bytes) {
        json_t *object = NULL;
        const size_t before = lines.at;
        const lrd_status_t status = lrd_jsonl_next(&lines, &object);
        FUZZ_CHECK(lines.at > before && lines.at <= lines.bytes);
        FUZZ_CHECK(status == LRD_OK || object == NULL);
        if (object != NULL) {
            read_tokens(&lines, object, &tokens);
            read_fields(&lines, object, prompt);
        }
        json_decref(object);
        lrd_error_clear();
    }
    lrd_jsonl_tokens_release(&tokens);
    lrd_prompt_free(prompt);
}

/* With its own names as values, each field stands for what the template shows without braces. */
static void read_template(const char *data, size_t size)
{
    char text[MAX_TEMPLATE + 1];
    lrd_prompt_t *prompt = NULL;
    lrd_text_t *value = NULL;
    lrd_buf_t whole = {0}, head = {0};
    size_t last_at = 0;
    size = size < MAX_TEMPLATE ? size : MAX_TEMPLATE;
    if (size > 0)
        memcpy(text, data, size);
    text[size] = '\0';
    if (lrd_prompt_create(text, "fuzz", &prompt) != LRD_OK)
        return;
    const size_t n = lrd_prompt_n_fields(prompt);
    FUZZ_CHECK(n >= 1 && lrd_prompt_last(prompt) < n);
    value = lrd_calloc(n, sizeof *value);
    FUZZ_CHECK(value != NULL);
    for (size_t i = 0; i < n; i++) {
        const char *name = lrd_prompt_field(prompt, i);
        FUZZ_CHECK(lrd_prompt_find(prompt, name) == (int)i && lrd_prompt_n_uses(prompt, i) >= 1);
        value[i] = (lrd_text_t){name, strlen(name)};
    }
    FUZZ_CHECK(lrd_prompt_render(prompt, value, &whole, &last_at) == LRD_OK);
    FUZZ_CHECK(lrd_prompt_render_head(prompt, value, &head) == LRD_OK);
    FUZZ_CHECK(head.size == last_at && last_at < whole.size && whole.size < strlen(text));
    FUZZ_CHECK(head.size == 0 || memcmp(head.data, whole.data, head.size) == 0);
    lrd_free(value);
    lrd_buf_release(&whole);
    lrd_buf_release(&head);
    lrd_prompt_free(prompt);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    read_squad((const char *)data, size);
    lrd_error_clear();
    read_lines((const char *)data, size);
    lrd_error_clear();
    read_template((const char *)data, size);
    lrd_error_clear();
    return 0;
}
