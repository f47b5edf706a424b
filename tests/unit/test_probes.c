/* probes: the little HTTP that they speak, and what a file may say of them. Bad cases first. */
#include <postern/conf.h>
#include <postern/probes.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct {
    const char *text;
    enum probes_parsed want;
    const char *target;
} heads[] = {
    {"POST /probe/x HTTP/1.1\r\n\r\n", PROBES_BAD, NULL},
    {"get /probe/x HTTP/1.1\r\n\r\n", PROBES_BAD, NULL},
    {"\x16\x03\x01", PROBES_BAD, NULL},
    {"GET /probe/x HTTP/2.0\r\n\r\n", PROBES_BAD, NULL},
    {"GET /probe/x\r\n\r\n", PROBES_BAD, NULL},
    {"GET \r\n\r\n", PROBES_BAD, NULL},
    {"GET /probe/x y HTTP/1.1\r\n\r\n", PROBES_BAD, NULL},
    {"GET /probe/\x01 HTTP/1.1\r\n\r\n", PROBES_BAD, NULL},
    {"", PROBES_MORE, NULL},
    {"GE", PROBES_MORE, NULL},
    {"GET /probe/x HTTP/1.1\r\nHost: a\r\n", PROBES_MORE, NULL},
    {"GET /probe/x HTTP/1.1\nHost: a\n\n", PROBES_MORE, NULL},
    {"GET /probe/x HTTP/1.1\r\nHost: a\r\n\r\n", PROBES_DONE, "/probe/x"},
    {"GET / HTTP/1.0\r\n\r\nmore", PROBES_DONE, "/"},
};

static void test_heads(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
        struct str target = STR_NONE;
        assert_int_equal(probes_read_head(str_of(heads[i].text), &target), heads[i].want);
        if (heads[i].want == PROBES_DONE) {
            assert_true(str_eq(target, str_of(heads[i].target)));
        }
    }
    char long_head[PROBES_HEAD_MAX + 1];
    memset(long_head, 'a', sizeof(long_head));
    memcpy(long_head, "GET /", 5);
    struct str target;
    struct str text = {long_head, PROBES_HEAD_MAX};
    assert_int_equal(probes_read_head(text, &target), PROBES_BAD);
    text.n--;
    assert_int_equal(probes_read_head(text, &target), PROBES_MORE);
}

static const struct {
    const char *text;
    enum probes_parsed want;
    unsigned status;
} answers[] = {
    {"220 mail", PROBES_BAD, 0},
    {"HTTP/2 200\r\n", PROBES_BAD, 0},
    {"HTTP/1.1 20x\r\n", PROBES_BAD, 0},
    {"HTTP/1.1 100 Continue\r\n", PROBES_BAD, 0},
    {"HTTP/1.1 999 X\r\n", PROBES_BAD, 0},
    {"HTTP/1.1 2000\r\n", PROBES_BAD, 0},
    {"", PROBES_MORE, 0},
    {"HTTP/1.", PROBES_MORE, 0},
    {"HTTP/1.1 200", PROBES_MORE, 0},
    {"HTTP/1.1 200 ", PROBES_DONE, 200},
    {"HTTP/1.0 503\r", PROBES_DONE, 503},
};

static void test_answers(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
        unsigned status = 0;
        assert_int_equal(probes_read_status(str_of(answers[i].text), &status), answers[i].want);
        assert_int_equal(status, answers[i].status);
    }
}

#define TEXT(s) {(s), sizeof(s) - 1}
static const struct {
    struct str message;
    bool serving;
} healths[] = {
    {TEXT(""), false},
    {TEXT("\x08\x00"), false},
    {TEXT("\x08\x02"), false},
    {TEXT("\x08"), false},
    {TEXT("\x08\x81"), false},
    {TEXT("\x08\x01\x08"), false},
    {TEXT("\x0a\x01"), false},
    {TEXT("\x0a\x02\x08\x01"), false}, /* a text, and not the status */
    {TEXT("\x08\x01\x0b"), false},     /* a group */
    {TEXT("\x08\x01\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), false},
    {TEXT("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), false},
    {TEXT("\x08\x01\x08\x02"), false}, /* the last one counts */
    {TEXT("\x08\x01"), true},
    {TEXT("\x08\x02\x08\x01"), true},
    {TEXT("\x12\x02\x61\x62\x08\x01\x18\x05"), true},
};

static void test_health(void **state)
{
    struct buf out = BUF_INIT(4096);
    char service[200];
    (void)state;
    for (size_t i = 0; i < sizeof(healths) / sizeof(healths[0]); i++) {
        if (probes_read_health(healths[i].message) != healths[i].serving) {
            fail_msg("answer %zu", i);
        }
    }
    assert_true(probes_write_health("", &out) && buf_len(&out) == 0);
    assert_true(probes_write_health("a.b", &out));
    assert_true(str_eq(buf_str(&out), STR_LIT("\x0a\x03\x61.b")));
    buf_reset(&out);
    memset(service, 'a', sizeof(service) - 1);
    service[sizeof(service) - 1] = '\0';
    assert_true(probes_write_health(service, &out) && buf_len(&out) == 3 + 199);
    assert_memory_equal(buf_head(&out), "\x0a\xc7\x01", 3);
    buf_reset(&out);
}

static const char *const bad_files[] = {
    "address: 127.0.0.1:1\n  list: [{name: a, port: 1, service: x}]\n",
    "address: 127.0.0.1:1\n  list: [{name: a, port: 1, protocol: http, service: x}]\n",
    "address: 127.0.0.1:1\n  list: [{name: a, port: 1, protocol: grpc, path: /x}]\n",
    "address: 127.0.0.1:1\n  list: []\n",
    "list: [{name: a, port: 1}]\n",
    "address: 127.0.0.1:1\n  list: [{name: a, port: 0}]\n",
    "address: 127.0.0.1:1\n  list: [{name: a, port: 1}, {name: a, port: 2}]\n",
    "address: 127.0.0.1:1\n  list: [{name: a, port: 1, path: /}]\n",
    "address: 127.0.0.1:1\n  list: [{name: a, port: 1, protocol: http, path: x}]\n",
    "address: 127.0.0.1:1\n  list: [{name: a, port: 1, protocol: http, path: \"/ x\"}]\n",
    "address: 127.0.0.1:1\n  list: [{name: a, port: 1, protocol: http, path: \"/\\r\\n\"}]\n",
    "address: 127.0.0.1:1\n  list: [{name: a, port: 1, protocol: http, host: \"a\\r\\nb: c\"}]\n",
    "address: 127.0.0.1:1\n  list: [{name: a, port: 1, protocol: http, headers: [x]}]\n",
    "address: 127.0.0.1:1\n  list: [{name: a, port: 1, protocol: http, headers: [\"A: b\\nc\"]}]\n",
    "address: 127.0.0.1:1\n  list: [{name: a, port: 1, protocol: http, headers: [\"Host: b\"]}]\n",
    "address: 127.0.0.1:1\n  list: [{name: a, port: 1, protocol: http, headers: [\"a b: c\"]}]\n",
};
#define FILE_HEAD                                                                                  \
    "kind: Proxy\nlevel: 1\nlisteners: [{name: a, direction: inbound, capture: intercepted, "      \
    "address: '127.0.0.1:9'}]\nprobes:\n  "

static int load(const char *probes, struct conf_proxy **ret)
{
    struct conf_diag *diag = conf_diag_new();
    struct buf text = BUF_INIT(1 << 16);
    assert_true(buf_printf(&text, "%s%s", FILE_HEAD, probes));
    int r = conf_parse_proxy("f", (const char *)buf_head(&text), buf_len(&text), diag, ret);
    buf_reset(&text);
    conf_diag_free(diag);
    return r;
}

static void test_files(void **state)
{
    struct conf_proxy *conf = NULL;
    (void)state;
    for (size_t i = 0; i < sizeof(bad_files) / sizeof(bad_files[0]); i++) {
        if (load(bad_files[i], &conf) != -1) {
            fail_msg("%s", bad_files[i]);
        }
    }
    assert_int_equal(load("address: 127.0.0.1:1\n  list: [{name: a.b, port: 1}, {name: c, port: 2, "
                          "protocol: http, path: /x, headers: [\"A: b c\"]}]\n",
                          &conf),
                     0);
    struct buf out = BUF_INIT(4096);
    assert_true(probes_write_request(&conf->probes.items[1], "10.0.0.1:2", &out));
    assert_true(str_eq(buf_str(&out),
                       STR_LIT("GET /x HTTP/1.1\r\nHost: 10.0.0.1:2\r\nA: b c\r\nUser-Agent: "
                               "kube-probe/postern\r\nAccept: */*\r\nConnection: close\r\n\r\n")));
    buf_reset(&out);
    conf_proxy_free(conf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_heads),
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_health),
        cmocka_unit_test(test_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
