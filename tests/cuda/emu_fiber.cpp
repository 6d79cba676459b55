#include "cuda_runtime.h"
#include "emu_poison.h"
#include "emu_traffic.h"

#include "kernels/cuda/cuda_tile.cuh"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>
#include <vector>

emu_index_t emu_thread_index, emu_block_index;
dim3 emu_block_size, emu_grid_size;

namespace
{
constexpr size_t STACK = 256 << 10, GUARD = 4096, FIRST_FRAMES = 4096, SHARED_ALIGN = 128;

struct fiber_t {
    void *sp;
    emu_index_t thread;
    unsigned index;
    bool done, blocked;
    emu_copies_t copies;
};

struct warp_t {
    void *brought[EMU_WARP];
    emu_together_t run;
    unsigned mask, arrived, exited;
};

struct block_t {
    const char *kernel;
    const std::function<void()> *body;
    std::vector<fiber_t> fibers;
    std::vector<warp_t> warps;
    std::vector<char *> stacks; /* kept from block to block */
    unsigned char *shared;
    fiber_t *now;
    void *scheduler_sp;
    unsigned live, at_barrier;
};

block_t block;
} // namespace

/* Saves the caller's registers and stack in *from_sp and goes on where `to_sp` was saved. */
extern "C" void emu_switch(void **from_sp, void *to_sp);
asm(R"(
.text
.globl emu_switch
.hidden emu_switch
.type emu_switch, @function
emu_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size emu_switch, . - emu_switch
)");

void emu_die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "emulated CUDA: kernel %s, block %u,%u,%u, thread %u,%u,%u: ", block.kernel,
            emu_block_index.x, emu_block_index.y, emu_block_index.z, emu_thread_index.x,
            emu_thread_index.y, emu_thread_index.z);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    abort();
}

unsigned emu_lane()
{
    return block.now->index % EMU_WARP;
}

unsigned char *emu_dynamic_shared()
{
    return block.shared;
}

emu_copies_t *emu_copies()
{
    return &block.now->copies;
}

static void give_way()
{
    fiber_t *f = block.now;
    emu_switch(&f->sp, block.scheduler_sp);
}

static void open_barrier()
{
    emu_traffic_meet(0, (unsigned)block.warps.size());
    block.at_barrier = 0;
    for (fiber_t &f : block.fibers)
        f.blocked = false;
}

void emu_barrier()
{
    if (block.warps[block.now->index / EMU_WARP].arrived != 0)
        emu_die("a barrier while other lanes of the warp wait at a warp instruction");
    if (++block.at_barrier == block.live) {
        open_barrier();
        return;
    }
    block.now->blocked = true;
    give_way();
}

void emu_together(unsigned mask, emu_together_t run, void *brought)
{
    warp_t &w = block.warps[block.now->index / EMU_WARP];
    const unsigned lane = emu_lane(), first = block.now->index - lane;
    if ((mask >> lane & 1) == 0)
        emu_die("lane %u is not in the mask %08x of its own warp instruction", lane, mask);
    if ((mask & w.exited) != 0)
        emu_die("a warp instruction waits for lanes %08x that have ended", mask & w.exited);
    if (w.arrived != 0 && (w.run != run || w.mask != mask))
        emu_die("lanes of a warp meet at different instructions");
    w.run = run;
    w.mask = mask;
    w.arrived |= 1u << lane;
    w.brought[lane] = brought;
    if (w.arrived != mask) {
        block.now->blocked = true;
        give_way();
        return;
    }
    for (unsigned i = 0; i < EMU_WARP; i++) {
        if ((mask >> i & 1) == 0)
            w.brought[i] = nullptr;
        else
            block.fibers[first + i].blocked = false;
    }
    w.arrived = 0;
    if ((mask | w.exited) == ~0u)
        emu_traffic_meet(block.now->index / EMU_WARP, 1);
    emu_traffic_pause(true);
    run(w.brought, mask);
    emu_traffic_pause(false);
}

/* The first function of every fiber. */
static void run_fiber()
{
    (*block.body)();
    fiber_t *f = block.now;
    warp_t &w = block.warps[f->index / EMU_WARP];
    if (f->copies.n > 0)
        emu_die("the thread ends with copies aside that nobody waited for");
    f->done = true;
    w.exited |= 1u << f->index % EMU_WARP;
    if (w.arrived != 0 && (w.mask & w.exited) != 0)
        emu_die("a thread ends while other lanes wait for it at a warp instruction");
    if (--block.live > 0 && block.at_barrier == block.live)
        open_barrier();
    void *unused;
    emu_switch(&unused, block.scheduler_sp);
}

static char *new_stack()
{
    char *p = (char *)mmap(nullptr, STACK + GUARD, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED || mprotect(p, GUARD, PROT_NONE) != 0)
        emu_die("no memory for the stack of a thread");
    return p + GUARD;
}

static void start_block()
{
    const unsigned n = emu_block_size.x * emu_block_size.y * emu_block_size.z;
    block.fibers.resize(n);
    block.warps.assign((n + EMU_WARP - 1) / EMU_WARP, warp_t());
    if (n % EMU_WARP != 0)
        block.warps.back().exited = ~0u << n % EMU_WARP;
    while (block.stacks.size() < n)
        block.stacks.push_back(new_stack());
    for (unsigned i = 0; i < n; i++) {
        fiber_t &f = block.fibers[i];
        void **sp = (void **)(block.stacks[i] + STACK);
        /* run_fiber of the block before never returned: its marks are still there. */
        ASAN_UNPOISON_MEMORY_REGION(block.stacks[i] + STACK - FIRST_FRAMES, FIRST_FRAMES);
        *--sp = nullptr; /* run_fiber never returns; keeps the stack aligned as after a call */
        *--sp = (void *)run_fiber;
        for (int k = 0; k < 6; k++)
            *--sp = nullptr;
        f.sp = sp;
        f.index = i;
        f.done = f.blocked = false;
        f.copies.n = 0;
        f.thread = {i % emu_block_size.x, i / emu_block_size.x % emu_block_size.y,
                    i / (emu_block_size.x * emu_block_size.y)};
    }
    block.live = n;
    block.at_barrier = 0;
}

static void run_block(bool reversed)
{
    start_block();
    const unsigned n = (unsigned)block.fibers.size();
    while (block.live > 0) {
        bool any = false;
        for (unsigned k = 0; k < n; k++) {
            fiber_t &f = block.fibers[reversed ? n - 1 - k : k];
            if (f.done || f.blocked)
                continue;
            any = true;
            block.now = &f;
            emu_thread_index = f.thread;
            emu_switch(&block.scheduler_sp, f.sp);
        }
        if (!any)
            emu_die("%u threads wait for ever, %u of them at a barrier", block.live,
                    block.at_barrier);
    }
}

void emu_run_grid(const char *kernel, dim3 grid, dim3 size, size_t shared_bytes,
                  const std::function<void()> &body)
{
    block.kernel = kernel;
    block.body = &body;
    emu_block_size = size;
    emu_grid_size = grid;
    const unsigned n_warps = (size.x * size.y * size.z + EMU_WARP - 1) / EMU_WARP;
    bool reversed = false;
    emu_traffic_launch(kernel);
    for (unsigned z = 0; z < grid.z; z++) {
        for (unsigned y = 0; y < grid.y; y++) {
            for (unsigned x = 0; x < grid.x; x++, reversed = !reversed) {
                emu_block_index = {x, y, z};
                /* Exactly as large as asked for: AddressSanitizer sees what reaches beyond. */
                if (posix_memalign((void **)&block.shared, SHARED_ALIGN, shared_bytes) != 0)
                    emu_die("no memory for %zu bytes of shared memory", shared_bytes);
                memset(block.shared, 0xff, shared_bytes);
                emu_traffic_block(block.shared, shared_bytes, n_warps);
                run_block(reversed);
                emu_traffic_meet(0, n_warps);
                free(block.shared);
            }
        }
    }
    emu_traffic_done();
}
