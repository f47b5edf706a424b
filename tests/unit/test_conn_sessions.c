/* Which session a stream takes, in the moment between a change and the turn of whom it concerns;
 * and how many that were held go on in one turn. A worker that does not run, driven by the test. */
#include "conn_priv.h"

#include "hbone_world.h"
#include <sys/socket.h>

static const char NOBODY[] = "kind: Policy\nlevel: 1\nrules: []\n";

/* In force, and nobody was looked at yet. */
static void swap(struct conn_worker *w, struct side *s, bool quarantined)
{
    struct snapshot *next =
        snapshot_new(++s->generation, &(const struct snapshot_parts){.files = s->files,
                                                                     .identity = s->identity,
                                                                     .state = s->state,
                                                                     .quarantined = quarantined});
    struct worker_snapshot *before = w->current;
    w->current = mem_must_new(struct worker_snapshot);
    w->current->snapshot = next;
    w->current->uses = 1;
    conn_release_snapshot(w, before);
}

/* An application's connection, that waits for a session. */
static struct conn *ask(struct conn_worker *w, int *ret_app)
{
    const struct net_addr nobody = {.len = 0};
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    struct conn *c = conn_new(w, 0, fds[0], &nobody);
    *ret_app = fds[1];
    conn_outbound_start(c);
    return c;
}

static void test_change_before_its_turn(void **state)
{
    (void)state;
    struct world *w = world_new_at("127.0.0.1", "", "state: {from: agent}\n", "tcp", NOBODY);
    struct side *s = &w->client;
    struct conf_diag *diag = conf_diag_new();
    struct snapshot_told told = {.generation = 1};
    struct err err = ERR_INIT;
    int app[3];
    assert_int_equal(snapshot_state_new(&told, diag, &s->state, &err), 0);
    conf_diag_free(diag);
    conn_worker_stop(s->worker);
    struct conn_worker *worker = s->worker;
    swap(worker, s, false);
    struct conn *first = ask(worker, &app[0]);
    struct conn *second = ask(worker, &app[1]);
    struct conn_carrier *shared = first->via.of;
    assert_non_null(shared);
    assert_ptr_equal(second->via.of, shared);
    /* The session is one that has to go, and its turn has not come. */
    swap(worker, s, true);
    assert_false(shared->conn->closing);
    struct conn *third = conn_new(worker, 0, -1, &(const struct net_addr){.len = 0});
    third->original = third->upstream = first->original;
    third->route = first->route;
    third->transport = CONF_TRANSPORT_HBONE;
    conn_set_state(third, CONN_OPENING);
    pool_take(third);
    assert_ptr_not_equal(third->via.of, shared);
    assert_true(shared->conn->closing);
    assert_int_equal(shared->conn->reason, CONN_CLOSE_QUARANTINED);
    assert_true(first->closing && second->closing);
    /* One that asks is looked at, too. */
    swap(worker, s, false);
    struct conn *fourth = ask(worker, &app[2]);
    assert_non_null(fourth->via.of);
    swap(worker, s, true);
    struct conn_carrier *k = fourth->via.of;
    conn_ride_end(&fourth->via);
    pool_take(fourth);
    assert_true(fourth->closing);
    assert_int_equal(fourth->reason, CONN_CLOSE_QUARANTINED);
    assert_ptr_equal(k->users->conn, third);
    assert_int_equal(k->n_users, 1);
    world_free(w);
    for (size_t i = 0; i < 3; i++) {
        close(app[i]);
    }
}

/* A thousand may wait for the identity; each may be a handshake. */
static void test_held_go_on_in_turns(void **state)
{
    (void)state;
    enum { HELD = 150, A_TURN = 32 };
    struct world *w = world_new_at("127.0.0.1", "", "", "tcp", NOBODY);
    struct side *s = &w->client;
    struct snapshot_identity *identity = s->identity;
    static int app[HELD];
    unsigned turns = 0;
    conn_worker_stop(s->worker);
    struct conn_worker *worker = s->worker;
    s->identity = NULL;
    swap(worker, s, false);
    for (size_t i = 0; i < HELD; i++) {
        struct conn *c = ask(worker, &app[i]);
        assert_int_equal(c->state, CONN_HELD);
    }
    /* Nothing has come: all are looked at, and all wait on. */
    conn_resume_held(worker);
    while (worker->resume_timer.due_ms != 0) {
        loop_timer_disarm(&worker->resume_timer);
        worker_resume_some(worker);
        assert_true(++turns <= HELD);
    }
    assert_int_equal(worker->n_held, HELD);
    assert_true(turns >= HELD / A_TURN);
    /* It has: some of them a turn, until none is left. */
    s->identity = identity;
    swap(worker, s, false);
    conn_resume_held(worker);
    for (turns = 1; worker->n_held > 0; turns++) {
        assert_int_not_equal(worker->resume_timer.due_ms, 0);
        size_t before = worker->n_held;
        loop_timer_disarm(&worker->resume_timer);
        worker_resume_some(worker);
        assert_true(worker->n_held < before && before - worker->n_held <= A_TURN);
    }
    assert_true(turns > HELD / A_TURN);
    loop_timer_disarm(&worker->resume_timer);
    world_free(w);
    for (size_t i = 0; i < HELD; i++) {
        close(app[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_change_before_its_turn),
        cmocka_unit_test(test_held_go_on_in_turns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
