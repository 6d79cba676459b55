/* The emulated NCCL itself: what ranks may not do ends the program with a message, or is refused in NCCL's
 * words. That it moves the right data is tests/comm/test_devcomm's. Ranks are processes of this test. */
#include "nccl.h"

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

static int failures;

struct rank_t {
    int rank;
    ncclComm_t comm;
    cudaStream_t stream;
    float *data; /* device, 8 of them */
};

static ncclResult_t settle(ncclComm_t comm)
{
    ncclResult_t state = ncclInProgress;
    for (int i = 0; i < 20000 && state == ncclInProgress; i++) {
        ncclCommGetAsyncError(comm, &state);
        usleep(state == ncclInProgress ? 100 : 0);
    }
    return state;
}

/* Two ranks do it, and wait for their streams. What they say comes back; 0: both ended in order. */
static int run(const std::function<void(const rank_t &)> &act, std::string *said)
{
    ncclUniqueId id;
    int ends[2], code = 0;
    char text[512];
    ncclGetUniqueId(&id);
    if (pipe(ends) != 0)
        return 1;
    for (int rank = 0; rank < 2; rank++) {
        if (fork() != 0)
            continue;
        rank_t r = {rank, nullptr, nullptr, nullptr};
        ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
        config.blocking = 0;
        dup2(ends[1], STDERR_FILENO);
        alarm(10); /* where the other one is gone */
        cudaSetDevice(rank);
        cudaStreamCreateWithFlags(&r.stream, cudaStreamNonBlocking);
        cudaMalloc((void **)&r.data, 8 * sizeof(float));
        if (ncclCommInitRankConfig(&r.comm, 2, id, rank, &config) != ncclInProgress ||
            settle(r.comm) != ncclSuccess)
            _exit(2);
        act(r);
        cudaStreamSynchronize(r.stream);
        _exit(0);
    }
    close(ends[1]);
    for (ssize_t n; (n = read(ends[0], text, sizeof text)) > 0;)
        said->append(text, (size_t)n);
    close(ends[0]);
    for (int status, rank = 0; rank < 2; rank++) {
        wait(&status);
        code |= status;
    }
    return code;
}

static void expect(bool condition, const char *what, const std::string &said = "")
{
    failures += condition ? 0 : 1;
    printf("%s: %s%s%s\n", condition ? "ok" : "FAILED", what, condition ? "" : ": it said ",
           condition ? "" : said.c_str());
}

static void expect_death(const char *what, const std::function<void(const rank_t &)> &act,
                         const char *text)
{
    std::string said;
    const int code = run(act, &said);
    expect(code != 0 && said.find(text) != std::string::npos, what, said);
}

static void send_or_receive(const rank_t &r, size_t n, size_t m, ncclDataType_t type)
{
    if (r.rank == 0)
        ncclSend(r.data, n, ncclFloat32, 1, r.comm, r.stream);
    else
        ncclRecv(r.data, m, type, 0, r.comm, r.stream);
    settle(r.comm);
}

static void check_mistakes()
{
    expect_death(
        "counts that differ", [](const rank_t &r) { send_or_receive(r, 4, 5, ncclFloat32); },
        "ranks do not agree");
    expect_death(
        "types that differ", [](const rank_t &r) { send_or_receive(r, 4, 4, ncclFloat16); },
        "ranks do not agree");
    expect_death(
        "another order of calls",
        [](const rank_t &r) {
            for (int i = 0; i < 2; i++) {
                if (i == r.rank)
                    ncclAllGather(r.data, r.data + 2, 2, ncclFloat32, r.comm, r.stream);
                else
                    ncclAllReduce(r.data, r.data, 2, ncclFloat32, ncclSum, r.comm, r.stream);
                settle(r.comm);
            }
        },
        "ranks do not agree");
    expect_death(
        "a call before the last one is over",
        [](const rank_t &r) {
            for (int i = 0; i < 2; i++)
                ncclAllReduce(r.data, r.data, 2, ncclFloat32, ncclSum, r.comm, r.stream);
        },
        "is not over");
    expect_death(
        "a second stream",
        [](const rank_t &r) {
            cudaStream_t other;
            cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking);
            ncclAllReduce(r.data, r.data, 2, ncclFloat32, ncclSum, r.comm, r.stream);
            settle(r.comm);
            ncclAllReduce(r.data, r.data, 2, ncclFloat32, ncclSum, r.comm, other);
        },
        "a second stream");
    expect_death(
        "a communicator that is gone",
        [](const rank_t &r) {
            ncclCommAbort(r.comm);
            ncclAllReduce(r.data, r.data, 2, ncclFloat32, ncclSum, r.comm, r.stream);
        },
        "is gone");
    expect_death(
        "an end before the work is over",
        [](const rank_t &r) {
            ncclAllReduce(r.data, r.data, 2, ncclFloat32, ncclSum, r.comm, r.stream);
            settle(r.comm);
            ncclCommFinalize(r.comm);
        },
        "are not over");
    expect_death(
        "destroyed before the end", [](const rank_t &r) { ncclCommDestroy(r.comm); },
        "ncclCommFinalize is not over");
}

int main()
{
    std::string said;
    setenv("LRD_EMULATED_DEVICES", "2", 1);
    expect(run([](const rank_t &r) { send_or_receive(r, 4, 4, ncclFloat32); }, &said) == 0,
           "a message", said);
    expect(run(
               [](const rank_t &r) {
                   float host[8] = {};
                   if (ncclSend(host, 8, ncclFloat32, 1 - r.rank, r.comm, r.stream) !=
                           ncclInvalidArgument ||
                       ncclSend(r.data, 9, ncclFloat32, 1 - r.rank, r.comm, r.stream) !=
                           ncclInvalidArgument ||
                       ncclSend(r.data, 8, ncclNumTypes, 1 - r.rank, r.comm, r.stream) !=
                           ncclInvalidArgument ||
                       ncclSend(r.data, 8, ncclFloat32, 2, r.comm, r.stream) != ncclInvalidArgument)
                       _exit(3);
               },
               &said) == 0,
           "host memory, too much, no type and no peer are refused", said);
    check_mistakes();
    return failures > 0 ? 1 : 0;
}
