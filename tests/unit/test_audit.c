/* The audit log from a worker's ring to a line: what a line says, what is lost and that it says so,
 * readers that stop or go away. docs/audit.md has the cases. */
#include <postern/audit.h>

#include <fcntl.h>
#include <poll.h>
#include <postern/jsonl.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "audit_priv.h"

static struct audit_decision decision(const char *path)
{
    return (struct audit_decision){.kind = AUDIT_REQUEST,
                                   .port = 8080,
                                   .conn = 7,
                                   .generation = 3,
                                   .decision = STR_LIT("0123456789abcdef0123456789abcdef"),
                                   .listener = STR_LIT("in"),
                                   .own_id = STR_LIT("spiffe://a.b/me"),
                                   .peer_id = STR_LIT("spiffe://a.b/you"),
                                   .protocol = STR_LIT("http1"),
                                   .method = STR_LIT("GET"),
                                   .host = STR_LIT("orders"),
                                   .path = str_of(path),
                                   .reason = STR_LIT("no_rule")};
}

/* --- lines ------------------------------------------------------------------------------------ */

static char space[AUDIT_LINE_MAX];

static size_t line_of(const struct audit_decision *d, struct jsonl *ret)
{
    struct audit_chain c;
    assert_int_equal(audit_chain_init(&c, true, NULL), 0);
    size_t n = audit_line_decision(&c, d, space);
    audit_chain_deinit(&c);
    assert_true(n > 1 && n <= AUDIT_LINE_MAX && space[n - 1] == '\n');
    assert_null(memchr(space, '\n', n - 1));
    assert_true(jsonl_parse((struct str){space, n - 1}, ret));
    return n;
}

static void test_nothing_forges_a_line(void **state)
{
    static const char *const paths[] = {
        "/a\",\"verdict\":\"allow\",\"x\":\"",
        "/a\n{\"seq\":9}",
        "/\x1b[2J\x9b"
        "1m",
        "/a\\\"",
        "/\xff\xfe\x80",
    };
    struct jsonl l;
    (void)state;
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        struct audit_decision d = decision(paths[i]);
        char again[64];
        size_t n = line_of(&d, &l);
        assert_true(jsonl_is(&l, "verdict", "deny"));
        assert_true(jsonl_get_text(&l, "path", again, sizeof(again)));
        assert_string_equal(again, paths[i]);
        for (size_t k = 0; k + 1 < n; k++) {
            assert_true((uint8_t)space[k] >= 0x20 && (uint8_t)space[k] < 0x7f);
        }
    }
}

static void test_long_values_are_cut(void **state)
{
    char path[9000];
    struct jsonl l;
    (void)state;
    memset(path, 'x', sizeof(path));
    path[0] = '/';
    path[sizeof(path) - 1] = '\0';
    struct audit_decision d = decision(path);
    line_of(&d, &l);
    const struct jsonl_field *f = jsonl_find(&l, "path");
    assert_int_equal(f->value.n, AUDIT_TEXT_MAX + 3);
    assert_memory_equal(f->value.p + AUDIT_TEXT_MAX, "...", 3);
    assert_true(jsonl_is(&l, "reason", "no_rule"));
    /* Everything long, and every byte of it six: still one line, with all of its keys. */
    memset(path, 1, sizeof(path) - 1);
    struct str hostile = str_of(path);
    d.host = d.method = d.path = d.rule = d.rule_reason = d.near_miss = d.audit_rule = hostile;
    d.shadow = d.shadow_rule = d.listener = d.own_id = d.peer_id = d.protocol = hostile;
    line_of(&d, &l);
    assert_non_null(jsonl_find(&l, "shadow_rule"));
    assert_true(jsonl_is(&l, "reason", "no_rule"));
}

static void test_what_a_line_says(void **state)
{
    struct jsonl l;
    struct audit_decision d = decision("/x");
    uint64_t n = 0;
    (void)state;
    d.allow = true;
    d.sampled = 100;
    d.hbone = true;
    d.ts_ms = 1767323045678;
    d.kind = AUDIT_CONNECTION;
    line_of(&d, &l);
    assert_true(jsonl_is(&l, "ts", "2026-01-02T03:04:05.678Z"));
    assert_true(jsonl_is(&l, "event", "connection"));
    assert_true(jsonl_is(&l, "verdict", "allow"));
    assert_true(jsonl_is(&l, "conn", "0-7"));
    assert_true(jsonl_get_uint(&l, "sampled", &n) && n == 100);
    assert_true(jsonl_get_uint(&l, "generation", &n) && n == 3);
    assert_null(jsonl_find(&l, "state_generation"));
    assert_null(jsonl_find(&l, "resumed"));
    assert_null(jsonl_find(&l, "rule"));
    assert_null(jsonl_find(&l, "source"));
}

/* --- rings ------------------------------------------------------------------------------------ */

enum { RING = 64 * 1024 };

static void test_full_ring_says_what_it_lost(void **state)
{
    struct audit_wake wake = {.fd = -1};
    struct audit_ring r = {.data = NULL};
    uint8_t *record = mem_must_calloc(1, AUDIT_RECORD_MAX);
    struct audit_decision d = decision("/p"), out;
    uint64_t lost = 1, put = 0, took = 0;
    (void)state;
    audit_ring_init(&r, RING, 4, &wake);
    assert_false(audit_ring_take(&r, record, &out, &lost));
    assert_int_equal(lost, 0);
    for (; put < 1000; put++) {
        audit_put(&r, &d);
    }
    while (audit_ring_take(&r, record, &out, &lost)) {
        assert_int_equal(lost, 0);
        assert_int_equal(out.number, ++took);
        assert_int_equal(out.worker, 4);
        assert_true(str_eq(out.path, d.path) && str_eq(out.peer_id, d.peer_id));
    }
    assert_true(took > 10 && took < 1000);
    assert_int_equal(lost, 1000 - took); /* nothing comes behind them: told all the same */
    assert_true(audit_ring_empty(&r));
    /* And where something does. */
    for (put = 0; put < 1000; put++) {
        audit_put(&r, &d);
    }
    uint64_t kept = 1;
    assert_true(audit_ring_take(&r, record, &out, &lost));
    audit_put(&r, &d);
    while (audit_ring_take(&r, record, &out, &lost) && lost == 0) {
        kept++;
    }
    assert_int_equal(out.number, 2001);
    assert_int_equal(lost, 1000 - kept);
    /* Round the end of the ring, many times, with every length. */
    for (size_t i = 0; i < 3000; i++) {
        char path[3000];
        size_t n = i % sizeof(path);
        memset(path, 'a' + (int)(i % 26), sizeof(path));
        d.path = (struct str){path, n};
        audit_put(&r, &d);
        assert_true(audit_ring_take(&r, record, &out, &lost));
        n = n > AUDIT_TEXT_MAX ? AUDIT_TEXT_MAX + 1 : n;
        assert_int_equal(out.path.n, n);
        assert_memory_equal(out.path.p, path, n);
        assert_int_equal(lost, 0);
    }
    assert_false(audit_record_read(record, 10, &out));
    audit_ring_deinit(&r);
    free(record);
}

/* --- readers ---------------------------------------------------------------------------------- */

struct reader {
    int fd;
    char *text; /* owned */
    size_t n;
};

static void read_until(struct reader *r, const char *what)
{
    enum { MAX = 8 << 20 };
    if (r->text == NULL) {
        r->text = mem_must_calloc(1, MAX);
    }
    while (strstr(r->text, what) == NULL) {
        ssize_t got = read(r->fd, r->text + r->n, MAX - 1 - r->n);
        assert_true(got > 0);
        r->n += (size_t)got;
    }
}

static struct audit *started(struct audit_options *o)
{
    struct audit *a = NULL;
    struct err err = ERR_INIT;
    o->name = "test";
    o->role = "proxy";
    o->log_fd = -1;
    assert_int_equal(audit_new(o, 2, &a, &err), 0);
    assert_int_equal(audit_start(a, &err), 0);
    return a;
}

static void wait_status(struct audit *a, bool (*done)(const struct audit_figures *))
{
    struct audit_figures st;
    do {
        audit_get_figures(a, &st);
        (void)poll(NULL, 0, 1);
    } while (!done(&st));
}

static bool took_ten(const struct audit_figures *st)
{
    return st->decisions == 10;
}

static void test_reader_that_stops(void **state)
{
    int fds[2];
    struct audit_figures st;
    struct audit_decision d = decision("/flood");
    struct reader r = {.fd = -1};
    (void)state;
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    struct audit_options o = {
        .to = AUDIT_TO_STDOUT, .stdout_fd = fds[1], .chain = true, .ring_bytes = RING};
    struct audit *a = started(&o);
    for (int i = 0; i < 20000; i++) { /* nobody reads: far more than there is room for */
        audit_put(audit_ring(a, i & 1), &d);
    }
    r.fd = fds[0];
    read_until(&r, "\"event\":\"lost\""); /* a reader that goes on is told */
    d = decision("/last");
    for (bool put = false; strstr(r.text, "/last") == NULL; put = true) {
        if (!put) {
            audit_put(audit_ring(a, 0), &d);
        }
        read_until(&r, "/last");
    }
    audit_stop(a);
    audit_get_figures(a, &st);
    assert_true(st.lost > 1000);
    assert_int_equal(st.lost + st.decisions, 20001);
    audit_free(a);
    close(fds[0]);
    close(fds[1]);
    free(r.text);
}

static int listen_at(const char *path)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    memcpy(un.sun_path, path, strlen(path));
    (void)unlink(path);
    assert_int_equal(bind(fd, (const struct sockaddr *)&un, sizeof(un)), 0);
    assert_int_equal(listen(fd, 4), 0);
    return fd;
}

static void test_socket_that_comes_goes_and_comes_back(void **state)
{
    char dir[] = "/tmp/postern-audit-XXXXXX", path[64];
    struct audit_decision d = decision("/one");
    (void)state;
    assert_non_null(mkdtemp(dir));
    (void)snprintf(path, sizeof(path), "%s/s", dir);
    struct audit_options o = {.to = AUDIT_TO_UNIX, .path = path, .chain = true};
    struct audit *a = started(&o);
    audit_put(audit_ring(a, 0), &d); /* nobody listens yet: it waits */
    int l = listen_at(path);
    struct reader r = {.fd = accept(l, NULL, NULL)};
    read_until(&r, "/one");
    assert_non_null(strstr(r.text, "\"event\":\"begin\""));
    close(r.fd);
    d = decision("/two");
    for (int i = 0; i < 9; i++) {
        audit_put(audit_ring(a, 1), &d);
    }
    struct reader again = {.fd = accept(l, NULL, NULL)};
    wait_status(a, took_ten);
    d = decision("/three");
    audit_put(audit_ring(a, 1), &d);
    read_until(&again, "/three");
    assert_memory_equal(again.text, "{\"seq\":", 7); /* whole lines only */
    audit_stop(a);
    audit_free(a);
    close(again.fd);
    close(l);
    free(r.text);
    free(again.text);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_forges_a_line),
        cmocka_unit_test(test_long_values_are_cut),
        cmocka_unit_test(test_what_a_line_says),
        cmocka_unit_test(test_full_ring_says_what_it_lost),
        cmocka_unit_test(test_reader_that_stops),
        cmocka_unit_test(test_socket_that_comes_goes_and_comes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
