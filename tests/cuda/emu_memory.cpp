/* Memory of the emulated device, and pinned memory of the host. Device memory is out of the host's reach but while work
 * runs, and holds NaN until it is written. */
#include "emu_poison.h"
#include "emu_runtime.h"

#include <cstdlib>
#include <list>
#include <sys/mman.h>
#include <unistd.h>

namespace
{
/* Device memory ends as close to an unusable page as its alignment allows. */
struct region_t {
    unsigned char *start, *mapping;
    size_t bytes, mapped;
};

constexpr size_t ALIGN = 256, PAGE = 4096, NANS = 16 << 20;
std::list<region_t> device, pinned;
size_t used;

size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
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
} // namespace

/* LRD_EMULATED_MEMORY: bytes of a device; 8 GiB unless set. */
size_t emu_memory_bytes()
{
    const char *text = getenv("LRD_EMULATED_MEMORY");
    return text != nullptr ? strtoull(text, nullptr, 10) : (size_t)8 << 30;
}

void emu_open_memory(bool open)
{
    for (const region_t &r : device)
        mprotect(r.mapping, r.mapped, open ? PROT_READ | PROT_WRITE : PROT_NONE);
}

bool emu_is_device(const void *ptr, size_t bytes)
{
    return find(device, ptr, bytes) != nullptr;
}

bool emu_is_pinned(const void *ptr, size_t bytes)
{
    return find(pinned, ptr, bytes) != nullptr;
}

bool emu_take(size_t bytes)
{
    if (bytes > emu_memory_bytes() - used)
        return false;
    used += bytes;
    return true;
}

void emu_give_back(size_t bytes)
{
    used -= bytes;
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes)
{
    *free_bytes = emu_memory_bytes() - used;
    *total_bytes = emu_memory_bytes();
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **ptr, size_t bytes)
{
    const size_t space = round_up(bytes, ALIGN), mapped = round_up(space, PAGE);
    const cudaError_t error = emu_refuse_in_capture(nullptr);
    *ptr = nullptr;
    if (bytes == 0 || error != cudaSuccess)
        return error;
    if (bytes > emu_memory_bytes() - used)
        return emu_report(cudaErrorMemoryAllocation);
    unsigned char *mapping = map_nans(mapped);
    if (mapping == nullptr)
        return emu_report(cudaErrorMemoryAllocation);
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
    const cudaError_t error = emu_refuse_in_capture(nullptr);
    if (error != cudaSuccess)
        return error;
    emu_finish_all();
    for (auto r = device.begin(); r != device.end(); ++r) {
        if (r->start == ptr) {
            used -= r->bytes;
            ASAN_UNPOISON_MEMORY_REGION(r->start, r->mapped - (size_t)(r->start - r->mapping));
            munmap(r->mapping, r->mapped + PAGE);
            device.erase(r);
            return cudaSuccess;
        }
    }
    return ptr == nullptr ? cudaSuccess : emu_report(cudaErrorInvalidValue);
}

cudaError_t cudaHostAlloc(void **ptr, size_t bytes, unsigned)
{
    const cudaError_t error = emu_refuse_in_capture(nullptr);
    if (error != cudaSuccess)
        return error;
    void *p = aligned_alloc(PAGE, round_up(bytes + 1, PAGE));
    if (p == nullptr)
        return emu_report(cudaErrorMemoryAllocation);
    memset(p, 0xff, bytes);
    pinned.push_back({(unsigned char *)p, nullptr, bytes, 0});
    *ptr = p;
    return cudaSuccess;
}

cudaError_t cudaFreeHost(void *ptr)
{
    const cudaError_t error = emu_refuse_in_capture(nullptr);
    if (error != cudaSuccess)
        return error;
    emu_finish_all();
    for (auto r = pinned.begin(); r != pinned.end(); ++r) {
        if (r->start == ptr) {
            pinned.erase(r);
            free(ptr);
            return cudaSuccess;
        }
    }
    return emu_report(cudaErrorInvalidValue);
}
