/* The bytes of a set: each kind of file as others read it; what a set says of itself. */
#include "rotate_priv.h"

#include "rotate_world.h"
#include <openssl/pem.h>
#include <openssl/pkcs12.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static int setup(void **state)
{
    *state = rotate_world_new();
    return 0;
}

static int teardown(void **state)
{
    rotate_world_free(*state);
    return 0;
}

/* One file, made. */
struct made {
    struct conf_rotate *conf;
    struct rotate_files *files;
    struct rotate_file file;
};

static struct made make(struct rotate_world *w, const char *file, const char *more)
{
    char text[1000];
    struct made m;
    snprintf(text, sizeof(text), "{name: a, directory: DIR/out, files: [{name: f, %s}]%s}", file,
             more);
    m.conf = rotate_world_conf(w, text);
    m.files = rotate_world_files(w, &m.conf->outputs[0], "secret words");
    m.file = rotate_files_get(m.files, 0);
    return m;
}

static void unmake(struct made *m)
{
    rotate_files_free(m->files);
    conf_rotate_free(m->conf);
}

/* The certificates of a PEM text, in order; the caller's. */
static STACK_OF(X509) * certs_of(const struct rotate_file *f)
{
    STACK_OF(X509) *list = sk_X509_new_null();
    BIO *bio = BIO_new_mem_buf(f->data, (int)f->len);
    X509 *cert;
    while ((cert = PEM_read_bio_X509(bio, NULL, NULL, NULL)) != NULL) {
        sk_X509_push(list, cert);
    }
    BIO_free(bio);
    return list;
}

static void expect_certs(struct rotate_world *w, const char *file, const char *more,
                         X509 *const *want, int n)
{
    struct made m = make(w, file, more);
    STACK_OF(X509) *list = certs_of(&m.file);
    assert_false(m.file.secret);
    if (sk_X509_num(list) != n) {
        fail_msg("%s%s: %d certificates instead of %d", file, more, sk_X509_num(list), n);
    }
    for (int i = 0; i < n; i++) {
        assert_int_equal(X509_cmp(sk_X509_value(list, i), want[i]), 0);
    }
    sk_X509_pop_free(list, X509_free);
    unmake(&m);
}

static EVP_PKEY *key_of(const struct rotate_file *f)
{
    BIO *bio = BIO_new_mem_buf(f->data, (int)f->len);
    EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL);
    BIO_free(bio);
    return key;
}

static bool begins(const struct rotate_file *f, const char *text)
{
    return f->len >= strlen(text) && memcmp(f->data, text, strlen(text)) == 0;
}

/* --- PEM ---------------------------------------------------------------------------------------
 */
static void test_certificates(void **state)
{
    struct rotate_world *w = *state;
    rotate_world_renew(w, CERTS_P256, true);
    X509 *leaf = w->svid->leaf;
    X509 *chain[] = {leaf, w->mid.cert};
    X509 *other_first[] = {w->root.cert, w->foreign.cert};
    X509 *with_expired[] = {w->root.cert, w->expired.cert};
    X509 *with_mid[] = {w->root.cert, w->mid.cert};
    expect_certs(w, "what: chain", "", chain, 2);
    expect_certs(w, "what: leaf", "", chain, 1);
    expect_certs(w, "what: intermediates", "", &w->mid.cert, 1);
    expect_certs(w, "what: bundle", "", &w->root.cert, 1);
    expect_certs(w, "what: bundle, add_intermediates: true", "", with_mid, 2);
    expect_certs(w, "what: bundle, trust: federated", "", &w->foreign.cert, 1);
    expect_certs(w, "what: bundle, trust: all", "", other_first, 2);
    expect_certs(w, "what: bundle, trust_domain: other.org", "", &w->foreign.cert, 1);
    expect_certs(w, "what: bundle", ", omit_expired: false", with_expired, 2);
    rotate_world_renew(w, CERTS_P256, false);
    expect_certs(w, "what: intermediates", "", NULL, 0);
}

static void test_keys(void **state)
{
    struct rotate_world *w = *state;
    static const struct {
        enum certs_key key;
        const char *file, *begins;
    } cases[] = {
        {CERTS_P256, "what: key", "-----BEGIN PRIVATE KEY-----\n"},
        {CERTS_P256, "what: key, encoding: sec1", "-----BEGIN EC PRIVATE KEY-----\n"},
        {CERTS_P384, "what: key, encoding: sec1", "-----BEGIN EC PRIVATE KEY-----\n"},
        {CERTS_RSA2048, "what: key", "-----BEGIN PRIVATE KEY-----\n"},
        {CERTS_RSA2048, "what: key, encoding: sec1", "-----BEGIN RSA PRIVATE KEY-----\n"},
        {CERTS_ED25519, "what: key", "-----BEGIN PRIVATE KEY-----\n"},
        {CERTS_P256, "what: combined, order: key-first", "-----BEGIN PRIVATE KEY-----\n"},
        {CERTS_P256, "what: combined", "-----BEGIN CERTIFICATE-----\n"},
        {CERTS_P384, "what: combined, encoding: sec1, order: key-first",
         "-----BEGIN EC PRIVATE KEY-----\n"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        rotate_world_renew(w, cases[i].key, true);
        struct made m = make(w, cases[i].file, "");
        EVP_PKEY *key = key_of(&m.file);
        assert_true(m.file.secret);
        assert_non_null(key);
        assert_int_equal(EVP_PKEY_eq(key, w->svid->key), 1);
        if (!begins(&m.file, cases[i].begins)) {
            fail_msg("%s: %.40s", cases[i].file, (const char *)m.file.data);
        }
        STACK_OF(X509) *list = certs_of(&m.file);
        assert_int_equal(sk_X509_num(list), strstr(cases[i].file, "combined") != NULL ? 2 : 0);
        sk_X509_pop_free(list, X509_free);
        EVP_PKEY_free(key);
        unmake(&m);
    }
}

/* --- what cannot be made -----------------------------------------------------------------------
 */
static void refuse(struct rotate_world *w, const char *file, enum err_code code, const char *part)
{
    char text[1000];
    struct rotate_files *files = NULL;
    struct err err = ERR_INIT;
    snprintf(text, sizeof(text), "{name: a, directory: DIR/out, files: [{name: f, %s}]}", file);
    struct conf_rotate *conf = rotate_world_conf(w, text);
    const struct jwt_key_set sets[] = {{STR_LIT("example.org"), STR_LIT("{\"keys\":[]}")},
                                       {STR_LIT("more.org"), STR_LIT("{\"keys\":[]}")}};
    const struct rotate_material m = {.x509 = &w->state,
                                      .key_sets = sets,
                                      .n_key_sets = 2,
                                      .spiffe_id = w->svid->spiffe_id,
                                      .passphrase = "",
                                      .now_s = CERTS_NOW};
    assert_int_equal(rotate_files_new(&conf->outputs[0], &m, &files, &err), -1);
    assert_null(files);
    if (err.code != code || strstr(err.what, part) == NULL) {
        fail_msg("%s: %s", file, err.what);
    }
    conf_rotate_free(conf);
}

static void test_what_is_not_there(void **state)
{
    struct rotate_world *w = *state;
    refuse(w, "what: bundle, trust_domain: third.org", ERR_UNAVAILABLE,
           "no bundle of trust domain");
    refuse(w, "what: truststore, trust_domain: third.org", ERR_UNAVAILABLE, "no bundle");
    refuse(w, "what: jwks, trust_domain: other.org", ERR_UNAVAILABLE, "no key set of trust domain");
    rotate_world_renew(w, CERTS_ED25519, false);
    refuse(w, "what: key, encoding: sec1", ERR_UNSUPPORTED, "no form but PKCS#8");
}

/* --- PKCS#12 -----------------------------------------------------------------------------------
 */
static PKCS12 *store_of(const struct rotate_file *f, const char *passphrase)
{
    const uint8_t *p = f->data;
    PKCS12 *p12 = d2i_PKCS12(NULL, &p, (long)f->len);
    assert_non_null(p12);
    assert_ptr_equal(p, f->data + f->len);
    assert_int_equal(PKCS12_verify_mac(p12, "other words", -1), 0);
    assert_int_equal(PKCS12_verify_mac(p12, passphrase, -1), 1);
    return p12;
}

static void test_pkcs12(void **state)
{
    struct rotate_world *w = *state;
    static const enum certs_key keys[] = {CERTS_P256, CERTS_RSA2048, CERTS_ED25519};
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        EVP_PKEY *key = NULL;
        X509 *leaf = NULL;
        STACK_OF(X509) *rest = NULL;
        rotate_world_renew(w, keys[i], true);
        struct made m = make(w, "what: pkcs12", ", passphrase_file: p");
        assert_true(m.file.secret);
        PKCS12 *p12 = store_of(&m.file, "secret words");
        assert_int_equal(PKCS12_parse(p12, "secret words", &key, &leaf, &rest), 1);
        assert_int_equal(EVP_PKEY_eq(key, w->svid->key), 1);
        assert_int_equal(X509_cmp(leaf, w->svid->leaf), 0);
        assert_int_equal(sk_X509_num(rest), 1);
        assert_int_equal(X509_cmp(sk_X509_value(rest, 0), w->mid.cert), 0);
        EVP_PKEY_free(key);
        X509_free(leaf);
        sk_X509_pop_free(rest, X509_free);
        PKCS12_free(p12);
        unmake(&m);
    }
}

static void test_truststore(void **state)
{
    struct rotate_world *w = *state;
    EVP_PKEY *key = NULL;
    X509 *leaf = NULL;
    STACK_OF(X509) *all = NULL;
    struct made m = make(w, "what: truststore, trust: all", ", passphrase_file: p");
    assert_false(m.file.secret);
    PKCS12 *p12 = store_of(&m.file, "secret words");
    assert_int_equal(PKCS12_parse(p12, "secret words", &key, &leaf, &all), 1);
    assert_true(key == NULL && leaf == NULL);
    assert_int_equal(sk_X509_num(all), 2);
    sk_X509_pop_free(all, X509_free);
    PKCS12_free(p12);
    unmake(&m);
}

/* --- tokens and key sets -----------------------------------------------------------------------
 */
static void test_tokens(void **state)
{
    struct rotate_world *w = *state;
    struct made m = make(w, "what: jwt, audience: [a]", "");
    assert_true(m.file.secret);
    assert_true(m.file.len == strlen("a.token.text") && begins(&m.file, "a.token.text"));
    assert_int_equal(rotate_files_set(m.files)->n_parts, 2);
    assert_string_equal(rotate_files_set(m.files)->parts[1].file, "f");
    unmake(&m);
    m = make(w, "what: jwks", "");
    assert_false(m.file.secret);
    assert_true(begins(&m.file, "{\"keys\":[]}"));
    unmake(&m);
}

/* As spiffe-helper writes them: what reads its file reads this one. */
static void test_key_sets_by_domain(void **state)
{
    static const char all[] =
        "{\"example.org\":\"eyJrZXlzIjpbXX0=\",\"more.org\":\"eyJhIjoxfQ==\"}";
    const struct jwt_key_set sets[] = {{STR_LIT("example.org"), STR_LIT("{\"keys\":[]}")},
                                       {STR_LIT("more.org"), STR_LIT("{\"a\":1}")}};
    const struct rotate_material m = {
        .key_sets = sets, .n_key_sets = 2, .passphrase = "", .now_s = CERTS_NOW};
    struct conf_rotate *conf = rotate_world_conf(
        *state, "{name: a, directory: DIR/out, files: [{name: f, what: jwt-bundles}]}");
    struct rotate_files *files = NULL;
    struct err err = ERR_INIT;
    assert_int_equal(rotate_files_new(&conf->outputs[0], &m, &files, &err), 0);
    struct rotate_file f = rotate_files_get(files, 0);
    assert_false(f.secret);
    assert_true(f.len == strlen(all) && begins(&f, all));
    rotate_files_free(files);
    conf_rotate_free(conf);
}

/* --- what a set says ---------------------------------------------------------------------------
 */
static struct rotate_set set_of(int64_t begins_s, int64_t ends_s)
{
    return (struct rotate_set){.n_parts = 1, .parts = {{.begins_s = begins_s, .ends_s = ends_s}}};
}

static void test_freshness(void **state)
{
    static const struct {
        int64_t begins_s, ends_s, now_s;
        enum rotate_freshness want;
        int64_t next_s;
    } cases[] = {
        {1000, 2000, 1000, ROTATE_FRESH, 1800},
        {1000, 2000, 1799, ROTATE_FRESH, 1800},
        {1000, 2000, 1800, ROTATE_STALE, 2000},
        {1000, 2000, 1999, ROTATE_STALE, 2000},
        {1000, 2000, 2000, ROTATE_EXPIRED, INT64_MAX},
        {1000, 2000, 9000, ROTATE_EXPIRED, INT64_MAX},
        {1000, 2000, 10, ROTATE_FRESH, 1800},
        {2000, 1000, 500, ROTATE_FRESH, 1000},
        {2000, 1000, 1000, ROTATE_EXPIRED, INT64_MAX},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct rotate_set set = set_of(cases[i].begins_s, cases[i].ends_s);
        assert_int_equal(rotate_set_judge(&set, 20, cases[i].now_s), cases[i].want);
        assert_int_equal(rotate_set_next_change_s(&set, 20, cases[i].now_s), cases[i].next_s);
    }
    struct rotate_set none = {0};
    assert_int_equal(rotate_set_judge(&none, 20, 1), ROTATE_FRESH);
    assert_int_equal(rotate_set_ends_s(&none), 0);
    /* The earliest of several. */
    struct rotate_set two = set_of(1000, 2000);
    two.parts[two.n_parts++] = (struct rotate_part){.begins_s = 1000, .ends_s = 1500};
    assert_int_equal(rotate_set_ends_s(&two), 1500);
    assert_int_equal(rotate_set_judge(&two, 20, 1450), ROTATE_STALE);
    assert_int_equal(rotate_set_judge(&two, 20, 1500), ROTATE_EXPIRED);
}

static void test_set_comes_back(void **state)
{
    struct rotate_world *w = *state;
    struct made m = make(w, "what: key", "");
    struct rotate_set set = *rotate_files_set(m.files);
    struct rotate_set back;
    struct buf text = BUF_INIT(65536);
    set.generation = 17;
    set.written_s = CERTS_NOW;
    assert_true(rotate_set_write(&set, &text));
    assert_int_equal(rotate_set_parse(buf_str(&text), &back, NULL), 0);
    assert_memory_equal(&back, &set, sizeof(set));
    assert_true(back.has_leaf && back.generation == 17);
    assert_string_equal(back.spiffe_id, "spiffe://example.org/web");
    buf_reset(&text);
    unmake(&m);
}

static void test_bad_sets(void **state)
{
    static const char *const bad[] = {
        "",
        "{}",
        "[]",
        "null",
        "{\"version\":2}",
        "{\"version\":1}",
        "{\"version\":1,\"generation\":-1,\"written\":1,\"spiffe_id\":\"\",\"parts\":[]}",
        "{\"version\":1,\"generation\":1,\"written\":1,\"spiffe_id\":7,\"parts\":[]}",
        "{\"version\":1,\"generation\":1,\"written\":1,\"spiffe_id\":\"\",\"parts\":{}}",
        "{\"version\":1,\"generation\":1,\"written\":1,\"spiffe_id\":\"\",\"parts\":[7]}",
        "{\"version\":1,\"generation\":1,\"written\":1,\"spiffe_id\":\"\",\"parts\":[{\"file\":"
        "\"\","
        "\"begins\":1,\"ends\":9000000000000000}]}",
        "{\"version\":1,\"generation\":1,\"written\":1,\"spiffe_id\":\"\",\"parts\":[],"
        "\"leaf_sha256\":\"00\",\"serial\":\"1\"}",
        "{\"version\":1,\"generation\":1,\"generation\":2,\"written\":1,\"spiffe_id\":\"\","
        "\"parts\":[]}",
    };
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct rotate_set set;
        struct err err = ERR_INIT;
        assert_int_equal(rotate_set_parse(str_of(bad[i]), &set, &err), -1);
        assert_int_equal(err.code, ERR_PROTOCOL);
    }
}

/* --- what is on disk ---------------------------------------------------------------------------
 */
static void test_published(void **state)
{
    struct rotate_world *w = *state;
    struct rotate_set *set = mem_must_new(struct rotate_set);
    struct err err = ERR_INIT;
    char path[200];
    uint64_t generation = 0;
    struct conf_rotate *conf = rotate_world_conf(
        w, "{name: a, directory: DIR/out, files: [{name: c, what: chain}, {name: k, what: key}]}");
    const struct conf_rotate_output *o = &conf->outputs[0];
    assert_int_equal(rotate_published_read(o, 20, CERTS_NOW, set, &err), ROTATE_MISSING);
    struct rotate_dir *d = rotate_dir_open(o, NULL);
    assert_int_equal(rotate_published_read(o, 20, CERTS_NOW, set, &err), ROTATE_MISSING);
    assert_non_null(strstr(err.what, "nothing was written yet"));
    struct rotate_files *files = rotate_world_files(w, o, "");
    assert_int_equal(rotate_dir_publish(d, files, CERTS_NOW * 1000, &generation, NULL), 0);
    assert_int_equal(rotate_published_read(o, 20, CERTS_NOW, set, &err), ROTATE_FRESH);
    assert_int_equal(set->generation, 1);
    assert_int_equal(rotate_published_read(o, 20, w->svid->not_after_s - 1, set, &err),
                     ROTATE_STALE);
    assert_int_equal(rotate_published_read(o, 20, w->svid->not_after_s, set, &err), ROTATE_EXPIRED);
    /* A key for everybody; another certificate; no key; a link elsewhere. */
    snprintf(path, sizeof(path), "%s/out/k", w->dir);
    assert_int_equal(chmod(path, 0644), 0);
    assert_int_equal(rotate_published_read(o, 20, CERTS_NOW, set, &err), ROTATE_MISSING);
    assert_non_null(strstr(err.what, "everybody may read"));
    assert_int_equal(chmod(path, 0600), 0);
    assert_int_equal(rotate_published_read(o, 20, CERTS_NOW, set, &err), ROTATE_FRESH);
    snprintf(path, sizeof(path), "%s/out/..data/k", w->dir);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rotate_published_read(o, 20, CERTS_NOW, set, &err), ROTATE_MISSING);
    assert_non_null(strstr(err.what, "no file 'k'"));
    snprintf(path, sizeof(path), "%s/out/..data/c", w->dir);
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    fclose(f);
    assert_int_equal(rotate_published_read(o, 20, CERTS_NOW, set, &err), ROTATE_MISSING);
    assert_non_null(strstr(err.what, "does not hold the certificate"));
    snprintf(path, sizeof(path), "%s/out/c", w->dir);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(symlink("..data/k", path), 0);
    assert_int_equal(rotate_published_read(o, 20, CERTS_NOW, set, &err), ROTATE_MISSING);
    assert_non_null(strstr(err.what, "leads elsewhere"));
    rotate_files_free(files);
    rotate_dir_close(d);
    conf_rotate_free(conf);
    free(set);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_what_is_not_there),
        TEST(test_certificates),
        TEST(test_keys),
        TEST(test_pkcs12),
        TEST(test_truststore),
        TEST(test_tokens),
        TEST(test_key_sets_by_domain),
        cmocka_unit_test(test_freshness),
        cmocka_unit_test(test_bad_sets),
        TEST(test_set_comes_back),
        TEST(test_published),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
