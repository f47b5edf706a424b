/* `transparent` and `interception` of a Proxy file: what is refused, with which words, and what is
 * made of a good one. */
#include <postern/conf.h>

#include <postern/mem.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct conf_proxy *parse(const char *text, struct buf *said)
{
    mem_autofree char *file = mem_must_printf("kind: Proxy\nlevel: 1\n%s", text);
    struct conf_diag *diag = conf_diag_new();
    struct conf_proxy *p = NULL;
    int rc = conf_parse_proxy("/etc/f.yaml", file, strlen(file), diag, &p);

    assert_int_equal(rc, conf_diag_count(diag) == 0 ? 0 : -1);
    assert_true(conf_diag_print(diag, said) && buf_append(said, "", 1));
    conf_diag_free(diag);
    return rc == 0 ? p : NULL;
}

#define LISTENER(more)                                                                             \
    "listeners: [{name: a, direction: inbound, capture: intercepted, address: '0.0.0.0:1'" more    \
    "}]\n"
#define OUTBOUND(more)                                                                             \
    "listeners: [{name: a, direction: outbound, capture: intercepted, address: '127.0.0.1:1'" more \
    "}]\n"
#define EXPLICIT(more)                                                                             \
    "listeners: [{name: a, direction: inbound, capture: explicit, address: '127.0.0.1:1', to: "    \
    "'127.0.0.1:2'" more "}]\n"

static const struct {
    const char *text, *says;
} refused[] = {
    {LISTENER(", transparent: maybe"), "'transparent' is 'maybe'"},
    {EXPLICIT(", transparent: true"), "an explicit listener has no 'transparent'"},
    {"listeners: [{name: a, direction: inbound, capture: hbone, transparent: true}]\n",
     "an HBONE listener has no 'transparent'"},
    {OUTBOUND(", transparent: true"), "an outbound listener has no 'transparent'"},
    {LISTENER(", transparent: true, ports: [{port: 1}, {port: 2, local_address: 127.0.0.1}]"),
     "'local_address' of a port whose clients' addresses are kept"},
    {LISTENER("") "interception: {canary: maybe}\n", "'canary' is 'maybe'"},
    {LISTENER("") "interception: {canary: on, interval: 1ms}\n", "'interval' is '1ms'"},
    {LISTENER("") "interception: {cannary: on}\n", "did you mean 'canary'"},
    {EXPLICIT("") "interception: {canary: on}\n", "to which nothing is redirected"},
};

static void test_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        struct buf said = BUF_INIT(1 << 16);
        struct conf_proxy *p = parse(refused[i].text, &said);

        if (p != NULL || strstr((const char *)buf_head(&said), refused[i].says) == NULL) {
            print_message("%zu: expected '%s', got '%s'\n", i, refused[i].says,
                          (const char *)buf_head(&said));
            fail();
        }
        buf_reset(&said);
    }
}

static struct conf_proxy *good(const char *text)
{
    struct buf said = BUF_INIT(1 << 16);
    struct conf_proxy *p = parse(text, &said);

    if (p == NULL) {
        print_message("%s", (const char *)buf_head(&said));
        fail();
    }
    buf_reset(&said);
    return p;
}

static void test_taken(void **state)
{
    (void)state;
    struct conf_proxy *p = good(LISTENER(""));
    assert_false(p->listeners[0].transparent);
    assert_int_equal(p->interception.canary, CONF_CANARY_OFF);
    assert_int_equal(p->interception.interval_ms, 10000);
    conf_proxy_free(p);

    p = good(LISTENER(", transparent: true") "interception: {canary: on, interval: 2s}\n");
    assert_true(p->listeners[0].transparent);
    assert_int_equal(p->interception.canary, CONF_CANARY_ON);
    assert_int_equal(p->interception.interval_ms, 2000);
    conf_proxy_free(p);

    /* Said to be off, it may stand anywhere. */
    p = good(EXPLICIT(", transparent: false") "interception: {canary: off}\n");
    assert_false(p->listeners[0].transparent);
    conf_proxy_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
