/* The keys, and all that is ever done with them: one certificate request each, and signatures over
 * what is built here. */
#include "holder_priv.h"

#include <openssl/err.h>
#include <postern/mem.h>
#include <postern/x509.h>
#include <stdlib.h>
#include <string.h>

static void let_go(struct holder_key *k)
{
    EVP_PKEY_free(k->key);
    *k = (struct holder_key){.number = 0};
}

void holder_keys_deinit(struct holder_keys *k)
{
    for (size_t i = 0; i < HOLDER_KEYS_MAX; i++) {
        let_go(&k->keys[i]);
    }
}

/* A free one, else the oldest's. */
static struct holder_key *place_for_one(struct holder_keys *k)
{
    struct holder_key *place = &k->keys[0];
    for (size_t i = 1; i < HOLDER_KEYS_MAX; i++) {
        if (k->keys[i].number < place->number) {
            place = &k->keys[i];
        }
    }
    return place;
}

int holder_keys_make(struct holder_keys *k, struct holder_made *ret, struct err *err)
{
    mem_auto(EVP_PKEY_free) EVP_PKEY *key = x509_key_new(err);
    mem_autofree uint8_t *request = NULL;
    size_t len = 0;
    if (key == NULL || x509_key_point(key, ret->point, err) == -1 ||
        x509_csr_new(key, &request, &len, err) == -1) {
        return -1;
    }
    if (len > sizeof(ret->request) || k->last == UINT32_MAX) {
        return err_set(err, ERR_LIMIT, "a request of %zu bytes, after %u keys", len, k->last);
    }
    struct holder_key *place = place_for_one(k);
    let_go(place);
    *place = (struct holder_key){.number = ++k->last, .key = key};
    key = NULL;
    ret->head.key = place->number;
    ret->request_len = (uint32_t)len;
    memcpy(ret->request, request, len);
    return 0;
}

EVP_PKEY *holder_keys_find(const struct holder_keys *k, uint32_t number)
{
    for (size_t i = 0; number != 0 && i < HOLDER_KEYS_MAX; i++) {
        if (k->keys[i].number == number) {
            return k->keys[i].key;
        }
    }
    return NULL;
}

void holder_keys_drop(struct holder_keys *k, uint32_t number)
{
    for (size_t i = 0; number != 0 && i < HOLDER_KEYS_MAX; i++) {
        if (k->keys[i].number == number) {
            let_go(&k->keys[i]);
        }
    }
}

unsigned holder_keys_count(const struct holder_keys *k)
{
    unsigned n = 0;
    for (size_t i = 0; i < HOLDER_KEYS_MAX; i++) {
        n += k->keys[i].number != 0;
    }
    return n;
}

int holder_sign(EVP_PKEY *key, const struct away_handshake *what, uint8_t ret[HOLDER_SIGNATURE_MAX],
                uint32_t *ret_len, struct err *err)
{
    uint8_t content[AWAY_HANDSHAKE_MAX];
    size_t n = away_handshake_write(what, content);
    size_t len = HOLDER_SIGNATURE_MAX;
    ERR_clear_error();
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    bool ok = c != NULL && EVP_DigestSignInit(c, NULL, EVP_sha256(), NULL, key) == 1 &&
              EVP_DigestSign(c, ret, &len, content, n) == 1;
    EVP_MD_CTX_free(c);
    if (!ok) {
        unsigned long code = ERR_peek_last_error();
        const char *reason = code != 0 ? ERR_reason_error_string(code) : NULL;
        ERR_clear_error();
        return err_set(err, ERR_CRYPTO, "signing: %s", reason != NULL ? reason : "unknown reason");
    }
    *ret_len = (uint32_t)len;
    return 0;
}
