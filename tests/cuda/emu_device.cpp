/* The runtime of the emulated device but for its memory (emu_memory.cpp). Work waits in its stream until somebody waits for it; only
 * while it runs may device memory be touched.
 *
 * Streams run in one of two orders, so that one of them makes a forgotten wait a wrong result. Late: work
 * of a stream is done when the host, or another stream that comes to its wait, wants it, so that a
 * reader that does not wait comes before its writer. Early (LRD_EMULATED_STREAMS=early): streams that
 * nobody asked for go first, as far as their own waits let them, so that a writer that does not wait
 * comes before the readers of what it overwrites.
 *
 * While a stream is captured into a graph, what CUDA forbids then is refused and spoils the capture, and
 * so are events, which CUDA would take into the graph. */
#include "emu_runtime.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <unistd.h>
#include <vector>

namespace
{
/* Where an event was recorded. */
struct place_t {
    emu_stream *stream; /* nullptr: it was passed */
    double passed_at;   /* on the clock */
};

struct item_t {
    std::function<bool()> work; /* true: it is done; empty for an event's place, and for a wait: */
    std::shared_ptr<place_t> passes, awaits; /* of these */
};
} // namespace

struct emu_graph {
    std::vector<std::function<void()>> work;
    bool spoiled;
};

struct emu_graph_exec {
    std::vector<std::function<void()>> work;
    size_t bytes() const
    {
        static const char *const text = getenv("LRD_EMULATED_NODE_BYTES");
        return work.size() *
               (text != nullptr ? strtoull(text, nullptr, 10) : (size_t)EMU_NODE_BYTES);
    }
};

struct emu_stream {
    std::deque<item_t> items;
    std::unique_ptr<emu_graph> capture; /* nullptr: none is under way */
};

struct emu_event {
    bool timed;
    std::shared_ptr<place_t> place; /* nullptr: never recorded */
};

namespace
{
/* What the host did. LRD_EMULATED_COUNTS=FILE: appended to it when the process ends. */
struct counts_t {
    long waits;  /* for work that was not done */
    long drains; /* those of them that left no work on the device, which then waits for the host */
    long graphs; /* that were taken down */
    long nodes, most_nodes; /* of those that there are, and were at once */
    long launches;          /* of kernels, products, copies and graphs */
    ~counts_t()
    {
        const char *file = getenv("LRD_EMULATED_COUNTS");
        FILE *f = file != nullptr ? fopen(file, "a") : nullptr;
        if (f == nullptr)
            return;
        fprintf(f, "waits %ld drains %ld graphs %ld nodes %ld launches %ld\n", waits, drains,
                graphs, most_nodes, launches);
        fclose(f);
    }
} counts;

std::list<emu_stream *> streams;
std::map<void (*)(), size_t> allowed_shared;
cudaError_t last_error = cudaSuccess;
int current; /* the device that was set */

double clock_ms;

/* LRD_EMULATED_PACE; 0: not set. */
double pace()
{
    static const char *const text = getenv("LRD_EMULATED_PACE");
    static const double times = text != nullptr ? strtod(text, nullptr) : 0;
    return times;
}

/* LRD_EMULATED_GRAPHS_STAY: what graphs took that are gone, and others may take. */
size_t left_by_graphs;

bool is_held_up(const emu_stream *s)
{
    const auto &awaits = s->items.front().awaits;
    return awaits != nullptr && awaits->stream != nullptr;
}

/* False: what is first waits for another process. */
bool run_first(emu_stream *s)
{
    const item_t item = s->items.front();
    if (item.work && !item.work())
        return false;
    s->items.pop_front();
    if (item.passes != nullptr)
        *item.passes = {nullptr, clock_ms};
    return true;
}

/* All streams but one, as far as their waits let them. */
void run_others(const emu_stream *but)
{
    for (bool more = true; more;) {
        more = false;
        for (emu_stream *s : streams) {
            for (; s != but && !s->items.empty() && !is_held_up(s) && run_first(s);)
                more = true;
        }
    }
}

/* Runs a stream up to a place of it, or all of it (nullptr), and of the others what it waits for; false: something
 * of that waits for another process. */
bool run_to(emu_stream *s, const place_t *place, bool early)
{
    while (!s->items.empty() && (place == nullptr || place->stream != nullptr)) {
        if (early)
            run_others(s);
        if (is_held_up(s)) {
            const auto awaits = s->items.front().awaits;
            if (!run_to(awaits->stream, awaits.get(), early))
                return false;
        }
        if (!run_first(s))
            return false;
    }
    return true;
}

/* The same, by the order that the environment wants. */
bool advance(emu_stream *s, const place_t *place)
{
    const char *order = getenv("LRD_EMULATED_STREAMS");
    if (s->items.empty())
        return true;
    emu_open_memory(true);
    const bool done = run_to(s, place, order != nullptr && strcmp(order, "early") == 0);
    emu_open_memory(false);
    return done;
}

void wait_for(emu_stream *s, const place_t *place)
{
    bool any = false;
    if (s->items.empty())
        return;
    while (!advance(s, place))
        usleep(100);
    for (const emu_stream *other : streams)
        any = any || !other->items.empty();
    counts.waits++;
    counts.drains += !any;
}

void finish(emu_stream *s)
{
    wait_for(s, nullptr);
}
} // namespace

cudaError_t emu_report(cudaError_t error)
{
    last_error = error != cudaSuccess ? error : last_error;
    return error;
}

cudaError_t emu_refuse_in_capture(const emu_stream *stream)
{
    cudaError_t error = cudaSuccess;
    for (emu_stream *s : streams) {
        if (s->capture != nullptr && (stream == nullptr || s == stream)) {
            s->capture->spoiled = true;
            error = cudaErrorStreamCaptureUnsupported;
        }
    }
    return emu_report(error);
}

void emu_finish_all()
{
    for (emu_stream *s : streams)
        finish(s);
}

cudaError_t emu_enqueue(cudaStream_t stream, std::function<void()> work)
{
    const auto timed = [work = std::move(work)] {
        work();
        emu_spend(pace() > 0 ? 1 : 0);
    };
    if (stream != nullptr && stream->capture != nullptr) {
        stream->capture->work.push_back(timed);
        return cudaSuccess;
    }
    return emu_enqueue_until(stream, [timed] {
        timed();
        return true;
    });
}

cudaError_t emu_enqueue_until(cudaStream_t stream, std::function<bool()> work)
{
    if (stream == nullptr)
        return emu_report(cudaErrorInvalidResourceHandle);
    if (stream->capture != nullptr)
        return emu_refuse_in_capture(stream);
    counts.launches++;
    stream->items.push_back({std::move(work), nullptr, nullptr});
    return cudaSuccess;
}

bool emu_is_capturing()
{
    for (const emu_stream *s : streams) {
        if (s->capture != nullptr)
            return true;
    }
    return false;
}

void emu_spend(double milliseconds)
{
    clock_ms += milliseconds * (pace() > 0 ? pace() : 1);
}

double emu_clock()
{
    return clock_ms;
}

void emu_pass_to(double milliseconds)
{
    clock_ms = milliseconds > clock_ms ? milliseconds : clock_ms;
}

cudaError_t emu_allow_shared(void (*kernel)(), size_t bytes)
{
    if (bytes > EMU_SHARED_OPT_IN)
        return emu_report(cudaErrorInvalidValue);
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
        return emu_report(cudaErrorInvalidConfiguration);
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
    case cudaErrorInvalidResourceHandle:
        return "invalid resource handle";
    case cudaErrorStreamCaptureUnsupported:
        return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated:
        return "operation failed due to a previous error during capture";
    case cudaErrorNotReady:
        return "device not ready";
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

/* LRD_EMULATED_RUNTIME: as CUDA writes it; 13000, which is 13.0, unless set. */
cudaError_t cudaRuntimeGetVersion(int *version)
{
    const char *text = getenv("LRD_EMULATED_RUNTIME");
    *version = text != nullptr ? (int)strtol(text, nullptr, 10) : 13000;
    return cudaSuccess;
}

/* LRD_EMULATED_DEVICES: how many there are; 1 unless set. */
cudaError_t cudaGetDeviceCount(int *count)
{
    const char *text = getenv("LRD_EMULATED_DEVICES");
    const int n = text != nullptr ? (int)strtol(text, nullptr, 10) : 1;
    if (n == 0)
        return emu_report(cudaErrorNoDevice);
    *count = n;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int index)
{
    int n = 0;
    const cudaError_t error = cudaGetDeviceCount(&n);
    if (error != cudaSuccess)
        return error;
    if (index < 0 || index >= n)
        return emu_report(cudaErrorInvalidDevice);
    current = index;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int *index)
{
    *index = current;
    return cudaSuccess;
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
    properties->totalGlobalMem = emu_memory_bytes();
    properties->sharedMemPerBlockOptin = EMU_SHARED_OPT_IN;
    return cudaSuccess;
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
    const cudaError_t error = emu_refuse_in_capture(stream);
    if (error == cudaSuccess)
        finish(stream);
    return error;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned)
{
    const cudaError_t error = emu_refuse_in_capture(stream);
    if (error == cudaSuccess && event->place != nullptr)
        stream->items.push_back({nullptr, nullptr, event->place});
    return error;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags)
{
    *event = new emu_event{(flags & cudaEventDisableTiming) == 0, nullptr};
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *event)
{
    return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t begin, cudaEvent_t end)
{
    for (cudaEvent_t event : {begin, end}) {
        if (!event->timed)
            return emu_report(cudaErrorInvalidResourceHandle);
        if (event->place == nullptr || event->place->stream != nullptr)
            return emu_report(cudaErrorInvalidValue);
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
    const cudaError_t error = emu_refuse_in_capture(stream);
    if (error != cudaSuccess)
        return error;
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

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    emu_stream *s = event->place != nullptr ? event->place->stream : nullptr;
    return s == nullptr || advance(s, event->place.get()) ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode)
{
    if (stream == nullptr || stream->capture != nullptr)
        return emu_report(cudaErrorStreamCaptureUnsupported);
    stream->capture = std::make_unique<emu_graph>();
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
    *graph = nullptr;
    if (stream->capture == nullptr)
        return emu_report(cudaErrorInvalidValue);
    const std::unique_ptr<emu_graph> taken = std::move(stream->capture);
    if (taken->spoiled)
        return emu_report(cudaErrorStreamCaptureInvalidated);
    *graph = new emu_graph(*taken);
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long)
{
    const cudaError_t error = emu_refuse_in_capture(nullptr);
    if (error != cudaSuccess)
        return error;
    const emu_graph_exec made{graph->work};
    const size_t again = std::min(left_by_graphs, made.bytes());
    if (!emu_take(made.bytes() - again))
        return emu_report(cudaErrorMemoryAllocation);
    left_by_graphs -= again;
    *exec = new emu_graph_exec(made);
    counts.graphs++;
    counts.nodes += (long)graph->work.size();
    counts.most_nodes = std::max(counts.most_nodes, counts.nodes);
    return cudaSuccess;
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, void *, size_t *n)
{
    *n = graph->work.size();
    return cudaSuccess;
}

/* One call of the host, whatever it holds. */
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
    const auto work = exec->work;
    return emu_enqueue_until(stream, [work] {
        for (const auto &w : work)
            w();
        return true;
    });
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    delete graph;
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    if (getenv("LRD_EMULATED_GRAPHS_STAY") != nullptr)
        left_by_graphs += exec->bytes();
    else
        emu_give_back(exec->bytes());
    counts.nodes -= (long)exec->work.size();
    delete exec;
    return cudaSuccess;
}

cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    const cudaError_t error = emu_refuse_in_capture(stream);
    if (error != cudaSuccess)
        return error;
    return advance(stream, nullptr) ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    const bool to_ok =
        kind == cudaMemcpyDeviceToHost ? emu_is_pinned(dst, bytes) : emu_is_device(dst, bytes);
    const bool from_ok =
        kind == cudaMemcpyHostToDevice ? emu_is_pinned(src, bytes) : emu_is_device(src, bytes);
    if (!to_ok || !from_ok)
        return emu_report(cudaErrorInvalidValue);
    return emu_enqueue(stream, [=] { memcpy(dst, src, bytes); });
}

cudaError_t cudaMemsetAsync(void *dst, int value, size_t bytes, cudaStream_t stream)
{
    if (!emu_is_device(dst, bytes))
        return emu_report(cudaErrorInvalidValue);
    return emu_enqueue(stream, [=] { memset(dst, value, bytes); });
}
