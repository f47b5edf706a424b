/* Keys of those whose tokens count, out of the files that name them. */
#include "claims_priv.h"

#include <openssl/evp.h>
#include <postern/os.h>
#include <stdlib.h>
#include <string.h>

MEM_DEFINE_CLEANUP(EVP_MD_CTX, EVP_MD_CTX_free)

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

struct claims_keys *claims_keys_free(struct claims_keys *k)
{
    if (k == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < k->n; i++) {
        entry_free(&k->entries[i]);
        jwt_keys_free(k->sets[i]);
    }
    for (size_t i = 0; i < k->n_places; i++) {
        free(k->places[i].header);
        free(k->places[i].issuers);
    }
    free(k->entries);
    free(k->sets);
    free(k->places);
    free(k);
    return NULL;
}

static char *dup_or_null(const char *text)
{
    return text != NULL ? mem_must_strdup(text) : NULL;
}

static void entry_copy(const struct conf_jwt *in, struct conf_jwt *out)
{
    *out = (struct conf_jwt){.issuer = dup_or_null(in->issuer),
                             .trust_domain = dup_or_null(in->trust_domain),
                             .jwks_file = dup_or_null(in->jwks_file),
                             .header = dup_or_null(in->header)};
    out->audiences.items = mem_must_calloc(in->audiences.n + 1, sizeof(out->audiences.items[0]));
    for (; out->audiences.n < in->audiences.n; out->audiences.n++) {
        out->audiences.items[out->audiences.n] =
            mem_must_strdup(in->audiences.items[out->audiences.n]);
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

static bool mix_entry(EVP_MD_CTX *md, const struct conf_jwt *e, struct str text)
{
    const char *const texts[] = {e->issuer, e->trust_domain, e->header};
    bool ok = true;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        ok = ok && mix(md, texts[i] != NULL ? str_of(texts[i]) : STR_NONE);
    }
    for (size_t i = 0; i < e->audiences.n; i++) {
        ok = ok && mix(md, str_of(e->audiences.items[i]));
    }
    return ok && mix(md, STR_NONE) && mix(md, text);
}

static int load_set(struct claims_keys *k, const struct conf_jwt *e, EVP_MD_CTX *md,
                    struct err *err)
{
    mem_autofree char *text = NULL;
    size_t n = 0;
    struct jwt_keys *set = NULL;
    if (os_read_file(e->jwks_file, JWT_KEYS_BYTES, false, &text, &n, err) != 0) {
        return err_prefix(err, "keys of tokens");
    }
    struct str json = {text, n};
    int r = e->trust_domain != NULL ? jwt_keys_parse(json, true, &set, err)
                                    : jwt_keys_parse_issuer(json, &set, err);
    if (r != 0) {
        return err_where(err, "%s", e->jwks_file);
    }
    if (!mix_entry(md, e, json)) {
        jwt_keys_free(set);
        return err_set(err, ERR_CRYPTO, "SHA-256 is not to be had");
    }
    k->sets[k->n] = set;
    entry_copy(e, &k->entries[k->n++]);
    return 0;
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
    return p;
}

static void build_places(struct claims_keys *k)
{
    k->places = mem_must_calloc(k->n, sizeof(k->places[0]));
    for (size_t i = 0; i < k->n; i++) {
        const struct conf_jwt *e = &k->entries[i];
        struct claims_place *p = place_of(k, e->header);
        p->issuers[p->n_issuers++] = (struct jwt_issuer){
            .issuer = e->issuer != NULL ? str_of(e->issuer) : STR_NONE,
            .trust_domain = e->trust_domain != NULL ? str_of(e->trust_domain) : STR_NONE,
            .keys = k->sets[i],
            .audiences = (const char *const *)e->audiences.items,
            .n_audiences = e->audiences.n,
        };
    }
}

int claims_keys_load(const struct conf_jwts *conf, struct claims_keys **ret, struct err *err)
{
    mem_auto(claims_keys_free) struct claims_keys *k = NULL;
    mem_auto(EVP_MD_CTX_free) EVP_MD_CTX *md = NULL;
    if (conf->n == 0) {
        *ret = NULL;
        return 0;
    }
    jwt_init();
    k = mem_must_new(struct claims_keys);
    k->entries = mem_must_calloc(conf->n, sizeof(k->entries[0]));
    k->sets = mem_must_calloc(conf->n, sizeof(k->sets[0]));
    md = EVP_MD_CTX_new();
    if (md == NULL || EVP_DigestInit_ex(md, EVP_sha256(), NULL) != 1) {
        return err_set(err, ERR_CRYPTO, "SHA-256 is not to be had");
    }
    for (size_t i = 0; i < conf->n; i++) {
        if (load_set(k, &conf->items[i], md, err) != 0) {
            return -1;
        }
    }
    if (EVP_DigestFinal_ex(md, k->digest, NULL) != 1) {
        return err_set(err, ERR_CRYPTO, "SHA-256 is not to be had");
    }
    build_places(k);
    *ret = k;
    k = NULL;
    return 0;
}
