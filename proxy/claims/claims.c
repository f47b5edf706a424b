/* Finding the token of a request, and knowing again one that was verified before. */
#include "claims_priv.h"

#include <jansson.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

enum { WAYS = 4, SETS = CLAIMS_REMEMBERED_MAX / WAYS };

struct remembered {
    uint8_t digest[CLAIMS_DIGEST_SIZE]; /* of place and token */
    struct claims *claims;              /* a reference; NULL: free */
};

/* A token has one set of places, by its digest, so that remembering one forgets one at most. */
struct claims_cache {
    uint8_t keys[CLAIMS_DIGEST_SIZE]; /* what they were verified by */
    struct remembered *items;         /* owned; NULL before the first */
    size_t n;
    unsigned next; /* way to be taken when all are */
};

struct claims_cache *claims_cache_new(void)
{
    return mem_must_new(struct claims_cache);
}

static void forget(struct claims_cache *cache, struct remembered *r)
{
    if (r->claims != NULL) {
        r->claims = claims_unref(r->claims);
        cache->n--;
    }
}

static void forget_all(struct claims_cache *cache)
{
    for (size_t i = 0; cache->items != NULL && i < CLAIMS_REMEMBERED_MAX; i++) {
        forget(cache, &cache->items[i]);
    }
}

struct claims_cache *claims_cache_free(struct claims_cache *cache)
{
    if (cache != NULL) {
        forget_all(cache);
        free(cache->items);
        free(cache);
    }
    return NULL;
}

size_t claims_cache_count(const struct claims_cache *cache)
{
    return cache->n;
}

/* --- remembering ------------------------------------------------------------------------------ */
static struct remembered *set_of(struct claims_cache *cache, const uint8_t *digest)
{
    size_t i = ((size_t)digest[0] << 8 | digest[1]) % SETS;
    return &cache->items[i * WAYS];
}

static struct claims *recall(struct claims_cache *cache, const uint8_t *digest, int64_t now_s)
{
    struct remembered *set = cache->items != NULL ? set_of(cache, digest) : NULL;
    for (size_t i = 0; set != NULL && i < WAYS; i++) {
        if (set[i].claims == NULL || memcmp(set[i].digest, digest, CLAIMS_DIGEST_SIZE) != 0) {
            continue;
        }
        if (claims_end_s(set[i].claims) > now_s) {
            return claims_ref(set[i].claims);
        }
        forget(cache, &set[i]); /* what is wrong with it now is said by judging it again */
    }
    return NULL;
}

static void remember(struct claims_cache *cache, const uint8_t *digest, struct claims *claims,
                     int64_t now_s)
{
    if (cache->items == NULL) {
        cache->items = mem_must_calloc(CLAIMS_REMEMBERED_MAX, sizeof(cache->items[0]));
    }
    struct remembered *set = set_of(cache, digest);
    struct remembered *r = NULL;
    for (size_t i = 0; i < WAYS; i++) {
        if (set[i].claims == NULL || claims_end_s(set[i].claims) <= now_s) {
            r = &set[i];
        }
    }
    if (r == NULL) {
        r = &set[cache->next++ % WAYS];
    }
    forget(cache, r);
    memcpy(r->digest, digest, CLAIMS_DIGEST_SIZE);
    r->claims = claims_ref(claims);
    cache->n++;
}

/* --- where it is ------------------------------------------------------------------------------ */
struct found {
    const struct claims_place *place; /* NULL: none yet */
    struct str token;
};

/* RFC 6750, 2.1: b64token, all of it. */
static bool token_bytes_ok(struct str t)
{
    for (size_t i = 0; i < t.n; i++) {
        char ch = t.p[i];
        if (!(ch >= 'a' && ch <= 'z') && !(ch >= 'A' && ch <= 'Z') && !(ch >= '0' && ch <= '9') &&
            memchr("-._~+/=", ch, 7) == NULL) {
            return false;
        }
    }
    return t.n > 0;
}

/* False: credentials of another scheme, which are not ours to judge. */
static bool take_bearer(struct str value, struct str *ret)
{
    const struct str scheme = STR_LIT("Bearer");
    if (value.n < scheme.n || !str_eq_nocase((struct str){value.p, scheme.n}, scheme)) {
        return false;
    }
    struct str rest = {value.p + scheme.n, value.n - scheme.n};
    if (rest.n > 0 && rest.p[0] != ' ') {
        return rest.p[0] == '\t' || rest.p[0] == ',';
    }
    *ret = rest.n > 0 ? (struct str){rest.p + 1, rest.n - 1} : rest;
    return true;
}

static bool name_is(struct str name, const char *header)
{
    return str_eq_nocase(name, header != NULL ? str_of(header) : STR_LIT("authorization"));
}

/* One place after the other, each header once. */
static int find(const struct claims_keys *keys, const struct policy_headers *headers,
                struct found *ret, struct err *err)
{
    for (size_t p = 0; p < keys->n_places; p++) {
        const struct claims_place *place = &keys->places[p];
        size_t n = 0;
        bool one = false;
        for (size_t i = 0; i < headers->n; i++) {
            struct str token = STR_NONE;
            if (!name_is(headers->items[i].name, place->header)) {
                continue;
            }
            n++;
            if (place->header != NULL) {
                token = headers->items[i].value;
            } else if (!take_bearer(headers->items[i].value, &token)) {
                continue;
            }
            if (ret->place != NULL) {
                return err_set(err, ERR_PROTOCOL, "more than one token");
            }
            *ret = (struct found){place, token};
            one = true;
        }
        if (one && n > 1) {
            return err_set(err, ERR_PROTOCOL, "a header with a token stands there twice");
        }
    }
    return 0;
}

/* --- judging ---------------------------------------------------------------------------------- */
static int digest_of(const struct claims_keys *keys, const struct found *f,
                     uint8_t ret[CLAIMS_DIGEST_SIZE], struct err *err)
{
    size_t place = (size_t)(f->place - keys->places);
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    bool ok = md != NULL && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1 &&
              EVP_DigestUpdate(md, &place, sizeof(place)) == 1 &&
              EVP_DigestUpdate(md, f->token.p, f->token.n) == 1 &&
              EVP_DigestFinal_ex(md, ret, NULL) == 1;
    EVP_MD_CTX_free(md);
    return ok ? 0 : err_set(err, ERR_CRYPTO, "SHA-256 is not to be had");
}

/* Who is who in a trust domain that is listed is for its own keys to say, whoever else may sign. */
static int check_subject(const struct claims_keys *keys, const struct jwt_token *t, struct err *err)
{
    const json_t *sub = json_object_get(t->claims, "sub");
    struct spiffe_id id;
    if (t->spiffe_id != NULL || !json_is_string(sub) ||
        spiffe_id_parse((struct str){json_string_value(sub), json_string_length(sub)}, &id, NULL) !=
            0) {
        return 0;
    }
    for (size_t i = 0; i < keys->n; i++) {
        const char *domain = keys->entries[i].trust_domain;
        if (domain != NULL && spiffe_id_member_of(&id, str_of(domain))) {
            return err_set(err, ERR_DENIED,
                           "an issuer's token for a SPIFFE ID of '%s', which has keys of its own",
                           domain);
        }
    }
    return 0;
}

static int judge(const struct claims_keys *keys, const struct found *f, int64_t now_s,
                 struct claims **ret, struct err *err)
{
    const struct claims_place *place = f->place;
    struct jwt_token *t = NULL;
    size_t issuer = 0;
    if (jwt_verify_issued(f->token, place->issuers, place->n_issuers, now_s, &t, &issuer, err) ==
        -1) {
        return -1;
    }
    int r = check_subject(keys, t, err);
    r = r == 0 ? claims_new(t->claims, t->expires_s + JWT_LEEWAY_S, ret, err) : -1;
    if (r == 0 && !place->forward[issuer]) {
        claims_withhold(*ret, place->header != NULL ? place->header : "authorization");
    }
    jwt_token_free(t);
    return r;
}

int claims_look(struct claims_cache *cache, const struct claims_keys *keys,
                const struct policy_headers *headers, int64_t now_s, struct claims **ret,
                struct err *err)
{
    struct found f = {.place = NULL};
    uint8_t digest[CLAIMS_DIGEST_SIZE] = {0};
    struct claims *c;
    if (keys == NULL) {
        *ret = NULL;
        return 0;
    }
    if (find(keys, headers, &f, err) == -1) {
        return -1;
    }
    if (f.place == NULL) {
        *ret = NULL;
        return 0;
    }
    if (f.token.n > JWT_TOKEN_MAX) {
        return err_set(err, ERR_LIMIT, "a token of more than %d bytes", JWT_TOKEN_MAX);
    }
    if (!token_bytes_ok(f.token)) {
        return err_set(err, ERR_PROTOCOL, "a token that is empty, or none by its signs");
    }
    if (memcmp(cache->keys, keys->digest, sizeof(cache->keys)) != 0) {
        forget_all(cache);
        memcpy(cache->keys, keys->digest, sizeof(cache->keys));
    }
    if (digest_of(keys, &f, digest, err) == -1) {
        return -1;
    }
    c = recall(cache, digest, now_s);
    if (c == NULL) {
        if (judge(keys, &f, now_s, &c, err) == -1) {
            return -1;
        }
        remember(cache, digest, c, now_s);
    }
    *ret = c;
    return 0;
}
