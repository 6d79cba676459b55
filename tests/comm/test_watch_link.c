/* Connections between ranks, over whatever addresses this host has; hosts_test.sh runs this where
 * there is only IPv4, and only IPv6. Oracle: what was sent. */
#include "support/test_support.h"

#include "comm/watch_link.h"

#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

enum { BACKLOG = 4 };

typedef struct guest {
    const link_invitation_t *invitation;
    link_t link;
    bool connected;
} guest_t;

static void *visit(void *arg)
{
    guest_t *g = arg;
    g->connected = link_connect(g->invitation, 3, "guest", &g->link);
    return NULL;
}

/* A guest comes to one of the invitation's addresses, and says how it is. */
static void meet(int listener, const link_invitation_t *invitation)
{
    const link_word_t sent = {.kind = LINK_BEAT, .rank = 3, .beats = 77, .waiting = 1};
    guest_t guest = {.invitation = invitation, .link = {.fd = -1}};
    link_t host = {.fd = -1};
    link_word_t got;
    link_result_t result;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, visit, &guest), 0);
    const bool came = link_accept(listener, invitation, &host);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(came && guest.connected);
    assert_int_equal(host.rank, 3);
    assert_string_equal(host.host, "guest");
    assert_string_equal(guest.link.host, "host");
    link_send(&guest.link, &sent);
    while ((result = link_receive(&host, &got)) == LINK_NOTHING)
        sched_yield();
    assert_int_equal(result, LINK_WORD);
    assert_memory_equal(&got, &sent, sizeof sent);
    link_close(&guest.link);
    while ((result = link_receive(&host, &got)) == LINK_NOTHING)
        sched_yield();
    assert_int_equal(result, LINK_CLOSED);
    link_close(&host);
}

/* On one host the addresses are not needed. */
static void test_same_host(void **state)
{
    (void)state;
    link_invitation_t invitation;
    link_t guest = {.fd = -1}, host = {.fd = -1};
    int listener;
    link_listen(false, BACKLOG, "host", &listener, &invitation);
    if (listener < 0)
        skip(); /* no network here */
    invitation.n_addresses = 0;
    assert_false(link_connect(&invitation, 3, "guest", &guest));
    assert_true(link_connect(&invitation, 3, "host", &guest));
    assert_true(link_accept(listener, &invitation, &host));
    link_close(&guest);
    link_close(&host);
    close(listener);
}

static void test_loopback(void **state)
{
    (void)state;
    link_invitation_t invitation;
    int listener;
    link_listen(true, BACKLOG, "host", &listener, &invitation);
    assert_true(listener >= 0);
    assert_int_equal(invitation.n_addresses, 1);
    meet(listener, &invitation);
    close(listener);
}

/* Each of the addresses, and behind one where nobody is. */
static void test_every_address(void **state)
{
    (void)state;
    link_invitation_t all, one;
    int listener, n[2] = {0};
    link_listen(false, BACKLOG, "host", &listener, &all);
    if (listener < 0)
        skip(); /* no network here */
    for (uint32_t i = 0; i < all.n_addresses; i++) {
        one = all;
        one.n_addresses = 1;
        one.address[0] = all.address[i];
        assert_false(IN6_IS_ADDR_LINKLOCAL(&one.address[0]));
        n[IN6_IS_ADDR_V4MAPPED(&one.address[0]) ? 0 : 1]++;
        meet(listener, &one);
        one.n_addresses = 3;
        one.address[0] = (struct in6_addr){.s6_addr = {0x20, 0x01, 0x0d, 0xb8, [15] = 1}};
        one.address[1] = (struct in6_addr){.s6_addr = {[10] = 0xff, 0xff, 127, 93, 0, 1}};
        one.address[2] = all.address[i];
        meet(listener, &one);
    }
    print_message("%d addresses of IPv4, %d of IPv6\n", n[0], n[1]);
    close(listener);
}

/* Whoever does not know the token is sent away, and the next one let in. */
static void test_strangers(void **state)
{
    (void)state;
    link_invitation_t invitation, forged;
    link_t stranger = {.fd = -1};
    int listener;
    link_listen(true, BACKLOG, "host", &listener, &invitation);
    assert_true(listener >= 0);
    forged = invitation;
    forged.token[LINK_TOKEN - 1] ^= 1;
    assert_true(link_connect(&forged, 3, "guest", &stranger));
    meet(listener, &invitation);
    link_close(&stranger);
    close(listener);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loopback),
        cmocka_unit_test(test_same_host),
        cmocka_unit_test(test_every_address),
        cmocka_unit_test(test_strangers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
