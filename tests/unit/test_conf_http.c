/* What Proxy and Gateway files say of HTTP: bad cases first. */
#include <postern/conf.h>
#include <postern/http1.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static const char HEAD[] = "kind: Proxy\nlevel: 1\nidentity: {socket: \"unix:/s\"}\n";
static const char GATEWAY[] = "kind: Gateway\nlevel: 1\npolicy: p.yaml\n"
                              "identity: {socket: \"unix:/s\"}\n"
                              "listeners:\n  - name: in\n    address: 127.0.0.1:1\n";
#define LISTENER                                                                                   \
    "listeners:\n  - name: in\n    direction: inbound\n    capture: intercepted\n"                 \
    "    address: 0.0.0.0:1\n    ports:\n      - port: 80\n"
#define EXPLICIT                                                                                   \
    "listeners:\n  - name: in\n    direction: inbound\n    capture: explicit\n"                    \
    "    address: 0.0.0.0:1\n    to: 127.0.0.1:2\n"
#define HTTP "        protocol: http\n"

static int parse(const char *head, const char *text, struct conf_proxy **ret, char *said,
                 size_t size)
{
    char all[4000];
    struct conf_diag *diag = conf_diag_new();
    snprintf(all, sizeof(all), "%s%s", head, text);
    int rc = head == GATEWAY ? conf_parse_gateway("/etc/f.yaml", all, strlen(all), diag, ret)
                             : conf_parse_proxy("/etc/f.yaml", all, strlen(all), diag, ret);
    said[0] = '\0';
    if (conf_diag_count(diag) > 0) {
        err_text(conf_diag_get(diag, 0), said, size);
    }
    conf_diag_free(diag);
    return rc;
}

static void test_bad(void **state)
{
    static const struct {
        const char *head, *text, *says;
    } cases[] = {
        {HEAD, LISTENER "        paths: {allow: [semicolon]}\n", "no request is read there"},
        {HEAD, LISTENER "        connect: [\"a:1\"]\n", "no request is read there"},
        {HEAD, LISTENER "        rate_limits: [{rate: 1}]\n", "no request is read there"},
        {HEAD, EXPLICIT "    paths: {allow: [semicolon]}\n", "no request is read there"},
        {HEAD, EXPLICIT "    protocol: tcp\n    connect: [\"a:1\"]\n", "no request is read there"},
        {GATEWAY,
         "    type: client\n    to: a.b:1\n    identities: [\"spiffe://a/b\"]\n"
         "    rate_limits: [{rate: 1}]\n",
         "no request is read there"},
        {HEAD, LISTENER HTTP "        paths: {}\n", "missing key 'allow'"},
        {HEAD, LISTENER HTTP "        paths: {allow: []}\n", "leave 'paths' out"},
        {HEAD, LISTENER HTTP "        paths: {allow: [everything]}\n", "'everything'"},
        {HEAD, LISTENER HTTP "        paths: {allow: semicolon}\n", "allow"},
        {HEAD, LISTENER HTTP "        connect: []\n", "to refuse CONNECT"},
        {HEAD, LISTENER HTTP "        connect: [a]\n", "no target of CONNECT"},
        {HEAD, LISTENER HTTP "        connect: [\"a:\"]\n", "no target of CONNECT"},
        {HEAD, LISTENER HTTP "        connect: [\":1\"]\n", "no target of CONNECT"},
        {HEAD, LISTENER HTTP "        connect: [\"a:0\"]\n", "no target of CONNECT"},
        {HEAD, LISTENER HTTP "        connect: [\"a:01\"]\n", "no target of CONNECT"},
        {HEAD, LISTENER HTTP "        connect: [\"a:65536\"]\n", "no target of CONNECT"},
        {HEAD, LISTENER HTTP "        connect: [\"A.b:1\"]\n", "no target of CONNECT"},
        {HEAD, LISTENER HTTP "        connect: [\"*:1\"]\n", "no target of CONNECT"},
        {HEAD, LISTENER HTTP "        connect: [\"*.:1\"]\n", "no target of CONNECT"},
        {HEAD, LISTENER HTTP "        connect: [\"a.*:1\"]\n", "no target of CONNECT"},
        {HEAD, LISTENER HTTP "        connect: [\"[::1:1\"]\n", "no target of CONNECT"},
        {HEAD, LISTENER HTTP "        rate_limits: []\n", "to have none"},
        {HEAD, LISTENER HTTP "        rate_limits: [{}]\n", "missing key 'rate'"},
        {HEAD, LISTENER HTTP "        rate_limits: [{rate: 0}]\n", "rate"},
        {HEAD, LISTENER HTTP "        rate_limits: [{rate: 1, burst: 0}]\n", "burst"},
        {HEAD, LISTENER HTTP "        rate_limits: [{rate: 1, per: peer}]\n", "'peer'"},
        {HEAD, LISTENER HTTP "        rate_limits: [{rate: 1, methods: [get]}]\n", "no method"},
        {HEAD, LISTENER HTTP "        rate_limits: [{rate: 1, methods: []}]\n", "count all"},
        {HEAD, LISTENER HTTP "        rate_limits: [{rate: 1, paths: [a]}]\n", "no path"},
        {HEAD, LISTENER HTTP "        rate_limits: [{rate: 1, paths: [\"/a*b\"]}]\n", "no path"},
        {HEAD, LISTENER HTTP "        rate_limits: [{rate: 1, paths: [\"*a*\"]}]\n", "no path"},
        {HEAD, "timeouts: {upstream_idle: 0s}\n" LISTENER, "upstream_idle"},
        {HEAD, "limits: {request_headers: 101}\n" LISTENER, "101"},
        {HEAD, "http: {via: always}\n" LISTENER, "'always'"},
        {HEAD, "http: {traces: none}\n" LISTENER, "'none'"},
        {HEAD, "http: {upstream_pool: all}\n" LISTENER, "'all'"},
        {HEAD, "http: {retry_budget: 101}\n" LISTENER, "101"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char said[2000];
        struct conf_proxy *conf = NULL;
        int rc = parse(cases[i].head, cases[i].text, &conf, said, sizeof(said));
        if (rc == 0 || strstr(said, cases[i].says) == NULL) {
            fail_msg("case %zu: %s", i, said);
        }
        conf_proxy_free(conf);
    }
}

static void test_good(void **state)
{
    char said[2000];
    struct conf_proxy *p = NULL;
    (void)state;
    assert_int_equal(parse(HEAD,
                           "timeouts: {request: 1m, request_body: 0s, response_head: 2s, "
                           "upstream_idle: 1s}\n"
                           "limits: {request_body_bytes: 5GiB, request_body_rate: 100, "
                           "request_headers: 50, upstream_idle: 0}\n"
                           "http: {via: both, traces: keep, upstream_pool: shared, "
                           "retry_budget: 0}\n" LISTENER HTTP
                           "        paths: {allow: [semicolon, overlong]}\n"
                           "        connect: [\"db.example:5432\", \"*.internal:443\", "
                           "\"[::1]:1\", \"10.0.0.1:80\"]\n"
                           "        rate_limits:\n"
                           "          - {methods: [POST], paths: [\"/a\", \"/b/*\", \"*.pdf\", "
                           "\"*\"], per: route, rate: 5, burst: 10}\n"
                           "          - {rate: 3}\n",
                           &p, said, sizeof(said)),
                     0);
    assert_string_equal(said, "");
    const struct conf_http *h = &p->listeners[0].ports[0].http;
    assert_int_equal(h->allow_paths, HTTP1_PATH_SEMICOLON | HTTP1_PATH_OVERLONG);
    assert_int_equal(h->n_connect, 4);
    assert_string_equal(h->connect[1], "*.internal:443");
    assert_int_equal(h->n_rate_limits, 2);
    assert_int_equal(h->rate_limits[0].per, CONF_RATE_ROUTE);
    assert_int_equal(h->rate_limits[0].n_paths, 4);
    assert_int_equal(h->rate_limits[0].burst, 10);
    assert_int_equal(h->rate_limits[1].per, CONF_RATE_IDENTITY);
    assert_int_equal(h->rate_limits[1].burst, 0);
    assert_int_equal(p->timeouts.request_ms, 60000);
    assert_int_equal(p->timeouts.request_body_ms, 0);
    assert_int_equal(p->timeouts.response_head_ms, 2000);
    assert_true(p->limits.request_body_bytes == UINT64_C(5) << 30);
    assert_int_equal(p->limits.upstream_idle, 0);
    assert_int_equal(p->http.via, CONF_VIA_BOTH);
    assert_int_equal(p->http.traces, CONF_TRACES_KEEP);
    assert_int_equal(p->http.upstream_pool, CONF_POOL_SHARED);
    assert_int_equal(p->http.retry_percent, 0);
    conf_proxy_free(p);
    /* What nobody says. */
    assert_int_equal(parse(HEAD, EXPLICIT "    protocol: http\n", &p, said, sizeof(said)), 0);
    assert_int_equal(p->http.via, CONF_VIA_REQUESTS);
    assert_int_equal(p->http.traces, CONF_TRACES_BEGIN);
    assert_int_equal(p->http.upstream_pool, CONF_POOL_PER_CLIENT);
    assert_int_equal(p->http.retry_percent, 20);
    assert_int_equal(p->timeouts.request_ms, 0);
    assert_int_equal(p->timeouts.response_head_ms, 300000);
    assert_int_equal(p->limits.request_headers, 100);
    assert_int_equal(p->listeners[0].http.allow_paths, 0);
    conf_proxy_free(p);
    assert_int_equal(parse(GATEWAY,
                           "    type: server\n    to: a.b:1\n    protocol: http\n"
                           "    rate_limits: [{rate: 1}]\nhttp: {via: \"off\"}\n",
                           &p, said, sizeof(said)),
                     0);
    assert_int_equal(p->listeners[0].http.n_rate_limits, 1);
    assert_int_equal(p->http.via, CONF_VIA_OFF);
    conf_proxy_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_good),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
