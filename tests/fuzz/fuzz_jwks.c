/*
 * Properties: what is taken strictly is taken loosely too, and never more of it; every key that is
 * taken has a name of its own and can be written again by us, if it is of a kind that we make, to a
 * set that holds exactly it.
 */
#include <postern/jwt.h>

#include <stdlib.h>
#include <string.h>

#include "jwt_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static void write_again(EVP_PKEY *key)
{
    struct buf set = BUF_INIT(8192);
    struct jwt_keys *again = NULL;
    char kid[JWT_KID_SIZE];
    enum jwt_alg alg;
    if (!jwt_key_alg(key, &alg)) {
        return;
    }
    CHECK(jwt_key_id(key, kid, NULL) == 0);
    CHECK(buf_append_str(&set, STR_LIT("{\"keys\":[")) &&
          jwt_key_write(key, true, &set, NULL) == 0);
    CHECK(buf_append_str(&set, STR_LIT("]}")));
    CHECK(jwt_keys_parse(buf_str(&set), true, &again, NULL) == 0);
    CHECK(jwt_keys_count(again) == 1 && strcmp(jwt_keys_kid(again, 0), kid) == 0);
    size_t at = 0;
    CHECK(EVP_PKEY_eq(jwt_keys_next(again, NULL, alg, &at), key) == 1);
    jwt_keys_free(again);
    buf_reset(&set);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str text = {(const char *)data, size};
    struct jwt_keys *loose = NULL;
    struct jwt_keys *strict = NULL;
    struct err err = ERR_INIT;
    jwt_init();
    if (jwt_keys_parse(text, false, &loose, &err) == -1) {
        CHECK(loose == NULL && err.code != ERR_NONE && err.what[0] != '\0');
        return 0;
    }
    /* names that clash among keys without a use are no matter to the strict one: not the reverse */
    CHECK(jwt_keys_parse(text, true, &strict, NULL) == 0);
    CHECK(jwt_keys_count(strict) <= jwt_keys_count(loose) && jwt_keys_count(loose) <= JWT_KEYS_MAX);
    for (size_t i = 0; i < jwt_keys_count(strict); i++) {
        CHECK(jwt_keys_has(loose, jwt_keys_kid(strict, i)));
    }
    for (size_t i = 0; i < jwt_keys_count(loose); i++) {
        const char *kid = jwt_keys_kid(loose, i);
        CHECK(kid[0] != '\0' && strlen(kid) <= JWT_KID_MAX && jwt_keys_kind(loose, i)[0] != '\0');
        for (unsigned alg = 0; alg < JWT_N_ALGS; alg++) {
            size_t at = 0;
            EVP_PKEY *key = jwt_keys_next(loose, kid, (enum jwt_alg)alg, &at);
            if (key != NULL) {
                CHECK(jwt_keys_next(loose, kid, (enum jwt_alg)alg, &at) == NULL);
                write_again(key);
            }
        }
    }
    jwt_keys_free(loose);
    jwt_keys_free(strict);
    return 0;
}
