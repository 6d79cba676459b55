/* Runs a fuzz target once on every file of the folders named on the command line,
 * without libFuzzer. */
#include "fuzz/fuzz_target.h"

#include "base/file.h"
#include "base/mem.h"

enum { MAX_INPUT_BYTES = 1 << 26 };

/* The input is copied to an allocation of exactly its size,
 * so that a read behind its end is seen. */
static lrd_status_t run(const char *path)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t buf = {0};
    uint8_t *input = NULL;
    LRD_TRY(lrd_file_read(path, MAX_INPUT_BYTES, &buf));
    LRD_ALLOC(input, lrd_malloc(buf.size));
    for (size_t i = 0; i < buf.size; i++)
        input[i] = (uint8_t)buf.data[i];
    fprintf(stderr, "%s\n", path); /* the last one printed is the one that crashed */
    LLVMFuzzerTestOneInput(input, buf.size);
out:
    lrd_free(input);
    lrd_buf_release(&buf);
    return status;
}

static lrd_status_t run_folder(const char *folder, size_t *n)
{
    lrd_status_t status = LRD_OK;
    lrd_names_t names = {0};
    LRD_TRY(lrd_folder_list(folder, &names));
    for (size_t i = 0; i < names.n; i++) {
        char *path;
        LRD_ALLOC(path, lrd_path_join(folder, names.name[i]));
        status = run(path);
        lrd_free(path);
        LRD_TRY(status);
        lrd_error_clear();
        ++*n;
    }
out:
    lrd_names_free(&names);
    return status;
}

int main(int argc, char **argv)
{
    size_t n = 0;
    LLVMFuzzerTestOneInput(NULL, 0);
    for (int i = 1; i < argc; i++) {
        const lrd_status_t status = run_folder(argv[i], &n);
        if (status != LRD_OK) {
            fprintf(stderr, "%s\n", lrd_error_text(status));
            return 1;
        }
    }
    printf("%zu inputs\n", n);
    return n > 0 ? 0 : 1; /* an empty corpus tests nothing */
}
