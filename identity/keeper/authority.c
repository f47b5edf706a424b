/* What signs now: an authority, the node's intermediate below it, and the bundle that is shown. It
 * is built whole before what was in force is touched. */
#include "keeper_priv.h"

#include <postern/os.h>
#include <stdlib.h>
#include <string.h>

void keeper_authority_init(struct keeper_authority *a, struct str trust_domain, uint32_t root_ttl_s,
                           uint32_t node_ttl_s)
{
    *a = (struct keeper_authority){.root_ttl_s = root_ttl_s, .node_ttl_s = node_ttl_s};
    memcpy(a->trust_domain_id, "spiffe://", 9);
    memcpy(a->trust_domain_id + 9, trust_domain.p, trust_domain.n);
}

void keeper_authority_deinit(struct keeper_authority *a)
{
    keeper_force_free(a->force);
    keeper_disk_free(a->disk);
    *a = (struct keeper_authority){.force = NULL};
}

struct keeper_force *keeper_force_free(struct keeper_force *f)
{
    if (f != NULL) {
        keeper_store_deinit(&f->store);
        EVP_PKEY_free(f->issuer_key);
        X509_free(f->issuer);
        EVP_PKEY_free(f->node_key);
        X509_free(f->node);
        x509_signer_unref(f->signer);
        free(f->chain);
        free(f->bundle);
        free(f);
    }
    return NULL;
}

/* --- the bundle ------------------------------------------------------------------------------- */
/* In the order in which they were made, so that nothing moves when one takes over from another. */
static int build_bundle(const struct keeper_authority *a, struct keeper_force *f, struct err *err)
{
    uint32_t n = 0;

    f->bundle = mem_must_calloc(1, AGENT_BUNDLE_MAX);
    f->bundle_not_after_s = 0;
    if (a->disk != NULL) {
        memcpy(f->bundle, a->disk->bundle, a->disk->bundle_len);
        f->bundle_len = a->disk->bundle_len;
        f->bundle_not_after_s = a->disk->bundle_not_after_s;
        return 0;
    }
    for (size_t i = 0; i < f->store.n; i++) {
        const struct keeper_record *r = &f->store.records[i];

        if (r->kind != KEEPER_X509) {
            continue;
        }
        if (r->cert_len > AGENT_BUNDLE_MAX - f->bundle_len) {
            err_set(err, ERR_LIMIT, "the bundle would be larger than %d bytes", AGENT_BUNDLE_MAX);
            return err_advise(err, "retire old authorities first");
        }
        memcpy(f->bundle + f->bundle_len, r->cert, r->cert_len);
        f->bundle_len += r->cert_len;
        f->bundle_tainted |= r->state == KEEPER_TAINTED ? UINT32_C(1) << n : 0;
        n++;
        if (r->not_after_s > f->bundle_not_after_s) {
            f->bundle_not_after_s = r->not_after_s;
        }
    }
    return 0;
}

/* --- the node's intermediate ------------------------------------------------------------------ */
static int not_valid_now(const struct keeper_force *f, int64_t now_s, struct err *err)
{
    char when[32];
    bool ended = f->issuer_not_after_s <= now_s;

    os_time_text(ended ? f->issuer_not_after_s : f->issuer_not_before_s, when, sizeof(when));
    err_set(err, ERR_UNAVAILABLE,
            ended ? "the root expired at %s" : "the root is valid only from %s on", when);
    return ended ? err_advise(err, "%s", keeper_root_advice)
                 : err_advise(err, "set this machine's clock");
}

/* There is no room for another level: the files' authority signs leaves itself. */
static int take_as_node(const struct keeper_disk *d, struct keeper_force *f, struct err *err)
{
    struct x509_signer *signer = x509_signer_new(d->cert, d->key, err);

    if (signer == NULL) {
        return -1;
    }
    x509_signer_unref(f->signer);
    f->signer = signer;
    EVP_PKEY_up_ref(d->key);
    X509_up_ref(d->cert);
    EVP_PKEY_free(f->node_key);
    X509_free(f->node);
    free(f->chain);
    f->node_key = d->key;
    f->node = d->cert;
    f->chain = mem_must_calloc(1, d->chain_len);
    memcpy(f->chain, d->chain, d->chain_len);
    f->chain_len = d->chain_len;
    f->node_not_before_s = d->not_before_s;
    f->node_not_after_s = d->not_after_s;
    f->node_renew_s = INT64_MAX; /* that is not ours to do */
    return 0;
}

/* Behind the node's intermediate comes what signed it. */
static int add_chain(const struct keeper_disk *d, uint8_t **der, size_t *len, struct err *err)
{
    uint8_t *both;

    if (d->chain_len > AGENT_CHAIN_MAX - *len) {
        return err_set(err, ERR_LIMIT, "the chain is larger than %d bytes", AGENT_CHAIN_MAX);
    }
    both = mem_must_calloc(1, *len + d->chain_len);
    memcpy(both, *der, *len);
    memcpy(both + *len, d->chain, d->chain_len);
    free(*der);
    *der = both;
    *len += d->chain_len;
    return 0;
}

static int issue_node(const struct keeper_authority *a, const struct keeper_force *f,
                      struct x509_issue *what, X509 **ret, struct err *err)
{
    if (!f->issuer_in_token) {
        return x509_issue(what, f->issuer, f->issuer_key, ret, err);
    }
    if (what->not_after_s > f->issuer_not_after_s) {
        what->not_after_s = f->issuer_not_after_s; /* the signer does not know its root's end */
    }
    return keeper_signer_node(a->signer, f->issuer_key, what, ret, err);
}

int keeper_force_renew_node(const struct keeper_authority *a, struct keeper_force *f, int64_t now_s,
                            struct err *err)
{
    mem_auto(EVP_PKEY_free) EVP_PKEY *key = NULL;
    mem_auto(X509_free) X509 *cert = NULL;
    struct x509_signer *signer;
    uint8_t *der = NULL;
    size_t len = 0;
    int64_t half_s, begin_s = now_s - KEEPER_BACKDATE_S;
    uint8_t point[AGENT_POINT_SIZE];
    struct x509_issue what = {.spiffe_id = str_of(a->trust_domain_id),
                              .point = point,
                              .ca = true,
                              .path_len = 0,
                              .not_before_s = begin_s,
                              .not_after_s = now_s + a->node_ttl_s};

    if (f->issuer_not_after_s <= now_s || f->issuer_not_before_s > now_s) {
        return not_valid_now(f, now_s, err);
    }
    if (what.not_before_s < f->issuer_not_before_s) {
        what.not_before_s = f->issuer_not_before_s;
    }
    if (a->disk != NULL && !a->disk->has_room) {
        return take_as_node(a->disk, f, err);
    }
    key = x509_key_new(err);
    if (key == NULL || x509_key_point(key, point, err) == -1 ||
        issue_node(a, f, &what, &cert, err) == -1 || x509_to_der(cert, &der, &len, err) == -1) {
        return err_prefix(err, "making the node's intermediate");
    }
    if (a->disk != NULL && add_chain(a->disk, &der, &len, err) == -1) {
        free(der);
        return -1;
    }
    if (len > AGENT_CHAIN_MAX) {
        free(der);
        return err_set(err, ERR_LIMIT, "the node's intermediate is too large");
    }
    signer = x509_signer_new(cert, key, err);
    if (signer == NULL) {
        free(der);
        return err_prefix(err, "making the node's intermediate ready");
    }
    x509_signer_unref(f->signer);
    f->signer = signer;
    EVP_PKEY_free(f->node_key);
    X509_free(f->node);
    free(f->chain);
    f->node_key = key;
    key = NULL;
    f->node = cert;
    cert = NULL;
    f->chain = der;
    f->chain_len = len;
    f->node_not_before_s = what.not_before_s;
    f->node_not_after_s = x509_not_after_s(f->node);
    if (f->node_not_after_s > f->issuer_not_after_s) {
        f->node_not_after_s = f->issuer_not_after_s; /* somebody further up ends before */
    }
    half_s = (f->node_not_after_s - now_s) / 2;
    f->node_renew_s = now_s + (half_s > 0 ? half_s : 1);
    return 0;
}

/* --- building --------------------------------------------------------------------------------- */
static int take_issuer(const struct keeper_authority *a, struct keeper_force *f, struct err *err)
{
    const struct keeper_record *r = keeper_store_find(&f->store, KEEPER_X509, KEEPER_ACTIVE);

    if (a->disk != NULL) {
        if (keeper_disk_key_check(a->disk, err) == -1) {
            return -1;
        }
        f->issuer_key = a->disk->key;
        f->issuer = a->disk->cert;
        EVP_PKEY_up_ref(f->issuer_key);
        X509_up_ref(f->issuer);
        memcpy(f->issuer_id, a->disk->id, sizeof(f->issuer_id));
        f->issuer_not_before_s = a->disk->not_before_s;
        f->issuer_not_after_s = a->disk->not_after_s;
        return 0;
    }
    if (r == NULL) {
        err_set(err, ERR_CONFIG, "no root is active");
        return err_advise(err, "%s", keeper_root_advice);
    }
    if (keeper_root_read(a, r, &f->issuer_key, &f->issuer, err) == -1) {
        return -1;
    }
    f->issuer_in_token = r->key == NULL;
    memcpy(f->issuer_id, r->id, sizeof(f->issuer_id));
    f->issuer_not_before_s = x509_not_before_s(f->issuer);
    f->issuer_not_after_s = x509_not_after_s(f->issuer);
    return 0;
}

/* The same authority goes on with the intermediate that it has. */
static void keep_node(struct keeper_force *f, struct keeper_force *old)
{
    EVP_PKEY_up_ref(old->node_key);
    X509_up_ref(old->node);
    f->node_key = old->node_key;
    f->node = old->node;
    f->signer = x509_signer_ref(old->signer);
    f->chain = mem_must_calloc(1, old->chain_len);
    memcpy(f->chain, old->chain, old->chain_len);
    f->chain_len = old->chain_len;
    f->node_not_before_s = old->node_not_before_s;
    f->node_not_after_s = old->node_not_after_s;
    f->node_renew_s = old->node_renew_s;
}

struct keeper_force *keeper_force_build(const struct keeper_authority *a,
                                        struct keeper_store *store, int64_t now_s, struct err *err)
{
    struct keeper_force *f = mem_must_new(struct keeper_force);
    int r;

    f->store = *store;
    *store = (struct keeper_store){.records = NULL};
    r = take_issuer(a, f, err);
    if (r == 0) {
        r = build_bundle(a, f, err);
    }
    if (r == 0 && a->force != NULL && strcmp(a->force->issuer_id, f->issuer_id) == 0) {
        keep_node(f, a->force);
    } else if (r == 0) {
        r = keeper_force_renew_node(a, f, now_s, err);
    }
    if (r == 0 && a->disk != NULL) {
        r = keeper_disk_check(a, f, now_s, err);
    }
    if (r == -1 && a->disk != NULL) {
        keeper_disk_refuse(err);
    }
    return r == 0 ? f : keeper_force_free(f);
}

bool keeper_authority_take(struct keeper_authority *a, struct keeper_force *f)
{
    bool changed = a->force == NULL || a->force->bundle_len != f->bundle_len ||
                   a->force->bundle_tainted != f->bundle_tainted ||
                   memcmp(a->force->bundle, f->bundle, f->bundle_len) != 0;

    keeper_force_free(a->force);
    a->force = f;
    return changed;
}

/* --- leaves ----------------------------------------------------------------------------------- */
int keeper_authority_issue(const struct keeper_authority *a, struct x509_issue *what,
                           uint32_t ttl_s, int64_t now_s, struct keeper_leaf *ret, struct err *err)
{
    const struct keeper_force *f = a->force;
    struct x509_made made = {.der = NULL};

    if (f->node_not_after_s <= now_s || f->node_not_before_s > now_s) {
        return err_set(err, ERR_UNAVAILABLE, "the node's intermediate is not valid now");
    }
    what->ca = false;
    what->not_before_s = now_s - KEEPER_BACKDATE_S;
    if (what->not_before_s < f->node_not_before_s) {
        what->not_before_s = f->node_not_before_s;
    }
    what->not_after_s = now_s + ttl_s;
    if (what->not_after_s > f->node_not_after_s) {
        what->not_after_s = f->node_not_after_s; /* which is not above any other of the chain */
    }
    if (x509_signer_issue(f->signer, what, &made, err) == -1) {
        return -1;
    }
    if (made.len > AGENT_LEAF_MAX) {
        free(made.der);
        return err_set(err, ERR_LIMIT, "the certificate does not fit a message");
    }
    *ret = (struct keeper_leaf){.der = made.der,
                                .len = made.len,
                                .not_before_s = what->not_before_s,
                                .not_after_s = made.not_after_s};
    memcpy(ret->serial, made.serial, sizeof(ret->serial));
    return 0;
}
