/*
 * http1 chunked bodies: in pieces is whole; a slow reader of the grammar, written for this test
 * alone, finds the same end; and llhttp ends the message at the same byte. The first byte chooses
 * the size of the pieces.
 */
#include <postern/http1.h>

#include <llhttp.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(cond)                                                                                 \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                             \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* --- the slow reader ---------------------------------------------------------------------------*/

/* The line that begins at `from`, without its CR LF; false if there is none or it holds a bare CR
 * or LF. */
static bool line_at(const uint8_t *data, size_t size, size_t from, size_t *ret_end)
{
    for (size_t i = from; i < size; i++) {
        if (data[i] == '\n') {
            return false;
        }
        if (data[i] == '\r') {
            *ret_end = i;
            return i + 1 < size && data[i + 1] == '\n';
        }
    }
    return false;
}

static bool hex_at(const uint8_t *data, size_t from, size_t to, uint64_t *ret)
{
    static const char digits[] = "0123456789abcdef0123456789ABCDEF";
    uint64_t n = 0;
    for (size_t i = from; i < to; i++) {
        const char *d = data[i] != '\0' ? strchr(digits, data[i]) : NULL;
        if (d == NULL) {
            return false;
        }
        n = n * 16 + (uint64_t)(d - digits) % 16;
    }
    *ret = n;
    return to > from && to - from <= 15;
}

/* Where the body ends, if it is whole and right in everything but extensions and trailer names,
 * which this reader does not look into. */
static bool slow_end(const uint8_t *data, size_t size, size_t *ret_end)
{
    size_t at = 0;
    for (;;) {
        size_t end;
        uint64_t n;
        if (!line_at(data, size, at, &end)) {
            return false;
        }
        const uint8_t *semicolon = memchr(data + at, ';', end - at);
        size_t size_end = semicolon != NULL ? (size_t)(semicolon - data) : end;
        if (!hex_at(data, at, size_end, &n)) {
            return false;
        }
        at = end + 2;
        if (n == 0) {
            break;
        }
        if (size - at < n + 2 || data[at + n] != '\r' || data[at + n + 1] != '\n') {
            return false;
        }
        at += n + 2;
    }
    for (;;) {
        size_t end;
        if (!line_at(data, size, at, &end)) {
            return false;
        }
        bool empty = end == at;
        at = end + 2;
        if (empty) {
            *ret_end = at;
            return true;
        }
    }
}

/* --- llhttp ------------------------------------------------------------------------------------*/

static int on_complete(llhttp_t *parser)
{
    bool *complete = parser->data;
    *complete = true;
    return HPE_PAUSED;
}

static void check_llhttp(const uint8_t *data, size_t used)
{
    static const char head[] = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    llhttp_t parser;
    llhttp_settings_t settings;
    bool complete = false;
    llhttp_settings_init(&settings);
    settings.on_message_complete = on_complete;
    llhttp_init(&parser, HTTP_REQUEST, &settings);
    parser.data = &complete;
    MUST(llhttp_execute(&parser, head, sizeof(head) - 1) == HPE_OK);
    MUST(llhttp_execute(&parser, (const char *)data, used - 1) == HPE_OK && !complete);
    MUST(llhttp_execute(&parser, (const char *)data + used - 1, 1) == HPE_PAUSED && complete);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct http1_body body;
    struct http1_error e = {HTTP1_NONE, 0, 0};
    struct http1_error e2 = {HTTP1_NONE, 0, 0};
    size_t used = 0;
    if (size == 0) {
        return 0;
    }
    size_t step = 1 + data[0] % 9;
    data++;
    size--;
    http1_body_init(&body, HTTP1_BODY_CHUNKED, 0);
    enum http1_result result = http1_body_feed(&body, data, size, &used, &e);
    MUST(used <= size && (result != HTTP1_MORE || used == size));
    MUST(http1_body_ends_at_eof(&body) == (result == HTTP1_DONE));

    size_t total = 0;
    enum http1_result again = HTTP1_MORE;
    http1_body_init(&body, HTTP1_BODY_CHUNKED, 0);
    while (again == HTTP1_MORE && total < size) {
        size_t n = 0;
        size_t have = size - total < step ? size - total : step;
        again = http1_body_feed(&body, data + total, have, &n, &e2);
        total += n;
    }
    MUST(again == result && total == used && e2.reason == e.reason);

    size_t end = 0;
    bool whole = slow_end(data, size, &end);
    if (result == HTTP1_DONE) {
        MUST(whole && end == used);
        /* llhttp 8.1 takes neither quoted values nor an extension after one with a value, both of
         * which RFC 9112 7.1.1 allows. */
        if (LLHTTP_VERSION_MAJOR >= 9 || memchr(data, '=', used) == NULL) {
            check_llhttp(data, used);
        }
    }
    MUST(result != HTTP1_MORE || !whole);
    return 0;
}
