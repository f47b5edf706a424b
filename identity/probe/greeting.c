/* greeting: the few bytes before TLS, as the protocols of the two databases have them. Nothing in
 * them is believed: a liar gets a handshake, and that is what was wanted. */
#include "probe_priv.h"

#include <string.h>

/* --- PostgreSQL, "SSL Session Encryption" in its protocol's message flow ------------------------
 */
void greeting_postgres_ask(uint8_t ret[GREETING_POSTGRES_SIZE])
{
    static const uint8_t ssl_request[GREETING_POSTGRES_SIZE] = {0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f};

    memcpy(ret, ssl_request, sizeof(ssl_request));
}

enum greeting greeting_postgres(const uint8_t *bytes, size_t n)
{
    if (n == 0) {
        return GREETING_MORE;
    }
    if (n > 1) {
        return GREETING_BAD; /* nothing may stand between the answer and TLS */
    }
    return bytes[0] == 'S' ? GREETING_TLS : bytes[0] == 'N' ? GREETING_NO_TLS : GREETING_BAD;
}

/* --- MySQL and MariaDB, "Initial Handshake Packet" and "SSLRequest" -----------------------------
 */
enum {
    PACKET_HEAD = 4,
    CAPABILITY_SSL = 0x0800,
    CAPABILITY_PROTOCOL_41 = 0x0200,
    CAPABILITY_SECURE_CONNECTION = 0x8000,
    CAPABILITY_PLUGIN_AUTH = 0x080000,
    VERSION_10 = 10,
    BEHIND_VERSION = 4 + 8 + 1, /* thread id, part of a nonce, filler */
    CHARSET_UTF8 = 33,
};

enum greeting greeting_mysql(const uint8_t *bytes, size_t n)
{
    if (n < PACKET_HEAD) {
        return GREETING_MORE;
    }
    size_t len = (size_t)bytes[0] | (size_t)bytes[1] << 8 | (size_t)bytes[2] << 16;
    const uint8_t *body = bytes + PACKET_HEAD;

    if (len == 0 || len > GREETING_MYSQL_MAX - PACKET_HEAD || bytes[3] != 0) {
        return GREETING_BAD;
    }
    if (n - PACKET_HEAD < len) {
        return GREETING_MORE;
    }
    if (n - PACKET_HEAD > len || body[0] != VERSION_10) {
        return GREETING_BAD; /* an error packet among them: too many connections, host blocked */
    }
    const uint8_t *end = len > 1 ? memchr(body + 1, 0, len - 1) : NULL;
    size_t left = end != NULL ? len - (size_t)(end - body) - 1 : 0;

    if (end == NULL || left < BEHIND_VERSION + 2) {
        return GREETING_BAD;
    }
    const uint8_t *low = end + 1 + BEHIND_VERSION;

    return (((unsigned)low[0] | (unsigned)low[1] << 8) & CAPABILITY_SSL) != 0 ? GREETING_TLS
                                                                              : GREETING_NO_TLS;
}

void greeting_mysql_ask(uint8_t ret[GREETING_MYSQL_SIZE])
{
    const uint32_t capabilities = CAPABILITY_SSL | CAPABILITY_PROTOCOL_41 |
                                  CAPABILITY_SECURE_CONNECTION | CAPABILITY_PLUGIN_AUTH;

    memset(ret, 0, GREETING_MYSQL_SIZE);
    ret[0] = GREETING_MYSQL_SIZE - PACKET_HEAD;
    ret[3] = 1; /* the second packet */
    for (unsigned i = 0; i < 4; i++) {
        ret[PACKET_HEAD + i] = (uint8_t)(capabilities >> 8 * i);
    }
    ret[PACKET_HEAD + 7] = 1; /* packets of 16 MiB at most */
    ret[PACKET_HEAD + 8] = CHARSET_UTF8;
}
