/*
 * Names of targets: the asker on a loop, with the helper played by the test; and what the helper
 * reads. Bad cases first.
 */
#include <postern/resolve.h>

#include "resolver_priv.h"

#include <arpa/inet.h>
#include <poll.h>
#include <postern/ipc.h>
#include <postern/os.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

/* --- the helper's parsers --------------------------------------------------------------------- */
#define HEAD(answers) "\x00\x07\x81\x80\x00\x01\x00" answers "\x00\x00\x00\x00"
#define QUESTION "\x02\x64\x62\x07\x65xample\x00\x00\x01\x00\x01"
#define RECORD_A "\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x0a\x00\x00\x01"

static bool read_dns(const char *text, size_t n, struct addresses *ret)
{
    *ret = (struct addresses){.n = 0, .ttl_s = UINT32_MAX};
    return dns_read_answer((const uint8_t *)text, n, DNS_TYPE_A, ret);
}
#define READ_DNS(lit, ret) read_dns("" lit, sizeof(lit) - 1, ret)

static void test_dns_bad(void **state)
{
    (void)state;
    struct addresses a;
    assert_false(READ_DNS("", &a));
    assert_false(READ_DNS("\x00\x07\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00", &a)); /* a question */
    assert_false(READ_DNS(HEAD("\x01") QUESTION, &a)); /* an answer is promised */
    assert_false(READ_DNS(HEAD("\x01") QUESTION "\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x05"
                                                "\x0a\x00\x00\x01\x01",
                          &a)); /* five bytes of address */
    assert_false(READ_DNS(HEAD("\x01") QUESTION "\x80\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04"
                                                "\x0a\x00\x00\x01",
                          &a)); /* a label of no known kind */
    assert_false(READ_DNS(HEAD("\x01") QUESTION "\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\xff\xff"
                                                "\x0a\x00\x00\x01",
                          &a)); /* data behind the end */
    assert_int_equal(a.n, 0);
}

static void test_dns(void **state)
{
    (void)state;
    struct addresses a;
    assert_true(READ_DNS(HEAD("\x00") QUESTION, &a));
    assert_int_equal(a.n, 0);
    assert_true(READ_DNS(HEAD("\x02") QUESTION
                         "\xc0\x0c\x00\x05\x00\x01\x00\x00\x00\x05\x00\x02\xc0\x0c" RECORD_A,
                         &a));
    assert_int_equal(a.n, 1);
    assert_int_equal(a.ttl_s, 5); /* of the alias */
    assert_memory_equal(a.list[0].bytes, "\x0a\x00\x00\x01", 4);
}

static void test_hosts(void **state)
{
    (void)state;
    struct addresses a = {.n = 0};
    const struct str text = STR_LIT("127.0.0.1 localhost\n#10.0.0.1 db\n10.0.0.2 x # db\nno db\n"
                                    "10.0.0.3\tother\tDB\r\nfd00::1 db\n10.0.0.4 dbx\n10.0.0.5");
    assert_false(hosts_find(text, STR_LIT("missing"), &a));
    assert_true(hosts_find(text, STR_LIT("db"), &a));
    assert_int_equal(a.n, 2);
    assert_memory_equal(a.list[0].bytes, "\x0a\x00\x00\x03", 4);
    assert_int_equal(a.list[1].family, 6);
}

static void test_host_ok(void **state)
{
    (void)state;
    assert_false(resolve_host_ok(STR_LIT("")));
    assert_false(resolve_host_ok(STR_LIT(".a")));
    assert_false(resolve_host_ok(STR_LIT("a..b")));
    assert_false(resolve_host_ok(STR_LIT("-a")));
    assert_false(resolve_host_ok(STR_LIT("A")));
    assert_false(resolve_host_ok((struct str){"a\0b", 3}));
    assert_true(resolve_host_ok(STR_LIT("db.example.")));
    assert_true(resolve_host_ok(STR_LIT("_x.a-b")));
}

/* --- the asker -------------------------------------------------------------------------------- */
struct world {
    struct loop *loop;
    struct resolver *r;
    int fd; /* the helper's end */
    struct loop_io *io;
    struct loop_timer limit;
    struct resolve_question asked[16];
    unsigned n_asked, n_states, n_notices[4];
    unsigned stop_at_asked, stop_at_states, stop_at_notices; /* of any kind; 0: not by this */
    struct resolve_state *state;
    bool late;
};

static unsigned all_notices(const struct world *w)
{
    return w->n_notices[0] + w->n_notices[1] + w->n_notices[2] + w->n_notices[3];
}

static void look(struct world *w)
{
    if ((w->stop_at_asked > 0 && w->n_asked >= w->stop_at_asked) ||
        (w->stop_at_states > 0 && w->n_states >= w->stop_at_states) ||
        (w->stop_at_notices > 0 && all_notices(w) >= w->stop_at_notices)) {
        loop_stop(w->loop);
    }
}

static void on_state(void *arg, struct resolve_state *s)
{
    struct world *w = arg;
    resolve_state_unref(w->state);
    w->state = resolve_state_ref(s);
    w->n_states++;
    look(w);
}

static void on_notice(void *arg, enum resolver_notice n, const char *host, const struct err *why)
{
    struct world *w = arg;
    assert_true((host == NULL) == (n == RESOLVER_GONE));
    assert_true((why != NULL) == (n == RESOLVER_GONE || n == RESOLVER_FAILED));
    assert_non_null(resolver_notice_name(n));
    w->n_notices[n]++;
    look(w);
}

static const struct resolver_events EVENTS = {.on_state = on_state, .on_notice = on_notice};

static void on_question(void *arg, unsigned ready)
{
    struct world *w = arg;
    (void)ready;
    size_t len = 0;
    int passed = -1;
    struct resolve_question q;
    while (w->n_asked < 16 && ipc_recv(w->fd, &q, sizeof(q), &len, &passed) == IPC_OK) {
        assert_int_equal(len, sizeof(q));
        w->asked[w->n_asked++] = q;
    }
    look(w);
}

static void on_limit(void *arg)
{
    struct world *w = arg;
    w->late = true;
    loop_stop(w->loop);
}

static void run_until(struct world *w, unsigned asked, unsigned states, unsigned notices)
{
    w->stop_at_asked = asked;
    w->stop_at_states = states;
    w->stop_at_notices = notices;
    loop_timer_arm(&w->limit, 10000);
    loop_run(w->loop);
    assert_false(w->late);
    w->stop_at_asked = w->stop_at_states = w->stop_at_notices = 0;
}

static struct world *world_new(void)
{
    struct world *w = calloc(1, sizeof(*w));
    struct err err = ERR_INIT;
    int pair[2];
    w->loop = loop_new(&err);
    assert_int_equal(ipc_pair(pair, &err), 0);
    w->fd = pair[1];
    w->r = resolver_new_on(w->loop, pair[0], &EVENTS, w, &err);
    w->io = loop_io_new(w->loop, w->fd, on_question, w);
    loop_io_want(w->io, LOOP_READ);
    loop_timer_init(&w->limit, w->loop, on_limit, w);
    return w;
}

static void world_free(struct world *w)
{
    resolver_free(w->r);
    loop_timer_disarm(&w->limit);
    loop_io_free(w->io);
    if (w->fd != -1) {
        close(w->fd);
    }
    loop_free(w->loop);
    resolve_state_unref(w->state);
    free(w);
}

/* Answers question i with IPv4 addresses 10.0.0.x. */
static void answer(struct world *w, unsigned i, enum resolve_result result, uint32_t ttl_s,
                   const char *last_bytes)
{
    struct resolve_answer a = {.version = RESOLVE_VERSION,
                               .id = w->asked[i].id,
                               .result = result,
                               .ttl_s = ttl_s,
                               .n = (uint32_t)strlen(last_bytes)};
    for (size_t k = 0; k < a.n; k++) {
        a.addrs[k] =
            (struct resolve_address){.family = 4, .bytes = {10, 0, 0, (uint8_t)last_bytes[k]}};
    }
    assert_int_equal(ipc_send(w->fd, &a, sizeof(a), -1), IPC_OK);
}

static const char *const ONE[] = {"db.example"};

static void test_liar(void **state)
{
    (void)state;
    /* A helper that breaks the protocol is not listened to any more; what it said stays. */
    for (unsigned way = 0; way < 5; way++) {
        struct world *w = world_new();
        resolver_set_names(w->r, ONE, 1);
        run_until(w, 1, 0, 0);
        answer(w, 0, RESOLVE_OK, 100, "\x01");
        run_until(w, 0, 2, 0);
        struct resolve_answer a = {.version = RESOLVE_VERSION, .id = 99, .n = 1};
        size_t len = sizeof(a);
        if (way == 0) {
            a.n = RESOLVE_ADDRS_MAX + 1;
        } else if (way == 1) {
            a.result = RESOLVE_N_RESULTS;
        } else if (way == 2) {
            len--;
        } else if (way == 3) {
            a.version++;
        } else {
            a.id = 0;
        }
        assert_int_equal(ipc_send(w->fd, &a, len, -1), IPC_OK);
        run_until(w, 0, 0, 1);
        assert_int_equal(w->n_notices[RESOLVER_GONE], 1);
        assert_false(resolver_alive(w->r));
        assert_int_equal(resolve_state_find(w->state, "db.example")->n_addrs, 1);
        world_free(w);
    }
}

static void test_gone(void **state)
{
    (void)state;
    struct world *w = world_new();
    resolver_set_names(w->r, ONE, 1);
    run_until(w, 1, 0, 0);
    w->io = loop_io_free(w->io);
    close(w->fd);
    w->fd = -1;
    run_until(w, 0, 0, 1);
    assert_int_equal(w->n_notices[RESOLVER_GONE], 1);
    assert_false(resolve_state_complete(w->state));
    const char *const two[] = {"db.example", "other.example"};
    resolver_set_names(w->r, two, 2); /* nobody to ask: they are known not to be known */
    assert_int_equal(w->state->n_hosts, 2);
    world_free(w);
}

static void test_failure_keeps(void **state)
{
    (void)state;
    struct world *w = world_new();
    resolver_set_names(w->r, ONE, 1);
    run_until(w, 1, 0, 0);
    assert_string_equal(w->asked[0].host, "db.example");
    assert_false(resolve_state_complete(w->state));
    answer(w, 0, RESOLVE_NO_NAME, 0, "");
    run_until(w, 2, 0, 0); /* asked again after a second */
    assert_int_equal(w->n_notices[RESOLVER_FAILED], 1);
    struct resolver_status st;
    resolver_get_status(w->r, 0, &st);
    assert_int_equal(st.failures_in_row, 1);
    assert_string_equal(st.error, "there is no such name");
    answer(w, 1, RESOLVE_OK, 0, "\x01\x02\x01");
    run_until(w, 0, 2, 0);
    assert_int_equal(w->n_notices[RESOLVER_RECOVERED], 1);
    assert_true(resolve_state_complete(w->state));
    const struct resolve_host *h = resolve_state_find(w->state, "db.example");
    assert_int_equal(h->n_addrs, 2); /* the one that came twice counts once */
    assert_int_equal(h->n_preferred, 2);
    assert_null(resolve_state_find(w->state, "other.example"));
    assert_null(resolve_state_find(NULL, "db.example"));
    world_free(w);
}

static void test_change(void **state)
{
    (void)state;
    struct world *w = world_new();
    const char *const names[] = {"b.example", "a.example", "b.example"};
    resolver_set_names(w->r, names, 3);
    run_until(w, 2, 0, 0);
    assert_string_equal(w->asked[0].host, "a.example");
    answer(w, 0, RESOLVE_OK, 1000, "\x01\x02");
    answer(w, 1, RESOLVE_OK, 1000, "\x03");
    run_until(w, 0, 3, 0);
    /* Another file, with one of them: what is known of it stays, and it is not asked anew. */
    const char *const fewer[] = {"a.example", "c.example"};
    resolver_set_names(w->r, fewer, 2);
    assert_int_equal(resolve_state_find(w->state, "a.example")->n_addrs, 2);
    assert_null(resolve_state_find(w->state, "b.example"));
    run_until(w, 3, 0, 0);
    assert_string_equal(w->asked[2].host, "c.example");
    answer(w, 1, RESOLVE_OK, 1000, "\x09"); /* of a name that is gone */
    answer(w, 2, RESOLVE_OK, 1000, "\x05");
    run_until(w, 0, w->n_states + 1, 0);
    assert_int_equal(resolve_state_find(w->state, "c.example")->n_addrs, 1);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dns_bad),       cmocka_unit_test(test_dns),
        cmocka_unit_test(test_hosts),         cmocka_unit_test(test_host_ok),
        cmocka_unit_test(test_liar),          cmocka_unit_test(test_gone),
        cmocka_unit_test(test_failure_keeps), cmocka_unit_test(test_change),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
