#include "comm/watch_link.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CONNECT_MS = 2000, ACCEPT_MS = 10000 };

/* The addresses of this host that others may reach. */
static uint32_t find_addresses(struct in_addr *address)
{
    struct ifaddrs *all = NULL;
    uint32_t n = 0;
    if (getifaddrs(&all) != 0)
        return 0;
    for (const struct ifaddrs *at = all; at != NULL && n < LINK_ADDRESSES; at = at->ifa_next) {
        if (at->ifa_addr != NULL && at->ifa_addr->sa_family == AF_INET &&
            (at->ifa_flags & IFF_UP) != 0 && (at->ifa_flags & IFF_LOOPBACK) == 0)
            address[n++] = ((const struct sockaddr_in *)at->ifa_addr)->sin_addr;
    }
    freeifaddrs(all);
    return n;
}

void link_listen(bool loopback, int backlog, const char *host, int *listener_out,
                 link_invitation_t *invitation_out)
{
    link_invitation_t i = {.n_addresses = 1};
    struct sockaddr_in name = {.sin_family = AF_INET};
    socklen_t size = sizeof name;
    *listener_out = -1;
    *invitation_out = (link_invitation_t){.n_addresses = 0};
    i.address[0].s_addr = htonl(INADDR_LOOPBACK);
    if (!loopback)
        i.n_addresses = find_addresses(i.address);
    name.sin_addr.s_addr = loopback ? htonl(INADDR_LOOPBACK) : htonl(INADDR_ANY);
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || i.n_addresses == 0 ||
        getrandom(i.token, sizeof i.token, 0) != (ssize_t)sizeof i.token ||
        bind(fd, (const struct sockaddr *)&name, size) != 0 || listen(fd, backlog) != 0 ||
        getsockname(fd, (struct sockaddr *)&name, &size) != 0) {
        if (fd >= 0)
            close(fd);
        return;
    }
    i.port = name.sin_port;
    snprintf(i.host, sizeof i.host, "%s", host);
    *invitation_out = i;
    *listener_out = fd;
}

static bool is_ready(int fd, short event, int timeout_ms)
{
    struct pollfd p = {.fd = fd, .events = event};
    return poll(&p, 1, timeout_ms) == 1 && (p.revents & event) != 0;
}

static int connect_to(struct in_addr address, uint16_t port)
{
    const struct sockaddr_in name = {.sin_family = AF_INET, .sin_port = port, .sin_addr = address};
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int failure = 0;
    socklen_t size = sizeof failure;
    if (fd < 0)
        return -1;
    if (connect(fd, (const struct sockaddr *)&name, sizeof name) == 0 ||
        (errno == EINPROGRESS && is_ready(fd, POLLOUT, CONNECT_MS) &&
         getsockopt(fd, SOL_SOCKET, SO_ERROR, &failure, &size) == 0 && failure == 0))
        return fd;
    close(fd);
    return -1;
}

/* Words are small and must not wait for each other. */
static link_t make_link(int fd, int rank, const char *host)
{
    const int one = 1;
    link_t link = {.fd = fd, .rank = rank};
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    snprintf(link.host, sizeof link.host, "%s", host);
    return link;
}

bool link_connect(const link_invitation_t *invitation, int rank, const char *host, link_t *link_out)
{
    link_word_t hello = {.kind = LINK_HELLO, .rank = (uint32_t)rank};
    int fd = -1;
    for (uint32_t i = 0; i < invitation->n_addresses && fd < 0; i++)
        fd = connect_to(invitation->address[i], invitation->port);
    if (fd < 0)
        return false;
    memcpy(hello.token, invitation->token, sizeof hello.token);
    snprintf(hello.host, sizeof hello.host, "%s", host);
    *link_out = make_link(fd, 0, invitation->host);
    link_send(link_out, &hello);
    return true;
}

/* The hello of a connection that may be anyone's. */
static bool receive_hello(link_t *link, const link_invitation_t *invitation)
{
    link_word_t hello;
    while (link->n_in < sizeof hello && is_ready(link->fd, POLLIN, CONNECT_MS)) {
        const link_result_t result = link_receive(link, &hello);
        if (result == LINK_CLOSED)
            return false;
        if (result == LINK_NOTHING)
            continue;
        hello.host[sizeof hello.host - 1] = '\0';
        memcpy(link->host, hello.host, sizeof link->host);
        link->rank = (int)hello.rank;
        return hello.kind == LINK_HELLO &&
               memcmp(hello.token, invitation->token, sizeof hello.token) == 0;
    }
    return false;
}

bool link_accept(int listener, const link_invitation_t *invitation, link_t *link_out)
{
    const double begun = lrd_clock_seconds();
    for (;;) {
        const int left = ACCEPT_MS - (int)((lrd_clock_seconds() - begun) * 1000);
        if (left <= 0 || !is_ready(listener, POLLIN, left))
            return false;
        const int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0)
            continue;
        link_t link = make_link(fd, 0, "");
        if (receive_hello(&link, invitation)) {
            *link_out = link;
            return true;
        }
        link_close(&link);
    }
}

void link_send(link_t *link, const link_word_t *word)
{
    if (link->fd < 0)
        return;
    if (!link->sending) {
        link->out = *word;
        link->n_out = 0;
    }
    link->sending = true;
    while (link->n_out < sizeof link->out) {
        const ssize_t n = send(link->fd, (const char *)&link->out + link->n_out,
                               sizeof link->out - link->n_out, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return; /* no room now, or nobody there: receiving tells */
        link->n_out += (size_t)n;
    }
    link->sending = false;
}

link_result_t link_receive(link_t *link, link_word_t *word_out)
{
    while (link->n_in < sizeof link->in) {
        const ssize_t n = recv(link->fd, (char *)&link->in + link->n_in,
                               sizeof link->in - link->n_in, MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return LINK_NOTHING;
        if (n <= 0)
            return LINK_CLOSED;
        link->n_in += (size_t)n;
    }
    link->n_in = 0;
    *word_out = link->in;
    return LINK_WORD;
}

void link_finish(link_t *link)
{
    if (link->fd >= 0)
        shutdown(link->fd, SHUT_WR);
}

void link_close(link_t *link)
{
    if (link->fd >= 0)
        close(link->fd);
    link->fd = -1;
}
