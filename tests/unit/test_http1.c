/*
 * http1: the corpus of tests/data/http1 (its README says how a case is written), each case read
 * whole, byte by byte and in pieces; limits; what a parsed request says.
 */
#include <postern/http1.h>

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct http1_limits defaults = HTTP1_LIMITS_DEFAULT;

/* --- a stream of messages ----------------------------------------------------------------------*/

enum { STREAM_MAX = 40000, OUTCOME_MAX = 512 };

struct stream {
    bool responses;
    struct http1_request_info request; /* that the responses answer */
    const uint8_t *data;
    size_t len;
    size_t step; /* bytes that arrive at once */
    /* what came out */
    char outcome[OUTCOME_MAX];
    size_t offset; /* of the refusal */
};

static void say(struct stream *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(struct stream *s, const char *fmt, ...)
{
    size_t n = strlen(s->outcome);
    va_list ap;
    va_start(ap, fmt);
    if (n > 0) {
        n += (size_t)snprintf(s->outcome + n, OUTCOME_MAX - n, ", ");
    }
    assert_true(n < OUTCOME_MAX);
    vsnprintf(s->outcome + n, OUTCOME_MAX - n, fmt, ap);
    va_end(ap);
}

static void say_framing(struct stream *s, uint8_t framing, uint64_t length)
{
    switch ((enum http1_framing)framing) {
    case HTTP1_BODY_NONE:
        say(s, "ok none");
        break;
    case HTTP1_BODY_LENGTH:
        say(s, "ok length %llu", (unsigned long long)length);
        break;
    case HTTP1_BODY_CHUNKED:
        say(s, "ok chunked");
        break;
    case HTTP1_BODY_UNTIL_CLOSE:
        say(s, "ok close");
        break;
    }
}

static enum http1_result refused(struct stream *s, const struct http1_error *e, size_t at)
{
    say(s, "%s", http1_reason_token(e->reason));
    s->offset = at + e->offset;
    return HTTP1_ERROR;
}

/* Reads one head from `at` on, giving the reader more bytes each time. DONE: *at is behind it. */
static enum http1_result read_one_head(struct stream *s, size_t *at, uint8_t *ret_framing,
                                       uint64_t *ret_length)
{
    static struct http1_request request;
    static struct http1_response response;
    struct http1_scan scan = {0};
    struct http1_error e;
    enum http1_result result = HTTP1_MORE;
    for (size_t have = 0; result == HTTP1_MORE && have < s->len - *at;) {
        have = s->len - *at - have > s->step ? have + s->step : s->len - *at;
        result = s->responses
                     ? http1_response_read(&scan, s->data + *at, have, &defaults, &s->request,
                                           &response, &e)
                     : http1_request_read(&scan, s->data + *at, have, &defaults, &request, &e);
    }
    if (result == HTTP1_ERROR) {
        assert_int_equal(e.status, s->responses ? 502 : http1_reason_status(e.reason));
        return refused(s, &e, *at);
    }
    if (result == HTTP1_MORE) {
        return result;
    }
    *ret_framing = s->responses ? response.info.framing : request.info.framing;
    *ret_length = s->responses ? response.info.length : request.info.length;
    *at += s->responses ? response.head_len : request.head_len;
    if (s->responses && response.info.interim) {
        say(s, "interim");
    } else if (s->responses && response.info.switching) {
        say(s, "switch");
        *at = s->len;
    } else {
        say_framing(s, *ret_framing, *ret_length);
    }
    return result;
}

static enum http1_result read_one_body(struct stream *s, size_t *at, uint8_t framing,
                                       uint64_t length)
{
    struct http1_body body;
    struct http1_error e;
    size_t used = 0;
    http1_body_init(&body, (enum http1_framing)framing, length);
    enum http1_result result = http1_body_feed(&body, NULL, 0, &used, &e);
    assert_int_equal(used, 0);
    while (result == HTTP1_MORE && *at < s->len) {
        size_t n = s->len - *at < s->step ? s->len - *at : s->step;
        result = http1_body_feed(&body, s->data + *at, n, &used, &e);
        if (result == HTTP1_ERROR) {
            return refused(s, &e, *at);
        }
        assert_true(used <= n && (result == HTTP1_DONE || used == n));
        *at += used;
    }
    if (result == HTTP1_MORE && !http1_body_ends_at_eof(&body)) {
        return HTTP1_MORE;
    }
    assert_true(http1_body_ends_at_eof(&body));
    return HTTP1_DONE;
}

static void read_stream(struct stream *s)
{
    size_t at = 0;
    enum http1_result result = HTTP1_DONE;
    s->outcome[0] = '\0';
    s->offset = 0;
    while (result == HTTP1_DONE && at < s->len) {
        uint8_t framing = 0;
        uint64_t length = 0;
        result = read_one_head(s, &at, &framing, &length);
        if (result == HTTP1_DONE) {
            result = read_one_body(s, &at, framing, length);
        }
    }
    if (result == HTTP1_MORE) {
        say(s, "more");
    }
}

/* --- the corpus --------------------------------------------------------------------------------*/

static size_t put_times(uint8_t *out, size_t n, const char **text)
{
    char *end;
    unsigned long times = strtoul(*text + 1, &end, 10);
    assert_true(*end == ':' && end[1] != '\0' && end[2] == '}' && n + times <= STREAM_MAX);
    memset(out + n, end[1], times);
    *text = end + 2;
    return n + times;
}

static size_t unescape(const char *text, uint8_t out[STREAM_MAX])
{
    size_t n = 0;
    for (; *text != '\0'; text++) {
        unsigned byte;
        assert_true(n < STREAM_MAX);
        if (*text != '\\') {
            out[n++] = (uint8_t)*text;
            continue;
        }
        text++;
        switch (*text) {
        case 'r':
            out[n++] = '\r';
            break;
        case 'n':
            out[n++] = '\n';
            break;
        case 't':
            out[n++] = '\t';
            break;
        case '0':
            out[n++] = '\0';
            break;
        case '\\':
            out[n++] = '\\';
            break;
        case 'x':
            assert_int_equal(sscanf(text + 1, "%2x", &byte), 1);
            out[n++] = (uint8_t)byte;
            text += 2;
            break;
        case '{':
            n = put_times(out, n, &text);
            break;
        default:
            fail_msg("unknown escape \\%c", *text);
        }
    }
    return n;
}

static void read_kind(const char *kind, struct stream *s)
{
    char method[16] = "";
    int minor = 1;
    char upgrade[sizeof(s->request.upgrade)] = "";
    *s = (struct stream){0};
    if (strcmp(kind, "request") == 0) {
        return;
    }
    s->responses = true;
    assert_true(sscanf(kind, "response %15s %d %23s", method, &minor, upgrade) >= 2);
    s->request.method = strcmp(method, "HEAD") == 0 ? HTTP1_HEAD : HTTP1_OTHER;
    s->request.minor = (uint8_t)minor;
    s->request.keep_alive = minor != 0;
    memcpy(s->request.upgrade, upgrade, sizeof(upgrade));
}

/* Cuts at the next " :: ". */
static char *next_part(char **line)
{
    char *part = *line;
    char *end = strstr(part, " :: ");
    assert_non_null(end);
    *end = '\0';
    *line = end + 4;
    return part;
}

static int check_case(const char *file, char *line)
{
    static const size_t steps[] = {STREAM_MAX, 1, 2, 7, 64};
    static uint8_t bytes[STREAM_MAX];
    int wrong = 0;
    struct stream s;
    const char *name = next_part(&line);
    read_kind(next_part(&line), &s);
    size_t n = unescape(next_part(&line), bytes);
    /* Of exactly that size, so that a sanitizer sees a byte too many. */
    uint8_t *exact = malloc(n > 0 ? n : 1);
    assert_non_null(exact);
    memcpy(exact, bytes, n);
    s.data = exact;
    s.len = n;
    size_t first_offset = 0;
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        s.step = steps[i];
        read_stream(&s);
        first_offset = i == 0 ? s.offset : first_offset;
        if (strcmp(s.outcome, line) != 0 || s.offset != first_offset) {
            print_error("%s: %s: in steps of %zu: expected '%s' at %zu, got '%s' at %zu\n", file,
                        name, s.step, line, first_offset, s.outcome, s.offset);
            wrong++;
        }
    }
    free(exact);
    return wrong;
}

static int check_file(const char *dir, const char *file, int *ret_cases)
{
    char path[4096];
    static char line[8192];
    int wrong = 0;
    snprintf(path, sizeof(path), "%s/%s", dir, file);
    FILE *f = fopen(path, "re");
    assert_non_null(f);
    while (fgets(line, sizeof(line), f) != NULL) {
        size_t n = strcspn(line, "\n");
        assert_true(line[n] == '\n');
        line[n] = '\0';
        if (line[0] != '#' && line[0] != '\0') {
            wrong += check_case(file, line);
            ++*ret_cases;
        }
    }
    fclose(f);
    return wrong;
}

static void test_corpus(void **state)
{
    (void)state;
    int n_cases = 0;
    int wrong = 0;
    DIR *d = opendir(TEST_DATA_DIR);
    assert_non_null(d);
    struct dirent *e;
    while ((e = readdir(d)) != NULL) {
        size_t n = strlen(e->d_name);
        if (n > 4 && strcmp(e->d_name + n - 4, ".txt") == 0) {
            wrong += check_file(TEST_DATA_DIR, e->d_name, &n_cases);
        }
    }
    closedir(d);
    print_message("%d cases, %d wrong\n", n_cases, wrong);
    assert_true(n_cases >= 500);
    assert_int_equal(wrong, 0);
}

/* --- limits ------------------------------------------------------------------------------------*/

static enum http1_reason read_with(const char *text, const struct http1_limits *limits,
                                   size_t *ret_offset)
{
    static struct http1_request request;
    struct http1_scan scan = {0};
    struct http1_error e = {HTTP1_NONE, 0, 0};
    (void)http1_request_read(&scan, (const uint8_t *)text, strlen(text), limits, &request, &e);
    *ret_offset = e.offset;
    return e.reason;
}

static void test_limits(void **state)
{
    (void)state;
    static const char text[] = "GET /abc HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n";
    const size_t len = sizeof(text) - 1;
    size_t at;
    struct http1_limits l = defaults;
    l.max_head = len - 1;
    assert_int_equal(read_with(text, &l, &at), HTTP1_HEAD_LONG);
    assert_int_equal(at, len - 1);
    l.max_head = len;
    assert_int_equal(read_with(text, &l, &at), HTTP1_NONE);
    l.max_headers = 1;
    assert_int_equal(read_with(text, &l, &at), HTTP1_HEADERS_MANY);
    l.max_headers = 2;
    assert_int_equal(read_with(text, &l, &at), HTTP1_NONE);
    l.max_target = 3;
    assert_int_equal(read_with(text, &l, &at), HTTP1_TARGET_LONG);
    assert_int_equal(at, 7);
    l.max_target = 4;
    assert_int_equal(read_with(text, &l, &at), HTTP1_NONE);

    l = defaults;
    l.max_body = 10;
    const char *ten = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n";
    assert_int_equal(read_with(ten, &l, &at), HTTP1_NONE);
    l.max_body = 9;
    assert_int_equal(read_with(ten, &l, &at), HTTP1_BODY_LONG);
    l.max_body = 0;
    assert_int_equal(read_with(ten, &l, &at), HTTP1_NONE);
}

static void test_reasons_are_complete(void **state)
{
    (void)state;
    for (unsigned r = HTTP1_NONE + 1; r < HTTP1_REASON_COUNT; r++) {
        unsigned status = http1_reason_status((enum http1_reason)r);
        assert_true(status >= 400 && status <= 505);
        assert_string_not_equal(http1_status_text(status), "Error");
        assert_true(strlen(http1_reason_text((enum http1_reason)r)) > 5);
        for (unsigned other = 0; other < r; other++) {
            assert_string_not_equal(http1_reason_token((enum http1_reason)r),
                                    http1_reason_token((enum http1_reason)other));
        }
    }
}

/* docs/http.md explains each token. */
static void test_reasons_are_documented(void **state)
{
    (void)state;
    static char page[65536];
    FILE *f = fopen(TEST_DOCS_DIR "/http.md", "re");
    assert_non_null(f);
    size_t n = fread(page, 1, sizeof(page) - 1, f);
    fclose(f);
    page[n] = '\0';
    for (unsigned r = HTTP1_NONE + 1; r < HTTP1_REASON_COUNT; r++) {
        char token[64];
        snprintf(token, sizeof(token), "`%s`", http1_reason_token((enum http1_reason)r));
        if (strstr(page, token) == NULL) {
            fail_msg("docs/http.md does not explain %s", token);
        }
    }
}

/* --- what a request says -----------------------------------------------------------------------*/

static void assert_str(struct str s, const char *expected)
{
    char text[512];
    assert_true(s.n < sizeof(text));
    if (s.n > 0) {
        memcpy(text, s.p, s.n);
    }
    text[s.n] = '\0';
    assert_string_equal(text, expected);
}

static void test_views(void **state)
{
    (void)state;
    static const struct {
        const char *line; /* method and target */
        const char *host;
        const char *path, *query, *judged_path, *judged_host;
    } cases[] = {
        {"GET /", "a", "/", "", "/", "a"},
        {"GET /?", "a", "/", "", "/", "a"},
        {"GET /a%20b%c3%a9?x=%20", "a", "/a%20b%c3%a9", "x=%20", "/a b\xc3\xa9", "a"},
        {"GET /users/%40me%25", "a", "/users/%40me%25", "", "/users/@me%", "a"},
        {"GET /A/B", "Orders.Example.ORG.:8080", "/A/B", "", "/A/B", "orders.example.org"},
        {"GET /", "[2001:DB8::1]:80", "/", "", "/", "[2001:db8::1]"},
        {"GET /", "10.1.2.3:65535", "/", "", "/", "10.1.2.3"},
        {"GET http://A.b", "a.B", "/", "", "/", "a.b"},
        {"GET http://a?q", "a:80", "/", "q", "/", "a"},
        {"GET http://a/x%20?q", "a", "/x%20", "q", "/x ", "a"},
        {"OPTIONS http://a", "a", "*", "", "*", "a"},
        {"OPTIONS *", "a", "*", "", "*", "a"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        static struct http1_request r;
        char text[256];
        struct http1_scan scan = {0};
        struct http1_error e;
        int n = snprintf(text, sizeof(text), "%s HTTP/1.1\r\nHost: %s\r\n\r\nrest", cases[i].line,
                         cases[i].host);
        assert_int_equal(
            http1_request_read(&scan, (const uint8_t *)text, (size_t)n, &defaults, &r, &e),
            HTTP1_DONE);
        assert_int_equal(r.head_len, n - 4);
        assert_str(r.path, cases[i].path);
        assert_str(r.query, cases[i].query);
        assert_int_equal(r.has_query, strchr(cases[i].line, '?') != NULL);
        assert_str(r.judged_path, cases[i].judged_path);
        assert_str(r.host, cases[i].judged_host);
        assert_str(http1_request_header(&r, "host"), cases[i].host);
        assert_null(http1_request_header(&r, "x-none").p);
    }
}

static void test_info(void **state)
{
    (void)state;
    static const struct {
        const char *head;
        bool keep_alive, expects_100;
        const char *upgrade;
    } cases[] = {
        {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", true, false, ""},
        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", false, false, ""},
        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, CLOSE\r\n\r\n", false, false, ""},
        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: closed\r\n\r\n", true, false, ""},
        /* RFC 9112 9.3: a proxy does not keep a connection to an HTTP/1.0 client. */
        {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", false, false, ""},
        {"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n", true,
         true, ""},
        {"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-CONTINUE\r\n\r\n",
         true, true, ""},
        /* RFC 9110 10.1.1: not without content, and ignored from HTTP/1.0. */
        {"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nExpect: 100-continue\r\n\r\n", true,
         false, ""},
        {"PUT / HTTP/1.0\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n", false, false, ""},
        /* RFC 9110 7.8: Upgrade counts with its Connection option only, and not in HTTP/1.0. */
        {"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n", true, false, ""},
        {"GET / HTTP/1.0\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n", false, false, ""},
        {"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n"
         "\r\n",
         true, false, "websocket"},
        {"POST / HTTP/1.1\r\nHost: a\r\nUpgrade: SPDY/3.1\r\nConnection: Upgrade\r\n"
         "Content-Length: 0\r\n\r\n",
         true, false, "spdy/3.1"},
        /* What would carry requests past the policy is not asked for. */
        {"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", true, false,
         ""},
        {"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: H2C\r\nConnection: Upgrade\r\n\r\n", true, false,
         ""},
        {"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: HTTP/2.0\r\nConnection: Upgrade\r\n\r\n", true,
         false, ""},
        {"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: TLS/1.0\r\nConnection: Upgrade\r\n\r\n", true,
         false, ""},
        {"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket, h2c\r\nConnection: Upgrade\r\n\r\n",
         true, false, ""},
        {"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nUpgrade: h2c\r\nConnection: "
         "Upgrade\r\n"
         "\r\n",
         true, false, ""},
        {"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: a-protocol-of-a-very-long-name\r\n"
         "Connection: Upgrade\r\n\r\n",
         true, false, ""},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        static struct http1_request r;
        struct http1_scan scan = {0};
        struct http1_error e;
        assert_int_equal(http1_request_read(&scan, (const uint8_t *)cases[i].head,
                                            strlen(cases[i].head), &defaults, &r, &e),
                         HTTP1_DONE);
        assert_int_equal(r.info.keep_alive, cases[i].keep_alive);
        assert_int_equal(r.info.expects_100, cases[i].expects_100);
        assert_string_equal(r.info.upgrade, cases[i].upgrade);
    }
}

/* --- bodies ------------------------------------------------------------------------------------*/

static void test_body_bounds(void **state)
{
    (void)state;
    struct http1_body b;
    struct http1_error e;
    size_t used = 99;
    /* Extensions: each line in bounds, the message not. */
    http1_body_init(&b, HTTP1_BODY_CHUNKED, 0);
    char chunk[256];
    int n = snprintf(chunk, sizeof(chunk), "1;%0200d\r\nx\r\n", 0);
    enum http1_result result = HTTP1_MORE;
    unsigned chunks = 0;
    while (result == HTTP1_MORE && chunks < 1000) {
        result = http1_body_feed(&b, (const uint8_t *)chunk, (size_t)n, &used, &e);
        chunks++;
    }
    assert_int_equal(result, HTTP1_ERROR);
    assert_int_equal(e.reason, HTTP1_CHUNK_EXTENSION);
    assert_in_range(chunks, 60, 100);

    /* Trailers: each short, too many of them. */
    http1_body_init(&b, HTTP1_BODY_CHUNKED, 0);
    assert_int_equal(http1_body_feed(&b, (const uint8_t *)"0\r\n", 3, &used, &e), HTTP1_MORE);
    for (chunks = 0, result = HTTP1_MORE; result == HTTP1_MORE && chunks < 1000; chunks++) {
        result = http1_body_feed(&b, (const uint8_t *)"x:\r\n", 4, &used, &e);
    }
    assert_int_equal(e.reason, HTTP1_TRAILER_LONG);
    assert_int_equal(chunks, 33);
    assert_int_equal(used, 0);

    /* None and a length of 0 are over at once. */
    http1_body_init(&b, HTTP1_BODY_NONE, 7);
    assert_int_equal(http1_body_feed(&b, (const uint8_t *)"abc", 3, &used, &e), HTTP1_DONE);
    assert_int_equal(used, 0);
    http1_body_init(&b, HTTP1_BODY_LENGTH, 0);
    assert_int_equal(http1_body_feed(&b, (const uint8_t *)"abc", 3, &used, &e), HTTP1_DONE);
    assert_int_equal(used, 0);
    /* Cut short. */
    http1_body_init(&b, HTTP1_BODY_LENGTH, 4);
    assert_int_equal(http1_body_feed(&b, (const uint8_t *)"abc", 3, &used, &e), HTTP1_MORE);
    assert_false(http1_body_ends_at_eof(&b));
    assert_int_equal(http1_body_feed(&b, (const uint8_t *)"def", 3, &used, &e), HTTP1_DONE);
    assert_int_equal(used, 1);
    assert_true(http1_body_ends_at_eof(&b));
    assert_int_equal(http1_body_feed(&b, (const uint8_t *)"def", 3, &used, &e), HTTP1_DONE);
    assert_int_equal(used, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_corpus),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_reasons_are_complete),
        cmocka_unit_test(test_reasons_are_documented),
        cmocka_unit_test(test_views),
        cmocka_unit_test(test_info),
        cmocka_unit_test(test_body_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
