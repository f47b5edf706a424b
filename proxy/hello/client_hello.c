/* Reading a ClientHello: records, the message in them, its extensions. */
#include <postern/client_hello.h>

#include <string.h>

enum {
    RECORD_HEADER = 5,
    RECORD_MAX = 16384, /* RFC 8446 5.1: of a plaintext record */
    RECORD_HANDSHAKE = 22,
    MESSAGE_HEADER = 4,
    MESSAGE_CLIENT_HELLO = 1,
    RANDOM_SIZE = 32,
    SESSION_ID_MAX = 32,
    EXTENSION_SERVER_NAME = 0,
    EXTENSION_ALPN = 16,
    EXTENSION_ENCRYPTED = 0xfe0d,
    NAME_HOST = 0,
};

const char *client_hello_result_name(enum client_hello_result r)
{
    static const char *const names[] = {
        [CLIENT_HELLO_MORE] = "more",         [CLIENT_HELLO_FOUND] = "found",
        [CLIENT_HELLO_NOT_TLS] = "not_tls",   [CLIENT_HELLO_MALFORMED] = "malformed",
        [CLIENT_HELLO_TOO_LONG] = "too_long",
    };
    return names[r];
}

/* --- a cursor over the message, across records ------------------------------------------------ */
/* Reading past the end sets `bad`, which stays; zeros are read from then on. */
struct cursor {
    const uint8_t *p; /* in the current record */
    size_t in_record; /* bytes of it that are left */
    size_t left;      /* of what this cursor may read */
    bool bad;
};

/* The records are known to be whole: their headers can be stepped over. */
static uint8_t get8(struct cursor *c)
{
    if (c->bad || c->left == 0) {
        c->bad = true;
        return 0;
    }
    if (c->in_record == 0) {
        c->in_record = (size_t)c->p[3] << 8 | c->p[4];
        c->p += RECORD_HEADER;
    }
    c->in_record--;
    c->left--;
    return *c->p++;
}

static unsigned get16(struct cursor *c)
{
    unsigned high = get8(c);
    return high << 8 | get8(c);
}

/* Copies n bytes, or with ret NULL steps over them. */
static void get_bytes(struct cursor *c, uint8_t *ret, size_t n)
{
    if (c->left < n) {
        c->bad = true;
    }
    while (!c->bad && n > 0) {
        if (c->in_record == 0) {
            c->in_record = (size_t)c->p[3] << 8 | c->p[4];
            c->p += RECORD_HEADER;
        }
        size_t part = n < c->in_record ? n : c->in_record;
        if (ret != NULL) {
            memcpy(ret, c->p, part);
            ret += part;
        }
        c->p += part;
        c->in_record -= part;
        c->left -= part;
        n -= part;
    }
}

/* What is left of `c` when a part of n bytes has been taken out of it: the part is read through the
 * cursor itself, with `left` narrowed to it. */
static size_t enter(struct cursor *c, size_t n)
{
    if (c->bad || c->left < n) {
        c->bad = true;
        return 0;
    }
    size_t behind = c->left - n;
    c->left = n;
    return behind;
}

/* Bytes left over are an error: a list that does not fill its length is no list. */
static void leave(struct cursor *c, size_t behind)
{
    if (c->left > 0) {
        c->bad = true;
    }
    c->left = behind;
}

/* --- extensions ------------------------------------------------------------------------------- */

/* RFC 6066: a DNS name in ASCII. What cannot be in one is refused here, so that it needs no
 * escaping anywhere else. */
static bool take_host(struct cursor *c, size_t n, struct client_hello *ret)
{
    if (n == 0 || n > CLIENT_HELLO_NAME_MAX || ret->server_name_len > 0) {
        return false;
    }
    uint8_t text[CLIENT_HELLO_NAME_MAX];
    get_bytes(c, text, n);
    for (size_t i = 0; !c->bad && i < n; i++) {
        uint8_t b = text[i];
        if (b >= 'A' && b <= 'Z') {
            b = (uint8_t)(b - 'A' + 'a');
        }
        bool ok = (b >= 'a' && b <= 'z') || (b >= '0' && b <= '9') || b == '-' || b == '.' ||
                  b == '_' || b == ':'; /* an IPv6 address is not allowed, but is sent */
        if (!ok) {
            return false;
        }
        ret->server_name[i] = (char)b;
    }
    ret->server_name[n] = '\0';
    ret->server_name_len = n;
    return !c->bad;
}

static bool take_server_name(struct cursor *c, struct client_hello *ret)
{
    size_t behind = enter(c, get16(c));
    bool ok = !c->bad && c->left > 0;
    while (ok && c->left > 0) {
        unsigned type = get8(c);
        size_t n = get16(c);
        if (type == NAME_HOST) {
            ok = take_host(c, n, ret);
        } else {
            get_bytes(c, NULL, n);
        }
        ok = ok && !c->bad;
    }
    leave(c, behind);
    return ok && !c->bad;
}

static bool take_alpn(struct cursor *c, struct client_hello *ret)
{
    size_t behind = enter(c, get16(c));
    bool ok = !c->bad && c->left > 0;
    bool cut = false;
    while (ok && c->left > 0) {
        size_t n = get8(c);
        cut = cut || ret->alpn_len + 1 + n > CLIENT_HELLO_ALPN_MAX;
        uint8_t *at = cut ? NULL : ret->alpn + ret->alpn_len;
        if (at != NULL) {
            *at++ = (uint8_t)n;
            ret->alpn_len += 1 + n;
        }
        get_bytes(c, at, n);
        ok = n > 0 && !c->bad;
    }
    leave(c, behind);
    return ok && !c->bad;
}

/* RFC 8446 4.2: no extension comes twice. Only those that are read here are looked at. */
static bool take_extensions(struct cursor *c, struct client_hello *ret)
{
    bool seen_name = false;
    bool seen_alpn = false;
    size_t behind = enter(c, get16(c));
    while (!c->bad && c->left > 0) {
        unsigned type = get16(c);
        size_t rest = enter(c, get16(c));
        bool ok = !c->bad;
        if (type == EXTENSION_SERVER_NAME) {
            ok = ok && !seen_name && take_server_name(c, ret);
            seen_name = true;
        } else if (type == EXTENSION_ALPN) {
            ok = ok && !seen_alpn && take_alpn(c, ret);
            seen_alpn = true;
        } else {
            ret->encrypted = ret->encrypted || type == EXTENSION_ENCRYPTED;
            get_bytes(c, NULL, c->left);
        }
        leave(c, rest);
        if (!ok) {
            return false;
        }
    }
    leave(c, behind);
    return !c->bad;
}

/* RFC 8446 4.1.2, and the same since TLS 1.0. */
static bool take_message(struct cursor *c, struct client_hello *ret)
{
    get_bytes(c, NULL, 2 + RANDOM_SIZE);
    size_t n = get8(c);
    if (n > SESSION_ID_MAX) {
        return false;
    }
    get_bytes(c, NULL, n);
    n = get16(c); /* cipher suites */
    if (n == 0 || n % 2 != 0) {
        return false;
    }
    get_bytes(c, NULL, n);
    n = get8(c); /* compression methods */
    if (n == 0) {
        return false;
    }
    get_bytes(c, NULL, n);
    if (!c->bad && c->left > 0 && !take_extensions(c, ret)) {
        return false;
    }
    return !c->bad && c->left == 0;
}

/* --- records ---------------------------------------------------------------------------------- */

/* What the first bytes say, before a whole record is here. */
static enum client_hello_result look_at_start(const uint8_t *data, size_t len)
{
    if ((len > 0 && data[0] != RECORD_HANDSHAKE) || (len > 1 && data[1] != 3)) {
        return CLIENT_HELLO_NOT_TLS;
    }
    return CLIENT_HELLO_MORE;
}

/* A record's header at the scan's place; MORE: it is fit to go on with. */
static enum client_hello_result look_at_header(const uint8_t *p, size_t *ret_len)
{
    size_t len = (size_t)p[3] << 8 | p[4];
    if (p[0] != RECORD_HANDSHAKE || p[1] != 3 || len == 0 || len > RECORD_MAX) {
        return CLIENT_HELLO_MALFORMED;
    }
    *ret_len = len;
    return CLIENT_HELLO_MORE;
}

/* The first four bytes of the message, as far as they are here: type and length. SIZE_MAX: not all
 * of them. */
static size_t message_size(const uint8_t *data, size_t message_len, uint8_t *ret_type)
{
    struct cursor c = {.p = data, .left = message_len};
    *ret_type = message_len > 0 ? get8(&c) : MESSAGE_CLIENT_HELLO;
    if (message_len < MESSAGE_HEADER) {
        return SIZE_MAX;
    }
    size_t n = (size_t)get8(&c) << 16;
    return n | get16(&c);
}

enum client_hello_result client_hello_read(struct client_hello_scan *scan, const uint8_t *data,
                                           size_t len, struct client_hello *ret)
{
    size_t most = CLIENT_HELLO_WIRE_MAX;
    len = len < most ? len : most; /* so that more at once is not more than piece by piece */
    enum client_hello_result r = look_at_start(data, len);
    while (r == CLIENT_HELLO_MORE && len - scan->at >= RECORD_HEADER) {
        size_t record = 0;
        r = look_at_header(data + scan->at, &record);
        if (r != CLIENT_HELLO_MORE || len - scan->at - RECORD_HEADER < record) {
            break;
        }
        scan->at += RECORD_HEADER + record;
        scan->message += record;
        uint8_t type = 0;
        size_t size = message_size(data, scan->message, &type);
        if (type != MESSAGE_CLIENT_HELLO) {
            return CLIENT_HELLO_MALFORMED;
        }
        if (size != SIZE_MAX && size > CLIENT_HELLO_MESSAGE_MAX) {
            return CLIENT_HELLO_TOO_LONG;
        }
        if (size != SIZE_MAX && scan->message - MESSAGE_HEADER >= size) {
            struct client_hello found = {.server_name_len = 0};
            struct cursor c = {.p = data, .left = MESSAGE_HEADER + size};
            get_bytes(&c, NULL, MESSAGE_HEADER);
            if (!take_message(&c, &found)) {
                return CLIENT_HELLO_MALFORMED;
            }
            *ret = found;
            return CLIENT_HELLO_FOUND;
        }
    }
    return r == CLIENT_HELLO_MORE && len == most ? CLIENT_HELLO_TOO_LONG : r;
}
