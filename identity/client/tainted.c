/* Which authorities the agent calls tainted: a pure function over its message. */
#include "identity_client_priv.h"

#include <openssl/x509v3.h>
#include <postern/proto.h>

enum { KEY_ID_MAX = 64 };

static void tainted_free(Postern__V1__WatchTaintedResponse *m)
{
    postern__v1__watch_tainted_response__free_unpacked(m, NULL);
}
MEM_DEFINE_CLEANUP(Postern__V1__WatchTaintedResponse, tainted_free)

/* Signed by the holder of that key, by the certificate's own word; it was verified before. */
static bool is_signed_by(X509 *cert, const ProtobufCBinaryData *id)
{
    const ASN1_OCTET_STRING *issuer = X509_get0_authority_key_id(cert);

    return issuer != NULL && id->len > 0 && (size_t)ASN1_STRING_length(issuer) == id->len &&
           memcmp(ASN1_STRING_get0_data(issuer), id->data, id->len) == 0;
}

static bool is_under(const struct x509_svid *svid, const ProtobufCBinaryData *id)
{
    if (is_signed_by(svid->leaf, id)) {
        return true;
    }
    for (int i = 0; i < sk_X509_num(svid->intermediates); i++) {
        if (is_signed_by(sk_X509_value(svid->intermediates, i), id)) {
            return true;
        }
    }
    return false;
}

int client_read_tainted(struct str message, const struct x509_svid *svid, bool *ret_tainted,
                        struct err *err)
{
    bool tainted = false;
    mem_auto(tainted_free) Postern__V1__WatchTaintedResponse *m =
        postern__v1__watch_tainted_response__unpack(NULL, message.n, (const uint8_t *)message.p);
    if (m == NULL) {
        return err_set(err, ERR_PROTOCOL, "WatchTaintedResponse: cannot be decoded");
    }
    for (size_t i = 0; i < m->n_x509_key_ids; i++) {
        if (m->x509_key_ids[i].len > KEY_ID_MAX) {
            return err_set(err, ERR_PROTOCOL, "WatchTaintedResponse: a key id of %zu bytes",
                           m->x509_key_ids[i].len);
        }
        tainted = tainted || is_under(svid, &m->x509_key_ids[i]);
    }
    *ret_tainted = tainted;
    return 0;
}
