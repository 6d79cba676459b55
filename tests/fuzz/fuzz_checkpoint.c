/* A checkpoint's folder.
 *
 * First byte 0: the rest is state.h5 itself. HDF5 guards what describes its content by checksums, so
 * that hardly any change gets past the library.
 * First byte 1: changes to a sound state.h5, made with the library, so that they do: each byte below
 * names something that the file holds, and what becomes of it.
 * First byte 2: the rest is trainer_state.json.
 *
 * What is read is sound; what is not sound is refused, and leaves nothing behind. */
#include "fuzz/fuzz_folder.h"
#include "fuzz/fuzz_h5.h"

#include "base/log.h"
#include "base/mem.h"
#include "train/checkpoint.h"

#include <string.h>

enum { N_PARAMS = 10 };

static lrd_adapter_item_t item = {.path = (char *)"transformer.h.0.x",
                                  .n_in = 2,
                                  .n_out = 3,
                                  .r = 2,
                                  .alpha = 2,
                                  .scale = 1,
                                  .b = 4};
static int64_t begin[] = {0, 4, N_PARAMS};
static const lrd_adapter_t adapter = {
    .items = &item, .n_items = 1, .n_params = N_PARAMS, .begin = begin};

static void write_sound(void)
{
    static float params[3 * N_PARAMS];
    lrd_settings_t *settings = NULL;
    FUZZ_CHECK(lrd_settings_create(&settings) == LRD_OK);
    for (int i = 0; i < 3 * N_PARAMS; i++)
        params[i] = (float)i / 7;
    lrd_checkpoint_t c = {
        .optimizer = {params, params + N_PARAMS, params + 2 * N_PARAMS, {.loss_scale = 1}},
        .step = 3,
        .n_updates = 9,
        .records_per_update = 8,
        .settings = settings,
        .data_key = "key",
        .machine = "machine"};
    FUZZ_CHECK(lrd_checkpoint_write(fuzz_folder_make(), &adapter, &c) == LRD_OK);
    lrd_settings_free(settings);
}

static const char *const names[] = {
    "format",         "global_step",    "max_steps",  "records_per_update",
    "adam_t",         "bad_in_a_row",   "loss_scale", "unlogged_loss_sum",
    "interrupted",    "settings",       "data_key",   "machine",
    "adapter_sha256", "content_sha256", "n_params",   "scaler_growth_tracker",
    "params",         "exp_avg",        "exp_avg_sq", "tensor_begin"};
static const fuzz_h5_t holds = {names, 16, sizeof names / sizeof names[0], N_PARAMS};

static void write_changed(const uint8_t *data, size_t size)
{
    char path[128];
    write_sound();
    snprintf(path, sizeof path, "%s/state.h5", fuzz_folder);
    fuzz_h5_change_all(&holds, path, data, size);
}

static void read_state(void)
{
    lrd_checkpoint_t c = {0};
    if (lrd_checkpoint_read(fuzz_folder, &adapter, &c) == LRD_OK) {
        FUZZ_CHECK(c.step >= 0 && c.step <= c.n_updates && c.records_per_update > 0);
        FUZZ_CHECK(c.settings != NULL && memchr(c.data_key, '\0', sizeof c.data_key) != NULL);
        FUZZ_CHECK(c.optimizer.params != NULL && c.optimizer.m != NULL && c.optimizer.v != NULL);
    } else {
        FUZZ_CHECK(c.settings == NULL && c.optimizer.params == NULL);
    }
    lrd_checkpoint_release(&c);
    lrd_error_clear();
}

static void read_history(void)
{
    lrd_history_t h = {0};
    lrd_buf_t text = {0};
    const lrd_training_settings_t training = {.eval_steps = LRD_SETTING_NULL};
    if (lrd_history_read(fuzz_folder, &h) == LRD_OK) {
        FUZZ_CHECK(h.log != NULL && h.global_step >= 0);
        (void)lrd_history_has_eval(&h, 3);
        (void)lrd_history_print(&h, &(lrd_history_facts_t){.training = &training}, &text);
    } else {
        FUZZ_CHECK(h.log == NULL);
    }
    lrd_buf_release(&text);
    lrd_history_release(&h);
    lrd_error_clear();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    lrd_log_set_level(LRD_LOG_ERROR);
    fuzz_folder_make();
    if (size == 0)
        return 0;
    switch (data[0] % 3) {
    case 0:
        fuzz_folder_put("state.h5", data + 1, size - 1);
        read_state();
        break;
    case 1:
        write_changed(data + 1, size - 1);
        read_state();
        break;
    default:
        fuzz_folder_put("trainer_state.json", data + 1, size - 1);
        read_history();
    }
    return 0;
}
