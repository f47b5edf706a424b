/* Tokens and key sets as an agent sends them: what is refused, what is taken. */
#include "rotate_priv.h"

#include "tokens.h"
#include <postern/proto.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define NOW INT64_C(1767225600)
#define WEB "spiffe://example.org/web"

/* A JWTSVIDResponse with one token of these claims; the caller's to free. */
static struct str answer(const char *claims)
{
    EVP_PKEY *key = tokens_key(JWT_ES256);
    char *token = tokens_sign("{\"alg\":\"ES256\",\"kid\":\"k\"}", claims, JWT_ES256, key);
    char id[] = WEB;
    Workload__JWTSVID svid;
    Workload__JWTSVID *list[] = {&svid};
    Workload__JWTSVIDResponse m;
    workload__jwtsvid__init(&svid);
    workload__jwtsvidresponse__init(&m);
    svid.spiffe_id = id;
    svid.svid = token;
    m.svids = list;
    m.n_svids = 1;
    size_t n = workload__jwtsvidresponse__get_packed_size(&m);
    uint8_t *packed = mem_must_calloc(1, n);
    workload__jwtsvidresponse__pack(&m, packed);
    free(token);
    EVP_PKEY_free(key);
    return (struct str){(const char *)packed, n};
}

static int read_claims(const char *claims, const char *wanted, struct rotate_token_text *ret,
                       struct err *err)
{
    char a[] = "a";
    char b[] = "b";
    char *items[] = {a, b};
    const struct conf_strings audience = {items, 2};
    struct str message = answer(claims);
    int rc = rotate_read_token(message, wanted, &audience, NOW, ret, err);
    free((char *)(uintptr_t)message.p);
    return rc;
}

static void test_bad_tokens(void **state)
{
    static const struct {
        const char *claims, *said;
    } bad[] = {
        {"{\"sub\":\"" WEB "\",\"aud\":[\"a\",\"b\"],\"exp\":1767225600}", "has ended"},
        {"{\"sub\":\"" WEB "\",\"aud\":[\"a\"],\"exp\":1767225900}", "is not for 'b'"},
        {"{\"sub\":\"" WEB "\",\"aud\":[\"c\"],\"exp\":1767225900}", "is not for 'a'"},
        {"{\"sub\":\"spiffe://example.org/other\",\"aud\":[\"a\",\"b\"],\"exp\":1767225900}",
         "instead of"},
        {"{\"sub\":\"somebody\",\"aud\":[\"a\",\"b\"],\"exp\":1767225900}", "JWTSVIDResponse"},
        {"{\"sub\":\"" WEB "\",\"aud\":[\"a\",\"b\"]}", "JWTSVIDResponse"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct rotate_token_text text = {0};
        struct err err = ERR_INIT;
        assert_int_equal(read_claims(bad[i].claims, WEB, &text, &err), -1);
        if (strstr(err.what, bad[i].said) == NULL) {
            fail_msg("%s: %s", bad[i].claims, err.what);
        }
        assert_null(text.text);
    }
    struct rotate_token_text text = {0};
    struct err err = ERR_INIT;
    const struct conf_strings none = {0};
    assert_int_equal(rotate_read_token(STR_LIT("\xff"), NULL, &none, NOW, &text, &err), -1);
    assert_non_null(strstr(err.what, "cannot be decoded"));
    assert_int_equal(rotate_read_token(STR_NONE, NULL, &none, NOW, &text, &err), -1);
    assert_non_null(strstr(err.what, "no token"));
}

static void test_good_token(void **state)
{
    const char *claims = "{\"sub\":\"" WEB "\",\"aud\":[\"b\",\"a\"],\"exp\":1767225900}";
    struct rotate_token_text text = {0};
    (void)state;
    assert_int_equal(read_claims(claims, WEB, &text, NULL), 0);
    assert_string_equal(text.spiffe_id, WEB);
    assert_int_equal(text.ends_s, NOW + 300);
    assert_int_equal(strncmp(text.text, "ey", 2), 0);
    rotate_token_text_reset(&text);
    assert_int_equal(read_claims(claims, NULL, &text, NULL), 0);
    rotate_token_text_reset(&text);
}

/* --- key sets ----------------------------------------------------------------------------------
 */
static struct str key_sets(const char *const (*pairs)[2], size_t n)
{
    Workload__JWTBundlesResponse m;
    Workload__JWTBundlesResponse__BundlesEntry entries[4];
    Workload__JWTBundlesResponse__BundlesEntry *list[4];
    workload__jwtbundles_response__init(&m);
    for (size_t i = 0; i < n; i++) {
        workload__jwtbundles_response__bundles_entry__init(&entries[i]);
        entries[i].key = (char *)(uintptr_t)pairs[i][0];
        entries[i].value.data = (uint8_t *)(uintptr_t)pairs[i][1];
        entries[i].value.len = strlen(pairs[i][1]);
        list[i] = &entries[i];
    }
    m.bundles = list;
    m.n_bundles = n;
    size_t len = workload__jwtbundles_response__get_packed_size(&m);
    uint8_t *packed = mem_must_calloc(1, len + 1);
    workload__jwtbundles_response__pack(&m, packed);
    return (struct str){(const char *)packed, len};
}

static void test_key_sets(void **state)
{
    static const char *const mixed[][2] = {{"spiffe://a.org", "{\"keys\":[]}"},
                                           {"spiffe://b.org/path", "{\"keys\":[]}"},
                                           {"c.org", "{\"keys\":[]}"},
                                           {"spiffe://d.org", "{\"keys\":7}"}};
    static const char *const two[][2] = {{"spiffe://a.org", "{\"keys\":[]}"},
                                         {"spiffe://b.org", "{\"keys\":[]}"}};
    static const char *const turned[][2] = {{"spiffe://b.org", "{\"keys\":[]}"},
                                            {"spiffe://a.org", "{\"keys\":[]}"}};
    struct jwt_key_sets sets = {0};
    struct jwt_key_sets others = {0};
    struct err warning = ERR_INIT;
    struct err err = ERR_INIT;
    (void)state;
    assert_int_equal(rotate_read_key_sets(STR_LIT("\xff"), &sets, &warning, &err), -1);
    assert_int_equal(rotate_read_key_sets(STR_NONE, &sets, &warning, &err), -1);
    struct str message = key_sets(mixed + 1, 3);
    assert_int_equal(rotate_read_key_sets(message, &sets, &warning, &err), -1);
    free((char *)(uintptr_t)message.p);
    message = key_sets(mixed, 4);
    assert_int_equal(rotate_read_key_sets(message, &sets, &warning, &err), 0);
    free((char *)(uintptr_t)message.p);
    assert_int_equal(sets.n, 1);
    assert_true(str_eq(sets.items[0].trust_domain, STR_LIT("a.org")));
    assert_int_not_equal(warning.code, ERR_NONE);
    jwt_key_sets_reset(&sets);
    /* The same in another order is the same. */
    message = key_sets(two, 2);
    assert_int_equal(rotate_read_key_sets(message, &sets, &warning, &err), 0);
    free((char *)(uintptr_t)message.p);
    message = key_sets(turned, 2);
    assert_int_equal(rotate_read_key_sets(message, &others, &warning, &err), 0);
    free((char *)(uintptr_t)message.p);
    assert_true(jwt_key_sets_equal(&sets, &others));
    jwt_key_sets_reset(&others);
    assert_false(jwt_key_sets_equal(&sets, &others));
    jwt_key_sets_reset(&sets);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_tokens),
        cmocka_unit_test(test_good_token),
        cmocka_unit_test(test_key_sets),
    };
    jwt_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
