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

static struct in6_addr mapped(struct in_addr address)
{
    struct in6_addr m = {.s6_addr = {[10] = 0xff, [11] = 0xff}};
    memcpy(m.s6_addr + 12, &address, sizeof address);
    return m;
}

/* Of IPv4, of IPv6. */
static struct in6_addr loopback(int k)
{
    return k == 0 ? mapped((struct in_addr){htonl(INADDR_LOOPBACK)}) : in6addr_loopback;
}

/* The addresses of this host that others may reach. One of a link alone says nothing elsewhere. */
static uint32_t find_addresses(struct in6_addr *address)
{
    struct ifaddrs *all = NULL;
    uint32_t n = 0;
    if (getifaddrs(&all) != 0)
        return 0;
    for (const struct ifaddrs *at = all; at != NULL && n < LINK_ADDRESSES; at = at->ifa_next) {
        const struct sockaddr *name = at->ifa_addr;
        if (name == NULL || (at->ifa_flags & IFF_UP) == 0 || (at->ifa_flags & IFF_LOOPBACK) != 0)
            continue;
        if (name->sa_family == AF_INET)
            address[n++] = mapped(((const struct sockaddr_in *)name)->sin_addr);
        else if (name->sa_family == AF_INET6 &&
                 !IN6_IS_ADDR_LINKLOCAL(&((const struct sockaddr_in6 *)name)->sin6_addr))
            address[n++] = ((const struct sockaddr_in6 *)name)->sin6_addr;
    }
    freeifaddrs(all);
    return n;
}

/* A name that sockets know: of IPv6, or of IPv4 where the address is one. */
typedef union socket_name {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
} socket_name_t;

static socket_name_t name_of(struct in6_addr address, uint16_t port, socklen_t *size_out)
{
    socket_name_t name = {.v6 = {.sin6_family = AF_INET6, .sin6_port = port}};
    *size_out = sizeof name.v6;
    name.v6.sin6_addr = address;
    if (IN6_IS_ADDR_V4MAPPED(&address)) {
        name = (socket_name_t){.v4 = {.sin_family = AF_INET, .sin_port = port}};
        *size_out = sizeof name.v4;
        memcpy(&name.v4.sin_addr, address.s6_addr + 12, sizeof name.v4.sin_addr);
    }
    return name;
}

static int open_socket(int family)
{
    return socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

/* A socket that listens at an address; -1: that is not possible. */
static int listen_at(struct in6_addr address, int backlog, uint16_t *port_out)
{
    const int no = 0;
    socklen_t size;
    socket_name_t name = name_of(address, 0, &size);
    const int fd = open_socket(name.any.sa_family);
    if (name.any.sa_family == AF_INET6) /* of all addresses, those of IPv4 too */
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no);
    if (fd >= 0 && bind(fd, &name.any, size) == 0 && listen(fd, backlog) == 0 &&
        getsockname(fd, &name.any, &size) == 0) {
        *port_out = name.any.sa_family == AF_INET6 ? name.v6.sin6_port : name.v4.sin_port;
        return fd;
    }
    if (fd >= 0)
        close(fd);
    return -1;
}

void link_listen(bool alone, int backlog, const char *host, int *listener_out,
                 link_invitation_t *invitation_out)
{
    const struct in6_addr everywhere[] = {in6addr_any, mapped((struct in_addr){INADDR_ANY})};
    link_invitation_t i = {.n_addresses = 0};
    int fd = -1;
    for (int k = 0; k < 2 && fd < 0; k++) {
        i.address[0] = loopback(k);
        fd = listen_at(alone ? loopback(k) : everywhere[k], backlog, &i.port);
    }
    i.n_addresses = alone ? 1 : find_addresses(i.address);
    snprintf(i.host, sizeof i.host, "%s", host);
    if (fd >= 0 &&
        (i.n_addresses == 0 || getrandom(i.token, sizeof i.token, 0) != (ssize_t)sizeof i.token)) {
        close(fd);
        fd = -1;
    }
    *listener_out = fd;
    *invitation_out = fd >= 0 ? i : (link_invitation_t){.n_addresses = 0};
}

static bool is_ready(int fd, short event, int timeout_ms)
{
    struct pollfd p = {.fd = fd, .events = event};
    return poll(&p, 1, timeout_ms) == 1 && (p.revents & event) != 0;
}

static int connect_to(struct in6_addr address, uint16_t port)
{
    socklen_t name_size, size = sizeof(int);
    const socket_name_t name = name_of(address, port, &name_size);
    const int fd = open_socket(name.any.sa_family);
    int failure = 0;
    if (fd < 0)
        return -1;
    if (connect(fd, &name.any, name_size) == 0 ||
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
    /* On one host nothing of the network is needed, whatever becomes of it later. */
    for (int k = 0; k < 2 && fd < 0 && strcmp(host, invitation->host) == 0; k++)
        fd = connect_to(loopback(k), invitation->port);
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
