#include "data/h5_file.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum { MAX_TEXT = 32000, ALIGNMENT = 4096 };

/* "file write failed: time = ..., error message = 'No space left on device', buf = ..." becomes
 * "file write failed: No space left on device". */
static void shorten(const char *text, char short_text[LRD_H5_MESSAGE])
{
    static const char mark[] = "error message = '";
    const char *reason = strstr(text, mark);
    if (reason == NULL) {
        snprintf(short_text, LRD_H5_MESSAGE, "%s", text);
        return;
    }
    reason += sizeof mark - 1;
    snprintf(short_text, LRD_H5_MESSAGE, "%.*s: %.*s", (int)strcspn(text, ":"), text,
             (int)strcspn(reason, "'"), reason);
}

static herr_t take_first(unsigned n, const H5E_error2_t *error, void *user)
{
    if (n == 0)
        shorten(error->desc != NULL && error->desc[0] != '\0' ? error->desc : "no reason given",
                user);
    return 0;
}

const char *lrd_h5_message(char text[LRD_H5_MESSAGE])
{
    snprintf(text, LRD_H5_MESSAGE, "HDF5 gave no reason");
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, take_first, text);
    return text;
}

/* The library must not tidy up when the process ends: a file that could not be written to its end (a
 * full disk) is still open for it, and it crashes over that. */
static void begin_library(void)
{
    H5dont_atexit();
}

/* Access properties for all files. The library is silenced here, for the calling thread, because
 * every use of a file begins here. */
static lrd_status_t make_access(const char *path, hid_t *access_out)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    lrd_status_t status = LRD_OK;
    pthread_once(&once, begin_library);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    const hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    LRD_H5_CHECK(access >= 0, LRD_ERR_NO_MEMORY, "%s", path);
    *access_out = access;
    LRD_H5_CHECK(H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_LATEST) >= 0,
                 LRD_ERR_INTERNAL, "%s", path);
    LRD_H5_CHECK(H5Pset_alignment(access, 1, ALIGNMENT) >= 0, LRD_ERR_INTERNAL, "%s", path);
    LRD_H5_CHECK(H5Pset_small_data_block_size(access, 0) >= 0, LRD_ERR_INTERNAL, "%s", path);
#if H5_VERSION_GE(1, 10, 7) && !(H5_VERSION_GE(1, 12, 0) && !H5_VERSION_GE(1, 12, 1))
    LRD_H5_CHECK(H5Pset_file_locking(access, 0, 1) >= 0, LRD_ERR_INTERNAL, "%s", path);
#endif
out:
    return status;
}

lrd_status_t lrd_h5_create(const char *path, hid_t *file_out)
{
    lrd_status_t status = LRD_OK;
    hid_t access = -1;
    LRD_TRY(make_access(path, &access));
    const hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, access);
    LRD_H5_CHECK(file >= 0, LRD_ERR_IO, "cannot write %s", path);
    *file_out = file;
out:
    if (access >= 0)
        H5Pclose(access);
    return status;
}

lrd_status_t lrd_h5_open(const char *path, hid_t *file_out)
{
    lrd_status_t status = LRD_OK;
    hid_t access = -1;
    LRD_TRY(make_access(path, &access));
    const hid_t file = H5Fopen(path, H5F_ACC_RDONLY, access);
    LRD_H5_CHECK(file >= 0, LRD_ERR_FORMAT, "%s is not a sound HDF5 file", path);
    *file_out = file;
out:
    if (access >= 0)
        H5Pclose(access);
    return status;
}

lrd_status_t lrd_h5_close(hid_t *file, const char *path)
{
    lrd_status_t status = LRD_OK;
    const hid_t closing = *file;
    *file = -1;
    LRD_H5_CHECK(H5Fclose(closing) >= 0, LRD_ERR_IO, "cannot finish %s", path);
out:
    return status;
}

/* Writes a scalar attribute. */
static lrd_status_t put(hid_t file, const char *path, const char *name, hid_t type,
                        const void *value)
{
    lrd_status_t status = LRD_OK;
    hid_t attribute = -1;
    const hid_t space = H5Screate(H5S_SCALAR);
    LRD_H5_CHECK(space >= 0, LRD_ERR_NO_MEMORY, "%s: %s", path, name);
    attribute = H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    LRD_H5_CHECK(attribute >= 0 && H5Awrite(attribute, type, value) >= 0, LRD_ERR_IO,
                 "%s: cannot write the attribute %s", path, name);
out:
    if (attribute >= 0)
        H5Aclose(attribute);
    if (space >= 0)
        H5Sclose(space);
    return status;
}

/* A string of so many bytes, without a NUL. */
static lrd_status_t make_text_type(const char *path, size_t bytes, hid_t *type_out)
{
    lrd_status_t status = LRD_OK;
    const hid_t type = H5Tcopy(H5T_C_S1);
    LRD_H5_CHECK(type >= 0, LRD_ERR_NO_MEMORY, "%s", path);
    *type_out = type;
    LRD_H5_CHECK(H5Tset_size(type, bytes) >= 0 && H5Tset_strpad(type, H5T_STR_NULLPAD) >= 0 &&
                     H5Tset_cset(type, H5T_CSET_UTF8) >= 0,
                 LRD_ERR_INTERNAL, "%s", path);
out:
    return status;
}

lrd_status_t lrd_h5_put_text(hid_t file, const char *path, const char *name, const char *text)
{
    lrd_status_t status = LRD_OK;
    hid_t type = -1;
    size_t bytes = strlen(text);
    if (bytes > MAX_TEXT) {
        bytes = MAX_TEXT;
        while (bytes > 0 && ((unsigned char)text[bytes] & 0xc0u) == 0x80u)
            bytes--;
    }
    LRD_TRY(make_text_type(path, bytes > 0 ? bytes : 1, &type)); /* an empty one is one NUL */
    LRD_TRY(put(file, path, name, type, text));
out:
    if (type >= 0)
        H5Tclose(type);
    return status;
}

lrd_status_t lrd_h5_put_int(hid_t file, const char *path, const char *name, int64_t value)
{
    return put(file, path, name, H5T_STD_I64LE, &value);
}

/* Opens an attribute and gives its type. */
static lrd_status_t open_attribute(hid_t file, const char *path, const char *name,
                                   hid_t *attribute_out, hid_t *type_out)
{
    lrd_status_t status = LRD_OK;
    const hid_t attribute = H5Aopen(file, name, H5P_DEFAULT);
    LRD_H5_CHECK(attribute >= 0, LRD_ERR_FORMAT, "%s: the attribute %s is missing", path, name);
    *attribute_out = attribute;
    const hid_t type = H5Aget_type(attribute);
    LRD_H5_CHECK(type >= 0, LRD_ERR_FORMAT, "%s: the attribute %s cannot be read", path, name);
    *type_out = type;
    const hid_t space = H5Aget_space(attribute);
    const hssize_t n = space >= 0 ? H5Sget_simple_extent_npoints(space) : -1;
    if (space >= 0)
        H5Sclose(space);
    LRD_CHECK(n == 1, LRD_ERR_FORMAT, "%s: the attribute %s is not a single value", path, name);
out:
    return status;
}

static void close_attribute(hid_t attribute, hid_t type)
{
    if (type >= 0)
        H5Tclose(type);
    if (attribute >= 0)
        H5Aclose(attribute);
}

bool lrd_h5_has(hid_t file, const char *name)
{
    return H5Aexists(file, name) > 0;
}

lrd_status_t lrd_h5_get_text(hid_t file, const char *path, const char *name, lrd_buf_t *text)
{
    lrd_status_t status = LRD_OK;
    hid_t attribute = -1, type = -1;
    LRD_TRY(open_attribute(file, path, name, &attribute, &type));
    const size_t bytes = H5Tget_size(type);
    LRD_CHECK(H5Tget_class(type) == H5T_STRING && H5Tis_variable_str(type) == 0 && bytes > 0 &&
                  bytes <= MAX_TEXT,
              LRD_ERR_FORMAT, "%s: the attribute %s is not a text", path, name);
    LRD_TRY(lrd_buf_reserve(text, bytes));
    LRD_H5_CHECK(H5Aread(attribute, type, text->data + text->size) >= 0, LRD_ERR_FORMAT,
                 "%s: the attribute %s cannot be read", path, name);
    text->size += strnlen(text->data + text->size, bytes);
    text->data[text->size] = '\0';
out:
    close_attribute(attribute, type);
    return status;
}

lrd_status_t lrd_h5_get_int(hid_t file, const char *path, const char *name, int64_t *value_out)
{
    lrd_status_t status = LRD_OK;
    hid_t attribute = -1, type = -1;
    int64_t value = 0;
    LRD_TRY(open_attribute(file, path, name, &attribute, &type));
    LRD_CHECK(H5Tequal(type, H5T_STD_I64LE) > 0, LRD_ERR_FORMAT,
              "%s: the attribute %s is not a 64-bit integer", path, name);
    LRD_H5_CHECK(H5Aread(attribute, H5T_STD_I64LE, &value) >= 0, LRD_ERR_FORMAT,
                 "%s: the attribute %s cannot be read", path, name);
    *value_out = value;
out:
    close_attribute(attribute, type);
    return status;
}

lrd_status_t lrd_h5_put_array(hid_t file, const char *path, const char *name, hid_t type, size_t n,
                              const void *data)
{
    lrd_status_t status = LRD_OK;
    const hsize_t size = n;
    hid_t set = -1, properties = -1;
    const hid_t space = H5Screate_simple(1, &size, NULL);
    LRD_H5_CHECK(space >= 0, LRD_ERR_NO_MEMORY, "%s: %s", path, name);
    properties = H5Pcreate(H5P_DATASET_CREATE);
    LRD_H5_CHECK(properties >= 0, LRD_ERR_NO_MEMORY, "%s: %s", path, name);
    LRD_H5_CHECK(H5Pset_layout(properties, H5D_CONTIGUOUS) >= 0 &&
                     H5Pset_fill_time(properties, H5D_FILL_TIME_NEVER) >= 0 &&
                     H5Pset_obj_track_times(properties, 0) >= 0,
                 LRD_ERR_INTERNAL, "%s: %s", path, name);
    set = H5Dcreate2(file, name, type, space, H5P_DEFAULT, properties, H5P_DEFAULT);
    LRD_H5_CHECK(set >= 0, LRD_ERR_IO, "%s: cannot create the array %s", path, name);
    LRD_H5_CHECK(n == 0 || H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0,
                 LRD_ERR_IO, "%s: cannot write the array %s", path, name);
    const hid_t closing = set; /* what is left of a small array is written only now */
    set = -1;
    LRD_H5_CHECK(H5Dclose(closing) >= 0, LRD_ERR_IO, "%s: cannot write the array %s", path, name);
out:
    if (set >= 0)
        H5Dclose(set);
    if (properties >= 0)
        H5Pclose(properties);
    if (space >= 0)
        H5Sclose(space);
    return status;
}

/* Whether the data set is one-dimensional, contiguous, and of n elements of the type. */
static bool array_is(hid_t set, hid_t type, size_t n)
{
    const hid_t space = H5Dget_space(set), own_type = H5Dget_type(set),
                properties = H5Dget_create_plist(set);
    hsize_t size = 0;
    const bool good = space >= 0 && own_type >= 0 && properties >= 0 &&
                      H5Sget_simple_extent_ndims(space) == 1 &&
                      H5Sget_simple_extent_dims(space, &size, NULL) == 1 && size == n &&
                      H5Tequal(own_type, type) > 0 && H5Pget_layout(properties) == H5D_CONTIGUOUS &&
                      H5Pget_external_count(properties) == 0;
    if (properties >= 0)
        H5Pclose(properties);
    if (own_type >= 0)
        H5Tclose(own_type);
    if (space >= 0)
        H5Sclose(space);
    return good;
}

lrd_status_t lrd_h5_find_array(hid_t file, const char *path, const char *name, hid_t type, size_t n,
                               uint64_t *offset_out)
{
    lrd_status_t status = LRD_OK;
    hid_t set = -1;
    H5L_info_t link = {.type = H5L_TYPE_ERROR};
    LRD_H5_CHECK(H5Lget_info(file, name, &link, H5P_DEFAULT) >= 0, LRD_ERR_FORMAT,
                 "%s: the array %s is missing", path, name);
    LRD_CHECK(link.type == H5L_TYPE_HARD, LRD_ERR_FORMAT,
              "%s: the array %s is a link, which may lead to another file", path, name);
    set = H5Dopen2(file, name, H5P_DEFAULT);
    LRD_H5_CHECK(set >= 0, LRD_ERR_FORMAT, "%s: the array %s cannot be opened", path, name);
    LRD_CHECK(array_is(set, type, n), LRD_ERR_FORMAT,
              "%s: the array %s is not contiguous, or not of the %zu elements that it should have",
              path, name, n);
    const haddr_t offset = n > 0 ? H5Dget_offset(set) : 0;
    LRD_H5_CHECK(offset != HADDR_UNDEF, LRD_ERR_FORMAT, "%s: the array %s has no data", path, name);
    *offset_out = offset;
out:
    if (set >= 0)
        H5Dclose(set);
    return status;
}
