/* The device: opening it, its memory, its streams; and the table of the plugin. */
#include "kernels/cuda/cuda_backend.h"
#include "kernels/plugin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* For messages: what is left of the device's memory. */
static void describe_memory(char text[96])
{
    size_t free_bytes = 0, total_bytes = 0;
    cudaMemGetInfo(&free_bytes, &total_bytes);
    snprintf(text, 96, "the device has %.1f of %.1f MiB free", (double)free_bytes / 0x1p20,
             (double)total_bytes / 0x1p20);
}

lrd_status_t cuda_fail(cudaError_t error, const char *file, int line, const char *call)
{
    char memory[96];
    if (error != cudaErrorMemoryAllocation)
        return lrd_fail(LRD_ERR_DEVICE, file, line, "CUDA: %s: %s", call,
                        cudaGetErrorString(error));
    cudaGetLastError(); /* it has been dealt with */
    describe_memory(memory);
    return lrd_fail(
        LRD_ERR_NO_MEMORY, file, line,
        "CUDA: %s: out of device memory for what CUDA takes beside the run; %s. Leave it more: "
        "parallel.max_memory says how much of a device a run may take",
        call, memory);
}

static void cuda_close(lrd_backend_t *backend)
{
    cuda_backend_t *be = (cuda_backend_t *)backend;
    cuda_choices_forget(be);
    cublasLtDestroy(be->products);
    free(be);
}

/* Chooses the device for this thread; what may be missing on a machine is LRD_ERR_UNAVAILABLE. Ranks of a
 * host each take the next one; where each sees one alone (Slurm's --gpus-per-task=1), that one. */
static lrd_status_t choose_device(int rank, int *index_out, cudaDeviceProp *properties_out)
{
    int n = 0;
    const cudaError_t error = cudaGetDeviceCount(&n);
    CUDA_CHECK(error == cudaSuccess && n > 0, LRD_ERR_UNAVAILABLE, "no CUDA device: %s",
               cudaGetErrorString(error));
    const int index = rank % n;
    CUDA_CALL(cudaSetDevice(index));
    CUDA_CALL(cudaGetDeviceProperties(properties_out, index));
    CUDA_CHECK(properties_out->major >= 8, LRD_ERR_UNAVAILABLE,
               "CUDA device %d, %s, has compute capability %d.%d: 8.0 is needed", index,
               properties_out->name, properties_out->major, properties_out->minor);
    *index_out = index;
    return LRD_OK;
}

void cuda_machine(const cuda_backend_t *be, char text[160])
{
    snprintf(text, 160, "%.80s, compute capability %d.%d, %d multiprocessors, cuBLASLt %zu",
             be->properties.name, be->properties.major, be->properties.minor,
             be->properties.multiProcessorCount, cublasLtGetVersion());
}

static lrd_status_t take_options(cuda_backend_t *be, const lrd_product_options_t *p)
{
    char here[160];
    be->tf32 = p->tf32;
    be->tunes = p->tunes;
    if (p->tuning == NULL)
        return LRD_OK;
    cuda_machine(be, here);
    CUDA_CHECK(strcmp(p->tuning->machine, here) == 0, LRD_ERR_CONFIG,
               "%s was made for \"%s\", this device is \"%s\": make one here with lora-dist tune",
               p->tuning_file, p->tuning->machine, here);
    be->tuned = (lrd_choice_t *)calloc(p->tuning->n + 1, sizeof *be->tuned);
    CUDA_CHECK(be->tuned != NULL, LRD_ERR_NO_MEMORY, "out of memory");
    memcpy(be->tuned, p->tuning->choice, p->tuning->n * sizeof *be->tuned);
    be->n_tuned = p->tuning->n;
    return LRD_OK;
}

static lrd_status_t cuda_open(const lrd_backend_options_t *options, lrd_backend_t **backend_out)
{
    cudaDeviceProp properties;
    int device = 0;
    CUDA_TRY(choose_device(options->device_index, &device, &properties));
    cuda_backend_t *be = (cuda_backend_t *)calloc(1, sizeof *be);
    CUDA_CHECK(be != NULL, LRD_ERR_NO_MEMORY, "out of memory");
    be->base.ops = lrd_cuda_ops();
    be->device = device;
    be->properties = properties;
    const cublasStatus_t error = cublasLtCreate(&be->products);
    if (error != CUBLAS_STATUS_SUCCESS) {
        free(be);
        CUDA_CHECK(false, LRD_ERR_DEVICE, "cuBLASLt cannot start: %s",
                   cublasLtGetStatusString(error));
    }
    const lrd_status_t status = take_options(be, options->products);
    if (status != LRD_OK) {
        cuda_close(&be->base);
        return status;
    }
    *backend_out = &be->base;
    return LRD_OK;
}

static lrd_status_t cuda_describe(lrd_backend_t *backend, char *text, size_t size)
{
    const cuda_backend_t *be = (const cuda_backend_t *)backend;
    snprintf(text, size, "device %s of %.0f GiB, compute capability %d.%d, %d multiprocessors",
             be->properties.name, (double)be->properties.totalGlobalMem / 0x1p30,
             be->properties.major, be->properties.minor, be->properties.multiProcessorCount);
    return LRD_OK;
}

static void cuda_device_id(lrd_backend_t *backend, char text[LRD_DEVICE_ID])
{
    const cuda_backend_t *be = (const cuda_backend_t *)backend;
    int at = snprintf(text, LRD_DEVICE_ID, "GPU-");
    for (size_t i = 0; i < sizeof be->properties.uuid.bytes; i++)
        at += snprintf(text + at, LRD_DEVICE_ID - (size_t)at, "%02x",
                       (unsigned char)be->properties.uuid.bytes[i]);
}

/* LRD_CUDA_GRAPHS=0: none, to compare. */
static bool wants_graphs()
{
    const char *text = getenv("LRD_CUDA_GRAPHS");
    return text == NULL || strcmp(text, "0") != 0;
}

static void cuda_software(lrd_backend_t *, char text[LRD_SOFTWARE])
{
    const char *tf32 = getenv("NVIDIA_TF32_OVERRIDE");
    int runtime = 0;
    cudaRuntimeGetVersion(&runtime);
    snprintf(text, LRD_SOFTWARE,
             "CUDA runtime\t%d.%d\ncuBLASLt\t%zu\ngraphs (LRD_CUDA_GRAPHS)\t%s\n"
             "NVIDIA_TF32_OVERRIDE\t%.64s\n",
             runtime / 1000, runtime / 10 % 100, cublasLtGetVersion(),
             wants_graphs() ? "on" : "off", tf32 != NULL ? tf32 : "not set");
}

static lrd_status_t cuda_mem_info(lrd_backend_t *, size_t *free_bytes_out, size_t *total_bytes_out)
{
    CUDA_CALL(cudaMemGetInfo(free_bytes_out, total_bytes_out));
    return LRD_OK;
}

static lrd_status_t cuda_mem_alloc(lrd_backend_t *, lrd_memkind_t kind, size_t bytes,
                                   void **ptr_out)
{
    const size_t some = bytes > 0 ? bytes : 1; /* CUDA gives NULL for nothing */
    const cudaError_t error = kind == LRD_MEM_PINNED
                                  ? cudaHostAlloc(ptr_out, some, cudaHostAllocDefault)
                                  : cudaMalloc(ptr_out, some);
    if (error == cudaErrorMemoryAllocation) {
        char memory[96];
        cudaGetLastError(); /* it has been dealt with */
        describe_memory(memory);
        CUDA_CHECK(kind == LRD_MEM_DEVICE, LRD_ERR_NO_MEMORY,
                   "out of pinned host memory: %.1f MiB asked for. Smaller micro-batches need "
                   "less, and so do "
                   "fewer blocks there (cpu in parallel.max_memory)",
                   (double)bytes / 0x1p20);
        CUDA_CHECK(false, LRD_ERR_NO_MEMORY, "out of device memory: %.1f MiB asked for; %s",
                   (double)bytes / 0x1p20, memory);
    }
    CUDA_CALL(error);
    return LRD_OK;
}

static void cuda_mem_free(lrd_backend_t *, lrd_memkind_t kind, void *ptr, size_t)
{
    if (kind == LRD_MEM_PINNED)
        cudaFreeHost(ptr);
    else
        cudaFree(ptr);
}

static lrd_status_t cuda_stream_create(lrd_backend_t *be, lrd_stream_t **stream_out)
{
    cuda_stream_t *st = (cuda_stream_t *)calloc(1, sizeof *st);
    CUDA_CHECK(st != NULL, LRD_ERR_NO_MEMORY, "out of memory");
    st->base.backend = be;
    const cudaError_t error = cudaStreamCreateWithFlags(&st->stream, cudaStreamNonBlocking);
    if (error != cudaSuccess)
        free(st);
    CUDA_CALL(error);
    *stream_out = &st->base;
    return LRD_OK;
}

static void cuda_stream_destroy(lrd_stream_t *st)
{
    cudaStreamDestroy(cuda_stream_of(st));
    free(st);
}

static lrd_status_t cuda_stream_sync(lrd_stream_t *st)
{
    CUDA_CALL(cudaStreamSynchronize(cuda_stream_of(st)));
    return LRD_OK;
}

static lrd_status_t cuda_stream_wait(lrd_stream_t *st, lrd_event_t *event)
{
    CUDA_CALL(cudaStreamWaitEvent(cuda_stream_of(st), cuda_event_of(event), 0));
    return LRD_OK;
}

static lrd_status_t create_event(lrd_backend_t *be, unsigned flags, lrd_event_t **event_out)
{
    cuda_event_t *event = (cuda_event_t *)calloc(1, sizeof *event);
    CUDA_CHECK(event != NULL, LRD_ERR_NO_MEMORY, "out of memory");
    event->base.backend = be;
    const cudaError_t error = cudaEventCreateWithFlags(&event->event, flags);
    if (error != cudaSuccess)
        free(event);
    CUDA_CALL(error);
    *event_out = &event->base;
    return LRD_OK;
}

static lrd_status_t cuda_event_create(lrd_backend_t *be, lrd_event_t **event_out)
{
    return create_event(be, cudaEventDisableTiming, event_out);
}

static lrd_status_t cuda_timer_create(lrd_backend_t *be, lrd_event_t **timer_out)
{
    return create_event(be, cudaEventDefault, timer_out);
}

static lrd_status_t cuda_timer_seconds(lrd_event_t *begin, lrd_event_t *end, double *seconds_out)
{
    float milliseconds;
    CUDA_CALL(cudaEventElapsedTime(&milliseconds, cuda_event_of(begin), cuda_event_of(end)));
    *seconds_out = (double)milliseconds / 1000;
    return LRD_OK;
}

static void cuda_event_destroy(lrd_event_t *event)
{
    cudaEventDestroy(cuda_event_of(event));
    free(event);
}

static lrd_status_t cuda_event_record(lrd_stream_t *st, lrd_event_t *event)
{
    CUDA_CALL(cudaEventRecord(cuda_event_of(event), cuda_stream_of(st)));
    return LRD_OK;
}

static lrd_status_t cuda_event_sync(lrd_event_t *event)
{
    CUDA_CALL(cudaEventSynchronize(cuda_event_of(event)));
    return LRD_OK;
}

static bool cuda_event_is_done(lrd_event_t *event)
{
    if (cudaEventQuery(cuda_event_of(event)) != cudaErrorNotReady)
        return true;
    cudaGetLastError(); /* it has been dealt with */
    return false;
}

/* Other threads, such as a library's own, may use the device meanwhile. */
static lrd_status_t cuda_graph_begin(lrd_stream_t *st)
{
    CUDA_CALL(cudaStreamBeginCapture(cuda_stream_of(st), cudaStreamCaptureModeThreadLocal));
    return LRD_OK;
}

static lrd_status_t instantiate(lrd_backend_t *be, cudaGraph_t taken, size_t most_nodes,
                                lrd_graph_t **graph_out)
{
    size_t nodes = 0;
    *graph_out = NULL;
    CUDA_CALL(cudaGraphGetNodes(taken, NULL, &nodes));
    if (nodes > most_nodes)
        return LRD_OK;
    cuda_graph_t *g = (cuda_graph_t *)calloc(1, sizeof *g);
    CUDA_CHECK(g != NULL, LRD_ERR_NO_MEMORY, "out of memory");
    g->base = (lrd_graph_t){be, nodes};
    const cudaError_t error = cudaGraphInstantiate(&g->graph, taken, 0);
    if (error != cudaSuccess)
        free(g);
    if (error == cudaErrorMemoryAllocation) {
        char memory[96];
        cudaGetLastError(); /* it has been dealt with */
        describe_memory(memory);
        CUDA_CHECK(false, LRD_ERR_NO_MEMORY,
                   "out of device memory for graphs: one of %zu nodes; %s. Leave it more with "
                   "parallel.max_memory, or do without graphs: LRD_CUDA_GRAPHS=0 on all ranks",
                   nodes, memory);
    }
    CUDA_CALL(error);
    *graph_out = &g->base;
    return LRD_OK;
}

static lrd_status_t cuda_graph_end(lrd_stream_t *st, size_t most_nodes, lrd_graph_t **graph_out)
{
    cudaGraph_t taken = NULL;
    lrd_status_t status = LRD_OK;
    const cudaError_t error = cudaStreamEndCapture(cuda_stream_of(st), &taken);
    if (error != cudaSuccess)
        cudaGetLastError(); /* it is told here, or was when the capture went wrong */
    else if (graph_out != NULL)
        status = instantiate(st->backend, taken, most_nodes, graph_out);
    if (taken != NULL)
        cudaGraphDestroy(taken);
    CUDA_CHECK(graph_out == NULL || error == cudaSuccess, LRD_ERR_DEVICE,
               "CUDA: cudaStreamEndCapture: %s", cudaGetErrorString(error));
    return status;
}

static lrd_status_t cuda_graph_launch(lrd_stream_t *st, lrd_graph_t *graph)
{
    CUDA_CALL(cudaGraphLaunch(((cuda_graph_t *)graph)->graph, cuda_stream_of(st)));
    return LRD_OK;
}

static void cuda_graph_destroy(lrd_graph_t *graph)
{
    cudaGraphExecDestroy(((cuda_graph_t *)graph)->graph);
    free(graph);
}

static void *cuda_stream_native(lrd_stream_t *st)
{
    return cuda_stream_of(st);
}

static lrd_status_t cuda_copy(lrd_stream_t *st, lrd_copydir_t dir, void *dst, const void *src,
                              size_t bytes)
{
    const cudaMemcpyKind kind = dir == LRD_COPY_H2D   ? cudaMemcpyHostToDevice
                                : dir == LRD_COPY_D2H ? cudaMemcpyDeviceToHost
                                                      : cudaMemcpyDeviceToDevice;
    CUDA_CALL(cudaMemcpyAsync(dst, src, bytes, kind, cuda_stream_of(st)));
    return LRD_OK;
}

static lrd_status_t cuda_zero(lrd_stream_t *st, void *dst, size_t bytes)
{
    CUDA_CALL(cudaMemsetAsync(dst, 0, bytes, cuda_stream_of(st)));
    return LRD_OK;
}

static size_t cuda_scratch_bytes(const lrd_backend_t *, const lrd_limits_t *l)
{
    const size_t need[] = {cuda_linear_scratch(l), cuda_attn_scratch(l),
                           cuda_single_attn_scratch(l), cuda_linear_ce_scratch(l),
                           cuda_sample_scratch(l)};
    size_t most = 0;
    for (size_t bytes : need)
        most = bytes > most ? bytes : most;
    return most;
}

static lrd_ops_t make_table()
{
    lrd_ops_t t = {};
    t.name = "cuda";
    t.abi_version = LRD_OPS_ABI_VERSION;
    t.reads_host_memory = false;
    t.has_graphs = wants_graphs();
    t.open = cuda_open;
    t.close = cuda_close;
    t.describe = cuda_describe;
    t.device_id = cuda_device_id;
    t.software = cuda_software;
    t.mem_info = cuda_mem_info;
    t.mem_alloc = cuda_mem_alloc;
    t.mem_free = cuda_mem_free;
    t.stream_create = cuda_stream_create;
    t.stream_destroy = cuda_stream_destroy;
    t.stream_sync = cuda_stream_sync;
    t.stream_wait = cuda_stream_wait;
    t.event_create = cuda_event_create;
    t.event_destroy = cuda_event_destroy;
    t.event_record = cuda_event_record;
    t.event_sync = cuda_event_sync;
    t.event_is_done = cuda_event_is_done;
    t.timer_create = cuda_timer_create;
    t.timer_seconds = cuda_timer_seconds;
    t.graph_begin = cuda_graph_begin;
    t.graph_end = cuda_graph_end;
    t.graph_launch = cuda_graph_launch;
    t.graph_destroy = cuda_graph_destroy;
    t.stream_native = cuda_stream_native;
    t.copy = cuda_copy;
    t.zero = cuda_zero;
    t.scratch_bytes = cuda_scratch_bytes;
    t.kv_cache_bytes = cuda_kv_cache_bytes;
    t.lora_columns = cuda_lora_columns;
    t.tuned = cuda_tuned;
#define OP(name, args) t.name = cuda_##name;
    LRD_OP_LIST(OP)
#undef OP
    return t;
}

const lrd_ops_t *lrd_cuda_ops()
{
    static const lrd_ops_t table = make_table();
    return &table;
}

extern "C" __attribute__((visibility("default"))) const void *lrd_plugin_entry(
    const lrd_plugin_host_t *program)
{
    lrd_plugin_attach(program);
    return lrd_cuda_ops();
}
