#include "model/weights_files.h"

#include "base/json.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

/* A name in the folder, or a path. */
static lrd_status_t open_one(lrd_weights_files_t *files, const char *name)
{
    lrd_status_t status = LRD_OK;
    char *path = NULL;
    lrd_safetensors_t **grown;
    LRD_ALLOC(path, lrd_path_join(files->folder, name));
    LRD_ALLOC(grown, lrd_realloc_array(files->file, files->n_files + 1, sizeof *grown));
    files->file = grown;
    LRD_TRY(lrd_safetensors_open(path, &files->file[files->n_files]));
    files->n_files++;
out:
    lrd_free(path);
    return status;
}

static bool is_open(const lrd_weights_files_t *files, const char *name)
{
    for (size_t i = 0; i < files->n_files; i++) {
        if (strcmp(lrd_path_base(files->file[i]->path), name) == 0)
            return true;
    }
    return false;
}

/* The shards that an index names. A name from a file never leaves its folder. */
static lrd_status_t open_shards(lrd_weights_files_t *files, const char *path)
{
    lrd_status_t status = LRD_OK;
    json_t *json = NULL;
    const char *tensor;
    json_t *value;
    LRD_TRY(lrd_json_read(path, 64 << 20, &json));
    json_t *map = json_object_get(json, "weight_map");
    LRD_CHECK(json_is_object(map) && json_object_size(map) > 0, LRD_ERR_FORMAT,
              "%s: \"weight_map\" is not a map of tensor names to files", path);
    json_object_foreach(map, tensor, value)
    {
        const char *name = json_string_value(value);
        LRD_CHECK(name != NULL && strlen(name) == json_string_length(value), LRD_ERR_FORMAT,
                  "%s: the file of \"%s\" is not a string", path, tensor);
        LRD_CHECK(name[0] != '\0' && strchr(name, '/') == NULL && strcmp(name, "..") != 0 &&
                      strcmp(name, ".") != 0,
                  LRD_ERR_FORMAT,
                  "%s: weight_map: the file of \"%s\" is \"%s\", which is not a file of this "
                  "folder",
                  path, tensor, name);
        if (!is_open(files, name))
            LRD_TRY(open_one(files, name));
    }
out:
    json_decref(json);
    return status;
}

/* Why a folder without safetensors cannot be used. */
static lrd_status_t refuse(const char *folder)
{
    lrd_status_t status = LRD_OK;
    lrd_names_t names = {0};
    LRD_TRY(lrd_folder_list(folder, &names));
    for (size_t i = 0; i < names.n; i++) {
        const size_t n = strlen(names.name[i]);
        if (n > 4 && (strcmp(names.name[i] + n - 4, ".bin") == 0 ||
                      strcmp(names.name[i] + n - 4, ".pth") == 0))
            LRD_FAIL(LRD_ERR_UNSUPPORTED,
                     "%s has pickled weights only (%s), which can run any program when they are "
                     "read. Take the "
                     "model's safetensors from the Hub, or convert it once in Python: "
                     "AutoModelForCausalLM.from_pretrained(\"%s\").save_pretrained(NEW_FOLDER)",
                     folder, names.name[i], folder);
    }
    LRD_FAIL(
        LRD_ERR_IO,
        "%s has no weights: neither model.safetensors nor model.safetensors.index.json is there",
        folder);
out:
    lrd_names_free(&names);
    return status;
}

bool lrd_weights_files_exist(const char *folder)
{
    char *single = lrd_path_join(folder, "model.safetensors");
    char *index = lrd_path_join(folder, "model.safetensors.index.json");
    const bool exist =
        single == NULL || index == NULL || lrd_file_exists(single) || lrd_file_exists(index);
    lrd_free(single);
    lrd_free(index);
    return exist;
}

lrd_status_t lrd_weights_files_open(const char *folder, lrd_weights_files_t **files_out)
{
    lrd_status_t status = LRD_OK;
    lrd_weights_files_t *files = NULL;
    char *single = NULL, *index = NULL;
    LRD_NEW(files, 1);
    LRD_ALLOC(files->folder, lrd_strdup(folder));
    LRD_ALLOC(single, lrd_path_join(folder, "model.safetensors"));
    LRD_ALLOC(index, lrd_path_join(folder, "model.safetensors.index.json"));
    files->is_sharded = !lrd_file_exists(single) && lrd_file_exists(index);
    if (lrd_file_exists(single))
        LRD_TRY(open_one(files, "model.safetensors"));
    else if (files->is_sharded)
        LRD_TRY(open_shards(files, index));
    else
        LRD_TRY(refuse(folder));
    *files_out = files;
    files = NULL;
out:
    lrd_free(index);
    lrd_free(single);
    lrd_weights_files_close(files);
    return status;
}

lrd_status_t lrd_weights_files_open_one(const char *path, lrd_weights_files_t **files_out)
{
    lrd_status_t status = LRD_OK;
    lrd_weights_files_t *files = NULL;
    LRD_NEW(files, 1);
    LRD_ALLOC(files->folder, lrd_strdup(""));
    LRD_TRY(open_one(files, path));
    *files_out = files;
    files = NULL;
out:
    lrd_weights_files_close(files);
    return status;
}

void lrd_weights_files_close(lrd_weights_files_t *files)
{
    if (files == NULL || files->more_users-- > 0)
        return;
    for (size_t i = 0; i < files->n_files; i++)
        lrd_safetensors_close(files->file[i]);
    lrd_free(files->file);
    lrd_free(files->folder);
    lrd_free(files);
}

lrd_weights_files_t *lrd_weights_files_share(lrd_weights_files_t *files)
{
    files->more_users++;
    return files;
}

bool lrd_weights_files_find(const lrd_weights_files_t *files, const char *prefix, const char *name,
                            lrd_located_t *located_out)
{
    char full[512];
    snprintf(full, sizeof full, "%s%s", prefix, name);
    for (size_t i = 0; i < files->n_files; i++) {
        const lrd_safetensors_t *f = files->file[i];
        const lrd_tensor_entry_t *entry = lrd_safetensors_find(f, full);
        if (entry == NULL)
            entry = lrd_safetensors_find(f, name);
        if (entry != NULL) {
            *located_out = (lrd_located_t){f, entry};
            return true;
        }
    }
    return false;
}
