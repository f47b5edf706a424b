/* Who a verified chain is, and judging it again later. */
#include <postern/tls.h>

#include "tls_priv.h"

#include <openssl/err.h>
#include <postern/os.h>
#include <stdlib.h>
#include <string.h>

bool tls_chain_hash(STACK_OF(X509) * chain, uint8_t ret[32])
{
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    bool ok =
        md != NULL && sk_X509_num(chain) > 0 && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1;
    for (int i = 0; ok && i < sk_X509_num(chain); i++) {
        unsigned char *der = NULL;
        int n = i2d_X509(sk_X509_value(chain, i), &der);
        ok = n > 0 && EVP_DigestUpdate(md, der, (size_t)n) == 1;
        OPENSSL_free(der);
    }
    ok = ok && EVP_DigestFinal_ex(md, ret, NULL) == 1;
    EVP_MD_CTX_free(md);
    return ok;
}

struct tls_peer *tls_peer_new_unknown(void)
{
    struct tls_peer *p = (struct tls_peer *)calloc(1, sizeof(*p) + 1);
    if (p != NULL) {
        p->refs = 1;
    }
    return p;
}

struct tls_peer *tls_peer_new(STACK_OF(X509) * chain, const uint8_t sha256[32],
                              const struct x509_peer *peer)
{
    struct tls_peer *p = (struct tls_peer *)calloc(1, sizeof(*p) + peer->id_len + 1);
    unsigned n = 0;
    if (p == NULL) {
        return NULL;
    }
    p->refs = 1;
    p->chain = X509_chain_up_ref(chain);
    p->issuers = (struct x509_key_id *)calloc(peer->n_issuers + 1, sizeof(*p->issuers));
    if (p->chain == NULL || p->issuers == NULL ||
        X509_digest(sk_X509_value(chain, 0), EVP_sha256(), p->cert_sha256, &n) != 1) {
        return tls_peer_unref(p);
    }
    memcpy(p->chain_sha256, sha256, sizeof(p->chain_sha256));
    memcpy(p->issuers, peer->issuers, peer->n_issuers * sizeof(*p->issuers));
    p->n_issuers = peer->n_issuers;
    p->not_before_s = peer->not_before_s;
    p->not_after_s = peer->not_after_s;
    memcpy(p->serial, peer->serial, sizeof(p->serial));
    p->id_len = peer->id_len;
    memcpy(p->id, peer->id, p->id_len);
    return p;
}

struct tls_peer *tls_peer_ref(struct tls_peer *p)
{
    POSTERN_ASSERT(p->refs > 0);
    p->refs++;
    return p;
}

struct tls_peer *tls_peer_unref(struct tls_peer *p)
{
    if (p == NULL || --p->refs > 0) {
        return NULL;
    }
    sk_X509_pop_free(p->chain, X509_free);
    free(p->issuers);
    free(p);
    return NULL;
}

enum x509_verdict tls_peer_judge(const struct tls_peer *p, const struct tls_party *party)
{
    if (party->peers == NULL) {
        return p->chain == NULL ? X509_OK : X509_NOT_ALLOWED; /* who had a name would lose it */
    }
    if (p->chain == NULL) {
        return X509_NO_CERTIFICATE;
    }
    int64_t now_s = os_wall_s();
    struct x509_peer peer;
    const struct x509_ask ask = {.leaf = sk_X509_value(p->chain, 0),
                                 .chain = p->chain,
                                 .is_server = !party->server,
                                 .again = true,
                                 .now_s = now_s < p->not_after_s ? now_s : p->not_after_s - 1};
    enum x509_verdict v = x509_peers_verify(party->peers, party->names, &ask, &peer, NULL);
    struct str was = {p->id, p->id_len};
    if (v == X509_OK && !str_eq((struct str){peer.id, peer.id_len}, was)) {
        return X509_NOT_ALLOWED; /* by another name: what was decided by the old one is void */
    }
    return v;
}

enum x509_verdict tls_peer_verdict(const struct tls_stream *s, const struct tls_party *party)
{
    return s->peer != NULL ? tls_peer_judge(s->peer, party) : X509_NO_CERTIFICATE;
}
