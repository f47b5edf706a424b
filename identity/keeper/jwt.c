/*
 * Keys for tokens: which one signs, and which ones peers are told of (docs/authority.md: prepared,
 * active, old). What is in force is made from the records of a store, whole, and exchanged whole.
 */
#include "keeper_priv.h"

#include <postern/os.h>
#include <stdlib.h>
#include <string.h>

void keeper_jwt_init(struct keeper_jwt *j, enum jwt_alg alg, uint32_t ttl_s, uint32_t key_ttl_s)
{
    *j = (struct keeper_jwt){.alg = alg, .ttl_s = ttl_s, .key_ttl_s = key_ttl_s};
}

void keeper_jwt_deinit(struct keeper_jwt *j)
{
    EVP_PKEY_free(j->key);
    free(j->set);
    *j = (struct keeper_jwt){.key = NULL};
}

/* --- records ---------------------------------------------------------------------------------- */
int keeper_jwt_make(const struct keeper_jwt *j, struct keeper_record *r, int64_t now_s,
                    struct err *err)
{
    mem_auto(EVP_PKEY_free) EVP_PKEY *key = jwt_key_new(j->alg, err);
    char kid[JWT_KID_SIZE];
    uint8_t *der = NULL;
    size_t len;
    bool ok;

    _Static_assert(JWT_KID_SIZE <= KEEPER_RECORD_ID_MAX + 1, "a kid is a record's id");
    if (key == NULL || jwt_key_id(key, kid, err) == -1 ||
        x509_key_to_pkcs8(key, &der, &len, err) == -1) {
        return err_prefix(err, "making a key for tokens");
    }
    ok = keeper_record_set_key(r, der, len);
    mem_secret_free(der);
    if (!ok) {
        return err_set(err, ERR_LIMIT, "no memory for a key for tokens");
    }
    memcpy(r->id, kid, sizeof(kid));
    r->created_s = r->changed_s = now_s;
    r->not_after_s = now_s + j->key_ttl_s;
    return 0;
}

static struct keeper_record *find(const struct keeper_store *store, enum keeper_state state)
{
    return keeper_store_find(store, KEEPER_JWT, state);
}

/* --- in force --------------------------------------------------------------------------------- */
static EVP_PKEY *key_of(const struct keeper_record *r, struct err *err)
{
    EVP_PKEY *key = x509_key_from_pkcs8((struct str){(const char *)r->key, r->key_len}, err);
    enum jwt_alg alg;
    char kid[JWT_KID_SIZE];

    if (key != NULL &&
        (!jwt_key_alg(key, &alg) || jwt_key_id(key, kid, err) == -1 || strcmp(kid, r->id) != 0)) {
        err_set(err, ERR_CONFIG, "the key for tokens '%s' is of another kind or name", r->id);
        EVP_PKEY_free(key);
        return NULL;
    }
    return key;
}

/* Of one state; the active one is handed out. */
static int append_state(struct buf *out, const struct keeper_store *store, enum keeper_state state,
                        EVP_PKEY **ret_active, struct err *err)
{
    for (size_t i = 0; i < store->n; i++) {
        const struct keeper_record *r = &store->records[i];
        mem_auto(EVP_PKEY_free) EVP_PKEY *key = NULL;

        if (r->kind != KEEPER_JWT || r->state != state) {
            continue;
        }
        key = key_of(r, err);
        if (key == NULL) {
            return -1;
        }
        if (buf_len(out) > strlen("{\"keys\":[") && !buf_append(out, ",", 1)) {
            return err_set(err, ERR_LIMIT, "too many keys for tokens");
        }
        if (jwt_key_write(key, false, out, err) == -1) {
            return -1;
        }
        if (state == KEEPER_ACTIVE) {
            *ret_active = key;
            key = NULL;
        }
    }
    return 0;
}

int keeper_jwt_take(struct keeper_jwt *j, const struct keeper_store *store, struct err *err)
{
    static const enum keeper_state order[] = {KEEPER_ACTIVE, KEEPER_PREPARED, KEEPER_OLD,
                                              KEEPER_TAINTED};
    struct buf set = BUF_INIT(AGENT_JWKS_MAX);
    mem_auto(EVP_PKEY_free) EVP_PKEY *active = NULL;
    const struct keeper_record *r = find(store, KEEPER_ACTIVE);
    int result = buf_append_str(&set, STR_LIT("{\"keys\":[")) ? 0 : -1;

    for (size_t i = 0; i < sizeof(order) / sizeof(order[0]) && result == 0; i++) {
        result = append_state(&set, store, order[i], &active, err);
    }
    if (result == 0 && !buf_append(&set, "]}", 2)) {
        result = err_set(err, ERR_LIMIT, "too many keys for tokens");
    }
    if (result == 0) {
        if (!str_eq(buf_str(&set), (struct str){j->set, j->set_len})) {
            j->generation++;
        }
        EVP_PKEY_free(j->key);
        free(j->set);
        j->key = active;
        active = NULL;
        j->key_not_after_s = r != NULL ? r->not_after_s : 0;
        j->set_len = buf_len(&set);
        j->set = mem_must_strndup((const char *)buf_head(&set), j->set_len);
    }
    buf_reset(&set);
    return result;
}

/* --- tokens ----------------------------------------------------------------------------------- */
int keeper_jwt_sign(struct keeper_jwt *j, struct str spiffe_id, uint32_t ttl_s,
                    const struct str *audiences, size_t n_audiences, int64_t now_s,
                    struct keeper_token *ret, struct err *err)
{
    struct keeper_token t = {.issued_s = now_s};
    struct jwt_statement what = {.spiffe_id = spiffe_id,
                                 .audiences = audiences,
                                 .n_audiences = n_audiences,
                                 .issued_s = now_s};

    if (j->key == NULL || j->key_not_after_s <= now_s) {
        return err_set(err, ERR_UNAVAILABLE, "there is no key for tokens that is valid now");
    }
    what.expires_s = now_s + (ttl_s != 0 ? ttl_s : j->ttl_s);
    if (what.expires_s > j->key_not_after_s) {
        what.expires_s = j->key_not_after_s;
    }
    os_random(what.jti, sizeof(what.jti));
    if (jwt_key_id(j->key, t.kid, err) == -1 || jwt_sign(&what, j->key, &t.text, err) == -1) {
        return -1;
    }
    memcpy(t.jti, what.jti, sizeof(t.jti));
    t.expires_s = what.expires_s;
    *ret = t;
    return 0;
}
