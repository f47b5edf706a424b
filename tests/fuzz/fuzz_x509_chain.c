/*
 * The input is a chain as a peer or an agent would send it: certificates one after another, leaf
 * first. Property: it is judged without a fault against a bundle that cannot have signed it, and
 * the answer is never yes; as a bundle, it only adds certificates of authorities; the ID shown is
 * one that spiffe_id_parse takes, or the verdict says that it is bad.
 */
#include <postern/x509.h>

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

enum { WHEN = 1767225600 };

/* An authority of example.org whose key nobody has. */
static struct x509_trust *make_trust(void)
{
    uint8_t point[65];
    uint8_t *der = NULL;
    size_t len = 0;
    X509 *root = NULL;
    EVP_PKEY *key = x509_key_new(NULL);
    CHECK(key != NULL && x509_key_point(key, point, NULL) == 0);
    struct x509_issue what = {.spiffe_id = STR_LIT("spiffe://example.org"),
                              .point = point,
                              .ca = true,
                              .path_len = -1,
                              .not_before_s = WHEN - 3600,
                              .not_after_s = WHEN + 3600};
    CHECK(x509_issue(&what, NULL, key, &root, NULL) == 0);
    CHECK(x509_to_der(root, &der, &len, NULL) == 0);
    struct x509_trust *trust = x509_trust_new();
    CHECK(x509_trust_add(trust, STR_LIT("example.org"), (struct str){(char *)der, len}, NULL) == 0);
    free(der);
    X509_free(root);
    EVP_PKEY_free(key);
    return trust;
}

static void judge(const struct x509_trust *trust, STACK_OF(X509) * chain, bool is_server)
{
    struct err err = ERR_INIT;
    struct spiffe_id id;
    static struct x509_peer peer;
    X509 *leaf = sk_X509_value(chain, 0);
    enum x509_verdict v = x509_verify_svid(trust, leaf, chain, is_server, WHEN, &peer, &err);
    CHECK(v != X509_OK && v != X509_NO_CERTIFICATE);
    CHECK(err.code != ERR_NONE && err.what[0] != '\0');
    CHECK(strlen(peer.id) == peer.id_len && peer.id_len <= SPIFFE_ID_MAX);
    if (v != X509_BAD_ID) {
        CHECK(spiffe_id_parse(str_of(peer.id), &id, NULL) == 0 && id.path.n > 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct x509_trust *trust;
    if (trust == NULL) {
        trust = make_trust();
    }
    struct str ders = {(const char *)data, size};
    struct err err = ERR_INIT;
    STACK_OF(X509) *chain = x509_chain_from_der(ders, &err);
    if (chain == NULL) {
        CHECK(err.code != ERR_NONE);
    } else {
        judge(trust, chain, true);
        judge(trust, chain, false);
    }
    sk_X509_pop_free(chain, X509_free);

    struct x509_trust *other = x509_trust_new();
    bool added = x509_trust_add(other, STR_LIT("example.com"), ders, NULL) == 0;
    CHECK(x509_trust_count(other) == (added ? 1 : 0));
    x509_trust_unref(other);

    static EVP_PKEY *key;
    struct x509_svid *svid = NULL;
    if (key == NULL) {
        key = x509_key_new(NULL);
    }
    CHECK(x509_svid_new(ders, key, &svid, &err) == -1 && svid == NULL);
    return 0;
}
