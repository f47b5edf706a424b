/* A change that takes many connections away: so many are cut in one turn and no more, and whoever
 * is still to be cut moves nothing. A worker that does not run, driven by the test. */
#include "conn_priv.h"

#include "hbone_world.h"
#include "index_look.h"
#include <sys/socket.h>

enum { ALL = 5000, REVOKED = 250 };

static const char BOTH[] =
    "kind: Policy\nlevel: 1\nrules:\n"
    "  - {name: ours, action: ALLOW, from: [{ip_blocks: [10.1.0.0/16]}]}\n"
    "  - {name: theirs, action: ALLOW, from: [{ip_blocks: [10.2.0.0/16]}]}\n";
static const char OURS[] = "kind: Policy\nlevel: 1\nrules:\n"
                           "  - {name: ours, action: ALLOW, from: [{ip_blocks: [10.1.0.0/16]}]}\n";

/* One that pumps, from 10.1 or 10.2; its ends, where it has some. */
static struct conn *make(struct conn_worker *w, bool theirs, unsigned i, int ret_ends[2])
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(80)};
    struct net_addr source;
    int down[2] = {-1, -1}, up[2] = {-1, -1};
    in.sin_addr.s_addr = htonl((theirs ? 0x0a020000U : 0x0a010000U) + i);
    assert_true(net_addr_from((const struct sockaddr *)&in, sizeof(in), &source));
    if (ret_ends != NULL) {
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, down), 0);
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, up), 0);
        ret_ends[0] = down[1];
        ret_ends[1] = up[1];
    }
    struct conn *c = conn_new(w, 0, down[0], &source);
    assert_non_null(c);
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_true(net_addr_from((const struct sockaddr *)&in, sizeof(in), &c->original));
    conn_set_state(c, CONN_HANDSHAKE);
    assert_true(conn_judge(c));
    if (ret_ends != NULL) {
        stream_plain_init(&c->app.s, &w->scratch, up[0]);
        assert_true(conn_leg_watch(c, &c->app) && conn_leg_watch(c, &c->peer));
        conn_pump_start(c);
    } else {
        conn_set_state(c, CONN_PUMP);
    }
    return c;
}

static void say_to(struct conn *c, int end)
{
    assert_int_equal(send(end, "secret", 6, 0), 6);
    c->peer.ready |= LOOP_READ;
    conn_drive(c);
}

static uint64_t cut(struct conn_worker *w)
{
    return atomic_load(&w->counters.rejudged_closed);
}

static void test_slices(void **state)
{
    (void)state;
    struct world *w = world_new("tcp", BOTH);
    struct side *s = &w->server;
    int mine[2], last[2];
    char got[8];
    conn_worker_stop(s->worker);
    struct conn_worker *worker = s->worker;
    /* Whoever came first is looked at last. */
    struct conn *revoked = make(worker, true, 0, last);
    struct conn *other = make(worker, false, 0, mine);
    for (unsigned i = 1; i < ALL - 1; i++) {
        (void)make(worker, i < REVOKED, i, NULL);
    }
    uint64_t judged = atomic_load(&worker->counters.rejudged);
    write_file(s->dir, "policy.yaml", OURS);
    load(w, s);
    struct worker_snapshot *before = worker->current;
    worker->current = mem_must_new(struct worker_snapshot);
    worker->current->snapshot =
        snapshot_new(++s->generation, &(const struct snapshot_parts){.files = s->files,
                                                                     .identity = s->identity,
                                                                     .before = before->snapshot});
    worker->current->uses = 1;
    worker_concern(worker, before->snapshot->generation);
    conn_release_snapshot(worker, before);
    assert_true(cut(worker) <= CONN_CUTS_A_TURN);
    /* Its turn has not come, and yet: not a byte. */
    assert_false(revoked->closing);
    assert_int_equal(live_rank_of(worker->live, revoked->live), LIVE_CHANGED);
    say_to(revoked, last[0]);
    assert_true(revoked->closing);
    assert_int_equal(revoked->reason, CONN_CLOSE_POLICY_CHANGED);
    assert_int_equal(recv(last[1], got, sizeof(got), 0), 0);
    /* Others are not held up by it. */
    say_to(other, mine[0]);
    assert_int_equal(recv(mine[1], got, sizeof(got), 0), 6);
    unsigned turns = 1;
    uint64_t now = cut(worker);
    while (worker->rejudge_timer.due_ms != 0) {
        loop_timer_disarm(&worker->rejudge_timer);
        worker_rejudge(worker);
        assert_true(cut(worker) - now <= CONN_CUTS_A_TURN);
        now = cut(worker);
        assert_true(++turns < ALL);
    }
    assert_int_equal(now, REVOKED);
    assert_true(turns >= REVOKED / CONN_CUTS_A_TURN);
    /* Those whom it does not concern were not judged, and all go by what is in force. */
    assert_int_equal(atomic_load(&worker->counters.rejudged) - judged, REVOKED);
    size_t n = 0;
    for (struct conn *c = worker->conns; c != NULL; c = c->next) {
        assert_ptr_equal(c->snap, worker->current);
        n++;
    }
    assert_int_equal(n, ALL - REVOKED);
    close(last[0]);
    close(last[1]);
    world_free(w);
    close(mine[0]);
    close(mine[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slices),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
