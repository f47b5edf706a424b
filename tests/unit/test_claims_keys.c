/* claims: where keys come from, and what becomes of tokens when they change. docs/claims.md, Keys
 * and attack cases. */
#include <postern/claims.h>

#include <fcntl.h>
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

#define HEAD "{\"alg\":\"ES256\",\"kid\":\"k0\"}"
#define NAMELESS "{\"alg\":\"ES256\"}"
#define REST "\"aud\":\"orders\",\"exp\":1800000300}"
#define OURS "{\"sub\":\"spiffe://example.org/a\"," REST
#define THEIRS "{\"sub\":\"spiffe://partner.example/a\"," REST
#define IDP "{\"iss\":\"https://idp\",\"sub\":\"x\"," REST

/* Two trust domains by the agent, and an issuer by a file. */
struct fixture {
    EVP_PKEY *ours, *theirs, *idp;
    char *sets[3]; /* of each of them; the key is called k0 everywhere */
    char path[40];
    struct conf_jwt items[3];
    struct claims_keys *keys;
    struct claims_cache *cache;
};

static char orders[] = "orders", example[] = "example.org", partner[] = "partner.example",
            idp[] = "https://idp";
static char *audience[] = {orders};

static void write_file(const struct fixture *f, const char *text)
{
    int fd = open(f->path, O_WRONLY | O_TRUNC);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

static int setup(void **state)
{
    struct fixture *f = mem_must_new(struct fixture);
    jwt_init();
    f->ours = tokens_key(JWT_ES256);
    f->theirs = tokens_key(JWT_ES256);
    f->idp = tokens_key(JWT_ES256);
    f->sets[0] = tokens_set(&f->ours, 1, NULL);
    f->sets[1] = tokens_set(&f->theirs, 1, "jwt-svid");
    f->sets[2] = tokens_set(&f->idp, 1, "sig");
    snprintf(f->path, sizeof(f->path), "/tmp/claims-keys-XXXXXX");
    int fd = mkstemp(f->path);
    assert_true(fd >= 0);
    close(fd);
    write_file(f, f->sets[2]);
    f->items[0] = (struct conf_jwt){.trust_domain = example, .bundle = true};
    f->items[1] = (struct conf_jwt){.trust_domain = partner, .bundle = true};
    f->items[2] = (struct conf_jwt){.issuer = idp, .jwks_file = f->path};
    for (int i = 0; i < 3; i++) {
        f->items[i].audiences = (struct conf_strings){audience, 1};
    }
    assert_int_equal(claims_keys_load(&(struct conf_jwts){f->items, 3}, &f->keys, NULL), 0);
    f->cache = claims_cache_new();
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    claims_cache_free(f->cache);
    claims_keys_unref(f->keys);
    unlink(f->path);
    for (int i = 0; i < 3; i++) {
        free(f->sets[i]);
    }
    EVP_PKEY_free(f->ours);
    EVP_PKEY_free(f->theirs);
    EVP_PKEY_free(f->idp);
    free(f);
    return 0;
}

/* The agent tells these two, each may be NULL. */
static void tell(struct fixture *f, const char *ours, const char *theirs)
{
    struct jwt_key_set items[2];
    struct jwt_key_sets sets = {items, 0};
    if (ours != NULL) {
        items[sets.n++] = (struct jwt_key_set){str_of(example), str_of(ours)};
    }
    if (theirs != NULL) {
        items[sets.n++] = (struct jwt_key_set){str_of(partner), str_of(theirs)};
    }
    struct claims_keys *next = claims_keys_told(f->keys, &sets);
    claims_keys_unref(f->keys);
    f->keys = next;
}

/* says NULL: it holds. */
static void judge_token(struct fixture *f, const char *claims, const char *token, const char *says)
{
    char room[3000];
    struct err err = ERR_INIT;
    struct claims *c = NULL;
    int n = snprintf(room, sizeof(room), "Bearer %s", token);
    const struct policy_header h = {STR_LIT("authorization"), {room, (size_t)n}};
    const struct policy_headers headers = {1, &h};
    int r = claims_look(f->cache, f->keys, &headers, NOW, &c, &err);
    if (says == NULL && (r != 0 || c == NULL)) {
        fail_msg("%s: %s", claims, err.what);
    }
    if (says != NULL && (r != -1 || strstr(err.what, says) == NULL)) {
        fail_msg("%s: said \"%s\", not \"%s\"", claims, r == 0 ? "yes" : err.what, says);
    }
    claims_unref(c);
}

static void judge(struct fixture *f, const char *header, const char *claims, EVP_PKEY *key,
                  const char *says)
{
    char *token = tokens_sign(header, claims, JWT_ES256, key);
    judge_token(f, claims, token, says);
    free(token);
}

/* --- what the agent tells --------------------------------------------------------------------- */
static void test_nothing_told(void **state)
{
    struct fixture *f = *state;
    judge(f, HEAD, OURS, f->ours, "there are no keys of trust domain 'example.org'");
    judge(f, HEAD, THEIRS, f->theirs, "there are no keys of trust domain 'partner.example'");
    judge(f, HEAD, IDP, f->idp, NULL); /* its file is there */
    tell(f, NULL, f->sets[1]);
    judge(f, HEAD, OURS, f->ours, "there are no keys of trust domain 'example.org'");
    judge(f, HEAD, OURS, f->theirs, "there are no keys of trust domain 'example.org'");
    judge(f, HEAD, THEIRS, f->theirs, NULL);
    tell(f, "{\"keys\":[]}", NULL); /* is known, and verifies nothing */
    judge(f, HEAD, OURS, f->ours, "is not in the trust domain's bundle");
}

static void test_each_its_own(void **state)
{
    struct fixture *f = *state;
    tell(f, f->sets[0], f->sets[1]);
    judge(f, HEAD, OURS, f->ours, NULL);
    judge(f, HEAD, THEIRS, f->theirs, NULL);
    judge(f, HEAD, OURS, f->theirs, "the signature is wrong"); /* keys of one name */
    judge(f, NAMELESS, OURS, f->theirs, "the signature is wrong");
    judge(f, HEAD, THEIRS, f->ours, "the signature is wrong");
    judge(f, HEAD, OURS, f->idp, "the signature is wrong");
    judge(f, HEAD, "{\"sub\":\"spiffe://other.example/a\"," REST, f->ours, "of nobody");
    judge(f, HEAD, "{\"sub\":\"spiffe://example.org/a\",\"exp\":1800000300}", f->ours,
          "the audience is missing");
    judge(f, "{\"alg\":\"none\",\"kid\":\"k0\"}", OURS, f->ours, "the algorithm is not one");
    judge(f, "{\"alg\":\"HS256\",\"kid\":\"k0\"}", OURS, f->ours, "the algorithm is not one");
}

/* Who is who in a trust domain is not for an issuer to say. */
static void test_issuers_subject(void **state)
{
    struct fixture *f = *state;
    tell(f, f->sets[0], f->sets[1]);
    judge(f, HEAD, "{\"iss\":\"https://idp\",\"sub\":\"spiffe://example.org/a\"," REST, f->idp,
          "an issuer's token for a SPIFFE ID of 'example.org'");
    judge(f, HEAD, "{\"iss\":\"https://idp\",\"sub\":\"spiffe://elsewhere.example/a\"," REST,
          f->idp, NULL);
}

static void test_withdrawn(void **state)
{
    struct fixture *f = *state;
    EVP_PKEY *next = tokens_key(JWT_ES256);
    char *set = tokens_set(&next, 1, NULL);
    char *token = tokens_sign(HEAD, OURS, JWT_ES256, f->ours);
    tell(f, f->sets[0], NULL);
    judge_token(f, OURS, token, NULL);
    judge_token(f, OURS, token, NULL);
    assert_int_equal(claims_cache_count(f->cache), 1); /* it is remembered */
    tell(f, set, NULL);
    judge_token(f, OURS, token, "the signature is wrong");
    judge(f, HEAD, OURS, next, NULL);
    tell(f, NULL, NULL);
    judge(f, HEAD, OURS, next, "there are no keys");
    tell(f, f->sets[0], NULL);
    judge_token(f, OURS, token, NULL);
    free(token);
    free(set);
    EVP_PKEY_free(next);
}

/* The same again is the same, so that nobody is judged again for it. */
static void test_equal(void **state)
{
    struct fixture *f = *state;
    tell(f, f->sets[0], f->sets[1]);
    struct claims_keys *before = claims_keys_ref(f->keys);
    tell(f, f->sets[0], f->sets[1]);
    assert_true(claims_keys_equal(before, f->keys));
    tell(f, f->sets[0], NULL);
    assert_false(claims_keys_equal(before, f->keys));
    tell(f, f->sets[1], f->sets[0]);
    assert_false(claims_keys_equal(before, f->keys));
    assert_false(claims_keys_equal(before, NULL));
    assert_true(claims_keys_equal(NULL, NULL));
    claims_keys_unref(before);
}

/* --- files ------------------------------------------------------------------------------------ */
static void test_file_again(void **state)
{
    struct fixture *f = *state;
    struct claims_keys *next = NULL;
    struct claims_entry e;
    struct err err = ERR_INIT;
    EVP_PKEY *other = tokens_key(JWT_ES256);
    char *set = tokens_set(&other, 1, "sig");
    tell(f, f->sets[0], f->sets[1]);
    write_file(f, "{\"keys\":[");
    assert_int_equal(claims_keys_read_again(f->keys, 2, &next, &err), -1);
    assert_string_equal(err.where, f->path);
    assert_null(next);
    judge(f, HEAD, IDP, f->idp, NULL);
    write_file(f, set);
    assert_int_equal(claims_keys_read_again(f->keys, 2, &next, &err), 0);
    claims_keys_unref(f->keys);
    f->keys = next;
    judge(f, HEAD, IDP, f->idp, "the signature is wrong");
    judge(f, HEAD, IDP, other, NULL);
    judge(f, HEAD, OURS, f->ours, NULL); /* what the agent told stays */
    claims_keys_entry(f->keys, 2, &e);
    assert_string_equal(e.file, f->path);
    assert_int_equal(e.n_keys, 1);
    const struct file_mark now = file_mark_now(f->path);
    assert_true(file_mark_same(&e.mark, &now));
    claims_keys_entry(f->keys, 0, &e);
    assert_null(e.file);
    assert_true(e.known);
    free(set);
    EVP_PKEY_free(other);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_nothing_told), TEST(test_each_its_own), TEST(test_issuers_subject),
        TEST(test_withdrawn),    TEST(test_equal),        TEST(test_file_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
