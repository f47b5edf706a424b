/*
 * The head of a message, byte by byte (RFC 9112 2 to 5).
 *
 * The scanner looks at each byte once and refuses the first one that has no place in a head, so it
 * gives the same answer whether the head comes whole or a byte at a time. It keeps 12 bytes of
 * state. Once the empty line is there, the lines are cut by plain searches that cannot fail.
 */
#include <postern/http1.h>

#include "http1_priv.h"

#include <postern/err.h>

/* One letter a kind of byte. The query takes what the target takes; a path less. */
#define V HTTP1_VALUE        /* blanks, " < > and backslash, 8 bits */
#define Q (V | HTTP1_TARGET) /* ? { } */
#define E (Q | HTTP1_PATH)   /* ( ) , / : ; = @ [ ] */
#define T (V | HTTP1_TOKEN)  /* # */
#define B (T | HTTP1_TARGET) /* backquote */
#define K (B | HTTP1_PATH)   /* the other marks of a token */
#define A (K | HTTP1_ALNUM)  /* letters */
#define X (A | HTTP1_HEXDIG) /* a to f */
#define D (X | HTTP1_DIGIT)  /* 0 to 9 */

/* clang-format off */
const uint8_t http1_class[256] = {
    0, 0, 0, 0, 0, 0, 0, 0, 0, V, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    V, K, V, T, K, K, K, K, E, E, K, K, E, K, K, E,
    D, D, D, D, D, D, D, D, D, D, E, E, V, E, V, Q,
    E, X, X, X, X, X, X, A, A, A, A, A, A, A, A, A,
    A, A, A, A, A, A, A, A, A, A, A, E, V, E, K, K,
    B, X, X, X, X, X, X, A, A, A, A, A, A, A, A, A,
    A, A, A, A, A, A, A, A, A, A, A, Q, K, Q, K, 0,
    V, V, V, V, V, V, V, V, V, V, V, V, V, V, V, V,
    V, V, V, V, V, V, V, V, V, V, V, V, V, V, V, V,
    V, V, V, V, V, V, V, V, V, V, V, V, V, V, V, V,
    V, V, V, V, V, V, V, V, V, V, V, V, V, V, V, V,
    V, V, V, V, V, V, V, V, V, V, V, V, V, V, V, V,
    V, V, V, V, V, V, V, V, V, V, V, V, V, V, V, V,
    V, V, V, V, V, V, V, V, V, V, V, V, V, V, V, V,
    V, V, V, V, V, V, V, V, V, V, V, V, V, V, V, V,
};
/* clang-format on */

/* Common methods first; `second`: llhttp 8.1 and 9.2 both know them as HTTP methods. */
static const struct {
    struct str name;
    bool second;
} methods[] = {
    {NAME_OF("GET"), true},
    {NAME_OF("POST"), true},
    {NAME_OF("PUT"), true},
    {NAME_OF("HEAD"), true},
    {NAME_OF("DELETE"), true},
    {NAME_OF("PATCH"), true},
    {NAME_OF("OPTIONS"), true},
    {NAME_OF("TRACE"), true},
    {NAME_OF("ACL"), true},
    {NAME_OF("BASELINE-CONTROL"), false},
    {NAME_OF("BIND"), true},
    {NAME_OF("CHECKIN"), false},
    {NAME_OF("CHECKOUT"), true},
    {NAME_OF("COPY"), true},
    {NAME_OF("LABEL"), false},
    {NAME_OF("LINK"), true},
    {NAME_OF("LOCK"), true},
    {NAME_OF("MERGE"), true},
    {NAME_OF("MKACTIVITY"), true},
    {NAME_OF("MKCALENDAR"), true},
    {NAME_OF("MKCOL"), true},
    {NAME_OF("MKREDIRECTREF"), false},
    {NAME_OF("MKWORKSPACE"), false},
    {NAME_OF("MOVE"), true},
    {NAME_OF("NOTIFY"), true},
    {NAME_OF("ORDERPATCH"), false},
    {NAME_OF("PROPFIND"), true},
    {NAME_OF("PROPPATCH"), true},
    {NAME_OF("PURGE"), true},
    {NAME_OF("QUERY"), false},
    {NAME_OF("REBIND"), true},
    {NAME_OF("REPORT"), true},
    {NAME_OF("SEARCH"), true},
    {NAME_OF("SUBSCRIBE"), true},
    {NAME_OF("UNBIND"), true},
    {NAME_OF("UNCHECKOUT"), false},
    {NAME_OF("UNLINK"), true},
    {NAME_OF("UNLOCK"), true},
    {NAME_OF("UNSUBSCRIBE"), true},
    {NAME_OF("UPDATE"), false},
    {NAME_OF("UPDATEREDIRECTREF"), false},
    {NAME_OF("VERSION-CONTROL"), false},
};
enum { METHOD_MAX = 20 };

bool http1_method_known(struct str method, bool *ret_second)
{
    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
        if (str_eq(method, methods[i].name)) {
            *ret_second = methods[i].second;
            return true;
        }
    }
    return false;
}

/* --- reasons -----------------------------------------------------------------------------------*/

static const struct {
    const char *token;
    const char *text;
    unsigned status;
} reasons[] = {
#define REASON_ROW(name, token, status, text) {token, text, status},
    HTTP1_REASONS(REASON_ROW)
#undef REASON_ROW
};

const char *http1_reason_token(enum http1_reason reason)
{
    POSTERN_ASSERT((size_t)reason < HTTP1_REASON_COUNT);
    return reasons[reason].token;
}

const char *http1_reason_text(enum http1_reason reason)
{
    POSTERN_ASSERT((size_t)reason < HTTP1_REASON_COUNT);
    return reasons[reason].text;
}

unsigned http1_reason_status(enum http1_reason reason)
{
    POSTERN_ASSERT((size_t)reason < HTTP1_REASON_COUNT);
    return reasons[reason].status;
}

/* --- the scanner -------------------------------------------------------------------------------*/

/* What a byte means where it stands. The request's first state is 0, so that a zeroed scan is one
 * at its beginning; a response's is set by the first call. */
enum state {
    METHOD,
    TARGET,
    PROTOCOL, /* `match` bytes of "HTTP/" have been seen */
    MAJOR,
    DOT,
    MINOR,
    AFTER_VERSION,
    STATUS, /* `match` digits have been seen */
    AFTER_STATUS,
    REASON,
    LINE_LF,
    FIELD_START,
    NAME,
    VALUE,
    VALUE_LF,
    END_LF,
    OVER,
};

struct run {
    struct http1_scan *scan;
    enum http1_kind kind;
    const uint8_t *data;
    size_t end;
    const struct http1_limits *limits;
    enum http1_reason reason;
    size_t offset;
};

/* Records why byte i is refused; returns false, which ends the run. */
static bool refuse(struct run *run, enum http1_reason reason, size_t i)
{
    run->reason = reason;
    run->offset = i;
    return false;
}

static bool method_byte(struct run *run, uint8_t c, size_t i)
{
    struct http1_scan *s = run->scan;
    if (c != ' ') {
        if (i == 0 && (c == '\r' || c == '\n')) {
            return refuse(run, HTTP1_EMPTY_LINE, i);
        }
        if (!http1_is(c, HTTP1_TOKEN)) {
            return refuse(run, c == '\n' ? HTTP1_BARE_LF : HTTP1_METHOD_MALFORMED, i);
        }
        return i < METHOD_MAX ? true : refuse(run, HTTP1_METHOD_UNKNOWN, i);
    }
    struct str method = {(const char *)run->data, i};
    bool second;
    if (i == 0) {
        return refuse(run, HTTP1_METHOD_MALFORMED, i);
    }
    bool connect = str_eq(method, STR_LIT("CONNECT"));
    if (connect && !run->limits->connect) {
        return refuse(run, HTTP1_METHOD_CONNECT, 0);
    }
    if (str_eq(method, STR_LIT("PRI"))) {
        return refuse(run, HTTP1_HTTP2_PREFACE, 0);
    }
    if (!connect && !http1_method_known(method, &second)) {
        return refuse(run, HTTP1_METHOD_UNKNOWN, 0);
    }
    s->state = TARGET;
    s->mark = (uint32_t)i + 1;
    return true;
}

static bool target_byte(struct run *run, uint8_t c, size_t i)
{
    struct http1_scan *s = run->scan;
    if (http1_is(c, HTTP1_TARGET)) {
        return i - s->mark < run->limits->max_target ? true : refuse(run, HTTP1_TARGET_LONG, i);
    }
    if (c == ' ' && i > s->mark) {
        s->state = PROTOCOL;
        s->match = 0;
        return true;
    }
    if (c == ' ') {
        return refuse(run, HTTP1_REQUEST_LINE, i);
    }
    if (c == '\r' || c == '\n') {
        /* RFC 1945's simple request: no version at all. */
        return refuse(run, c == '\n' ? HTTP1_BARE_LF : HTTP1_VERSION, i);
    }
    return refuse(run, HTTP1_TARGET_BYTE, i);
}

static bool version_byte(struct run *run, uint8_t c, size_t i)
{
    static const char name[] = "HTTP/";
    struct http1_scan *s = run->scan;
    bool request = run->kind == HTTP1_KIND_REQUEST;
    switch (s->state) {
    case PROTOCOL:
        if (c != (uint8_t)name[s->match]) {
            if (c == '\n' || (c == '\r' && !request && i == 0)) {
                return refuse(run, i == 0 ? HTTP1_EMPTY_LINE : HTTP1_BARE_LF, i);
            }
            return refuse(
                run, request && (c == ' ' || c == '\r') ? HTTP1_REQUEST_LINE : HTTP1_PROTOCOL, i);
        }
        s->match++;
        s->state = name[s->match] == '\0' ? MAJOR : PROTOCOL;
        return true;
    case MAJOR:
        if (c != '1') {
            return refuse(run, http1_is(c, HTTP1_DIGIT) ? HTTP1_VERSION : HTTP1_PROTOCOL, i);
        }
        s->state = DOT;
        return true;
    case DOT:
        if (c != '.') {
            return refuse(run, http1_is(c, HTTP1_DIGIT) ? HTTP1_VERSION : HTTP1_PROTOCOL, i);
        }
        s->state = MINOR;
        return true;
    case MINOR:
        if (c != '0' && c != '1') {
            return refuse(run, http1_is(c, HTTP1_DIGIT) ? HTTP1_VERSION : HTTP1_PROTOCOL, i);
        }
        s->state = AFTER_VERSION;
        return true;
    default: /* AFTER_VERSION */
        if (request ? c == '\r' : c == ' ') {
            s->state = request ? LINE_LF : STATUS;
            s->match = 0;
            return true;
        }
        if (c == '\n') {
            return refuse(run, HTTP1_BARE_LF, i);
        }
        return refuse(run,
                      http1_is(c, HTTP1_DIGIT) ? HTTP1_VERSION
                      : request                ? HTTP1_REQUEST_LINE
                                               : HTTP1_STATUS_LINE,
                      i);
    }
}

static bool status_byte(struct run *run, uint8_t c, size_t i)
{
    struct http1_scan *s = run->scan;
    if (c == '\n') {
        return refuse(run, HTTP1_BARE_LF, i);
    }
    if (s->state == STATUS) {
        /* Three digits, 100 to 599 (RFC 9110 15). */
        bool fits = s->match == 0 ? c >= '1' && c <= '5' : http1_is(c, HTTP1_DIGIT);
        if (!fits) {
            return refuse(run, HTTP1_STATUS_LINE, i);
        }
        s->match++;
        s->state = s->match == 3 ? AFTER_STATUS : STATUS;
        return true;
    }
    if (c == '\r') {
        s->state = LINE_LF;
        return true;
    }
    if (s->state == AFTER_STATUS) {
        s->state = REASON;
        return c == ' ' ? true : refuse(run, HTTP1_STATUS_LINE, i);
    }
    return http1_is(c, HTTP1_VALUE) ? true : refuse(run, HTTP1_CONTROL_BYTE, i);
}

static bool name_byte(struct run *run, uint8_t c, size_t i)
{
    struct http1_scan *s = run->scan;
    bool start = s->state == FIELD_START;
    if (http1_is(c, HTTP1_TOKEN)) {
        if (start && s->n_headers >= run->limits->max_headers) {
            return refuse(run, HTTP1_HEADERS_MANY, i);
        }
        s->n_headers = (uint16_t)(s->n_headers + (start ? 1 : 0));
        s->state = NAME;
        return true;
    }
    switch (c) {
    case ':':
        s->state = VALUE;
        return start ? refuse(run, HTTP1_HEADER_NAME_EMPTY, i) : true;
    case '\r':
        s->state = END_LF;
        return start ? true : refuse(run, HTTP1_HEADER_NO_COLON, i);
    case '\n':
        return refuse(run, HTTP1_BARE_LF, i);
    case ' ':
    case '\t':
        return refuse(run, start ? HTTP1_HEADER_FOLDED : HTTP1_HEADER_NAME_SPACE, i);
    default:
        return refuse(run, c < 0x20 || c == 0x7f ? HTTP1_CONTROL_BYTE : HTTP1_HEADER_NAME_BYTE, i);
    }
}

static bool value_byte(struct run *run, uint8_t c, size_t i)
{
    if (http1_is(c, HTTP1_VALUE)) {
        return true;
    }
    if (c == '\r') {
        run->scan->state = VALUE_LF;
        return true;
    }
    return refuse(run, c == '\n' ? HTTP1_BARE_LF : HTTP1_CONTROL_BYTE, i);
}

static bool lf_byte(struct run *run, uint8_t c, size_t i)
{
    if (c != '\n') {
        return refuse(run, HTTP1_BARE_CR, i - 1);
    }
    run->scan->state = run->scan->state == END_LF ? OVER : FIELD_START;
    return true;
}

static bool one_byte(struct run *run, uint8_t c, size_t i)
{
    switch (run->scan->state) {
    case METHOD:
        return method_byte(run, c, i);
    case TARGET:
        return target_byte(run, c, i);
    case PROTOCOL:
    case MAJOR:
    case DOT:
    case MINOR:
    case AFTER_VERSION:
        return version_byte(run, c, i);
    case STATUS:
    case AFTER_STATUS:
    case REASON:
        return status_byte(run, c, i);
    case FIELD_START:
    case NAME:
        return name_byte(run, c, i);
    case VALUE:
        return value_byte(run, c, i);
    default:
        return lf_byte(run, c, i);
    }
}

/* Most bytes are inside a name, a value, the target or the reason and change nothing: pass them
 * quickly. */
static size_t skip_plain(const struct run *run, size_t i)
{
    const struct http1_scan *s = run->scan;
    const uint8_t *data = run->data;
    size_t end = run->end;
    if (s->state == VALUE || s->state == REASON) {
        while (i < end && http1_is(data[i], HTTP1_VALUE)) {
            i++;
        }
    } else if (s->state == NAME) {
        while (i < end && http1_is(data[i], HTTP1_TOKEN)) {
            i++;
        }
    } else if (s->state == TARGET) {
        size_t most = (size_t)s->mark + run->limits->max_target; /* beyond: target_byte refuses */
        end = end < most ? end : most;
        while (i < end && http1_is(data[i], HTTP1_TARGET)) {
            i++;
        }
    }
    return i;
}

enum http1_result http1_head_scan(struct http1_scan *scan, enum http1_kind kind,
                                  const uint8_t *data, size_t len,
                                  const struct http1_limits *limits, size_t *ret_head_len,
                                  struct http1_error *ret_error)
{
    size_t max_head = limits->max_head < UINT32_MAX ? limits->max_head : UINT32_MAX;
    struct run run = {scan, kind, data, len < max_head ? len : max_head, limits, HTTP1_NONE, 0};
    POSTERN_ASSERT(limits->max_headers <= HTTP1_MAX_HEADERS &&
                   limits->max_target <= HTTP1_MAX_TARGET);
    if (kind == HTTP1_KIND_RESPONSE && scan->pos == 0) {
        scan->state = PROTOCOL;
    }
    size_t i = scan->pos;
    while (scan->state != OVER) {
        i = skip_plain(&run, i);
        if (i >= run.end) {
            break;
        }
        if (!one_byte(&run, data[i], i)) {
            return http1_refuse(ret_error, run.reason, run.offset);
        }
        i++;
    }
    scan->pos = (uint32_t)i;
    if (scan->state == OVER) {
        *ret_head_len = i;
        return HTTP1_DONE;
    }
    return len >= max_head ? http1_refuse(ret_error, HTTP1_HEAD_LONG, max_head) : HTTP1_MORE;
}

/* --- cutting -----------------------------------------------------------------------------------*/

size_t http1_head_first_line(const uint8_t *data, size_t head_len)
{
    const uint8_t *lf = memchr(data, '\n', head_len);
    POSTERN_ASSERT(lf != NULL);
    return (size_t)(lf - data) + 1;
}

unsigned http1_head_split(const uint8_t *data, size_t head_len, size_t start,
                          struct http1_header headers[HTTP1_MAX_HEADERS])
{
    unsigned n = 0;
    size_t i = start;
    while (data[i] != '\r') {
        POSTERN_ASSERT(n < HTTP1_MAX_HEADERS);
        const uint8_t *colon = memchr(data + i, ':', head_len - i);
        POSTERN_ASSERT(colon != NULL);
        const uint8_t *cr = memchr(colon, '\r', head_len - (size_t)(colon - data));
        POSTERN_ASSERT(cr != NULL);
        const uint8_t *from = colon + 1;
        const uint8_t *to = cr;
        while (from < to && (*from == ' ' || *from == '\t')) {
            from++;
        }
        while (to > from && (to[-1] == ' ' || to[-1] == '\t')) {
            to--;
        }
        headers[n++] = (struct http1_header){
            .name = {(const char *)data + i, (size_t)(colon - data) - i},
            .value = {(const char *)from, (size_t)(to - from)},
        };
        i = (size_t)(cr - data) + 2;
    }
    return n;
}
