/* What a model's folder says of itself. First byte 0: the rest is config.json, and names of modules
 * of such a model follow from it; 1: model.safetensors.index.json, beside one sound file of weights;
 * 2: a map of devices for a small model, a name and a device on each line. */
#include "fuzz/fuzz_folder.h"

#include "base/log.h"
#include "base/mem.h"
#include "model/device_map.h"
#include "model/family.h"
#include "model/weights_files.h"

#include <string.h>

enum { MAX_LAYERS = 300, MAX_NAMES = 64 };

static void read_config(void)
{
    lrd_model_config_t c = {0};
    lrd_module_t *modules = NULL;
    size_t n = 0;
    if (lrd_model_config_read(fuzz_folder, &c) != LRD_OK)
        return;
    FUZZ_CHECK(c.family != NULL && c.vocab_size > 0 && c.n_layers > 0 && c.n_heads > 0);
    FUZZ_CHECK(c.hidden == c.n_heads * c.head_dim && c.mlp >= c.hidden);
    FUZZ_CHECK(c.bos_token_id >= -1 && c.eos_token_id >= -1 && c.pad_token_id >= -1);
    if (c.n_layers > MAX_LAYERS)
        return;
    FUZZ_CHECK(lrd_model_count_parameters(&c, true) > 0);
    FUZZ_CHECK(c.family->list_modules(&c, &modules, &n) == LRD_OK && n > (size_t)c.n_layers);
    lrd_free(modules);
}

static void read_index(const uint8_t *data, size_t size)
{
    static const char header[] =
        "{\"h.0.x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}    ";
    const uint64_t n = sizeof header - 1;
    char file[sizeof n + sizeof header - 1 + sizeof(float)] = {0};
    lrd_weights_files_t *files = NULL;
    lrd_located_t located;
    memcpy(file, &n, sizeof n);
    memcpy(file + sizeof n, header, n);
    fuzz_folder_put("a.safetensors", file, sizeof file);
    fuzz_folder_put("model.safetensors.index.json", data, size);
    if (lrd_weights_files_open(fuzz_folder, &files) == LRD_OK) {
        FUZZ_CHECK(files->is_sharded && files->n_files == 1); /* no other file is there */
        FUZZ_CHECK(lrd_weights_files_find(files, "transformer.", "h.0.x", &located));
    } else {
        FUZZ_CHECK(files == NULL);
    }
    lrd_weights_files_close(files);
}

static void read_map(const uint8_t *data, size_t size)
{
    static const char config[] = "{\"model_type\": \"bloom\", \"hidden_size\": 16, \"n_layer\": 3, "
                                 "\"n_head\": 2, \"vocab_size\": 9}";
    struct lrd_device_map_entry entry[MAX_NAMES];
    lrd_device_map_t map = {.kind = LRD_DEVICE_MAP_EXPLICIT, .entry = entry};
    lrd_model_config_t c;
    lrd_placement_t p = {0};
    int device[7];
    char *text = lrd_strndup((const char *)data, size), *rest = text, *line;
    FUZZ_CHECK(text != NULL);
    fuzz_folder_put("config.json", config, sizeof config - 1);
    FUZZ_CHECK(lrd_model_config_read(fuzz_folder, &c) == LRD_OK);
    FUZZ_CHECK(lrd_device_map_parts(&c) == sizeof device / sizeof device[0]);
    while (map.n < MAX_NAMES && (line = strsep(&rest, "\n")) != NULL) {
        const size_t n = strlen(line); /* the last letter is the device: 0, 1, ... */
        const int64_t number = n > 0 ? line[n - 1] - '0' : 0;
        if (n > 0)
            line[n - 1] = '\0';
        entry[map.n++] = (struct lrd_device_map_entry){line, number >= -2 ? number : 0};
    }
    if (lrd_device_map_read(&map, &c, device) == LRD_OK &&
        lrd_device_map_place(&c, device, &p) == LRD_OK)
        FUZZ_CHECK(p.n_stages >= 1 && p.n_runs >= p.n_stages);
    lrd_placement_release(&p);
    lrd_free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    lrd_log_set_level(LRD_LOG_ERROR);
    fuzz_folder_make();
    if (size == 0)
        return 0;
    switch (data[0] % 3) {
    case 0:
        fuzz_folder_put("config.json", data + 1, size - 1);
        read_config();
        break;
    case 1:
        read_index(data + 1, size - 1);
        break;
    default:
        read_map(data + 1, size - 1);
    }
    lrd_error_clear();
    return 0;
}
