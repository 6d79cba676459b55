#include "app/command.h"

#include "base/host_memory.h"
#include "base/version.h"
#include "comm/devcomm.h"
#include "hub/hub.h"
#include "model/software.h"

#include <jansson.h>
#include <openssl/crypto.h>
#include <yaml.h>
#include <zlib.h>
#include <zstd.h>

/* "name: value" lines; the first failure to add one stands. */
typedef struct facts {
    lrd_buf_t *text;
    const char *indent;
    lrd_status_t status;
} facts_t;

static void print_fact(void *context, const char *name, const char *value)
{
    facts_t *f = context;
    if (f->status == LRD_OK)
        f->status = lrd_buf_printf(f->text, "%s%s: %s\n", f->indent, name, value);
}

static lrd_status_t print_backends(lrd_app_t *app, lrd_buf_t *text)
{
    lrd_status_t status = LRD_OK;
    lrd_backend_t *be = NULL;
    int n, threads;
    const char *const *names = lrd_backend_names(&n);
    LRD_TRY(lrd_threads_alone(app, &threads));
    for (int i = 0; i < n; i++) {
        char about[256];
        size_t free_bytes, total_bytes;
        status = lrd_backend_open(names[i], &(lrd_backend_options_t){0, threads, NULL}, &be);
        if (status == LRD_ERR_UNAVAILABLE) {
            const char *why = lrd_error_text(status);
            LRD_TRY(lrd_buf_printf(text, "backend %s: not here: %s\n", names[i], why));
            lrd_error_clear();
            continue;
        }
        if (status != LRD_OK)
            goto out;
        LRD_TRY(lrd_backend_describe(be, about, sizeof about));
        LRD_TRY(lrd_mem_info(be, &free_bytes, &total_bytes));
        LRD_TRY(lrd_buf_printf(text, "backend %s: %s; %.1f of %.1f GiB free\n", names[i], about,
                               (double)free_bytes / 0x1p30, (double)total_bytes / 0x1p30));
        facts_t facts = {.text = text, .indent = "  "};
        lrd_software_list_backend(be, print_fact, &facts);
        LRD_TRY(facts.status);
        lrd_backend_close(be);
        be = NULL;
    }
out:
    lrd_backend_close(be);
    return status;
}

/* What this process may still take of the host's memory: the least of these counts. */
static lrd_status_t print_memory(lrd_buf_t *text)
{
    lrd_status_t status = LRD_OK;
    lrd_host_memory_t host;
    LRD_TRY(lrd_host_memory_read(&host));
    for (int i = 0; i < host.n; i++) {
        const lrd_memory_bound_t *b = &host.bound[i];
        LRD_TRY(lrd_buf_printf(text, "host memory: %.1f of %.1f GiB left: %s\n",
                               (double)b->free_bytes / 0x1p30, (double)b->total_bytes / 0x1p30,
                               b->name));
    }
out:
    return status;
}

/* What GPUs of several ranks exchange data by. */
static lrd_status_t print_devcomm(lrd_buf_t *text)
{
    char library[96];
    lrd_status_t status = lrd_devcomm_library(library);
    if (status == LRD_OK)
        return lrd_buf_printf(text, "GPU to GPU: %s\n", library);
    if (status != LRD_ERR_UNAVAILABLE)
        return status;
    status = lrd_buf_printf(text, "GPU to GPU: through host memory: %s\n", lrd_error_text(status));
    lrd_error_clear();
    return status;
}

static lrd_status_t print_libraries(lrd_buf_t *text)
{
    lrd_status_t status = LRD_OK;
    facts_t facts = {.text = text, .indent = ""};
    lrd_software_list(print_fact, &facts);
    LRD_TRY(facts.status);
    LRD_TRY(lrd_buf_printf(text, "zlib: %s\n", zlibVersion()));
    LRD_TRY(lrd_buf_printf(text, "Zstandard: %s\n", ZSTD_versionString()));
    LRD_TRY(lrd_buf_printf(text, "jansson: %s\n", JANSSON_VERSION));
    LRD_TRY(lrd_buf_printf(text, "libyaml: %s\n", yaml_get_version_string()));
    LRD_TRY(lrd_buf_printf(text, "libcurl: %s\n", lrd_hub_library()));
    LRD_TRY(lrd_buf_printf(text, "OpenSSL: %s\n", OpenSSL_version(OPENSSL_VERSION_STRING)));
out:
    return status;
}

lrd_status_t lrd_command_info(lrd_app_t *app)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t text = {0};
    LRD_TRY(lrd_buf_add_text(&text, "lora-dist " LRD_VERSION "\n"));
    LRD_TRY(print_backends(app, &text));
    LRD_TRY(print_memory(&text));
    LRD_TRY(print_devcomm(&text));
    LRD_TRY(print_libraries(&text));
    LRD_TRY(lrd_put_result(text.data, text.size));
out:
    lrd_buf_release(&text);
    return status;
}
