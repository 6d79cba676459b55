/* Counts what accesses cost. The compiler, asked to look for races between threads (-fsanitize=thread), calls a function
 * before each load and store that is left when it has optimized; here they are, without that library. */
#include "emu_traffic.h"

#include "cuda_runtime.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <list>
#include <unordered_map>
#include <vector>

/* Where static variables of this library lie, blocks' shared ones among them. */
extern "C" {
extern char __bss_start[] __attribute__((visibility("hidden")));
extern char _end[] __attribute__((visibility("hidden")));
}

namespace
{
constexpr int PAGE = 4096, WORD = 64;

/* Which bytes of device memory were touched: a bit for each. */
class bytes_t
{
  public:
    void add(uintptr_t at, int bytes)
    {
        pages[at / PAGE][at % PAGE / WORD] |= ((1ull << bytes) - 1) << at % WORD;
    }
    double count() const
    {
        double n = 0;
        for (const auto &page : pages) {
            for (const uint64_t word : page.second)
                n += __builtin_popcountll(word);
        }
        return n;
    }
    void clear()
    {
        pages.clear();
    }

  private:
    std::unordered_map<uintptr_t, std::array<uint64_t, PAGE / WORD>> pages;
};

/* Addresses that the lanes of a warp gave an instruction since they last met, in order. */
struct lanes_t {
    std::array<std::vector<uintptr_t>, EMU_WARP> lane;
    bool any;
};

struct kernel_t {
    emu_kernel_t total = {};
    std::vector<emu_site_t> sites;
    std::unordered_map<uintptr_t, int> site_of; /* address and memory */
};

struct warp_t {
    std::vector<lanes_t> of_site;
    std::vector<int> touched; /* sites that have addresses */
};

std::list<kernel_t> kernels;
std::vector<emu_kernel_t> listed;
kernel_t *now; /* nullptr: no kernel runs */
std::vector<warp_t> warps;
bytes_t bytes_read, bytes_written;
const char *shared_begin, *shared_end; /* the block's dynamic shared memory */
bool paused;

unsigned thread_index()
{
    const emu_index_t &t = emu_thread_index;
    return t.x + emu_block_size.x * (t.y + emu_block_size.y * t.z);
}

/* What stands for CUDA's built-in variables. */
bool is_built_in(const char *at)
{
    const std::pair<const void *, size_t> built_in[] = {
        {&emu_thread_index, sizeof emu_thread_index},
        {&emu_block_index, sizeof emu_block_index},
        {&emu_block_size, sizeof emu_block_size},
        {&emu_grid_size, sizeof emu_grid_size}};
    for (const auto &b : built_in) {
        if (at >= (const char *)b.first && at < (const char *)b.first + b.second)
            return true;
    }
    return false;
}

bool is_shared(const char *at)
{
    return (at >= shared_begin && at < shared_end) ||
           (at >= __bss_start && at < _end && !is_built_in(at));
}

int find_site(const void *pc, bool shared, bool store, int bytes)
{
    const uintptr_t key = (uintptr_t)pc << 1 | (shared ? 1 : 0);
    const auto known = now->site_of.find(key);
    if (known != now->site_of.end())
        return known->second;
    now->sites.push_back({pc, shared, store, bytes, 0, 0, 0});
    return now->site_of[key] = (int)now->sites.size() - 1;
}

void note(const void *pc, const void *data, int bytes, bool store)
{
    const char *at = (const char *)data;
    if (now == nullptr || paused)
        return;
    const bool shared = is_shared(at);
    if (!shared && !emu_is_device(at, (size_t)bytes))
        return;
    if (!shared)
        (store ? bytes_written : bytes_read).add((uintptr_t)at, bytes);
    const int site = find_site(pc, shared, store, bytes);
    const unsigned thread = thread_index();
    warp_t &w = warps[thread / EMU_WARP];
    if ((int)w.of_site.size() <= site)
        w.of_site.resize((size_t)site + 1);
    lanes_t &lanes = w.of_site[site];
    if (!lanes.any)
        w.touched.push_back(site);
    lanes.any = true;
    lanes.lane[thread % EMU_WARP].push_back((uintptr_t)at);
}

/* Different ones among the first n. Accesses lie at multiples of their size, as a GPU demands, so that neither a sector
 * nor a word is cut by one. */
int keep_different(uintptr_t *x, int n)
{
    std::sort(x, x + n);
    return (int)(std::unique(x, x + n) - x);
}

/* One request for sectors; n addresses of lanes. */
void count_sectors(uintptr_t *at, int n, emu_site_t *s)
{
    n = keep_different(at, n);
    s->least += (n * s->bytes + EMU_SECTOR - 1) / EMU_SECTOR;
    for (int i = 0; i < n; i++)
        at[i] /= EMU_SECTOR;
    s->units += keep_different(at, n);
}

/* One turn at the banks. */
void count_banks(uintptr_t *at, int n, emu_site_t *s)
{
    std::array<int, EMU_BANKS> words = {};
    for (int i = 0; i < n; i++)
        at[i] -= at[i] % 4;
    n = keep_different(at, n);
    for (int i = 0; i < n; i++) {
        for (int byte = 0; byte < s->bytes; byte += 4)
            words[(at[i] + byte) / 4 % EMU_BANKS]++;
    }
    s->least += n > 0 ? 1 : 0;
    s->units += *std::max_element(words.begin(), words.end());
}

/* The k-th request of a warp: the k-th address of every lane that has one. */
void count_request(const lanes_t &lanes, size_t k, emu_site_t *s)
{
    const int turn = s->is_shared ? EMU_WARP * 4 / std::max(4, s->bytes) : (int)EMU_WARP;
    s->requests++;
    for (int first = 0; first < EMU_WARP; first += turn) {
        uintptr_t at[EMU_WARP];
        int n = 0;
        for (int lane = first; lane < first + turn; lane++) {
            if (k < lanes.lane[lane].size())
                at[n++] = lanes.lane[lane][k];
        }
        if (s->is_shared)
            count_banks(at, n, s);
        else
            count_sectors(at, n, s);
    }
}

void finish_site(lanes_t &lanes, emu_site_t *s)
{
    size_t most = 0;
    for (const auto &lane : lanes.lane)
        most = std::max(most, lane.size());
    for (size_t k = 0; k < most; k++)
        count_request(lanes, k, s);
    for (auto &lane : lanes.lane)
        lane.clear();
    lanes.any = false;
}
} // namespace

void emu_traffic_launch(const char *name)
{
    const auto same = [&](const kernel_t &k) { return strcmp(k.total.name, name) == 0; };
    const auto known = std::find_if(kernels.begin(), kernels.end(), same);
    now = known != kernels.end() ? &*known : &kernels.emplace_back();
    snprintf(now->total.name, sizeof now->total.name, "%s", name);
    now->total.launches++;
}

void emu_traffic_block(const void *shared, size_t shared_bytes, unsigned n_warps)
{
    shared_begin = (const char *)shared;
    shared_end = shared_begin + shared_bytes;
    warps.resize(n_warps);
}

void emu_traffic_meet(unsigned first_warp, unsigned n_warps)
{
    for (unsigned i = first_warp; i < first_warp + n_warps; i++) {
        for (const int site : warps[i].touched)
            finish_site(warps[i].of_site[site], &now->sites[site]);
        warps[i].touched.clear();
    }
}

void emu_traffic_done()
{
    now->total.bytes_read += bytes_read.count();
    now->total.bytes_written += bytes_written.count();
    bytes_read.clear();
    bytes_written.clear();
    warps.clear(); /* the sites are another kernel's next */
    now = nullptr;
}

void emu_traffic_pause(bool pause)
{
    paused = pause;
}

const emu_kernel_t *emu_traffic_kernels(size_t *n_out)
{
    listed.clear();
    for (kernel_t &k : kernels) {
        k.total.site = k.sites.data();
        k.total.n_sites = k.sites.size();
        listed.push_back(k.total);
    }
    *n_out = listed.size();
    return listed.data();
}

void emu_traffic_clear()
{
    kernels.clear();
}

/* ---- what the compiler calls, and what the emulated device does by itself; the return address says where */

#define HERE __builtin_extract_return_addr(__builtin_return_address(0))

__attribute__((noinline)) void emu_traffic_load(const void *at, int bytes)
{
    note(HERE, at, bytes, false);
}

__attribute__((noinline)) void emu_traffic_store(void *at, int bytes)
{
    note(HERE, at, bytes, true);
}

#pragma GCC visibility push(default)
#define NOTE(size)                               \
    extern "C" void __tsan_read##size(void *at)  \
    {                                            \
        note(HERE, at, size, false);             \
    }                                            \
    extern "C" void __tsan_write##size(void *at) \
    {                                            \
        note(HERE, at, size, true);              \
    }
NOTE(1)
NOTE(2)
NOTE(4)
NOTE(8)
NOTE(16)

/* Structs: in pieces as large as divide them. */
static void note_pieces(const void *pc, const void *at, long bytes, bool store)
{
    const long piece = std::min(16l, bytes & -bytes);
    for (long i = 0; i < bytes; i += piece)
        note(pc, (const char *)at + i, (int)piece, store);
}

extern "C" void __tsan_read_range(void *at, long bytes)
{
    note_pieces(HERE, at, bytes, false);
}

extern "C" void __tsan_write_range(void *at, long bytes)
{
    note_pieces(HERE, at, bytes, true);
}

extern "C" void __tsan_init()
{
}

extern "C" void __tsan_func_entry(void *)
{
}

extern "C" void __tsan_func_exit()
{
}
