#include "model/merge_files.h"

#include "base/json_writer.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/version.h"

#include <string.h>
#include <strings.h>

static const char index_name[] = "model.safetensors.index.json";

/* Beyond this a file is no tokenizer and no license. */
static const size_t MAX_BYTES = 64 << 20;

lrd_status_t lrd_merge_check_empty(const char *folder)
{
    lrd_status_t status = LRD_OK;
    lrd_names_t names = {0};
    LRD_CHECK(!lrd_file_exists(folder), LRD_ERR_ARG, "%s is a file: a merged model is a folder",
              folder);
    if (!lrd_folder_exists(folder))
        goto out;
    LRD_TRY(lrd_folder_list(folder, &names));
    LRD_CHECK(
        names.n == 0, LRD_ERR_ARG,
        "%s is there and is not empty: name another folder for the merged model, or remove it",
        folder);
out:
    lrd_names_free(&names);
    return status;
}

/* The folder is built beside its place, and what has that name is removed first. */
static lrd_status_t check_beside(const char *resolved, const char *folder)
{
    lrd_status_t status = LRD_OK;
    char *partial = NULL, *real = NULL;
    LRD_ALLOC(partial, lrd_asprintf("%s.partial", resolved));
    LRD_TRY(lrd_path_resolve(folder, &real));
    LRD_CHECK(!lrd_path_is_inside(real, partial), LRD_ERR_ARG,
              "%s is where the merged model %s would be built: name another folder for it", folder,
              resolved);
out:
    lrd_free(real);
    lrd_free(partial);
    return status;
}

lrd_status_t lrd_merge_place(const char *model, const char *adapter, const char *out,
                             char **resolved_out)
{
    lrd_status_t status = LRD_OK;
    char *resolved = NULL, *base = NULL;
    LRD_TRY(lrd_path_resolve(out, &resolved));
    LRD_TRY(lrd_path_resolve(model, &base));
    LRD_CHECK(!lrd_path_is_inside(resolved, base), LRD_ERR_ARG,
              "%s is the base model's folder, or lies in it: name another folder for the merged "
              "model",
              out);
    LRD_TRY(lrd_merge_check_empty(resolved));
    LRD_TRY(check_beside(resolved, model));
    LRD_TRY(check_beside(resolved, adapter));
    *resolved_out = resolved;
    resolved = NULL;
out:
    lrd_free(base);
    lrd_free(resolved);
    return status;
}

static bool ends_with(const char *text, const char *end)
{
    const size_t n = strlen(text), m = strlen(end);
    return n >= m && strcasecmp(text + n - m, end) == 0;
}

/* What the result has in a form of its own, or not at all. */
static bool is_left_out(const lrd_weights_files_t *files, const char *name)
{
    static const char *const names[] = {"README.md", "adapter_config.json"};
    static const char *const ends[] = {".safetensors", ".index.json", ".bin",  ".pt",   ".pth",
                                       ".ckpt",        ".h5",         ".onnx", ".gguf", ".msgpack"};
    if (name[0] == '.')
        return true;
    for (size_t i = 0; i < files->n_files; i++)
        if (strcmp(lrd_path_base(files->file[i]->path), name) == 0)
            return true;
    if (strcmp(name, index_name) == 0)
        return !files->is_sharded;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcasecmp(name, names[i]) == 0)
            return true;
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
        if (ends_with(name, ends[i]))
            return true;
    return false;
}

/* A folder from elsewhere must not bring this user's files into a model that will be given away. The
 * Hub's cache keeps all files in blobs/, beside snapshots/, with links to them. */
static lrd_status_t check_link(const char *folder, const char *path)
{
    lrd_status_t status = LRD_OK;
    char *blobs = NULL, *home = NULL, *cache = NULL, *file = NULL;
    LRD_ALLOC(blobs, lrd_path_join(folder, "../../blobs"));
    LRD_TRY(lrd_path_resolve(folder, &home));
    LRD_TRY(lrd_path_resolve(path, &file));
    if (lrd_folder_exists(blobs))
        LRD_TRY(lrd_path_resolve(blobs, &cache));
    LRD_CHECK(
        lrd_path_is_inside(file, home) || (cache != NULL && lrd_path_is_inside(file, cache)),
        LRD_ERR_FORMAT,
        "%s is a link that leads out of the model's folder, to %s. Put the file itself there, "
        "or remove the link",
        path, file);
out:
    lrd_free(file);
    lrd_free(cache);
    lrd_free(home);
    lrd_free(blobs);
    return status;
}

/* Whether the folder's file is one to copy, and its size. */
static lrd_status_t examine(const lrd_weights_files_t *files, const char *name, bool *copied_out,
                            size_t *bytes_out)
{
    lrd_status_t status = LRD_OK;
    lrd_map_t map = {0};
    char *path = NULL;
    *copied_out = false;
    LRD_ALLOC(path, lrd_path_join(files->folder, name));
    if (!lrd_file_exists(path) || is_left_out(files, name))
        goto out;
    LRD_TRY(check_link(files->folder, path));
    LRD_TRY(lrd_file_map(path, &map));
    *bytes_out = map.size;
    *copied_out = map.size <= MAX_BYTES;
    if (!*copied_out)
        lrd_warn("%s is not copied: it has %zu MiB, and is none of a model's files that are known",
                 path, map.size >> 20);
out:
    lrd_file_unmap(&map);
    lrd_free(path);
    return status;
}

lrd_status_t lrd_merge_list_files(const lrd_weights_files_t *files, lrd_names_t *names_out,
                                  uint64_t *bytes_out)
{
    lrd_status_t status = LRD_OK;
    lrd_names_t names = {0};
    uint64_t sum = 0;
    size_t n = 0;
    LRD_TRY(lrd_folder_list(files->folder, &names));
    for (size_t i = 0; i < names.n; i++) {
        bool copied;
        size_t bytes = 0;
        LRD_TRY(examine(files, names.name[i], &copied, &bytes));
        if (!copied)
            continue;
        char *name = names.name[i];
        names.name[i] = names.name[n];
        names.name[n++] = name;
        sum += bytes;
    }
    while (names.n > n)
        lrd_free(names.name[--names.n]);
    *names_out = names;
    *bytes_out = sum;
    names = (lrd_names_t){0};
out:
    lrd_names_free(&names);
    return status;
}

lrd_status_t lrd_merge_copy_files(const char *model, const lrd_names_t *names, const char *folder)
{
    lrd_status_t status = LRD_OK;
    char *from = NULL, *to = NULL;
    lrd_buf_t content = {0};
    for (size_t i = 0; i < names->n; i++) {
        LRD_ALLOC(from, lrd_path_join(model, names->name[i]));
        LRD_ALLOC(to, lrd_path_join(folder, names->name[i]));
        lrd_buf_clear(&content);
        LRD_TRY(lrd_file_read(from, MAX_BYTES, &content));
        LRD_TRY(lrd_file_write(to, content.data, content.size));
        lrd_free(from);
        lrd_free(to);
        from = to = NULL;
    }
out:
    lrd_buf_release(&content);
    lrd_free(from);
    lrd_free(to);
    return status;
}

lrd_status_t lrd_merge_write_card(const char *folder, const char *base, const char *adapter)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t buf = {0};
    lrd_json_writer_t w = {.buf = &buf};
    char *path = NULL;
    LRD_TRY(lrd_buf_add_text(&buf, "---\nbase_model: "));
    lrd_json_text(&w, base); /* in double quotes, as YAML reads it too */
    LRD_TRY(lrd_json_writer_status(&w));
    LRD_TRY(lrd_buf_printf(
        &buf,
        "\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n- lora\n---\n\n"
        "# %s with a LoRA adapter merged in\n\n"
        "The weights of `%s` with the LoRA adapter `%s` added to them: W + s B A, as PEFT's "
        "`merge_and_unload` computes it. Needs no PEFT.\n\n"
        "## How to use it\n\n"
        "```python\n"
        "from transformers import AutoModelForCausalLM\n\n"
        "model = AutoModelForCausalLM.from_pretrained(\".\")  # this folder\n"
        "```\n\n"
        "### Framework versions\n\n"
        "- lora-dist " LRD_VERSION "\n",
        base, base, adapter));
    LRD_ALLOC(path, lrd_path_join(folder, "README.md"));
    LRD_TRY(lrd_file_write(path, buf.data, buf.size));
out:
    lrd_free(path);
    lrd_buf_release(&buf);
    return status;
}
