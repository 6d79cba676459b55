/* The emulated NCCL: every two ranks of a communicator have a socket. A message is a header, which must be the
 * one that the receiver expects, and its bytes. */
#include "nccl.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <vector>

namespace
{
enum call_t : uint32_t { SEND, ALL_GATHER, ALL_REDUCE, BYE };
const char *const call_names[] = {"ncclSend or ncclRecv", "ncclAllGather", "ncclAllReduce",
                                  "ncclCommFinalize"};

struct header_t {
    call_t call;
    uint32_t type;
    uint64_t count;
    double clock; /* the sender's */
};

bool agree(const header_t &a, const header_t &b)
{
    return a.call == b.call && a.type == b.type && a.count == b.count;
}

struct hello_t {
    int rank, size;
    cudaUUID_t device;
};

/* One message, how far it has come, and where its bytes lie here. */
struct transfer_t {
    header_t header, seen;
    unsigned char *data;
    size_t bytes, moved;
};

/* What a call, or a group of calls, does. */
struct operation_t {
    std::vector<std::vector<transfer_t>> out, in; /* by peer, in order */
    std::vector<std::vector<float>> received;     /* of ncclAllReduce, by peer */
    std::function<void()> finish;                 /* once all has arrived */
    cudaStream_t stream;
    long number;
    bool begun, struck;
    explicit operation_t(int size)
        : out(size), in(size), received(size), stream(), number(), begun(false), struck(false)
    {
    }
};

size_t bytes_of(uint32_t type, size_t count)
{
    return count * (type == ncclFloat32 ? 4 : 2);
}
} // namespace

enum { NOBODY = -1, CALLED = -2 };

struct ncclComm {
    int rank, size, listener;
    std::string name;
    hello_t own;
    std::vector<int> peer;    /* sockets, or how far it is */
    std::vector<int> arrived; /* sockets whose rank is not known yet */
    bool connected, left, gone;
    ncclResult_t error;
    std::string words;
    std::shared_ptr<operation_t> asked, leaving; /* not on the stream yet; the end */
    cudaStream_t stream;
    int running;
    int channels;
    std::vector<bool> met; /* [2 size] by messages, by sums and gathers: a connection */
    size_t taken;          /* bytes of the device */
};

namespace
{
std::vector<std::shared_ptr<ncclComm>> comms; /* that are not gone */
std::shared_ptr<operation_t> group;
std::shared_ptr<ncclComm> group_comm;
int group_depth;
long n_operations;
std::string last_words;

std::shared_ptr<ncclComm> find(ncclComm_t comm, const char *call)
{
    for (const auto &c : comms) {
        if (c.get() == comm)
            return c;
    }
    emu_die("%s: a communicator that is gone", call);
}

bool planted(int rank, long number, const char *what)
{
    const char *text = getenv("LRD_EMULATED_NCCL");
    int r, at = 0;
    long n;
    return text != nullptr && sscanf(text, "%d:%ld:%n", &r, &n, &at) == 2 && at > 0 && r == rank &&
           n == number && strcmp(text + at, what) == 0;
}

void fail(ncclComm &c, ncclResult_t error, const std::string &words)
{
    c.error = error;
    c.words = words;
}

socklen_t address_of(const std::string &name, int rank, sockaddr_un *address)
{
    *address = {};
    address->sun_family = AF_UNIX; /* no file: it is gone with the process */
    const int n =
        snprintf(address->sun_path + 1, sizeof address->sun_path - 1, "%s-%d", name.c_str(), rank);
    return (socklen_t)(offsetof(sockaddr_un, sun_path) + 1 + (size_t)n);
}

int new_socket()
{
    return socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

void meet(ncclComm &c, const hello_t &hello, int fd)
{
    c.peer[(size_t)hello.rank] = fd;
    if (hello.size != c.size)
        emu_die("ranks %d and %d disagree on the size: %d and %d", c.rank, hello.rank, c.size,
                hello.size);
    if (memcmp(&hello.device, &c.own.device, sizeof hello.device) == 0)
        fail(c, ncclInvalidUsage,
             "Duplicate GPU detected : rank " + std::to_string(std::min(c.rank, hello.rank)) +
                 " and rank " + std::to_string(std::max(c.rank, hello.rank)));
}

bool hear(int fd, hello_t *hello)
{
    return recv(fd, hello, sizeof *hello, MSG_PEEK) == (ssize_t)sizeof *hello &&
           recv(fd, hello, sizeof *hello, 0) == (ssize_t)sizeof *hello;
}

/* Calls lower ranks, listens for higher ones; each says hello. */
void go_on_connecting(ncclComm &c)
{
    hello_t hello;
    if (planted(c.rank, 0, "hang"))
        return;
    for (int r = 0; r < c.rank; r++) {
        sockaddr_un address;
        const socklen_t length = address_of(c.name, r, &address);
        if (c.peer[(size_t)r] != NOBODY)
            continue;
        const int fd = new_socket();
        if (connect(fd, (const sockaddr *)&address, length) == 0 &&
            send(fd, &c.own, sizeof c.own, MSG_NOSIGNAL) == (ssize_t)sizeof c.own) {
            c.peer[(size_t)r] = CALLED;
            c.arrived.push_back(fd);
        } else {
            close(fd); /* it does not listen yet */
        }
    }
    for (int fd; (fd = accept4(c.listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
        if (send(fd, &c.own, sizeof c.own, MSG_NOSIGNAL) != (ssize_t)sizeof c.own)
            emu_die("rank %d cannot answer a rank that calls", c.rank);
        c.arrived.push_back(fd);
    }
    for (size_t i = 0; i < c.arrived.size();) {
        if (hear(c.arrived[i], &hello)) {
            meet(c, hello, c.arrived[i]);
            c.arrived.erase(c.arrived.begin() + (long)i);
        } else {
            i++;
        }
    }
    c.connected =
        std::count_if(c.peer.begin(), c.peer.end(), [](int fd) { return fd >= 0; }) == c.size - 1;
}

/* Moves bytes while the socket takes or has them; true: the message is complete. */
bool move_bytes(int fd, bool out, transfer_t *t)
{
    const size_t all = sizeof(header_t) + t->bytes;
    while (t->moved < all) {
        const bool head = t->moved < sizeof(header_t);
        unsigned char *at = head ? (unsigned char *)(out ? &t->header : &t->seen) + t->moved
                                 : t->data + (t->moved - sizeof(header_t));
        const size_t n = (head ? sizeof(header_t) : all) - t->moved;
        const ssize_t moved = out ? send(fd, at, n, MSG_NOSIGNAL) : recv(fd, at, n, 0);
        if (moved <= 0)
            return false; /* later; never, where the peer has died */
        t->moved += (size_t)moved;
        if (!out && t->moved == sizeof(header_t) && !agree(t->seen, t->header))
            emu_die("NCCL: ranks do not agree: one calls %s with %llu elements of type %u, another "
                    "one %s with %llu of type %u",
                    call_names[t->header.call], (unsigned long long)t->header.count, t->header.type,
                    call_names[t->seen.call % 4], (unsigned long long)t->seen.count, t->seen.type);
    }
    return true;
}

bool move_all(const ncclComm &c, operation_t *op)
{
    bool done = true;
    for (int r = 0; r < c.size; r++) {
        for (int out = 0; out < 2; out++) {
            for (transfer_t &t : (out != 0 ? op->out : op->in)[(size_t)r]) {
                if (!move_bytes(c.peer[(size_t)r], out != 0, &t)) {
                    done = false;
                    break; /* messages of two ranks keep their order */
                }
            }
        }
    }
    return done;
}

/* Something is planted in this operation: said once, for tests that take the time from there. */
bool strikes(const ncclComm &c, operation_t *op, const char *what)
{
    if (!planted(c.rank, op->number, what))
        return false;
    if (!op->struck)
        fprintf(stderr, "emulated NCCL: rank %d, operation %ld: %s\n", c.rank, op->number, what);
    op->struck = true;
    return true;
}

/* The stream has come to it. */
void stamp(operation_t *op)
{
    for (size_t r = 0; r < op->out.size() && !op->begun; r++) {
        for (transfer_t &t : op->out[r])
            t.header.clock = emu_clock();
    }
    op->begun = true;
}

void wait_for_senders(const operation_t &op)
{
    for (const auto &messages : op.in) {
        for (const transfer_t &t : messages)
            emu_pass_to(t.seen.clock);
    }
}

bool take(ncclComm &c, size_t bytes)
{
    if (!emu_take(bytes))
        return false;
    c.taken += bytes;
    return true;
}

/* Takes memory for each rank that the operation is the first with. */
bool make_connections(ncclComm &c, const operation_t &op, bool collective)
{
    const char *text = getenv("LRD_EMULATED_NCCL_BYTES");
    const size_t each = text != nullptr ? strtoull(text, nullptr, 10) : (size_t)EMU_NCCL_CONNECTION;
    for (int r = 0; r < c.size; r++) {
        const size_t at = (size_t)(r + (collective ? c.size : 0));
        if (c.met[at] || (op.out[(size_t)r].empty() && op.in[(size_t)r].empty()))
            continue;
        if (!take(c, each * (size_t)c.channels))
            return false;
        c.met[at] = true;
    }
    return true;
}

/* The operation as the stream comes to it; true: it is over. */
bool run(ncclComm &c, operation_t *op)
{
    if (c.gone)
        return true;
    if (strikes(c, op, "error"))
        fail(c, ncclRemoteError, "planted: connection closed by a peer");
    if (c.error != ncclSuccess || strikes(c, op, "hang"))
        return false;
    stamp(op);
    const bool done = move_all(c, op);
    if (strikes(c, op, "kill"))
        raise(SIGKILL);
    if (!done)
        return false;
    wait_for_senders(*op);
    if (op->finish)
        op->finish();
    c.running--;
    return true;
}

ncclResult_t refuse(const char *call, const char *why)
{
    last_words = std::string(call) + ": " + why;
    return ncclInvalidArgument;
}

/* The operation that a call belongs to. */
ncclResult_t begin(const char *call, ncclComm_t comm, cudaStream_t stream, operation_t **op_out)
{
    const std::shared_ptr<ncclComm> c = find(comm, call);
    if (!c->connected || c->asked != nullptr || c->leaving != nullptr)
        emu_die("%s: the call before it is not over", call);
    if (c->stream != nullptr && c->stream != stream)
        emu_die("%s: a second stream", call);
    if (group_comm != nullptr && group_comm != c)
        emu_die("%s: a second communicator in a group", call);
    c->stream = stream;
    group_comm = c;
    if (group == nullptr)
        group = std::make_shared<operation_t>(c->size);
    group->stream = stream;
    *op_out = group.get();
    return ncclSuccess;
}

/* Of a group, or of a call outside one: it will be on the stream two questions later. */
ncclResult_t end(bool collective)
{
    if (group_depth > 0 || group == nullptr)
        return ncclSuccess;
    if (!make_connections(*group_comm, *group, collective))
        fail(*group_comm, ncclUnhandledCudaError, "Cuda failure 2 'out of memory'");
    group->number = ++n_operations;
    group_comm->asked = std::move(group);
    group_comm->running++;
    group = nullptr;
    group_comm = nullptr;
    return ncclInProgress;
}

transfer_t message(call_t call, ncclDataType_t type, size_t count, const void *data)
{
    return {{call, (uint32_t)type, count, 0}, {}, (unsigned char *)data, bytes_of(type, count), 0};
}

const char *wrong(ncclDataType_t type, size_t count, const void *data, size_t times)
{
    if (type != ncclFloat16 && type != ncclFloat32 && type != ncclBfloat16)
        return "no such type";
    if (count == 0)
        return "no elements";
    if (!emu_is_device(data, times * bytes_of(type, count)))
        return "not device memory, or beyond its end";
    return nullptr;
}

ncclResult_t point(bool out, const void *data, size_t count, ncclDataType_t type, int peer,
                   ncclComm_t comm, cudaStream_t stream)
{
    operation_t *op;
    const char *call = out ? "ncclSend" : "ncclRecv", *why = wrong(type, count, data, 1);
    begin(call, comm, stream, &op);
    if (why == nullptr && (peer < 0 || peer >= comm->size || peer == comm->rank))
        why = "no such peer";
    if (why != nullptr)
        return refuse(call, why);
    (out ? op->out : op->in)[(size_t)peer].push_back(message(SEND, type, count, data));
    return end(false);
}
} // namespace

const char *ncclGetErrorString(ncclResult_t result)
{
    switch (result) {
    case ncclSuccess:
        return "no error";
    case ncclUnhandledCudaError:
        return "unhandled cuda error (run with NCCL_DEBUG=INFO for details)";
    case ncclSystemError:
        return "unhandled system error (run with NCCL_DEBUG=INFO for details)";
    case ncclInvalidArgument:
        return "invalid argument (run with NCCL_DEBUG=WARN for details)";
    case ncclInvalidUsage:
        return "invalid usage (run with NCCL_DEBUG=WARN for details)";
    case ncclRemoteError:
        return "remote process exited or there was a network error";
    case ncclInProgress:
        break;
    }
    return "NCCL operation in progress";
}

const char *ncclGetLastError(ncclComm_t comm)
{
    return comm != nullptr && comm->error != ncclSuccess ? comm->words.c_str() : last_words.c_str();
}

ncclResult_t ncclGetVersion(int *version)
{
    const char *text = getenv("LRD_EMULATED_NCCL_VERSION");
    *version = text != nullptr ? (int)strtol(text, nullptr, 10) : 22809;
    return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    static int n;
    *id = {};
    snprintf(id->internal, sizeof id->internal, "lrd-nccl-%d-%d", (int)getpid(), n++);
    if (!planted(-1, 0, "error"))
        return ncclSuccess;
    last_words = "planted: no socket interface found";
    return ncclSystemError;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int size, ncclUniqueId id, int rank,
                                    ncclConfig_t *config)
{
    sockaddr_un address;
    cudaDeviceProp device;
    int index;
    if (config->magic != 0xcafebeef || config->blocking != 0)
        emu_die("a blocking communicator, which is not emulated");
    if (planted(rank, 0, "error")) {
        last_words = "planted: no memory";
        return ncclSystemError;
    }
    if (cudaGetDevice(&index) != cudaSuccess ||
        cudaGetDeviceProperties(&device, index) != cudaSuccess)
        return refuse("ncclCommInitRankConfig", "no device");
    const auto c = std::make_shared<ncclComm>();
    c->rank = rank;
    c->size = size;
    c->name = id.internal;
    c->own = {rank, size, device.uuid};
    c->peer.assign((size_t)size, NOBODY);
    c->channels = config->maxCTAs;
    c->met.assign(2 * (size_t)size, false);
    if (!take(*c, EMU_NCCL_OPEN)) {
        last_words = "Failed to CUDA calloc 262144 bytes";
        return ncclUnhandledCudaError;
    }
    c->listener = new_socket();
    const socklen_t length = address_of(c->name, rank, &address);
    if (bind(c->listener, (const sockaddr *)&address, length) != 0 ||
        listen(c->listener, size) != 0)
        emu_die("rank %d cannot listen: %s", rank, strerror(errno));
    c->connected = size == 1;
    comms.push_back(c);
    *comm = c.get();
    return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *state)
{
    const std::shared_ptr<ncclComm> c = find(comm, "ncclCommGetAsyncError");
    bool ready = true;
    if (!c->connected) {
        go_on_connecting(*c);
        ready = c->connected;
    } else if (c->asked != nullptr) {
        const std::shared_ptr<operation_t> op = std::move(c->asked);
        c->asked = nullptr;
        emu_enqueue_until(op->stream, [=] { return run(*c, op.get()); });
        ready = false;
    } else if (c->leaving != nullptr && !c->left) {
        c->left = move_all(*c, c->leaving.get());
        ready = c->left;
    }
    *state = c->error != ncclSuccess ? c->error : ready ? ncclSuccess : ncclInProgress;
    return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm)
{
    const std::shared_ptr<ncclComm> c = find(comm, "ncclCommFinalize");
    if (c->asked != nullptr || c->running > 0 || c->leaving != nullptr)
        emu_die("ncclCommFinalize: %d operations are not over", c->running);
    c->leaving = std::make_shared<operation_t>(c->size);
    for (int r = 0; r < c->size; r++) {
        if (r == c->rank)
            continue;
        c->leaving->out[(size_t)r].push_back(message(BYE, ncclFloat32, 0, nullptr));
        c->leaving->in[(size_t)r].push_back(message(BYE, ncclFloat32, 0, nullptr));
    }
    return ncclInProgress;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    if (!find(comm, "ncclCommDestroy")->left)
        emu_die("ncclCommDestroy: ncclCommFinalize is not over");
    return ncclCommAbort(comm);
}

ncclResult_t ncclCommAbort(ncclComm_t comm)
{
    const std::shared_ptr<ncclComm> c = find(comm, "ncclCommAbort");
    c->gone = true;
    emu_give_back(c->taken);
    last_words = c->words;
    for (const int fd : c->peer) {
        if (fd >= 0)
            close(fd);
    }
    for (const int fd : c->arrived)
        close(fd);
    close(c->listener);
    comms.erase(std::find(comms.begin(), comms.end(), c));
    return ncclSuccess;
}

ncclResult_t ncclGroupStart()
{
    group_depth++;
    return ncclSuccess;
}

ncclResult_t ncclGroupEnd()
{
    group_depth--;
    return end(false);
}

ncclResult_t ncclSend(const void *data, size_t count, ncclDataType_t type, int peer,
                      ncclComm_t comm, cudaStream_t stream)
{
    return point(true, data, count, type, peer, comm, stream);
}

ncclResult_t ncclRecv(void *data, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream)
{
    return point(false, data, count, type, peer, comm, stream);
}

ncclResult_t ncclAllGather(const void *mine, void *all, size_t count, ncclDataType_t type,
                           ncclComm_t comm, cudaStream_t stream)
{
    operation_t *op;
    begin("ncclAllGather", comm, stream, &op);
    const char *why = wrong(type, count, mine, 1);
    if (why == nullptr)
        why = wrong(type, count, all, (size_t)comm->size);
    if (why != nullptr)
        return refuse("ncclAllGather", why);
    const size_t bytes = bytes_of(type, count);
    for (int r = 0; r < comm->size; r++) {
        if (r == comm->rank)
            continue;
        op->out[(size_t)r].push_back(message(ALL_GATHER, type, count, mine));
        op->in[(size_t)r].push_back(
            message(ALL_GATHER, type, count, (unsigned char *)all + (size_t)r * bytes));
    }
    unsigned char *own = (unsigned char *)all + (size_t)comm->rank * bytes;
    op->finish = [=] { memmove(own, mine, bytes); };
    return end(true);
}

/* In the order of the ranks, which is one of many that NCCL may take. */
ncclResult_t ncclAllReduce(const void *from, void *to, size_t count, ncclDataType_t type,
                           ncclRedOp_t, ncclComm_t comm, cudaStream_t stream)
{
    operation_t *op;
    begin("ncclAllReduce", comm, stream, &op);
    const char *why = wrong(type, count, from, 1);
    if (why == nullptr)
        why = wrong(type, count, to, 1);
    if (why != nullptr || type != ncclFloat32)
        return refuse("ncclAllReduce", why != nullptr ? why : "only float32 is emulated");
    for (int r = 0; r < comm->size; r++) {
        if (r == comm->rank)
            continue;
        op->received[(size_t)r].resize(count);
        op->out[(size_t)r].push_back(message(ALL_REDUCE, type, count, from));
        op->in[(size_t)r].push_back(
            message(ALL_REDUCE, type, count, op->received[(size_t)r].data()));
    }
    const int rank = comm->rank, size = comm->size;
    op->finish = [=] {
        std::vector<float> sum(count, 0.0f);
        for (int r = 0; r < size; r++) {
            const float *x = r == rank ? (const float *)from : op->received[(size_t)r].data();
            for (size_t i = 0; i < count; i++)
                sum[i] += x[i];
        }
        memcpy(to, sum.data(), count * sizeof(float));
    };
    return end(true);
}
