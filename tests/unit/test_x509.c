/* X509-SVID.md: judging peers. What must be refused first, each case named after its clause. */
#include <postern/x509.h>

#include "certs.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* Two trust domains, the name of one a prefix of the other's, and their authorities. */
struct world {
    struct certs_pair root, mid; /* of a.b */
    struct certs_pair foreign;   /* the root of a.bc */
    struct x509_trust *trust;
};

static void trust_add(struct x509_trust *t, const char *td, X509 *cert)
{
    struct err err = ERR_INIT;
    size_t len = 0;
    uint8_t *der = certs_der(&cert, 1, &len);
    if (x509_trust_add(t, str_of(td), (struct str){(char *)der, len}, &err) == -1) {
        fail_msg("%s", err.what);
    }
    free(der);
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    struct certs_spec spec = certs_ca("spiffe://a.b");
    w->root = certs_make(&spec, NULL);
    spec.common_name = "intermediate";
    w->mid = certs_make(&spec, &w->root);
    spec = certs_ca("spiffe://a.bc");
    spec.common_name = "foreign authority";
    w->foreign = certs_make(&spec, NULL);
    w->trust = x509_trust_new();
    trust_add(w->trust, "a.b", w->root.cert);
    trust_add(w->trust, "a.bc", w->foreign.cert);
    assert_int_equal(x509_trust_add(w->trust, STR_LIT("empty.org"), STR_NONE, NULL), 0);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    certs_free(&w->root);
    certs_free(&w->mid);
    certs_free(&w->foreign);
    assert_null(x509_trust_unref(w->trust));
    free(w);
    return 0;
}

struct outcome {
    enum x509_verdict verdict;
    struct x509_peer peer;
    struct err err;
    char text[1200];
};

static struct outcome judge_as(const struct world *w, X509 *leaf, X509 *const *above, size_t n,
                               bool is_server, int64_t now_s)
{
    struct outcome o = {.err = ERR_INIT};
    STACK_OF(X509) *chain = certs_stack(above, n);
    o.verdict = x509_verify_svid(w->trust, leaf, chain, is_server, now_s, &o.peer, &o.err);
    sk_X509_free(chain);
    err_text(&o.err, o.text, sizeof(o.text));
    struct x509_peer peer;
    STACK_OF(X509) *again = certs_stack(above, n);
    assert_int_equal(x509_verify_svid(w->trust, leaf, again, is_server, now_s, &peer, NULL),
                     o.verdict);
    sk_X509_free(again);
    return o;
}

static struct outcome judge(const struct world *w, const struct certs_pair *leaf,
                            const struct certs_pair *mid)
{
    return judge_as(w, leaf->cert, mid != NULL ? &mid->cert : NULL, mid != NULL ? 1 : 0, false,
                    CERTS_NOW);
}

static void expect(const char *name, const struct outcome *o, enum x509_verdict verdict,
                   const char *says)
{
    if (o->verdict != verdict) {
        fail_msg("%s: %s (%s), expected %s", name, x509_verdict_name(o->verdict), o->text,
                 x509_verdict_name(verdict));
    }
    if (says != NULL && strstr(o->text, says) == NULL) {
        fail_msg("%s: '%s' does not say \"%s\"", name, o->text, says);
    }
}

/* --- leaves that differ from a proper one in one point ---------------------------------------- */

#define CHANGE(name, what)                                                                         \
    static void name(struct certs_spec *s)                                                         \
    {                                                                                              \
        what;                                                                                      \
    }
CHANGE(no_change, (void)s)
CHANGE(two_uris, s->uris[1] = STR_LIT("spiffe://a.b/other"))
CHANGE(same_uri_twice, s->uris[1] = s->uris[0])
CHANGE(uri_and_web_uri, s->uris[1] = STR_LIT("https://a.b/"))
CHANGE(no_names, s->uris[0] = STR_NONE)
CHANGE(dns_only, (s->uris[0] = STR_NONE, s->dns = STR_LIT("spiffe.a.b")))
CHANGE(dns_first, s->dns = STR_LIT("svc.a.b"))
CHANGE(web_uri, s->uris[0] = STR_LIT("https://a.b/x"))
CHANGE(empty_uri, s->uris[0] = STR_LIT(""))
CHANGE(nul_in_path, s->uris[0] = STR_LIT("spiffe://a.b/x\0y"))
CHANGE(nul_in_domain, s->uris[0] = STR_LIT("spiffe://a.b\0.evil/x"))
CHANGE(upper_scheme, s->uris[0] = STR_LIT("SPIFFE://a.b/x"))
CHANGE(upper_domain, s->uris[0] = STR_LIT("spiffe://A.B/x"))
CHANGE(percent, s->uris[0] = STR_LIT("spiffe://a.b/%78"))
CHANGE(trailing_slash, s->uris[0] = STR_LIT("spiffe://a.b/x/"))
CHANGE(dot_segments, s->uris[0] = STR_LIT("spiffe://a.b/y/../x"))
CHANGE(no_path, s->uris[0] = STR_LIT("spiffe://a.b"))
CHANGE(unknown_domain, s->uris[0] = STR_LIT("spiffe://elsewhere.org/x"))
CHANGE(empty_bundle, s->uris[0] = STR_LIT("spiffe://empty.org/x"))
CHANGE(other_domain, s->uris[0] = STR_LIT("spiffe://a.bc/x"))
CHANGE(ca_bit, s->ca = true)
CHANGE(cert_sign, s->key_usage |= KU_KEY_CERT_SIGN)
CHANGE(crl_sign, s->key_usage |= KU_CRL_SIGN)
CHANGE(no_digital_signature, s->key_usage = KU_KEY_ENCIPHERMENT)
CHANGE(no_key_usage, s->no_key_usage = true)
CHANGE(server_only, s->purposes = CERTS_SERVER_AUTH)
CHANGE(client_only, s->purposes = CERTS_CLIENT_AUTH)
CHANGE(code_signing, s->purposes = CERTS_CODE_SIGNING)
CHANGE(no_purposes, s->purposes = 0)
CHANGE(no_constraints, s->no_constraints = true)
CHANGE(key_usage_not_critical, s->key_usage_not_critical = true)
CHANGE(extra_key_usage, s->key_usage |= KU_KEY_ENCIPHERMENT | KU_KEY_AGREEMENT)
CHANGE(expired, s->not_after_s = CERTS_NOW - 1)
CHANGE(not_yet, s->not_before_s = CERTS_NOW + 1)
CHANGE(unknown_critical, s->unknown_critical = true)
CHANGE(sha1, s->sha1 = true)
CHANGE(rsa1024, s->key = CERTS_RSA1024)
CHANGE(rsa2048, s->key = CERTS_RSA2048)
CHANGE(p384, s->key = CERTS_P384)
CHANGE(broken, s->broken_signature = true)

static const struct {
    const char *clause;
    void (*change)(struct certs_spec *s);
    enum x509_verdict verdict;
    const char *says; /* NULL: nothing special */
} leaves[] = {
    {"2 two URI names", two_uris, X509_BAD_ID, "has 2 URI names"},
    {"2 the same URI twice", same_uri_twice, X509_BAD_ID, "has 2 URI names"},
    {"2 a web address beside it", uri_and_web_uri, X509_BAD_ID, "has 2 URI names"},
    {"2 no names", no_names, X509_BAD_ID, "no URI name"},
    {"2 DNS name only", dns_only, X509_BAD_ID, "has 0 URI names"},
    {"5.2 scheme https", web_uri, X509_BAD_ID, "does not begin with 'spiffe://'"},
    {"empty URI", empty_uri, X509_BAD_ID, NULL},
    {"NUL in the path", nul_in_path, X509_BAD_ID, "0x00"},
    {"NUL in the trust domain", nul_in_domain, X509_BAD_ID, "0x00"},
    {"upper case in the scheme", upper_scheme, X509_BAD_ID, NULL},
    {"upper case in the trust domain", upper_domain, X509_BAD_ID, "lower case"},
    {"percent-encoding", percent, X509_BAD_ID, "percent-encoding"},
    {"trailing slash", trailing_slash, X509_BAD_ID, "trailing slash"},
    {"dot segments", dot_segments, X509_BAD_ID, "'..'"},
    {"3.1 ID without a path", no_path, X509_BAD_ID, "has a path"},
    {"5.2 CA flag", ca_bit, X509_BAD_LEAF, "is a CA's"},
    {"5.2 keyCertSign", cert_sign, X509_BAD_LEAF, "keyCertSign"},
    {"5.2 cRLSign", crl_sign, X509_BAD_LEAF, "cRLSign"},
    {"4.3 no digitalSignature", no_digital_signature, X509_BAD_LEAF, "digitalSignature"},
    {"4.3 no key usage", no_key_usage, X509_BAD_LEAF, "no key usage"},
    {"4.4 server's purpose only, as client", server_only, X509_BAD_LEAF, "not for a TLS client"},
    {"4.4 neither purpose", code_signing, X509_BAD_LEAF, "extended key usage"},
    {"no bundle for the trust domain", unknown_domain, X509_UNKNOWN_DOMAIN, "elsewhere.org/x"},
    {"an empty bundle trusts nothing", empty_bundle, X509_BAD_CHAIN, "is empty"},
    {"another domain's authority mints our name", other_domain, X509_BAD_CHAIN, "'a.bc'"},
    {"expired leaf", expired, X509_EXPIRED,
     "to 2025-12-31T23:59:59Z, judged at 2026-01-01T00:00:00Z"},
    {"not yet valid", not_yet, X509_EXPIRED, "not valid yet: valid from 2026-01-01T00:00:01Z"},
    {"unknown critical extension", unknown_critical, X509_BAD_CHAIN, "critical"},
    {"SHA-1", sha1, X509_BAD_CHAIN, NULL},
    {"RSA of 1024 bits", rsa1024, X509_BAD_CHAIN, NULL},
    {"broken signature", broken, X509_BAD_CHAIN, "signature"},
    {"proper", no_change, X509_OK, NULL},
    {"2 a DNS name before the URI", dns_first, X509_OK, NULL},
    {"4.3 key encipherment and agreement", extra_key_usage, X509_OK, NULL},
    {"4.4 no extended key usage", no_purposes, X509_OK, NULL},
    {"4.4 client's purpose only, as client", client_only, X509_OK, NULL},
    {"no basic constraints means no CA", no_constraints, X509_OK, NULL},
    {"5.2 does not ask for a critical key usage", key_usage_not_critical, X509_OK, NULL},
    {"RSA of 2048 bits", rsa2048, X509_OK, NULL},
    {"P-384", p384, X509_OK, NULL},
};

static void test_leaves(void **state)
{
    const struct world *w = *state;
    for (size_t i = 0; i < sizeof(leaves) / sizeof(leaves[0]); i++) {
        struct certs_spec spec = certs_leaf("spiffe://a.b/x");
        leaves[i].change(&spec);
        /* Directly under the root, and under the intermediate: the answer is the same. */
        for (int via_mid = 0; via_mid < 2; via_mid++) {
            struct certs_pair leaf = certs_make(&spec, via_mid == 1 ? &w->mid : &w->root);
            struct outcome o = judge(w, &leaf, via_mid == 1 ? &w->mid : NULL);
            expect(leaves[i].clause, &o, leaves[i].verdict, leaves[i].says);
            if (o.verdict == X509_OK) {
                assert_string_equal(o.peer.id, "spiffe://a.b/x");
                assert_int_equal(o.peer.id_len, 14);
                assert_int_equal(o.peer.not_after_s, CERTS_NOW + 3600);
                assert_int_equal(o.err.code, ERR_NONE);
            }
            certs_free(&leaf);
        }
    }
}

static void test_server_role(void **state)
{
    const struct world *w = *state;
    struct certs_spec spec = certs_leaf("spiffe://a.b/x");
    spec.purposes = CERTS_CLIENT_AUTH;
    struct certs_pair leaf = certs_make(&spec, &w->root);
    struct outcome o = judge_as(w, leaf.cert, NULL, 0, true, CERTS_NOW);
    expect("4.4 client's purpose only, as server", &o, X509_BAD_LEAF, "not for a TLS server");
    certs_free(&leaf);
    spec.purposes = CERTS_SERVER_AUTH;
    leaf = certs_make(&spec, &w->root);
    o = judge_as(w, leaf.cert, NULL, 0, true, CERTS_NOW);
    expect("4.4 server's purpose only, as server", &o, X509_OK, NULL);
    certs_free(&leaf);
}

static void test_no_certificate(void **state)
{
    struct outcome o = judge_as(*state, NULL, NULL, 0, false, CERTS_NOW);
    expect("no certificate", &o, X509_NO_CERTIFICATE, "sent no certificate");
    assert_string_equal(o.peer.id, "");
}

/* What a refused peer shows goes into the log: nothing but printable ASCII. */
static void test_shown_id_is_clean(void **state)
{
    const struct world *w = *state;
    struct certs_spec spec = certs_leaf(NULL);
    spec.uris[0] = STR_LIT("spiffe://a.b/\x1b[31m\nx\0y");
    struct certs_pair leaf = certs_make(&spec, &w->root);
    struct outcome o = judge(w, &leaf, NULL);
    expect("control bytes", &o, X509_BAD_ID, "0x1b");
    assert_string_equal(o.peer.id, "spiffe://a.b/?[31m?x?y");
    certs_free(&leaf);
}

/* 2048 bytes are taken; one more is refused and cut for the log. */
static void test_long_ids(void **state)
{
    const struct world *w = *state;
    char uri[SPIFFE_ID_MAX + 1];
    memset(uri, 'x', sizeof(uri));
    memcpy(uri, "spiffe://a.b/", 13);
    struct certs_spec spec = certs_leaf(NULL);
    for (size_t over = 0; over < 2; over++) {
        spec.uris[0] = (struct str){uri, SPIFFE_ID_MAX + over};
        struct certs_pair leaf = certs_make(&spec, &w->root);
        struct outcome o = judge(w, &leaf, NULL);
        expect("2048", &o, over == 0 ? X509_OK : X509_BAD_ID, over == 0 ? NULL : "2049 bytes");
        assert_int_equal(o.peer.id_len, SPIFFE_ID_MAX);
        certs_free(&leaf);
    }
}

/* --- who signed ------------------------------------------------------------------------------- */

static void test_foreign_authority(void **state)
{
    const struct world *w = *state;
    struct certs_spec spec = certs_leaf("spiffe://a.b/x");
    struct certs_pair leaf = certs_make(&spec, &w->foreign);
    struct outcome o = judge(w, &leaf, &w->foreign);
    expect("a trusted but foreign root mints our name", &o, X509_BAD_CHAIN, "bundle of 'a.b'");
    certs_free(&leaf);

    spec = certs_leaf("spiffe://a.bc/x");
    leaf = certs_make(&spec, &w->foreign);
    o = judge(w, &leaf, NULL);
    expect("the foreign domain's own workload", &o, X509_OK, NULL);
    certs_free(&leaf);
}

static void test_self_signed(void **state)
{
    const struct world *w = *state;
    struct certs_spec spec = certs_leaf("spiffe://a.b/x");
    struct certs_pair leaf = certs_make(&spec, NULL);
    struct outcome o = judge(w, &leaf, NULL);
    expect("self-signed leaf", &o, X509_BAD_CHAIN, "self");
    o = judge(w, &leaf, &leaf);
    expect("self-signed leaf that sends itself", &o, X509_BAD_CHAIN, NULL);

    /* It cannot get into a bundle, where OpenSSL would take it as it is. */
    struct err err = ERR_INIT;
    size_t len = 0;
    struct x509_trust *t = x509_trust_new();
    uint8_t *der = certs_der(&leaf.cert, 1, &len);
    struct str ders = {(char *)der, len};
    assert_int_equal(x509_trust_add(t, STR_LIT("a.b"), ders, &err), -1);
    assert_non_null(strstr(err.what, "not a CA certificate"));
    assert_int_equal(x509_trust_count(t), 0);
    x509_trust_unref(t);
    free(der);

    /* The root of the bundle, shown as a leaf. */
    o = judge(w, &w->root, NULL);
    expect("a root authenticates", &o, X509_BAD_ID, "has a path");
    certs_free(&leaf);

    spec.ca = true;
    spec.key_usage |= KU_KEY_CERT_SIGN;
    struct certs_pair root_leaf = certs_make(&spec, NULL);
    struct world other = {.trust = x509_trust_new()};
    trust_add(other.trust, "a.b", root_leaf.cert);
    o = judge(&other, &root_leaf, NULL);
    expect("3.2 a signing certificate of the bundle with a path", &o, X509_BAD_LEAF, "never");
    x509_trust_unref(other.trust);
    certs_free(&root_leaf);
}

static void test_unsent_intermediate(void **state)
{
    const struct world *w = *state;
    struct certs_spec spec = certs_leaf("spiffe://a.b/x");
    struct certs_pair leaf = certs_make(&spec, &w->mid);
    struct outcome o = judge(w, &leaf, NULL);
    expect("intermediate not sent", &o, X509_BAD_CHAIN, "issuer");
    o = judge(w, &leaf, &w->foreign);
    expect("another certificate sent", &o, X509_BAD_CHAIN, "issuer");
    certs_free(&leaf);
}

static void test_leaf_signs_leaf(void **state)
{
    const struct world *w = *state;
    struct certs_spec spec = certs_leaf("spiffe://a.b/x");
    struct certs_pair workload = certs_make(&spec, &w->root);
    spec = certs_leaf("spiffe://a.b/admin");
    struct certs_pair minted = certs_make(&spec, &workload);
    struct outcome o = judge(w, &minted, &workload);
    expect("a workload signs", &o, X509_BAD_CHAIN, NULL);
    certs_free(&minted);
    certs_free(&workload);
}

/* What is wrong with an intermediate, between a good root and a good leaf. */
static const struct {
    const char *clause;
    const char *uri;
    const char *uri2;
    int path_len;
    unsigned key_usage;
    bool no_key_usage;
    bool not_ca;
    int64_t from_s, until_s; /* relative to now; 0: as usual */
    enum x509_verdict verdict;
    const char *says;
} mids[] = {
    {.clause = "3.2 another trust domain's authority",
     .uri = "spiffe://a.bc",
     .verdict = X509_BAD_CHAIN,
     .says = "it is the authority 'spiffe://a.bc', not that of 'a.b'"},
    {.clause = "3.2 an authority's ID has no path",
     .uri = "spiffe://a.b/ca",
     .verdict = X509_BAD_CHAIN,
     .says = "it is the authority"},
    {.clause = "3.2 a second ID, in disguise",
     .uri = "spiffe://a.b",
     .uri2 = "SPIFFE://a.bc",
     .verdict = X509_BAD_CHAIN,
     .says = "SPIFFE://a.bc"},
    {.clause = "4.3 no keyCertSign",
     .uri = "spiffe://a.b",
     .key_usage = KU_DIGITAL_SIGNATURE,
     .verdict = X509_BAD_CHAIN},
    {.clause = "4.3 no key usage",
     .uri = "spiffe://a.b",
     .no_key_usage = true,
     .verdict = X509_BAD_CHAIN,
     .says = "keyCertSign"},
    {.clause = "4.1 no CA", .uri = "spiffe://a.b", .not_ca = true, .verdict = X509_BAD_CHAIN},
    {.clause = "expired intermediate",
     .uri = "spiffe://a.b",
     .from_s = -7200,
     .until_s = -3600,
     .verdict = X509_EXPIRED,
     .says = "intermediate 1 above it"},
    {.clause = "intermediate of tomorrow",
     .uri = "spiffe://a.b",
     .from_s = 3600,
     .until_s = 7200,
     .verdict = X509_EXPIRED,
     .says = "not valid yet"},
    {.clause = "3.2 an authority without an ID", .verdict = X509_OK},
    {.clause = "3.2 a web address is no ID", .uri = "https://ca.example", .verdict = X509_OK},
    {.clause = "4.1 path length zero", .uri = "spiffe://a.b", .verdict = X509_OK},
    {.clause = "the earliest end of the chain",
     .uri = "spiffe://a.b",
     .from_s = -60,
     .until_s = 60,
     .verdict = X509_OK},
};

static void test_intermediates(void **state)
{
    const struct world *w = *state;
    for (size_t i = 0; i < sizeof(mids) / sizeof(mids[0]); i++) {
        struct certs_spec spec = certs_ca(mids[i].uri);
        spec.common_name = "middle";
        spec.uris[1] = str_of(mids[i].uri2);
        spec.path_len = mids[i].path_len;
        spec.no_key_usage = mids[i].no_key_usage;
        spec.ca = !mids[i].not_ca;
        if (mids[i].key_usage != 0) {
            spec.key_usage = mids[i].key_usage;
        }
        if (mids[i].until_s != 0) {
            spec.not_before_s = CERTS_NOW + mids[i].from_s;
            spec.not_after_s = CERTS_NOW + mids[i].until_s;
        }
        struct certs_pair mid = certs_make(&spec, &w->root);
        spec = certs_leaf("spiffe://a.b/x");
        struct certs_pair leaf = certs_make(&spec, &mid);
        struct outcome o = judge(w, &leaf, &mid);
        expect(mids[i].clause, &o, mids[i].verdict, mids[i].says);
        if (o.verdict == X509_OK) {
            assert_int_equal(o.peer.not_after_s,
                             CERTS_NOW + (mids[i].until_s != 0 ? mids[i].until_s : 3600));
        }
        certs_free(&leaf);
        certs_free(&mid);
    }
}

static void test_expired_root(void **state)
{
    const struct world *w = *state;
    struct certs_spec spec = certs_leaf("spiffe://a.b/x");
    spec.not_after_s = CERTS_NOW + 1000000;
    struct certs_pair leaf = certs_make(&spec, &w->root);
    struct outcome o = judge_as(w, leaf.cert, NULL, 0, false, CERTS_NOW + 86400 + 1);
    expect("expired root", &o, X509_EXPIRED, "the root above it");
    o = judge_as(w, leaf.cert, NULL, 0, false, CERTS_NOW + 86400 - 1);
    expect("root in its last second", &o, X509_OK, NULL);
    assert_int_equal(o.peer.not_after_s, CERTS_NOW + 86400);
    certs_free(&leaf);
}

/* A root that signs the authorities of two domains is in both bundles: the one's authority must not
 * mint the other's names, whichever way round the chain comes. */
static void test_shared_root(void **state)
{
    (void)state;
    struct certs_spec spec = certs_ca(NULL);
    spec.common_name = "enterprise root";
    struct certs_pair root = certs_make(&spec, NULL);
    spec = certs_ca("spiffe://b.org");
    spec.common_name = "authority of b.org";
    struct certs_pair theirs = certs_make(&spec, &root);
    spec = certs_ca("spiffe://a.org");
    spec.common_name = "authority of a.org, made by b.org's";
    struct certs_pair forged = certs_make(&spec, &theirs);
    struct world w = {.trust = x509_trust_new()};
    trust_add(w.trust, "a.org", root.cert);
    trust_add(w.trust, "b.org", root.cert);

    spec = certs_leaf("spiffe://a.org/x");
    struct certs_pair leaf = certs_make(&spec, &theirs);
    struct outcome o = judge(&w, &leaf, &theirs);
    expect("minted directly", &o, X509_BAD_CHAIN, "authority 'spiffe://b.org'");
    certs_free(&leaf);
    leaf = certs_make(&spec, &forged);
    X509 *above[] = {forged.cert, theirs.cert};
    o = judge_as(&w, leaf.cert, above, 2, false, CERTS_NOW);
    expect("minted through an authority of their making", &o, X509_BAD_CHAIN, "spiffe://b.org");
    certs_free(&leaf);
    spec = certs_leaf("spiffe://b.org/x");
    leaf = certs_make(&spec, &theirs);
    o = judge(&w, &leaf, &theirs);
    expect("their own", &o, X509_OK, NULL);
    certs_free(&leaf);

    /* Their authority in our bundle, by mistake or while domains merge: no leaves of ours. */
    struct world merged = {.trust = x509_trust_new()};
    trust_add(merged.trust, "a.org", theirs.cert);
    spec = certs_leaf("spiffe://a.org/x");
    leaf = certs_make(&spec, &theirs);
    o = judge(&merged, &leaf, NULL);
    expect("minted by an anchor of theirs", &o, X509_BAD_CHAIN, "authority 'spiffe://b.org'");
    certs_free(&leaf);
    leaf = certs_make(&spec, &forged);
    o = judge(&merged, &leaf, &forged);
    expect("3.2 an anchor may sign authorities of other domains", &o, X509_OK, NULL);
    certs_free(&leaf);
    x509_trust_unref(merged.trust);
    x509_trust_unref(w.trust);
    certs_free(&forged);
    certs_free(&theirs);
    certs_free(&root);
}

/* 6.1: a bundle's certificate should be self-signed, so it need not be. */
static void test_anchor_below_a_root(void **state)
{
    const struct world *w = *state;
    struct world other = {.trust = x509_trust_new()};
    trust_add(other.trust, "a.b", w->mid.cert);
    struct certs_spec spec = certs_leaf("spiffe://a.b/x");
    struct certs_pair leaf = certs_make(&spec, &w->mid);
    struct outcome o = judge(&other, &leaf, NULL);
    expect("anchor that another authority signed", &o, X509_OK, NULL);
    certs_free(&leaf);
    leaf = certs_make(&spec, &w->root);
    o = judge(&other, &leaf, &w->root);
    expect("the root above the anchor is none", &o, X509_BAD_CHAIN, NULL);
    certs_free(&leaf);
    x509_trust_unref(other.trust);
}

/* --- the shape of the chain ------------------------------------------------------------------- */

enum { LONGEST = 12 };

static void test_chain_length_and_order(void **state)
{
    const struct world *w = *state;
    struct certs_pair cas[LONGEST];
    X509 *above[LONGEST];
    for (int i = 0; i < LONGEST; i++) {
        char name[32];
        snprintf(name, sizeof(name), "level %d", i);
        struct certs_spec spec = certs_ca("spiffe://a.b");
        spec.common_name = name;
        cas[i] = certs_make(&spec, i == 0 ? &w->root : &cas[i - 1]);
        above[i] = cas[i].cert; /* from the root downwards: the wrong way round */
    }
    for (int n = 1; n <= LONGEST; n++) {
        struct certs_spec spec = certs_leaf("spiffe://a.b/x");
        struct certs_pair leaf = certs_make(&spec, &cas[n - 1]);
        struct outcome o = judge_as(w, leaf.cert, above, (size_t)n, false, CERTS_NOW);
        expect("chain", &o, n <= 8 ? X509_OK : X509_BAD_CHAIN, n <= 8 ? NULL : "too long");
        certs_free(&leaf);
    }
    struct certs_spec spec = certs_leaf("spiffe://a.b/x");
    struct certs_pair leaf = certs_make(&spec, &w->root);
    X509 *many[17];
    for (size_t i = 0; i < 17; i++) {
        many[i] = w->foreign.cert;
    }
    struct outcome o = judge_as(w, leaf.cert, many, 17, false, CERTS_NOW);
    expect("17 certificates sent", &o, X509_BAD_CHAIN, "more than 16");
    o = judge_as(w, leaf.cert, many, 16, false, CERTS_NOW);
    expect("16 that don't matter", &o, X509_OK, NULL);
    certs_free(&leaf);
    for (int i = 0; i < LONGEST; i++) {
        certs_free(&cas[i]);
    }
}

static void test_path_length(void **state)
{
    const struct world *w = *state;
    struct certs_spec spec = certs_ca("spiffe://a.b");
    spec.common_name = "no authority below";
    spec.path_len = 0;
    struct certs_pair first = certs_make(&spec, &w->root);
    spec.common_name = "below all the same";
    struct certs_pair second = certs_make(&spec, &first);
    spec = certs_leaf("spiffe://a.b/x");
    struct certs_pair leaf = certs_make(&spec, &second);
    X509 *above[] = {second.cert, first.cert};
    struct outcome o = judge_as(w, leaf.cert, above, 2, false, CERTS_NOW);
    expect("4.1 path length", &o, X509_BAD_CHAIN, "path length");
    certs_free(&leaf);
    certs_free(&second);
    certs_free(&first);
}

/* --- bundles ---------------------------------------------------------------------------------- */

static void test_trust_refusals(void **state)
{
    const struct world *w = *state;
    struct err err = ERR_INIT;
    struct x509_trust *t = x509_trust_new();
    size_t len = 0;
    uint8_t *der = certs_der(&w->root.cert, 1, &len);
    struct str ders = {(char *)der, len};
    struct str cut = {(char *)der, len - 1};
    assert_int_equal(x509_trust_add(t, STR_LIT("spiffe://a.b"), ders, &err), -1);
    assert_int_equal(x509_trust_add(t, STR_LIT("A.B"), ders, &err), -1);
    assert_int_equal(x509_trust_add(t, STR_LIT(""), ders, &err), -1);
    assert_int_equal(x509_trust_add(t, STR_LIT("a.b"), cut, &err), -1);
    assert_non_null(strstr(err.what, "bundle of 'a.b'"));
    assert_int_equal(x509_trust_add(t, STR_LIT("a.b"), STR_LIT("junk"), &err), -1);
    assert_int_equal(x509_trust_count(t), 0);
    assert_int_equal(x509_trust_add(t, STR_LIT("a.b"), ders, &err), 0);
    assert_int_equal(x509_trust_add(t, STR_LIT("a.b"), ders, &err), -1);
    assert_non_null(strstr(err.what, "twice"));
    assert_int_equal(x509_trust_count(t), 1);
    struct x509_trust *second = x509_trust_ref(t);
    assert_ptr_equal(second, t);
    assert_null(x509_trust_unref(second));
    assert_int_equal(x509_trust_count(t), 1);
    x509_trust_unref(t);
    assert_null(x509_trust_unref(NULL));
    free(der);
}

/* Many domains, added in no order: each is found, and none else. */
static void test_many_domains(void **state)
{
    const struct world *w = *state;
    char td[32];
    struct world many = {.trust = x509_trust_new()};
    for (unsigned i = 0; i < 200; i++) {
        snprintf(td, sizeof(td), "d%u.org", (i * 77) % 200);
        trust_add(many.trust, td, w->foreign.cert);
    }
    assert_int_equal(x509_trust_count(many.trust), 200);
    for (unsigned i = 0; i < 210; i++) {
        char uri[64];
        snprintf(uri, sizeof(uri), "spiffe://d%u.org/x", i);
        struct certs_spec spec = certs_leaf(uri);
        struct certs_pair leaf = certs_make(&spec, &w->root);
        struct outcome o = judge(&many, &leaf, NULL);
        expect(uri, &o, i < 200 ? X509_BAD_CHAIN : X509_UNKNOWN_DOMAIN, NULL);
        certs_free(&leaf);
    }
    x509_trust_unref(many.trust);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_leaves),
        cmocka_unit_test(test_server_role),
        cmocka_unit_test(test_no_certificate),
        cmocka_unit_test(test_shown_id_is_clean),
        cmocka_unit_test(test_long_ids),
        cmocka_unit_test(test_foreign_authority),
        cmocka_unit_test(test_self_signed),
        cmocka_unit_test(test_unsent_intermediate),
        cmocka_unit_test(test_leaf_signs_leaf),
        cmocka_unit_test(test_intermediates),
        cmocka_unit_test(test_expired_root),
        cmocka_unit_test(test_shared_root),
        cmocka_unit_test(test_anchor_below_a_root),
        cmocka_unit_test(test_chain_length_and_order),
        cmocka_unit_test(test_path_length),
        cmocka_unit_test(test_trust_refusals),
        cmocka_unit_test(test_many_domains),
    };
    return cmocka_run_group_tests_name("x509", tests, setup, teardown);
}
