/*
 * conn: what a side said before it reset its connection goes on to the other side, also where the
 * proxy learns of the reset by writing. Once a refusal (400) became an empty answer, under load:
 * the refuser had answered and gone while bytes for it were still on their way. So the worker is
 * held until both are there, the bytes for the one that went first, and then let go.
 */
#include "conn_priv.h"
#include "conn_world.h"

#include <errno.h>
#include <poll.h>
#include <postern/os.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

static const char ALLOW[] = "kind: Policy\nlevel: 1\nrules:\n  - name: client-may\n"
                            "    action: ALLOW\n    from:\n"
                            "      - principals: [\"spiffe://a.b/client\"]\n";

/* --- a worker that waits ---------------------------------------------------------------------- */

struct hold {
    struct loop_mail mail; /* first */
    int held, go;
};

static void tell(int fd)
{
    const uint64_t one = 1;
    assert_int_equal(write(fd, &one, sizeof(one)), sizeof(one));
}

static void wait_until(int fd, short events)
{
    struct pollfd p = {.fd = fd, .events = events};
    assert_int_equal(poll(&p, 1, WAIT_MS), 1);
    assert_true((p.revents & events) != 0);
}

static void on_hold(struct loop_mail *m)
{
    const struct hold *h = (const struct hold *)m;
    tell(h->held);
    struct pollfd p = {.fd = h->go, .events = POLLIN};
    (void)poll(&p, 1, WAIT_MS);
}

/* From now on its connections are the test's to look at. */
static void hold(struct hold *h, struct side *s)
{
    *h = (struct hold){.mail.fn = on_hold, .held = eventfd(0, 0), .go = eventfd(0, 0)};
    loop_post(s->worker->loop, &h->mail);
    wait_until(h->held, POLLIN);
}

static void let_go(struct hold *h)
{
    tell(h->go);
}

static void hold_deinit(struct hold *h)
{
    close(h->held);
    close(h->go);
}

/* --- the cases -------------------------------------------------------------------------------- */

/* A connection on which the workload has "unread" waiting, which makes its close a reset. */
static int connected(struct world *w, int *ret_workload)
{
    int c = dial(w->port);
    int s = take(w);
    say(c, "x");
    hear(s, "x");
    say(s, "y"); /* the way back stands as well */
    hear(c, "y");
    say(c, "unread");
    wait_until(s, POLLIN);
    *ret_workload = s;
    return c;
}

/* Until the kernel knows of a reset on that descriptor, or of an end. */
static void wait_end(int fd)
{
    wait_until(fd, POLLHUP | POLLERR | POLLRDHUP);
}

/* By a workload over plain TCP (the server's side is held), and by a proxy over TLS (the client's).
 */
static void test_answer_before_reset(void **state)
{
    (void)state;
    for (int tls = 0; tls < 2; tls++) {
        struct world *w = world_new_explicit("tcp", ALLOW, true);
        struct side *side = tls == 1 ? &w->client : &w->server;
        struct hold h;
        int s = -1;
        int c = connected(w, &s);
        hold(&h, side);
        struct conn *held = side->worker->conns;
        assert_non_null(held);
        assert_null(held->next);
        say(c, "more");
        wait_until(conn_downstream(held)->s.fd, POLLIN); /* first in the worker's queue */
        say(s, "400 no, and why");
        close(s);
        wait_end(conn_upstream(held)->s.fd);
        let_go(&h);
        hear(c, "400 no, and why");
        hear_reset(c);
        log_line(side, "\"connection\"", "upstream_reset");
        hold_deinit(&h);
        world_free(w);
    }
}

/* One that has ended its direction before it went ends in order for the other side, too. */
static void test_answer_and_end_before_reset(void **state)
{
    (void)state;
    struct world *w = world_new_explicit("tcp", ALLOW, true);
    struct hold h;
    int s = -1;
    int c = connected(w, &s);
    hold(&h, &w->server);
    struct conn *held = w->server.worker->conns;
    say(c, "more");
    wait_until(conn_downstream(held)->s.fd, POLLIN);
    say(s, "400 no, and why");
    shutdown(s, SHUT_WR);
    wait_until(conn_upstream(held)->s.fd, POLLRDHUP);
    close(s);
    wait_until(conn_upstream(held)->s.fd, POLLERR | POLLHUP);
    let_go(&h);
    hear(c, "400 no, and why");
    hear_end(c);
    say(c, "still there"); /* read away */
    close(c);
    log_line(&w->server, "\"connection\"", "upstream_reset");
    hold_deinit(&h);
    world_free(w);
}

/* Who goes on for ever is not listened to for ever, and nor is one that says nothing. */
static void test_bounded(void **state)
{
    (void)state;
    static const char piece[1024] = {'z'};
    for (int silent = 0; silent < 2; silent++) {
        struct world *w = world_new_explicit("tcp", ALLOW, true);
        struct hold h;
        int s = -1;
        int c = connected(w, &s);
        hold(&h, &w->server);
        struct conn *held = w->server.worker->conns;
        say(c, "more");
        wait_until(conn_downstream(held)->s.fd, POLLIN);
        say(s, "no");
        shutdown(s, SHUT_WR);
        wait_until(conn_upstream(held)->s.fd, POLLRDHUP);
        close(s);
        wait_until(conn_upstream(held)->s.fd, POLLERR | POLLHUP);
        let_go(&h);
        hear(c, "no");
        ssize_t n = 1;
        while (silent == 0 && n > 0) {
            n = send(c, piece, sizeof(piece), MSG_NOSIGNAL);
        }
        log_line(&w->server, "\"connection\"", "upstream_reset");
        close(c);
        hold_deinit(&h);
        world_free(w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answer_before_reset),
        cmocka_unit_test(test_answer_and_end_before_reset),
        cmocka_unit_test(test_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
