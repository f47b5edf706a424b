/*
 * proxy_protocol: the header that tells a server behind a proxy who really connected (the PROXY
 * protocol of HAProxy, versions 1 and 2), written and read. docs/gateway-routing.md says which
 * facts a gateway tells, and how a receiver finds the peer's SPIFFE ID.
 *
 * Pure: no sockets, no clock; writing appends to the caller's buffer. Reading is strict: a header
 * is taken whole or not at all. A header is to be believed only from those who may send one; that
 * is the caller's business. Thread: any.
 */
#ifndef POSTERN_PROXY_PROTOCOL_H
#define POSTERN_PROXY_PROTOCOL_H

#include <postern/buf.h>
#include <postern/net.h>
#include <postern/str.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PROXY_PROTOCOL_V1_MAX = 107,         /* with its CR LF */
    PROXY_PROTOCOL_V2_MAX = 16 + 0xffff, /* by its 16-bit length */
    PROXY_PROTOCOL_PATH_MAX = 108,       /* of a Unix socket, as the header holds it */
    PROXY_PROTOCOL_UNIQUE_ID_MAX = 128,
    PROXY_PROTOCOL_ID_TLV = 0xd0, /* where ztunnel puts a SPIFFE ID, and who reads it looks */
};

enum proxy_protocol_family {
    PROXY_PROTOCOL_UNSPEC, /* no addresses are told */
    PROXY_PROTOCOL_INET,   /* source and destination, both of IPv4 or both of IPv6 */
    PROXY_PROTOCOL_UNIX,   /* paths; empty: the socket has no name */
};

struct proxy_protocol {
    bool local; /* version 2: the proxy speaks for itself (a health check), nobody connected */
    enum proxy_protocol_family family;
    struct net_addr source, destination;
    struct str source_path, destination_path;

    /* Version 2 only, from here on; empty: not told. All are lent. */
    struct str alpn;
    struct str authority; /* the server name that the client asked for */
    struct str unique_id;
    struct str netns;
    uint8_t spiffe_id_tlv; /* the type that spiffe_id has, or is looked for under */
    struct str spiffe_id;
    bool has_tls; /* what follows means something */
    struct {
        bool used;                      /* the client spoke TLS with the proxy */
        bool cert_conn, cert_sess;      /* it showed a certificate, on this connection, session */
        uint32_t verify;                /* 0: the certificate was verified */
        struct str version, cipher, cn; /* "TLSv1.3" */
        struct str cert;                /* DER */
    } tls;
    struct str tlvs; /* reading: all of them; writing: whole ones that are sent on as they came */
    bool has_crc;    /* writing: add a CRC32c; reading: there was one, and it was right */
};

/* "PROXY TCP4 …", or "PROXY UNKNOWN" for what version 1 has no words for. False: no room. */
bool proxy_protocol_write_v1(const struct proxy_protocol *h, struct buf *out);
/* False: no room in `out`, or the facts together pass what the header can hold; nothing is appended
 * then. */
bool proxy_protocol_write_v2(const struct proxy_protocol *h, struct buf *out);

enum proxy_protocol_result {
    PROXY_PROTOCOL_MORE, /* the beginning of a header */
    PROXY_PROTOCOL_OK,
    PROXY_PROTOCOL_BAD,
};
/* Version 1 or 2. *ret views into data; *ret_used is the header's length, behind which the client's
 * own bytes begin. ret->spiffe_id_tlv (0: none) has to be set before. */
enum proxy_protocol_result proxy_protocol_read(const uint8_t *data, size_t len,
                                               struct proxy_protocol *ret, size_t *ret_used);

/* How many of these bytes, in which a header begins or may, are no one else's: all of one that is
 * not whole, and of a whole one its length. So a reader that takes no more than that from a socket
 * leaves what is behind the header to whoever comes next. */
size_t proxy_protocol_bound(const uint8_t *data, size_t len);
/* Appends those of `tlvs` whose type is listed, as they are. False: no room. */
bool proxy_protocol_pick(struct str tlvs, const uint16_t *types, size_t n_types, struct buf *out);

/* CRC-32C (Castagnoli), as RFC 3720 has it; start with 0, and with what it gave to go on. */
uint32_t proxy_protocol_crc32c(uint32_t crc, const void *data, size_t len);

#endif
