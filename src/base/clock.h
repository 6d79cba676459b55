/* base/clock.h -- time. */
#ifndef LRD_BASE_CLOCK_H
#define LRD_BASE_CLOCK_H

/* Seconds of a monotonic clock with an arbitrary origin: for differences. */
double lrd_clock_seconds(void);

/* Seconds since 1970-01-01 UTC. */
double lrd_clock_unix_seconds(void);

#endif /* LRD_BASE_CLOCK_H */
