/* parquet_rows FILE COLUMN...: the rows of a Parquet file as JSON lines on standard output, or, with FILE -n, only how
 * many there are. For comparisons with pyarrow, and of speed. */
#include "base/file.h"
#include "data/parquet.h"

#include <stdio.h>
#include <string.h>

enum { MAX_COLUMNS = 64 };

static lrd_status_t print_row(const json_t *row)
{
    lrd_status_t status = LRD_OK;
    LRD_CHECK(json_dumpf(row, stdout, JSON_COMPACT | JSON_REAL_PRECISION(17)) == 0 &&
                  putchar('\n') != EOF,
              LRD_ERR_IO, "cannot write to standard output");
out:
    return status;
}

static lrd_status_t read_rows(lrd_parquet_t *parquet, bool prints, long *n_out)
{
    lrd_status_t status = LRD_OK;
    json_t *row = NULL;
    for (;;) {
        LRD_TRY(lrd_parquet_next(parquet, &row));
        if (row == NULL)
            break;
        ++*n_out;
        if (prints)
            LRD_TRY(print_row(row));
        json_decref(row);
        row = NULL;
    }
out:
    json_decref(row);
    return status;
}

static lrd_status_t run(int argc, char **argv)
{
    lrd_status_t status = LRD_OK;
    lrd_map_t map = {0};
    lrd_parquet_t *parquet = NULL;
    lrd_parquet_want_t want[MAX_COLUMNS];
    size_t n_wanted = 0;
    long n = 0;
    bool prints = true;
    LRD_CHECK(argc > 2 && argc < MAX_COLUMNS, LRD_ERR_ARG, "parquet_rows FILE [-n] COLUMN...");
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "-n") == 0)
            prints = false;
        else
            want[n_wanted++] = (lrd_parquet_want_t){.name = argv[i]};
    }
    LRD_TRY(lrd_file_map(argv[1], &map));
    LRD_TRY(lrd_parquet_open(argv[1], map.data, map.size, want, n_wanted, &parquet));
    LRD_TRY(read_rows(parquet, prints, &n));
    if (!prints)
        printf("%ld\n", n);
out:
    lrd_parquet_close(parquet);
    lrd_file_unmap(&map);
    return status;
}

int main(int argc, char **argv)
{
    const lrd_status_t status = run(argc, argv);
    if (status != LRD_OK)
        fprintf(stderr, "%s\n", lrd_error_text(status));
    return status == LRD_OK ? 0 : 1;
}
