/* JWT-SVID.md: what is refused first, each case named after its clause; then all nine algorithms.
 */
#include <postern/jwt.h>

#include <jansson.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/param_build.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "jwt_priv.h"
#include "tokens.h"
#include <cmocka.h>

enum { NOW = 1800000000 };

#define SUB "\"sub\":\"spiffe://example.org/web\""
#define AUD "\"aud\":[\"other\",\"orders\"]"
#define EXP "\"exp\":1800000300"
#define GOOD "{" SUB "," AUD "," EXP "}"

/* One key of each algorithm, and a set of all of them: k0 RS256 ... in the enum's order. */
struct fixture {
    EVP_PKEY *keys[JWT_N_ALGS];
    char *set;
    struct jwt_keys *parsed;
    EVP_PKEY *stranger;
};

static int setup(void **state)
{
    struct fixture *f = mem_must_new(struct fixture);
    jwt_init();
    for (unsigned i = 0; i < JWT_N_ALGS; i++) {
        f->keys[i] = tokens_key((enum jwt_alg)i);
    }
    f->stranger = tokens_key(JWT_ES256);
    f->set = tokens_set(f->keys, JWT_N_ALGS, NULL);
    assert_int_equal(jwt_keys_parse(str_of(f->set), false, &f->parsed, NULL), 0);
    assert_int_equal(jwt_keys_count(f->parsed), JWT_N_ALGS);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    for (unsigned i = 0; i < JWT_N_ALGS; i++) {
        EVP_PKEY_free(f->keys[i]);
    }
    EVP_PKEY_free(f->stranger);
    free(f->set);
    jwt_keys_free(f->parsed);
    free(f);
    return 0;
}

static int verify_at(const struct fixture *f, const char *token, size_t n, int64_t now_s,
                     struct jwt_token **ret, struct err *err)
{
    const struct jwt_bundle bundles[] = {{STR_LIT("example.org"), f->parsed}};
    return jwt_verify((struct str){token, n}, bundles, 1, STR_LIT("orders"), now_s, ret, err);
}

/* Fails, and says why in these words. */
static void refuse(const struct fixture *f, const char *clause, const char *token, size_t n,
                   const char *says)
{
    struct err err = ERR_INIT;
    struct jwt_token *t = NULL;
    char text[1200];
    if (verify_at(f, token, n, NOW, &t, &err) != -1) {
        fail_msg("%s: accepted", clause);
    }
    assert_null(t);
    if (strstr(err_text(&err, text, sizeof(text)), says) == NULL) {
        fail_msg("%s: says \"%s\", not \"%s\"", clause, text, says);
    }
}

static void refuse_token(const struct fixture *f, const char *clause, const char *header,
                         const char *claims, const char *says)
{
    char *token = tokens_sign(header, claims, JWT_ES256, f->keys[JWT_ES256]);
    refuse(f, clause, token, strlen(token), says);
    free(token);
}

/* --- base64url -------------------------------------------------------------------------------- */

static void test_base64_refused(void **state)
{
    static const char *const bad[] = {"A",    "QQ==", "QQ=",   "Q Q",  "QQ\n",
                                      "+___", "/___", "AAAAA", "QR",   "QQB",
                                      "AAB",  "Q.",   "=",     "QUI=", "\303\244AA"};
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        uint8_t *out = NULL;
        size_t n = 0;
        if (jwt_base64_decode(str_of(bad[i]), &out, &n)) {
            fail_msg("'%s' is taken", bad[i]);
        }
    }
    uint8_t *out = NULL;
    size_t n = 0;
    assert_false(jwt_base64_decode((struct str){"QQ\0A", 4}, &out, &n));
}

static void test_base64_round(void **state)
{
    (void)state;
    for (size_t n = 0; n < 70; n++) {
        uint8_t in[70];
        struct buf text = BUF_INIT(200);
        uint8_t *out = NULL;
        size_t len = 1000;
        for (size_t i = 0; i < n; i++) {
            in[i] = (uint8_t)(i * 37 + n * 11);
        }
        char *want = tokens_base64(in, n);
        assert_true(jwt_base64_append(&text, in, n));
        assert_true(str_eq(buf_str(&text), str_of(want)));
        assert_true(jwt_base64_decode(buf_str(&text), &out, &len));
        assert_int_equal(len, n);
        assert_memory_equal(out, in, n);
        free(out);
        free(want);
        buf_reset(&text);
    }
}

/* --- tokens that are refused ------------------------------------------------------------------ */

static void test_form(void **state)
{
    static const char *const bad[] = {"", ".", "a", "a.b", "...", "a.b.c.d", "{\"payload\":\"a\"}"};
    const struct fixture *f = *state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        refuse(f, bad[i], bad[i], strlen(bad[i]), "not a compact JWS");
    }
    refuse(f, "empty parts", "..", 2, "header");
    char *good = tokens_sign("{\"alg\":\"ES256\"}", GOOD, JWT_ES256, f->keys[JWT_ES256]);
    size_t n = strlen(good);
    char *longer = mem_must_calloc(JWT_TOKEN_MAX + 2, 1);
    memset(longer, 'A', JWT_TOKEN_MAX + 1);
    memcpy(longer, good, n);
    refuse(f, "too long", longer, JWT_TOKEN_MAX + 1, "more than");
    free(longer);
    /* JWS JSON serialization and junk around the token */
    const char *const wraps[][2] = {{" ", ""}, {"", " "}, {"", "\n"}, {"", "="}, {"=", ""}};
    for (size_t i = 0; i < sizeof(wraps) / sizeof(wraps[0]); i++) {
        char *wrapped = mem_must_printf("%s%s%s", wraps[i][0], good, wraps[i][1]);
        refuse(f, "junk around", wrapped, strlen(wrapped), "base64url");
        free(wrapped);
    }
    refuse(f, "NUL at the end", good, n + 1, "base64url");
    free(good);
}

static void test_header(void **state)
{
    static const struct {
        const char *clause, *header, *says;
    } bad[] = {
        {"2.1 none", "{\"alg\":\"none\"}", "algorithm"},
        {"2.1 None", "{\"alg\":\"None\"}", "algorithm"},
        {"2.1 HS256", "{\"alg\":\"HS256\",\"kid\":\"k3\"}", "algorithm"},
        {"2.1 HS384", "{\"alg\":\"HS384\"}", "algorithm"},
        {"2.1 HS512", "{\"alg\":\"HS512\"}", "algorithm"},
        {"2.1 EdDSA", "{\"alg\":\"EdDSA\"}", "algorithm"},
        {"2.1 ES256K", "{\"alg\":\"ES256K\"}", "algorithm"},
        {"2.1 lower case", "{\"alg\":\"es256\"}", "algorithm"},
        {"2.1 no alg", "{\"typ\":\"JWT\"}", "algorithm"},
        {"2.1 alg is a number", "{\"alg\":256}", "algorithm"},
        {"2.1 alg is a list", "{\"alg\":[\"ES256\"]}", "algorithm"},
        {"2.1 two algs", "{\"alg\":\"none\",\"alg\":\"ES256\"}", "JSON"},
        {"2.2 empty kid", "{\"alg\":\"ES256\",\"kid\":\"\"}", "name is empty"},
        {"2.2 kid is a number", "{\"alg\":\"ES256\",\"kid\":3}", "name is empty"},
        {"2.2 unknown kid", "{\"alg\":\"ES256\",\"kid\":\"nobody\"}", "not in the trust domain"},
        {"2.2 kid of another kind", "{\"alg\":\"ES256\",\"kid\":\"k0\"}", "fits ES256"},
        {"2.2 kid of another curve", "{\"alg\":\"ES256\",\"kid\":\"k4\"}", "fits ES256"},
        {"2.3 typ", "{\"alg\":\"ES256\",\"typ\":\"jwt\"}", "type"},
        {"2.3 WIT", "{\"alg\":\"ES256\",\"typ\":\"wit+jwt\"}", "type"},
        {"2.3 typ is a number", "{\"alg\":\"ES256\",\"typ\":1}", "type"},
        {"2 crit", "{\"alg\":\"ES256\",\"crit\":[\"exp\"]}", "more than it may"},
        {"2 jku", "{\"alg\":\"ES256\",\"jku\":\"https://e.org\"}", "more than it may"},
        {"2 jwk", "{\"alg\":\"ES256\",\"jwk\":{}}", "more than it may"},
        {"2 x5c", "{\"alg\":\"ES256\",\"x5c\":[]}", "more than it may"},
        {"2 cty", "{\"alg\":\"ES256\",\"cty\":\"JWT\"}", "more than it may"},
        {"no object", "[\"ES256\"]", "not a JSON object"},
        {"no JSON", "alg=ES256", "JSON"},
        {"something after it", "{\"alg\":\"ES256\"} {}", "JSON"},
        {"nothing", "", "JSON"},
        {"NUL in a text", "{\"alg\":\"ES256\\u0000\"}", "JSON"},
    };
    const struct fixture *f = *state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        refuse_token(f, bad[i].clause, bad[i].header, GOOD, bad[i].says);
    }
    char *deep = mem_must_printf("{\"alg\":\"ES256\",\"kid\":%0*d}", JWT_DEPTH_MAX + 1, 0);
    for (char *p = strchr(deep, '0'); *p == '0'; p++) {
        *p = '[';
    }
    refuse_token(f, "deep", deep, GOOD, "deeper");
    free(deep);
}

/* The algorithm comes before all else: a token that is wrong in everything fails by it. */
static void test_algorithm_first(void **state)
{
    static const char *const algs[] = {"none", "HS256", "EdDSA"};
    const struct fixture *f = *state;
    for (size_t i = 0; i < 3; i++) {
        char *header = mem_must_printf("{\"alg\":\"%s\",\"typ\":\"x\"}", algs[i]);
        char *h = tokens_base64(header, strlen(header));
        char *token = mem_must_printf("%s.!.", h);
        refuse(f, algs[i], token, strlen(token), "algorithm");
        free(token);
        free(h);
        free(header);
    }
}

static void test_claims(void **state)
{
    static const struct {
        const char *clause, *claims, *says;
    } bad[] = {
        {"3.1 no sub", "{" AUD "," EXP "}", "subject is missing"},
        {"3.1 sub is a number", "{\"sub\":1," AUD "," EXP "}", "subject is missing"},
        {"3.1 sub is no SPIFFE ID", "{\"sub\":\"web\"," AUD "," EXP "}", "subject"},
        {"3.1 sub in upper case", "{\"sub\":\"spiffe://Example.org/web\"," AUD "," EXP "}",
         "subject"},
        {"3.1 sub is the trust domain", "{\"sub\":\"spiffe://example.org\"," AUD "," EXP "}",
         "trust domain"},
        {"3.1 two subs", "{\"sub\":\"spiffe://example.org/a\"," SUB "," AUD "," EXP "}", "JSON"},
        {"5 another trust domain", "{\"sub\":\"spiffe://example.com/web\"," AUD "," EXP "}",
         "no bundle for trust domain 'example.com'"},
        {"5 a prefix of the trust domain", "{\"sub\":\"spiffe://example.or/web\"," AUD "," EXP "}",
         "no bundle"},
        {"5 longer than the trust domain",
         "{\"sub\":\"spiffe://example.org.evil/web\"," AUD "," EXP "}", "no bundle"},
        {"3.2 no aud", "{" SUB "," EXP "}", "audience is missing"},
        {"3.2 empty aud", "{" SUB ",\"aud\":[]," EXP "}", "audience is missing"},
        {"3.2 aud is null", "{" SUB ",\"aud\":null," EXP "}", "audience is missing"},
        {"3.2 aud is an object", "{" SUB ",\"aud\":{\"orders\":1}," EXP "}", "audience is missing"},
        {"3.2 a number in aud", "{" SUB ",\"aud\":[\"orders\",1]," EXP "}", "no text"},
        {"3.2 another audience", "{" SUB ",\"aud\":[\"other\"]," EXP "}", "another audience"},
        {"3.2 another case", "{" SUB ",\"aud\":\"Orders\"," EXP "}", "another audience"},
        {"3.2 a prefix", "{" SUB ",\"aud\":\"order\"," EXP "}", "another audience"},
        {"3.2 longer", "{" SUB ",\"aud\":\"orders2\"," EXP "}", "another audience"},
        {"3.3 no exp", "{" SUB "," AUD "}", "when it ends"},
        {"3.3 exp is a text", "{" SUB "," AUD ",\"exp\":\"1800000300\"}", "no time"},
        {"3.3 exp is null", "{" SUB "," AUD ",\"exp\":null}", "no time"},
        {"3.3 exp is negative", "{" SUB "," AUD ",\"exp\":-1}", "no time"},
        {"3.3 exp is immense", "{" SUB "," AUD ",\"exp\":1e300}", "no time"},
        {"3.3 exp is past counting", "{" SUB "," AUD ",\"exp\":1e999}", "JSON"},
        {"3.3 expired", "{" SUB "," AUD ",\"exp\":1799999990}", "expired"},
        {"nbf is ahead", "{" SUB "," AUD "," EXP ",\"nbf\":1800000011}", "not valid yet"},
        {"nbf is a text", "{" SUB "," AUD "," EXP ",\"nbf\":\"1\"}", "no time"},
        {"iat is a text", "{" SUB "," AUD "," EXP ",\"iat\":\"1\"}", "no time"},
        {"no object", "[]", "not a JSON object"},
        {"not UTF-8", "{" SUB "," AUD "," EXP ",\"a\":\"\xff\"}", "JSON"},
    };
    const struct fixture *f = *state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        refuse_token(f, bad[i].clause, "{\"alg\":\"ES256\",\"kid\":\"k3\",\"typ\":\"JWT\"}",
                     bad[i].claims, bad[i].says);
    }
}

/* What is not signed is not told apart: a wrong signature comes before the claims. */
static void test_signature_before_claims(void **state)
{
    const struct fixture *f = *state;
    char *token = tokens_sign("{\"alg\":\"ES256\",\"kid\":\"k3\"}", "{" SUB ",\"exp\":1}",
                              JWT_ES256, f->stranger);
    refuse(f, "signature first", token, strlen(token), "signature is wrong");
    free(token);
}

static void test_signature(void **state)
{
    const struct fixture *f = *state;
    static const struct {
        const char *clause, *header;
        enum jwt_alg signs, says;
    } mixed[] = {
        {"another digest", "{\"alg\":\"RS256\",\"kid\":\"k0\"}", JWT_RS384, JWT_RS256},
        {"PSS as PKCS 1", "{\"alg\":\"RS256\",\"kid\":\"k0\"}", JWT_PS256, JWT_RS256},
        {"PKCS 1 as PSS", "{\"alg\":\"PS256\",\"kid\":\"k0\"}", JWT_RS256, JWT_PS256},
    };
    for (size_t i = 0; i < sizeof(mixed) / sizeof(mixed[0]); i++) {
        char *token = tokens_sign(mixed[i].header, GOOD, mixed[i].signs, f->keys[JWT_RS256]);
        refuse(f, mixed[i].clause, token, strlen(token), "signature is wrong");
        free(token);
    }
    char *token = tokens_sign("{\"alg\":\"ES256\"}", GOOD, JWT_ES256, f->stranger);
    refuse(f, "a key that nobody knows, no kid", token, strlen(token), "signature is wrong");
    char *sig = strrchr(token, '.') + 1;
    size_t head = (size_t)(sig - token);
    refuse(f, "no signature", token, head, "signature is missing");
    refuse(f, "half a signature", token, head + 40, "signature is wrong");
    free(token);
    /* r and s of zero; the form that X.509 has */
    uint8_t zeros[64] = {0};
    char *z = tokens_base64(zeros, sizeof(zeros));
    char *h = tokens_base64("{\"alg\":\"ES256\"}", 15);
    char *c = tokens_base64(GOOD, strlen(GOOD));
    token = mem_must_printf("%s.%s.%s", h, c, z);
    refuse(f, "zero", token, strlen(token), "signature is wrong");
    free(token);
    char *text = mem_must_printf("%s.%s", h, c);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    uint8_t der[128];
    size_t n = sizeof(der);
    assert_int_equal(
        EVP_DigestSignInit_ex(ctx, NULL, "SHA256", NULL, NULL, f->keys[JWT_ES256], NULL), 1);
    assert_int_equal(EVP_DigestSign(ctx, der, &n, (uint8_t *)text, strlen(text)), 1);
    EVP_MD_CTX_free(ctx);
    char *d = tokens_base64(der, n);
    token = mem_must_printf("%s.%s", text, d);
    refuse(f, "DER", token, strlen(token), "signature is wrong");
    free(token);
    free(d);
    free(text);
    free(z);
    free(h);
    free(c);
}

/* Whatever byte of a good token is another one, it is refused. */
static void test_mutations(void **state)
{
    const struct fixture *f = *state;
    char *token =
        tokens_sign("{\"alg\":\"ES256\",\"kid\":\"k3\"}", GOOD, JWT_ES256, f->keys[JWT_ES256]);
    size_t n = strlen(token);
    for (size_t i = 0; i < n; i++) {
        struct jwt_token *t = NULL;
        char was = token[i];
        token[i] = was == 'A' ? 'B' : 'A';
        assert_int_equal(verify_at(f, token, n, NOW, &t, NULL), -1);
        token[i] = was;
        assert_int_equal(verify_at(f, token, i, NOW, &t, NULL), -1);
    }
    free(token);
}

/* A key name of another domain's bundle does not count, nor do its keys. */
static void test_other_domains_keys(void **state)
{
    const struct fixture *f = *state;
    struct jwt_keys *other = NULL, *empty = NULL;
    struct jwt_token *t = NULL;
    struct err err = ERR_INIT;
    char *set = tokens_set(&f->stranger, 1, NULL);
    assert_int_equal(jwt_keys_parse(str_of(set), false, &other, NULL), 0);
    assert_int_equal(jwt_keys_parse(STR_LIT("{\"keys\":[]}"), false, &empty, NULL), 0);
    const struct jwt_bundle bundles[] = {{STR_LIT("example.com"), f->parsed},
                                         {STR_LIT("example.org"), other},
                                         {STR_LIT("empty.org"), empty}};
    char *token =
        tokens_sign("{\"alg\":\"ES256\",\"kid\":\"k3\"}", GOOD, JWT_ES256, f->keys[JWT_ES256]);
    assert_int_equal(jwt_verify(str_of(token), bundles, 3, STR_LIT("orders"), NOW, &t, &err), -1);
    assert_non_null(strstr(err.what, "not in the trust domain's bundle"));
    free(token);
    token = tokens_sign("{\"alg\":\"ES256\"}", GOOD, JWT_ES256, f->keys[JWT_ES256]);
    assert_int_equal(jwt_verify(str_of(token), bundles, 3, STR_LIT("orders"), NOW, &t, &err), -1);
    assert_int_equal(jwt_verify(str_of(token), bundles, 0, STR_LIT("orders"), NOW, &t, &err), -1);
    assert_int_equal(jwt_verify(str_of(token), bundles, 3, STR_NONE, NOW, &t, &err), -1);
    free(token);
    /* an empty set trusts nothing */
    token = tokens_sign("{\"alg\":\"ES256\"}", "{\"sub\":\"spiffe://empty.org/a\"," AUD "," EXP "}",
                        JWT_ES256, f->keys[JWT_ES256]);
    assert_int_equal(jwt_verify(str_of(token), bundles, 3, STR_LIT("orders"), NOW, &t, &err), -1);
    assert_non_null(strstr(err.what, "no key"));
    free(token);
    free(set);
    jwt_keys_free(other);
    jwt_keys_free(empty);
}

/* --- tokens that are good --------------------------------------------------------------------- */

static void test_nine_algorithms(void **state)
{
    const struct fixture *f = *state;
    for (unsigned i = 0; i < JWT_N_ALGS; i++) {
        char *headers[4];
        char kid[8];
        (void)snprintf(kid, sizeof(kid), "k%u", i);
        headers[0] = mem_must_printf("{\"alg\":\"%s\"}", jwt_alg_name((enum jwt_alg)i));
        headers[1] = mem_must_printf("{\"alg\":\"%s\",\"kid\":\"%s\",\"typ\":\"JWT\"}",
                                     jwt_alg_name((enum jwt_alg)i), kid);
        headers[2] =
            mem_must_printf("{\"typ\":\"JOSE\",\"alg\":\"%s\"}", jwt_alg_name((enum jwt_alg)i));
        headers[3] = mem_must_printf(" { \"kid\" : \"%s\" , \"alg\":\"%s\" } ", kid,
                                     jwt_alg_name((enum jwt_alg)i));
        for (size_t h = 0; h < 4; h++) {
            struct jwt_token *t = NULL;
            struct err err = ERR_INIT;
            char *token = tokens_sign(headers[h], GOOD, (enum jwt_alg)i, f->keys[i]);
            if (verify_at(f, token, strlen(token), NOW, &t, &err) != 0) {
                fail_msg("%s: %s", headers[h], err.what);
            }
            assert_int_equal(t->alg, i);
            assert_string_equal(t->spiffe_id, "spiffe://example.org/web");
            assert_int_equal(t->n_audiences, 2);
            assert_string_equal(t->audiences[1], "orders");
            assert_int_equal(t->expires_s, NOW + 300);
            assert_true(t->not_before_s == INT64_MIN && t->issued_s == INT64_MIN);
            jwt_token_free(t);
            free(token);
            free(headers[h]);
        }
    }
}

static void test_times(void **state)
{
    const struct fixture *f = *state;
    static const struct {
        const char *claims;
        int64_t now_s;
        int want;
    } rows[] = {
        {"{" SUB "," AUD ",\"exp\":1800000000}", NOW + JWT_LEEWAY_S - 1, 0},
        {"{" SUB "," AUD ",\"exp\":1800000000}", NOW + JWT_LEEWAY_S, -1},
        {"{" SUB "," AUD ",\"exp\":1800000000.9}", NOW, 0},
        {"{" SUB "," AUD ",\"exp\":1.8e9}", NOW, 0},
        {"{" SUB "," AUD "," EXP ",\"nbf\":1800000000}", NOW - JWT_LEEWAY_S, 0},
        {"{" SUB "," AUD "," EXP ",\"nbf\":1800000000}", NOW - JWT_LEEWAY_S - 1, -1},
        {"{" SUB ",\"aud\":\"orders\"," EXP ",\"nbf\":0,\"iat\":0,\"jti\":[],\"iss\":{}}", NOW, 0},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct jwt_token *t = NULL;
        char *token =
            tokens_sign("{\"alg\":\"ES256\"}", rows[i].claims, JWT_ES256, f->keys[JWT_ES256]);
        if (verify_at(f, token, strlen(token), rows[i].now_s, &t, NULL) != rows[i].want) {
            fail_msg("row %zu", i);
        }
        jwt_token_free(t);
        free(token);
    }
}

/* --- sets ------------------------------------------------------------------------------------- */
#define X "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU" /* RFC 7517 appendix A.1 */
#define Y "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"
#define EC "\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"" X "\",\"y\":\"" Y "\""

static void test_sets_refused(void **state)
{
    static const struct {
        const char *why, *json, *says;
    } bad[] = {
        {"empty", "", "JSON"},
        {"no object", "[]", "not a JSON object"},
        {"no keys", "{}", "no list 'keys'"},
        {"keys is an object", "{\"keys\":{}}", "no list 'keys'"},
        {"keys twice", "{\"keys\":[],\"keys\":[]}", "JSON"},
        {"something after it", "{\"keys\":[]}x", "JSON"},
        {"a key that is a text", "{\"keys\":[\"EC\"]}", "keys[0]: not an object"},
        {"no kid", "{\"keys\":[{" EC "}]}", "'kid' is missing"},
        {"empty kid", "{\"keys\":[{\"kid\":\"\"," EC "}]}", "'kid' is missing"},
        {"kid twice", "{\"keys\":[{\"kid\":\"a\"," EC "},{\"kid\":\"a\"," EC "}]}", "keys[1]: two"},
        {"no y", "{\"keys\":[{\"kid\":\"a\",\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"" X "\"}]}",
         "'y' is missing"},
        {"padding",
         "{\"keys\":[{\"kid\":\"a\",\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"" X "=\",\"y\":\"" Y
         "\"}]}",
         "not base64url"},
        {"short coordinate",
         "{\"keys\":[{\"kid\":\"a\",\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":"
         "\"AQ\",\"y\":\"" Y "\"}]}",
         "a coordinate of 1 bytes"},
        {"no point",
         "{\"keys\":[{\"kid\":\"a\",\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"" X "\",\"y\":\"" X
         "\"}]}",
         "not a point of P-256"},
        {"another curve's width",
         "{\"keys\":[{\"kid\":\"a\",\"kty\":\"EC\",\"crv\":\"P-384\","
         "\"x\":\"" X "\",\"y\":\"" Y "\"}]}",
         "a coordinate of 32 bytes"},
        {"short RSA key",
         "{\"keys\":[{\"kid\":\"a\",\"kty\":\"RSA\",\"n\":\"AQAB\",\"e\":\"AQAB\"}"
         "]}",
         "size"},
        {"no e", "{\"keys\":[{\"kid\":\"a\",\"kty\":\"RSA\",\"n\":\"AQAB\"}]}", "'e' is missing"},
        {"private key", "{\"keys\":[{\"kid\":\"a\"," EC ",\"d\":\"AQ\"}]}", "private key"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct jwt_keys *keys = NULL;
        struct err err = ERR_INIT;
        char text[1200];
        if (jwt_keys_parse(str_of(bad[i].json), false, &keys, &err) != -1) {
            fail_msg("%s: accepted", bad[i].why);
        }
        assert_null(keys);
        if (strstr(err_text(&err, text, sizeof(text)), bad[i].says) == NULL) {
            fail_msg("%s: says \"%s\"", bad[i].why, text);
        }
    }
}

static void test_sets_skip(void **state)
{
    static const struct {
        const char *json;
        size_t n_loose, n_strict;
    } rows[] = {
        {"{\"keys\":[]}", 0, 0},
        {"{\"keys\":[{}]}", 0, 0},
        {"{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"AA\"}],\"spiffe_sequence\":1}", 0,
         0},
        {"{\"keys\":[{\"kty\":\"oct\",\"k\":\"AA\",\"kid\":\"a\"}]}", 0, 0},
        {"{\"keys\":[{\"kid\":\"a\",\"use\":\"x509-svid\"," EC "}]}", 0, 0},
        {"{\"keys\":[{\"kid\":\"a\",\"use\":\"sig\"," EC "}]}", 0, 0},
        {"{\"keys\":[{\"kid\":\"a\",\"use\":3," EC "}]}", 0, 0},
        {"{\"keys\":[{\"kid\":\"a\",\"alg\":\"HS256\"," EC "}]}", 0, 0},
        {"{\"keys\":[{\"kid\":\"a\",\"kty\":\"EC\",\"crv\":\"secp256k1\"}]}", 0, 0},
        {"{\"keys\":[{\"kid\":\"a\"," EC "}]}", 1, 0},
        {"{\"keys\":[{\"kid\":\"a\",\"use\":\"jwt-svid\"," EC "}]}", 1, 1},
        {"{\"keys\":[{\"kty\":\"x\"},{\"kid\":\"a\",\"use\":\"jwt-svid\",\"alg\":\"ES256\"," EC
         "}]}",
         1, 1},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        for (int strict = 0; strict < 2; strict++) {
            struct jwt_keys *keys = NULL;
            struct err err = ERR_INIT;
            if (jwt_keys_parse(str_of(rows[i].json), strict != 0, &keys, &err) != 0) {
                fail_msg("row %zu: %s", i, err.what);
            }
            assert_int_equal(jwt_keys_count(keys),
                             strict != 0 ? rows[i].n_strict : rows[i].n_loose);
            jwt_keys_free(keys);
        }
    }
}

/* A key whose JWK names an algorithm is for that one alone. */
static void test_key_for_one_algorithm(void **state)
{
    const struct fixture *f = *state;
    struct jwt_keys *keys = NULL;
    struct jwt_token *t = NULL;
    char *set = tokens_set(f->keys, 1, "jwt-svid\",\"alg\":\"PS256");
    assert_int_equal(jwt_keys_parse(str_of(set), true, &keys, NULL), 0);
    const struct jwt_bundle bundle = {STR_LIT("example.org"), keys};
    char *rs = tokens_sign("{\"alg\":\"RS256\",\"kid\":\"k0\"}", GOOD, JWT_RS256, f->keys[0]);
    char *ps = tokens_sign("{\"alg\":\"PS256\",\"kid\":\"k0\"}", GOOD, JWT_PS256, f->keys[0]);
    assert_int_equal(jwt_verify(str_of(rs), &bundle, 1, STR_LIT("orders"), NOW, &t, NULL), -1);
    assert_int_equal(jwt_verify(str_of(ps), &bundle, 1, STR_LIT("orders"), NOW, &t, NULL), 0);
    jwt_token_free(t);
    jwt_keys_free(keys);
    free(set);
    free(rs);
    free(ps);
}

/* --- what we make ----------------------------------------------------------------------------- */

static void test_statements_refused(void **state)
{
    const struct fixture *f = *state;
    char longer[JWT_AUDIENCE_MAX + 1];
    memset(longer, 'a', sizeof(longer));
    const struct {
        const char *why;
        struct str id, audience;
        size_t n;
        int64_t expires_s;
    } bad[] = {
        {"no ID", STR_NONE, STR_LIT("a"), 1, NOW + 1},
        {"no path", STR_LIT("spiffe://example.org"), STR_LIT("a"), 1, NOW + 1},
        {"no audience", STR_LIT("spiffe://example.org/a"), STR_LIT("a"), 0, NOW + 1},
        {"too many", STR_LIT("spiffe://example.org/a"), STR_LIT("a"), JWT_AUDIENCES_MAX + 1,
         NOW + 1},
        {"empty", STR_LIT("spiffe://example.org/a"), STR_NONE, 1, NOW + 1},
        {"long", STR_LIT("spiffe://example.org/a"), {longer, sizeof(longer)}, 1, NOW + 1},
        {"too much", STR_LIT("spiffe://example.org/a"), {longer, sizeof(longer) - 1}, 5, NOW + 1},
        {"control", STR_LIT("spiffe://example.org/a"), STR_LIT("a\nb"), 1, NOW + 1},
        {"NUL", STR_LIT("spiffe://example.org/a"), {"a\0b", 3}, 1, NOW + 1},
        {"half a character", STR_LIT("spiffe://example.org/a"), STR_LIT("\xc3"), 1, NOW + 1},
        {"surrogate", STR_LIT("spiffe://example.org/a"), STR_LIT("\xed\xa0\x80"), 1, NOW + 1},
        {"too long a form", STR_LIT("spiffe://example.org/a"), STR_LIT("\xc0\xaf"), 1, NOW + 1},
        {"above Unicode", STR_LIT("spiffe://example.org/a"), STR_LIT("\xf4\x90\x80\x80"), 1,
         NOW + 1},
        {"ends at once", STR_LIT("spiffe://example.org/a"), STR_LIT("a"), 1, NOW},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct str audiences[JWT_AUDIENCES_MAX + 1];
        char *token = NULL;
        for (size_t a = 0; a < bad[i].n; a++) {
            audiences[a] = bad[i].audience;
        }
        struct jwt_statement what = {.spiffe_id = bad[i].id,
                                     .audiences = audiences,
                                     .n_audiences = bad[i].n,
                                     .issued_s = NOW,
                                     .expires_s = bad[i].expires_s};
        if (jwt_sign(&what, f->keys[JWT_ES256], &token, NULL) != -1) {
            fail_msg("%s: signed", bad[i].why);
        }
        assert_null(token);
    }
    struct str one = STR_LIT("a");
    struct jwt_statement what = {.spiffe_id = STR_LIT("spiffe://example.org/a"),
                                 .audiences = &one,
                                 .n_audiences = 1,
                                 .issued_s = NOW,
                                 .expires_s = NOW + 1};
    char *token = NULL;
    assert_int_equal(jwt_sign(&what, f->keys[JWT_ES512], &token, NULL), -1);
    assert_null(jwt_key_new(JWT_ES512, NULL));
}

static void test_sign_and_verify(void **state)
{
    static const enum jwt_alg algs[] = {JWT_ES256, JWT_ES384, JWT_RS256};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct buf set = BUF_INIT(10000);
        struct jwt_keys *keys = NULL;
        struct jwt_token *t = NULL;
        char kid[JWT_KID_SIZE];
        char *token = NULL;
        EVP_PKEY *key = jwt_key_new(algs[i], NULL);
        enum jwt_alg alg = JWT_N_ALGS;
        const struct str audiences[] = {STR_LIT("a \"quoted\\\" one"),
                                        STR_LIT("\xc3\xa4/\xf0\x9f\x98\x80")};
        const struct jwt_statement what = {.spiffe_id = STR_LIT("spiffe://example.org/web"),
                                           .audiences = audiences,
                                           .n_audiences = 2,
                                           .issued_s = NOW,
                                           .expires_s = NOW + 300,
                                           .jti = {1, 2}};
        assert_true(jwt_key_alg(key, &alg) && alg == algs[i]);
        assert_int_equal(jwt_key_id(key, kid, NULL), 0);
        assert_int_equal(strlen(kid), JWT_KID_SIZE - 1);
        assert_true(buf_append_str(&set, STR_LIT("{\"keys\":[")));
        assert_int_equal(jwt_key_write(key, true, &set, NULL), 0);
        assert_true(buf_append_str(&set, STR_LIT("]}")));
        assert_int_equal(jwt_keys_parse(buf_str(&set), true, &keys, NULL), 0);
        assert_string_equal(jwt_keys_kid(keys, 0), kid);
        assert_int_equal(jwt_sign(&what, key, &token, NULL), 0);
        const struct jwt_bundle bundle = {STR_LIT("example.org"), keys};
        for (size_t a = 0; a < 2; a++) {
            assert_int_equal(jwt_verify(str_of(token), &bundle, 1, audiences[a], NOW, &t, NULL), 0);
            assert_string_equal(t->kid, kid);
            assert_int_equal(t->issued_s, NOW);
            assert_int_equal(json_string_length(json_object_get(t->claims, "jti")), 22);
            t = jwt_token_free(t);
        }
        /* the longest that may be asked for fits a token */
        static char long_id[SPIFFE_ID_MAX + 1], long_aud[JWT_AUDIENCE_MAX];
        struct str many[JWT_AUDIENCES_MAX];
        memset(long_id, 'a', SPIFFE_ID_MAX);
        memcpy(long_id, "spiffe://example.org/", 21);
        memset(long_aud, '"', sizeof(long_aud));
        for (size_t a = 0; a < JWT_AUDIENCES_MAX; a++) {
            many[a] = (struct str){long_aud, JWT_AUDIENCE_BYTES / JWT_AUDIENCES_MAX};
        }
        struct jwt_statement most = what;
        most.spiffe_id = str_of(long_id);
        most.audiences = many;
        most.n_audiences = JWT_AUDIENCES_MAX;
        free(token);
        token = NULL;
        assert_int_equal(jwt_sign(&most, key, &token, NULL), 0);
        assert_true(strlen(token) <= JWT_TOKEN_MAX);
        assert_int_equal(jwt_verify(str_of(token), &bundle, 1, many[0], NOW, &t, NULL), 0);
        jwt_token_free(t);
        free(token);
        jwt_keys_free(keys);
        buf_reset(&set);
        EVP_PKEY_free(key);
    }
}

/* RFC 7638 section 3.1: the one example that it has. */
static void test_thumbprint(void **state)
{
    static const char n[] =
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_"
        "BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_"
        "FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4"
        "vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
    uint8_t *bytes = NULL;
    size_t len = 0;
    char kid[JWT_KID_SIZE];
    EVP_PKEY *key = NULL;
    (void)state;
    assert_true(jwt_base64_decode(str_of(n), &bytes, &len));
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    BIGNUM *modulus = BN_bin2bn(bytes, (int)len, NULL);
    assert_int_equal(OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_N, modulus), 1);
    assert_int_equal(OSSL_PARAM_BLD_push_uint(build, OSSL_PKEY_PARAM_RSA_E, 65537), 1);
    OSSL_PARAM *params = OSSL_PARAM_BLD_to_param(build);
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "RSA", NULL);
    assert_int_equal(EVP_PKEY_fromdata_init(ctx), 1);
    assert_int_equal(EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_PUBLIC_KEY, params), 1);
    assert_int_equal(jwt_key_id(key, kid, NULL), 0);
    assert_string_equal(kid, "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    EVP_PKEY_free(key);
    EVP_PKEY_CTX_free(ctx);
    OSSL_PARAM_free(params);
    OSSL_PARAM_BLD_free(build);
    BN_free(modulus);
    free(bytes);
}

/* Whole bytes, as protoc has them. */
static void test_pack(void **state)
{
    static const struct {
        const char *claims;
        const char *hex;
    } rows[] = {
        /* fields { key: "b" value { bool_value: true } }, and so on */
        {"\"b\":true", "0a070a016212022001"},
        {"\"n\":null", "0a070a016e12020800"},
        {"\"d\":1.5", "0a0e0a0164120911000000000000f83f"},
        {"\"i\":2", "0a0e0a01691209110000000000000040"},
        {"\"s\":\"x\"", "0a080a017312031a0178"},
        {"\"o\":{\"k\":false}", "0a100a016f120b2a090a070a016b12022000"},
        {"\"l\":[true,null]", "0a0f0a016c120a32080a0220010a020800"},
    };
    const struct fixture *f = *state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct jwt_token *t = NULL;
        uint8_t *packed = NULL;
        size_t n = 0;
        char *claims = mem_must_printf("{" SUB ",\"aud\":\"orders\"," EXP ",%s}", rows[i].claims);
        char *token = tokens_sign("{\"alg\":\"ES256\"}", claims, JWT_ES256, f->keys[JWT_ES256]);
        assert_int_equal(verify_at(f, token, strlen(token), NOW, &t, NULL), 0);
        assert_int_equal(jwt_claims_pack(t, &packed, &n, NULL), 0);
        char *hex = mem_must_calloc(2 * n + 1, 1);
        for (size_t b = 0; b < n; b++) {
            (void)snprintf(hex + 2 * b, 3, "%02x", packed[b]);
        }
        if (strstr(hex, rows[i].hex) == NULL) {
            fail_msg("%s: %s is not in %s", rows[i].claims, rows[i].hex, hex);
        }
        /* a single audience is told as a list: 6 ListValue { 1 Value { 3 "orders" } } */
        assert_non_null(strstr(hex, "0a130a03617564120c320a0a081a066f7264657273"));
        free(hex);
        free(packed);
        jwt_token_free(t);
        free(token);
        free(claims);
    }
}

static void test_read_is_not_judging(void **state)
{
    const struct fixture *f = *state;
    struct jwt_token *t = NULL;
    char *token =
        tokens_sign("{\"alg\":\"ES256\"}", "{" SUB "," AUD ",\"exp\":5}", JWT_ES256, f->stranger);
    assert_int_equal(jwt_read(str_of(token), &t, NULL), 0);
    assert_int_equal(t->expires_s, 5);
    char *text = jwt_claims_text(t);
    assert_string_equal(text, "{" SUB "," AUD ",\"exp\":5}");
    free(text);
    jwt_token_free(t);
    free(token);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_base64_refused),
        cmocka_unit_test(test_base64_round),
        cmocka_unit_test(test_form),
        cmocka_unit_test(test_header),
        cmocka_unit_test(test_algorithm_first),
        cmocka_unit_test(test_claims),
        cmocka_unit_test(test_signature_before_claims),
        cmocka_unit_test(test_signature),
        cmocka_unit_test(test_mutations),
        cmocka_unit_test(test_other_domains_keys),
        cmocka_unit_test(test_nine_algorithms),
        cmocka_unit_test(test_times),
        cmocka_unit_test(test_sets_refused),
        cmocka_unit_test(test_sets_skip),
        cmocka_unit_test(test_key_for_one_algorithm),
        cmocka_unit_test(test_statements_refused),
        cmocka_unit_test(test_sign_and_verify),
        cmocka_unit_test(test_thumbprint),
        cmocka_unit_test(test_pack),
        cmocka_unit_test(test_read_is_not_judging),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
