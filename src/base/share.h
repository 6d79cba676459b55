/* base/share.h -- how n things in a row are shared out among count takers: contiguous ranges,
 * sizes at most one apart. */
#ifndef LRD_BASE_SHARE_H
#define LRD_BASE_SHARE_H

#include <stdint.h>

/* Where the range of taker `index` begins; it ends where the next one's begins.
 * index may be count: n. */
static inline int64_t lrd_share_begin(int64_t n, int64_t index, int64_t count)
{
    return n / count * index + n % count * index / count;
}

#endif /* LRD_BASE_SHARE_H */
