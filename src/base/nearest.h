/* base/nearest.h -- the word that was probably meant. */
#ifndef LRD_BASE_NEAREST_H
#define LRD_BASE_NEAREST_H

#include <stddef.h>

/* The candidate that differs least from `word`, the first of equals: by the number of characters
 * inserted, deleted, replaced or swapped with their neighbour, letter case and '-' for '_' not
 * counted. NULL: none differs in less than half of its length and by 3 or less. Words are compared
 * bytewise, and only up to 63 bytes. */
const char *lrd_nearest(const char *word, const char *const *candidate, size_t n);

#endif /* LRD_BASE_NEAREST_H */
