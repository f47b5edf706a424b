/* Ordinary authorities: whose certificates count, by which name, and what lists do to it. */
#include <postern/x509_peers.h>

#include "certs.h"
#include <openssl/err.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* --- matching --------------------------------------------------------------------------------- */
struct uri_case {
    const char *pattern, *uri;
    bool matches;
};

static const struct uri_case URIS[] = {
    {"spiffe://foo/*/bar", "invalid", false},
    {"spiffe://foo/*/bar", "spiffe://foo/bar", false},
    {"spiffe://foo/*/bar", "spiffe://foo//bar", false},
    {"spiffe://foo/*/bar", "spiffe://foo/baz/bar/spam", false},
    {"spiffe://foo/*/bar", "spiff://foo/baz/bar", false},
    {"spiffe://foo/*/bar", "spiffe://foox/baz/bar", false},
    {"spiffe://foo/*/bar", "spiffe://foo/baz/barx", false},
    {"spiffe://foo/*/bar", "spiffe://foo/a/b/bar", false},
    {"spiffe://foo/*/bar", "spiffe://foo/baz/bar", true},
    {"spiffe://foo/*/bar", "spiffe://foo/baz/bar/", true},
    {"spiffe://*/*/bar", "spiffe://foox/spam/bar", true},
    {"spiffe://foo/*/*", "spiffe://foo/baz/", false},
    {"spiffe://foo/*/*", "spiffe://foo/baz/bar", true},
    {"spiffe://foo/*/bar/**", "spiffe://foo/bar", false},
    {"spiffe://foo/*/bar/**", "spiffe://foo//bar/asdf", false},
    {"spiffe://foo/*/bar/**", "spiffe://foo/baz/barx", false}, /* by segments, not by prefix */
    {"spiffe://foo/*/bar/**", "spiffe://foo/baz/bar", true},
    {"spiffe://foo/*/bar/**", "spiffe://foo/baz/bar/", true},
    {"spiffe://foo/*/bar/**", "spiffe://foo/spam/bar/asdf/qwer", true},
    {"spiffe://foo/./bar", "spiffe://foo/x/bar", false},
    {"spiffe://foo/./bar", "spiffe://foo/./bar", true},
    {"spiffe://foo/a*", "spiffe://foo/ab", false}, /* a star in a segment is a star */
    {"spiffe://foo/a*", "spiffe://foo/a*", true},
    {".+", "invalid", false},
    {".+", ".+", true},
    {"**", "anything/at/all", true},
    {"spiffe://foo", "spiffe://foo/x", false},
    {"spiffe://foo/x", "spiffe://foo", false},
    {"", "x", false},
    {"x", "", false},
};

static void test_uris(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(URIS) / sizeof(URIS[0]); i++) {
        if (x509_uri_match(str_of(URIS[i].pattern), str_of(URIS[i].uri)) != URIS[i].matches) {
            fail_msg("%s and %s", URIS[i].pattern, URIS[i].uri);
        }
    }
}

static void test_hosts(void **state)
{
    static const struct {
        const char *presented, *host;
        bool wildcard, matches;
    } cases[] = {
        {"*", "a", true, false},
        {"*.", "a.", true, false},
        {"*.com", "a.com", true, false},
        {"a*.b.example", "ab.b.example", true, false},
        {"*a.b.example", "xa.b.example", true, false},
        {"*.*.example", "a.b.example", true, false},
        {"a.*.example", "a.b.example", true, false},
        {"*.b.example", "b.example", true, false},
        {"*.b.example", ".b.example", true, false},
        {"*.b.example", "x.a.b.example", true, false},
        {"*.b.example", "a.b.example.evil", true, false},
        {"*.b.example", "*.b.example.x", true, false},
        {"*.b.example", "a.b.example", false, false},
        {"b.example", "a.b.example", true, false},
        {"", "", true, false},
        {"*.b.example", "a.b.example", true, true},
        {"*.B.example", "A.b.EXAMPLE", true, true},
        {"*.b.example", "*.b.example", false, true},
        {"a.b.example", "A.B.example", false, true},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        if (x509_dns_match(str_of(cases[i].presented), str_of(cases[i].host), cases[i].wildcard) !=
            cases[i].matches) {
            fail_msg("%s and %s", cases[i].presented, cases[i].host);
        }
    }
}

static void test_bad_names(void **state)
{
    const struct {
        enum x509_name_kind kind;
        struct str text;
    } bad[] = {
        {X509_NAME_URI, STR_LIT("")},
        {X509_NAME_URI, STR_LIT("spiffe://a/**/b")},
        {X509_NAME_URI, STR_LIT("**/b")},
        {X509_NAME_URI, STR_LIT("spiffe://a b")},
        {X509_NAME_URI, STR_LIT("spiffe://a\0b")},
        {X509_NAME_DNS, STR_LIT("")},
        {X509_NAME_DNS, STR_LIT("a..b")},
        {X509_NAME_DNS, STR_LIT(".a")},
        {X509_NAME_DNS, STR_LIT("a b")},
        {X509_NAME_DNS, STR_LIT("a.example:443")},
        {X509_NAME_DNS, STR_LIT("https://a.example")},
        {X509_NAME_DNS, STR_LIT("*")},
        {X509_NAME_DNS, STR_LIT("a.*.example")},
        {X509_NAME_CN, STR_LIT("")},
        {X509_NAME_CN, STR_LIT("a\nb")},
        {X509_NAME_OU, STR_LIT("a\0b")},
    };
    (void)state;
    struct x509_names *n = x509_names_new(false);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct err err = ERR_INIT;
        if (x509_names_add(n, bad[i].kind, bad[i].text, &err) == 0 || err.what[0] == '\0') {
            fail_msg("%.*s", STR_ARG(bad[i].text));
        }
    }
    assert_int_equal(x509_names_count(n), 0);
    assert_int_equal(x509_names_add(n, X509_NAME_URI, STR_LIT("spiffe://a/**"), NULL), 0);
    assert_int_equal(x509_names_add(n, X509_NAME_DNS, STR_LIT("*.a.example"), NULL), 0);
    assert_int_equal(x509_names_add(n, X509_NAME_DNS, STR_LIT("a.example."), NULL), 0);
    assert_int_equal(x509_names_add(n, X509_NAME_DNS, STR_LIT("::1"), NULL), 0);
    assert_int_equal(x509_names_add(n, X509_NAME_CN, STR_LIT("J\xc3\xb6rg M\xc3\xbcller"), NULL),
                     0);
    x509_names_unref(n);
}

/* --- certificates ----------------------------------------------------------------------------- */
struct world {
    struct certs_pair root, middle, other;
    struct x509_peers *peers;
};

static struct x509_peers *peers_of(X509 *ca, STACK_OF(X509_CRL) * crls)
{
    struct x509_peers *peers = NULL;
    struct err err = ERR_INIT;
    STACK_OF(X509) *cas = certs_stack(&ca, 1);
    if (x509_peers_new_ordinary(cas, crls, &peers, &err) == -1) {
        fail_msg("%s", err.what);
    }
    sk_X509_free(cas);
    return peers;
}

static struct certs_spec ca_named(const char *name)
{
    struct certs_spec spec = certs_ca(NULL);
    spec.uris[0] = STR_NONE;
    spec.common_name = name;
    return spec;
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    struct certs_spec root = ca_named("root"), middle = ca_named("middle");
    w->root = certs_make(&root, NULL);
    w->other = certs_make(&root, NULL); /* of the same name, with another key */
    w->middle = certs_make(&middle, &w->root);
    w->peers = peers_of(w->root.cert, NULL);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    x509_peers_unref(w->peers);
    certs_free(&w->root);
    certs_free(&w->middle);
    certs_free(&w->other);
    free(w);
    return 0;
}

static struct certs_spec leaf_named(const char *uri, struct str dns, const char *cn)
{
    struct certs_spec spec = certs_leaf(uri);
    if (uri == NULL) {
        spec.uris[0] = STR_NONE;
    }
    spec.dns = dns;
    spec.common_name = cn;
    return spec;
}

struct judged {
    enum x509_verdict verdict;
    struct x509_peer peer;
    struct err err;
};

static struct judged judge(const struct x509_peers *peers, const struct x509_names *names,
                           X509 *leaf, X509 *between, bool is_server, bool again)
{
    struct judged j = {.err = ERR_INIT};
    STACK_OF(X509) *chain = certs_stack(&between, 1);
    const struct x509_ask ask = {
        .leaf = leaf, .chain = chain, .is_server = is_server, .again = again, .now_s = CERTS_NOW};
    j.verdict = x509_peers_verify(peers, names, &ask, &j.peer, &j.err);
    sk_X509_free(chain);
    if ((j.verdict == X509_OK) != (j.err.code == ERR_NONE)) {
        fail_msg("verdict %s, but: %s", x509_verdict_name(j.verdict), j.err.what);
    }
    return j;
}

struct name_case {
    const char *what;
    const char *uri;
    struct str dns;
    const char *cn;
    enum x509_name_kind kind;
    const char *wanted; /* NULL: any */
    bool is_server;
    enum x509_verdict verdict;
    const char *principal;
};

static const struct name_case NAMES[] = {
    {"a common name is no DNS name",
     NULL,
     {NULL, 0},
     "db.example",
     X509_NAME_DNS,
     "db.example",
     true,
     X509_NOT_ALLOWED,
     "cn:db.example"},
    {"a DNS name is no common name",
     NULL,
     {"db.example", sizeof("db.example") - 1},
     "x",
     X509_NAME_CN,
     "db.example",
     false,
     X509_NOT_ALLOWED,
     "dns:db.example, cn:x"},
    {"a URI is no DNS name",
     "db.example",
     {NULL, 0},
     "x",
     X509_NAME_DNS,
     "db.example",
     true,
     X509_NOT_ALLOWED,
     "uri:db.example, cn:x"},
    {"NUL in a DNS name",
     NULL,
     {"db.example\0.evil", sizeof("db.example\0.evil") - 1},
     "x",
     X509_NAME_DNS,
     "db.example",
     true,
     X509_BAD_NAMES,
     "dns:db.example?.evil, cn:x"},
    {"a blank in a DNS name, and a good common name",
     NULL,
     {"db example", sizeof("db example") - 1},
     "x",
     X509_NAME_CN,
     "x",
     false,
     X509_BAD_NAMES,
     "dns:db example, cn:x"},
    {"a caller's wildcard",
     NULL,
     {"*.b.example", sizeof("*.b.example") - 1},
     "x",
     X509_NAME_DNS,
     "a.b.example",
     false,
     X509_NOT_ALLOWED,
     "dns:*.b.example, cn:x"},
    {"prefix of a common name",
     NULL,
     {NULL, 0},
     "admin2",
     X509_NAME_CN,
     "admin",
     false,
     X509_NOT_ALLOWED,
     "cn:admin2"},
    {"case of a common name",
     NULL,
     {NULL, 0},
     "Admin",
     X509_NAME_CN,
     "admin",
     false,
     X509_NOT_ALLOWED,
     "cn:Admin"},
    {"a caller's wildcard by itself",
     NULL,
     {"*.b.example", sizeof("*.b.example") - 1},
     "x",
     X509_NAME_DNS,
     "*.b.example",
     false,
     X509_OK,
     "dns:*.b.example"},
    {"a server's wildcard",
     NULL,
     {"*.b.example", sizeof("*.b.example") - 1},
     "x",
     X509_NAME_DNS,
     "A.b.example",
     true,
     X509_OK,
     "dns:a.b.example"},
    {"a SPIFFE ID of an ordinary authority",
     "spiffe://a.b/x",
     {NULL, 0},
     "x",
     X509_NAME_URI,
     "spiffe://a.b/*",
     false,
     X509_OK,
     "uri:spiffe://a.b/x"},
    {"the same with any",
     "spiffe://a.b/x",
     {"d.e", sizeof("d.e") - 1},
     "x",
     X509_NAME_URI,
     NULL,
     false,
     X509_OK,
     "uri:spiffe://a.b/x"},
    {"any by DNS name",
     NULL,
     {"D.e", sizeof("D.e") - 1},
     "x",
     X509_NAME_URI,
     NULL,
     false,
     X509_OK,
     "dns:d.e"},
    {"any by common name", NULL, {NULL, 0}, "x", X509_NAME_URI, NULL, false, X509_OK, "cn:x"},
    {"common name", NULL, {NULL, 0}, "admin", X509_NAME_CN, "admin", false, X509_OK, "cn:admin"},
};

static void test_names(void **state)
{
    struct world *w = *state;
    for (size_t i = 0; i < sizeof(NAMES) / sizeof(NAMES[0]); i++) {
        const struct name_case *c = &NAMES[i];
        struct certs_spec spec = leaf_named(c->uri, c->dns, c->cn);
        struct certs_pair leaf = certs_make(&spec, &w->root);
        struct x509_names *names = x509_names_new(c->wanted == NULL);
        if (c->wanted != NULL) {
            assert_int_equal(x509_names_add(names, c->kind, str_of(c->wanted), NULL), 0);
        }
        struct judged j = judge(w->peers, names, leaf.cert, NULL, c->is_server, false);
        if (j.verdict != c->verdict || strcmp(j.peer.id, c->principal) != 0) {
            fail_msg("%s: %s, '%s', %s", c->what, x509_verdict_name(j.verdict), j.peer.id,
                     j.err.what);
        }
        x509_names_unref(names);
        certs_free(&leaf);
    }
}

/* A host that has to be there besides whichever name counts. */
static void test_demanded_host(void **state)
{
    static const struct {
        const char *host;
        struct str dns;
        enum x509_verdict verdict;
    } cases[] = {
        {"other.example", {"db.example", 10}, X509_NOT_ALLOWED},
        {"db.example", {NULL, 0}, X509_NOT_ALLOWED},
        {"10.0.0.1", {"10.0.0.1", 8}, X509_NOT_ALLOWED},
        {"x", {NULL, 0}, X509_NOT_ALLOWED}, /* the common name is no host */
        {"DB.example", {"db.example", 10}, X509_OK},
        {"db.b.example", {"*.b.example", 11}, X509_OK},
    };
    struct world *w = *state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct certs_spec spec = leaf_named(NULL, cases[i].dns, "x");
        struct certs_pair leaf = certs_make(&spec, &w->root);
        for (int fits = 0; fits < 2; fits++) {
            struct x509_names *names = x509_names_new(false), *plain = x509_names_new(false);
            const struct str cn = str_of(fits ? "x" : "y");
            assert_int_equal(x509_names_add(names, X509_NAME_CN, cn, NULL), 0);
            assert_int_equal(x509_names_add(plain, X509_NAME_CN, cn, NULL), 0);
            assert_int_equal(x509_names_demand_host(names, str_of(cases[i].host), NULL), 0);
            assert_false(x509_names_equal(names, plain));
            struct judged j = judge(w->peers, names, leaf.cert, NULL, true, false);
            assert_int_equal(j.verdict, fits ? cases[i].verdict : X509_NOT_ALLOWED);
            if (j.verdict == X509_OK) {
                assert_string_equal(j.peer.id, "cn:x");
            } else {
                assert_non_null(strstr(j.err.expected, cases[i].host));
            }
            x509_names_unref(names);
            x509_names_unref(plain);
        }
        certs_free(&leaf);
    }
}

/* Nobody's name at all: by its digest. */
static void test_nameless(void **state)
{
    struct world *w = *state;
    struct certs_spec spec = leaf_named(NULL, STR_NONE, NULL);
    struct certs_pair leaf = certs_make(&spec, &w->root);
    struct judged j = judge(w->peers, NULL, leaf.cert, NULL, false, false);
    assert_int_equal(j.verdict, X509_OK);
    assert_int_equal(j.peer.id_len, 5 + 32);
    assert_memory_equal(j.peer.id, "x509:", 5);
    certs_free(&leaf);
}

static void test_paths(void **state)
{
    struct world *w = *state;
    struct certs_spec spec = leaf_named(NULL, STR_LIT("a.b"), "x");
    struct certs_pair leaf = certs_make(&spec, &w->middle);
    struct judged j = judge(w->peers, NULL, NULL, NULL, true, false);
    assert_int_equal(j.verdict, X509_NO_CERTIFICATE);
    j = judge(w->peers, NULL, leaf.cert, NULL, true, false);
    assert_int_equal(j.verdict, X509_BAD_CHAIN);
    j = judge(w->peers, NULL, leaf.cert, w->middle.cert, true, false);
    assert_int_equal(j.verdict, X509_OK);
    assert_int_equal(j.peer.not_after_s, CERTS_NOW + 3600);
    certs_free(&leaf);
    leaf = certs_make(&spec, &w->other); /* an authority of the same name */
    j = judge(w->peers, NULL, leaf.cert, NULL, true, false);
    assert_int_equal(j.verdict, X509_BAD_CHAIN);
    certs_free(&leaf);
    spec.not_after_s = CERTS_NOW - 1;
    leaf = certs_make(&spec, &w->root);
    j = judge(w->peers, NULL, leaf.cert, NULL, true, false);
    assert_int_equal(j.verdict, X509_EXPIRED);
    assert_non_null(strstr(j.err.what, "dns:a.b"));
    certs_free(&leaf);
    /* For servers only, shown by a client; and the reverse. */
    spec = leaf_named(NULL, STR_LIT("a.b"), "x");
    spec.purposes = CERTS_SERVER_AUTH;
    leaf = certs_make(&spec, &w->root);
    j = judge(w->peers, NULL, leaf.cert, NULL, false, false);
    assert_int_equal(j.verdict, X509_BAD_CHAIN);
    j = judge(w->peers, NULL, leaf.cert, NULL, true, false);
    assert_int_equal(j.verdict, X509_OK);
    certs_free(&leaf);
    spec.purposes = CERTS_CLIENT_AUTH;
    leaf = certs_make(&spec, &w->root);
    j = judge(w->peers, NULL, leaf.cert, NULL, true, false);
    assert_int_equal(j.verdict, X509_BAD_CHAIN);
    certs_free(&leaf);
}

static void test_bad_authorities(void **state)
{
    struct world *w = *state;
    struct certs_spec spec = leaf_named(NULL, STR_LIT("a.b"), "x");
    struct certs_pair leaf = certs_make(&spec, &w->root);
    struct x509_peers *peers = NULL;
    struct err err = ERR_INIT;
    STACK_OF(X509) *cas = certs_stack(&leaf.cert, 1);
    assert_int_equal(x509_peers_new_ordinary(cas, NULL, &peers, &err), -1);
    assert_non_null(strstr(err.what, "not a CA"));
    sk_X509_free(cas);
    cas = sk_X509_new_null();
    assert_int_equal(x509_peers_new_ordinary(cas, NULL, &peers, &err), -1);
    sk_X509_free(cas);
    certs_free(&leaf);
}

/* --- lists ------------------------------------------------------------------------------------ */
struct list_spec {
    int64_t from_s, to_s;
    X509 *revoked; /* NULL: nobody */
    int extension; /* a NID to add as critical; 0: none */
};

static X509_CRL *make_list(const struct certs_pair *issuer, const struct list_spec *spec)
{
    X509_CRL *crl = X509_CRL_new();
    ASN1_TIME *from = ASN1_TIME_set(NULL, (time_t)(CERTS_NOW + spec->from_s));
    ASN1_TIME *to = ASN1_TIME_set(NULL, (time_t)(CERTS_NOW + spec->to_s));
    assert_int_equal(X509_CRL_set_version(crl, X509_CRL_VERSION_2), 1);
    X509_CRL_set_issuer_name(crl, X509_get_subject_name(issuer->cert));
    X509_CRL_set1_lastUpdate(crl, from);
    X509_CRL_set1_nextUpdate(crl, to);
    if (spec->revoked != NULL) {
        X509_REVOKED *r = X509_REVOKED_new();
        X509_REVOKED_set_serialNumber(r, X509_get_serialNumber(spec->revoked));
        X509_REVOKED_set_revocationDate(r, from);
        X509_CRL_add0_revoked(crl, r);
    }
    if (spec->extension != 0) {
        ASN1_INTEGER *base = ASN1_INTEGER_new();
        ASN1_INTEGER_set(base, 1);
        assert_int_equal(X509_CRL_add1_ext_i2d(crl, spec->extension, base, 1, 0), 1);
        ASN1_INTEGER_free(base);
    }
    assert_int_not_equal(X509_CRL_sign(crl, issuer->key, EVP_sha256()), 0);
    ASN1_TIME_free(from);
    ASN1_TIME_free(to);
    return crl;
}

static struct judged judge_lists(struct world *w, X509_CRL *first, X509_CRL *second, X509 *leaf,
                                 bool again)
{
    STACK_OF(X509_CRL) *crls = sk_X509_CRL_new_null();
    sk_X509_CRL_push(crls, first);
    if (second != NULL) {
        sk_X509_CRL_push(crls, second);
    }
    struct x509_peers *peers = peers_of(w->root.cert, crls);
    struct judged j = judge(peers, NULL, leaf, w->middle.cert, true, again);
    sk_X509_CRL_pop_free(crls, X509_CRL_free);
    x509_peers_unref(peers);
    return j;
}

static void test_lists(void **state)
{
    struct world *w = *state;
    struct certs_spec spec = leaf_named(NULL, STR_LIT("a.b"), "x");
    struct certs_pair leaf = certs_make(&spec, &w->middle);
    const struct list_spec good = {-60, 3600, NULL, 0}, old = {-3600, -60, NULL, 0},
                           young = {60, 3600, NULL, 0}, leaf_out = {-60, 3600, leaf.cert, 0},
                           middle_out = {-60, 3600, w->middle.cert, 0},
                           old_leaf_out = {-3600, -60, leaf.cert, 0};
    struct {
        const char *what;
        const struct list_spec *root, *middle;
        const struct certs_pair *middle_by;
        bool again;
        enum x509_verdict verdict;
    } cases[] = {
        {"no list of the intermediate", &good, NULL, NULL, false, X509_NO_CRL},
        {"leaf revoked", &good, &leaf_out, &w->middle, false, X509_IS_REVOKED},
        {"intermediate revoked", &middle_out, &good, &w->middle, false, X509_IS_REVOKED},
        {"outdated", &good, &old, &w->middle, false, X509_NO_CRL},
        {"the root's is outdated", &old, &good, &w->middle, false, X509_NO_CRL},
        {"of the future", &young, &good, &w->middle, false, X509_NO_CRL},
        {"outdated and revoked", &good, &old_leaf_out, &w->middle, false, X509_IS_REVOKED},
        {"outdated, of a connection that stands", &good, &old, &w->middle, true, X509_OK},
        {"revoked, of a connection that stands", &good, &leaf_out, &w->middle, true,
         X509_IS_REVOKED},
        {"good", &good, &good, &w->middle, false, X509_OK},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        X509_CRL *first = make_list(&w->root, cases[i].root);
        X509_CRL *second =
            cases[i].middle != NULL ? make_list(cases[i].middle_by, cases[i].middle) : NULL;
        struct judged j = judge_lists(w, first, second, leaf.cert, cases[i].again);
        if (j.verdict != cases[i].verdict) {
            fail_msg("%s: %s: %s", cases[i].what, x509_verdict_name(j.verdict), j.err.what);
        }
    }
    certs_free(&leaf);
}

/* The intermediate stands among the authorities, beside its root: paths end at it. */
static void test_list_above_an_anchor(void **state)
{
    struct world *w = *state;
    struct certs_spec spec = leaf_named(NULL, STR_LIT("a.b"), "x");
    struct certs_pair leaf = certs_make(&spec, &w->middle);
    const struct list_spec good = {-60, 3600, NULL, 0};
    const struct list_spec middle_out = {-60, 3600, w->middle.cert, 0};
    X509 *both[] = {w->root.cert, w->middle.cert};
    for (size_t i = 0; i < 3; i++) { /* the root's list: none, good, and with the intermediate */
        STACK_OF(X509) *cas = certs_stack(both, 2);
        STACK_OF(X509_CRL) *crls = sk_X509_CRL_new_null();
        struct x509_peers *peers = NULL;
        struct err err = ERR_INIT;
        sk_X509_CRL_push(crls, make_list(&w->middle, &good));
        if (i > 0) {
            sk_X509_CRL_push(crls, make_list(&w->root, i == 1 ? &good : &middle_out));
        }
        assert_int_equal(x509_peers_new_ordinary(cas, crls, &peers, &err), 0);
        struct judged j = judge(peers, NULL, leaf.cert, w->middle.cert, true, false);
        assert_int_equal(j.verdict, i == 2 ? X509_IS_REVOKED : X509_OK);
        sk_X509_CRL_pop_free(crls, X509_CRL_free);
        sk_X509_free(cas);
        x509_peers_unref(peers);
    }
    certs_free(&leaf);
}

static void refused_list(struct world *w, X509_CRL *crl, const char *why)
{
    STACK_OF(X509_CRL) *crls = sk_X509_CRL_new_null();
    STACK_OF(X509) *cas = certs_stack(&w->root.cert, 1);
    struct x509_peers *peers = NULL;
    struct err err = ERR_INIT;
    sk_X509_CRL_push(crls, crl);
    assert_int_equal(x509_peers_new_ordinary(cas, crls, &peers, &err), -1);
    if (strstr(err.what, why) == NULL) {
        fail_msg("not '%s': %s", why, err.what);
    }
    sk_X509_CRL_pop_free(crls, X509_CRL_free);
    sk_X509_free(cas);
}

static void test_refused_lists(void **state)
{
    struct world *w = *state;
    struct list_spec spec = {-60, 3600, NULL, NID_delta_crl};
    refused_list(w, make_list(&w->root, &spec), "incremental");
    spec.extension = 0;
    refused_list(w, make_list(&w->other, &spec), "not signed by that authority");
}

static void test_equal(void **state)
{
    struct world *w = *state;
    struct x509_peers *same = peers_of(w->root.cert, NULL);
    struct x509_peers *other = peers_of(w->other.cert, NULL);
    struct x509_trust *trust = x509_trust_new();
    struct x509_peers *spiffe = x509_peers_new_spiffe(trust);
    assert_true(x509_peers_equal(w->peers, same));
    assert_false(x509_peers_equal(w->peers, other));
    assert_false(x509_peers_equal(w->peers, spiffe));
    assert_int_equal(x509_peers_count(w->peers), 1);
    assert_null(x509_peers_trust(w->peers));
    assert_ptr_equal(x509_peers_trust(spiffe), trust);
    x509_peers_unref(same);
    x509_peers_unref(other);
    x509_peers_unref(spiffe);
    x509_trust_unref(trust);
}

/* A SPIFFE peer stays who it is; names only narrow. */
static void test_spiffe(void **state)
{
    (void)state;
    struct certs_spec root_spec = certs_ca("spiffe://a.b"), spec = certs_leaf("spiffe://a.b/x");
    struct certs_pair root = certs_make(&root_spec, NULL), leaf = certs_make(&spec, &root);
    size_t len = 0;
    uint8_t *der = certs_der(&root.cert, 1, &len);
    struct x509_trust *trust = x509_trust_new();
    assert_int_equal(x509_trust_add(trust, STR_LIT("a.b"), (struct str){(char *)der, len}, NULL),
                     0);
    struct x509_peers *peers = x509_peers_new_spiffe(trust);
    struct x509_names *names = x509_names_new(false);
    assert_int_equal(x509_names_add(names, X509_NAME_URI, STR_LIT("spiffe://a.b/y/**"), NULL), 0);
    struct judged j = judge(peers, names, leaf.cert, NULL, false, false);
    assert_int_equal(j.verdict, X509_NOT_ALLOWED);
    assert_string_equal(j.peer.id, "spiffe://a.b/x");
    assert_int_equal(x509_names_add(names, X509_NAME_URI, STR_LIT("spiffe://a.b/*"), NULL), 0);
    j = judge(peers, names, leaf.cert, NULL, false, false);
    assert_int_equal(j.verdict, X509_OK);
    assert_string_equal(j.peer.id, "spiffe://a.b/x");
    x509_names_unref(names);
    x509_peers_unref(peers);
    x509_trust_unref(trust);
    free(der);
    certs_free(&leaf);
    certs_free(&root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_uris),
        cmocka_unit_test(test_hosts),
        cmocka_unit_test(test_bad_names),
        cmocka_unit_test_setup_teardown(test_names, setup, teardown),
        cmocka_unit_test_setup_teardown(test_demanded_host, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nameless, setup, teardown),
        cmocka_unit_test_setup_teardown(test_paths, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_authorities, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lists, setup, teardown),
        cmocka_unit_test_setup_teardown(test_list_above_an_anchor, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused_lists, setup, teardown),
        cmocka_unit_test_setup_teardown(test_equal, setup, teardown),
        cmocka_unit_test(test_spiffe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
