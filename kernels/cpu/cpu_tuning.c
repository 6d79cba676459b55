#include "kernels/cpu/cpu_tuning.h"

#include "base/json.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

typedef struct entry {
    int64_t n, k;
    bool transposed, native;
} entry_t;

struct tuning {
    entry_t *entry;
    size_t n;
};

void tuning_machine(const micro_isa_t *isa, char text[160])
{
    char model[100] = "unknown processor", line[256];
    FILE *f = fopen("/proc/cpuinfo", "r");
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        if (sscanf(line, "model name : %99[^\n]", model) == 1)
            break;
    }
    if (f != NULL)
        fclose(f);
    snprintf(text, 160, "%s, %s", model, isa->name);
}

static lrd_status_t read_entry(const json_t *item, const char *path, size_t i, entry_t *entry)
{
    lrd_status_t status = LRD_OK;
    const char *route;
    char name[512];
    snprintf(name, sizeof name, "%s: products[%zu]", path, i);
    LRD_TRY(lrd_json_get_int(item, name, "n", 0, 1, INT64_MAX, &entry->n));
    LRD_TRY(lrd_json_get_int(item, name, "k", 0, 1, INT64_MAX, &entry->k));
    LRD_TRY(lrd_json_get_bool(item, name, "transposed", false, &entry->transposed));
    LRD_TRY(lrd_json_get_text(item, name, "route", "", &route));
    entry->native = strcmp(route, "native") == 0;
    LRD_CHECK(entry->native || strcmp(route, "widened") == 0, LRD_ERR_FORMAT,
              "%s: \"route\" is \"%s\", expected native or widened", name, route);
out:
    return status;
}

lrd_status_t tuning_load(const char *path, const micro_isa_t *isa, tuning_t **tuning_out)
{
    lrd_status_t status = LRD_OK;
    json_t *json = NULL;
    tuning_t *tuning = NULL;
    const char *machine;
    char here[160];
    LRD_TRY(lrd_json_read(path, 1 << 20, &json));
    LRD_TRY(lrd_json_get_text(json, path, "machine", "", &machine));
    tuning_machine(isa, here);
    LRD_CHECK(strcmp(machine, here) == 0, LRD_ERR_CONFIG,
              "%s was made for \"%s\", this machine is \"%s\": make one here with lora-dist tune",
              path, machine, here);
    const json_t *list = json_object_get(json, "products");
    LRD_CHECK(json_is_array(list), LRD_ERR_FORMAT, "%s: \"products\" is not a list", path);
    LRD_NEW(tuning, 1);
    LRD_NEW(tuning->entry, json_array_size(list));
    for (; tuning->n < json_array_size(list); tuning->n++)
        LRD_TRY(read_entry(json_array_get(list, tuning->n), path, tuning->n,
                           &tuning->entry[tuning->n]));
    *tuning_out = tuning;
    tuning = NULL;
out:
    tuning_free(tuning);
    json_decref(json);
    return status;
}

void tuning_free(tuning_t *tuning)
{
    if (tuning == NULL)
        return;
    lrd_free(tuning->entry);
    lrd_free(tuning);
}

bool tuning_find(const tuning_t *tuning, int64_t n, int64_t k, bool transposed, bool *native_out)
{
    for (size_t i = 0; tuning != NULL && i < tuning->n; i++) {
        const entry_t *e = &tuning->entry[i];
        if (e->n == n && e->k == k && e->transposed == transposed) {
            *native_out = e->native;
            return true;
        }
    }
    return false;
}
