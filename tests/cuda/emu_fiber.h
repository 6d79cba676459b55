/* tests/cuda/emu_fiber.h -- CUDA's threads on a CPU: how one block of a kernel runs.
 *
 * Every CUDA thread is a fiber with a stack of its own; a block's fibers take turns on one CPU
 * thread and change at barriers and at instructions that the lanes of a warp execute together. What
 * a GPU leaves undefined ends the program with a message: a barrier or a warp instruction that not
 * all of its threads reach, lanes that meet at different instructions. Fibers of every other block
 * run in reverse order, so that a missing barrier gives different results from block to block.
 */
#ifndef LRD_EMU_FIBER_H
#define LRD_EMU_FIBER_H

#include <cstddef>
#include <cstdint>
#include <functional>

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_)
    {
    }
};

struct emu_index_t {
    unsigned x, y, z;
};

enum { EMU_WARP = 32 };

/* Of the fiber that runs now. */
extern emu_index_t emu_thread_index, emu_block_index;
extern dim3 emu_block_size, emu_grid_size;

unsigned emu_lane();
unsigned char *emu_dynamic_shared(); /* aligned to 128; holds NaN when a block begins */

/* Runs all blocks of a grid, one after the other. */
void emu_run_grid(const char *kernel, dim3 grid, dim3 block, size_t shared_bytes,
                  const std::function<void()> &body);

void emu_barrier(); /* __syncthreads */

/* An instruction of the lanes in `mask` together: `run` sees what each lane brought, by lane (NULL
 * outside the mask), and leaves there what each takes away. */
typedef void (*emu_together_t)(void *const *brought, unsigned mask);
void emu_together(unsigned mask, emu_together_t run, void *brought);

/* Ends the program: the kernel did what a GPU does not define. */
[[noreturn]] void emu_die(const char *format, ...)
    __attribute__((format(printf, 1, 2), visibility("default")));

#endif /* LRD_EMU_FIBER_H */
