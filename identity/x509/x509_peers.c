/*
 * Whom a peer's certificate must lead to. For SPIFFE this is x509_verify_svid and what the owner
 * asks of names besides; for ordinary authorities: the path (RFC 5280) with purpose, times and
 * depth, then revocation, then names. As there, no lock is taken.
 */
#include <postern/x509_peers.h>

#include "x509_names_priv.h"
#include "x509_priv.h"
#include <openssl/err.h>
#include <openssl/x509_vfy.h>
#include <postern/os.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    SECURITY_LEVEL = 2, /* as for SVIDs: no SHA-1, no RSA below 2048 */
    CAS_MAX = 512,
};

MEM_DEFINE_CLEANUP(X509_STORE_CTX, X509_STORE_CTX_free)
MEM_DEFINE_CLEANUP(GENERAL_NAMES, GENERAL_NAMES_free)

struct x509_peers {
    atomic_uint refs;
    struct x509_trust *trust; /* a reference; NULL: ordinary */
    STACK_OF(X509) * cas;     /* references */
    struct x509_crls *crls;   /* owned; NULL: revocation is not asked about */
};

struct x509_peers *x509_peers_new_spiffe(const struct x509_trust *trust)
{
    struct x509_peers *p = mem_must_new(struct x509_peers);
    atomic_init(&p->refs, 1);
    p->trust = x509_trust_ref(trust);
    return p;
}

static int check_cas(STACK_OF(X509) * cas, struct err *err)
{
    if (sk_X509_num(cas) < 1 || sk_X509_num(cas) > CAS_MAX) {
        return err_set(err, ERR_CONFIG, "%d authorities; there may be 1 to %d", sk_X509_num(cas),
                       (int)CAS_MAX);
    }
    for (int i = 0; i < sk_X509_num(cas); i++) {
        X509 *ca = sk_X509_value(cas, i);
        if (x509_ca_check(ca, true, err) == -1) {
            char name[160] = "", shown[160];
            X509_NAME_oneline(X509_get_subject_name(ca), name, (int)sizeof(name));
            x509_text_copy(str_of(name), shown, sizeof(shown));
            return err_prefix(err, "certificate %d (%s)", i + 1, shown);
        }
        (void)X509_get0_pubkey(ca); /* decoded once, and not by a worker */
    }
    return 0;
}

int x509_peers_new_ordinary(STACK_OF(X509) * cas, STACK_OF(X509_CRL) * crls,
                            struct x509_peers **ret, struct err *err)
{
    if (check_cas(cas, err) == -1) {
        return -1;
    }
    mem_auto(x509_peers_unref) struct x509_peers *p = mem_must_new(struct x509_peers);
    atomic_init(&p->refs, 1);
    p->cas = X509_chain_up_ref(cas);
    POSTERN_ASSERT(p->cas != NULL);
    if (crls != NULL && x509_crls_new(crls, cas, &p->crls, err) == -1) {
        return -1;
    }
    *ret = p;
    p = NULL;
    return 0;
}

struct x509_peers *x509_peers_ref(const struct x509_peers *p)
{
    struct x509_peers *mine =
        (struct x509_peers *)(uintptr_t)p; /* all but the count is immutable */
    POSTERN_ASSERT(atomic_fetch_add_explicit(&mine->refs, 1, memory_order_relaxed) > 0);
    return mine;
}

struct x509_peers *x509_peers_unref(struct x509_peers *p)
{
    if (p == NULL || atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) > 1) {
        return NULL;
    }
    x509_trust_unref(p->trust);
    x509_stack_free(p->cas);
    x509_crls_free(p->crls);
    free(p);
    return NULL;
}

const struct x509_trust *x509_peers_trust(const struct x509_peers *p)
{
    return p->trust;
}

size_t x509_peers_count(const struct x509_peers *p)
{
    size_t n = 0;
    if (p->trust == NULL) {
        return (size_t)sk_X509_num(p->cas);
    }
    for (size_t i = 0; i < x509_trust_count(p->trust); i++) {
        n += x509_trust_root_count(p->trust, x509_trust_domain(p->trust, i));
    }
    return n;
}

size_t x509_peers_crl_count(const struct x509_peers *p)
{
    return p->crls != NULL ? x509_crls_count(p->crls) : 0;
}

int64_t x509_peers_crl_end_s(const struct x509_peers *p)
{
    return p->crls != NULL ? x509_crls_end_s(p->crls) : 0;
}

bool x509_peers_equal(const struct x509_peers *a, const struct x509_peers *b)
{
    if ((a->trust != NULL) != (b->trust != NULL)) {
        return false;
    }
    if (a->trust != NULL) {
        return a->trust == b->trust || x509_trust_equal(a->trust, b->trust);
    }
    if (sk_X509_num(a->cas) != sk_X509_num(b->cas) || !x509_crls_equal(a->crls, b->crls)) {
        return false;
    }
    for (int i = 0; i < sk_X509_num(a->cas); i++) {
        if (X509_cmp(sk_X509_value(a->cas, i), sk_X509_value(b->cas, i)) != 0) {
            return false;
        }
    }
    return true;
}

/* --- judging ---------------------------------------------------------------------------------- */
/* What was shown before the reason: a log line is whole by itself. */
static enum x509_verdict refuse(const struct x509_ask *ask, enum x509_verdict verdict,
                                struct x509_peer *ret, struct err *err)
{
    ret->id_len = x509_cert_show_names(ask->leaf, ret->id, sizeof(ret->id));
    if (err != NULL && ret->id_len > 0) {
        err_prefix(err, "peer shows %.160s", ret->id);
    } else if (err != NULL) {
        err_prefix(err, "peer shows no name");
    }
    return verdict;
}

static void which_text(X509 *cert, int depth, char *ret, size_t size)
{
    char name[120] = "", shown[120], serial[48];
    X509_NAME_oneline(X509_get_subject_name(cert), name, (int)sizeof(name));
    x509_text_copy(str_of(name), shown, sizeof(shown));
    x509_serial_text(cert, serial);
    if (depth == 0) {
        snprintf(ret, size, "its certificate (serial %s)", serial);
    } else {
        snprintf(ret, size, "certificate %d above it (serial %s, %s)", depth, serial, shown);
    }
}

static enum x509_verdict tell_path(X509_STORE_CTX *ctx, const struct x509_ask *ask, struct err *err)
{
    int reason = X509_STORE_CTX_get_error(ctx);
    int depth = X509_STORE_CTX_get_error_depth(ctx);
    X509 *cert = X509_STORE_CTX_get_current_cert(ctx);
    bool expired = reason == X509_V_ERR_CERT_HAS_EXPIRED;
    bool time = expired || reason == X509_V_ERR_CERT_NOT_YET_VALID;
    char which[240] = "its chain";
    if (err == NULL) {
        return time ? X509_EXPIRED : X509_BAD_CHAIN;
    }
    if (cert != NULL) {
        which_text(cert, depth, which, sizeof(which));
    }
    if (time && cert != NULL) {
        char from[32], until[32], now[32];
        os_time_text(x509_not_before_s(cert), from, sizeof(from));
        os_time_text(x509_not_after_s(cert), until, sizeof(until));
        os_time_text(ask->now_s, now, sizeof(now));
        err_set(err, ERR_DENIED, "%s %s: valid from %s to %s, judged at %s", which,
                expired ? "has expired" : "is not valid yet", from, until, now);
        return X509_EXPIRED;
    }
    err_set(err, ERR_DENIED, "no path to the authorities: %s: %s", which,
            X509_verify_cert_error_string(reason));
    if (reason == X509_V_ERR_INVALID_PURPOSE) {
        err_expected(err, "a certificate for TLS %s (extended key usage)",
                     ask->is_server ? "servers" : "clients");
    }
    return X509_BAD_CHAIN;
}

static enum x509_verdict judge_path(const struct x509_peers *p, const struct x509_ask *ask,
                                    struct x509_peer *ret, struct err *err)
{
    mem_auto(X509_STORE_CTX_free) X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    ERR_clear_error();
    if (ask->chain != NULL && sk_X509_num(ask->chain) > X509_CHAIN_MAX) {
        err_set(err, ERR_LIMIT, "more than %d certificates", (int)X509_CHAIN_MAX);
        return X509_BAD_CHAIN;
    }
    if (ctx == NULL || X509_STORE_CTX_init(ctx, NULL, ask->leaf, ask->chain) != 1 ||
        X509_STORE_CTX_set_purpose(ctx, ask->is_server ? X509_PURPOSE_SSL_SERVER
                                                       : X509_PURPOSE_SSL_CLIENT) != 1) {
        x509_err_crypto(err, "cannot begin to verify");
        return X509_BAD_CHAIN;
    }
    X509_STORE_CTX_set0_trusted_stack(ctx, p->cas);
    X509_VERIFY_PARAM *param = X509_STORE_CTX_get0_param(ctx);
    X509_VERIFY_PARAM_set_time(param, (time_t)ask->now_s);
    X509_VERIFY_PARAM_set_depth(param, X509_DEPTH_MAX);
    X509_VERIFY_PARAM_set_auth_level(param, SECURITY_LEVEL);
    X509_VERIFY_PARAM_set_flags(param, X509_V_FLAG_PARTIAL_CHAIN | X509_V_FLAG_TRUSTED_FIRST);
    enum x509_verdict v = X509_OK;
    if (X509_verify_cert(ctx) != 1) {
        v = tell_path(ctx, ask, err);
    } else {
        STACK_OF(X509) *path = X509_STORE_CTX_get0_chain(ctx);
        if (!x509_path_read(path, ret)) {
            x509_err_crypto(err, "cannot read the path's keys");
            v = X509_BAD_CHAIN;
        } else if (p->crls != NULL) {
            v = x509_crls_judge(p->crls, path, ask, err);
        }
    }
    ERR_clear_error();
    return v;
}

static enum x509_verdict not_allowed(const struct x509_names *names, struct err *err)
{
    const char *first = x509_names_first(names), *host = x509_names_host(names);
    err_set(err, ERR_DENIED, "none of its names is among those that are allowed here");
    if (first != NULL) {
        err_expected(err, "%.120s%s%s%.120s", first,
                     x509_names_count(names) > 1 ? " or another of the listener's names" : "",
                     host != NULL ? ", and besides the host " : "", host != NULL ? host : "");
    }
    return X509_NOT_ALLOWED;
}

static enum x509_verdict verify_ordinary(const struct x509_peers *p, const struct x509_names *names,
                                         const struct x509_ask *ask, struct x509_peer *ret,
                                         struct err *err)
{
    mem_auto(GENERAL_NAMES_free) GENERAL_NAMES *sans = NULL;
    *ret = (struct x509_peer){.id_len = 0};
    if (ask->leaf == NULL) {
        err_set(err, ERR_PROTOCOL, "the peer sent no certificate");
        return X509_NO_CERTIFICATE;
    }
    x509_serial_text(ask->leaf, ret->serial);
    if (x509_sans_read(ask->leaf, &sans, err) == -1) {
        return refuse(ask, X509_BAD_NAMES, ret, err);
    }
    enum x509_verdict v = judge_path(p, ask, ret, err);
    if (v == X509_OK && !x509_names_find(names, ask->leaf, sans, ask->is_server, ret)) {
        v = names != NULL ? not_allowed(names, err) : X509_BAD_NAMES;
    }
    return v == X509_OK ? v : refuse(ask, v, ret, err);
}

enum x509_verdict x509_peers_verify(const struct x509_peers *peers, const struct x509_names *names,
                                    const struct x509_ask *ask, struct x509_peer *ret,
                                    struct err *err)
{
    if (peers->trust == NULL) {
        return verify_ordinary(peers, names, ask, ret, err);
    }
    enum x509_verdict v =
        x509_verify_svid(peers->trust, ask->leaf, ask->chain, ask->is_server, ask->now_s, ret, err);
    if (v != X509_OK || names == NULL) {
        return v;
    }
    /* The SPIFFE ID stays the principal; names only narrow. */
    mem_auto(GENERAL_NAMES_free) GENERAL_NAMES *sans = NULL;
    struct x509_peer other;
    if (x509_sans_read(ask->leaf, &sans, err) == -1) {
        return X509_BAD_NAMES;
    }
    if (x509_names_find(names, ask->leaf, sans, ask->is_server, &other)) {
        return X509_OK;
    }
    (void)not_allowed(names, err);
    if (err != NULL) {
        err_prefix(err, "peer shows '%.160s'", ret->id);
    }
    return X509_NOT_ALLOWED;
}
