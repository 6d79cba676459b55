/* The emulated device itself: it computes what CUDA defines, and ends the program where a kernel does
 * what CUDA leaves undefined. Every planted mistake runs in a process of its own. */
#include "cuda_runtime.h"
#include "emu_poison.h"

#include "kernels/cuda/cuda_tile.cuh"

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <sys/wait.h>
#include <unistd.h>

static int failures;

static void expect(bool condition, const char *what)
{
    failures += condition ? 0 : 1;
    printf("%s: %s\n", condition ? "ok" : "FAILED", what);
    fflush(stdout);
}

/* Runs it elsewhere; `said` receives what it printed on standard error. True: it was killed. */
static bool dies(const std::function<void()> &mistake, char *said, size_t size)
{
    int ends[2];
    if (pipe(ends) != 0)
        return false;
    const pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        mistake();
        _exit(0);
    }
    close(ends[1]);
    size_t n = 0;
    for (ssize_t got; n + 1 < size && (got = read(ends[0], said + n, size - 1 - n)) > 0;)
        n += (size_t)got;
    said[n] = '\0';
    close(ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    return !(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

template <class... P, class... A>
static void launch(void (*kernel)(P...), unsigned threads, size_t shared_bytes, A... args)
{
    cudaStream_t st;
    cudaStreamCreateWithFlags(&st, cudaStreamNonBlocking);
    emu_launch("planted", kernel, 2, threads, shared_bytes, st, static_cast<P>(args)...);
    cudaStreamDestroy(st);
}

static void expect_death(const char *what, const std::function<void()> &mistake, const char *text)
{
    char said[4096];
    const bool died = dies(mistake, said, sizeof said);
    expect(died && strstr(said, text) != nullptr, what);
    if (strstr(said, text) == nullptr)
        printf("    it said: %s\n", said);
}

static void barrier_for_some()
{
    if (threadIdx.x < 40)
        __syncthreads();
    else
        __shfl_sync(FULL_WARP, 1, 0);
}

static void shuffle_with_ended()
{
    if (threadIdx.x == 5)
        return;
    __shfl_xor_sync(FULL_WARP, 1, 1);
}

static void shuffle_outside_mask()
{
    if (threadIdx.x % WARP < 16)
        __shfl_sync(0xffffu, 1, 20);
}

static void different_instructions()
{
    if (threadIdx.x % 2 == 0)
        __syncwarp();
    else
        __shfl_xor_sync(FULL_WARP, 1, 1);
}

static void copy_without_wait()
{
    alignas(16) static unsigned char from[16], to[16];
    copy_aside(to, from);
}

static void unaligned_matrix()
{
    alignas(16) static uint16_t tile[256];
    uint32_t out[4];
    load_matrices<false>(tile + threadIdx.x % 8 * 8 + 1, out);
}

/* One element beyond 100 bytes of shared memory. */
static void beyond_shared()
{
    CUDA_DYNAMIC_SHARED(shared);
    shared[100 + blockIdx.x] = 1;
}

/* A thread reads what another writes, without a barrier between: even and odd blocks differ. */
static void forgotten_barrier(int *out)
{
    __shared__ int x[64];
    x[threadIdx.x] = -1;
    __syncthreads();
    x[threadIdx.x] = (int)threadIdx.x;
    out[blockIdx.x * 64 + threadIdx.x] = x[(threadIdx.x + 1) % 64];
}

/* A B of 16 x 16 and 16 x 16 both ways round, by tensor cores. */
template <class T> static void small_product(const T *a, const T *b, float *plain, float *turned)
{
    const int ld = tile_ld<T>(16), lane = (int)threadIdx.x;
    float once[2][4] = {}, twice[2][4] = {};
    warp_product_t<T, 16, 16, false>::add(once, a, ld, b, ld);
    warp_product_t<T, 16, 16, true>::add(twice, a, ld, b, ld);
    for (int n = 0; n < 2; n++)
        for (int i = 0; i < 4; i++) {
            const int at = (lane / 4 + i / 2 * 8) * 16 + n * 8 + lane % 4 * 2 + i % 2;
            plain[at] = once[n][i];
            turned[at] = twice[n][i];
        }
}

template <class T> static void check_product(const char *what)
{
    alignas(16) static T a[16 * 32], b[16 * 32];
    static float plain[256], turned[256];
    const int ld = tile_ld<T>(16);
    for (int i = 0; i < 16 * ld; i++) {
        from_f32((float)(i * 7 % 31 - 15) / 8, &a[i]); /* sums are exact */
        from_f32((float)(i * 11 % 29 - 14) / 4, &b[i]);
    }
    launch(small_product<T>, WARP, 0, a, b, plain, turned);
    bool same = true;
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 16; j++) {
            float x = 0, y = 0;
            for (int k = 0; k < 16; k++) {
                x += to_f32(a[i * ld + k]) * to_f32(b[k * ld + j]);
                y += to_f32(a[i * ld + k]) * to_f32(b[j * ld + k]);
            }
            same = same && plain[i * 16 + j] == x && turned[i * 16 + j] == y;
        }
    expect(same, what);
}

/* Sums over a block of three warps, and what lies before each thread. */
static void block_sums(int *sum, int *before)
{
    int all;
    sum[threadIdx.x] = block_sum((int)threadIdx.x);
    before[threadIdx.x] = block_before((int)threadIdx.x, &all);
}

static void check_blocks()
{
    static int sum[96], before[96];
    bool right = true;
    launch(block_sums, 96, 0, sum, before);
    for (int i = 0; i < 96; i++)
        right = right && sum[i] == 95 * 96 / 2 && before[i] == i * (i - 1) / 2;
    expect(right, "sums over a block");
    static int out[128];
    launch(forgotten_barrier, 64, 0, out);
    expect(memcmp(out, out + 64, 64 * sizeof *out) != 0,
           "a forgotten barrier gives other results in odd blocks");
}

/* Streams, memory and copies. */
/* Of two events that have passed. */
static cudaError_t time_between(cudaStream_t st, unsigned flags)
{
    cudaEvent_t begin, end;
    float ms;
    cudaEventCreateWithFlags(&begin, flags);
    cudaEventCreate(&end);
    cudaEventRecord(begin, st);
    cudaEventRecord(end, st);
    cudaStreamSynchronize(st);
    const cudaError_t error = cudaEventElapsedTime(&ms, begin, end);
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
    return error;
}

static void check_timers(cudaStream_t st)
{
    expect(time_between(st, cudaEventDefault) == cudaSuccess, "time between two events");
    expect(time_between(st, cudaEventDisableTiming) == cudaErrorInvalidResourceHandle,
           "an event without timing is no timer");
}

static void check_runtime()
{
    cudaStream_t st;
    void *device = nullptr, *pinned = nullptr;
    int pageable[4] = {1, 2, 3, 4};
    cudaStreamCreateWithFlags(&st, cudaStreamNonBlocking);
    expect(cudaMalloc(&device, sizeof pageable) == cudaSuccess &&
               cudaHostAlloc(&pinned, sizeof pageable, cudaHostAllocDefault) == cudaSuccess,
           "memory");
    expect(cudaMemcpyAsync(device, pageable, sizeof pageable, cudaMemcpyHostToDevice, st) ==
               cudaErrorInvalidValue,
           "a copy from pageable memory is refused");
    expect(cudaMemcpyAsync(device, pinned, sizeof pageable + 1, cudaMemcpyHostToDevice, st) ==
               cudaErrorInvalidValue,
           "a copy beyond the end is refused");
    expect(cudaMemcpyAsync(device, pinned, sizeof pageable, cudaMemcpyHostToDevice, nullptr) ==
               cudaErrorInvalidResourceHandle,
           "the default stream is refused");
    memcpy(pinned, pageable, sizeof pageable);
    cudaMemcpyAsync(device, pinned, sizeof pageable, cudaMemcpyHostToDevice, st);
    memset(pinned, 0, sizeof pageable); /* too early */
    cudaStreamSynchronize(st);
    cudaMemcpyAsync(pinned, device, sizeof pageable, cudaMemcpyDeviceToHost, st);
    expect(((int *)pinned)[0] == 0, "a copy waits for its synchronization");
    cudaStreamSynchronize(st);
    expect(((int *)pinned)[3] == 0, "and sees what its source holds then");
    char said[256];
    expect(dies([&] { ((volatile int *)device)[0] = 1; }, said, sizeof said),
           "the host cannot touch device memory");
    expect(emu_launch("planted", different_instructions, 1, 2048, 0, st) ==
               cudaErrorInvalidConfiguration,
           "too many threads are refused");
    expect(emu_launch("planted", different_instructions, 1, 32, 64 << 10, st) ==
               cudaErrorInvalidConfiguration,
           "shared memory that was not asked for is refused");
    check_timers(st);
    cudaFreeHost(pinned);
    cudaFree(device);
    cudaStreamDestroy(st);
}

/* One buffer that a stream writes and another reads, twice, without the wait of the reader or that of the
 * second write: what the reads saw. */
static void take_turns(bool reader_waits, bool writer_waits, int seen[2])
{
    cudaStream_t writer, reader;
    cudaEvent_t written, read;
    void *x = nullptr, *pinned = nullptr;
    cudaStreamCreateWithFlags(&writer, cudaStreamNonBlocking);
    cudaStreamCreateWithFlags(&reader, cudaStreamNonBlocking);
    cudaEventCreateWithFlags(&written, cudaEventDisableTiming);
    cudaEventCreateWithFlags(&read, cudaEventDisableTiming);
    cudaMalloc(&x, sizeof(int));
    cudaHostAlloc(&pinned, 4 * sizeof(int), cudaHostAllocDefault);
    int *host = (int *)pinned;
    for (int i = 0; i < 2; i++) {
        host[i] = 1 + i;
        if (writer_waits)
            cudaStreamWaitEvent(writer, read, 0);
        cudaMemcpyAsync(x, host + i, sizeof(int), cudaMemcpyHostToDevice, writer);
        cudaEventRecord(written, writer);
        if (reader_waits)
            cudaStreamWaitEvent(reader, written, 0);
        cudaMemcpyAsync(host + 2 + i, x, sizeof(int), cudaMemcpyDeviceToHost, reader);
        cudaEventRecord(read, reader);
    }
    cudaEventSynchronize(read);
    memcpy(seen, host + 2, 2 * sizeof(int));
    cudaEventDestroy(written);
    cudaEventDestroy(read);
    cudaStreamDestroy(writer);
    cudaStreamDestroy(reader);
    cudaFreeHost(pinned);
    cudaFree(x);
}

/* Each order finds the mistake that it is for. */
static void check_streams()
{
    int seen[2];
    take_turns(false, true, seen);
    expect(seen[0] != 1, "late: a reader that does not wait");
    take_turns(true, true, seen);
    expect(seen[0] == 1 && seen[1] == 2, "late: streams that wait for each other's events");
    setenv("LRD_EMULATED_STREAMS", "early", 1);
    take_turns(true, false, seen);
    expect(seen[0] == 2, "early: a writer that does not wait");
    take_turns(true, true, seen);
    expect(seen[0] == 1 && seen[1] == 2, "early: streams that wait for each other's events");
    unsetenv("LRD_EMULATED_STREAMS");
}

int main()
{
    check_product<__half>("float16 products");
    check_product<__nv_bfloat16>("bfloat16 products");
    check_product<float>("float32 products");
    check_blocks();
    check_streams();
    check_runtime();
    expect_death(
        "a barrier that only some reach", [] { launch(barrier_for_some, 64, 0); }, "wait for ever");
    expect_death(
        "a shuffle with a lane that has ended", [] { launch(shuffle_with_ended, 32, 0); }, "wait");
    expect_death(
        "a shuffle from outside the mask", [] { launch(shuffle_outside_mask, 32, 0); },
        "not in the mask");
    expect_death(
        "lanes at different instructions", [] { launch(different_instructions, 32, 0); },
        "different instructions");
    expect_death(
        "a copy aside that nobody waits for", [] { launch(copy_without_wait, 1, 0); },
        "nobody waited for");
    expect_death(
        "a matrix row that is not aligned", [] { launch(unaligned_matrix, 32, 0); },
        "multiple of 16 bytes");
#ifdef __SANITIZE_ADDRESS__
    expect_death(
        "a write beyond shared memory", [] { launch(beyond_shared, 1, 100); },
        "heap-buffer-overflow");
#else
    (void)beyond_shared;
#endif
    return failures > 0 ? 1 : 0;
}
