/*
 * The first byte chooses the message that an agent sends, the rest is the message. Property: it is
 * refused with a text and leaves the outputs alone, or gives an identity whose key fits its
 * certificate, and trust.
 */
#include "identity_client_priv.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static void check_svid(struct x509_svid *svid, const char *wanted)
{
    struct spiffe_id id;
    CHECK(svid != NULL && svid->key != NULL && svid->leaf != NULL && svid->intermediates != NULL);
    CHECK(spiffe_id_parse(str_of(svid->spiffe_id), &id, NULL) == 0 && id.path.n > 0);
    CHECK(X509_check_private_key(svid->leaf, svid->key) == 1);
    CHECK(wanted == NULL || strcmp(wanted, svid->spiffe_id) == 0);
    x509_svid_free(svid);
}

static void read_svids(struct str message, const char *wanted)
{
    struct err err = ERR_INIT;
    struct err warning = ERR_INIT;
    struct x509_svid *svid = NULL;
    struct x509_trust *trust = NULL;
    char **offered = NULL;
    if (client_read_svids(message, wanted, &svid, &trust, &offered, &warning, &err) == -1) {
        CHECK(err.what[0] != '\0' && svid == NULL && trust == NULL && offered == NULL);
        return;
    }
    CHECK(offered[0] != NULL);
    client_offered_free(offered);
    CHECK(x509_trust_count(trust) > 0);
    x509_trust_unref(trust);
    check_svid(svid, wanted);
}

static void read_bundles(struct str message, const char *own)
{
    struct err err = ERR_INIT;
    struct err warning = ERR_INIT;
    struct x509_trust *trust = NULL;
    if (client_read_bundles(message, own, &trust, &warning, &err) == -1) {
        CHECK(err.what[0] != '\0' && trust == NULL);
        return;
    }
    CHECK(x509_trust_count(trust) > 0);
    x509_trust_unref(trust);
}

static void read_signed(struct str message)
{
    static EVP_PKEY *key;
    struct err err = ERR_INIT;
    struct x509_svid *svid = NULL;
    if (key == NULL) {
        key = x509_key_new(NULL);
    }
    /* Nobody has signed this key. */
    CHECK(client_read_signed(message, NULL, key, &svid, &err) == -1);
    CHECK(err.what[0] != '\0' && svid == NULL);
}

/* Nothing that comes here signed this SVID. */
static void read_tainted(struct str message)
{
    static struct x509_svid svid;
    struct err err = ERR_INIT;
    bool tainted = true;
    if (svid.leaf == NULL) {
        svid.leaf = X509_new();
    }
    if (client_read_tainted(message, &svid, &tainted, &err) == 0) {
        CHECK(!tainted);
    } else {
        CHECK(err.what[0] != '\0' && tainted);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    struct str message = {(const char *)data + 1, size - 1};
    switch (data[0] % 6) {
    case 0:
        read_svids(message, NULL);
        break;
    case 1:
        read_svids(message, "spiffe://example.org/second");
        break;
    case 2:
        read_bundles(message, NULL);
        break;
    case 3:
        read_bundles(message, "spiffe://example.org/first");
        break;
    case 4:
        read_signed(message);
        break;
    default:
        read_tainted(message);
        break;
    }
    return 0;
}
