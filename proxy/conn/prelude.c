/* What goes to the target before the client's first byte: who the client is, and, of a connection
 * that is passed through, its first message. */
#include "conn_priv.h"

#include <openssl/x509.h>
#include <postern/proxy_protocol.h>

enum { CN_MAX = 256 };

/* --- facts ------------------------------------------------------------------------------------ */

/* Whom the source connected to, as far as that is known. */
static bool find_destination(const struct conn *c, struct net_addr *ret)
{
    if (c->told != NULL && c->told->destination.len > 0) {
        *ret = c->told->destination;
    } else if (conn_is_stream(c) || (c->target == NULL && c->original.len > 0)) { /* redirected */
        *ret = c->original;
    } else {
        return net_local_addr(c->peer.s.fd, ret);
    }
    return true;
}

static void tell_addresses(const struct conn *c, struct proxy_protocol *h)
{
    const struct conf_listener *l = conn_listener(c)->conf;
    if (net_addr_is_unix(&c->source)) {
        h->family = PROXY_PROTOCOL_UNIX;
        h->destination_path = str_of(l->bind.path);
    } else if (c->source.len > 0 && find_destination(c, &h->destination)) {
        h->family = PROXY_PROTOCOL_INET;
        h->source = c->source;
    }
}

static void tell_tls(const struct conn *c, struct proxy_protocol *h)
{
    const struct tls_stream *tls = conn_leg_tls(&c->peer);
    if (tls == NULL) { /* passed through: only the name is known */
        h->authority = c->hello != NULL ? (struct str){c->hello->said.server_name,
                                                       c->hello->said.server_name_len}
                                        : STR_NONE;
        return;
    }
    h->authority = tls_server_name(tls);
    h->alpn = tls_alpn(tls);
    h->has_tls = true;
    h->tls.used = true;
    h->tls.version = str_of(tls_version(tls));
    h->tls.cipher = str_of(tls_suite(tls));
}

/* Of the certificate that was verified. */
static void tell_cert(const struct conn *c, struct proxy_protocol *h, char cn[CN_MAX],
                      uint8_t **ret_der)
{
    const struct tls_stream *tls = conn_leg_tls(&c->peer);
    X509 *cert = tls != NULL ? tls_peer_certificate(tls) : NULL;
    if (cert == NULL) {
        return;
    }
    h->tls.cert_conn = h->tls.cert_sess = true;
    int n = X509_NAME_get_text_by_NID(X509_get_subject_name(cert), NID_commonName, cn, CN_MAX);
    if (n > 0 && n < CN_MAX - 1) { /* one that was cut would be another name */
        h->tls.cn = (struct str){cn, (size_t)n};
    }
    n = i2d_X509(cert, ret_der);
    if (n > 0) {
        h->tls.cert = (struct str){(const char *)*ret_der, (size_t)n};
    }
}

static void tell_identity(const struct conn *c, struct proxy_protocol *h)
{
    struct str id = conn_peer_id(c);
    uint16_t tlv = conn_listener(c)->conf->proxy_protocol_id_tlv;
    h->spiffe_id_tlv = (uint8_t)(tlv != 0 ? tlv : PROXY_PROTOCOL_ID_TLV);
    if (str_has_prefix(id, STR_LIT("spiffe://"))) { /* others have a kind of name before it */
        h->spiffe_id = id;
    }
}

/* --- sending ---------------------------------------------------------------------------------- */

static bool write_header(const struct conn *c, struct buf *out)
{
    enum conf_proxy_protocol mode = (enum conf_proxy_protocol)c->proxy_protocol;
    struct proxy_protocol h = {.has_crc = true};
    char cn[CN_MAX];
    uint8_t *der = NULL;
    tell_addresses(c, &h);
    if (mode == CONF_PROXY_PROTOCOL_V1) {
        return proxy_protocol_write_v1(&h, out);
    }
    tell_identity(c, &h);
    if (mode == CONF_PROXY_PROTOCOL_V2_TLS || mode == CONF_PROXY_PROTOCOL_V2_TLS_FULL) {
        tell_tls(c, &h);
    }
    if (mode == CONF_PROXY_PROTOCOL_V2_TLS_FULL) {
        tell_cert(c, &h, cn, &der);
    }
    h.tlvs = c->told != NULL ? buf_str(&c->told->in) : STR_NONE;
    bool ok = proxy_protocol_write_v2(&h, out);
    if (!ok) { /* a certificate of 64 kB: its owner is told of without it */
        h.tls.cert = STR_NONE;
        ok = proxy_protocol_write_v2(&h, out);
    }
    OPENSSL_free(der);
    return ok;
}

bool conn_prelude_send(struct conn *c, struct conn_leg *leg)
{
    struct buf out = BUF_INIT(PROXY_PROTOCOL_V2_MAX + CLIENT_HELLO_WIRE_MAX + DETECT_BYTES_MAX);
    bool ok = true;
    if (c->proxy_protocol != CONF_PROXY_PROTOCOL_NONE) {
        ok = write_header(c, &out);
    }
    if (c->passthrough) {
        ok = ok && buf_append_str(&out, buf_str(&c->hello->in));
        buf_reset(&c->hello->in);
    }
    struct str first = conn_plain_take(c);
    if (first.n > 0) {
        if (c->undeclared && c->race.how == DETECT_BY_NONE) {
            conn_detect_look(c, conn_downstream(c), (const uint8_t *)first.p, first.n);
        }
        ok = ok && buf_append_str(&out, first);
    }
    ok = ok && buf_append_str(&out, conn_early_kept(c));
    if (ok && buf_len(&out) > 0) {
        ok = stream_write(&leg->s, buf_head(&out), buf_len(&out)) != STREAM_FAILED;
        c->sys_errno = leg->s.sys_errno;
    }
    buf_reset(&out);
    return ok;
}
