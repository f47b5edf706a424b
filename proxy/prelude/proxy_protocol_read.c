/* Reading PROXY protocol headers, strictly. */
#include <postern/proxy_protocol.h>

#include "proxy_protocol_priv.h"

#include <arpa/inet.h>
#include <string.h>

/* --- version 1 -------------------------------------------------------------------------------- */
#define V1_SIGNATURE "PROXY "

/* The next word of a line of words with one blank between them. False: there is none. */
static bool next_word(struct str *line, struct str *ret)
{
    const char *blank = line->n > 0 ? (const char *)memchr(line->p, ' ', line->n) : NULL;
    *ret = (struct str){line->p, blank != NULL ? (size_t)(blank - line->p) : line->n};
    size_t used = ret->n + (blank != NULL ? 1 : 0);
    line->p += used;
    line->n -= used;
    return ret->n > 0;
}

static bool take_ip(struct str word, int family, void *ret)
{
    char text[INET6_ADDRSTRLEN];
    if (word.n >= sizeof(text) || memchr(word.p, '\0', word.n) != NULL) {
        return false;
    }
    memcpy(text, word.p, word.n);
    text[word.n] = '\0';
    return inet_pton(family, text, ret) == 1;
}

/* Decimal without leading zeros. */
static bool take_port(struct str word, uint16_t *ret)
{
    uint64_t n;
    if (!str_to_u64(word, 65535, &n) || (word.n > 1 && word.p[0] == '0')) {
        return false;
    }
    *ret = htons((uint16_t)n);
    return true;
}

static bool take_v1_addresses(struct str line, int family, struct proxy_protocol *ret)
{
    struct str source, destination, source_port, destination_port;
    if (!next_word(&line, &source) || !next_word(&line, &destination) ||
        !next_word(&line, &source_port) || !next_word(&line, &destination_port) || line.n > 0 ||
        destination_port.p + destination_port.n != line.p) {
        return false;
    }
    ret->family = PROXY_PROTOCOL_INET;
    if (family == AF_INET) {
        ret->source.len = ret->destination.len = sizeof(struct sockaddr_in);
        ret->source.in4.sin_family = ret->destination.in4.sin_family = AF_INET;
        return take_ip(source, family, &ret->source.in4.sin_addr) &&
               take_ip(destination, family, &ret->destination.in4.sin_addr) &&
               take_port(source_port, &ret->source.in4.sin_port) &&
               take_port(destination_port, &ret->destination.in4.sin_port);
    }
    ret->source.len = ret->destination.len = sizeof(struct sockaddr_in6);
    ret->source.in6.sin6_family = ret->destination.in6.sin6_family = AF_INET6;
    return take_ip(source, family, &ret->source.in6.sin6_addr) &&
           take_ip(destination, family, &ret->destination.in6.sin6_addr) &&
           take_port(source_port, &ret->source.in6.sin6_port) &&
           take_port(destination_port, &ret->destination.in6.sin6_port);
}

static enum proxy_protocol_result read_v1(const uint8_t *data, size_t len,
                                          struct proxy_protocol *ret, size_t *ret_used)
{
    size_t most = PROXY_PROTOCOL_V1_MAX;
    size_t look = len < most ? len : most;
    const uint8_t *end = (const uint8_t *)memchr(data, '\n', look);
    if (end == NULL) {
        return look == most ? PROXY_PROTOCOL_BAD : PROXY_PROTOCOL_MORE;
    }
    if (end[-1] != '\r') {
        return PROXY_PROTOCOL_BAD;
    }
    struct str line = {(const char *)data, (size_t)(end - data) - 1};
    *ret_used = (size_t)(end - data) + 1;
    line.p += sizeof(V1_SIGNATURE) - 1;
    line.n -= sizeof(V1_SIGNATURE) - 1;
    struct str word;
    bool ok = next_word(&line, &word);
    if (ok && str_eq(word, STR_LIT("UNKNOWN"))) {
        return PROXY_PROTOCOL_OK; /* whatever else the line says is not to be looked at */
    }
    ok = ok && ((str_eq(word, STR_LIT("TCP4")) && take_v1_addresses(line, AF_INET, ret)) ||
                (str_eq(word, STR_LIT("TCP6")) && take_v1_addresses(line, AF_INET6, ret)));
    return ok ? PROXY_PROTOCOL_OK : PROXY_PROTOCOL_BAD;
}

/* --- version 2 -------------------------------------------------------------------------------- */

static struct str path_of(const uint8_t *p)
{
    const char *text = (const char *)p;
    return (struct str){text, strnlen(text, PROXY_PROTOCOL_PATH_MAX)};
}

/* Returns how many bytes the addresses take; -1: not what the family asks for. */
static long take_addresses(uint8_t family, const uint8_t *p, size_t n, struct proxy_protocol *ret)
{
    switch (family) {
    case V2_UNSPEC:
        return 0;
    case V2_TCP4:
        if (n < V2_TCP4_SIZE) {
            return -1;
        }
        ret->family = PROXY_PROTOCOL_INET;
        ret->source.len = ret->destination.len = sizeof(struct sockaddr_in);
        ret->source.in4.sin_family = ret->destination.in4.sin_family = AF_INET;
        memcpy(&ret->source.in4.sin_addr, p, 4);
        memcpy(&ret->destination.in4.sin_addr, p + 4, 4);
        memcpy(&ret->source.in4.sin_port, p + 8, 2);
        memcpy(&ret->destination.in4.sin_port, p + 10, 2);
        return V2_TCP4_SIZE;
    case V2_TCP6:
        if (n < V2_TCP6_SIZE) {
            return -1;
        }
        ret->family = PROXY_PROTOCOL_INET;
        ret->source.len = ret->destination.len = sizeof(struct sockaddr_in6);
        ret->source.in6.sin6_family = ret->destination.in6.sin6_family = AF_INET6;
        memcpy(&ret->source.in6.sin6_addr, p, 16);
        memcpy(&ret->destination.in6.sin6_addr, p + 16, 16);
        memcpy(&ret->source.in6.sin6_port, p + 32, 2);
        memcpy(&ret->destination.in6.sin6_port, p + 34, 2);
        return V2_TCP6_SIZE;
    case V2_UNIX:
        if (n < V2_UNIX_SIZE) {
            return -1;
        }
        ret->family = PROXY_PROTOCOL_UNIX;
        ret->source_path = path_of(p);
        ret->destination_path = path_of(p + PROXY_PROTOCOL_PATH_MAX);
        return V2_UNIX_SIZE;
    default:
        return -1; /* datagrams, and what is not defined */
    }
}

/* One element; false: none is left, or *ret_bad. */
static bool next_tlv(struct str *rest, unsigned *ret_type, struct str *ret_value, bool *ret_bad)
{
    if (rest->n == 0) {
        return false;
    }
    const uint8_t *p = (const uint8_t *)rest->p;
    size_t n = rest->n >= V2_TLV_HEAD ? (size_t)p[1] << 8 | p[2] : SIZE_MAX;
    if (n > rest->n - (rest->n >= V2_TLV_HEAD ? V2_TLV_HEAD : 0)) {
        *ret_bad = true;
        return false;
    }
    *ret_type = p[0];
    *ret_value = (struct str){rest->p + V2_TLV_HEAD, n};
    rest->p += V2_TLV_HEAD + n;
    rest->n -= V2_TLV_HEAD + n;
    return true;
}

/* A fact that is told twice is not one. */
static bool take_once(struct str *to, struct str value)
{
    if (to->p != NULL) {
        return false;
    }
    *to = value;
    return true;
}

static bool take_tls(struct str value, struct proxy_protocol *ret)
{
    const uint8_t *p = (const uint8_t *)value.p;
    if (ret->has_tls || value.n < V2_SSL_HEAD) {
        return false;
    }
    ret->has_tls = true;
    ret->tls.used = (p[0] & SSL_USED) != 0;
    ret->tls.cert_conn = (p[0] & SSL_CERT_CONN) != 0;
    ret->tls.cert_sess = (p[0] & SSL_CERT_SESS) != 0;
    ret->tls.verify = (uint32_t)p[1] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 8 | p[4];
    struct str rest = {value.p + V2_SSL_HEAD, value.n - V2_SSL_HEAD};
    unsigned type = 0;
    struct str one;
    bool bad = false;
    bool ok = true;
    while (ok && next_tlv(&rest, &type, &one, &bad)) {
        switch (type) {
        case TLV_SSL_VERSION:
            ok = take_once(&ret->tls.version, one);
            break;
        case TLV_SSL_CN:
            ok = take_once(&ret->tls.cn, one);
            break;
        case TLV_SSL_CIPHER:
            ok = take_once(&ret->tls.cipher, one);
            break;
        case TLV_SSL_CERT:
            ok = take_once(&ret->tls.cert, one);
            break;
        default:
            break; /* signature and key algorithms, and what comes to be defined */
        }
    }
    return ok && !bad;
}

/* Over the whole header, with the field itself read as zero. */
static bool crc_right(const uint8_t *data, size_t total, struct str field)
{
    size_t at = (size_t)((const uint8_t *)field.p - data);
    uint32_t told;
    if (field.n != sizeof(told)) {
        return false;
    }
    memcpy(&told, field.p, sizeof(told));
    uint32_t crc = proxy_protocol_crc32c(0, data, at);
    crc = proxy_protocol_crc32c(crc, "\0\0\0\0", sizeof(told));
    crc = proxy_protocol_crc32c(crc, data + at + sizeof(told), total - at - sizeof(told));
    return crc == ntohl(told);
}

static bool take_tlvs(const uint8_t *data, size_t total, struct str rest,
                      struct proxy_protocol *ret)
{
    unsigned type = 0;
    struct str value;
    bool bad = false;
    bool ok = true;
    while (ok && next_tlv(&rest, &type, &value, &bad)) {
        if (type == ret->spiffe_id_tlv && type != 0) {
            ok = take_once(&ret->spiffe_id, value);
            continue;
        }
        switch (type) {
        case TLV_ALPN:
            ok = take_once(&ret->alpn, value);
            break;
        case TLV_AUTHORITY:
            ok = take_once(&ret->authority, value);
            break;
        case TLV_CRC32C:
            ok = !ret->has_crc && crc_right(data, total, value);
            ret->has_crc = true;
            break;
        case TLV_UNIQUE_ID:
            ok = value.n <= PROXY_PROTOCOL_UNIQUE_ID_MAX && take_once(&ret->unique_id, value);
            break;
        case TLV_NETNS:
            ok = take_once(&ret->netns, value);
            break;
        case TLV_SSL:
            ok = take_tls(value, ret);
            break;
        default:
            break; /* NOOP, and what is not known */
        }
    }
    return ok && !bad;
}

static enum proxy_protocol_result read_v2(const uint8_t *data, size_t len,
                                          struct proxy_protocol *ret, size_t *ret_used)
{
    if (len > 12 && data[12] != V2_PROXY && data[12] != V2_LOCAL) {
        return PROXY_PROTOCOL_BAD;
    }
    if (len < V2_HEAD) {
        return PROXY_PROTOCOL_MORE;
    }
    size_t total = V2_HEAD + ((size_t)data[14] << 8 | data[15]);
    if (len < total) {
        return PROXY_PROTOCOL_MORE;
    }
    *ret_used = total;
    ret->local = data[12] == V2_LOCAL;
    if (ret->local) {
        return PROXY_PROTOCOL_OK; /* the rest is skipped, whatever it is */
    }
    long n = take_addresses(data[13], data + V2_HEAD, total - V2_HEAD, ret);
    if (n == -1) {
        return PROXY_PROTOCOL_BAD;
    }
    struct str rest = {(const char *)data + V2_HEAD + n, total - V2_HEAD - (size_t)n};
    ret->tlvs = rest;
    return take_tlvs(data, total, rest, ret) ? PROXY_PROTOCOL_OK : PROXY_PROTOCOL_BAD;
}

static bool begins_like(const uint8_t *data, size_t len, const char *signature, size_t n)
{
    return memcmp(data, signature, len < n ? len : n) == 0;
}

enum proxy_protocol_result proxy_protocol_read(const uint8_t *data, size_t len,
                                               struct proxy_protocol *ret, size_t *ret_used)
{
    struct proxy_protocol found = {.spiffe_id_tlv = ret->spiffe_id_tlv};
    size_t used = 0;
    size_t v1 = sizeof(V1_SIGNATURE) - 1;
    if (len == 0) {
        return PROXY_PROTOCOL_MORE;
    }
    enum proxy_protocol_result r = PROXY_PROTOCOL_BAD;
    if (begins_like(data, len, V2_SIGNATURE, V2_SIGNATURE_SIZE)) {
        r = read_v2(data, len, &found, &used);
    } else if (begins_like(data, len, V1_SIGNATURE, v1)) {
        r = len < v1 ? PROXY_PROTOCOL_MORE : read_v1(data, len, &found, &used);
    }
    if (r == PROXY_PROTOCOL_OK) {
        *ret = found;
        *ret_used = used;
    }
    return r;
}

size_t proxy_protocol_bound(const uint8_t *data, size_t len)
{
    size_t bound = len;
    if (len >= V2_HEAD && begins_like(data, len, V2_SIGNATURE, V2_SIGNATURE_SIZE)) {
        bound = V2_HEAD + ((size_t)data[14] << 8 | data[15]);
    } else if (begins_like(data, len, V1_SIGNATURE, sizeof(V1_SIGNATURE) - 1)) {
        const uint8_t *end = (const uint8_t *)memchr(data, '\n', len);
        bound = end != NULL ? (size_t)(end - data) + 1 : PROXY_PROTOCOL_V1_MAX;
    }
    return bound < len ? bound : len;
}

bool proxy_protocol_pick(struct str tlvs, const uint16_t *types, size_t n_types, struct buf *out)
{
    unsigned type = 0;
    struct str value;
    bool bad = false;
    bool ok = true;
    while (ok && next_tlv(&tlvs, &type, &value, &bad)) {
        for (size_t i = 0; i < n_types && ok; i++) {
            if (types[i] == type) {
                ok = buf_append(out, value.p - V2_TLV_HEAD, value.n + V2_TLV_HEAD);
                break;
            }
        }
    }
    return ok && !bad;
}
