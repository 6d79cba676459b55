#include "kernels/cpu/cpu_tuning.h"

#include "base/mem.h"

#include <stdio.h>
#include <string.h>

typedef struct entry {
    int64_t n, k;
    bool transposed, native;
    double seconds, rule_seconds;
} entry_t;

enum { MOST_ENTRIES = 256 };

struct tuning {
    entry_t entry[MOST_ENTRIES];
    size_t n;
    lrd_choice_t *listed; /* tuning_list's */
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

static lrd_status_t read_entry(const lrd_choice_t *c, const char *path, entry_t *entry)
{
    lrd_status_t status = LRD_OK;
    long long n, k;
    char tail[16] = "";
    const int got = sscanf(c->product, "%lld x %lld %15s", &n, &k, tail);
    entry->transposed = strcmp(tail, "transposed") == 0;
    LRD_CHECK(got >= 2 && n > 0 && k > 0 && (got == 2 || entry->transposed), LRD_ERR_FORMAT,
              "%s: \"%s\" is no product of this back end", path, c->product);
    entry->n = n;
    entry->k = k;
    entry->native = strcmp(c->route, "native") == 0;
    LRD_CHECK(entry->native || strcmp(c->route, "widened") == 0, LRD_ERR_FORMAT,
              "%s: the route of %s is \"%s\", expected native or widened", path, c->product,
              c->route);
out:
    return status;
}

lrd_status_t tuning_open(const lrd_tuning_t *from, const char *path, const micro_isa_t *isa,
                         tuning_t **tuning_out)
{
    lrd_status_t status = LRD_OK;
    tuning_t *tuning = NULL;
    char here[160];
    LRD_NEW(tuning, 1);
    if (from != NULL) {
        tuning_machine(isa, here);
        LRD_CHECK(
            strcmp(from->machine, here) == 0, LRD_ERR_CONFIG,
            "%s was made for \"%s\", this machine is \"%s\": make one here with lora-dist tune",
            path, from->machine, here);
        LRD_CHECK(from->n <= MOST_ENTRIES, LRD_ERR_FORMAT, "%s: more than %d products", path,
                  MOST_ENTRIES);
        for (; tuning->n < from->n; tuning->n++)
            LRD_TRY(read_entry(&from->choice[tuning->n], path, &tuning->entry[tuning->n]));
    }
    *tuning_out = tuning;
    tuning = NULL;
out:
    tuning_free(tuning);
    return status;
}

void tuning_free(tuning_t *tuning)
{
    if (tuning == NULL)
        return;
    lrd_free(tuning->listed);
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

void tuning_add(tuning_t *tuning, int64_t n, int64_t k, bool transposed, const double seconds[2],
                bool by_rule)
{
    const bool native = seconds[1] < seconds[0];
    if (tuning->n < MOST_ENTRIES)
        tuning->entry[tuning->n++] =
            (entry_t){n, k, transposed, native, seconds[native], seconds[by_rule]};
}

lrd_status_t tuning_list(tuning_t *tuning, const micro_isa_t *isa, lrd_tuning_t *tuning_out)
{
    lrd_status_t status = LRD_OK;
    lrd_free(tuning->listed);
    LRD_NEW(tuning->listed, tuning->n + 1);
    for (size_t i = 0; i < tuning->n; i++) {
        const entry_t *e = &tuning->entry[i];
        lrd_choice_t *c = &tuning->listed[i];
        snprintf(c->product, sizeof c->product, "%lld x %lld%s", (long long)e->n, (long long)e->k,
                 e->transposed ? " transposed" : "");
        snprintf(c->route, sizeof c->route, "%s", e->native ? "native" : "widened");
        c->seconds = e->seconds;
        c->rule_seconds = e->rule_seconds;
    }
    *tuning_out = (lrd_tuning_t){.choice = tuning->listed, .n = tuning->n};
    tuning_machine(isa, tuning_out->machine);
out:
    return status;
}
