/*
 * Judging the peer inside the handshake, and telling afterwards what went wrong.
 */
#include <postern/tls.h>

#include "tls_priv.h"

#include <openssl/err.h>
#include <openssl/sslerr.h>
#include <postern/os.h>
#include <stdlib.h>
#include <string.h>

struct tls_failure *tls_failure_get(struct tls_stream *s)
{
    if (s->failure == NULL) {
        s->failure = (struct tls_failure *)calloc(1, sizeof(*s->failure));
        if (s->failure != NULL) {
            s->failure->alert_sent = s->failure->alert_received = TLS_NO_ALERT;
        }
    }
    return s->failure;
}

/* Which X509_V_ERR makes OpenSSL send the alert that fits. */
static int alert_reason(enum x509_verdict v)
{
    switch (v) {
    case X509_OK:
        return X509_V_OK;
    case X509_EXPIRED:
        return X509_V_ERR_CERT_HAS_EXPIRED; /* certificate_expired */
    case X509_UNKNOWN_DOMAIN:
    case X509_BAD_CHAIN:
        return X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY; /* unknown_ca */
    case X509_IS_REVOKED:
        return X509_V_ERR_CERT_REVOKED; /* certificate_revoked */
    case X509_NO_CRL:
        return X509_V_ERR_UNSPECIFIED; /* certificate_unknown: it is not the peer's fault */
    case X509_NO_CERTIFICATE:
    case X509_BAD_ID:
    case X509_BAD_LEAF:
    case X509_BAD_NAMES:
    case X509_NOT_ALLOWED:
    case X509_N_VERDICTS:
        break;
    }
    return X509_V_ERR_CERT_REJECTED; /* bad_certificate */
}

static int64_t asn1_time_s(const ASN1_TIME *t)
{
    struct tm tm = {0};
    return ASN1_TIME_to_tm(t, &tm) == 1 ? (int64_t)timegm(&tm) : 0;
}

static void remember_refusal(struct tls_stream *s, enum tls_step step, enum x509_verdict verdict,
                             X509 *leaf, struct str id, const struct err *err)
{
    struct tls_failure *f = tls_failure_get(s);
    if (f == NULL) {
        return;
    }
    f->step = step;
    f->verdict = verdict;
    f->err = *err;
    size_t n = id.n < sizeof(f->shown_id) - 1 ? id.n : sizeof(f->shown_id) - 1;
    if (n > 0) {
        memcpy(f->shown_id, id.p, n);
    }
    f->shown_id[n] = '\0';
    if (leaf != NULL) {
        f->shown_not_before_s = asn1_time_s(X509_get0_notBefore(leaf));
        f->shown_not_after_s = asn1_time_s(X509_get0_notAfter(leaf));
    }
}

static bool is_expected(const struct tls_stream *s, struct str id)
{
    for (size_t i = 0; i < s->n_expected; i++) {
        if (str_eq(s->expected[i], id)) {
            return true;
        }
    }
    return false;
}

/* Which identities a client waits for. Where none are said, names are; where neither are, nobody is
 * right: a server is never anybody. Ordinary peers were judged by names. */
static bool is_right(const struct tls_stream *s, struct str id)
{
    if (s->party->server || x509_peers_trust(s->party->peers) == NULL) {
        return s->party->server || s->party->names != NULL;
    }
    return s->n_expected > 0 ? is_expected(s, id) : s->party->names != NULL;
}

static void tell_unexpected(const struct tls_stream *s, struct str id, struct err *err)
{
    err_set(err, ERR_DENIED, "the server is %.*s, which is not among the expected identities",
            STR_ARG(id));
    if (s->n_expected > 0) {
        err_expected(err, "%.*s%s", STR_ARG(s->expected[0]),
                     s->n_expected > 1 ? " or another of the route's" : "");
    }
    err_advise(err, "if it is the right workload, list its identity in the mesh map");
}

/* What is asked of a right chain at each handshake, in this order. X509_V_OK, or what makes OpenSSL
 * send the alert that fits. */
static int judge_peer(struct tls_stream *s, X509 *leaf, const struct tls_peer *peer)
{
    struct err err = ERR_INIT;
    struct str id = {peer->id, peer->id_len};
    if (deny_set_has(s->deny, id, str_of(peer->serial))) {
        err_set(&err, ERR_DENIED, "the peer is quarantined: %.*s, serial %s", STR_ARG(id),
                peer->serial);
        err_advise(&err, "`postern quarantine list` on this node says why and until when");
        remember_refusal(s, TLS_STEP_QUARANTINED, X509_OK, leaf, id, &err);
        return X509_V_ERR_CERT_REVOKED;
    }
    if (!is_right(s, id)) {
        tell_unexpected(s, id, &err);
        remember_refusal(s, TLS_STEP_EXPECTED, X509_OK, leaf, id, &err);
        return X509_V_ERR_CERT_REJECTED;
    }
    return X509_V_OK;
}

bool tls_peer_holds_now(struct tls_stream *s, const struct tls_peer *peer)
{
    X509 *leaf = sk_X509_value(peer->chain, 0);
    int64_t now_s = os_wall_s();
    if (now_s >= peer->not_before_s && now_s < peer->not_after_s) {
        return judge_peer(s, leaf, peer) == X509_V_OK;
    }
    struct err err = ERR_INIT;
    err_set(&err, ERR_DENIED,
            "the peer's certificate has expired since the session that it resumes");
    remember_refusal(s, TLS_STEP_IDENTITY, X509_EXPIRED, leaf, (struct str){peer->id, peer->id_len},
                     &err);
    return false;
}

int tls_verify_callback(X509_STORE_CTX *store, void *arg)
{
    (void)arg;
    SSL *ssl = (SSL *)X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
    struct tls_stream *s = (struct tls_stream *)SSL_get_app_data(ssl);
    const struct x509_ask ask = {.leaf = X509_STORE_CTX_get0_cert(store),
                                 .chain = X509_STORE_CTX_get0_untrusted(store),
                                 .is_server = !s->party->server,
                                 .now_s = os_wall_s()};
    struct tls_peer *peer = NULL;
    struct x509_peer shown;
    struct err err = ERR_INIT;
    enum x509_verdict v = tls_chains_judge(s->worker->chains, s->party, &ask, &peer, &shown, &err);
    s->peer = tls_peer_unref(s->peer);
    if (v != X509_OK) {
        remember_refusal(s, v == X509_NOT_ALLOWED ? TLS_STEP_EXPECTED : TLS_STEP_IDENTITY, v,
                         ask.leaf, (struct str){shown.id, shown.id_len}, &err);
        X509_STORE_CTX_set_error(store, alert_reason(v));
        return 0;
    }
    int why = judge_peer(s, ask.leaf, peer);
    X509_STORE_CTX_set_error(store, why);
    if (why != X509_V_OK) {
        tls_peer_unref(peer);
        return 0;
    }
    s->peer = peer;
    return 1;
}

void tls_info_callback(const SSL *ssl, int where, int ret)
{
    if ((where & SSL_CB_ALERT) == 0) {
        return;
    }
    struct tls_stream *s = (struct tls_stream *)SSL_get_app_data(ssl);
    if ((where & SSL_CB_READ) != 0) {
        s->alert_received = (uint8_t)(ret & 0xff);
    } else {
        s->alert_sent = (uint8_t)(ret & 0xff);
    }
}

static void explain_queue(const struct tls_stream *s, struct tls_failure *f)
{
    unsigned long code = ERR_peek_error();
    const char *reason = code != 0 ? ERR_reason_error_string(code) : NULL;
    bool from_ssl = ERR_GET_LIB(code) == ERR_LIB_SSL;
    switch (from_ssl ? ERR_GET_REASON(code) : 0) {
    case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
        f->step = TLS_STEP_CERTIFICATE;
        f->verdict = X509_NO_CERTIFICATE;
        err_set(&f->err, ERR_DENIED, "the client sent no certificate");
        err_expected(&f->err, "%s",
                     s->party != NULL && s->party->peers != NULL &&
                             x509_peers_trust(s->party->peers) == NULL
                         ? "a certificate of one of the listener's authorities"
                         : "an X.509-SVID of a trust domain that is trusted here");
        return;
    case SSL_R_UNSUPPORTED_PROTOCOL:
    case SSL_R_NO_SUITABLE_KEY_SHARE:
    case SSL_R_NO_SHARED_CIPHER:
    case SSL_R_NO_SUITABLE_GROUPS:
    case SSL_R_VERSION_TOO_LOW:
    case SSL_R_WRONG_SSL_VERSION:
        f->step = TLS_STEP_HELLO;
        err_set(&f->err, ERR_PROTOCOL, "no common ground: %s", reason);
        err_expected(&f->err, "TLS 1.3 with AES-GCM or ChaCha20-Poly1305, and X25519 or P-256");
        return;
    case SSL_R_NO_APPLICATION_PROTOCOL:
        f->step = TLS_STEP_HELLO;
        err_set(&f->err, ERR_PROTOCOL, "the client offers none of the application protocols here");
        err_advise(&f->err, "see `tls.alpn` of the listener");
        return;
    case SSL_R_HTTP_REQUEST:
    case SSL_R_HTTPS_PROXY_REQUEST:
    case SSL_R_WRONG_VERSION_NUMBER:
    case SSL_R_BAD_RECORD_TYPE:
        f->step = TLS_STEP_HELLO;
        err_set(&f->err, ERR_PROTOCOL, "what came is not TLS");
        err_expected(&f->err, "mutual TLS 1.3; plaintext is not accepted here");
        return;
    default:
        f->step = TLS_STEP_PROTOCOL;
        err_set(&f->err, ERR_PROTOCOL, "%s", reason != NULL ? reason : "protocol error");
        return;
    }
}

void tls_explain(struct tls_stream *s, bool peer_gone)
{
    struct tls_failure *f = tls_failure_get(s);
    if (f == NULL) {
        return;
    }
    f->alert_sent = s->alert_sent;
    f->alert_received = s->alert_received;
    if (f->step != TLS_STEP_NONE) {
        return;
    }
    if (s->alert_received != TLS_NO_ALERT) {
        f->step = TLS_STEP_REFUSED;
        err_set(&f->err, ERR_DENIED, "the peer refused: %s", tls_alert_text(s->alert_received));
        err_advise(&f->err, "the peer's own log names the step that failed");
    } else if (peer_gone) {
        f->step = TLS_STEP_CLOSED;
        err_set(&f->err, ERR_UNAVAILABLE, "the peer closed the connection during the handshake");
    } else {
        explain_queue(s, f);
    }
}

const char *tls_step_name(enum tls_step step)
{
    switch (step) {
    case TLS_STEP_NONE:
        return "none";
    case TLS_STEP_HELLO:
        return "hello";
    case TLS_STEP_CERTIFICATE:
        return "certificate";
    case TLS_STEP_IDENTITY:
        return "identity";
    case TLS_STEP_QUARANTINED:
        return "quarantined";
    case TLS_STEP_EXPECTED:
        return "expected";
    case TLS_STEP_REFUSED:
        return "refused";
    case TLS_STEP_CLOSED:
        return "closed";
    case TLS_STEP_PROTOCOL:
        return "protocol";
    }
    return "?";
}

const char *tls_alert_text(uint8_t alert)
{
    return alert == TLS_NO_ALERT ? "none" : SSL_alert_desc_string_long(alert);
}
