#include "base/dtype.h"

static const struct {
    size_t bytes;
    const char *file_name, *setting_name;
} dtypes[] = {
#define X(name, bytes, file_name, setting_name) [name] = {bytes, file_name, setting_name},
    LRD_DTYPE_LIST(X)
#undef X
};

size_t lrd_dtype_bytes(lrd_dtype_t dtype)
{
    return dtypes[dtype].bytes;
}

const char *lrd_dtype_file_name(lrd_dtype_t dtype)
{
    return dtypes[dtype].file_name;
}

const char *lrd_dtype_setting_name(lrd_dtype_t dtype)
{
    return dtypes[dtype].setting_name;
}

int lrd_dtype_parse(const char *name)
{
    for (int i = 0; i < (int)(sizeof dtypes / sizeof dtypes[0]); i++) {
        if (name[0] != '\0' &&
            (strcmp(name, dtypes[i].file_name) == 0 || strcmp(name, dtypes[i].setting_name) == 0))
            return i;
    }
    return -1;
}
