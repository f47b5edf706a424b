/* `after` and `verify` of a Rotate file: what is refused, with which words, and what is made of a
 * good one. */
#include <postern/conf_rotate.h>

#include <postern/mem.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char *file_with(const char *keys)
{
    return mem_must_printf("kind: Rotate\nlevel: 1\noutputs:\n- name: o\n  directory: /d\n"
                           "  layout: nginx\n%s",
                           keys);
}

static struct conf_rotate *parse(const char *keys, struct buf *said)
{
    mem_autofree char *text = file_with(keys);
    struct conf_diag *diag = conf_diag_new();
    struct conf_rotate *r = NULL;
    int rc = conf_parse_rotate("/etc/f.yaml", text, strlen(text), diag, &r);

    assert_int_equal(rc, conf_diag_count(diag) == 0 ? 0 : -1);
    assert_true(conf_diag_print(diag, said) && buf_append(said, "", 1));
    conf_diag_free(diag);
    return rc == 0 ? r : NULL;
}

#define A(action) "  after:\n  - " action "\n"
static const struct {
    const char *keys, *says;
} refused[] = {
    {A("{timeout: 5s}"), "says nothing to do"},
    {A("{command: [/a], signal: {child: true}}"), "more than one thing"},
    {A("{signal: {signal: HUP}}"), "names no process"},
    {A("{signal: {pid_file: /p, pid: 3, executable: /e}}"), "in two ways"},
    {A("{signal: {pid_file: /p}}"), "names no executable"},
    {A("{signal: {child: true, executable: /e}}"), "'executable' of the child"},
    {A("{signal: {child: false}}"), "'child' is false"},
    {A("{signal: {child: true, mounts: any}}"), "'mounts' of the child"},
    {A("{signal: {pid_file: /p, executable: /e, mounts: all}}"), "'mounts' is 'all'"},
    {A("{signal: {pid: 0, executable: /e}}"), "too little"},
    {A("{signal: {pid_file: /p, executable: /e, signal: KILL}}"), "'signal' is 'KILL'"},
    {A("{signal: {pid_file: /p, executable: /e, signal: 9}}"), "'signal'"},
    {A("{command: []}"), "empty list"},
    {A("{command: reload}"), "a single value"},
    {A("{command: [nginx, -s, reload]}"), "relative path"},
    {A("{command: [/a], user: no-such-user-here}"), "no such user"},
    {A("{command: [/a], group: root}"), "'group' without 'user'"},
    {A("{command: [/a], user: root, group: no-such-group-here}"), "no such group"},
    {A("{signal: {child: true}, user: root}"), "'user' without a command"},
    {A("{command: [/a], attempts: 0}"), "too little"},
    {A("{command: [/a], timeout: 10}"), "'timeout'"},
    {A("{command: [/a], if_failed: maybe}"), "'if_failed'"},
    {A("{systemd: {}}"), "says nothing to do"},
    {A("{systemd: {reload: a.service, restart: a.service}}"), "more than one thing"},
    {A("{systemd: {reload: --no-block}}"), "no unit's name"},
    {A("{systemd: {reload: 'a b'}}"), "no unit's name"},
    {A("{http: {method: POST}}"), "missing key 'url'"},
    {A("{http: {url: 'tls://a:1'}}"), "of an HTTP request"},
    {A("{http: {url: 'https://a/'}}"), "names nobody to believe"},
    {A("{http: {url: 'http://a/', ca_file: ca}}"), "'ca_file' without https"},
    {A("{http: {url: 'https://unix:/s:/', ca_file: ca}}"), "https over a Unix socket"},
    {A("{http: {url: 'http://a/', headers: ['X']}}"), "no 'Name: value'"},
    {A("{http: {url: 'http://a/', headers: [\"X: a\\r\\nY: b\"]}}"), "control characters"},
    {A("{http: {url: 'http://a/', headers: ['Host: b']}}"),
     "'headers' is (not shown), which is set by"},
    {A("{http: {url: 'http://a/', headers: ['content-length: 3']}}"), "set by itself"},
    {A("{http: {url: 'http://a/', expect: [6xx]}}"), "no status"},
    {A("{http: {url: 'http://a/', expect: ['20']}}"), "no status"},
    {A("{http: {url: 'http://a/', method: TRACE}}"), "'method'"},
    {"  verify: http://127.0.0.1/\n", "with an HTTP URL"},
    {"  verify: tls://127.0.0.1\n", "names no port"},
    {"  verify: {url: 'tls://127.0.0.1:1/x'}\n", "has a path"},
    {"  verify: {timeout: 3s}\n", "missing key 'url'"},
    {"  verify: {url: 'tls://a:1', server_name: 'a b'}\n", "no host name"},
    {"  verify: [a]\n", "a list"},
};

static void test_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        struct buf said = BUF_INIT(65536);
        struct conf_rotate *r = parse(refused[i].keys, &said);

        if (r != NULL || strstr((const char *)buf_head(&said), refused[i].says) == NULL) {
            print_error("%swanted: %s\nsaid: %s\n", refused[i].keys, refused[i].says,
                        (const char *)buf_head(&said));
            fail();
        }
        buf_reset(&said);
    }
}

static void test_too_many(void **state)
{
    struct buf keys = BUF_INIT(65536), said = BUF_INIT(65536);

    (void)state;
    assert_true(buf_printf(&keys, "  after:\n"));
    for (int i = 0; i < 17; i++) {
        assert_true(buf_printf(&keys, "  - {command: [/a]}\n"));
    }
    assert_true(buf_append(&keys, "", 1));
    assert_null(parse((const char *)buf_head(&keys), &said));
    assert_non_null(strstr((const char *)buf_head(&said), "more than 16 actions"));
    buf_reset(&keys);
    buf_reset(&said);
}

static const char all[] =
    "  after:\n"
    "  - signal: {pid_file: run/p, executable: /usr/sbin/nginx}\n"
    "  - {command: [/bin/a, '$(b)', ' '], user: root, timeout: 2s, attempts: 1, backoff: 20ms,\n"
    "     if_failed: continue}\n"
    "  - systemd: {try-reload-or-restart: 'a@b.service'}\n"
    "  - http: {url: 'http://unix:/s:/p?q', expect: [2xx, '304'], headers: ['X-A: b']}\n"
    "  - signal: {child: true, signal: USR2}\n"
    "  verify: {url: 'tls+postgres://[::1]', server_name: db, timeout: 5s}\n";

static void test_all(void **state)
{
    struct buf said = BUF_INIT(65536);
    struct conf_rotate *r = parse(all, &said);
    const struct conf_after *a;
    const struct conf_verify *v;

    (void)state;
    assert_string_equal((const char *)buf_head(&said), "");
    assert_non_null(r);
    assert_int_equal(r->outputs[0].n_after, 5);
    a = r->outputs[0].after;
    v = &r->outputs[0].verify;
    assert_int_equal(a[0].kind, CONF_AFTER_SIGNAL);
    assert_string_equal(a[0].signal.pid_file, "/etc/run/p");
    assert_int_equal(a[0].signal.signo, SIGHUP);
    assert_int_equal(a[0].timeout_ms, 30000);
    assert_int_equal(a[0].attempts, 5);
    assert_int_equal(a[0].if_failed, CONF_IF_FAILED_STOP);
    assert_string_equal(conf_after_target(&a[0]), "/etc/run/p");
    assert_int_equal(a[1].kind, CONF_AFTER_COMMAND);
    assert_int_equal(a[1].command.argv.n, 3);
    assert_string_equal(a[1].command.argv.items[1], "$(b)");
    assert_string_equal(a[1].command.argv.items[2], " ");
    assert_true(a[1].command.has_user && a[1].command.uid == 0 && a[1].command.gid == 0);
    assert_string_equal(a[1].command.home, "/root");
    assert_int_equal(a[1].if_failed, CONF_IF_FAILED_CONTINUE);
    assert_int_equal(a[1].backoff_ms, 20);
    assert_int_equal(a[2].kind, CONF_AFTER_SYSTEMD);
    assert_int_equal(a[2].systemd.verb, CONF_SYSTEMD_TRY_RELOAD_OR_RESTART);
    assert_string_equal(conf_after_target(&a[2]), "a@b.service");
    assert_string_equal(a[2].systemd.systemctl, "/usr/bin/systemctl");
    assert_int_equal(a[3].kind, CONF_AFTER_HTTP);
    assert_string_equal(a[3].http.url.unix_path, "/s");
    assert_string_equal(a[3].http.url.path, "/p?q");
    assert_int_equal(a[3].http.n_expect, 2);
    assert_int_equal(a[3].http.expect[0].first, 200);
    assert_int_equal(a[3].http.expect[0].last, 299);
    assert_int_equal(a[3].http.expect[1].first, 304);
    assert_string_equal(conf_http_method_name(a[3].http.method), "POST");
    assert_true(a[4].signal.child && a[4].signal.signo == SIGUSR2);
    assert_true(v->present && v->url.scheme == CONF_URL_TLS_POSTGRES && v->url.port == 5432);
    assert_string_equal(v->url.host, "::1");
    assert_string_equal(v->server_name, "db");
    assert_int_equal(v->timeout_ms, 5000);
    conf_rotate_free(r);
    buf_reset(&said);
}

static void test_none_and_short(void **state)
{
    struct buf said = BUF_INIT(65536);
    struct conf_rotate *r = parse("", &said);

    (void)state;
    assert_non_null(r);
    assert_true(r->outputs[0].n_after == 0 && !r->outputs[0].verify.present);
    conf_rotate_free(r);
    r = parse("  verify: tls://h:1\n", &said);
    assert_non_null(r);
    assert_true(r->outputs[0].verify.present);
    assert_int_equal(r->outputs[0].verify.timeout_ms, 30000);
    assert_string_equal(r->outputs[0].verify.url.host, "h");
    conf_rotate_free(r);
    buf_reset(&said);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_too_many),
        cmocka_unit_test(test_all),
        cmocka_unit_test(test_none_and_short),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
