/* Writing PROXY protocol headers. */
#include <postern/proxy_protocol.h>

#include "proxy_protocol_priv.h"

#include <arpa/inet.h>
#include <stdio.h>

/* --- CRC32c ----------------------------------------------------------------------------------- */
/* Bit by bit: headers are some hundred bytes, once a connection. */
uint32_t proxy_protocol_crc32c(uint32_t crc, const void *data, size_t len)
{
    const uint8_t *p = (const uint8_t *)data;
    crc = ~crc;
    for (size_t i = 0; i < len; i++) {
        crc ^= p[i];
        for (unsigned bit = 0; bit < 8; bit++) {
            crc = (crc >> 1) ^ (0x82f63b78U & (0U - (crc & 1U)));
        }
    }
    return ~crc;
}

/* --- version 1 -------------------------------------------------------------------------------- */

bool proxy_protocol_write_v1(const struct proxy_protocol *h, struct buf *out)
{
    char source[INET6_ADDRSTRLEN], destination[INET6_ADDRSTRLEN];
    const struct net_addr *s = &h->source;
    const struct net_addr *d = &h->destination;
    if (h->family != PROXY_PROTOCOL_INET || s->len == 0 || s->sa.sa_family != d->sa.sa_family) {
        return buf_append_str(out, STR_LIT("PROXY UNKNOWN\r\n"));
    }
    bool v4 = s->sa.sa_family == AF_INET;
    inet_ntop(s->sa.sa_family,
              v4 ? (const void *)&s->in4.sin_addr : (const void *)&s->in6.sin6_addr, source,
              sizeof(source));
    inet_ntop(d->sa.sa_family,
              v4 ? (const void *)&d->in4.sin_addr : (const void *)&d->in6.sin6_addr, destination,
              sizeof(destination));
    return buf_printf(out, "PROXY TCP%c %s %s %u %u\r\n", v4 ? '4' : '6', source, destination,
                      net_addr_port(s), net_addr_port(d));
}

/* --- version 2 -------------------------------------------------------------------------------- */
/* A run of bytes being written; false from the first that did not fit on. */
struct writer {
    struct buf *out;
    bool ok;
};

static void put(struct writer *w, const void *p, size_t n)
{
    w->ok = w->ok && buf_append(w->out, p, n);
}

static void put8(struct writer *w, unsigned v)
{
    const uint8_t b = (uint8_t)v;
    put(w, &b, 1);
}

static void put16(struct writer *w, size_t v)
{
    const uint8_t b[2] = {(uint8_t)(v >> 8), (uint8_t)v};
    put(w, b, sizeof(b));
}

static void put_tlv(struct writer *w, unsigned type, struct str value)
{
    if (value.n > 0xffff) {
        w->ok = false;
    }
    if (value.n > 0) {
        put8(w, type);
        put16(w, value.n);
        put(w, value.p, value.n);
    }
}

static void put_addresses(struct writer *w, const struct net_addr *s, const struct net_addr *d)
{
    if (s->sa.sa_family == AF_INET) {
        put(w, &s->in4.sin_addr, 4);
        put(w, &d->in4.sin_addr, 4);
    } else {
        put(w, &s->in6.sin6_addr, 16);
        put(w, &d->in6.sin6_addr, 16);
    }
    put16(w, net_addr_port(s));
    put16(w, net_addr_port(d));
}

static void put_path(struct writer *w, struct str path)
{
    static const uint8_t zeros[PROXY_PROTOCOL_PATH_MAX];
    size_t n = path.n < sizeof(zeros) ? path.n : sizeof(zeros);
    put(w, path.p != NULL ? path.p : "", n);
    put(w, zeros, sizeof(zeros) - n);
}

static size_t tlv_size(struct str value)
{
    return value.n > 0 ? V2_TLV_HEAD + value.n : 0;
}

static void put_tls(struct writer *w, const struct proxy_protocol *h)
{
    size_t n = V2_SSL_HEAD + tlv_size(h->tls.version) + tlv_size(h->tls.cn) +
               tlv_size(h->tls.cipher) + tlv_size(h->tls.cert);
    if (n > 0xffff) {
        w->ok = false;
    }
    put8(w, TLV_SSL);
    put16(w, n);
    put8(w, (h->tls.used ? SSL_USED : 0U) | (h->tls.cert_conn ? SSL_CERT_CONN : 0U) |
                (h->tls.cert_sess ? SSL_CERT_SESS : 0U));
    put16(w, h->tls.verify >> 16);
    put16(w, h->tls.verify & 0xffff);
    put_tlv(w, TLV_SSL_VERSION, h->tls.version);
    put_tlv(w, TLV_SSL_CN, h->tls.cn);
    put_tlv(w, TLV_SSL_CIPHER, h->tls.cipher);
    put_tlv(w, TLV_SSL_CERT, h->tls.cert);
}

static bool speaks_of_addresses(const struct proxy_protocol *h)
{
    return h->family == PROXY_PROTOCOL_UNIX ||
           (h->family == PROXY_PROTOCOL_INET && h->source.len > 0 &&
            h->source.sa.sa_family == h->destination.sa.sa_family);
}

static void put_head(struct writer *w, const struct proxy_protocol *h)
{
    put(w, V2_SIGNATURE, V2_SIGNATURE_SIZE);
    put8(w, h->local ? V2_LOCAL : V2_PROXY);
    if (!speaks_of_addresses(h)) {
        put8(w, V2_UNSPEC);
        put16(w, 0);
    } else if (h->family == PROXY_PROTOCOL_UNIX) {
        put8(w, V2_UNIX);
        put16(w, 0);
        put_path(w, h->source_path);
        put_path(w, h->destination_path);
    } else {
        put8(w, h->source.sa.sa_family == AF_INET ? V2_TCP4 : V2_TCP6);
        put16(w, 0);
        put_addresses(w, &h->source, &h->destination);
    }
}

bool proxy_protocol_write_v2(const struct proxy_protocol *h, struct buf *out)
{
    struct buf b = BUF_INIT(PROXY_PROTOCOL_V2_MAX);
    struct writer w = {.out = &b, .ok = true};
    put_head(&w, h);
    put_tlv(&w, TLV_ALPN, h->alpn);
    put_tlv(&w, TLV_AUTHORITY, h->authority);
    put_tlv(&w, TLV_UNIQUE_ID, h->unique_id);
    put_tlv(&w, TLV_NETNS, h->netns);
    if (h->spiffe_id_tlv != 0) {
        put_tlv(&w, h->spiffe_id_tlv, h->spiffe_id);
    }
    if (h->has_tls) {
        put_tls(&w, h);
    }
    put(&w, h->tlvs.p != NULL ? h->tlvs.p : "", h->tlvs.n);
    if (h->has_crc) {
        put_tlv(&w, TLV_CRC32C, (struct str){"\0\0\0\0", 4});
    }
    if (w.ok) {
        size_t n = buf_len(&b) - V2_HEAD;
        b.data[b.start + 14] = (uint8_t)(n >> 8);
        b.data[b.start + 15] = (uint8_t)n;
        if (h->has_crc) {
            uint32_t crc = htonl(proxy_protocol_crc32c(0, buf_head(&b), buf_len(&b)));
            memcpy(b.data + b.start + b.len - sizeof(crc), &crc, sizeof(crc));
        }
        w.ok = buf_append(out, buf_head(&b), buf_len(&b));
    }
    buf_reset(&b);
    return w.ok;
}
