/* Keys, requests, certificates of our making, own identities: refusals first. */
#include <postern/x509.h>

#include "certs.h"
#include <openssl/x509v3.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

struct made {
    EVP_PKEY *key;
    uint8_t point[65];
};

static struct made made_new(void)
{
    struct made m = {.key = x509_key_new(NULL)};
    assert_non_null(m.key);
    assert_int_equal(x509_key_point(m.key, m.point, NULL), 0);
    return m;
}

static struct x509_issue leaf_of(const struct made *m, const char *id)
{
    return (struct x509_issue){.spiffe_id = str_of(id),
                               .point = m->point,
                               .not_before_s = CERTS_NOW - 10,
                               .not_after_s = CERTS_NOW + 3600};
}

static struct x509_issue ca_of(const struct made *m, const char *id)
{
    return (struct x509_issue){.spiffe_id = str_of(id),
                               .point = m->point,
                               .ca = true,
                               .path_len = -1,
                               .not_before_s = CERTS_NOW - 10,
                               .not_after_s = CERTS_NOW + 86400};
}

static void refuse(const struct x509_issue *what, X509 *issuer, EVP_PKEY *key, const char *says)
{
    struct err err = ERR_INIT;
    X509 *cert = NULL;
    assert_int_equal(x509_issue(what, issuer, key, &cert, &err), -1);
    assert_null(cert);
    if (strstr(err.what, says) == NULL) {
        fail_msg("'%s' does not say \"%s\"", err.what, says);
    }
}

static void test_issue_refusals(void **state)
{
    (void)state;
    struct made root_key = made_new();
    struct made leaf_key = made_new();
    X509 *root = NULL;
    X509 *leaf = NULL;
    struct x509_issue what = ca_of(&root_key, "spiffe://example.org");
    assert_int_equal(x509_issue(&what, NULL, root_key.key, &root, NULL), 0);

    what = ca_of(&leaf_key, "spiffe://example.org/path");
    refuse(&what, root, root_key.key, "has no path");
    what = leaf_of(&leaf_key, "spiffe://example.org");
    refuse(&what, root, root_key.key, "has a path");
    what = leaf_of(&leaf_key, "spiffe://Example.org/x");
    refuse(&what, root, root_key.key, "not a SPIFFE ID");
    what = leaf_of(&leaf_key, "spiffe://example.org/x");
    refuse(&what, root, leaf_key.key, "does not fit");
    what.not_before_s = CERTS_NOW + 86400;
    what.not_after_s = CERTS_NOW + 90000;
    refuse(&what, root, root_key.key, "expired");
    what = leaf_of(&leaf_key, "spiffe://example.org/x");
    what.not_after_s = what.not_before_s;
    refuse(&what, root, root_key.key, "times");

    static const char *const bad_names[] = {"",   "a..b", ".a",  "a.",  "a_b", "-a",
                                            "a-", "a.-b", "a b", "*.a", "a\n"};
    for (size_t i = 0; i < sizeof(bad_names) / sizeof(bad_names[0]); i++) {
        struct str name = str_of(bad_names[i]);
        what = leaf_of(&leaf_key, "spiffe://example.org/x");
        what.dns_names = &name;
        what.n_dns_names = 1;
        refuse(&what, root, root_key.key, "is not a DNS name");
    }
    uint8_t off_curve[65] = {4, 1, 2, 3};
    what = leaf_of(&leaf_key, "spiffe://example.org/x");
    what.point = off_curve;
    refuse(&what, root, root_key.key, "not a point");
    uint8_t infinity[65] = {0};
    what.point = infinity;
    refuse(&what, root, root_key.key, "uncompressed");

    /* A leaf never issues. */
    what = leaf_of(&leaf_key, "spiffe://example.org/x");
    assert_int_equal(x509_issue(&what, root, root_key.key, &leaf, NULL), 0);
    refuse(&what, leaf, leaf_key.key, "not a CA");
    X509_free(leaf);
    X509_free(root);
    EVP_PKEY_free(leaf_key.key);
    EVP_PKEY_free(root_key.key);
}

/* The extension's critical bit, -1 if it is not there. */
static int critical(X509 *cert, int nid)
{
    int at = X509_get_ext_by_NID(cert, nid, -1);
    return at == -1 ? -1 : X509_EXTENSION_get_critical(X509_get_ext(cert, at));
}

static X509 *reread(X509 *cert)
{
    uint8_t *der = NULL;
    size_t len = 0;
    assert_int_equal(x509_to_der(cert, &der, &len, NULL), 0);
    STACK_OF(X509) *certs = x509_chain_from_der((struct str){(char *)der, len}, NULL);
    assert_int_equal(sk_X509_num(certs), 1);
    X509 *read = sk_X509_shift(certs);
    sk_X509_free(certs);
    free(der);
    X509_free(cert);
    return read;
}

struct mesh {
    struct made root_key, mid_key, leaf_key;
    X509 *root, *mid, *leaf;
};

static struct mesh mesh_new(void)
{
    struct mesh m = {.root_key = made_new(), .mid_key = made_new(), .leaf_key = made_new()};
    struct str names[] = {STR_LIT("orders.example.org"), STR_LIT("orders")};
    struct x509_issue what = ca_of(&m.root_key, "spiffe://example.org");
    assert_int_equal(x509_issue(&what, NULL, m.root_key.key, &m.root, NULL), 0);
    what = ca_of(&m.mid_key, "spiffe://example.org");
    what.path_len = 0;
    what.not_after_s = CERTS_NOW + 1800;
    assert_int_equal(x509_issue(&what, m.root, m.root_key.key, &m.mid, NULL), 0);
    what = leaf_of(&m.leaf_key, "spiffe://example.org/orders");
    what.dns_names = names;
    what.n_dns_names = 2;
    assert_int_equal(x509_issue(&what, m.mid, m.mid_key.key, &m.leaf, NULL), 0);
    m.root = reread(m.root);
    m.mid = reread(m.mid);
    m.leaf = reread(m.leaf);
    return m;
}

static void mesh_free(struct mesh *m)
{
    X509_free(m->root);
    X509_free(m->mid);
    X509_free(m->leaf);
    EVP_PKEY_free(m->root_key.key);
    EVP_PKEY_free(m->mid_key.key);
    EVP_PKEY_free(m->leaf_key.key);
}

static void test_profile(void **state)
{
    (void)state;
    struct mesh m = mesh_new();
    char id[SPIFFE_ID_MAX + 1];
    /* Leaf: X509-SVID.md, the left column of the field reference. */
    assert_int_equal(X509_get_version(m.leaf), X509_VERSION_3);
    assert_int_equal(critical(m.leaf, NID_basic_constraints), 1);
    assert_int_equal(critical(m.leaf, NID_key_usage), 1);
    assert_int_equal(critical(m.leaf, NID_ext_key_usage), 0);
    assert_int_equal(critical(m.leaf, NID_subject_alt_name), 0);
    assert_int_equal(critical(m.leaf, NID_subject_key_identifier), 0);
    assert_int_equal(critical(m.leaf, NID_authority_key_identifier), 0);
    assert_int_equal(X509_get_key_usage(m.leaf), KU_DIGITAL_SIGNATURE);
    assert_int_equal(X509_get_extended_key_usage(m.leaf), XKU_SSL_SERVER | XKU_SSL_CLIENT);
    assert_int_equal(X509_get_extension_flags(m.leaf) & EXFLAG_CA, 0);
    assert_int_equal(x509_get_spiffe_id(m.leaf, id, NULL), 0);
    assert_string_equal(id, "spiffe://example.org/orders");
    assert_int_equal(X509_check_host(m.leaf, "orders.example.org", 0, 0, NULL), 1);
    assert_int_equal(X509_check_host(m.leaf, "orders", 0, 0, NULL), 1);
    assert_int_equal(X509_check_host(m.leaf, "other.example.org", 0, 0, NULL), 0);
    assert_true(X509_NAME_entry_count(X509_get_subject_name(m.leaf)) > 0);
    assert_int_equal(X509_NAME_get_index_by_NID(X509_get_subject_name(m.leaf), NID_commonName, -1),
                     -1);
    assert_true(ASN1_STRING_length(X509_get0_serialNumber(m.leaf)) >= 16);
    /* The issuer's end caps the leaf's. */
    assert_int_equal(x509_not_after_s(m.leaf), CERTS_NOW + 1800);

    X509 *const cas[] = {m.root, m.mid};
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(critical(cas[i], NID_basic_constraints), 1);
        assert_int_equal(critical(cas[i], NID_key_usage), 1);
        assert_int_equal(critical(cas[i], NID_ext_key_usage), -1);
        assert_int_equal(X509_get_key_usage(cas[i]), KU_KEY_CERT_SIGN | KU_CRL_SIGN);
        assert_int_equal(X509_check_ca(cas[i]), 1);
        assert_int_equal(x509_get_spiffe_id(cas[i], id, NULL), 0);
        assert_string_equal(id, "spiffe://example.org");
    }
    assert_int_equal(X509_get_pathlen(m.root), -1);
    assert_int_equal(X509_get_pathlen(m.mid), 0);
    assert_int_equal(X509_check_issued(m.root, m.root), X509_V_OK);
    assert_int_equal(X509_check_issued(m.root, m.mid), X509_V_OK);
    assert_int_equal(X509_check_issued(m.mid, m.leaf), X509_V_OK);
    assert_int_not_equal(X509_NAME_cmp(X509_get_subject_name(m.root), X509_get_subject_name(m.mid)),
                         0);
    mesh_free(&m);
}

static void test_issued_is_accepted(void **state)
{
    (void)state;
    struct mesh m = mesh_new();
    struct x509_trust *t = x509_trust_new();
    struct x509_peer peer;
    struct err err = ERR_INIT;
    size_t len = 0;
    uint8_t *der = certs_der(&m.root, 1, &len);
    assert_int_equal(
        x509_trust_add(t, STR_LIT("example.org"), (struct str){(char *)der, len}, NULL), 0);
    STACK_OF(X509) *chain = certs_stack(&m.mid, 1);
    for (int server = 0; server < 2; server++) {
        enum x509_verdict v =
            x509_verify_svid(t, m.leaf, chain, server == 1, CERTS_NOW, &peer, &err);
        if (v != X509_OK) {
            fail_msg("%s", err.what);
        }
    }
    assert_int_equal(peer.not_after_s, CERTS_NOW + 1800);
    assert_int_equal(strlen(peer.serial), 32);
    sk_X509_free(chain);
    free(der);
    x509_trust_unref(t);
    mesh_free(&m);
}

/* --- leaves by the thousand --------------------------------------------------------------------
 */

/* Everything but serial and signature is as x509_issue makes it, byte for byte. */
static void same_form(const struct x509_issue *what, X509 *issuer, EVP_PKEY *key,
                      struct x509_signer *s)
{
    struct x509_made made;
    struct err err = ERR_INIT;
    X509 *slow = NULL;
    uint8_t *bodies[2] = {NULL, NULL};
    int lens[2];
    assert_int_equal(x509_issue(what, issuer, key, &slow, NULL), 0);
    if (x509_signer_issue(s, what, &made, &err) == -1) {
        fail_msg("%s", err.what);
    }
    const unsigned char *p = made.der;
    X509 *quick = d2i_X509(NULL, &p, (long)made.len);
    assert_non_null(quick);
    assert_ptr_equal(p, made.der + made.len);
    assert_int_equal(X509_verify(quick, key), 1);
    assert_int_equal(made.not_after_s, x509_not_after_s(slow));
    const ASN1_INTEGER *serial = X509_get0_serialNumber(quick);
    assert_int_equal(ASN1_STRING_length(serial), 16);
    assert_memory_equal(ASN1_STRING_get0_data(serial), made.serial, 16);
    assert_int_equal(X509_set_serialNumber(slow, X509_get_serialNumber(quick)), 1);
    lens[0] = i2d_re_X509_tbs(slow, &bodies[0]);
    lens[1] = i2d_re_X509_tbs(quick, &bodies[1]);
    assert_true(lens[0] > 0);
    assert_int_equal(lens[0], lens[1]);
    assert_memory_equal(bodies[0], bodies[1], (size_t)lens[0]);
    /* and these are the bytes that were signed */
    assert_non_null(memmem(made.der, made.len, bodies[1], (size_t)lens[1]));
    OPENSSL_free(bodies[0]);
    OPENSSL_free(bodies[1]);
    X509_free(slow);
    X509_free(quick);
    free(made.der);
}

static void refuse_quick(struct x509_signer *s, const struct x509_issue *what, const char *says)
{
    struct x509_made made = {.der = NULL};
    struct err err = ERR_INIT;
    assert_int_equal(x509_signer_issue(s, what, &made, &err), -1);
    assert_null(made.der);
    if (strstr(err.what, says) == NULL) {
        fail_msg("'%s' does not say \"%s\"", err.what, says);
    }
}

static void test_signer_refusals(void **state)
{
    (void)state;
    struct mesh m = mesh_new();
    struct made subject = made_new();
    struct made other = made_new();
    struct err err = ERR_INIT;
    uint8_t bad[65];
    assert_null(x509_signer_new(m.mid, other.key, &err));
    assert_null(x509_signer_new(m.leaf, m.leaf_key.key, &err));
    struct x509_signer *s = x509_signer_new(m.mid, m.mid_key.key, NULL);
    assert_non_null(s);
    struct x509_issue what = leaf_of(&subject, "spiffe://example.org");
    refuse_quick(s, &what, "path");
    what = ca_of(&subject, "spiffe://example.org");
    refuse_quick(s, &what, "leaves only");
    what = leaf_of(&subject, "spiffe://example.org/x");
    what.not_before_s = CERTS_NOW + 10000000;
    what.not_after_s = CERTS_NOW + 10000001;
    refuse_quick(s, &what, "expired");
    what = leaf_of(&subject, "spiffe://example.org/x");
    what.point = bad;
    memset(bad, 0, sizeof(bad));
    refuse_quick(s, &what, "P-256");
    memcpy(bad, subject.point, sizeof(bad));
    bad[64] ^= 1;
    refuse_quick(s, &what, "P-256");
    for (unsigned form = 0; form < 256; form++) {
        memcpy(bad, subject.point, sizeof(bad));
        bad[0] = (uint8_t)form;
        assert_int_equal(x509_signer_takes(s, bad), form == 0x04);
    }
    memset(bad + 1, 0xff, sizeof(bad) - 1); /* coordinates beyond the field */
    bad[0] = 0x04;
    assert_false(x509_signer_takes(s, bad));
    struct str names[64];
    char name[64 * 4];
    memset(name, 'a', sizeof(name));
    for (size_t i = 63; i < sizeof(name); i += 64) {
        name[i] = '.';
    }
    for (size_t i = 0; i < 64; i++) {
        names[i] = (struct str){name, 253};
    }
    what = leaf_of(&subject, "spiffe://example.org/x");
    what.dns_names = names;
    what.n_dns_names = 64;
    refuse_quick(s, &what, "too large");
    x509_signer_unref(s);
    EVP_PKEY_free(subject.key);
    EVP_PKEY_free(other.key);
    mesh_free(&m);
}

static void test_signer(void **state)
{
    (void)state;
    struct mesh m = mesh_new();
    char id[SPIFFE_ID_MAX + 1] = "spiffe://example.org/";
    struct str names[16];
    for (size_t i = 0; i < 16; i++) {
        names[i] = STR_LIT("a-name.of-some.length.example.org");
    }
    struct x509_signer *s = x509_signer_new(m.mid, m.mid_key.key, NULL);
    assert_non_null(s);
    const int64_t ends[] = {0,          951782399,  951782400, 1709164800,
                            2524607999, 2524608000, 4102444800};
    for (size_t i = 0; i < 40; i++) {
        struct made subject = made_new();
        size_t n = i < 20 ? i + 1 : i * 50; /* lengths of one, two and three bytes */
        memset(id + 21, 'x', n);
        id[21 + n] = '\0';
        struct x509_issue what = leaf_of(&subject, id);
        what.dns_names = names;
        what.n_dns_names = i % 17;
        what.not_before_s = ends[i % 7] < CERTS_NOW ? ends[i % 7] : CERTS_NOW - 1;
        what.not_after_s = CERTS_NOW + (int64_t)i;
        same_form(&what, m.mid, m.mid_key.key, s);
        EVP_PKEY_free(subject.key);
    }
    x509_signer_unref(s);
    /* A root that lasts beyond 2049 signs too: its leaves' years have four digits. */
    s = x509_signer_new(m.root, m.root_key.key, NULL);
    struct made subject = made_new();
    struct x509_issue what = leaf_of(&subject, "spiffe://example.org/late");
    same_form(&what, m.root, m.root_key.key, s);
    EVP_PKEY_free(subject.key);
    x509_signer_unref(s);
    mesh_free(&m);
}

/* --- keys by the thousand ----------------------------------------------------------------------
 */

static void test_keygen(void **state)
{
    (void)state;
    struct x509_keygen *g = x509_keygen_new(NULL);
    uint8_t pkcs8[X509_PKCS8_LEN];
    uint8_t last[X509_PKCS8_LEN] = {0};
    uint8_t point[65];
    uint8_t again[65];
    uint8_t *slow = NULL;
    size_t n = 0;
    assert_non_null(g);
    for (int i = 0; i < 50; i++) {
        assert_int_equal(x509_keygen_make(g, pkcs8, point, NULL), 0);
        assert_memory_not_equal(pkcs8, last, sizeof(last));
        memcpy(last, pkcs8, sizeof(last));
        EVP_PKEY *key = x509_key_from_pkcs8((struct str){(char *)pkcs8, sizeof(pkcs8)}, NULL);
        assert_non_null(key);
        assert_int_equal(x509_key_point(key, again, NULL), 0);
        assert_memory_equal(point, again, sizeof(point));
        /* the number and the point belong together, and OpenSSL would write the same bytes */
        EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);
        assert_int_equal(EVP_PKEY_pairwise_check(ctx), 1);
        assert_int_equal(EVP_PKEY_check(ctx), 1);
        EVP_PKEY_CTX_free(ctx);
        assert_int_equal(x509_key_to_pkcs8(key, &slow, &n, NULL), 0);
        assert_int_equal(n, sizeof(pkcs8));
        assert_memory_equal(slow, pkcs8, n);
        mem_secret_free(slow);
        EVP_PKEY_free(key);
    }
    x509_keygen_free(g);
}

/* --- own identities --------------------------------------------------------------------------- */

static void refuse_svid(X509 *const *certs, size_t n, EVP_PKEY *key, const char *says)
{
    struct err err = ERR_INIT;
    struct x509_svid *svid = NULL;
    size_t len = 0;
    uint8_t *der = certs_der(certs, n, &len);
    assert_int_equal(x509_svid_new((struct str){(char *)der, len}, key, &svid, &err), -1);
    assert_null(svid);
    if (strstr(err.what, says) == NULL) {
        fail_msg("'%s' does not say \"%s\"", err.what, says);
    }
    free(der);
}

static void test_svid(void **state)
{
    (void)state;
    struct mesh m = mesh_new();
    struct err err = ERR_INIT;
    struct x509_svid *svid = NULL;
    X509 *chain[17] = {m.leaf, m.mid};
    refuse_svid(NULL, 0, m.leaf_key.key, "no certificate");
    refuse_svid(chain, 2, m.mid_key.key, "does not fit");
    refuse_svid(&m.mid, 1, m.mid_key.key, "CA");
    X509 *wrong_order[] = {m.mid, m.leaf};
    refuse_svid(wrong_order, 2, m.leaf_key.key, "CA");
    X509 *two_leaves[] = {m.leaf, m.leaf};
    refuse_svid(two_leaves, 2, m.leaf_key.key, "certificate 2 of the chain");
    for (size_t i = 2; i < 17; i++) {
        chain[i] = m.mid;
    }
    refuse_svid(chain, 17, m.leaf_key.key, "more than 16");
    assert_int_equal(x509_svid_new(STR_LIT("junk"), m.leaf_key.key, &svid, &err), -1);

    size_t len = 0;
    uint8_t *der = certs_der(chain, 2, &len);
    struct str ders = {(char *)der, len};
    struct str left_over = {(char *)der, len - 5};
    assert_int_equal(x509_svid_new(left_over, m.leaf_key.key, &svid, &err), -1);
    assert_int_equal(x509_svid_new(ders, m.leaf_key.key, &svid, &err), 0);
    assert_string_equal(svid->spiffe_id, "spiffe://example.org/orders");
    assert_int_equal(sk_X509_num(svid->intermediates), 1);
    assert_int_equal(svid->not_before_s, CERTS_NOW - 10);
    assert_int_equal(svid->not_after_s, CERTS_NOW + 1800);
    assert_int_equal(strlen(svid->serial), 32);
    assert_null(x509_svid_free(svid));
    assert_null(x509_svid_free(NULL));
    free(der);
    mesh_free(&m);
}

/* --- keys and requests ------------------------------------------------------------------------ */

static void test_pkcs8(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    uint8_t *der = NULL;
    size_t len = 0;
    struct made m = made_new();
    assert_int_equal(x509_key_to_pkcs8(m.key, &der, &len, &err), 0);
    assert_null(x509_key_from_pkcs8(STR_NONE, &err));
    assert_null(x509_key_from_pkcs8((struct str){(char *)der, len - 1}, &err));
    assert_null(x509_key_from_pkcs8(STR_LIT("\x30\x03\x02\x01\x00"), &err));
    uint8_t longer[512] = {0};
    assert_true(len < sizeof(longer));
    memcpy(longer, der, len);
    assert_null(x509_key_from_pkcs8((struct str){(char *)longer, len + 1}, &err));
    assert_non_null(strstr(err.what, "left over"));
    EVP_PKEY *again = x509_key_from_pkcs8((struct str){(char *)der, len}, &err);
    assert_non_null(again);
    assert_int_equal(EVP_PKEY_eq(again, m.key), 1);
    EVP_PKEY_free(again);
    mem_secret_free(der);
    EVP_PKEY_free(m.key);

    EVP_PKEY *rsa = certs_key_new(CERTS_RSA2048);
    assert_int_equal(x509_key_to_pkcs8(rsa, &der, &len, &err), 0);
    again = x509_key_from_pkcs8((struct str){(char *)der, len}, &err);
    assert_int_equal(EVP_PKEY_eq(again, rsa), 1);
    EVP_PKEY_free(again);
    EVP_PKEY_free(rsa);
    mem_secret_free(der);
}

static void test_csr_refusals(void **state)
{
    (void)state;
    static const enum certs_key kinds[] = {CERTS_P384, CERTS_RSA2048, CERTS_ED25519};
    struct err err = ERR_INIT;
    uint8_t point[65] = {0};
    struct made m = made_new();
    uint8_t *der = NULL;
    size_t len = 0;
    assert_int_equal(x509_csr_new(m.key, &der, &len, &err), 0);
    assert_int_equal(x509_csr_check(STR_NONE, point, &err), -1);
    assert_int_equal(x509_csr_check(STR_LIT("junk"), point, &err), -1);
    assert_int_equal(x509_csr_check((struct str){(char *)der, len - 1}, point, &err), -1);
    /* Proof of possession: one bit of the signature. */
    der[len - 1] ^= 1;
    assert_int_equal(x509_csr_check((struct str){(char *)der, len}, point, &err), -1);
    assert_non_null(strstr(err.what, "not signed by its own key"));
    der[len - 1] ^= 1;
    uint8_t *longer = calloc(1, 4097);
    memcpy(longer, der, len);
    assert_int_equal(x509_csr_check((struct str){(char *)longer, len + 1}, point, &err), -1);
    assert_non_null(strstr(err.what, "left over"));
    assert_int_equal(x509_csr_check((struct str){(char *)longer, 4097}, point, &err), -1);
    assert_int_equal(err.code, ERR_LIMIT);
    free(longer);
    free(der);
    EVP_PKEY_free(m.key);
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        EVP_PKEY *key = certs_key_new(kinds[i]);
        X509_REQ *req = X509_REQ_new();
        unsigned char *other = NULL;
        X509_REQ_set_pubkey(req, key);
        X509_REQ_sign(req, key, kinds[i] == CERTS_ED25519 ? NULL : EVP_sha256());
        int n = i2d_X509_REQ(req, &other);
        assert_int_equal(x509_csr_check((struct str){(char *)other, (size_t)n}, point, &err), -1);
        assert_non_null(strstr(err.what, "not ECDSA P-256"));
        OPENSSL_free(other);
        X509_REQ_free(req);
        EVP_PKEY_free(key);
    }
    assert_int_equal(point[0], 0);
}

/* The request's key is written as libcrypto writes it. */
static void assert_same_key(const uint8_t *der, size_t len, EVP_PKEY *key)
{
    unsigned char *ours = NULL, *theirs = NULL;
    const unsigned char *p = der;
    X509_REQ *req = d2i_X509_REQ(NULL, &p, (long)len);
    int n = i2d_X509_PUBKEY(X509_REQ_get_X509_PUBKEY(req), &ours);
    assert_int_equal(i2d_PUBKEY(key, &theirs), n);
    assert_true(n > 65);
    assert_memory_equal(ours, theirs, (size_t)n);
    OPENSSL_free(ours);
    OPENSSL_free(theirs);
    X509_REQ_free(req);
}

/* Keys of other kinds are asked for too, and whoever answers judges them. */
static void test_csr_other_kinds(void **state)
{
    (void)state;
    static const enum certs_key kinds[] = {CERTS_P384, CERTS_RSA2048};
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        EVP_PKEY *key = certs_key_new(kinds[i]);
        uint8_t *der = NULL;
        size_t len = 0;
        assert_int_equal(x509_csr_new(key, &der, &len, NULL), 0);
        assert_same_key(der, len, key);
        free(der);
        EVP_PKEY_free(key);
    }
}

static void test_csr(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    uint8_t point[65] = {0};
    struct made m = made_new();
    uint8_t *der = NULL;
    size_t len = 0;
    assert_int_equal(x509_csr_new(m.key, &der, &len, &err), 0);
    assert_int_equal(x509_csr_check((struct str){(char *)der, len}, point, &err), 0);
    assert_memory_equal(point, m.point, sizeof(point));
    assert_same_key(der, len, m.key);
    free(der);

    /* A compressed point in the request is the same key. */
    X509_REQ *req = X509_REQ_new();
    unsigned char *other = NULL;
    EVP_PKEY_set_utf8_string_param(m.key, "point-format", "compressed");
    X509_REQ_set_pubkey(req, m.key);
    X509_REQ_sign(req, m.key, EVP_sha256());
    int n = i2d_X509_REQ(req, &other);
    assert_true((size_t)n < len);
    memset(point, 0, sizeof(point));
    assert_int_equal(x509_csr_check((struct str){(char *)other, (size_t)n}, point, &err), 0);
    assert_memory_equal(point, m.point, sizeof(point));
    OPENSSL_free(other);
    X509_REQ_free(req);
    EVP_PKEY_free(m.key);
}

/* Dates in and out, over leap years and centuries. */
static void test_times(void **state)
{
    (void)state;
    static const int64_t ends[] = {951782400 /* 2000-02-29 */,
                                   1709164800 /* 2024-02-29 */,
                                   1767225600,
                                   2524607999 /* 2049-12-31T23:59:59 */,
                                   2524608000 /* from here on a GeneralizedTime */,
                                   4107542400};
    struct made m = made_new();
    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
        X509 *cert = NULL;
        struct x509_issue what = ca_of(&m, "spiffe://example.org");
        what.not_before_s = ends[i] - 1;
        what.not_after_s = ends[i];
        assert_int_equal(x509_issue(&what, NULL, m.key, &cert, NULL), 0);
        assert_int_equal(x509_not_after_s(cert), ends[i]);
        X509_free(cert);
    }
    EVP_PKEY_free(m.key);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_issue_refusals),
        cmocka_unit_test(test_profile),
        cmocka_unit_test(test_issued_is_accepted),
        cmocka_unit_test(test_signer_refusals),
        cmocka_unit_test(test_signer),
        cmocka_unit_test(test_keygen),
        cmocka_unit_test(test_svid),
        cmocka_unit_test(test_pkcs8),
        cmocka_unit_test(test_csr_refusals),
        cmocka_unit_test(test_csr),
        cmocka_unit_test(test_csr_other_kinds),
        cmocka_unit_test(test_times),
    };
    return cmocka_run_group_tests_name("x509_issue", tests, NULL, NULL);
}
