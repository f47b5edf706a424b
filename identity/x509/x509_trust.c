/*
 * Trust bundles by trust domain, sorted by name. The roots of a domain are a plain stack that
 * verification reads: an OpenSSL store would take its lock at each lookup, from every worker.
 */
#include <postern/x509.h>

#include "x509_priv.h"
#include <stdatomic.h>
#include <stdlib.h>

struct bundle {
    char *trust_domain;     /* owned */
    STACK_OF(X509) * roots; /* owned; may be empty */
};

struct x509_trust {
    atomic_uint refs;
    struct bundle *bundles; /* owned, sorted by (length, bytes) of the trust domain */
    size_t n_bundles;
};

struct x509_trust *x509_trust_new(void)
{
    struct x509_trust *t = mem_must_new(struct x509_trust);
    atomic_init(&t->refs, 1);
    return t;
}

struct x509_trust *x509_trust_ref(const struct x509_trust *t)
{
    /* The count is the one thing that changes in what is otherwise immutable. */
    struct x509_trust *mine = (struct x509_trust *)(uintptr_t)t;
    unsigned before = atomic_fetch_add_explicit(&mine->refs, 1, memory_order_relaxed);
    POSTERN_ASSERT(before > 0);
    return mine;
}

struct x509_trust *x509_trust_unref(struct x509_trust *t)
{
    if (t == NULL || atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) > 1) {
        return NULL;
    }
    for (size_t i = 0; i < t->n_bundles; i++) {
        free(t->bundles[i].trust_domain);
        x509_stack_free(t->bundles[i].roots);
    }
    free(t->bundles);
    free(t);
    return NULL;
}

/* The place of a trust domain: the first bundle that is not before it. */
static size_t find(const struct x509_trust *t, struct str td, bool *ret_found)
{
    size_t low = 0;
    size_t high = t->n_bundles;
    *ret_found = false;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        struct str other = str_of(t->bundles[mid].trust_domain);
        int order = other.n == td.n ? memcmp(other.p, td.p, td.n) : (other.n < td.n ? -1 : 1);
        if (order == 0) {
            *ret_found = true;
            return mid;
        }
        if (order < 0) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low;
}

int x509_trust_add(struct x509_trust *t, struct str trust_domain, struct str ders, struct err *err)
{
    bool found = false;
    if (!spiffe_trust_domain_ok(trust_domain)) {
        return err_set(err, ERR_PROTOCOL, "a bundle for what is not a trust domain's name");
    }
    size_t at = find(t, trust_domain, &found);
    if (found) {
        return err_set(err, ERR_PROTOCOL, "the bundle of '%.*s' is given twice",
                       STR_ARG(trust_domain));
    }
    STACK_OF(X509) *roots = x509_ders_parse(ders, 0, X509_BUNDLE_MAX, err);
    if (roots == NULL) {
        return err_prefix(err, "bundle of '%.*s'", STR_ARG(trust_domain));
    }
    for (int i = 0; i < sk_X509_num(roots); i++) {
        X509 *root = sk_X509_value(roots, i);
        if (x509_ca_check(root, true, err) == -1) {
            x509_stack_free(roots);
            return err_prefix(err, "bundle of '%.*s': certificate %d", STR_ARG(trust_domain),
                              i + 1);
        }
        /* Decoded now, once, and not in the first handshake of each worker. */
        (void)X509_get0_pubkey(root);
    }
    t->bundles = mem_must_realloc(t->bundles, (t->n_bundles + 1) * sizeof(*t->bundles));
    memmove(t->bundles + at + 1, t->bundles + at, (t->n_bundles - at) * sizeof(*t->bundles));
    t->bundles[at].trust_domain = mem_must_strndup(trust_domain.p, trust_domain.n);
    t->bundles[at].roots = roots;
    t->n_bundles++;
    return 0;
}

size_t x509_trust_count(const struct x509_trust *t)
{
    return t->n_bundles;
}

struct str x509_trust_domain(const struct x509_trust *t, size_t i)
{
    POSTERN_ASSERT(i < t->n_bundles);
    return str_of(t->bundles[i].trust_domain);
}

STACK_OF(X509) * x509_trust_roots(const struct x509_trust *t, struct str trust_domain)
{
    bool found = false;
    size_t at = find(t, trust_domain, &found);
    return found ? t->bundles[at].roots : NULL;
}

size_t x509_trust_root_count(const struct x509_trust *t, struct str trust_domain)
{
    STACK_OF(X509) *roots = x509_trust_roots(t, trust_domain);
    return roots != NULL ? (size_t)sk_X509_num(roots) : 0;
}

static bool bundles_equal(const struct bundle *a, const struct bundle *b)
{
    if (strcmp(a->trust_domain, b->trust_domain) != 0 ||
        sk_X509_num(a->roots) != sk_X509_num(b->roots)) {
        return false;
    }
    for (int i = 0; i < sk_X509_num(a->roots); i++) {
        if (X509_cmp(sk_X509_value(a->roots, i), sk_X509_value(b->roots, i)) != 0) {
            return false;
        }
    }
    return true;
}

bool x509_trust_equal(const struct x509_trust *a, const struct x509_trust *b)
{
    if (a->n_bundles != b->n_bundles) {
        return false;
    }
    for (size_t i = 0; i < a->n_bundles; i++) {
        if (!bundles_equal(&a->bundles[i], &b->bundles[i])) {
            return false;
        }
    }
    return true;
}
