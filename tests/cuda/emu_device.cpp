/* The runtime of the emulated device. Work waits in its stream until somebody waits for it; only
 * while it runs may device memory be touched.
 *
 * Streams run in one of two orders, so that one of them makes a forgotten wait a wrong result. Late: work
 * of a stream is done when the host, or another stream that comes to its wait, wants it, so that a
 * reader that does not wait comes before its writer. Early (LRD_EMULATED_STREAMS=early): streams that
 * nobody asked for go first, as far as their own waits let them, so that a writer that does not wait
 * comes before the readers of what it overwrites. */
#include "cuda_runtime.h"
#include "emu_poison.h"

#include <cstdio>
#include <cstdlib>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <sys/mman.h>
#include <unistd.h>

namespace
{
/* Where an event was recorded. */
struct place_t {
    emu_stream *stream; /* nullptr: it was passed */
    double passed_at;   /* on the clock */
};

struct item_t {
    std::function<void()> work;              /* empty for an event's place, and for a wait: */
    std::shared_ptr<place_t> passes, awaits; /* of these */
};
} // namespace

struct emu_stream {
    std::deque<item_t> items;
};

struct emu_event {
    std::shared_ptr<place_t> place; /* nullptr: never recorded */
};

namespace
{
/* Device memory ends as close to an unusable page as its alignment allows. */
struct region_t {
    unsigned char *start, *mapping;
    size_t bytes, mapped;
};

constexpr size_t ALIGN = 256, PAGE = 4096, NANS = 16 << 20, TOTAL = (size_t)8 << 30;
std::list<region_t> device, pinned;
std::list<emu_stream *> streams;
std::map<void (*)(), size_t> allowed_shared;
cudaError_t last_error = cudaSuccess;
size_t used;

size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

cudaError_t report(cudaError_t error)
{
    last_error = error != cudaSuccess ? error : last_error;
    return error;
}

const region_t *find(const std::list<region_t> &regions, const void *ptr, size_t bytes)
{
    const unsigned char *at = (const unsigned char *)ptr;
    for (const region_t &r : regions) {
        if (at >= r.start && at <= r.start + r.bytes && bytes <= (size_t)(r.start + r.bytes - at))
            return &r;
    }
    return nullptr;
}

/* A file of NANS bytes 0xff, which are NaN in every floating-point type; -1: no memory. */
int open_nans()
{
    const int fd = memfd_create("nan", 0);
    void *p = fd >= 0 && ftruncate(fd, NANS) == 0
                  ? mmap(nullptr, NANS, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
                  : MAP_FAILED;
    if (p == MAP_FAILED)
        return -1;
    memset(p, 0xff, NANS);
    munmap(p, NANS);
    return fd;
}

/* Memory that nobody may touch yet and that holds NaN, with an unusable page behind it. Pages that are
 * never written cost nothing, neither here nor when their protection changes. */
unsigned char *map_nans(size_t bytes)
{
    static const int fd = open_nans();
    unsigned char *p = (unsigned char *)mmap(nullptr, bytes + PAGE, PROT_NONE,
                                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED || fd < 0)
        return nullptr;
    for (size_t at = 0; at < bytes; at += NANS) {
        if (mmap(p + at, bytes - at < NANS ? bytes - at : NANS, PROT_NONE,
                 MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd, 0) == MAP_FAILED)
            return nullptr;
    }
    return p;
}

double clock_ms;

void protect(int protection)
{
    for (const region_t &r : device)
        mprotect(r.mapping, r.mapped, protection);
}

bool is_held_up(const emu_stream *s)
{
    const auto &awaits = s->items.front().awaits;
    return awaits != nullptr && awaits->stream != nullptr;
}

void run_first(emu_stream *s)
{
    const item_t item = std::move(s->items.front());
    s->items.pop_front();
    if (item.work)
        item.work();
    if (item.passes != nullptr)
        *item.passes = {nullptr, clock_ms};
}

/* All streams but one, as far as their waits let them. */
void run_others(const emu_stream *but)
{
    for (bool more = true; more;) {
        more = false;
        for (emu_stream *s : streams) {
            for (; s != but && !s->items.empty() && !is_held_up(s); more = true)
                run_first(s);
        }
    }
}

/* Runs a stream up to a place of it, or all of it (nullptr), and of the others what it waits for. */
void run_to(emu_stream *s, const place_t *place, bool early)
{
    while (!s->items.empty() && (place == nullptr || place->stream != nullptr)) {
        if (early)
            run_others(s);
        if (is_held_up(s)) {
            const auto awaits = s->items.front().awaits;
            run_to(awaits->stream, awaits.get(), early);
        }
        run_first(s);
    }
}

void wait_for(emu_stream *s, const place_t *place)
{
    const char *order = getenv("LRD_EMULATED_STREAMS");
    if (s->items.empty())
        return;
    protect(PROT_READ | PROT_WRITE);
    run_to(s, place, order != nullptr && strcmp(order, "early") == 0);
    protect(PROT_NONE);
}

void finish(emu_stream *s)
{
    wait_for(s, nullptr);
}
} // namespace

bool emu_is_device(const void *ptr, size_t bytes)
{
    return find(device, ptr, bytes) != nullptr;
}

bool emu_is_pinned(const void *ptr, size_t bytes)
{
    return find(pinned, ptr, bytes) != nullptr;
}

void emu_enqueue(cudaStream_t stream, std::function<void()> work)
{
    stream->items.push_back({std::move(work), nullptr, nullptr});
}

void emu_spend(double milliseconds)
{
    clock_ms += milliseconds;
}

cudaError_t emu_allow_shared(void (*kernel)(), size_t bytes)
{
    if (bytes > EMU_SHARED_OPT_IN)
        return report(cudaErrorInvalidValue);
    allowed_shared[kernel] = bytes;
    return cudaSuccess;
}

cudaError_t emu_check_launch(void (*kernel)(), dim3 grid, dim3 block, size_t shared_bytes)
{
    const auto allowed = allowed_shared.find(kernel);
    const size_t most = allowed != allowed_shared.end() ? allowed->second : (size_t)EMU_SHARED;
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 65535 ||
        grid.z > 65535 || block.x * block.y * block.z == 0 ||
        block.x * block.y * block.z > EMU_BLOCK || shared_bytes > most)
        return report(cudaErrorInvalidConfiguration);
    return cudaSuccess;
}

const char *cudaGetErrorString(cudaError_t error)
{
    switch (error) {
    case cudaSuccess:
        return "no error";
    case cudaErrorMemoryAllocation:
        return "out of memory";
    case cudaErrorInvalidConfiguration:
        return "invalid configuration argument";
    case cudaErrorNoDevice:
        return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice:
        return "invalid device ordinal";
    case cudaErrorInvalidValue:
        break;
    }
    return "invalid argument";
}

cudaError_t cudaGetLastError()
{
    const cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}

/* LRD_EMULATED_DEVICES: how many there are; 1 unless set. */
cudaError_t cudaGetDeviceCount(int *count)
{
    const char *text = getenv("LRD_EMULATED_DEVICES");
    const int n = text != nullptr ? (int)strtol(text, nullptr, 10) : 1;
    if (n == 0)
        return report(cudaErrorNoDevice);
    *count = n;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int index)
{
    int n = 0;
    const cudaError_t error = cudaGetDeviceCount(&n);
    if (error != cudaSuccess)
        return error;
    return index >= 0 && index < n ? cudaSuccess : report(cudaErrorInvalidDevice);
}

/* CUDA_VISIBLE_DEVICES, one number as Slurm gives it to a task, says which device the first one is. */
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int device)
{
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    *properties = {};
    properties->uuid.bytes[0] = (char)(device + (visible != nullptr ? atoi(visible) : 0));
    snprintf(properties->name, sizeof properties->name, "emulated device");
    properties->major = 9;
    properties->multiProcessorCount = 4;
    properties->totalGlobalMem = TOTAL;
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes)
{
    *free_bytes = TOTAL - used;
    *total_bytes = TOTAL;
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **ptr, size_t bytes)
{
    const size_t space = round_up(bytes, ALIGN), mapped = round_up(space, PAGE);
    *ptr = nullptr;
    if (bytes == 0)
        return cudaSuccess;
    if (bytes > TOTAL - used)
        return report(cudaErrorMemoryAllocation);
    unsigned char *mapping = map_nans(mapped);
    if (mapping == nullptr)
        return report(cudaErrorMemoryAllocation);
    unsigned char *start = mapping + (mapped - space);
    ASAN_POISON_MEMORY_REGION(start + bytes, space - bytes);
    device.push_back({start, mapping, bytes, mapped});
    used += bytes;
    *ptr = start;
    return cudaSuccess;
}

/* As CUDA does: after everything that was asked for. */
cudaError_t cudaFree(void *ptr)
{
    for (emu_stream *s : streams)
        finish(s);
    for (auto r = device.begin(); r != device.end(); ++r) {
        if (r->start == ptr) {
            used -= r->bytes;
            ASAN_UNPOISON_MEMORY_REGION(r->start, r->mapped - (size_t)(r->start - r->mapping));
            munmap(r->mapping, r->mapped + PAGE);
            device.erase(r);
            return cudaSuccess;
        }
    }
    return ptr == nullptr ? cudaSuccess : report(cudaErrorInvalidValue);
}

cudaError_t cudaHostAlloc(void **ptr, size_t bytes, unsigned)
{
    void *p = aligned_alloc(PAGE, round_up(bytes + 1, PAGE));
    if (p == nullptr)
        return report(cudaErrorMemoryAllocation);
    memset(p, 0xff, bytes);
    pinned.push_back({(unsigned char *)p, nullptr, bytes, 0});
    *ptr = p;
    return cudaSuccess;
}

cudaError_t cudaFreeHost(void *ptr)
{
    for (emu_stream *s : streams)
        finish(s);
    for (auto r = pinned.begin(); r != pinned.end(); ++r) {
        if (r->start == ptr) {
            pinned.erase(r);
            free(ptr);
            return cudaSuccess;
        }
    }
    return report(cudaErrorInvalidValue);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned)
{
    *stream = new emu_stream;
    streams.push_back(*stream);
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    finish(stream);
    streams.remove(stream);
    delete stream;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    finish(stream);
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned)
{
    if (event->place != nullptr)
        stream->items.push_back({nullptr, nullptr, event->place});
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned)
{
    *event = new emu_event;
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *event)
{
    return cudaEventCreateWithFlags(event, 0);
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t begin, cudaEvent_t end)
{
    for (cudaEvent_t event : {begin, end}) {
        if (event->place == nullptr || event->place->stream != nullptr)
            return report(cudaErrorInvalidValue);
    }
    *ms = (float)(end->place->passed_at - begin->place->passed_at);
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    delete event;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    event->place = std::make_shared<place_t>(place_t{stream, 0});
    stream->items.push_back({nullptr, event->place, nullptr});
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    if (event->place != nullptr && event->place->stream != nullptr)
        wait_for(event->place->stream, event->place.get());
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    const bool to_ok =
        kind == cudaMemcpyDeviceToHost ? emu_is_pinned(dst, bytes) : emu_is_device(dst, bytes);
    const bool from_ok =
        kind == cudaMemcpyHostToDevice ? emu_is_pinned(src, bytes) : emu_is_device(src, bytes);
    if (!to_ok || !from_ok)
        return report(cudaErrorInvalidValue);
    emu_enqueue(stream, [=] { memcpy(dst, src, bytes); });
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *dst, int value, size_t bytes, cudaStream_t stream)
{
    if (!emu_is_device(dst, bytes))
        return report(cudaErrorInvalidValue);
    emu_enqueue(stream, [=] { memset(dst, value, bytes); });
    return cudaSuccess;
}
