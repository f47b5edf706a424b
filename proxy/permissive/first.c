/* Telling TLS from plaintext by first bytes, and kinds of plaintext, for people. */
#include <postern/permissive.h>
#include <postern/str.h>
#include <string.h>

/* A record of any type that a peer might begin with (change_cipher_spec, alert, handshake,
 * application data), of version 3.x. Whoever sends an alert first gets a handshake that fails, as
 * on a strict port. */
enum permissive_first permissive_first(const uint8_t *bytes, size_t n)
{
    enum { TYPE_FIRST = 20, TYPE_LAST = 23, MAJOR = 3, MINOR_LAST = 4 };
    if (n > 0 && (bytes[0] < TYPE_FIRST || bytes[0] > TYPE_LAST)) {
        return PERMISSIVE_PLAIN;
    }
    if (n > 1 && bytes[1] != MAJOR) {
        return PERMISSIVE_PLAIN;
    }
    if (n > 2) {
        return bytes[2] <= MINOR_LAST ? PERMISSIVE_TLS : PERMISSIVE_PLAIN;
    }
    return PERMISSIVE_MORE;
}

const char *permissive_class_name(enum permissive_class c)
{
    static const char *const words[PERMISSIVE_CLASS_COUNT] = {
#define WORD(name, word) [PERMISSIVE_##name] = word,
        PERMISSIVE_CLASSES(WORD)
#undef WORD
    };
    return words[c];
}

static bool begins(const uint8_t *p, size_t n, const char *with, size_t len)
{
    return n >= len && memcmp(p, with, len) == 0;
}
#define BEGINS(p, n, text) begins(p, n, text, sizeof(text) - 1)

/* A method and a target's first byte. */
static bool is_request(const uint8_t *p, size_t n)
{
    size_t i = 0;
    while (i < n && p[i] >= 'A' && p[i] <= 'Z') {
        i++;
    }
    return i >= 3 && i + 1 < n && p[i] == ' ' &&
           (p[i + 1] == '/' || p[i + 1] == '*' || begins(p + i + 1, n - i - 1, "http", 4) ||
            BEGINS(p, n, "CONNECT "));
}

/* A start-up packet of protocol 3, or a request for encryption or cancelling, each of which begins
 * with its length. */
static bool is_postgres(const uint8_t *p, size_t n)
{
    return n >= 8 && p[0] == 0 && p[1] == 0 &&
           ((p[4] == 0 && p[5] == 3 && p[6] == 0) || (p[4] == 4 && p[5] == 0xd2 && p[6] == 0x16));
}

/* An array of bulk strings. */
static bool is_redis(const uint8_t *p, size_t n)
{
    size_t i = 1;
    while (i < n && p[i] >= '0' && p[i] <= '9') {
        i++;
    }
    return n > 3 && p[0] == '*' && i > 1 && i + 1 < n && p[i] == '\r' && p[i + 1] == '\n';
}

/* The fourth number of a message's head: OP_QUERY or OP_MSG, little endian. */
static bool is_mongodb(const uint8_t *p, size_t n)
{
    return n >= 16 && p[3] == 0 &&
           ((p[12] == 0xd4 && p[13] == 0x07) || (p[12] == 0xdd && p[13] == 0x07)) && p[14] == 0 &&
           p[15] == 0;
}

/* RFC 6101 appendix E.1: a length with its first bit set, type 1, a version. */
static bool is_old_tls(const uint8_t *p, size_t n)
{
    return n >= 5 && (p[0] & 0x80) != 0 && p[2] == 1 && (p[3] == 3 || (p[3] == 0 && p[4] == 2));
}

enum permissive_class permissive_class(const uint8_t *p, size_t n)
{
    if (n == 0) {
        return PERMISSIVE_SILENCE;
    }
    if (BEGINS(p, n, "PRI * HTTP/2.0\r\n")) {
        return PERMISSIVE_HTTP2;
    }
    if (is_request(p, n)) {
        return PERMISSIVE_HTTP1;
    }
    if (BEGINS(p, n, "SSH-")) {
        return PERMISSIVE_SSH;
    }
    if (BEGINS(p, n, "PROXY ") || BEGINS(p, n, "\r\n\r\n\0\r\nQUIT\n")) {
        return PERMISSIVE_PROXY;
    }
    return is_postgres(p, n)  ? PERMISSIVE_POSTGRES
           : is_redis(p, n)   ? PERMISSIVE_REDIS
           : is_mongodb(p, n) ? PERMISSIVE_MONGODB
           : is_old_tls(p, n) ? PERMISSIVE_OLD_TLS
                              : PERMISSIVE_OTHER;
}
