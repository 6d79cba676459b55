/* tests/cuda/emu_traffic.h -- what the accesses of kernels to memory cost a GPU, from their addresses.
 *
 * In the variant of the emulated device that is compiled with EMU_TRAFFIC, every load and store of a
 * kernel is noted (emu_traffic.cpp). Between two places where the lanes of a warp meet, the n-th execution
 * of an instruction by each lane is one request of the warp:
 *
 *   device memory   costs as many units as sectors of 32 bytes that its lanes touch; at least those that
 *                   hold the bytes asked for
 *   shared memory   lanes go in turns, 32 of up to 4 bytes, 16 of 8, 8 of 16; a turn costs as many units
 *                   as different words of 4 bytes that fall into one of the 32 banks; at least one
 *
 * ldmatrix is a load of 16 bytes by each lane, cp.async a load and a store of 16 bytes. Local memory and
 * arguments of kernels are not counted; nor are caches: a sector that comes again costs again.
 */
#ifndef LRD_EMU_TRAFFIC_H
#define LRD_EMU_TRAFFIC_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { EMU_SECTOR = 32, EMU_BANKS = 32 };

/* A load or store of the program; `at`: the address in the library behind it. */
typedef struct emu_site {
    const void *at;
    bool is_shared, is_store;
    int bytes; /* of one lane */
    double requests, units, least;
} emu_site_t;

/* Under one name since it was cleared. */
typedef struct emu_kernel {
    char name[64];
    long launches;
    double bytes_read, bytes_written; /* of device memory, each byte once a launch */
    const emu_site_t *site;
    size_t n_sites;
} emu_kernel_t;

#ifdef EMU_TRAFFIC
enum { EMU_PRODUCTS = false }; /* cuBLASLt computes: no access of our own kernels depends on what */
#define EMU_EXPORT __attribute__((visibility("default")))
/* Kernels that ran, in the order in which they first did; valid until the next call of either. */
EMU_EXPORT const emu_kernel_t *emu_traffic_kernels(size_t *n_out);
EMU_EXPORT void emu_traffic_clear(void);

/* What the emulated device tells: blocks begin, threads meet, instructions that it runs by itself. */
void emu_traffic_launch(const char *kernel);
void emu_traffic_block(const void *shared, size_t shared_bytes, unsigned n_warps);
void emu_traffic_meet(unsigned first_warp, unsigned n_warps);
void emu_traffic_done(void);
void emu_traffic_pause(bool pause); /* what runs is not the kernel's own */
void emu_traffic_load(const void *at, int bytes);
void emu_traffic_store(void *at, int bytes);
#else
enum { EMU_PRODUCTS = true };
static inline void emu_traffic_launch(const char *kernel)
{
    (void)kernel;
}
static inline void emu_traffic_block(const void *shared, size_t shared_bytes, unsigned n_warps)
{
    (void)shared, (void)shared_bytes, (void)n_warps;
}
static inline void emu_traffic_meet(unsigned first_warp, unsigned n_warps)
{
    (void)first_warp, (void)n_warps;
}
static inline void emu_traffic_done(void)
{
}
static inline void emu_traffic_pause(bool pause)
{
    (void)pause;
}
static inline void emu_traffic_load(const void *at, int bytes)
{
    (void)at, (void)bytes;
}
static inline void emu_traffic_store(void *at, int bytes)
{
    (void)at, (void)bytes;
}
#endif

#ifdef __cplusplus
}
#endif
#endif /* LRD_EMU_TRAFFIC_H */
