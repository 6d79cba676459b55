/* tests/fuzz/fuzz_h5.h -- changes to sound HDF5 files, made with the library: its checksums would
 * stop nearly every other change. */
#ifndef LRD_FUZZ_H5_H
#define LRD_FUZZ_H5_H

#include "fuzz/fuzz_target.h"

#include "data/h5_file.h"

#include <string.h>

/* What the file holds: attributes, and behind them arrays of n elements. */
typedef struct fuzz_h5 {
    const char *const *names;
    int n_attributes, n_names;
    hsize_t n;
} fuzz_h5_t;

/* Writes an attribute of this type and these bytes in place of what was there. */
static inline void fuzz_h5_put_attribute(hid_t file, const char *name, hid_t type,
                                         const void *value, hsize_t n)
{
    const hid_t space = n == 1 ? H5Screate(H5S_SCALAR) : H5Screate_simple(1, &n, NULL);
    const hid_t attribute = H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    if (attribute >= 0) {
        H5Awrite(attribute, type, value);
        H5Aclose(attribute);
    }
    H5Sclose(space);
}

/* An array of another type, length or layout; chunked ones have no one place in the file. */
static inline void fuzz_h5_put_array(hid_t file, const char *name, hid_t type, hsize_t n,
                                     bool chunked)
{
    static const char zeros[64 * 16];
    const hid_t space = H5Screate_simple(1, &n, NULL), properties = H5Pcreate(H5P_DATASET_CREATE);
    const hsize_t chunk = 4;
    if (chunked)
        H5Pset_chunk(properties, 1, &chunk);
    const hid_t set = H5Dcreate2(file, name, type, space, H5P_DEFAULT, properties, H5P_DEFAULT);
    if (set >= 0) {
        H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, zeros);
        H5Dclose(set);
    }
    H5Pclose(properties);
    H5Sclose(space);
}

/* One change, as the first bytes say: which name, what becomes of it, how many bytes of the input
 * are its value. Returns how many bytes it took. */
static inline size_t fuzz_h5_change(const fuzz_h5_t *h, hid_t file, const uint8_t *data,
                                    size_t size)
{
    const int which = data[0] % h->n_names, how = data[0] / h->n_names % 6;
    const char *name = h->names[which];
    char text[256] = "";
    int64_t value = 0;
    size_t n = size > 1 ? data[1] : 0;
    n = n < size - 2 && size > 2 ? n : size > 2 ? size - 2 : 0;
    if (n > 0)
        memcpy(text, data + 2, n < 255 ? n : 255);
    memcpy(&value, text, sizeof value);
    if (which < h->n_attributes) {
        H5Adelete(file, name);
        if (how == 1)
            (void)lrd_h5_put_text(file, "fuzz", name, text);
        else if (how == 2)
            (void)lrd_h5_put_int(file, "fuzz", name, value);
        else if (how == 3)
            fuzz_h5_put_attribute(file, name, H5T_IEEE_F64LE, text, 1);
        else if (how == 4)
            fuzz_h5_put_attribute(file, name, H5T_STD_I64LE, text, 5);
    } else {
        H5Ldelete(file, name, H5P_DEFAULT);
        if (how == 4) /* links may lead anywhere */
            H5Lcreate_external("/dev/null", name, file, name, H5P_DEFAULT, H5P_DEFAULT);
        else if (how == 5)
            H5Lcreate_soft(h->names[h->n_names - 1], file, name, H5P_DEFAULT, H5P_DEFAULT);
        else if (how != 0)
            fuzz_h5_put_array(file, name, how == 1 ? H5T_IEEE_F64LE : H5T_IEEE_F32LE,
                              how == 2 ? (hsize_t)n % 64 : h->n, how == 3);
    }
    lrd_error_clear();
    return 2 + n;
}

/* All changes of the input to the file at `path`. */
static inline void fuzz_h5_change_all(const fuzz_h5_t *h, const char *path, const uint8_t *data,
                                      size_t size)
{
    const hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    FUZZ_CHECK(file >= 0);
    for (size_t at = 0; at < size;)
        at += fuzz_h5_change(h, file, data + at, size - at);
    FUZZ_CHECK(H5Fclose(file) >= 0);
}

#endif /* LRD_FUZZ_H5_H */
