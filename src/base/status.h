/* base/status.h -- what a function answers, and how a failure is reported.
 *
 * Every function that can fail returns lrd_status_t and sets its outputs only on LRD_OK. The
 * function that first decides that something is an error records the cause with LRD_FAIL; its
 * callers only pass the status on, with LRD_TRY. The recorded text is printed once, by whoever ends
 * the phase (lrd_agree, or main). Every thread has a record of its own: one that works beside
 * others hands its cause over with its status (train/saver.c).
 *
 * A function that uses these macros has a local `lrd_status_t status = LRD_OK;` and one label
 * `out:` before its only return. No function of the project calls exit(), abort() or assert(),
 * main apart.
 */
#ifndef LRD_BASE_STATUS_H
#define LRD_BASE_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

#define LRD_STATUS_LIST(X)                                     \
    X(LRD_OK, 0, "success")                                    \
    X(LRD_ERR_ARG, 1, "invalid argument")                      \
    X(LRD_ERR_SHAPE, 2, "shapes or dtypes do not agree")       \
    X(LRD_ERR_CONFIG, 3, "invalid run configuration")          \
    X(LRD_ERR_UNSUPPORTED, 4, "not supported")                 \
    X(LRD_ERR_UNAVAILABLE, 5, "device or library not present") \
    X(LRD_ERR_NO_MEMORY, 6, "out of memory")                   \
    X(LRD_ERR_IO, 7, "file input or output failed")            \
    X(LRD_ERR_FORMAT, 8, "file content is not as expected")    \
    X(LRD_ERR_DEVICE, 9, "a device call failed")               \
    X(LRD_ERR_COMM, 10, "communication between ranks failed")  \
    X(LRD_ERR_PEER, 11, "another rank failed")                 \
    X(LRD_ERR_NONFINITE, 12, "loss or gradient is not finite") \
    X(LRD_ERR_INTERRUPTED, 13, "interrupted")                  \
    X(LRD_ERR_INTERNAL, 14, "bug in lora-dist")                \
    X(LRD_ERR_NETWORK, 15, "a server could not be reached")

typedef enum lrd_status {
#define X(name, value, text) name = value,
    LRD_STATUS_LIST(X)
#undef X
} lrd_status_t;

/* Text of a status for people, such as "out of memory". Never NULL. */
const char *lrd_status_text(lrd_status_t status);

/* The longest recorded cause, with its end; what is longer is cut. */
enum { LRD_ERROR_BYTES = 2048 };

/* Records the cause of a failure in this thread and returns `status`. The first cause stands until
 * lrd_error_clear(); later ones are consequences and go to the debug log. `file` and `line` are
 * where it was decided. */
lrd_status_t lrd_fail(lrd_status_t status, const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* This thread's recorded cause, or the status's own text when none was recorded.
 * Valid until the thread's next lrd_fail or clear. */
const char *lrd_error_text(lrd_status_t status);

/* Forgets this thread's recorded cause: the caller has dealt with the failure, or printed it. */
void lrd_error_clear(void);

#ifdef __clang_analyzer__ /* it cannot see that lrd_fail never answers LRD_OK */
#define LRD_KNOW_FAILED(status)      \
    do {                             \
        if ((status) == LRD_OK)      \
            __builtin_unreachable(); \
    } while (0)
#else
#define LRD_KNOW_FAILED(status) ((void)0)
#endif

#define LRD_FAIL(code, ...)                                         \
    do {                                                            \
        status = lrd_fail((code), __FILE__, __LINE__, __VA_ARGS__); \
        LRD_KNOW_FAILED(status);                                    \
        goto out;                                                   \
    } while (0)

#define LRD_TRY(call)         \
    do {                      \
        status = (call);      \
        if (status != LRD_OK) \
            goto out;         \
    } while (0)

#define LRD_CHECK(condition, code, ...)    \
    do {                                   \
        if (!(condition))                  \
            LRD_FAIL((code), __VA_ARGS__); \
    } while (0)

#ifdef __cplusplus
}
#endif
#endif /* LRD_BASE_STATUS_H */
