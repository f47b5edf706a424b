/*
 * Tokens of ordinary issuers (RFC 7519, RFC 8725), beside JWT-SVIDs. As there: the algorithm first,
 * then whose keys count, then the signature, and only what is signed is believed. What differs is
 * in docs/claims.md, "Judging".
 */
#include "jwt_priv.h"

#include <jansson.h>
#include <string.h>

MEM_DEFINE_CLEANUP(json_t, json_decref)

static struct str text_of(const json_t *v)
{
    return json_is_string(v) ? (struct str){json_string_value(v), json_string_length(v)} : STR_NONE;
}

/* --- header ----------------------------------------------------------------------------------- */
/* A member that brings a key, names a place to get one from, or changes what the rest means: no. */
static bool may_say(const char *name)
{
    static const char *const names[] = {"alg", "kid", "typ", "cty", "x5t", "x5t#S256"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(name, names[i]) == 0) {
            return true;
        }
    }
    return false;
}

static bool typ_ok(const json_t *typ)
{
    static const char *const types[] = {"JWT", "at+jwt", "application/at+jwt", "JOSE"};

    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        if (str_eq_nocase(text_of(typ), str_of(types[i]))) {
            return true;
        }
    }
    return typ == NULL;
}

static int take_header(json_t *header, struct jwt_token *t, struct err *err)
{
    const json_t *kid = json_object_get(header, "kid");
    const char *name;
    json_t *value;

    if (!jwt_alg_find(text_of(json_object_get(header, "alg")), &t->alg)) {
        err_set(err, ERR_PROTOCOL, "the algorithm is not one that a token may have");
        return err_expected(err, "RS, ES or PS with 256, 384 or 512");
    }
    json_object_foreach(header, name, value)
    {
        if (!may_say(name)) {
            err_set(err, ERR_PROTOCOL, "the header says more than it may");
            return err_expected(err, "alg, kid, typ, cty, x5t");
        }
    }
    if (!typ_ok(json_object_get(header, "typ"))) {
        err_set(err, ERR_PROTOCOL, "the type is another one");
        return err_expected(err, "JWT or at+jwt");
    }
    if (kid != NULL && (text_of(kid).n == 0 || text_of(kid).n > JWT_KID_MAX)) {
        return err_set(err, ERR_PROTOCOL, "the key's name is empty, too long or no text");
    }
    t->kid = kid != NULL ? mem_must_strndup(text_of(kid).p, text_of(kid).n) : NULL;
    return 0;
}

/* --- whose it is ------------------------------------------------------------------------------ */
static const struct jwt_issuer *issuer_of(const struct jwt_issuer *issuers, size_t n,
                                          const json_t *claims)
{
    struct str iss = text_of(json_object_get(claims, "iss"));
    struct spiffe_id id;

    for (size_t i = 0; i < n && iss.n > 0; i++) {
        if (issuers[i].issuer.n > 0 && str_eq(issuers[i].issuer, iss)) {
            return &issuers[i];
        }
    }
    if (spiffe_id_parse(text_of(json_object_get(claims, "sub")), &id, NULL) != 0) {
        return NULL;
    }
    for (size_t i = 0; i < n; i++) {
        if (issuers[i].trust_domain.n > 0 && spiffe_id_member_of(&id, issuers[i].trust_domain)) {
            return &issuers[i];
        }
    }
    return NULL;
}

/* A JWT-SVID is judged as one, from its beginning. */
static int verify_svid(struct str token, const struct jwt_issuer *issuer, int64_t now_s,
                       struct jwt_token **ret, struct err *err)
{
    const struct jwt_bundle bundle = {issuer->trust_domain, issuer->keys};
    struct jwt_token *t = NULL;

    if (jwt_verify_svid(token, &bundle, 1, now_s, &t, err) == -1) {
        return -1;
    }
    if (jwt_check_audience(t, issuer->audiences, issuer->n_audiences, err) == -1) {
        jwt_token_free(t);
        return -1;
    }
    *ret = t;
    return 0;
}

int jwt_verify_issued(struct str token, const struct jwt_issuer *issuers, size_t n, int64_t now_s,
                      struct jwt_token **ret, size_t *ret_issuer, struct err *err)
{
    mem_auto(jwt_token_free) struct jwt_token *t = mem_must_new(struct jwt_token);
    mem_auto(json_decref) json_t *header = NULL;
    struct jwt_parts parts = {.header = STR_NONE};
    const struct jwt_issuer *issuer;

    if (jwt_split(token, &parts, err) == -1 ||
        jwt_decode_object(parts.header, "header", &header, err) == -1 ||
        take_header(header, t, err) == -1 ||
        jwt_decode_object(parts.claims, "claims", &t->claims, err) == -1) {
        return -1;
    }
    issuer = issuer_of(issuers, n, t->claims);
    if (issuer == NULL) {
        return err_set(err, ERR_DENIED, "the token is of nobody whose tokens count");
    }
    if (issuer->keys == NULL) {
        return err_set(err, ERR_UNAVAILABLE, "there are no keys of trust domain '%.*s'",
                       STR_ARG(issuer->trust_domain));
    }
    *ret_issuer = (size_t)(issuer - issuers);
    if (issuer->trust_domain.n > 0) {
        return verify_svid(token, issuer, now_s, ret, err);
    }
    if (jwt_check_signature(t, &parts, issuer->keys, err) == -1 || jwt_take_claims(t, err) == -1 ||
        jwt_check_times(t, now_s, err) == -1 ||
        jwt_check_audience(t, issuer->audiences, issuer->n_audiences, err) == -1) {
        return -1;
    }
    *ret = t;
    t = NULL;
    return 0;
}
