/* comm/watch_link.h -- a TCP connection between rank 0 and another rank, and the words on it.
 * Private to src/comm. Both ends are the same program on the same kind of machine. */
#ifndef LRD_COMM_WATCH_LINK_H
#define LRD_COMM_WATCH_LINK_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { LINK_TOKEN = 16, LINK_ADDRESSES = 32, LINK_HOST = 64 };

typedef enum link_kind {
    LINK_HELLO,  /* who I am */
    LINK_BEAT,   /* how I am */
    LINK_ENDING, /* I have said why the job ends, and end it */
    LINK_BYE     /* I am done */
} link_kind_t;

typedef struct link_word {
    uint32_t kind, rank;
    uint64_t beats;
    uint8_t waiting, stop, unused[6];
    uint8_t token[LINK_TOKEN]; /* of a hello */
    char host[LINK_HOST];
} link_word_t;

typedef struct link {
    int fd; /* -1: closed */
    int rank;
    char host[LINK_HOST]; /* of the other end */
    link_word_t in, out;  /* under way */
    size_t n_in, n_out;   /* bytes of them that are done */
    bool sending;
} link_t;

/* Where rank 0 can be reached; what the others show to be let in. Addresses of IPv4 are written as
 * IPv6 writes them (::ffff:10.0.0.1). */
typedef struct link_invitation {
    uint32_t n_addresses; /* 0: nowhere */
    struct in6_addr address[LINK_ADDRESSES];
    uint16_t port; /* network order */
    uint8_t token[LINK_TOKEN];
    char host[LINK_HOST];
} link_invitation_t;

/* Listens where only this host can come (alone), or everywhere, over IPv4 and IPv6 as this host has them;
 * *listener_out is -1, and the invitation without an address, where that is not possible. */
void link_listen(bool alone, int backlog, const char *host, int *listener_out,
                 link_invitation_t *invitation_out);

/* Both wait for a few seconds at most, connecting at each address; false: nobody came, or nobody is
 * there. */
bool link_connect(const link_invitation_t *invitation, int rank, const char *host,
                  link_t *link_out);
bool link_accept(int listener, const link_invitation_t *invitation, link_t *link_out);

/* Neither waits. A word is dropped while the one before it is still on its way. */
void link_send(link_t *link, const link_word_t *word);
typedef enum link_result { LINK_NOTHING, LINK_WORD, LINK_CLOSED } link_result_t;
link_result_t link_receive(link_t *link, link_word_t *word_out);

void link_finish(link_t *link); /* nothing more will be sent */
void link_close(link_t *link);  /* twice is fine */

#endif /* LRD_COMM_WATCH_LINK_H */
