/*
 * The first byte chooses what the rest is:
 *   t  a token: never good, since nobody has the key
 *   h  a header, signed by the right key over good claims: good only if it names ES256
 *   c  claims, signed by the right key: what is good can be packed and printed, and its audience is
 *      there
 *   a  an audience of a token that we make: made if the audience is one that may be, good then, and
 *      no longer good with a bit of it changed
 */
#include <postern/jwt.h>

#include <stdlib.h>
#include <string.h>

#include "tokens.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

enum { NOW = 1800000000, INPUT_MAX = 12000 };
static const char HEADER[] = "{\"alg\":\"ES256\",\"kid\":\"k0\"}";
static const char CLAIMS[] =
    "{\"sub\":\"spiffe://example.org/a\",\"aud\":\"x\",\"exp\":1800000300}";

static EVP_PKEY *key;
static struct jwt_keys *keys;

static void begin(void)
{
    struct buf set = BUF_INIT(4096);
    struct jwt_keys *ours = NULL;
    if (key != NULL) {
        return;
    }
    jwt_init();
    key = jwt_key_new(JWT_ES256, NULL);
    CHECK(key != NULL);
    char *text = tokens_set(&key, 1, NULL);
    CHECK(jwt_keys_parse(str_of(text), false, &keys, NULL) == 0);
    free(text);
    CHECK(buf_append_str(&set, STR_LIT("{\"keys\":[")) &&
          jwt_key_write(key, false, &set, NULL) == 0);
    CHECK(buf_append_str(&set, STR_LIT("]}")));
    CHECK(jwt_keys_parse(buf_str(&set), false, &ours, NULL) == 0 && jwt_keys_count(ours) == 1);
    jwt_keys_free(ours);
    buf_reset(&set);
}

static struct jwt_token *verify(const struct jwt_keys *set, struct str token, struct str audience)
{
    const struct jwt_bundle bundle = {STR_LIT("example.org"), set};
    struct jwt_token *t = NULL;
    struct err err = ERR_INIT;
    if (jwt_verify(token, &bundle, 1, audience, NOW, &t, &err) == -1) {
        CHECK(t == NULL && err.code != ERR_NONE && err.what[0] != '\0');
    } else {
        CHECK(t != NULL && err.code == ERR_NONE);
    }
    return t;
}

static void show(const struct jwt_token *t)
{
    uint8_t *packed = NULL;
    size_t n = 0;
    char *text = jwt_claims_text(t);
    CHECK(text != NULL && jwt_claims_pack(t, &packed, &n, NULL) == 0 && n > 0);
    free(packed);
    free(text);
}

static void signed_text(const char *header, const char *claims, bool is_header)
{
    char *token = tokens_sign(header, claims, JWT_ES256, key);
    struct jwt_token *t = verify(keys, str_of(token), STR_LIT("x"));
    struct jwt_token *read = NULL;
    if (t != NULL) {
        bool has = false;
        for (size_t i = 0; i < t->n_audiences; i++) {
            has = has || strcmp(t->audiences[i], "x") == 0;
        }
        CHECK(has && t->alg == JWT_ES256 && t->expires_s + JWT_LEEWAY_S > NOW);
        CHECK(strncmp(t->spiffe_id, "spiffe://example.org/", 21) == 0);
        CHECK(!is_header || strstr(header, "ES256") != NULL || strchr(header, '\\') != NULL);
        CHECK(jwt_read(str_of(token), &read, NULL) == 0);
        show(t);
    } else if (jwt_read(str_of(token), &read, NULL) == 0) {
        show(read);
    }
    jwt_token_free(read);
    jwt_token_free(t);
    free(token);
}

static void audience(struct str text)
{
    struct jwt_statement what = {.spiffe_id = STR_LIT("spiffe://example.org/a"),
                                 .audiences = &text,
                                 .n_audiences = 1,
                                 .issued_s = NOW,
                                 .expires_s = NOW + 300};
    char *token = NULL;
    struct jwt_keys *ours = NULL;
    struct buf set = BUF_INIT(4096);
    CHECK((jwt_sign(&what, key, &token, NULL) == 0) == jwt_audience_ok(text));
    if (token == NULL) {
        return;
    }
    CHECK(buf_append_str(&set, STR_LIT("{\"keys\":[")) &&
          jwt_key_write(key, true, &set, NULL) == 0);
    CHECK(buf_append_str(&set, STR_LIT("]}")));
    CHECK(jwt_keys_parse(buf_str(&set), true, &ours, NULL) == 0);
    struct jwt_token *t = verify(ours, str_of(token), text);
    CHECK(t != NULL && t->n_audiences == 1 && str_eq(str_of(t->audiences[0]), text));
    jwt_token_free(t);
    size_t n = strlen(token);
    size_t at = n - 1 - (size_t)(uint8_t)text.p[0] % n;
    token[at] = (char)(token[at] == 'A' ? 'Q' : 'A');
    CHECK(verify(ours, str_of(token), text) == NULL);
    jwt_keys_free(ours);
    buf_reset(&set);
    free(token);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || size > INPUT_MAX) {
        return 0;
    }
    begin();
    struct str rest = {(const char *)data + 1, size - 1};
    char *z = mem_must_strndup(rest.p, rest.n);
    switch (data[0]) {
    case 't': {
        struct jwt_token *read = NULL;
        CHECK(verify(keys, rest, STR_LIT("x")) == NULL);
        if (jwt_read(rest, &read, NULL) == 0) {
            show(read);
        }
        jwt_token_free(read);
        break;
    }
    case 'h':
        signed_text(z, CLAIMS, true);
        break;
    case 'c':
        signed_text(HEADER, z, false);
        break;
    case 'a':
        audience(rest);
        break;
    default:
        break;
    }
    free(z);
    return 0;
}
