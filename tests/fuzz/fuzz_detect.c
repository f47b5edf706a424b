/*
 * detect: whole, cut anywhere and byte by byte give one answer; it is what a second reader says,
 * written from the definition and reading everything at once; what follows an answer does not
 * change it. The first byte of the input says which side speaks and where to cut.
 */
#include <postern/detect.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(cond)                                                                                 \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                             \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* --- the second reader: is p[0..n) that, could it become that with more, or neither? -----------
 */
enum verdict { NEVER, MAYBE, YES };

static enum verdict literal(const uint8_t *p, size_t n, const char *text, size_t len)
{
    size_t both = n < len ? n : len;
    if (memcmp(p, text, both) != 0) {
        return NEVER;
    }
    return n >= len ? YES : MAYBE;
}

static enum verdict version(const uint8_t *p, size_t n)
{
    enum verdict v = literal(p, n, "HTTP/1.", 7);
    if (v != YES || n == 7) {
        return v == YES ? MAYBE : v;
    }
    return p[7] >= '0' && p[7] <= '9' ? YES : NEVER;
}

static enum verdict request(const uint8_t *p, size_t n)
{
    static const char token[] = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
                                "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    size_t method = 0;
    while (method < n && p[method] != 0 && strchr(token, p[method]) != NULL) {
        method++;
    }
    if (method > DETECT_METHOD_MAX) {
        return NEVER;
    }
    if (method == n) {
        return MAYBE;
    }
    if (method == 0 || p[method] != ' ') {
        return NEVER;
    }
    size_t target = method + 1;
    while (target < n && p[target] > 0x20 && p[target] < 0x7f) {
        target++;
    }
    if (target == n) {
        return MAYBE;
    }
    if (target == method + 1 || p[target] != ' ') {
        return NEVER;
    }
    return version(p + target + 1, n - target - 1);
}

static enum verdict settings(const uint8_t *p, size_t n)
{
    static const uint8_t rest[] = {4, 0, 0, 0, 0, 0};
    if ((n > 0 && p[0] != 0) ||
        (n > 2 && ((p[1] << 8 | p[2]) % 6 != 0 || p[1] * 256 + p[2] > 16384))) {
        return NEVER;
    }
    return n <= 3 ? MAYBE : literal(p + 3, n - 3, (const char *)rest, sizeof(rest));
}

static enum verdict record(const uint8_t *p, size_t n, uint8_t message)
{
    if ((n > 0 && p[0] != 22) || (n > 1 && p[1] != 3) || (n > 2 && p[2] > 4)) {
        return NEVER;
    }
    if (n > 4 && (p[3] * 256 + p[4] == 0 || p[3] * 256 + p[4] > 16384)) {
        return NEVER;
    }
    if (n <= 5) {
        return MAYBE;
    }
    return p[5] == message ? YES : NEVER;
}

static enum detect_protocol second(const uint8_t *p, size_t n, enum detect_side side)
{
    bool client = side == DETECT_SIDE_CLIENT;
    for (size_t i = 1; i <= n; i++) {
        enum verdict h1 = client ? request(p, i) : version(p, i);
        enum verdict h2 =
            client ? literal(p, i, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24) : settings(p, i);
        enum verdict tls = record(p, i, client ? 1 : 2);
        if (h1 == YES) {
            return DETECT_HTTP1;
        }
        if (h2 == YES || tls == YES) {
            return h2 == YES ? DETECT_HTTP2 : DETECT_TLS;
        }
        if ((h1 == NEVER && h2 == NEVER && tls == NEVER) || i >= DETECT_BYTES_MAX) {
            return DETECT_TCP;
        }
    }
    return DETECT_UNKNOWN;
}

/* --- the properties --------------------------------------------------------------------------- */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || size > 12000) { /* the second reader is quadratic */
        return 0;
    }
    enum detect_side side = (data[0] & 1) != 0 ? DETECT_SIDE_SERVER : DETECT_SIDE_CLIENT;
    size_t cut = data[0] >> 1;
    const uint8_t *p = data + 1;
    size_t n = size - 1;
    struct detect_scan whole = {.n = 0};
    struct detect_scan bytes = {.n = 0};
    struct detect_scan parts = {.n = 0};
    enum detect_protocol a = detect_feed(&whole, side, p, n);
    enum detect_protocol b = DETECT_UNKNOWN;
    for (size_t i = 0; i < n && b == DETECT_UNKNOWN; i++) {
        b = detect_feed(&bytes, side, p + i, 1);
    }
    cut = cut < n ? cut : n;
    enum detect_protocol c = detect_feed(&parts, side, p, cut);
    if (c == DETECT_UNKNOWN) {
        c = detect_feed(&parts, side, p + cut, n - cut);
    }
    MUST(a == b && a == c);
    if (n <= 600 || n > DETECT_BYTES_MAX - 8) {
        MUST(a == second(p, n, side));
    }
    struct detect_race race = {.how = DETECT_BY_NONE};
    MUST(detect_race_feed(&race, side, p, n) == (a != DETECT_UNKNOWN));
    MUST(race.protocol == a);
    (void)detect_race_feed(&race,
                           side == DETECT_SIDE_CLIENT ? DETECT_SIDE_SERVER : DETECT_SIDE_CLIENT,
                           (const uint8_t *)"220 x", 5);
    MUST(a == DETECT_UNKNOWN || race.protocol == a);
    return 0;
}
