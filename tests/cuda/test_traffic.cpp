/* The counter of memory traffic (emu_traffic.h) itself: kernels whose requests were counted by hand. */
#include "cuda_runtime.h"
#include "emu_traffic.h"

#include "kernels/cuda/cuda_tile.cuh"

#include <cstdio>

static int failures;

/* What a kernel's one load or store of a kind of memory should have cost, of one warp and one launch. */
struct expected_t {
    bool is_shared, is_store;
    double requests, units, least;
};

static void expect(const char *what, const expected_t &e)
{
    size_t n = 0;
    const emu_kernel_t *k = emu_traffic_kernels(&n);
    double requests = 0, units = 0, least = 0;
    for (size_t i = 0; n == 1 && i < k->n_sites; i++) {
        const emu_site_t *s = &k->site[i];
        if (s->is_shared == e.is_shared && s->is_store == e.is_store) {
            requests += s->requests;
            units += s->units;
            least += s->least;
        }
    }
    const bool right = requests == e.requests && units == e.units && least == e.least;
    failures += right ? 0 : 1;
    printf("%s: %s\n", right ? "ok" : "FAILED", what);
    if (!right)
        printf("    %g requests (%g), %g units (%g), at least %g (%g)\n", requests, e.requests,
               units, e.units, least, e.least);
}

static cudaStream_t stream;
static unsigned char *device;

template <class... P, class... A>
static void launch(void (*kernel)(P...), unsigned threads, size_t shared_bytes, A... args)
{
    emu_traffic_clear();
    emu_launch("counted", kernel, 1, threads, shared_bytes, stream, static_cast<P>(args)...);
    cudaStreamSynchronize(stream);
}

/* ---- device memory */

template <class T> static void copy_with_stride(const T *from, T *to, int stride)
{
    to[threadIdx.x] = from[threadIdx.x * (unsigned)stride];
}

static void broadcast(const float *from, float *to)
{
    to[threadIdx.x] = from[0];
}

static void from_the_middle(const float *from, float *to)
{
    to[threadIdx.x] = from[threadIdx.x + 4];
}

/* Lane l takes l / 16 + 1 turns of a loop: the second turn is one of half a warp. */
static void loop_for_some(const float *from, float *to)
{
    float sum = 0;
    for (unsigned i = 0; i <= threadIdx.x / 16; i++)
        sum += from[i * 32 + threadIdx.x];
    to[threadIdx.x] = sum;
}

/* Odd lanes come to the load one meeting later than even ones. */
static void apart_by_a_meeting(const float *from, float *to)
{
    float sum = 0;
    for (unsigned i = 0; i < 2; i++) {
        if (threadIdx.x % 2 == i)
            sum = from[threadIdx.x];
        __syncwarp();
    }
    to[threadIdx.x] = sum;
}

static void one_copy_aside(const unsigned char *from)
{
    CUDA_DYNAMIC_SHARED(tile);
    copy_aside(tile + threadIdx.x * 16, from + threadIdx.x * 16);
    copies_wait();
}

static void test_device_memory()
{
    const float *f = (const float *)device;
    float *to = (float *)(device + (1 << 16));
    launch(copy_with_stride<float>, 32, 0, f, to, 1);
    expect("neighbouring floats: 4 sectors a request", {false, false, 1, 4, 4});
    expect("their stores", {false, true, 1, 4, 4});
    launch(copy_with_stride<float>, 32, 0, f, to, 32);
    expect("floats 32 apart: 32 sectors", {false, false, 1, 32, 4});
    launch(copy_with_stride<float>, 32, 0, f, to, 2);
    expect("floats 2 apart: 8 sectors", {false, false, 1, 8, 4});
    launch(copy_with_stride<uint16_t>, 32, 0, (const uint16_t *)device, (uint16_t *)to, 1);
    expect("neighbouring 16-bit elements: 2 sectors", {false, false, 1, 2, 2});
    launch(copy_with_stride<uint4>, 32, 0, (const uint4 *)device, (uint4 *)to, 1);
    expect("neighbouring 16 bytes: 16 sectors", {false, false, 1, 16, 16});
    launch(copy_with_stride<uint4>, 32, 0, (const uint4 *)device, (uint4 *)to, 2);
    expect("16 bytes, every other: 32 sectors, half of each", {false, false, 1, 32, 16});
    launch(broadcast, 32, 0, f, to);
    expect("one float for all: 1 sector", {false, false, 1, 1, 1});
    launch(from_the_middle, 32, 0, f, to);
    expect("from the middle of a sector on: 5 sectors", {false, false, 1, 5, 4});
    launch(copy_with_stride<float>, 96, 0, f, to, 1);
    expect("three warps", {false, false, 3, 12, 12});
    launch(copy_with_stride<float>, 40, 0, f, to, 1);
    expect("a warp and a quarter", {false, false, 2, 5, 5});
    launch(loop_for_some, 32, 0, f, to);
    expect("a loop that half the lanes leave", {false, false, 2, 6, 6});
    launch(apart_by_a_meeting, 32, 0, f, to);
    expect("lanes that come one meeting later", {false, false, 2, 8, 4});
    launch(one_copy_aside, 32, 512, device);
    expect("a copy aside is a load of 16 bytes", {false, false, 1, 16, 16});
    expect("and a store of 16 bytes, in 4 turns", {true, true, 1, 4, 4});
}

/* ---- shared memory */

template <class T> static void store_with_stride(int stride, T x)
{
    CUDA_DYNAMIC_SHARED(tile);
    ((T *)tile)[threadIdx.x * (unsigned)stride] = x;
}

/* A warp reads the columns of a tile whose rows are longer by `pad` words. */
template <int pad> static void load_columns(float *to)
{
    __shared__ float tile[32][32 + pad];
    float sum = 0;
    tile[0][threadIdx.x] = 1;
    for (int col = 0; col < 32; col++)
        sum += tile[threadIdx.x][col];
    to[threadIdx.x] = sum;
}

static void load_one_word(float *to)
{
    __shared__ float x[64];
    x[threadIdx.x] = 1;
    __syncthreads();
    to[threadIdx.x] = x[threadIdx.x / 32];
}

template <int ld> static void load_matrix(uint32_t *to)
{
    CUDA_DYNAMIC_SHARED(tile);
    uint32_t out[4];
    load_matrices<false>((const uint16_t *)tile + threadIdx.x % 16 * ld + threadIdx.x / 16 * 8,
                         out);
    to[threadIdx.x] = out[0];
}

static void test_shared_memory()
{
    float *to = (float *)device;
    launch(store_with_stride<float>, 32, 4096, 1, float());
    expect("neighbouring words: one turn", {true, true, 1, 1, 1});
    launch(store_with_stride<float>, 32, 4096, 2, float());
    expect("words 2 apart: 2-way", {true, true, 1, 2, 1});
    launch(store_with_stride<float>, 32, 4096, 8, float());
    expect("words 8 apart: 8-way", {true, true, 1, 8, 1});
    launch(store_with_stride<float>, 32, 4096, 32, float());
    expect("words 32 apart: 32-way", {true, true, 1, 32, 1});
    launch(store_with_stride<uint16_t>, 32, 4096, 1, uint16_t());
    expect("two 16-bit elements in a word: one turn", {true, true, 1, 1, 1});
    launch(store_with_stride<double>, 32, 4096, 1, double());
    expect("neighbouring 8 bytes: 2 turns", {true, true, 1, 2, 2});
    launch(store_with_stride<uint4>, 32, 4096, 1, uint4());
    expect("neighbouring 16 bytes: 4 turns", {true, true, 1, 4, 4});
    launch(store_with_stride<uint4>, 32, 4096, 2, uint4());
    expect("16 bytes, every other: 2-way", {true, true, 1, 8, 4});
    launch(load_columns<0>, 32, 0, to);
    expect("columns of 32 x 32: 32-way", {true, false, 32, 1024, 32});
    launch(load_columns<1>, 32, 0, to);
    expect("columns of 32 x 33: none", {true, false, 32, 32, 32});
    launch(load_one_word, 64, 0, to);
    expect("one word for all lanes: none", {true, false, 2, 2, 2});
    launch(load_matrix<64>, 32, 4096, (uint32_t *)to);
    expect("ldmatrix, rows 128 bytes apart: 8-way", {true, false, 1, 32, 4});
    launch(load_matrix<72>, 32, 4096, (uint32_t *)to);
    expect("ldmatrix, rows 144 bytes apart: none", {true, false, 1, 4, 4});
}

/* ---- bytes, names */

static void read_twice(const float *from, float *to)
{
    to[threadIdx.x] = from[threadIdx.x] + from[(threadIdx.x + 1) % 32];
}

static void test_bytes()
{
    size_t n = 0;
    emu_traffic_clear();
    for (int i = 0; i < 2; i++)
        emu_launch("twice", read_twice, 1, 32, 0, stream, (const float *)device,
                   (float *)device + 256);
    emu_launch("once", broadcast, 1, 32, 0, stream, (const float *)device, (float *)device + 256);
    cudaStreamSynchronize(stream);
    const emu_kernel_t *k = emu_traffic_kernels(&n);
    const bool right = n == 2 && strcmp(k[0].name, "twice") == 0 && k[0].launches == 2 &&
                       k[0].bytes_read == 256 && k[0].bytes_written == 256 && k[1].launches == 1 &&
                       k[1].bytes_read == 4 && k[1].bytes_written == 128;
    failures += right ? 0 : 1;
    printf("%s: bytes, each once a launch, and names\n", right ? "ok" : "FAILED");
}

int main()
{
    cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    cudaMalloc((void **)&device, 1 << 18);
    test_device_memory();
    test_shared_memory();
    test_bytes();
    cudaFree(device);
    cudaStreamDestroy(stream);
    return failures != 0;
}
