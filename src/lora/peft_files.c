#include "lora/peft.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/safetensors.h"
#include "base/version.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>

static const char weights_name[] = "adapter_model.safetensors";

/* A is tensor 0 of an item, B is 1. `middle` is "", or ".default" as in memory in PEFT. */
static char *tensor_name(const lrd_adapter_item_t *item, int tensor, const char *middle)
{
    return lrd_asprintf("base_model.model.%s.lora_%c%s.weight", item->path, tensor == 0 ? 'A' : 'B',
                        middle);
}

static void tensor_shape(const lrd_adapter_item_t *item, int tensor, int64_t shape[2])
{
    shape[0] = tensor == 0 ? item->r : item->n_out;
    shape[1] = tensor == 0 ? item->n_in : item->r;
}

/* ---- reading --------------------------------------------------------------------------------- */

static lrd_status_t shape_text(const lrd_tensor_entry_t *entry, lrd_buf_t *buf)
{
    lrd_status_t status = LRD_OK;
    LRD_TRY(lrd_buf_add_text(buf, "["));
    for (int i = 0; i < entry->n_dims; i++)
        LRD_TRY(lrd_buf_printf(buf, "%s%" PRId64, i > 0 ? ", " : "", entry->shape[i]));
    LRD_TRY(lrd_buf_add_text(buf, "]"));
out:
    return status;
}

/* Reads one tensor, and marks its entry as used. */
static lrd_status_t read_tensor(const lrd_safetensors_t *file, const lrd_adapter_item_t *item,
                                int tensor, bool *used, float *out)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t found = {0};
    char *name = NULL, *long_name = NULL;
    int64_t shape[2];
    LRD_ALLOC(name, tensor_name(item, tensor, ""));
    LRD_ALLOC(long_name, tensor_name(item, tensor, ".default"));
    const lrd_tensor_entry_t *entry = lrd_safetensors_find(file, name);
    if (entry == NULL)
        entry = lrd_safetensors_find(file, long_name);
    LRD_CHECK(entry != NULL, LRD_ERR_FORMAT, "%s: tensor \"%s\" is missing", file->path, name);
    tensor_shape(item, tensor, shape);
    if (entry->n_dims != 2 || entry->shape[0] != shape[0] || entry->shape[1] != shape[1]) {
        LRD_TRY(shape_text(entry, &found));
        LRD_FAIL(LRD_ERR_FORMAT,
                 "%s: tensor \"%s\" has shape %s, expected [%" PRId64 ", %" PRId64
                 "] for this base model and configuration",
                 file->path, entry->name, found.data, shape[0], shape[1]);
    }
    used[entry - file->entry] = true;
    LRD_TRY(lrd_safetensors_read_f32(file, entry, out));
out:
    lrd_buf_release(&found);
    lrd_free(name);
    lrd_free(long_name);
    return status;
}

/* Fails for a folder without adapter_model.safetensors that has the weights in another form. */
static lrd_status_t check_form(const char *folder, const char *path)
{
    lrd_status_t status = LRD_OK;
    char *pickle = NULL;
    LRD_ALLOC(pickle, lrd_path_join(folder, "adapter_model.bin"));
    LRD_CHECK(lrd_file_exists(path) || !lrd_file_exists(pickle), LRD_ERR_UNSUPPORTED,
              "%s is not supported: only %s is. Load the adapter with a recent version of PEFT "
              "and save it again (model.save_pretrained)",
              pickle, weights_name);
out:
    lrd_free(pickle);
    return status;
}

lrd_status_t lrd_peft_read_params(const char *folder, const lrd_adapter_t *adapter, float *params)
{
    lrd_status_t status = LRD_OK;
    lrd_safetensors_t *file = NULL;
    char *path = NULL;
    bool *used = NULL;
    LRD_ALLOC(path, lrd_path_join(folder, weights_name));
    LRD_TRY(check_form(folder, path));
    LRD_TRY(lrd_safetensors_open(path, &file));
    LRD_NEW(used, file->n_entries);
    for (int i = 0; i < adapter->n_items; i++)
        for (int k = 0; k < 2; k++)
            LRD_TRY(
                read_tensor(file, &adapter->items[i], k, used, params + adapter->begin[2 * i + k]));
    for (size_t i = 0; i < file->n_entries; i++)
        LRD_CHECK(used[i], LRD_ERR_FORMAT,
                  "%s: tensor \"%s\" fits nothing in this adapter (see target_modules and "
                  "layers_to_transform in adapter_config.json)",
                  path, file->entry[i].name);
out:
    lrd_safetensors_close(file);
    lrd_free(used);
    lrd_free(path);
    return status;
}

/* ---- adapter_config.json --------------------------------------------------------------------- */

/* As Python writes it: what was read from "16" is not "16.0". */
static void write_number(lrd_json_writer_t *w, double value)
{
    if (value > -1e15 && value < 1e15 && value == (double)(int64_t)value)
        lrd_json_int(w, (int64_t)value);
    else
        lrd_json_real(w, value);
}

static void write_patterns(lrd_json_writer_t *w, const char *key, const lrd_patterns_t *patterns)
{
    lrd_json_key(w, key);
    lrd_json_open(w, '{');
    for (size_t i = 0; i < patterns->n; i++) { /* not sorted: the first that matches wins */
        lrd_json_key(w, patterns->entry[i].text);
        write_number(w, patterns->entry[i].value);
    }
    lrd_json_close(w, '}');
}

static void write_texts(lrd_json_writer_t *w, const char *key, const lrd_texts_t *texts)
{
    lrd_json_key(w, key);
    if (texts->is_single) {
        lrd_json_text(w, texts->text[0]);
        return;
    }
    lrd_json_open(w, '[');
    for (size_t i = 0; i < texts->n; i++)
        lrd_json_text(w, texts->text[i]);
    lrd_json_close(w, ']');
}

static const char *last_part(const char *path)
{
    const char *dot = strrchr(path, '.');
    return dot != NULL ? dot + 1 : path;
}

/* null and "all-linear" become the names they stand for: PEFT before 0.8 does not know the latter,
 * and writes names itself. */
static void write_target_modules(lrd_json_writer_t *w, const lrd_adapter_t *adapter,
                                 const lrd_texts_t *texts)
{
    if (texts->n > 0 && !(texts->is_single && strcasecmp(texts->text[0], "all-linear") == 0)) {
        write_texts(w, "target_modules", texts);
        return;
    }
    lrd_json_key(w, "target_modules");
    lrd_json_open(w, '[');
    for (int i = 0; i < adapter->n_items; i++) {
        const char *name = last_part(adapter->items[i].path);
        bool is_new = true;
        for (int k = 0; k < i && is_new; k++)
            is_new = strcmp(last_part(adapter->items[k].path), name) != 0;
        if (is_new)
            lrd_json_text(w, name);
    }
    lrd_json_close(w, ']');
}

static void write_layers(lrd_json_writer_t *w, const lrd_integers_t *layers)
{
    lrd_json_key(w, "layers_to_transform");
    if (layers->n == 0) {
        lrd_json_null(w);
        return;
    }
    lrd_json_open(w, '[');
    for (size_t i = 0; i < layers->n; i++)
        lrd_json_int(w, layers->value[i]);
    lrd_json_close(w, ']');
}

static void write_null(lrd_json_writer_t *w, const char *key)
{
    lrd_json_key(w, key);
    lrd_json_null(w);
}

static void write_key_text(lrd_json_writer_t *w, const char *key, const char *text)
{
    lrd_json_key(w, key);
    lrd_json_text(w, text);
}

static void write_key_bool(lrd_json_writer_t *w, const char *key, bool value)
{
    lrd_json_key(w, key);
    lrd_json_bool(w, value);
}

/* Keys sorted, as PEFT sorts them. */
static lrd_status_t write_config(const char *folder, const lrd_adapter_t *adapter,
                                 const lrd_lora_settings_t *s, const lrd_peft_card_t *card)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t buf = {0};
    char *path = NULL;
    lrd_json_writer_t writer = {.buf = &buf, .indent = 2}, *w = &writer;
    lrd_json_open(w, '{');
    write_patterns(w, "alpha_pattern", &s->alpha_pattern);
    write_null(w, "auto_mapping");
    write_key_text(w, "base_model_name_or_path", card->base_model);
    write_key_text(w, "bias", "none");
    if (s->exclude_modules.n > 0)
        write_texts(w, "exclude_modules", &s->exclude_modules);
    write_key_bool(w, "fan_in_fan_out", false);
    write_key_bool(w, "inference_mode", true);
    if (s->init_lora_weights == LRD_LORA_INIT_GAUSSIAN)
        write_key_text(w, "init_lora_weights", "gaussian");
    else
        write_key_bool(w, "init_lora_weights", s->init_lora_weights == LRD_LORA_INIT_TRUE);
    write_null(w, "layers_pattern");
    write_layers(w, &s->layers_to_transform);
    lrd_json_key(w, "lora_alpha");
    write_number(w, s->lora_alpha);
    lrd_json_key(w, "lora_dropout");
    lrd_json_real(w, s->lora_dropout);
    write_null(w, "modules_to_save");
    write_key_text(w, "peft_type", "LORA");
    lrd_json_key(w, "r");
    lrd_json_int(w, s->r);
    write_patterns(w, "rank_pattern", &s->rank_pattern);
    write_key_text(w, "revision", card->revision);
    write_target_modules(w, adapter, &s->target_modules);
    write_key_text(w, "task_type", "CAUSAL_LM");
    if (s->use_rslora)
        write_key_bool(w, "use_rslora", true);
    lrd_json_close(w, '}');
    LRD_TRY(lrd_json_writer_status(w));
    LRD_ALLOC(path, lrd_path_join(folder, "adapter_config.json"));
    LRD_TRY(lrd_file_write(path, buf.data, buf.size));
out:
    lrd_buf_release(&buf);
    lrd_free(path);
    return status;
}

/* ---- README.md ------------------------------------------------------------------------------- */

/* YAML reads the text as itself without quotes. */
static bool is_plain(const char *text)
{
    static const char *const words[] = {"true", "false", "yes", "no",   "on",   "off",
                                        "y",    "n",     "nan", ".nan", ".inf", "null"};
    bool has_letter = false;
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strcasecmp(text, words[i]) == 0)
            return false;
    for (const char *c = text; *c != '\0'; c++) {
        if (!isalnum((unsigned char)*c) && strchr("._/", *c) == NULL && (*c != '-' || c == text))
            return false;
        has_letter = has_letter || (isalpha((unsigned char)*c) && strchr("eExXoO", *c) == NULL);
    }
    return has_letter;
}

/* The text in double quotes, as JSON, YAML and Python read it. */
static lrd_status_t add_quoted(lrd_buf_t *buf, const char *text)
{
    lrd_json_writer_t w = {.buf = buf, .indent = 0};
    lrd_json_text(&w, text);
    return lrd_json_writer_status(&w);
}

static lrd_status_t add_front_matter(lrd_buf_t *buf, const char *base_model)
{
    lrd_status_t status = LRD_OK;
    char *tag = NULL;
    LRD_ALLOC(tag, lrd_asprintf("base_model:adapter:%s", base_model));
    LRD_TRY(lrd_buf_add_text(buf, "---\nbase_model: "));
    if (is_plain(base_model)) {
        LRD_TRY(lrd_buf_add_text(buf, base_model));
    } else {
        LRD_TRY(add_quoted(buf, base_model));
    }
    LRD_TRY(
        lrd_buf_add_text(buf, "\nlibrary_name: peft\npipeline_tag: text-generation\ntags:\n- "));
    if (is_plain(base_model)) {
        LRD_TRY(lrd_buf_add_text(buf, tag));
    } else {
        LRD_TRY(add_quoted(buf, tag));
    }
    LRD_TRY(lrd_buf_add_text(buf, "\n- lora\n- transformers\n---\n\n"));
out:
    lrd_free(tag);
    return status;
}

static lrd_status_t write_card(const char *folder, const lrd_peft_card_t *card)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t buf = {0};
    char *path = NULL;
    LRD_TRY(add_front_matter(&buf, card->base_model));
    LRD_TRY(lrd_buf_printf(&buf, "# LoRA adapter for %s\n\n", card->base_model));
    if (card->about != NULL && card->about[0] != '\0')
        LRD_TRY(lrd_buf_printf(&buf, "%s%s\n", card->about,
                               card->about[strlen(card->about) - 1] == '\n' ? "" : "\n"));
    LRD_TRY(lrd_buf_add_text(&buf, "## How to use it\n\n```python\n"
                                   "from peft import PeftModel\n"
                                   "from transformers import AutoModelForCausalLM\n\n"
                                   "base = AutoModelForCausalLM.from_pretrained("));
    LRD_TRY(add_quoted(&buf, card->base_model));
    if (card->revision != NULL) {
        LRD_TRY(lrd_buf_add_text(&buf, ", revision="));
        LRD_TRY(add_quoted(&buf, card->revision));
    }
    LRD_TRY(lrd_buf_add_text(&buf, ")\n"
                                   "model = PeftModel.from_pretrained(base, \".\")  "
                                   "# this folder\n```\n\n"
                                   "### Framework versions\n\n"
                                   "- lora-dist " LRD_VERSION "\n"));
    LRD_ALLOC(path, lrd_path_join(folder, "README.md"));
    LRD_TRY(lrd_file_write(path, buf.data, buf.size));
out:
    lrd_buf_release(&buf);
    lrd_free(path);
    return status;
}

/* ---- all three ------------------------------------------------------------------------------- */

static lrd_status_t write_params(const char *folder, const lrd_adapter_t *adapter,
                                 const float *params)
{
    lrd_status_t status = LRD_OK;
    const size_t n = 2 * (size_t)adapter->n_items;
    lrd_tensor_spec_t *spec = NULL;
    char **name = NULL, *path = NULL;
    const void **data = NULL;
    LRD_NEW(spec, n);
    LRD_NEW(name, n);
    LRD_NEW(data, n);
    for (size_t i = 0; i < n; i++) {
        const lrd_adapter_item_t *item = &adapter->items[i / 2];
        LRD_ALLOC(name[i], tensor_name(item, (int)(i % 2), ""));
        spec[i] = (lrd_tensor_spec_t){.name = name[i], .dtype = LRD_F32, .n_dims = 2};
        tensor_shape(item, (int)(i % 2), spec[i].shape);
        data[i] = params + adapter->begin[i];
    }
    LRD_ALLOC(path, lrd_path_join(folder, weights_name));
    LRD_TRY(lrd_safetensors_write(path, spec, data, n));
out:
    for (size_t i = 0; name != NULL && i < n; i++)
        lrd_free(name[i]);
    lrd_free(name);
    lrd_free(spec);
    lrd_free(data);
    lrd_free(path);
    return status;
}

lrd_status_t lrd_peft_write(const char *folder, const lrd_adapter_t *adapter,
                            const lrd_lora_settings_t *settings, const float *params,
                            const lrd_peft_card_t *card)
{
    lrd_status_t status = LRD_OK;
    LRD_TRY(write_params(folder, adapter, params));
    LRD_TRY(write_config(folder, adapter, settings, card));
    LRD_TRY(write_card(folder, card));
out:
    return status;
}
