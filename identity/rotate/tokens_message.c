/* tokens_message: what an agent says of tokens and of the keys that verify them. Pure functions
 * over bytes; whoever a token is shown to judges its signature, but it has to be one, for whom and
 * for what it was asked. */
#include "rotate_priv.h"

#include <postern/jwt.h>
#include <postern/mem.h>
#include <postern/proto.h>
#include <stdlib.h>
#include <string.h>

static void token_response_free(Workload__JWTSVIDResponse *m)
{
    workload__jwtsvidresponse__free_unpacked(m, proto_wiping());
}

static void bundles_response_free(Workload__JWTBundlesResponse *m)
{
    workload__jwtbundles_response__free_unpacked(m, NULL);
}
MEM_DEFINE_CLEANUP(Workload__JWTSVIDResponse, token_response_free)
MEM_DEFINE_CLEANUP(Workload__JWTBundlesResponse, bundles_response_free)

/* --- a token -----------------------------------------------------------------------------------
 */
static bool has_audience(const struct jwt_token *token, const char *audience)
{
    for (size_t i = 0; i < token->n_audiences; i++) {
        if (strcmp(token->audiences[i], audience) == 0) {
            return true;
        }
    }
    return false;
}

static int check_token(const struct jwt_token *token, const char *wanted,
                       const struct conf_strings *audience, int64_t now_s, struct err *err)
{
    if (wanted != NULL && strcmp(token->spiffe_id, wanted) != 0) {
        return err_set(err, ERR_PROTOCOL, "the agent sent a token of '%.200s' instead of '%.150s'",
                       token->spiffe_id, wanted);
    }
    for (size_t i = 0; i < audience->n; i++) {
        if (!has_audience(token, audience->items[i])) {
            return err_set(err, ERR_PROTOCOL, "the agent sent a token that is not for '%.200s'",
                           audience->items[i]);
        }
    }
    if (token->expires_s <= now_s) {
        err_set(err, ERR_PROTOCOL, "the agent sent a token that has ended");
        return err_advise(err, "compare this host's clock with the agent's");
    }
    return 0;
}

int rotate_read_token(struct str message, const char *wanted, const struct conf_strings *audience,
                      int64_t now_s, struct rotate_token_text *ret, struct err *err)
{
    mem_auto(token_response_free) Workload__JWTSVIDResponse *m =
        workload__jwtsvidresponse__unpack(proto_wiping(), message.n, (const uint8_t *)message.p);
    mem_auto(jwt_token_free) struct jwt_token *token = NULL;
    if (m == NULL || m->n_svids == 0) {
        return err_set(err, ERR_PROTOCOL, "JWTSVIDResponse: %s",
                       m == NULL ? "cannot be decoded" : "no token");
    }
    struct str text = str_of(m->svids[0]->svid);
    if (jwt_read(text, &token, err) == -1) {
        return err_prefix(err, "JWTSVIDResponse");
    }
    if (check_token(token, wanted, audience, now_s, err) == -1) {
        return -1;
    }
    ret->text = mem_must_strndup(text.p, text.n);
    ret->spiffe_id = mem_must_strdup(token->spiffe_id);
    ret->ends_s = token->expires_s;
    return 0;
}

void rotate_token_text_reset(struct rotate_token_text *t)
{
    if (t->text != NULL) {
        mem_wipe(t->text, strlen(t->text));
    }
    free(t->text);
    free(t->spiffe_id);
    *t = (struct rotate_token_text){0};
}

/* --- key sets ----------------------------------------------------------------------------------
 */
/* A bundle's key is "spiffe://td". */
static int add_key_set(struct rotate_key_sets *sets, const char *key, struct str json,
                       struct err *err)
{
    struct spiffe_id id;
    mem_auto(jwt_keys_free) struct jwt_keys *keys = NULL;
    if (spiffe_id_parse(str_of(key), &id, err) == -1 ||
        jwt_keys_parse(json, false, &keys, err) == -1) {
        return err_prefix(err, "JWTBundlesResponse: a key set is left out");
    }
    if (id.path.n != 0) {
        return err_set(err, ERR_PROTOCOL, "a key set's name is a trust domain, not '%.200s'", key);
    }
    struct rotate_key_set *set = &sets->items[sets->n];
    char *domain = mem_must_strndup(id.trust_domain.p, id.trust_domain.n);
    char *text = mem_must_strndup(json.p != NULL ? json.p : "", json.n);
    set->trust_domain = (struct str){domain, id.trust_domain.n};
    set->json = (struct str){text, json.n};
    sets->n++;
    return 0;
}

int rotate_read_key_sets(struct str message, struct rotate_key_sets *ret, struct err *ret_warning,
                         struct err *err)
{
    mem_auto(bundles_response_free) Workload__JWTBundlesResponse *m =
        workload__jwtbundles_response__unpack(NULL, message.n, (const uint8_t *)message.p);
    if (m == NULL) {
        return err_set(err, ERR_PROTOCOL, "JWTBundlesResponse: cannot be decoded");
    }
    struct rotate_key_sets sets = {.items = mem_must_calloc(m->n_bundles + 1, sizeof(*sets.items))};
    struct err warning = ERR_INIT;
    for (size_t i = 0; i < m->n_bundles; i++) {
        const ProtobufCBinaryData *v = &m->bundles[i]->value;
        struct err why = ERR_INIT;
        if (add_key_set(&sets, m->bundles[i]->key, (struct str){(const char *)v->data, v->len},
                        &why) == -1) {
            warning = why;
        }
    }
    if (sets.n == 0) {
        rotate_key_sets_reset(&sets);
        return err_set(err, ERR_PROTOCOL, "JWTBundlesResponse: no key set");
    }
    *ret = sets;
    *ret_warning = warning;
    return 0;
}

static bool key_set_equal(const struct rotate_key_set *a, const struct rotate_key_set *b)
{
    return str_eq(a->trust_domain, b->trust_domain) && str_eq(a->json, b->json);
}

/* Order does not count: a map has none. */
bool rotate_key_sets_equal(const struct rotate_key_sets *a, const struct rotate_key_sets *b)
{
    size_t same = 0;
    for (size_t i = 0; i < a->n; i++) {
        for (size_t k = 0; k < b->n; k++) {
            same += key_set_equal(&a->items[i], &b->items[k]) ? 1 : 0;
        }
    }
    return a->n == b->n && same == a->n;
}

void rotate_key_sets_reset(struct rotate_key_sets *sets)
{
    for (size_t i = 0; i < sets->n; i++) {
        free((char *)(uintptr_t)sets->items[i].trust_domain.p);
        free((char *)(uintptr_t)sets->items[i].json.p);
    }
    free(sets->items);
    *sets = (struct rotate_key_sets){0};
}
