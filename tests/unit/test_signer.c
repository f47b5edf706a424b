/* What the signer signs: refusals first. The token is a key in memory here. */
#include "signer_priv.h"

#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { NOW_S = 1700000000, ROOT_TTL_S = 864000, NODE_TTL_S = 86400 };

struct keys {
    EVP_PKEY *root, *node;
    uint8_t root_point[65], node_point[65];
    int n_signed;
    bool broken;
};

static const struct signer_rules RULES = {
    .trust_domain_id = "spiffe://own.example", .root_ttl_s = ROOT_TTL_S, .node_ttl_s = NODE_TTL_S};

static int sign(void *arg, const uint8_t sha256[32], uint8_t ret_rs[64], struct err *err)
{
    struct keys *k = arg;
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(k->broken ? k->node : k->root, NULL);
    uint8_t der[80];
    const uint8_t *p = der;
    size_t len = sizeof(der);
    ECDSA_SIG *sig;

    (void)err;
    k->n_signed++;
    assert_int_equal(EVP_PKEY_sign_init(ctx), 1);
    assert_int_equal(EVP_PKEY_sign(ctx, der, &len, sha256, 32), 1);
    EVP_PKEY_CTX_free(ctx);
    sig = d2i_ECDSA_SIG(NULL, &p, (long)len);
    assert_non_null(sig);
    assert_int_equal(BN_bn2binpad(ECDSA_SIG_get0_r(sig), ret_rs, 32), 32);
    assert_int_equal(BN_bn2binpad(ECDSA_SIG_get0_s(sig), ret_rs + 32, 32), 32);
    ECDSA_SIG_free(sig);
    return 0;
}

static int setup(void **state)
{
    struct keys *k = calloc(1, sizeof(*k));

    k->root = x509_key_new(NULL);
    k->node = x509_key_new(NULL);
    assert_int_equal(x509_key_point(k->root, k->root_point, NULL), 0);
    assert_int_equal(x509_key_point(k->node, k->node_point, NULL), 0);
    *state = k;
    return 0;
}

static int teardown(void **state)
{
    struct keys *k = *state;

    EVP_PKEY_free(k->root);
    EVP_PKEY_free(k->node);
    free(k);
    return 0;
}

static struct agent_msg_signer_sign question(const struct keys *k, uint32_t purpose)
{
    struct agent_msg_signer_sign m;
    bool root = purpose == AGENT_SIGNER_ROOT;

    agent_ipc_init(&m, AGENT_MSG_SIGNER_SIGN, 1);
    m.purpose = purpose;
    m.not_before_s = NOW_S - 10;
    m.not_after_s = NOW_S + (root ? ROOT_TTL_S : NODE_TTL_S);
    memcpy(m.key, k->root_point, sizeof(m.key));
    memcpy(m.point, root ? k->root_point : k->node_point, sizeof(m.point));
    return m;
}

static void refuse(struct keys *k, const struct agent_msg_signer_sign *ask, const char *says)
{
    const struct x509_away away = {.sign = sign, .arg = k};
    struct err err = ERR_INIT;
    X509 *cert = NULL;
    int before = k->n_signed;

    assert_int_equal(signer_certify(&RULES, ask, NOW_S, &away, &cert, &err), -1);
    assert_null(cert);
    assert_int_equal(k->n_signed, before); /* the key was not even asked */
    if (strstr(err.what, says) == NULL) {
        fail_msg("'%s' does not say \"%s\"", err.what, says);
    }
}

static void test_refusals(void **state)
{
    struct keys *k = *state;
    struct agent_msg_signer_sign m = question(k, AGENT_SIGNER_NODE);

    m.purpose = AGENT_N_SIGNER_PURPOSES;
    refuse(k, &m, "another key's");
    m = question(k, AGENT_SIGNER_NODE);
    m.not_after_s = NOW_S + NODE_TTL_S + 3600;
    refuse(k, &m, "live longer");
    m = question(k, AGENT_SIGNER_NODE);
    m.not_after_s = m.not_before_s;
    refuse(k, &m, "live longer");
    m.not_after_s = INT64_MAX;
    refuse(k, &m, "live longer");
    m = question(k, AGENT_SIGNER_NODE);
    m.not_before_s = NOW_S - 86400;
    refuse(k, &m, "begin about now");
    m.not_before_s = NOW_S + 86400;
    refuse(k, &m, "begin about now");
    m.not_before_s = INT64_MIN;
    refuse(k, &m, "begin about now");
    m = question(k, AGENT_SIGNER_ROOT);
    m.not_after_s = NOW_S + ROOT_TTL_S + 3600;
    refuse(k, &m, "live longer");
    m = question(k, AGENT_SIGNER_ROOT); /* a root of somebody else's key, under ours */
    memcpy(m.point, k->node_point, sizeof(m.point));
    refuse(k, &m, "signs itself");
    m = question(k, AGENT_SIGNER_NODE); /* an intermediate for the root's own key */
    memcpy(m.point, k->root_point, sizeof(m.point));
    refuse(k, &m, "another key's");
    m = question(k, AGENT_SIGNER_NODE);
    memset(m.point + 1, 1, 64);
    refuse(k, &m, "not a point");
    m = question(k, AGENT_SIGNER_NODE);
    memset(m.point, 0, sizeof(m.point));
    refuse(k, &m, "not an uncompressed point");
    m = question(k, AGENT_SIGNER_NODE);
    memset(m.key, 0xff, sizeof(m.key));
    refuse(k, &m, "not an uncompressed point");
}

/* A token that signs with another key than was asked for: nothing comes out. */
static void test_wrong_signature(void **state)
{
    struct keys *k = *state;
    struct agent_msg_signer_sign m = question(k, AGENT_SIGNER_NODE);
    const struct x509_away away = {.sign = sign, .arg = k};
    struct err err = ERR_INIT;
    X509 *cert = NULL;

    k->broken = true;
    assert_int_equal(signer_certify(&RULES, &m, NOW_S, &away, &cert, &err), -1);
    assert_null(cert);
    assert_non_null(strstr(err.what, "not that key's"));
}

/* A key that is not here signs no leaf, whoever calls. */
static void test_no_leaf(void **state)
{
    struct keys *k = *state;
    const struct x509_away away = {.point = k->root_point, .sign = sign, .arg = k};
    struct x509_issue what = {.spiffe_id = STR_LIT("spiffe://own.example/a"),
                              .point = k->node_point,
                              .not_before_s = NOW_S,
                              .not_after_s = NOW_S + 60};
    X509 *cert = NULL;

    assert_int_equal(x509_issue_away(&what, &away, &cert, NULL), -1);
    what.ca = true; /* an authority has no path */
    assert_int_equal(x509_issue_away(&what, &away, &cert, NULL), -1);
    assert_null(cert);
    assert_int_equal(k->n_signed, 0);
}

static X509 *make(struct keys *k, uint32_t purpose)
{
    struct agent_msg_signer_sign m = question(k, purpose);
    const struct x509_away away = {.sign = sign, .arg = k};
    struct err err = ERR_INIT;
    X509 *cert = NULL;

    if (signer_certify(&RULES, &m, NOW_S, &away, &cert, &err) == -1) {
        fail_msg("%s", err.what);
    }
    return cert;
}

/* Root and intermediate fit each other, and a leaf below them is taken by a peer. */
static void test_chain(void **state)
{
    struct keys *k = *state;
    X509 *root = make(k, AGENT_SIGNER_ROOT), *node = make(k, AGENT_SIGNER_NODE), *leaf = NULL;
    EVP_PKEY *leaf_key = x509_key_new(NULL);
    struct x509_trust *trust = x509_trust_new();
    STACK_OF(X509) *chain = sk_X509_new_null();
    struct x509_peer peer;
    uint8_t point[65], *der = NULL;
    size_t len = 0;
    char id[SPIFFE_ID_MAX + 1];
    struct x509_issue what = {.spiffe_id = STR_LIT("spiffe://own.example/a"),
                              .point = point,
                              .not_before_s = NOW_S - 10,
                              .not_after_s = NOW_S + 60};
    struct err err = ERR_INIT;

    assert_int_equal(X509_get_pathlen(root), 1);
    assert_int_equal(X509_get_pathlen(node), 0);
    assert_int_equal(x509_not_after_s(node), NOW_S + NODE_TTL_S);
    assert_int_equal(x509_get_spiffe_id(node, id, NULL), 0);
    assert_string_equal(id, "spiffe://own.example");
    assert_int_equal(X509_check_issued(root, node), X509_V_OK); /* names and key ids */
    assert_int_equal(X509_check_issued(root, root), X509_V_OK);
    assert_true(x509_signed_by_point(node, k->root_point));
    assert_false(x509_signed_by_point(node, k->node_point));

    assert_int_equal(x509_key_point(leaf_key, point, NULL), 0);
    assert_int_equal(x509_issue(&what, node, k->node, &leaf, &err), 0);
    assert_int_equal(x509_to_der(root, &der, &len, NULL), 0);
    assert_int_equal(
        x509_trust_add(trust, STR_LIT("own.example"), (struct str){(const char *)der, len}, &err),
        0);
    sk_X509_push(chain, node);
    assert_int_equal(x509_verify_svid(trust, leaf, chain, true, NOW_S, &peer, &err), X509_OK);
    sk_X509_free(chain);
    x509_trust_unref(trust);
    free(der);
    EVP_PKEY_free(leaf_key);
    X509_free(leaf);
    X509_free(node);
    X509_free(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_refusals, setup, teardown),
        cmocka_unit_test_setup_teardown(test_wrong_signature, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_leaf, setup, teardown),
        cmocka_unit_test_setup_teardown(test_chain, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
