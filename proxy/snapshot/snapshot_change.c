/*
 * What differs between two snapshots, as far as it can matter to a live connection. Computed once,
 * on the main thread; workers look for the connections that it concerns. docs/lifetimes.md.
 */
#include <postern/snapshot.h>

#include <openssl/evp.h>
#include <postern/mem.h>
#include <stdlib.h>
#include <string.h>

/* --- who is quarantined ----------------------------------------------------------------------- */

static void add_denied(void *arg, enum deny_kind kind, const char *text)
{
    struct snapshot_change *c = arg;
    struct snapshot_names *list = kind == DENY_SPIFFE_ID ? &c->denied_ids : &c->denied_serials;
    list->items = mem_must_realloc(list->items, (list->n + 1) * sizeof(list->items[0]));
    list->items[list->n++] = mem_must_strdup(text);
}

static const struct deny_set *deny_of(const struct snapshot *s)
{
    return s->state != NULL ? s->state->deny : NULL;
}

/* --- authorities ------------------------------------------------------------------------------ */

static bool key_of(X509 *cert, struct x509_key_id *ret)
{
    unsigned char *der = NULL;
    int n = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(cert), &der);
    bool ok = n > 0 && EVP_Digest(der, (size_t)n, ret->sha256, NULL, EVP_sha256(), NULL) == 1;
    OPENSSL_free(der);
    return ok;
}

static bool is_among(X509 *cert, STACK_OF(X509) * roots)
{
    for (int i = 0; i < sk_X509_num(roots); i++) {
        if (X509_cmp(cert, sk_X509_value(roots, i)) == 0) {
            return true;
        }
    }
    return false;
}

static int compare_ids(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct x509_key_id));
}

/* Authorities that came vouch for more, and for nobody less. */
static void compare_trust(const struct x509_trust *before, const struct x509_trust *now,
                          struct snapshot_change *c)
{
    for (size_t i = 0; i < x509_trust_count(before); i++) {
        struct str domain = x509_trust_domain(before, i);
        STACK_OF(X509) *roots = x509_trust_roots(before, domain);
        STACK_OF(X509) *left = x509_trust_roots(now, domain);
        for (int k = 0; k < sk_X509_num(roots); k++) {
            if (is_among(sk_X509_value(roots, k), left)) {
                continue;
            }
            c->gone = mem_must_realloc(c->gone, (c->n_gone + 1) * sizeof(c->gone[0]));
            if (key_of(sk_X509_value(roots, k), &c->gone[c->n_gone])) {
                c->n_gone++;
            } else {
                c->all = true;
            }
        }
    }
    if (c->n_gone > 1) {
        qsort(c->gone, c->n_gone, sizeof(c->gone[0]), compare_ids);
    }
}

static void compare_identity(const struct snapshot *before, const struct snapshot *now,
                             struct snapshot_change *c)
{
    const struct snapshot_identity *a = before->identity, *b = now->identity;
    if (a == b) {
        return;
    }
    if (a == NULL || b == NULL || !str_eq(a->own, b->own)) {
        c->all = true; /* rules speak of it */
    } else if (a->trust != b->trust) {
        compare_trust(a->trust, b->trust, c);
    }
}

/* --- listeners -------------------------------------------------------------------------------- */

static bool same_text(const char *a, const char *b)
{
    return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

static bool same_strings(const struct conf_strings *a, const struct conf_strings *b)
{
    bool same = a->n == b->n;
    for (size_t i = 0; same && i < a->n; i++) {
        same = strcmp(a->items[i], b->items[i]) == 0;
    }
    return same;
}

static bool same_party(const struct tls_party *a, const struct tls_party *b)
{
    return a == b || b == NULL || (a != NULL && tls_party_judges_alike(a, b));
}

static bool same_leg(const struct snapshot_leg *a, const struct snapshot_leg *b)
{
    return same_party(a->downstream, b->downstream) && same_party(a->upstream, b->upstream) &&
           same_text(a->own_id, b->own_id);
}

/* Whether plaintext that was taken would be still. What is taken in addition concerns nobody. */
static bool takes_plaintext_still(const struct snapshot *before, const struct snapshot *now,
                                  size_t i)
{
    const struct conf_listener *l = before->files->listeners[i].conf;
    if (snapshot_permissive(before, i, 0) != NULL && snapshot_permissive(now, i, 0) == NULL) {
        return false;
    }
    for (size_t k = 0; k < l->n_ports; k++) {
        uint16_t port = l->ports[k].port;
        if (snapshot_permissive(before, i, port) != NULL &&
            snapshot_permissive(now, i, port) == NULL) {
            return false;
        }
    }
    return true;
}

/* Routes by server name are compared as a whole: as not the same. */
static bool same_listener(const struct snapshot *before, const struct snapshot *now, size_t i)
{
    const struct snapshot_listener *a = &before->files->listeners[i];
    const struct snapshot_listener *b = &now->files->listeners[i];
    bool files = before->files == now->files ||
                 (a->conf->n_sni == 0 && b->conf->n_sni == 0 &&
                  snapshot_target_equal(&a->target, &b->target) &&
                  same_strings(&a->conf->identities, &b->conf->identities) &&
                  same_strings(&a->conf->upstream.identities, &b->conf->upstream.identities));
    bool parties = before->parties == now->parties;
    if (!parties && before->parties != NULL && now->parties != NULL) {
        parties = a->conf->n_sni == 0 && b->conf->n_sni == 0 &&
                  same_leg(&before->parties->legs[i], &now->parties->legs[i]);
    }
    return files && parties && takes_plaintext_still(before, now, i);
}

static void compare_listeners(const struct snapshot *before, const struct snapshot *now,
                              struct snapshot_change *c)
{
    if (before->files->n_listeners != now->files->n_listeners) {
        c->all = true;
        return;
    }
    for (size_t i = 0; i < now->files->n_listeners; i++) {
        if (!same_listener(before, now, i)) {
            c->listeners =
                mem_must_realloc(c->listeners, (c->n_listeners + 1) * sizeof(c->listeners[0]));
            c->listeners[c->n_listeners++] = (uint16_t)i;
        }
    }
}

/* --- policy and routes ------------------------------------------------------------------------ */

static void compare_policies(const struct snapshot *before, const struct snapshot *now,
                             struct snapshot_change *c)
{
    const struct policy *a[2], *b[2];
    bool open_a = snapshot_policies(before, &a[0], &a[1]);
    bool open_b = snapshot_policies(now, &b[0], &b[1]);
    if (open_a != open_b) {
        c->policy[0].everybody = true;
        return;
    }
    policy_compare(a[0], b[0], &c->policy[0]);
    policy_compare(a[1], b[1], &c->policy[1]);
    policy_compare_time(b[0], before->at_s, now->at_s, &c->policy[0]);
    policy_compare_time(b[1], before->at_s, now->at_s, &c->policy[1]);
    if (b[1] == NULL) {
        policy_change_deinit(&c->policy[1]); /* nothing narrows any more */
    }
}

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void add_routes_gone(const struct route_table *before, const struct route_table *now,
                            struct snapshot_change *c)
{
    size_t n = now != NULL ? route_count(now) : 0;
    mem_autofree uint64_t *keys = mem_must_calloc(n + 1, sizeof(keys[0]));
    for (size_t i = 0; i < n; i++) {
        keys[i] = route_at(now, i)->key;
    }
    qsort(keys, n, sizeof(keys[0]), compare_u64);
    for (size_t i = 0; before != NULL && i < route_count(before); i++) {
        uint64_t key = route_at(before, i)->key;
        if (bsearch(&key, keys, n, sizeof(key), compare_u64) == NULL) {
            c->routes = mem_must_realloc(c->routes, (c->n_routes + 1) * sizeof(key));
            c->routes[c->n_routes++] = key;
        }
    }
}

static const struct route_table *told_routes(const struct snapshot *s)
{
    return s->state != NULL && s->state->has_mesh ? s->state->routes : NULL;
}

static bool no_plaintext(const struct snapshot *s)
{
    return s->state != NULL && s->state->no_plaintext;
}

static void compare_routes(const struct snapshot *before, const struct snapshot *now,
                           struct snapshot_change *c)
{
    const struct route_table *a = told_routes(before), *b = told_routes(now);
    bool files = before->files == now->files, told = a == b;
    c->outbound = !files || !told || no_plaintext(before) != no_plaintext(now) ||
                  before->resolved != now->resolved;
    if (!files) {
        add_routes_gone(before->files->routes, now->files->routes, c);
    }
    if (!told) {
        add_routes_gone(a, b, c);
    }
    if (c->n_routes > 1) {
        qsort(c->routes, c->n_routes, sizeof(c->routes[0]), compare_u64);
    }
}

/* --- the whole -------------------------------------------------------------------------------- */

struct snapshot_change *snapshot_change_new(const struct snapshot *before,
                                            const struct snapshot *now)
{
    struct snapshot_change *c = mem_must_new(struct snapshot_change);
    c->since = before->generation;
    c->all = (before->parties == NULL) != (now->parties == NULL) ||
             (before->state == NULL) != (now->state == NULL) ||
             before->wants_state != now->wants_state;
    c->own_quarantined = now->own_quarantined;
    deny_set_added(deny_of(before), deny_of(now), add_denied, c);
    compare_identity(before, now, c);
    compare_listeners(before, now, c);
    compare_policies(before, now, c);
    compare_routes(before, now, c);
    return c;
}

static void free_names(struct snapshot_names *n)
{
    for (size_t i = 0; i < n->n; i++) {
        free(n->items[i]);
    }
    free(n->items);
}

struct snapshot_change *snapshot_change_free(struct snapshot_change *c)
{
    if (c != NULL) {
        free_names(&c->denied_ids);
        free_names(&c->denied_serials);
        policy_change_deinit(&c->policy[0]);
        policy_change_deinit(&c->policy[1]);
        free(c->gone);
        free(c->routes);
        free(c->listeners);
        free(c);
    }
    return NULL;
}
