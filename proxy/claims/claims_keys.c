/* Keys of those whose tokens count, out of the files that name them and of what an agent tells. */
#include "claims_priv.h"

#include <openssl/evp.h>
#include <postern/os.h>
#include <stdlib.h>
#include <string.h>

MEM_DEFINE_CLEANUP(EVP_MD_CTX, EVP_MD_CTX_free)

/* --- one set -----------------------------------------------------------------------------------
 */
static struct claims_set *set_unref(struct claims_set *s)
{
    if (s != NULL && atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) == 1) {
        jwt_keys_free(s->keys);
        free(s);
    }
    return NULL;
}

static struct claims_set *set_ref(struct claims_set *s)
{
    if (s != NULL) {
        atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    }
    return s;
}

static int set_new(struct jwt_keys *keys, struct str json, struct file_mark mark,
                   struct claims_set **ret, struct err *err)
{
    struct claims_set *s = mem_must_new(struct claims_set);
    atomic_init(&s->refs, 1);
    s->keys = keys;
    s->mark = mark;
    if (EVP_Digest(json.p, json.n, s->digest, NULL, EVP_sha256(), NULL) != 1) {
        set_unref(s);
        return err_set(err, ERR_CRYPTO, "SHA-256 is not to be had");
    }
    *ret = s;
    return 0;
}

static int read_set(const struct conf_jwt *e, struct claims_set **ret, struct err *err)
{
    mem_autofree char *text = NULL;
    size_t n = 0;
    struct jwt_keys *keys = NULL;
    struct file_mark mark =
        file_mark_now(e->jwks_file); /* one that is exchanged now is read again */
    if (os_read_file(e->jwks_file, JWT_KEYS_BYTES, false, &text, &n, err) != 0) {
        return err_prefix(err, "keys of tokens");
    }
    struct str json = {text, n};
    int r = e->trust_domain != NULL ? jwt_keys_parse(json, true, &keys, err)
                                    : jwt_keys_parse_issuer(json, &keys, err);
    if (r != 0) {
        return err_where(err, "%s", e->jwks_file);
    }
    return set_new(keys, json, mark, ret, err);
}

/* NULL: nothing is told of it. */
static struct claims_set *told_set(const struct conf_jwt *e, const struct jwt_key_sets *sets)
{
    struct claims_set *s = NULL;
    struct jwt_keys *keys = NULL;
    for (size_t i = 0; i < sets->n; i++) {
        if (str_eq(sets->items[i].trust_domain, str_of(e->trust_domain)) &&
            jwt_keys_parse(sets->items[i].json, false, &keys, NULL) == 0) {
            (void)set_new(keys, sets->items[i].json, (struct file_mark){.ino = 0}, &s, NULL);
            return s;
        }
    }
    return NULL;
}

/* --- entries -----------------------------------------------------------------------------------
 */
static void entry_free(struct conf_jwt *e)
{
    for (size_t i = 0; i < e->audiences.n; i++) {
        free(e->audiences.items[i]);
    }
    free(e->audiences.items);
    free(e->issuer);
    free(e->trust_domain);
    free(e->jwks_file);
    free(e->header);
}

static char *dup_or_null(const char *text)
{
    return text != NULL ? mem_must_strdup(text) : NULL;
}

static void entry_copy(const struct conf_jwt *in, struct conf_jwt *out)
{
    *out = *in;
    out->issuer = dup_or_null(in->issuer);
    out->trust_domain = dup_or_null(in->trust_domain);
    out->jwks_file = dup_or_null(in->jwks_file);
    out->header = dup_or_null(in->header);
    out->audiences = (struct conf_strings){
        mem_must_calloc(in->audiences.n + 1, sizeof(out->audiences.items[0])), 0};
    for (; out->audiences.n < in->audiences.n; out->audiences.n++) {
        out->audiences.items[out->audiences.n] =
            mem_must_strdup(in->audiences.items[out->audiences.n]);
    }
}

struct claims_keys *claims_keys_unref(struct claims_keys *k)
{
    if (k == NULL || atomic_fetch_sub_explicit(&k->refs, 1, memory_order_acq_rel) != 1) {
        return NULL;
    }
    for (size_t i = 0; i < k->n; i++) {
        entry_free(&k->entries[i]);
        set_unref(k->sets[i]);
    }
    for (size_t i = 0; i < k->n_places; i++) {
        free(k->places[i].header);
        free(k->places[i].issuers);
        free(k->places[i].forward);
    }
    free(k->entries);
    free(k->sets);
    free(k->places);
    free(k);
    return NULL;
}

struct claims_keys *claims_keys_ref(struct claims_keys *k)
{
    unsigned before = atomic_fetch_add_explicit(&k->refs, 1, memory_order_relaxed);
    POSTERN_ASSERT(before > 0);
    return k;
}

bool claims_keys_equal(const struct claims_keys *a, const struct claims_keys *b)
{
    return a == b ||
           (a != NULL && b != NULL && memcmp(a->digest, b->digest, sizeof(a->digest)) == 0);
}

/* --- by header ---------------------------------------------------------------------------------
 */
static bool same_header(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

static struct claims_place *place_of(struct claims_keys *k, const char *header)
{
    for (size_t i = 0; i < k->n_places; i++) {
        if (same_header(k->places[i].header, header)) {
            return &k->places[i];
        }
    }
    struct claims_place *p = &k->places[k->n_places++];
    p->header = dup_or_null(header);
    p->issuers = mem_must_calloc(k->n, sizeof(p->issuers[0]));
    p->forward = mem_must_calloc(k->n, sizeof(p->forward[0]));
    return p;
}

static void build_places(struct claims_keys *k)
{
    k->places = mem_must_calloc(k->n, sizeof(k->places[0]));
    for (size_t i = 0; i < k->n; i++) {
        const struct conf_jwt *e = &k->entries[i];
        struct claims_place *p = place_of(k, e->header);
        p->forward[p->n_issuers] = e->forward;
        p->issuers[p->n_issuers++] = (struct jwt_issuer){
            .issuer = e->issuer != NULL ? str_of(e->issuer) : STR_NONE,
            .trust_domain = e->trust_domain != NULL ? str_of(e->trust_domain) : STR_NONE,
            .keys = k->sets[i] != NULL ? k->sets[i]->keys : NULL,
            .audiences = (const char *const *)e->audiences.items,
            .n_audiences = e->audiences.n,
        };
    }
}

/* --- what they are made of ---------------------------------------------------------------------
 */
static bool mix(EVP_MD_CTX *md, struct str text)
{
    uint64_t n = text.n;
    return EVP_DigestUpdate(md, &n, sizeof(n)) == 1 &&
           (text.n == 0 || EVP_DigestUpdate(md, text.p, text.n) == 1);
}

static bool mix_entry(EVP_MD_CTX *md, const struct conf_jwt *e, const struct claims_set *set)
{
    const char *const texts[] = {e->issuer, e->trust_domain, e->header};
    bool ok = true;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        ok = ok && mix(md, texts[i] != NULL ? str_of(texts[i]) : STR_NONE);
    }
    for (size_t i = 0; i < e->audiences.n; i++) {
        ok = ok && mix(md, str_of(e->audiences.items[i]));
    }
    return ok && mix(md, STR_NONE) && mix(md, e->forward ? STR_LIT("on") : STR_NONE) &&
           mix(md, set != NULL ? (struct str){(const char *)set->digest, sizeof(set->digest)}
                               : STR_NONE);
}

/* The last step, when all entries have their sets. */
static int finish(struct claims_keys *k, struct err *err)
{
    mem_auto(EVP_MD_CTX_free) EVP_MD_CTX *md = EVP_MD_CTX_new();
    bool ok = md != NULL && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1;
    for (size_t i = 0; i < k->n; i++) {
        ok = ok && mix_entry(md, &k->entries[i], k->sets[i]);
    }
    if (!ok || EVP_DigestFinal_ex(md, k->digest, NULL) != 1) {
        return err_set(err, ERR_CRYPTO, "SHA-256 is not to be had");
    }
    build_places(k);
    return 0;
}

static struct claims_keys *keys_new(const struct conf_jwt *entries, size_t n)
{
    struct claims_keys *k = mem_must_new(struct claims_keys);
    atomic_init(&k->refs, 1);
    k->entries = mem_must_calloc(n, sizeof(k->entries[0]));
    k->sets = (struct claims_set **)mem_must_calloc(n, sizeof(k->sets[0]));
    for (; k->n < n; k->n++) {
        entry_copy(&entries[k->n], &k->entries[k->n]);
    }
    return k;
}

/* --- the whole ---------------------------------------------------------------------------------
 */
int claims_keys_load(const struct conf_jwts *conf, struct claims_keys **ret, struct err *err)
{
    mem_auto(claims_keys_unref) struct claims_keys *k = NULL;
    if (conf->n == 0) {
        *ret = NULL;
        return 0;
    }
    jwt_init();
    k = keys_new(conf->items, conf->n);
    for (size_t i = 0; i < k->n; i++) {
        if (k->entries[i].jwks_file != NULL && read_set(&k->entries[i], &k->sets[i], err) != 0) {
            return -1;
        }
    }
    if (finish(k, err) != 0) {
        return -1;
    }
    *ret = k;
    k = NULL;
    return 0;
}

int claims_keys_read_again(const struct claims_keys *keys, size_t i, struct claims_keys **ret,
                           struct err *err)
{
    mem_auto(claims_keys_unref) struct claims_keys *k = keys_new(keys->entries, keys->n);
    POSTERN_ASSERT(k->entries[i].jwks_file != NULL);
    for (size_t e = 0; e < k->n; e++) {
        if (e != i) {
            k->sets[e] = set_ref(keys->sets[e]);
        }
    }
    if (read_set(&k->entries[i], &k->sets[i], err) != 0 || finish(k, err) != 0) {
        return -1;
    }
    *ret = k;
    k = NULL;
    return 0;
}

struct claims_keys *claims_keys_told(const struct claims_keys *keys,
                                     const struct jwt_key_sets *sets)
{
    struct claims_keys *k = keys_new(keys->entries, keys->n);
    for (size_t i = 0; i < k->n; i++) {
        k->sets[i] = k->entries[i].bundle ? told_set(&k->entries[i], sets) : set_ref(keys->sets[i]);
    }
    POSTERN_ASSERT(finish(k, NULL) == 0); /* SHA-256 was to be had before */
    return k;
}

size_t claims_keys_count(const struct claims_keys *keys)
{
    return keys->n;
}

void claims_keys_entry(const struct claims_keys *keys, size_t i, struct claims_entry *ret)
{
    const struct conf_jwt *e = &keys->entries[i];
    const struct claims_set *set = keys->sets[i];
    *ret = (struct claims_entry){.issuer = e->issuer,
                                 .trust_domain = e->trust_domain,
                                 .file = e->jwks_file,
                                 .known = set != NULL,
                                 .n_keys = set != NULL ? jwt_keys_count(set->keys) : 0};
    if (set != NULL) {
        ret->mark = set->mark;
    }
}
