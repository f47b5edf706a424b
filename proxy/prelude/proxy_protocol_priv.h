/* What writing and reading the PROXY protocol share: the numbers of its second version. */
#ifndef POSTERN_PROXY_PROTOCOL_PRIV_H
#define POSTERN_PROXY_PROTOCOL_PRIV_H

#include <postern/proxy_protocol.h>

enum {
    V2_HEAD = 16,
    V2_TLV_HEAD = 3,
    V2_LOCAL = 0x20,
    V2_PROXY = 0x21,
    V2_UNSPEC = 0x00,
    V2_TCP4 = 0x11,
    V2_TCP6 = 0x21,
    V2_UNIX = 0x31,
    V2_TCP4_SIZE = 12,
    V2_TCP6_SIZE = 36,
    V2_UNIX_SIZE = 2 * PROXY_PROTOCOL_PATH_MAX,
    V2_SSL_HEAD = 5,

    TLV_ALPN = 0x01,
    TLV_AUTHORITY = 0x02,
    TLV_CRC32C = 0x03,
    TLV_NOOP = 0x04,
    TLV_UNIQUE_ID = 0x05,
    TLV_SSL = 0x20,
    TLV_SSL_VERSION = 0x21,
    TLV_SSL_CN = 0x22,
    TLV_SSL_CIPHER = 0x23,
    TLV_SSL_CERT = 0x28,
    TLV_NETNS = 0x30,

    SSL_USED = 0x01,
    SSL_CERT_CONN = 0x02,
    SSL_CERT_SESS = 0x04,
};

#define V2_SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
enum { V2_SIGNATURE_SIZE = 12 };

#endif
