#include "base/nearest.h"

#include <string.h>

enum { MAX_WORD = 63, MAX_DISTANCE = 3 };

static int min(int a, int b)
{
    return a < b ? a : b;
}

static int fold(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A' + 'a';
    return c == '-' ? '_' : c;
}

/* Optimal string alignment: Levenshtein's table with one more move, the swap of two neighbours; it
 * reaches two rows back, so three rows are kept. */
static int distance(const char *a, size_t n_a, const char *b, size_t n_b)
{
    int rows[3][MAX_WORD + 1];
    int *before = rows[0], *above = rows[1], *row = rows[2];
    for (size_t j = 0; j <= n_b; j++)
        above[j] = (int)j;
    for (size_t i = 1; i <= n_a; i++) {
        row[0] = (int)i;
        for (size_t j = 1; j <= n_b; j++) {
            const int differs = fold(a[i - 1]) != fold(b[j - 1]);
            row[j] = min(min(above[j] + 1, row[j - 1] + 1), above[j - 1] + differs);
            if (i > 1 && j > 1 && fold(a[i - 1]) == fold(b[j - 2]) &&
                fold(a[i - 2]) == fold(b[j - 1]))
                row[j] = min(row[j], before[j - 2] + 1);
        }
        int *const spare = before;
        before = above;
        above = row;
        row = spare;
    }
    return above[n_b];
}

const char *lrd_nearest(const char *word, const char *const *candidate, size_t n)
{
    const size_t n_word = strlen(word);
    const char *best = NULL;
    int best_distance = MAX_DISTANCE + 1;
    if (n_word > MAX_WORD)
        return NULL;
    for (size_t i = 0; i < n; i++) {
        const size_t n_candidate = strlen(candidate[i]);
        if (n_candidate > MAX_WORD)
            continue;
        const int d = distance(word, n_word, candidate[i], n_candidate);
        if (d < best_distance && (size_t)d * 2 < n_candidate) {
            best = candidate[i];
            best_distance = d;
        }
    }
    return best;
}
