/* tests/fuzz/fuzz_target.h -- what fuzz targets share.
 *
 * A target is one source file that defines LLVMFuzzerTestOneInput; libFuzzer or replay_main.c calls
 * it once per input. A broken promise is a crash: FUZZ_CHECK, or the sanitizers'.
 */
#ifndef LRD_FUZZ_TARGET_H
#define LRD_FUZZ_TARGET_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Always 0. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Stops the process when what must hold for every input does not hold for this one. */
#define FUZZ_CHECK(condition)                                                              \
    do {                                                                                   \
        if (!(condition)) {                                                                \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition); \
            __builtin_trap();                                                              \
        }                                                                                  \
    } while (0)

#endif /* LRD_FUZZ_TARGET_H */
