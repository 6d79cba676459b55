/* The settings for people: docs/configuration.md, and the help on a terminal. */
#include "base/settings_private.h"

#include <string.h>

enum { LINE_WIDTH = 80 };

static const char intro[] =
    "# Settings\n"
    "\n"
    "This page is made from the program's own table of settings; `lora-dist train --help` prints "
    "the same in short.\n"
    "\n"
    "A run has one YAML file with five sections, named by `--config`. `configs/` holds complete "
    "files to start from.\n"
    "\n"
    "```yaml\n"
    "model:\n"
    "  name_or_path: bigscience/bloom-560m\n"
    "data:\n"
    "  train_file: rajpurkar/squad_v2\n"
    "training:\n"
    "  learning_rate: 1e-3\n"
    "```\n"
    "\n"
    "- Keys are PEFT's and transformers' own where they have one, and so are the defaults: a key "
    "left out means what it means there. `null` is a key left out.\n"
    "- `--set section.key=value` changes one value; the value is read as YAML. It may be repeated, "
    "and the last one wins.\n"
    "- Relative paths are relative to the current folder.\n"
    "- Unknown, repeated, ill-typed and out-of-range keys are errors that name file, line and the "
    "nearest key, before any work begins (exit code 2).\n"
    "- Text that YAML would read as a number, as true or false, or as a list or map needs quotes: "
    "`revision: \"1234567\"`. Numbers may be written as 1e-3. Anchors, aliases and tags are not "
    "supported.\n";

static const char rules[] =
    "\n"
    "## Rules between keys\n"
    "\n"
    "Errors:\n"
    "\n"
    "- `model.name_or_path` and, for training, `data.train_file` are needed.\n"
    "- `training.gradient_accumulation_steps` and `training.global_batch_size` are not both "
    "written.\n"
    "- `training.warmup_steps` is a whole number or below 1.\n"
    "- `data.eval_file` and `data.validation_split` are not both there; `training.eval_steps` "
    "needs "
    "one of them.\n"
    "- `training.metric_for_best_model: exact` and `f1`, and `training.predict_with_generate`, "
    "need "
    "`data.format: squad` and `training.eval_steps`.\n"
    "- `training.load_best_model_at_end` needs `training.eval_steps`, and `training.save_steps` is "
    "a multiple of it.\n"
    "- `data.format: jsonl` needs `data.prompt_template`; `data.on_too_long: truncate_context` "
    "needs `data.format: squad`.\n"
    "- `lora.layers_to_transform` does not stand beside a `lora.target_modules` that is a single "
    "text.\n"
    "- `training.overwrite_output_dir: true` does not stand beside `training."
    "resume_from_checkpoint: true`.\n"
    "\n"
    "Warnings, because one of the two has no effect:\n"
    "\n"
    "- `training.num_train_epochs` beside a `training.max_steps` above 0.\n"
    "- `training.warmup_ratio` beside a `training.warmup_steps` above 0; either beside "
    "`training.lr_scheduler_type: constant`.\n"
    "- `training.per_device_train_batch_size` beside both `training.max_tokens_per_micro_batch` "
    "and `training.global_batch_size`.\n"
    "- `data.prompt_template` and `data.loss_on: answer` with `data.format: tokenized`; "
    "`data.no_answer_text` with any format but squad.\n"
    "- `training.hub_model_id` without `training.push_to_hub`.\n";

/* What a value may be: "float32, float16 or auto", "a whole number, 1 to 65536".
 * Choices stand between `quote`s. */
static lrd_status_t add_values(lrd_buf_t *buf, const lrd_setting_info_t *info, const char *quote)
{
    static const char *const expected[] = {
#define X(kind, text) text,
        LRD_SETTING_KIND_LIST(X)
#undef X
    };
    lrd_status_t status = LRD_OK;
    char limit[96];
    if (info->kind == LRD_KIND_CHOICE) {
        for (size_t i = 0; info->choice[i] != NULL; i++) {
            const char *before = i == 0 ? "" : info->choice[i + 1] != NULL ? ", " : " or ";
            LRD_TRY(lrd_buf_printf(buf, "%s%s%s%s", before, quote, info->choice[i], quote));
        }
        goto out;
    }
    lrd_setting_limit_text(info, limit);
    LRD_TRY(
        lrd_buf_printf(buf, "%s%s%s", expected[info->kind], limit[0] != '\0' ? ", " : "", limit));
out:
    return status;
}

/* The default as one would write it: in double quotes where it has line breaks. */
static lrd_status_t add_default(lrd_buf_t *buf, const lrd_setting_info_t *info)
{
    lrd_status_t status = LRD_OK;
    if (strchr(info->default_text, '\n') != NULL) {
        lrd_json_writer_t writer = {.buf = buf, .utf8 = true};
        lrd_json_text(&writer, info->default_text);
        LRD_TRY(lrd_json_writer_status(&writer));
    } else {
        LRD_TRY(lrd_buf_add_text(buf, info->default_text));
    }
out:
    return status;
}

lrd_status_t lrd_settings_print_reference(lrd_buf_t *buf)
{
    lrd_status_t status = LRD_OK;
    LRD_TRY(lrd_buf_add_text(buf, intro));
    for (int i = 0; i < LRD_N_SECTIONS; i++) {
        LRD_TRY(lrd_buf_printf(buf,
                               "\n## `%s`\n\n%s\n\n| key | default | value | meaning |\n"
                               "| --- | --- | --- | --- |\n",
                               lrd_section_info[i].name, lrd_section_info[i].help));
        for (int key = 0; key < LRD_N_KEYS; key++) {
            const lrd_setting_info_t *info = &lrd_setting_info[key];
            if (strcmp(info->section, lrd_section_info[i].name) != 0)
                continue;
            LRD_TRY(lrd_buf_printf(buf, "| `%s` | `", info->name));
            LRD_TRY(add_default(buf, info));
            LRD_TRY(lrd_buf_add_text(buf, "` | "));
            LRD_TRY(add_values(buf, info, "`"));
            LRD_TRY(lrd_buf_printf(buf, " | %s |\n", info->help));
        }
    }
    LRD_TRY(lrd_buf_add_text(buf, rules));
out:
    return status;
}

/* Text without its Markdown quotes, in lines of at most LINE_WIDTH behind `indent` spaces. */
static lrd_status_t add_wrapped(lrd_buf_t *buf, const char *text, int indent)
{
    lrd_status_t status = LRD_OK;
    int column = 0;
    while (*text != '\0') {
        const size_t n = strcspn(text, " ");
        if (column > 0 && column + 1 + (int)n > LINE_WIDTH) {
            LRD_TRY(lrd_buf_add_text(buf, "\n"));
            column = 0;
        }
        if (column == 0)
            LRD_TRY(lrd_buf_printf(buf, "%*s", indent, ""));
        else
            LRD_TRY(lrd_buf_add_text(buf, " "));
        column = column == 0 ? indent : column + 1;
        for (size_t i = 0; i < n; i++) {
            if (text[i] != '`') {
                LRD_TRY(lrd_buf_add(buf, &text[i], 1));
                column++;
            }
        }
        text += n;
        text += strspn(text, " ");
    }
    LRD_TRY(lrd_buf_add_text(buf, "\n"));
out:
    return status;
}

lrd_status_t lrd_settings_print_help(lrd_buf_t *buf)
{
    lrd_status_t status = LRD_OK;
    const char *section = "";
    for (int key = 0; key < LRD_N_KEYS; key++) {
        const lrd_setting_info_t *info = &lrd_setting_info[key];
        if (strcmp(section, info->section) != 0) {
            section = info->section;
            LRD_TRY(lrd_buf_printf(buf, "%s%s:\n", key > 0 ? "\n" : "", section));
        }
        LRD_TRY(lrd_buf_printf(buf, "  %s: ", info->name));
        LRD_TRY(add_default(buf, info));
        LRD_TRY(lrd_buf_add_text(buf, "  ("));
        LRD_TRY(add_values(buf, info, ""));
        LRD_TRY(lrd_buf_add_text(buf, ")\n"));
        LRD_TRY(add_wrapped(buf, info->help, 6));
    }
out:
    return status;
}
