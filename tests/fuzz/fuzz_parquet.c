/* The reader of Parquet files: whatever the bytes, it ends, stays inside of them, and gives objects or an error. */
#include "fuzz/fuzz_target.h"

#include "data/parquet.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_ROWS = 2000 };

/* The columns of the corpus. */
static const char *const name[] = {"id",     "title",  "context", "question", "answers", "list",
                                   "struct", "deep",   "items",   "b",        "f64",     "u32",
                                   "i32",    "length", "front",   "a",        "c"};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum { N = sizeof name / sizeof name[0] };
    lrd_parquet_want_t want[N];
    lrd_parquet_t *parquet = NULL;
    json_t *row = NULL;
    uint8_t *copy = malloc(size); /* so that a sanitizer sees its end */
    FUZZ_CHECK(copy != NULL || size == 0);
    if (size > 0)
        memcpy(copy, data, size);
    for (size_t i = 0; i < N; i++)
        want[i] = (lrd_parquet_want_t){name[i], true};
    if (lrd_parquet_open("fuzz", copy, size, want, N, &parquet) == LRD_OK) {
        FUZZ_CHECK(lrd_parquet_n_rows(parquet) >= 0);
        for (int i = 0; i < MAX_ROWS && lrd_parquet_next(parquet, &row) == LRD_OK && row != NULL;
             i++) {
            FUZZ_CHECK(json_is_object(row) && json_object_size(row) <= N);
            json_decref(row);
            row = NULL;
        }
        FUZZ_CHECK(row == NULL);
    }
    lrd_parquet_close(parquet);
    lrd_error_clear();
    free(copy);
    return 0;
}
