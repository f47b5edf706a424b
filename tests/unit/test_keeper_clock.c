/* A keeper without a process, on a clock that the test moves: what time brings, and what a clock
 * that is set does not (docs/authority.md, "Times"). The test is the supervisor, which places its
 * state. */
#include "keeper_priv.h"

#include <postern/ipc.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { HOUR = 3600, DAY = 86400, YEAR = 365 * DAY };
static const int64_t T0 = 1800000000;

struct world {
    struct keeper k;
    int supervisor; /* the other end of its control channel */
    int64_t wall_s;
    uint64_t now_ms;
};

static int64_t wall_s(void *arg)
{
    return ((struct world *)arg)->wall_s;
}
static uint64_t now_ms(void *arg)
{
    return ((struct world *)arg)->now_ms;
}

static int temp_file(void)
{
    char name[] = "/tmp/postern-test-XXXXXX";
    int fd = mkstemp(name);

    assert_int_not_equal(fd, -1);
    unlink(name);
    return fd;
}

static void give_file(struct world *w)
{
    struct agent_msg_state m;

    agent_ipc_init(&m, AGENT_MSG_STATE_FILE, 0);
    m.fresh = true;
    m.owner_uid = geteuid();
    assert_int_equal(keeper_on_state(&w->k, &m, temp_file(), NULL), 0);
}

/* Everything that the keeper wants of its supervisor. */
static void serve(struct world *w)
{
    static union agent_msg msg;
    struct agent_msg_state_placed placed;
    int fd = -1;

    while (agent_ipc_recv(w->supervisor, AGENT_WAY_KEEPER_SUPERVISOR, &msg, &fd) == IPC_OK) {
        if (msg.head.type == AGENT_MSG_STATE_WANTED) {
            give_file(w);
        } else if (msg.head.type == AGENT_MSG_STATE_WRITTEN) {
            agent_ipc_init(&placed, AGENT_MSG_STATE_PLACED, 0);
            placed.ok = true;
            assert_int_equal(keeper_change_placed(&w->k, &placed, NULL), 0);
        }
        assert_int_not_equal(msg.head.type, AGENT_MSG_FAILED);
    }
}

static struct world *start(uint32_t root_ttl_s, uint32_t node_ttl_s)
{
    struct world *w = mem_must_new(struct world);
    struct keeper *k = &w->k;
    int pair[2];

    assert_int_equal(ipc_pair(pair, NULL), 0);
    w->supervisor = pair[0];
    w->wall_s = T0;
    w->now_ms = 1000;
    k->control = pair[1];
    k->attestor = k->service = k->timer = k->old_key_fd = k->old_cert_fd = -1;
    k->journal.fd = k->journal.head_fd = -1;
    k->clock = (struct keeper_clock){wall_s, now_ms, w};
    k->log = log_new_fd(STDERR_FILENO, LOG_ERROR, "keeper");
    memcpy(k->trust_domain, "example.org", 11);
    k->svid_ttl_s = 10;
    k->outage_warn_s = HOUR;
    keeper_authority_init(&k->authority, STR_LIT("example.org"), root_ttl_s, node_ttl_s);
    keeper_jwt_init(&k->jwt, JWT_ES256, 10, root_ttl_s);
    k->uses = keeper_uses_new();
    keeper_pace_start(k);
    agent_ipc_init(&k->report, AGENT_MSG_REPORT, 0);
    give_file(w);
    serve(w);
    assert_true(k->started);
    return w;
}

static void stop(struct world *w)
{
    keeper_force_free(w->k.change.next);
    keeper_uses_free(w->k.uses);
    keeper_jwt_deinit(&w->k.jwt);
    keeper_authority_deinit(&w->k.authority);
    log_free(w->k.log);
    close(w->supervisor);
    close(w->k.control);
    free(w);
}

static void turn(struct world *w)
{
    keeper_tick(&w->k);
    serve(w);
}

/* Time goes by, both clocks alike. */
static void pass(struct world *w, int64_t s, int64_t step_s)
{
    for (; s > 0; s -= step_s) {
        w->wall_s += step_s;
        w->now_ms += (uint64_t)step_s * 1000;
        turn(w);
    }
}

/* Somebody sets the clock. */
static void set_clock(struct world *w, int64_t by_s)
{
    w->wall_s += by_s;
    turn(w);
}

/* A leaf of now: inside its issuer's life, which is inside the root's. */
static bool issues(struct world *w)
{
    EVP_PKEY *key = x509_key_new(NULL);
    const struct keeper_force *f = w->k.authority.force;
    uint8_t point[AGENT_POINT_SIZE];
    struct x509_issue what = {.spiffe_id = STR_LIT("spiffe://example.org/a"), .point = point};
    struct keeper_leaf leaf = {.der = NULL};
    struct err err = ERR_INIT;
    bool ok;

    assert_int_equal(x509_key_point(key, point, NULL), 0);
    EVP_PKEY_free(key);
    ok = keeper_authority_issue(&w->k.authority, &what, 10, w->wall_s, &leaf, &err) == 0;
    if (ok) {
        assert_true(leaf.not_before_s <= w->wall_s && leaf.not_after_s > w->wall_s);
        assert_true(leaf.not_before_s >= f->node_not_before_s);
        assert_true(f->node_not_before_s >= f->issuer_not_before_s);
        assert_true(leaf.not_after_s <= f->node_not_after_s);
        assert_true(f->node_not_after_s <= f->issuer_not_after_s);
    } else {
        assert_int_equal(err.code, ERR_UNAVAILABLE);
    }
    free(leaf.der);
    return ok;
}

static uint64_t sequence(const struct world *w)
{
    return w->k.authority.force->store.sequence;
}

/* --- the clock is set --------------------------------------------------------------------------
 */
static void test_forward(void **state)
{
    struct world *w = start(10 * YEAR, DAY);
    int64_t end_s = w->k.authority.force->node_not_after_s;

    (void)state;
    set_clock(w, 13 * HOUR); /* half of the intermediate's life is over */
    assert_true(w->k.authority.force->node_not_after_s > end_s);
    set_clock(w, 30 * DAY); /* and here it has ended: another one at once */
    assert_true(issues(w));
    stop(w);
}

static void test_backward(void **state)
{
    struct world *w = start(10 * YEAR, DAY);

    (void)state;
    pass(w, 2 * DAY, HOUR);
    assert_true(issues(w));
    set_clock(w, -DAY); /* the intermediate has not begun: one that has */
    assert_true(issues(w));
    set_clock(w, -30 * DAY); /* before the root itself: nothing is signed */
    assert_false(issues(w));
    set_clock(w, 31 * DAY);
    pass(w, 60, 30); /* after a failure the next try comes within half a minute */
    assert_true(issues(w));
    stop(w);
}

static void test_far_ahead_and_back(void **state)
{
    struct world *w = start(10 * YEAR, DAY);
    uint64_t before = sequence(w);

    (void)state;
    set_clock(w, 10 * (int64_t)YEAR - 10 * DAY); /* where a successor would be prepared */
    pass(w, 300, 30);
    assert_int_equal(sequence(w), before);
    set_clock(w, 10 * DAY); /* where the root, and the key for tokens, have ended */
    assert_false(issues(w));
    pass(w, 300, 30);
    for (size_t i = 0; i < w->k.authority.force->store.n; i++) {
        const struct keeper_record *r = &w->k.authority.force->store.records[i];

        assert_true(r->kind == KEEPER_JWT || r->state == KEEPER_ACTIVE);
    }
    set_clock(w, -10 * (int64_t)YEAR);
    pass(w, 60, 30);
    assert_true(issues(w));
    stop(w);
}

static void test_steady_again(void **state)
{
    struct world *w = start(10 * YEAR, DAY);

    (void)state;
    set_clock(w, 10 * (int64_t)YEAR - 10 * DAY);
    pass(w, 599, 1);
    assert_null(keeper_store_find(&w->k.authority.force->store, KEEPER_X509, KEEPER_PREPARED));
    pass(w, 2, 1);
    assert_non_null(keeper_store_find(&w->k.authority.force->store, KEEPER_X509, KEEPER_PREPARED));
    stop(w);
}

/* --- years by schedule ---------------------------------------------------------------------------
 */
static void test_lives(void **state)
{
    enum { LIFE = 6000 };
    struct world *w = start(LIFE, 600);
    size_t n_roots = 0, most = 0;
    char last[KEEPER_RECORD_ID_MAX + 1] = "";

    (void)state;
    for (int64_t s = 0; s < 4 * LIFE; s += 20) {
        const struct keeper_record *active;
        size_t n = 0;

        pass(w, 20, 20);
        assert_true(issues(w));
        active = keeper_store_find(&w->k.authority.force->store, KEEPER_X509, KEEPER_ACTIVE);
        assert_non_null(active);
        assert_true(active->not_after_s > w->wall_s);
        /* never cut short: an SVID of a sixth of the life always fits */
        assert_true(w->k.authority.force->issuer_not_after_s - w->wall_s >= LIFE / 6 - 40);
        n_roots += strcmp(last, active->id) != 0 ? 1 : 0;
        memcpy(last, active->id, sizeof(last));
        for (size_t i = 0; i < w->k.authority.force->store.n; i++) {
            n += w->k.authority.force->store.records[i].kind == KEEPER_X509 ? 1 : 0;
        }
        most = n > most ? n : most;
    }
    /* made at half of the one before's life, and so on: a new one each half */
    assert_in_range(n_roots, 7, 9);
    assert_in_range(most, 2, 3); /* and old ones go */
    assert_false(w->k.budget_is_low);
    stop(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forward),
        cmocka_unit_test(test_backward),
        cmocka_unit_test(test_far_ahead_and_back),
        cmocka_unit_test(test_steady_again),
        cmocka_unit_test(test_lives),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
