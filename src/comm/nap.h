/* comm/nap.h -- waiting for what only asking can tell. Private to src/comm. */
#ifndef LRD_COMM_NAP_H
#define LRD_COMM_NAP_H

#include <time.h>

typedef struct nap {
    int asked;
    long nanoseconds;
} nap_t; /* {0} to begin with */

/* Between two questions: nothing at first, then naps that grow, so that others get the processor. */
static inline void nap(nap_t *n)
{
    enum { BRIEFLY = 64, SHORTEST = 2000, LONGEST = 200000 }; /* questions; nanoseconds */
    if (n->asked++ < BRIEFLY)
        return;
    n->nanoseconds = n->nanoseconds == 0 ? SHORTEST : 2 * n->nanoseconds;
    n->nanoseconds = n->nanoseconds < LONGEST ? n->nanoseconds : LONGEST;
    nanosleep(&(struct timespec){0, n->nanoseconds}, NULL);
}

#endif /* LRD_COMM_NAP_H */
