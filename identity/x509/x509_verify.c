/*
 * Judging a peer, in the order of X509-SVID.md section 5: its one SPIFFE ID, the leaf's profile,
 * the bundle of the ID's own trust domain, the path to that bundle and to nothing else.
 *
 * On the handshake's way: no lock is taken (the roots are a plain stack), and text is only made
 * when something is refused.
 */
#include <postern/x509.h>

#include "x509_priv.h"
#include <openssl/err.h>
#include <openssl/x509_vfy.h>
#include <postern/os.h>
#include <stdio.h>

/* 112 bits and better: no SHA-1, no RSA below 2048. OpenSSL's own scale. */
enum { SECURITY_LEVEL = 2 };

MEM_DEFINE_CLEANUP(X509_STORE_CTX, X509_STORE_CTX_free)

static const char *const verdict_names[] = {
    [X509_OK] = "ok",
    [X509_NO_CERTIFICATE] = "no_certificate",
    [X509_BAD_ID] = "bad_id",
    [X509_BAD_LEAF] = "bad_leaf",
    [X509_UNKNOWN_DOMAIN] = "unknown_trust_domain",
    [X509_EXPIRED] = "expired",
    [X509_BAD_CHAIN] = "bad_chain",
    [X509_BAD_NAMES] = "bad_names",
    [X509_NOT_ALLOWED] = "names_not_allowed",
    [X509_IS_REVOKED] = "revoked",
    [X509_NO_CRL] = "no_crl",
};

const char *x509_verdict_name(enum x509_verdict v)
{
    return (size_t)v < sizeof(verdict_names) / sizeof(verdict_names[0]) ? verdict_names[v] : "?";
}

/* What one judgement knows. */
struct judgement {
    const struct x509_trust *trust;
    X509 *leaf;
    STACK_OF(X509) * chain; /* lent; may be NULL */
    bool is_server;
    int64_t now_s;
    struct x509_peer *peer;
    struct spiffe_id id; /* views into names */
    GENERAL_NAMES *names;
    struct err *err;
};

/* Puts the identity shown before the reason, so that a log line is whole by itself. */
static enum x509_verdict refuse(const struct judgement *j, enum x509_verdict verdict)
{
    if (j->err != NULL) {
        char shown[130];
        size_t n = x509_text_copy((struct str){j->peer->id, j->peer->id_len}, shown, sizeof(shown));
        if (n > 0) {
            err_prefix(j->err, "peer shows '%s'", shown);
        } else {
            err_prefix(j->err, "peer shows no identity");
        }
    }
    return verdict;
}

static enum x509_verdict judge_id(struct judgement *j)
{
    struct str uri;
    if (x509_uri_find(j->leaf, &j->names, &uri, j->err) == -1) {
        j->peer->id_len = x509_uri_show(j->leaf, j->peer->id, sizeof(j->peer->id));
        return refuse(j, X509_BAD_ID);
    }
    j->peer->id_len = x509_text_copy(uri, j->peer->id, sizeof(j->peer->id));
    if (spiffe_id_parse(uri, &j->id, j->err) == -1) {
        return refuse(j, X509_BAD_ID);
    }
    if (j->id.path.n == 0) {
        err_set(j->err, ERR_PROTOCOL, "a workload's ID has a path; this names a trust domain");
        return refuse(j, X509_BAD_ID);
    }
    return X509_OK;
}

static enum x509_verdict judge_leaf(const struct judgement *j)
{
    if (x509_leaf_check(j->leaf, j->err) == -1) {
        return refuse(j, X509_BAD_LEAF);
    }
    uint32_t wanted = j->is_server ? XKU_SSL_SERVER : XKU_SSL_CLIENT;
    if ((X509_get_extension_flags(j->leaf) & EXFLAG_XKUSAGE) != 0 &&
        (X509_get_extended_key_usage(j->leaf) & wanted) == 0) {
        err_set(j->err, ERR_PROTOCOL, "the certificate is not for a TLS %s (extended key usage)",
                j->is_server ? "server" : "client");
        return refuse(j, X509_BAD_LEAF);
    }
    return X509_OK;
}

/* "leaf", "root", "intermediate 2": which certificate of a path the text speaks of. */
static void describe(X509 *cert, int depth, int n_path, char *ret, size_t size)
{
    char subject[100] = "";
    char serial[48];
    X509_NAME_oneline(X509_get_subject_name(cert), subject, (int)sizeof(subject));
    x509_serial_text(cert, serial);
    if (depth == 0) {
        snprintf(ret, size, "its certificate (serial %s)", serial);
    } else if (depth == n_path - 1) {
        snprintf(ret, size, "the root above it (serial %s, %s)", serial, subject);
    } else {
        snprintf(ret, size, "intermediate %d above it (serial %s, %s)", depth, serial, subject);
    }
}

static enum x509_verdict refuse_time(const struct judgement *j, X509 *cert, int depth, int n_path,
                                     bool expired)
{
    char which[200];
    char from[32];
    char until[32];
    char now[32];
    if (j->err == NULL) {
        return X509_EXPIRED;
    }
    describe(cert, depth, n_path, which, sizeof(which));
    os_time_text(x509_time_s(X509_get0_notBefore(cert)), from, sizeof(from));
    os_time_text(x509_not_after_s(cert), until, sizeof(until));
    os_time_text(j->now_s, now, sizeof(now));
    err_set(j->err, ERR_DENIED, "%s %s: valid from %s to %s, judged at %s", which,
            expired ? "has expired" : "is not valid yet", from, until, now);
    err_advise(j->err, !expired              ? "compare the clocks of the two hosts"
                       : depth == n_path - 1 ? "renew the authority"
                                             : "see whether the peer still reaches its agent");
    return refuse(j, X509_EXPIRED);
}

static enum x509_verdict refuse_path(const struct judgement *j, X509_STORE_CTX *ctx)
{
    int reason = X509_STORE_CTX_get_error(ctx);
    int depth = X509_STORE_CTX_get_error_depth(ctx);
    int n_path = sk_X509_num(X509_STORE_CTX_get0_chain(ctx));
    X509 *cert = X509_STORE_CTX_get_current_cert(ctx);
    bool expired = reason == X509_V_ERR_CERT_HAS_EXPIRED;
    if (cert != NULL && (expired || reason == X509_V_ERR_CERT_NOT_YET_VALID)) {
        return refuse_time(j, cert, depth, n_path, expired);
    }
    if (j->err == NULL) {
        return X509_BAD_CHAIN;
    }
    char which[200] = "its chain";
    if (cert != NULL) {
        /* A path that leads nowhere has no root: its last certificate is an intermediate. */
        describe(cert, depth, n_path + 1, which, sizeof(which));
    }
    err_set(j->err, ERR_DENIED, "no path to the bundle of '%.*s': %s: %s",
            (int)(j->id.trust_domain.n < 100 ? j->id.trust_domain.n : 100), j->id.trust_domain.p,
            which, X509_verify_cert_error_string(reason));
    return refuse(j, X509_BAD_CHAIN);
}

/* What OpenSSL does not ask of the path that it found; and what that says besides. */
static enum x509_verdict judge_signers(const struct judgement *j, X509_STORE_CTX *ctx)
{
    STACK_OF(X509) *path = X509_STORE_CTX_get0_chain(ctx);
    int n_path = sk_X509_num(path);
    for (int i = 1; i < n_path; i++) {
        X509 *cert = sk_X509_value(path, i);
        bool anchor = i == n_path - 1;
        /* Section 3.2 lets a root sign the authorities of several domains, but not their leaves. */
        if (x509_ca_check(cert, anchor, j->err) == -1 ||
            ((!anchor || i == 1) && x509_ca_domain_check(cert, j->id.trust_domain, j->err) == -1)) {
            char which[200];
            describe(cert, i, n_path, which, sizeof(which));
            err_prefix(j->err, "%s", which);
            return refuse(j, X509_BAD_CHAIN);
        }
    }
    if (!x509_path_read(path, j->peer)) {
        x509_err_crypto(j->err, "cannot read the path's keys");
        return refuse(j, X509_BAD_CHAIN);
    }
    return X509_OK;
}

static enum x509_verdict judge_path(const struct judgement *j, STACK_OF(X509) * roots)
{
    mem_auto(X509_STORE_CTX_free) X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    ERR_clear_error();
    if (ctx == NULL || X509_STORE_CTX_init(ctx, NULL, j->leaf, j->chain) != 1) {
        x509_err_crypto(j->err, "cannot begin to verify");
        return refuse(j, X509_BAD_CHAIN);
    }
    X509_STORE_CTX_set0_trusted_stack(ctx, roots);
    X509_VERIFY_PARAM *param = X509_STORE_CTX_get0_param(ctx);
    X509_VERIFY_PARAM_set_time(param, (time_t)j->now_s);
    X509_VERIFY_PARAM_set_depth(param, X509_DEPTH_MAX);
    X509_VERIFY_PARAM_set_auth_level(param, SECURITY_LEVEL);
    /* Each certificate of a bundle is an anchor (RFC 5280, 6.1.1 d), self-signed or not; a leaf
     * cannot stand among them, x509_trust_add refuses it. */
    X509_VERIFY_PARAM_set_flags(param, X509_V_FLAG_PARTIAL_CHAIN | X509_V_FLAG_TRUSTED_FIRST);
    enum x509_verdict verdict =
        X509_verify_cert(ctx) == 1 ? judge_signers(j, ctx) : refuse_path(j, ctx);
    ERR_clear_error();
    return verdict;
}

static enum x509_verdict judge(struct judgement *j)
{
    enum x509_verdict verdict = judge_id(j);
    if (verdict != X509_OK || (verdict = judge_leaf(j)) != X509_OK) {
        return verdict;
    }
    STACK_OF(X509) *roots = x509_trust_roots(j->trust, j->id.trust_domain);
    if (roots == NULL) {
        err_set(j->err, ERR_DENIED, "no bundle for its trust domain; %zu are known",
                x509_trust_count(j->trust));
        err_advise(j->err, "federate with the domain if its workloads are to be trusted");
        return refuse(j, X509_UNKNOWN_DOMAIN);
    }
    if (sk_X509_num(roots) == 0) {
        err_set(j->err, ERR_DENIED, "the bundle of its trust domain is empty: nothing is trusted");
        return refuse(j, X509_BAD_CHAIN);
    }
    if (j->chain != NULL && sk_X509_num(j->chain) > X509_CHAIN_MAX) {
        err_set(j->err, ERR_LIMIT, "more than %d certificates", (int)X509_CHAIN_MAX);
        return refuse(j, X509_BAD_CHAIN);
    }
    return judge_path(j, roots);
}

enum x509_verdict x509_verify_svid(const struct x509_trust *trust, X509 *leaf,
                                   STACK_OF(X509) * chain, bool is_server, int64_t now_s,
                                   struct x509_peer *ret_peer, struct err *err)
{
    struct judgement j = {.trust = trust,
                          .leaf = leaf,
                          .chain = chain,
                          .is_server = is_server,
                          .now_s = now_s,
                          .peer = ret_peer,
                          .err = err};
    ret_peer->id[0] = '\0';
    ret_peer->id_len = 0;
    ret_peer->not_before_s = ret_peer->not_after_s = 0;
    ret_peer->n_issuers = 0;
    ret_peer->serial[0] = '\0';
    if (leaf == NULL) {
        err_set(err, ERR_PROTOCOL, "the peer sent no certificate");
        return X509_NO_CERTIFICATE;
    }
    x509_serial_text(leaf, ret_peer->serial);
    enum x509_verdict verdict = judge(&j);
    GENERAL_NAMES_free(j.names);
    return verdict;
}
