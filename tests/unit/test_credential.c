/* Credentials and trusts from files: what is not taken, and that what was taken stays. */
#include <postern/credential.h>

#include "certs.h"
#include <errno.h>
#include <fcntl.h>
#include <openssl/pem.h>
#include <openssl/pkcs12.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* --- texts ------------------------------------------------------------------------------------ */
static char *text_of(BIO *bio)
{
    char *p = NULL;
    long n = BIO_get_mem_data(bio, &p);
    char *text = mem_must_strndup(p, (size_t)n);
    BIO_free(bio);
    return text;
}

static char *pem_cert(X509 *cert)
{
    BIO *bio = BIO_new(BIO_s_mem());
    PEM_write_bio_X509(bio, cert);
    return text_of(bio);
}

static char *pem_key(EVP_PKEY *key, const char *passphrase)
{
    BIO *bio = BIO_new(BIO_s_mem());
    assert_int_equal(PEM_write_bio_PKCS8PrivateKey(
                         bio, key, passphrase != NULL ? EVP_aes_256_cbc() : NULL, passphrase,
                         passphrase != NULL ? (int)strlen(passphrase) : 0, NULL, NULL),
                     1);
    return text_of(bio);
}

static char *joined(char *a, char *b)
{
    char *both = mem_must_printf("%s%s", a, b);
    free(a);
    free(b);
    return both;
}

static struct certs_pair ca_new(const char *name)
{
    struct certs_spec spec = certs_ca(NULL);
    spec.uris[0] = STR_NONE;
    spec.common_name = name;
    spec.not_before_s = os_wall_s() - 3600;
    spec.not_after_s = os_wall_s() + 365 * 86400;
    return certs_make(&spec, NULL);
}

static struct certs_pair leaf_new(const struct certs_pair *ca, const char *dns, int64_t life_s)
{
    struct certs_spec spec = certs_leaf(NULL);
    spec.uris[0] = STR_NONE;
    spec.dns = str_of(dns);
    spec.not_before_s = os_wall_s() - 60;
    spec.not_after_s = os_wall_s() + life_s;
    return certs_make(&spec, ca);
}

/* --- parsing ---------------------------------------------------------------------------------- */
static int parse_pem(const char *cert, const char *key, const char *passphrase, struct err *err)
{
    struct x509_svid *own = NULL;
    int r = credential_parse_pem(str_of(cert), str_of(key), str_of(passphrase), &own, err);
    x509_svid_free(own);
    return r;
}

static void refused_pem(const char *cert, const char *key, const char *passphrase, const char *why)
{
    struct err err = ERR_INIT;
    assert_int_equal(parse_pem(cert, key, passphrase, &err), -1);
    if (strstr(err.what, why) == NULL && strstr(err.advice, why) == NULL) {
        fail_msg("not '%s': %s; %s", why, err.what, err.advice);
    }
    assert_null(strstr(err.what, "secret word"));
}

static void test_pem(void **state)
{
    (void)state;
    struct certs_pair ca = ca_new("ca"), leaf = leaf_new(&ca, "a.b", 3600),
                      other = leaf_new(&ca, "a.b", 3600);
    mem_autofree char *cert = pem_cert(leaf.cert), *key = pem_key(leaf.key, NULL),
                      *other_key = pem_key(other.key, NULL), *ca_key = pem_key(ca.key, NULL),
                      *sealed = pem_key(leaf.key, "secret word"),
                      *chain = joined(pem_cert(leaf.cert), pem_cert(ca.cert)),
                      *backwards = joined(pem_cert(ca.cert), pem_cert(leaf.cert)),
                      *combined = joined(pem_key(leaf.key, NULL), pem_cert(leaf.cert));
    mem_autofree char *cut = mem_must_strndup(cert, strlen(cert) / 2);
    mem_autofree char *broken = mem_must_strdup(chain);
    memcpy(strstr(broken, "END CERT") + 40, "BEGIN CERTIFICATE-----\n!!!!", 27);

    refused_pem("", key, NULL, "no");
    refused_pem("hello", key, NULL, "neither PEM");
    refused_pem(cut, key, NULL, "cannot be read");
    refused_pem(broken, key, NULL, "certificate 2 cannot be read");
    refused_pem(key, key, NULL, "no certificate");
    refused_pem(cert, cert, NULL, "no private key");
    refused_pem(cert, "", NULL, "no private key");
    refused_pem(cert, other_key, NULL, "does not fit");
    refused_pem(cert, ca_key, NULL, "does not fit");
    refused_pem(backwards, key, NULL, "the own certificate comes first");
    refused_pem(cert, sealed, NULL, "encrypted");
    refused_pem(cert, sealed, "another", "does not open");
    struct err err = ERR_INIT;
    assert_int_equal(parse_pem(cert, key, NULL, &err), 0);
    assert_int_equal(parse_pem(chain, key, "not needed", &err), 0);
    assert_int_equal(parse_pem(combined, combined, NULL, &err), 0);
    assert_int_equal(parse_pem(cert, sealed, "secret word", &err), 0);
    assert_int_equal(err.code, ERR_NONE);
    certs_free(&leaf);
    certs_free(&other);
    certs_free(&ca);
}

static void test_key_kinds(void **state)
{
    static const enum certs_key kinds[] = {CERTS_P256, CERTS_P384, CERTS_RSA2048, CERTS_ED25519};
    (void)state;
    struct certs_pair ca = ca_new("ca");
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        struct certs_spec spec = certs_leaf(i == 0 ? "spiffe://a.b/x" : NULL);
        spec.key = kinds[i];
        if (i > 0) {
            spec.uris[0] = STR_NONE;
            spec.dns = STR_LIT("a.b");
        }
        struct certs_pair leaf = certs_make(&spec, &ca);
        mem_autofree char *cert = pem_cert(leaf.cert), *key = pem_key(leaf.key, NULL);
        struct x509_svid *own = NULL;
        assert_int_equal(credential_parse_pem(str_of(cert), str_of(key), STR_NONE, &own, NULL), 0);
        /* Only what is an SVID as it should be has an identity of its own. */
        assert_true(i == 0 ? strcmp(own->spiffe_id, "spiffe://a.b/x") == 0
                           : own->spiffe_id == NULL);
        assert_int_equal(own->not_after_s, CERTS_NOW + 3600);
        struct x509_svid *dup = x509_svid_dup(own);
        x509_svid_free(own);
        x509_svid_free(dup);
        certs_free(&leaf);
    }
    certs_free(&ca);
}

static struct str pkcs12(const struct certs_pair *leaf, const struct certs_pair *ca,
                         const char *passphrase)
{
    STACK_OF(X509) *others = certs_stack(&ca->cert, 1);
    PKCS12 *p12 = PKCS12_create(passphrase, "name", leaf->key, leaf->cert, others, 0, 0, 0, 0, 0);
    assert_non_null(p12);
    unsigned char *der = NULL;
    int n = i2d_PKCS12(p12, &der);
    PKCS12_free(p12);
    sk_X509_free(others);
    return (struct str){(char *)der, (size_t)n};
}

static void test_pkcs12(void **state)
{
    (void)state;
    struct certs_pair ca = ca_new("ca"), leaf = leaf_new(&ca, "a.b", 3600);
    struct str sealed = pkcs12(&leaf, &ca, "secret word"), empty = pkcs12(&leaf, &ca, "");
    struct x509_svid *own = NULL;
    struct err err = ERR_INIT;
    assert_int_equal(credential_parse_pkcs12(STR_LIT("no"), STR_NONE, &own, &err), -1);
    assert_non_null(strstr(err.what, "not PKCS#12"));
    assert_int_equal(
        credential_parse_pkcs12((struct str){sealed.p, sealed.n / 2}, STR_NONE, &own, &err), -1);
    assert_int_equal(credential_parse_pkcs12(sealed, STR_NONE, &own, &err), -1);
    assert_non_null(strstr(err.what, "there is no passphrase"));
    assert_int_equal(credential_parse_pkcs12(sealed, STR_LIT("wrong"), &own, &err), -1);
    assert_non_null(strstr(err.what, "does not open"));
    err = (struct err)ERR_INIT;
    if (credential_parse_pkcs12(sealed, STR_LIT("secret word"), &own, &err) == -1) {
        fail_msg("%s", err.what);
    }
    assert_int_equal(sk_X509_num(own->intermediates), 1);
    x509_svid_free(own);
    if (credential_parse_pkcs12(empty, STR_NONE, &own, &err) == -1) {
        fail_msg("%s", err.what);
    }
    x509_svid_free(own);
    OPENSSL_free((char *)(uintptr_t)sealed.p);
    OPENSSL_free((char *)(uintptr_t)empty.p);
    certs_free(&leaf);
    certs_free(&ca);
}

static char *x5c_of(X509 *cert)
{
    size_t n = 0;
    uint8_t *der = certs_der(&cert, 1, &n);
    char *text = mem_must_calloc(1, n * 2 + 8);
    EVP_EncodeBlock((unsigned char *)text, der, (int)n);
    free(der);
    return text;
}

static int parse_bundle(const char *text, const char *domain, size_t *ret_n, struct err *err)
{
    struct x509_trust *trust = x509_trust_new();
    int r = credential_parse_bundle(str_of(text), str_of(domain), trust, err);
    *ret_n = r == 0 ? x509_trust_root_count(trust, str_of(domain)) : 99;
    x509_trust_unref(trust);
    return r;
}

static void test_bundles(void **state)
{
    (void)state;
    struct certs_spec spec = certs_ca("spiffe://a.b");
    struct certs_pair root = certs_make(&spec, NULL), leaf;
    spec = certs_leaf("spiffe://a.b/x");
    leaf = certs_make(&spec, &root);
    mem_autofree char *x5c = x5c_of(root.cert), *leaf_x5c = x5c_of(leaf.cert),
                      *pem = pem_cert(root.cert);
    mem_autofree char *set = mem_must_printf(
        "{\"spiffe_sequence\":1,\"keys\":[{\"use\":\"jwt-svid\",\"kty\":\"EC\",\"kid\":\"k\"},"
        "{\"use\":\"x509-svid\",\"kty\":\"EC\"},"
        "{\"use\":\"x509-svid\",\"kty\":\"EC\",\"x5c\":[\"%s\",\"ignored\"]}]}",
        x5c);
    mem_autofree char *map =
        mem_must_printf("{\"trust_domains\":{\"c.d\":{\"keys\":[]},\"a.b\":%s}}", set);
    mem_autofree char *with_leaf = mem_must_printf(
        "{\"keys\":[{\"use\":\"x509-svid\",\"kty\":\"EC\",\"x5c\":[\"%s\"]}]}", leaf_x5c);
    static const char *const bad[] = {
        "",
        "nonsense",
        "[]",
        "{}",
        "{\"keys\":{}}",
        "{\"keys\":[{\"use\":\"x509-svid\",\"x5c\":[\"a\"]}]}",
        "{\"keys\":[{\"use\":\"x509-svid\",\"x5c\":[\"AAAA\"]}]}",
        "{\"keys\":[{\"use\":\"x509-svid\",\"x5c\":[\"!!!!\"]}]}",
        "{\"keys\":[{\"use\":\"x509-svid\",\"x5c\":[7]}]}",
        "{\"keys\":[],\"keys\":[]}",
        "{\"trust_domains\":{\"c.d\":{\"keys\":[]}}}",
        "{\"trust_domains\":{\"a.b\":7}}",
    };
    size_t n = 0;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct err err = ERR_INIT;
        if (parse_bundle(bad[i], "a.b", &n, &err) == 0 || err.what[0] == '\0') {
            fail_msg("%s", bad[i]);
        }
    }
    assert_int_equal(parse_bundle(with_leaf, "a.b", &n, NULL), -1);
    assert_int_equal(parse_bundle(pem, "a.b", &n, NULL), 0);
    assert_int_equal(n, 1);
    assert_int_equal(parse_bundle(set, "a.b", &n, NULL), 0);
    assert_int_equal(n, 1);
    assert_int_equal(parse_bundle(map, "a.b", &n, NULL), 0);
    assert_int_equal(n, 1);
    assert_int_equal(parse_bundle(map, "c.d", &n, NULL), 0);
    assert_int_equal(n, 0);
    certs_free(&leaf);
    certs_free(&root);
}

/* --- files ------------------------------------------------------------------------------------ */
enum { GUARD_MS = 20000 };

struct world {
    char dir[64];
    char paths[4][128];
    struct loop *loop;
    struct loop_timer guard;
    struct credentials *c;
    struct certs_pair ca;
    unsigned n_changes, n_loaded, n_refused, n_open, n_expires;
    unsigned until_changes, until_refused;
    struct err refused;
};

static void on_guard(void *arg)
{
    struct world *w = arg;
    fail_msg("waited for %u changes and %u refusals: %u, %u; %s", w->until_changes,
             w->until_refused, w->n_changes, w->n_refused, w->refused.what);
}

static void maybe_stop(struct world *w)
{
    if (w->n_changes >= w->until_changes && w->n_refused >= w->until_refused) {
        loop_stop(w->loop);
    }
}

static void on_change(void *arg)
{
    struct world *w = arg;
    w->n_changes++;
    maybe_stop(w);
}

static void on_notice(void *arg, bool is_trust, const char *name, enum credential_notice notice,
                      const struct err *why)
{
    struct world *w = arg;
    (void)is_trust;
    (void)name;
    w->n_loaded += notice == CREDENTIAL_LOADED ? 1 : 0;
    w->n_open += notice == CREDENTIAL_OPEN ? 1 : 0;
    w->n_expires += notice == CREDENTIAL_EXPIRES ? 1 : 0;
    if (notice == CREDENTIAL_REFUSED) {
        w->n_refused++;
        w->refused = *why;
        maybe_stop(w);
    }
}

static void wait_for(struct world *w, unsigned changes, unsigned refused)
{
    w->until_changes = changes;
    w->until_refused = refused;
    if (w->n_changes < changes || w->n_refused < refused) {
        loop_timer_arm(&w->guard, GUARD_MS);
        loop_run(w->loop);
        loop_timer_disarm(&w->guard);
    }
}

static int setup(void **state)
{
    static const struct credentials_events events = {.on_change = on_change,
                                                     .on_notice = on_notice};
    struct world *w = calloc(1, sizeof(*w));
    snprintf(w->dir, sizeof(w->dir), "/tmp/postern-credential-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    w->loop = loop_new(NULL);
    loop_timer_init(&w->guard, w->loop, on_guard, w);
    w->ca = ca_new("ca");
    w->c = credentials_new(w->loop, &events, w);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    credentials_free(w->c);
    loop_free(w->loop);
    certs_free(&w->ca);
    static const char *const names[] = {"cert",    "key",      "ca",       "crl",     "pass",
                                        "..data",  "link",     "cert.new", "key.new", "one/cert",
                                        "one/key", "two/cert", "two/key"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char path[256];
        snprintf(path, sizeof(path), "%s/%s", w->dir, names[i]);
        (void)unlink(path);
    }
    static const char *const dirs[] = {"one", "two"};
    for (size_t i = 0; i < 2; i++) {
        char path[256];
        snprintf(path, sizeof(path), "%s/%s", w->dir, dirs[i]);
        (void)rmdir(path);
    }
    assert_int_equal(rmdir(w->dir), 0);
    free(w);
    return 0;
}

static const char *path_of(struct world *w, unsigned slot, const char *name)
{
    snprintf(w->paths[slot], sizeof(w->paths[slot]), "%s/%s", w->dir, name);
    return w->paths[slot];
}

static void put(const struct world *w, const char *name, char *text, mode_t mode)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/%s", w->dir, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_int_not_equal(fd, -1);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    fchmod(fd, mode);
    close(fd);
    free(text);
}

static void put_pair(const struct world *w, const char *prefix, const struct certs_pair *pair)
{
    char name[32];
    snprintf(name, sizeof(name), "%scert", prefix);
    put(w, name, pem_cert(pair->cert), 0644);
    snprintf(name, sizeof(name), "%skey", prefix);
    put(w, name, pem_key(pair->key, NULL), 0600);
}

/* One credential "web" of cert and key. */
static int prepare(struct world *w, const char *cert, const char *key, struct err *err)
{
    struct credential_spec own = {.name = "web",
                                  .kind = CREDENTIAL_PEM,
                                  .cert = path_of(w, 0, cert),
                                  .key = key != NULL ? path_of(w, 1, key) : NULL};
    const struct credentials_spec spec = {.own = &own, .n_own = 1};
    struct credentials_set *set = NULL;
    if (credentials_prepare(w->c, &spec, &set, err) == -1) {
        return -1;
    }
    credentials_commit(w->c, set);
    return 0;
}

static bool shows(const struct world *w, const struct certs_pair *pair)
{
    const struct x509_svid *own = credentials_own(w->c, NULL, "web");
    return own != NULL && X509_cmp(own->leaf, pair->cert) == 0;
}

static void refused_start(struct world *w, const char *why)
{
    struct err err = ERR_INIT;
    assert_int_equal(prepare(w, "cert", "key", &err), -1);
    if (strstr(err.what, why) == NULL) {
        fail_msg("not '%s': %s", why, err.what);
    }
    assert_non_null(strstr(err.what, "credential 'web'"));
    assert_non_null(strstr(err.where, w->dir));
    assert_int_equal(credentials_count(w->c), 0);
}

static void test_bad_starts(void **state)
{
    struct world *w = *state;
    struct certs_pair a = leaf_new(&w->ca, "a.b", 86400), b = leaf_new(&w->ca, "a.b", 86400);
    refused_start(w, "cannot be opened");
    put_pair(w, "", &a);
    put(w, "key", pem_key(a.key, NULL), 0620);
    refused_start(w, "others than its owner may write");
    put(w, "key", pem_key(a.key, NULL), 0602);
    refused_start(w, "others than its owner may write");
    put(w, "key", mem_must_strdup(""), 0600);
    refused_start(w, "bytes");
    put(w, "key", pem_key(b.key, NULL), 0600);
    refused_start(w, "does not fit");
    char path[256];
    snprintf(path, sizeof(path), "%s/key", w->dir);
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0); /* nobody is waited for */
    refused_start(w, "not a regular file");
    unlink(path);
    put(w, "key", pem_key(a.key, NULL), 0644);
    assert_int_equal(prepare(w, "cert", "key", NULL), 0);
    assert_int_equal(w->n_open, 1); /* taken, and told */
    assert_true(shows(w, &a));
    certs_free(&a);
    certs_free(&b);
}

/* Certificate first, then the key: between the two nothing is taken, and nothing is told. */
static void test_exchange_in_place(void **state)
{
    struct world *w = *state;
    struct certs_pair a = leaf_new(&w->ca, "a.b", 86400), b = leaf_new(&w->ca, "a.b", 86400);
    put_pair(w, "", &a);
    assert_int_equal(prepare(w, "cert", "key", NULL), 0);
    assert_int_equal(w->n_loaded, 1);
    put_pair(w, "", &b);
    wait_for(w, 1, 0);
    assert_true(shows(w, &b));
    assert_int_equal(w->n_refused, 0);
    certs_free(&a);
    certs_free(&b);
}

static void test_last_good_stays(void **state)
{
    struct world *w = *state;
    struct certs_pair a = leaf_new(&w->ca, "a.b", 86400), b = leaf_new(&w->ca, "a.b", 86400);
    put_pair(w, "", &a);
    assert_int_equal(prepare(w, "cert", "key", NULL), 0);
    put(w, "cert", pem_cert(b.cert), 0644); /* and no key to it */
    wait_for(w, 0, 1);
    assert_non_null(strstr(w->refused.what, "does not fit"));
    assert_true(shows(w, &a));
    struct credential_status st;
    credentials_get_status(w->c, 0, &st);
    assert_true(st.in_force && st.refused.code != ERR_NONE && st.n_refused == 1);
    credentials_read_again(w->c); /* as SIGHUP: told anew, and nothing else */
    assert_true(shows(w, &a));
    put(w, "key", pem_key(b.key, NULL), 0600);
    wait_for(w, 1, 0);
    assert_true(shows(w, &b));
    credentials_get_status(w->c, 0, &st);
    assert_int_equal(st.refused.code, ERR_NONE);
    char path[256];
    snprintf(path, sizeof(path), "%s/cert", w->dir);
    unlink(path);
    unsigned before = w->n_refused;
    wait_for(w, 0, before + 1);
    assert_true(shows(w, &b));
    certs_free(&a);
    certs_free(&b);
}

/* The pattern of Kubernetes volumes: files are links through `..data`, which is exchanged. */
static void test_exchanged_link(void **state)
{
    struct world *w = *state;
    struct certs_pair a = leaf_new(&w->ca, "a.b", 86400), b = leaf_new(&w->ca, "a.b", 86400);
    char path[256], other[256];
    snprintf(path, sizeof(path), "%s/one", w->dir);
    mkdir(path, 0755);
    snprintf(path, sizeof(path), "%s/two", w->dir);
    mkdir(path, 0755);
    put_pair(w, "one/", &a);
    put_pair(w, "two/", &b);
    snprintf(path, sizeof(path), "%s/..data", w->dir);
    assert_int_equal(symlink("one", path), 0);
    snprintf(other, sizeof(other), "%s/cert", w->dir);
    assert_int_equal(symlink("..data/cert", other), 0);
    snprintf(other, sizeof(other), "%s/key", w->dir);
    assert_int_equal(symlink("..data/key", other), 0);
    assert_int_equal(prepare(w, "cert", "key", NULL), 0);
    assert_true(shows(w, &a));
    snprintf(other, sizeof(other), "%s/link", w->dir);
    assert_int_equal(symlink("two", other), 0);
    assert_int_equal(rename(other, path), 0);
    wait_for(w, 1, 0);
    assert_true(shows(w, &b));
    assert_int_equal(w->n_refused, 0);
    certs_free(&a);
    certs_free(&b);
}

/* The same content in a new file is nothing new: nobody is judged again for it. */
static void test_same_content(void **state)
{
    struct world *w = *state;
    struct certs_pair a = leaf_new(&w->ca, "a.b", 86400), b = leaf_new(&w->ca, "a.b", 86400);
    put_pair(w, "", &a);
    assert_int_equal(prepare(w, "cert", "key", NULL), 0);
    const struct x509_svid *before = credentials_own(w->c, NULL, "web");
    put_pair(w, "", &a);
    credentials_read_again(w->c);
    assert_int_equal(w->n_changes, 0);
    (void)before;
    put_pair(w, "", &b);
    credentials_read_again(w->c);
    assert_int_equal(w->n_changes, 1);
    certs_free(&a);
    certs_free(&b);
}

static void test_change_is_whole(void **state)
{
    struct world *w = *state;
    struct certs_pair a = leaf_new(&w->ca, "a.b", 86400);
    put_pair(w, "", &a);
    put(w, "ca", pem_cert(w->ca.cert), 0644);
    assert_int_equal(prepare(w, "cert", "key", NULL), 0);
    struct credential_spec own = {.name = "web",
                                  .kind = CREDENTIAL_PEM,
                                  .cert = path_of(w, 0, "cert"),
                                  .key = path_of(w, 1, "key")};
    struct credential_trust trust[2] = {{.name = "good", .ca = path_of(w, 2, "ca")},
                                        {.name = "bad", .ca = path_of(w, 3, "nothing")}};
    struct credentials_spec spec = {.own = &own, .n_own = 1, .trust = trust, .n_trust = 2};
    struct credentials_set *set = NULL;
    assert_int_equal(credentials_prepare(w->c, &spec, &set, NULL), -1);
    assert_int_equal(credentials_count(w->c), 1);
    assert_null(credentials_peers(w->c, NULL, "good"));
    spec.n_trust = 1;
    const struct x509_svid *before = credentials_own(w->c, NULL, "web");
    assert_int_equal(credentials_prepare(w->c, &spec, &set, NULL), 0);
    assert_non_null(credentials_peers(w->c, set, "good"));
    assert_null(credentials_peers(w->c, NULL, "good"));
    credentials_abandon(w->c, set);
    assert_int_equal(credentials_prepare(w->c, &spec, &set, NULL), 0);
    credentials_commit(w->c, set);
    assert_non_null(credentials_peers(w->c, NULL, "good"));
    assert_ptr_equal(credentials_own(w->c, NULL, "web"), before); /* described as before */
    assert_true(credentials_complete(w->c));
    certs_free(&a);
}

static void count_dir(void *arg, const char *dir)
{
    unsigned *n = arg;
    assert_int_equal(dir[0], '/');
    (*n)++;
}

static void test_ends(void **state)
{
    struct world *w = *state;
    struct certs_pair a = leaf_new(&w->ca, "a.b", 10); /* of 70 s */
    put_pair(w, "", &a);
    assert_int_equal(prepare(w, "cert", "key", NULL), 0);
    assert_int_equal(w->n_expires, 1);
    struct credential_status st;
    credentials_get_status(w->c, 0, &st);
    assert_int_equal(st.end_s, x509_not_after_s(a.cert));
    assert_string_equal(st.kind, "pem");
    unsigned n = 0;
    credentials_directories(w->c, NULL, count_dir, &n);
    assert_int_equal(n, 2);
    certs_free(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pem),
        cmocka_unit_test(test_key_kinds),
        cmocka_unit_test(test_pkcs12),
        cmocka_unit_test(test_bundles),
        cmocka_unit_test_setup_teardown(test_bad_starts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_exchange_in_place, setup, teardown),
        cmocka_unit_test_setup_teardown(test_last_good_stays, setup, teardown),
        cmocka_unit_test_setup_teardown(test_exchanged_link, setup, teardown),
        cmocka_unit_test_setup_teardown(test_same_content, setup, teardown),
        cmocka_unit_test_setup_teardown(test_change_is_whole, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ends, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
