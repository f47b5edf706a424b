/* claims: which tokens of requests hold, and what rules see of them. docs/claims.md, attack cases.
 */
#include <postern/claims.h>

#include <openssl/hmac.h>
#include <postern/jwt.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tokens.h"
/* cmocka wants these first */
#include <cmocka.h>

enum { NOW = 1800000000 };

#define ISS "\"iss\":\"https://idp.example\""
#define AUD "\"aud\":[\"other\",\"orders\"]"
#define EXP "\"exp\":1800000300"
#define SOUND "{" ISS "," AUD "," EXP "}"
#define HEAD "{\"alg\":\"ES256\",\"kid\":\"k0\"}"

/* Two issuers whose keys have the same names, and a trust domain. */
struct fixture {
    EVP_PKEY *idp[2], *other, *svid;
    char files[3][64];
    struct conf_jwts conf;
    struct claims_keys *keys;
    struct claims_cache *cache;
};

static void write_set(char path[64], EVP_PKEY *const *keys, size_t n, const char *use)
{
    char *set = tokens_set(keys, n, use);
    snprintf(path, 64, "/tmp/claims-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, set, strlen(set)), strlen(set));
    close(fd);
    free(set);
}

static char orders[] = "orders", more[] = "more", idp[] = "https://idp.example",
            other[] = "https://other.example", late[] = "https://late.example",
            domain[] = "example.org", x_caller[] = "x-caller", null[] = "/dev/null",
            nonexistent[] = "/nonexistent/keys";
static char *audience[] = {orders, more};

static int setup(void **state)
{
    struct fixture *f = mem_must_new(struct fixture);
    struct err err = ERR_INIT;
    jwt_init();
    f->idp[0] = tokens_key(JWT_ES256);
    f->idp[1] = tokens_key(JWT_RS256);
    f->other = tokens_key(JWT_ES256);
    f->svid = tokens_key(JWT_ES256);
    write_set(f->files[0], f->idp, 2, "sig");
    write_set(f->files[1], &f->other, 1, NULL);
    write_set(f->files[2], &f->svid, 1, "jwt-svid");
    f->conf.items = mem_must_calloc(4, sizeof(f->conf.items[0]));
    f->conf.items[0] = (struct conf_jwt){.issuer = idp, .jwks_file = f->files[0]};
    f->conf.items[1] = (struct conf_jwt){.issuer = other, .jwks_file = f->files[1]};
    f->conf.items[2] = (struct conf_jwt){.trust_domain = domain, .jwks_file = f->files[2]};
    f->conf.items[3] =
        (struct conf_jwt){.issuer = late, .jwks_file = f->files[1], .header = x_caller};
    for (f->conf.n = 0; f->conf.n < 4; f->conf.n++) {
        f->conf.items[f->conf.n].audiences = (struct conf_strings){audience, 2};
    }
    assert_int_equal(claims_keys_load(&f->conf, &f->keys, &err), 0);
    f->cache = claims_cache_new();
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    claims_cache_free(f->cache);
    claims_keys_unref(f->keys);
    for (int i = 0; i < 3; i++) {
        unlink(f->files[i]);
    }
    EVP_PKEY_free(f->idp[0]);
    EVP_PKEY_free(f->idp[1]);
    EVP_PKEY_free(f->other);
    EVP_PKEY_free(f->svid);
    free(f->conf.items);
    free(f);
    return 0;
}

/* --- asking ----------------------------------------------------------------------------------- */
static struct policy_header bearer(const char *token, char *room, size_t size)
{
    int n = snprintf(room, size, "Bearer %s", token);
    return (struct policy_header){STR_LIT("authorization"), {room, (size_t)n}};
}

static int look_at(struct fixture *f, const struct policy_header *items, size_t n, int64_t now_s,
                   struct claims **ret, char *said, size_t size)
{
    struct err err = ERR_INIT;
    const struct policy_headers headers = {n, items};
    int r = claims_look(f->cache, f->keys, &headers, now_s, ret, &err);
    said[0] = '\0';
    if (r == -1) {
        snprintf(said, size, "%s", err.what);
    }
    return r;
}

static void refuse(struct fixture *f, const char *what, const struct policy_header *items, size_t n,
                   const char *says)
{
    struct claims *c = NULL;
    char said[1200];
    size_t before = claims_cache_count(f->cache);
    if (look_at(f, items, n, NOW, &c, said, sizeof(said)) != -1) {
        fail_msg("%s: %s", what, c != NULL ? "taken" : "not looked at");
    }
    assert_null(c);
    if (strstr(said, says) == NULL) {
        fail_msg("%s: said \"%s\", not \"%s\"", what, said, says);
    }
    assert_int_equal(claims_cache_count(f->cache), before);
}

static void refuse_token(struct fixture *f, const char *what, const char *token, const char *says)
{
    char room[40000];
    struct policy_header h = bearer(token, room, sizeof(room));
    refuse(f, what, &h, 1, says);
}

static void refuse_signed(struct fixture *f, const char *header, const char *claims,
                          const char *says)
{
    char *token = tokens_sign(header, claims, JWT_ES256, f->idp[0]);
    refuse_token(f, claims, token, says);
    free(token);
}

static struct claims *take(struct fixture *f, const char *token, int64_t now_s)
{
    char room[40000], said[1200];
    struct claims *c = NULL;
    struct policy_header h = bearer(token, room, sizeof(room));
    if (look_at(f, &h, 1, now_s, &c, said, sizeof(said)) != 0 || c == NULL) {
        fail_msg("refused: %s", said);
    }
    return c;
}

/* --- what is refused -------------------------------------------------------------------------- */
static void test_header(void **state)
{
    struct fixture *f = *state;
    refuse_signed(f, "{\"alg\":\"none\",\"kid\":\"k0\"}", SOUND, "the algorithm is not one");
    refuse_signed(f, "{\"alg\":\"HS256\",\"kid\":\"k0\"}", SOUND, "the algorithm is not one");
    refuse_signed(f, "{\"alg\":\"EdDSA\",\"kid\":\"k0\"}", SOUND, "the algorithm is not one");
    refuse_signed(f, "{\"kid\":\"k0\"}", SOUND, "the algorithm is not one");
    refuse_signed(f, "{\"alg\":\"ES256\",\"jku\":\"https://evil\"}", SOUND,
                  "says more than it may");
    refuse_signed(f, "{\"alg\":\"ES256\",\"jwk\":{}}", SOUND, "says more than it may");
    refuse_signed(f, "{\"alg\":\"ES256\",\"x5c\":[]}", SOUND, "says more than it may");
    refuse_signed(f, "{\"alg\":\"ES256\",\"crit\":[\"exp\"]}", SOUND, "says more than it may");
    refuse_signed(f, "{\"alg\":\"ES256\",\"typ\":\"logout+jwt\"}", SOUND,
                  "the type is another one");
    refuse_signed(f, "{\"alg\":\"ES256\",\"kid\":\"\"}", SOUND, "the key's name is empty");
    refuse_signed(f, "{\"alg\":\"ES256\",\"alg\":\"ES256\"}", SOUND, "not sound JSON");
}

/* The public key is no secret: a signature made with it as one is worth nothing. */
static void test_hmac(void **state)
{
    struct fixture *f = *state;
    char *set = tokens_set(f->idp, 1, "sig");
    char *h = tokens_base64("{\"alg\":\"HS256\"}", 15);
    char *c = tokens_base64(SOUND, strlen(SOUND));
    char text[2000];
    unsigned char mac[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    int len = snprintf(text, sizeof(text), "%s.%s", h, c);
    assert_non_null(
        HMAC(EVP_sha256(), set, (int)strlen(set), (unsigned char *)text, (size_t)len, mac, &n));
    char *s = tokens_base64(mac, n);
    snprintf(text + len, sizeof(text) - (size_t)len, ".%s", s);
    refuse_token(f, "HS256", text, "the algorithm is not one");
    free(set);
    free(h);
    free(c);
    free(s);
}

static void test_whose(void **state)
{
    struct fixture *f = *state;
    /* Signed by another issuer whose key has the same name. */
    char *token = tokens_sign(HEAD, SOUND, JWT_ES256, f->other);
    refuse_token(f, "kid of another", token, "the signature is wrong");
    free(token);
    token = tokens_sign("{\"alg\":\"ES256\",\"kid\":\"k7\"}", SOUND, JWT_ES256, f->idp[0]);
    refuse_token(f, "no such kid", token, "the token's key is not");
    free(token);
    refuse_signed(f, HEAD, "{" AUD "," EXP "}", "of nobody whose tokens count");
    refuse_signed(f, HEAD, "{\"iss\":\"https://idp.example/\"," AUD "," EXP "}", "of nobody");
    refuse_signed(f, HEAD, "{\"iss\":\"https://IDP.example\"," AUD "," EXP "}", "of nobody");
    refuse_signed(f, HEAD, "{\"iss\":[\"https://idp.example\"]," AUD "," EXP "}", "of nobody");
    refuse_signed(f, HEAD, "{" ISS "," ISS "," AUD "," EXP "}", "not sound JSON");
    /* Listed for another header only. */
    refuse_signed(f, HEAD, "{\"iss\":\"https://late.example\"," AUD "," EXP "}", "of nobody");
    /* A SPIFFE ID is its trust domain's alone to give. */
    refuse_signed(f, HEAD, "{\"sub\":\"spiffe://example.org/a\"," AUD "," EXP "}",
                  "the signature is wrong");
    refuse_signed(f, HEAD, "{\"sub\":\"spiffe://example.orgx/a\"," AUD "," EXP "}", "of nobody");
}

static void test_times(void **state)
{
    struct fixture *f = *state;
    refuse_signed(f, HEAD, "{" ISS "," AUD "}", "does not say when it ends");
    refuse_signed(f, HEAD, "{" ISS "," AUD ",\"exp\":1799999990}", "has expired");
    refuse_signed(f, HEAD, "{" ISS "," AUD ",\"exp\":\"1800000300\"}", "'exp' is no time");
    refuse_signed(f, HEAD, "{" ISS "," AUD "," EXP ",\"nbf\":1800000011}", "is not valid yet");
    refuse_signed(f, HEAD, "{" ISS "," EXP "}", "the audience is missing");
    refuse_signed(f, HEAD, "{" ISS ",\"aud\":[]," EXP "}", "the audience is missing");
    refuse_signed(f, HEAD, "{" ISS ",\"aud\":\"Orders\"," EXP "}", "for another audience");
    refuse_signed(f, HEAD, "{" ISS ",\"aud\":\"orders2\"," EXP "}", "for another audience");
}

static void test_changed(void **state)
{
    struct fixture *f = *state;
    char *token = tokens_sign(HEAD, SOUND, JWT_ES256, f->idp[0]);
    size_t n = strlen(token);
    for (size_t i = 0; i < n; i += 7) {
        char was = token[i];
        token[i] = was == 'A' ? 'B' : 'A';
        refuse_token(f, "changed", token, "");
        token[i] = was;
    }
    claims_unref(take(f, token, NOW));
    free(token);
}

static void test_places(void **state)
{
    struct fixture *f = *state;
    static const char *const bad[] = {"",           "Bearer",       "Bearer ",   "Bearer  %s",
                                      "Bearer %s ", "Bearer %s,%s", "Bearer\t%s"};
    char *token = tokens_sign(HEAD, SOUND, JWT_ES256, f->idp[0]);
    char room[3000], second[3000], said[1200];
    struct claims *c = NULL;
    for (size_t i = 1; i < sizeof(bad) / sizeof(bad[0]); i++) {
        size_t n = 0;
        for (const char *p = bad[i]; *p != '\0'; p++) {
            n += (size_t)snprintf(room + n, sizeof(room) - n, *p == '%' ? "%s" : "%.1s",
                                  *p == '%' ? token : p);
            p += *p == '%';
        }
        struct policy_header h = {STR_LIT("authorization"), {room, n}};
        refuse(f, bad[i], &h, 1, "a token that is empty, or none by its signs");
    }
    struct policy_header two[] = {bearer(token, room, sizeof(room)),
                                  bearer(token, second, sizeof(second))};
    refuse(f, "two", two, 2, "more than one token");
    two[1] = (struct policy_header){STR_LIT("authorization"), STR_LIT("Basic abc")};
    refuse(f, "two schemes", two, 2, "a header with a token stands there twice");
    two[1] = (struct policy_header){STR_LIT("x-caller"), str_of(token)};
    refuse(f, "two headers", two, 2, "more than one token");
    /* Not looked at. */
    assert_int_equal(
        look_at(f, &(struct policy_header){STR_LIT("authorization"), STR_LIT("Basic abc")}, 1, NOW,
                &c, said, sizeof(said)),
        0);
    assert_null(c);
    assert_int_equal(look_at(f, &(struct policy_header){STR_LIT("cookie"), str_of(room)}, 1, NOW,
                             &c, said, sizeof(said)),
                     0);
    assert_null(c);
    assert_int_equal(look_at(f, NULL, 0, NOW, &c, said, sizeof(said)), 0);
    assert_null(c);
    /* The scheme's case does not count. */
    memcpy(room, "bEARER", 6);
    assert_int_equal(look_at(f, two, 1, NOW, &c, said, sizeof(said)), 0);
    assert_non_null(c);
    claims_unref(c);
    free(token);
}

static void test_too_much(void **state)
{
    struct fixture *f = *state;
    struct buf text = BUF_INIT(1024 * 1024);
    assert_true(buf_printf(&text, "{" ISS "," AUD "," EXP));
    for (int i = 0; i < CLAIMS_VALUES_MAX; i++) {
        assert_true(buf_printf(&text, ",\"c%d\":1", i));
    }
    assert_true(buf_append(&text, "}", 2));
    refuse_signed(f, HEAD, (const char *)buf_head(&text), "says more than rules");
    buf_consume(&text, buf_len(&text));
    assert_true(buf_printf(&text, "{" ISS "," AUD "," EXP ",\"a\":"));
    for (int i = 0; i < CLAIMS_DEPTH_MAX; i++) {
        assert_true(buf_printf(&text, "{\"a\":"));
    }
    assert_true(buf_printf(&text, "1"));
    for (int i = 0; i <= CLAIMS_DEPTH_MAX; i++) {
        assert_true(buf_printf(&text, "}"));
    }
    assert_true(buf_append(&text, "", 1));
    refuse_signed(f, HEAD, (const char *)buf_head(&text), "says more than rules");
    buf_consume(&text, buf_len(&text));
    assert_true(buf_printf(&text, "{" ISS "," AUD "," EXP ",\"a\":\"%015000d\"}", 0));
    assert_true(buf_append(&text, "", 1));
    refuse_signed(f, HEAD, (const char *)buf_head(&text), "a token of more than");
    buf_reset(&text);
}

/* --- what is taken ---------------------------------------------------------------------------- */
static bool has(const struct claims *c, const char *name, const char *value)
{
    const struct policy_claims *l = claims_list(c);
    for (size_t i = 0; i < l->n; i++) {
        if (str_eq(l->items[i].name, str_of(name)) && str_eq(l->items[i].value, str_of(value))) {
            return true;
        }
    }
    return false;
}

static void test_list(void **state)
{
    struct fixture *f = *state;
    char *token = tokens_sign(
        "{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"x5t\":\"abc\"}",
        "{" ISS "," AUD "," EXP ",\"groups\":[\"a\",\"b\",7,null,[\"c\"],{\"d\":\"e\"}],"
        "\"realm\":{\"roles\":[\"x\"],\"n\":{\"deep\":true}},\"a.b\":\"dot\",\"a\\\\b\":\"back\","
        "\"scope\":\"read  write\",\"sub\":\"x y\",\"half\":0.5,\"none\":null,\"\":\"empty\","
        "\"in\":{\"\":{\"iss\":\"evil\"}},\"big\":-9007199254740993,\"zero\":\"\"}",
        JWT_ES256, f->idp[0]);
    struct claims *c = take(f, token, NOW);
    assert_true(has(c, "iss", "https://idp.example"));
    assert_true(has(c, "aud", "orders") && has(c, "aud", "other"));
    assert_true(has(c, "exp", "1800000300"));
    assert_true(has(c, "groups", "a") && has(c, "groups", "b") && has(c, "groups", "7"));
    assert_true(has(c, "realm.roles", "x") && has(c, "realm.n.deep", "true"));
    assert_true(has(c, "a\\.b", "dot") && has(c, "a\\\\b", "back"));
    assert_true(has(c, "scope", "read") && has(c, "scope", "write"));
    assert_true(has(c, "sub", "x y") && has(c, "zero", ""));
    assert_true(has(c, "big", "-9007199254740993"));
    assert_int_equal(claims_list(c)->n, 16);
    assert_int_equal(claims_end_s(c), 1800000310);
    claims_unref(c);
    free(token);
}

static void test_others(void **state)
{
    struct fixture *f = *state;
    /* Without kid, by another algorithm, from the other places. */
    char *token = tokens_sign("{\"alg\":\"RS256\"}", SOUND, JWT_RS256, f->idp[1]);
    claims_unref(take(f, token, NOW));
    free(token);
    token = tokens_sign("{\"alg\":\"ES256\",\"kid\":\"k0\"}",
                        "{\"sub\":\"spiffe://example.org/a\",\"aud\":\"more\"," EXP "}", JWT_ES256,
                        f->svid);
    struct claims *c = take(f, token, NOW);
    assert_true(has(c, "sub", "spiffe://example.org/a"));
    claims_unref(c);
    free(token);
    token = tokens_sign(HEAD, "{\"iss\":\"https://late.example\"," AUD "," EXP "}", JWT_ES256,
                        f->other);
    char said[1200];
    c = NULL;
    assert_int_equal(look_at(f, &(struct policy_header){STR_LIT("x-caller"), str_of(token)}, 1, NOW,
                             &c, said, sizeof(said)),
                     0);
    assert_non_null(c);
    claims_unref(c);
    free(token);
}

/* --- what is remembered ----------------------------------------------------------------------- */
static void test_remembered(void **state)
{
    struct fixture *f = *state;
    char *token = tokens_sign(HEAD, SOUND, JWT_ES256, f->idp[0]);
    struct claims *a = take(f, token, NOW);
    struct claims *b = take(f, token, NOW + 309);
    assert_ptr_equal(a, b);
    assert_int_equal(claims_cache_count(f->cache), 1);
    /* Its end is asked each time. */
    char room[3000], said[1200];
    struct claims *c = NULL;
    struct policy_header h = bearer(token, room, sizeof(room));
    assert_int_equal(look_at(f, &h, 1, NOW + 310, &c, said, sizeof(said)), -1);
    assert_non_null(strstr(said, "has expired"));
    assert_int_equal(claims_cache_count(f->cache), 0);
    /* Whoever holds it keeps it. */
    assert_true(has(a, "aud", "orders"));
    claims_unref(a);
    claims_unref(b);
    /* Other keys forget what was verified by these; the same, read again, do not. */
    a = take(f, token, NOW);
    struct claims_keys *again = NULL;
    assert_int_equal(claims_keys_load(&f->conf, &again, NULL), 0);
    claims_keys_unref(f->keys);
    f->keys = again;
    b = take(f, token, NOW);
    assert_ptr_equal(a, b);
    claims_unref(b);
    f->conf.n = 1;
    EVP_PKEY *stranger = tokens_key(JWT_ES256);
    unlink(f->files[0]);
    write_set(f->files[0], &stranger, 1, "sig");
    again = NULL;
    assert_int_equal(claims_keys_load(&f->conf, &again, NULL), 0);
    claims_keys_unref(f->keys);
    f->keys = again;
    assert_int_equal(look_at(f, &h, 1, NOW, &c, said, sizeof(said)), -1);
    assert_non_null(strstr(said, "the signature is wrong"));
    assert_int_equal(claims_cache_count(f->cache), 0);
    claims_unref(a);
    EVP_PKEY_free(stranger);
    free(token);
}

static void test_bounded(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 40; i++) {
        char text[300];
        snprintf(text, sizeof(text), "{" ISS "," AUD "," EXP ",\"jti\":%d}", i);
        char *token = tokens_sign(HEAD, text, JWT_ES256, f->idp[0]);
        claims_unref(take(f, token, NOW));
        free(token);
    }
    assert_int_equal(claims_cache_count(f->cache), 40);
}

/* --- keys ------------------------------------------------------------------------------------- */
static void test_files(void **state)
{
    struct fixture *f = *state;
    struct err err = ERR_INIT;
    struct claims_keys *k = NULL;
    char text[1200];
    struct conf_jwts one = {f->conf.items, 1};
    assert_int_equal(claims_keys_load(&(struct conf_jwts){NULL, 0}, &k, &err), 0);
    assert_null(k);
    f->conf.items[0].jwks_file = nonexistent;
    assert_int_equal(claims_keys_load(&one, &k, &err), -1);
    assert_non_null(strstr(err_text(&err, text, sizeof(text)), "/nonexistent/keys"));
    f->conf.items[0].jwks_file = null;
    err = (struct err)ERR_INIT;
    assert_int_equal(claims_keys_load(&one, &k, &err), -1);
    /* A trust domain's bundle says what its keys are for. */
    f->conf.items[0] = (struct conf_jwt){
        .trust_domain = domain, .jwks_file = f->files[1], .audiences = {audience, 1}};
    assert_int_equal(claims_keys_load(&one, &k, NULL), 0);
    claims_keys_unref(k);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_header),  TEST(test_hmac),       TEST(test_whose),    TEST(test_times),
        TEST(test_changed), TEST(test_places),     TEST(test_too_much), TEST(test_list),
        TEST(test_others),  TEST(test_remembered), TEST(test_bounded),  TEST(test_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
