#include "tls_sides.h"

#include <postern/os.h>
#include <stdlib.h>

struct certs_pair sides_make(const char *uri, const struct certs_pair *issuer, int64_t to_s)
{
    struct certs_spec spec = issuer != NULL ? certs_leaf(uri) : certs_ca(uri);
    spec.not_before_s = os_wall_s() - 60;
    spec.not_after_s = os_wall_s() + to_s;
    return certs_make(&spec, issuer);
}

struct tls_party *sides_party(const struct certs_pair *own, const struct certs_pair *root,
                              bool server, enum tls_min min)
{
    const struct x509_svid svid = {
        .leaf = own->cert, .key = own->key, .intermediates = sk_X509_new_null()};
    const struct x509_svid *list[] = {&svid};
    struct x509_peers *peers = NULL;
    if (root != NULL) {
        size_t len = 0;
        uint8_t *der = certs_der(&root->cert, 1, &len);
        struct x509_trust *trust = x509_trust_new();
        POSTERN_ASSERT(
            x509_trust_add(trust, STR_LIT("a.b"), (struct str){(char *)der, len}, NULL) == 0);
        peers = x509_peers_new_spiffe(trust);
        x509_trust_unref(trust);
        free(der);
    }
    const struct tls_party_spec spec = {.server = server,
                                        .own = list,
                                        .n_own = 1,
                                        .peers = peers,
                                        .alpn = &tls_alpn_postern,
                                        .n_alpn = 1,
                                        .min = min,
                                        .resumption = true};
    struct tls_party *p = NULL;
    POSTERN_ASSERT(tls_party_new(&spec, &p, NULL) == 0);
    x509_peers_unref(peers);
    sk_X509_free(svid.intermediates);
    return p;
}
