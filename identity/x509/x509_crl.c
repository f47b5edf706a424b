/*
 * Revocation lists of ordinary authorities (RFC 5280, 5 and 6.3): whole lists of one issuer. Asked
 * after a path was found, for each certificate of it but the anchor; no list, or none that may be
 * used, is a no.
 *
 * A list whose issuer is among the authorities is verified once, when it is read; one of an
 * intermediate that only peers send, at each handshake. The lookup in a list takes no lock: it was
 * sorted here.
 */
#include <postern/x509_peers.h>

#include "x509_names_priv.h"
#include "x509_priv.h"
#include <openssl/err.h>
#include <openssl/x509_vfy.h>
#include <postern/os.h>
#include <stdio.h>
#include <stdlib.h>

struct list {
    X509_CRL *crl;          /* a reference */
    X509 *issuer;           /* a reference: verified with this one; NULL: not known yet */
    int64_t this_s, next_s; /* next_s INT64_MAX: it does not say */
};

struct x509_crls {
    struct list *items; /* owned */
    size_t n;
};

static void issuer_text(const X509_CRL *crl, char *ret, size_t size)
{
    char name[160] = "";
    X509_NAME_oneline(X509_CRL_get_issuer(crl), name, (int)sizeof(name));
    x509_text_copy(str_of(name), ret, size);
}

/* May this key sign lists? Without key usage anything goes. */
static bool may_sign(X509 *issuer)
{
    return (X509_get_extension_flags(issuer) & EXFLAG_KUSAGE) == 0 ||
           (X509_get_key_usage(issuer) & KU_CRL_SIGN) != 0;
}

static bool signed_by(X509_CRL *crl, X509 *issuer)
{
    EVP_PKEY *key = X509_get0_pubkey(issuer);
    ERR_clear_error();
    bool ok = key != NULL && may_sign(issuer) && X509_CRL_verify(crl, key) == 1;
    ERR_clear_error();
    return ok;
}

/* What is not a plain whole list says so in critical extensions, and by its entries'. */
static int check_list(X509_CRL *crl, struct err *err)
{
    for (int i = 0; i < X509_CRL_get_ext_count(crl); i++) {
        X509_EXTENSION *ext = X509_CRL_get_ext(crl, i);
        int nid = OBJ_obj2nid(X509_EXTENSION_get_object(ext));
        if (nid == NID_delta_crl || nid == NID_issuing_distribution_point ||
            X509_EXTENSION_get_critical(ext) != 0) {
            return err_set(err, ERR_CONFIG,
                           nid == NID_delta_crl ? "it is incremental (a delta list)"
                           : nid == NID_issuing_distribution_point
                               ? "it is partial (an issuing distribution point)"
                               : "it has a critical extension that is not understood");
        }
    }
    STACK_OF(X509_REVOKED) *revoked = X509_CRL_get_REVOKED(crl);
    for (int i = 0; i < sk_X509_REVOKED_num(revoked); i++) {
        const X509_REVOKED *one = sk_X509_REVOKED_value(revoked, i);
        for (int k = 0; k < X509_REVOKED_get_ext_count(one); k++) {
            if (X509_EXTENSION_get_critical(X509_REVOKED_get_ext(one, k)) != 0) {
                return err_set(err, ERR_CONFIG,
                               "an entry has a critical extension that is not understood");
            }
        }
    }
    return 0;
}

static int add(struct x509_crls *c, X509_CRL *crl, STACK_OF(X509) * cas, struct err *err)
{
    struct list l = {.crl = crl, .next_s = INT64_MAX};
    char name[160];
    if (check_list(crl, err) == -1) {
        issuer_text(crl, name, sizeof(name));
        return err_prefix(err, "the revocation list of %s", name);
    }
    l.this_s = x509_time_s(X509_CRL_get0_lastUpdate(crl));
    if (X509_CRL_get0_nextUpdate(crl) != NULL) {
        l.next_s = x509_time_s(X509_CRL_get0_nextUpdate(crl));
    }
    bool known = false;
    for (int i = 0; i < sk_X509_num(cas) && l.issuer == NULL; i++) {
        X509 *ca = sk_X509_value(cas, i);
        if (X509_NAME_cmp(X509_get_subject_name(ca), X509_CRL_get_issuer(crl)) == 0) {
            known = true;
            l.issuer = signed_by(crl, ca) ? ca : NULL;
        }
    }
    if (known && l.issuer == NULL) {
        issuer_text(crl, name, sizeof(name));
        err_set(err, ERR_CONFIG, "the revocation list of %s is not signed by that authority", name);
        return err_advise(err, "the authority has to be allowed to sign lists (cRLSign)");
    }
    X509_REVOKED *found = NULL;
    ASN1_INTEGER *zero = ASN1_INTEGER_new();
    if (zero != NULL) {
        (void)X509_CRL_get0_by_serial(crl, &found, zero); /* sorts it, now and not by a worker */
    }
    ASN1_INTEGER_free(zero);
    X509_CRL_up_ref(crl);
    if (l.issuer != NULL) {
        X509_up_ref(l.issuer);
    }
    c->items = mem_must_realloc(c->items, (c->n + 1) * sizeof(*c->items));
    c->items[c->n++] = l;
    return 0;
}

int x509_crls_new(STACK_OF(X509_CRL) * lists, STACK_OF(X509) * cas, struct x509_crls **ret,
                  struct err *err)
{
    struct x509_crls *c = mem_must_new(struct x509_crls);
    for (int i = 0; i < sk_X509_CRL_num(lists); i++) {
        if (add(c, sk_X509_CRL_value(lists, i), cas, err) == -1) {
            x509_crls_free(c);
            return -1;
        }
    }
    *ret = c;
    return 0;
}

struct x509_crls *x509_crls_free(struct x509_crls *c)
{
    if (c != NULL) {
        for (size_t i = 0; i < c->n; i++) {
            X509_CRL_free(c->items[i].crl);
            X509_free(c->items[i].issuer);
        }
        free(c->items);
        free(c);
    }
    return NULL;
}

size_t x509_crls_count(const struct x509_crls *c)
{
    return c->n;
}

int64_t x509_crls_end_s(const struct x509_crls *c)
{
    int64_t end_s = INT64_MAX;
    for (size_t i = 0; i < c->n; i++) {
        end_s = c->items[i].next_s < end_s ? c->items[i].next_s : end_s;
    }
    return end_s == INT64_MAX ? 0 : end_s;
}

bool x509_crls_equal(const struct x509_crls *a, const struct x509_crls *b)
{
    if (a == NULL || b == NULL) {
        return a == b;
    }
    if (a->n != b->n) {
        return false;
    }
    for (size_t i = 0; i < a->n; i++) {
        if (X509_CRL_match(a->items[i].crl, b->items[i].crl) != 0) {
            return false;
        }
    }
    return true;
}

/* --- judging ---------------------------------------------------------------------------------- */
/* The newest list that the issuer of this certificate has signed; NULL: none. */
static const struct list *find(const struct x509_crls *c, X509 *cert, X509 *issuer)
{
    const struct list *best = NULL;
    for (size_t i = 0; i < c->n; i++) {
        const struct list *l = &c->items[i];
        if ((best != NULL && l->this_s <= best->this_s) ||
            X509_NAME_cmp(X509_CRL_get_issuer(l->crl), X509_get_issuer_name(cert)) != 0) {
            continue;
        }
        bool of_issuer =
            l->issuer != NULL ? X509_cmp(l->issuer, issuer) == 0 : signed_by(l->crl, issuer);
        best = of_issuer ? l : best;
    }
    return best;
}

static enum x509_verdict no_list(const struct list *l, X509 *cert, const struct x509_ask *ask,
                                 struct err *err)
{
    char name[160] = "";
    char from[32], until[32], now[32];
    if (err == NULL) {
        return X509_NO_CRL;
    }
    X509_NAME_oneline(X509_get_issuer_name(cert), name, (int)sizeof(name));
    if (l == NULL) {
        err_set(err, ERR_DENIED, "there is no revocation list of %.100s", name);
        err_advise(err,
                   "add it to the file that `crl` names: every authority of a chain needs one");
        return X509_NO_CRL;
    }
    os_time_text(l->this_s, from, sizeof(from));
    os_time_text(l->next_s, until, sizeof(until));
    os_time_text(ask->now_s, now, sizeof(now));
    err_set(err, ERR_DENIED,
            "the revocation list of %.100s is %s: from %s, next one due %s, judged at %s", name,
            l->this_s > ask->now_s ? "not valid yet" : "outdated", from, until, now);
    err_advise(err, "put the authority's newest list into the file that `crl` names");
    return X509_NO_CRL;
}

static enum x509_verdict revoked(X509 *cert, bool leaf, struct err *err)
{
    char serial[48];
    x509_serial_text(cert, serial);
    err_set(err, ERR_DENIED, "%s (serial %s) is revoked by its issuer's list",
            leaf ? "its certificate" : "an authority above it", serial);
    return X509_IS_REVOKED;
}

/* The list of an authority that has issued this one and stands among the authorities itself. */
static const struct list *list_above(const struct x509_crls *c, X509 *cert, X509_REVOKED **ret)
{
    const struct list *above = NULL;
    for (size_t i = 0; i < c->n; i++) {
        const struct list *l = &c->items[i];
        if (l->issuer != NULL && X509_check_issued(l->issuer, cert) == X509_V_OK) {
            above = l;
            if (X509_CRL_get0_by_cert(l->crl, ret, cert) != 0) {
                return l;
            }
        }
    }
    return above;
}

/* A path ends at the first of the authorities, which may be an intermediate one with its root
 * beside it in the same file. It needs no list there, but what the list says counts. */
static enum x509_verdict judge_anchor(const struct x509_crls *c, X509 *anchor, struct err *err)
{
    for (int i = 0; i < X509_DEPTH_MAX; i++) {
        X509_REVOKED *entry = NULL;
        const struct list *l = list_above(c, anchor, &entry);
        if (l == NULL || l->issuer == anchor) {
            return X509_OK;
        }
        if (entry != NULL) {
            return revoked(anchor, false, err);
        }
        anchor = l->issuer;
    }
    return X509_OK;
}

enum x509_verdict x509_crls_judge(const struct x509_crls *c, STACK_OF(X509) * path,
                                  const struct x509_ask *ask, struct err *err)
{
    for (int i = 0; i + 1 < sk_X509_num(path); i++) {
        X509 *cert = sk_X509_value(path, i);
        X509_REVOKED *entry = NULL;
        const struct list *l = find(c, cert, sk_X509_value(path, i + 1));
        bool outdated = l != NULL && (l->this_s > ask->now_s || l->next_s <= ask->now_s);
        if (l != NULL && X509_CRL_get0_by_cert(l->crl, &entry, cert) != 0) {
            return revoked(cert, i == 0, err);
        }
        if (l == NULL || (outdated && !ask->again)) {
            return no_list(l, cert, ask, err);
        }
    }
    return judge_anchor(c, sk_X509_value(path, sk_X509_num(path) - 1), err);
}
