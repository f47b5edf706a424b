/* What an agent says of the keys that verify JWT-SVIDs. Pure functions over bytes: whoever stands
 * behind the socket's name, a set counts only whole, and for the trust domain that names it. */
#include <postern/jwt_bundles.h>

#include <postern/jwt.h>
#include <postern/mem.h>
#include <postern/proto.h>
#include <stdlib.h>

static void response_free(Workload__JWTBundlesResponse *m)
{
    workload__jwtbundles_response__free_unpacked(m, NULL);
}
MEM_DEFINE_CLEANUP(Workload__JWTBundlesResponse, response_free)

static bool has(const struct jwt_key_sets *sets, struct str trust_domain)
{
    for (size_t i = 0; i < sets->n; i++) {
        if (str_eq(sets->items[i].trust_domain, trust_domain)) {
            return true;
        }
    }
    return false;
}

/* A bundle's key is "spiffe://td". */
static int add(struct jwt_key_sets *sets, const char *key, struct str json, struct err *err)
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
    if (has(sets, id.trust_domain)) {
        return err_set(err, ERR_PROTOCOL, "JWTBundlesResponse: a second key set of '%.200s'", key);
    }
    struct jwt_key_set *set = &sets->items[sets->n++];
    *set = (struct jwt_key_set){
        .trust_domain = {mem_must_strndup(id.trust_domain.p, id.trust_domain.n), id.trust_domain.n},
        .json = {mem_must_strndup(json.p, json.n), json.n}};
    return 0;
}

int jwt_key_sets_read(struct str message, struct jwt_key_sets *ret, struct err *ret_warning,
                      struct err *err)
{
    mem_auto(response_free) Workload__JWTBundlesResponse *m =
        workload__jwtbundles_response__unpack(NULL, message.n, (const uint8_t *)message.p);
    if (m == NULL) {
        return err_set(err, ERR_PROTOCOL, "JWTBundlesResponse: cannot be decoded");
    }
    struct jwt_key_sets sets = {.items = mem_must_calloc(m->n_bundles + 1, sizeof(*sets.items))};
    struct err warning = ERR_INIT;
    for (size_t i = 0; i < m->n_bundles; i++) {
        const ProtobufCBinaryData *v = &m->bundles[i]->value;
        struct err why = ERR_INIT;
        if (add(&sets, m->bundles[i]->key, (struct str){(const char *)v->data, v->len}, &why) ==
            -1) {
            warning = why;
        }
    }
    *ret = sets;
    *ret_warning = warning;
    return 0;
}

static bool set_equal(const struct jwt_key_set *a, const struct jwt_key_set *b)
{
    return str_eq(a->trust_domain, b->trust_domain) && str_eq(a->json, b->json);
}

bool jwt_key_sets_equal(const struct jwt_key_sets *a, const struct jwt_key_sets *b)
{
    size_t same = 0;
    for (size_t i = 0; i < a->n; i++) {
        for (size_t k = 0; k < b->n; k++) {
            same += set_equal(&a->items[i], &b->items[k]) ? 1 : 0;
        }
    }
    return a->n == b->n && same == a->n;
}

void jwt_key_sets_reset(struct jwt_key_sets *sets)
{
    for (size_t i = 0; i < sets->n; i++) {
        free((char *)(uintptr_t)sets->items[i].trust_domain.p);
        free((char *)(uintptr_t)sets->items[i].json.p);
    }
    free(sets->items);
    *sets = (struct jwt_key_sets){0};
}
