/*
 * keyprov: the provider behind away_key.h. What its files share.
 *
 *   away_key.c   the provider itself, and making a key
 *   keymgmt.c    keys as OpenSSL wants to see them: a public half, and a callback
 *   signature.c  signing
 *   handshake.c  the content of a CertificateVerify, written and read
 */
#ifndef POSTERN_KEYPROV_PRIV_H
#define POSTERN_KEYPROV_PRIV_H

#include <openssl/core.h>
#include <openssl/core_dispatch.h>
#include <postern/away_key.h>
#include <stdatomic.h>
#include <stdbool.h>

/* Names of our own, so that no other provider's implementation is taken for these. */
#define KEYPROV_ECDSA "POSTERN-AWAY-ECDSA"
#define KEYPROV_RSA "POSTERN-AWAY-RSA"
#define KEYPROV_PROPERTY "provider=postern"
#define KEYPROV_PARAM_SIGNER "postern-signer" /* the bytes of a struct keyprov_handle */

/* Whom to ask, on its way through OpenSSL's parameters; lent. */
struct keyprov_handle {
    const struct away_signer *signer;
};

/* One key; shared by the EVP_PKEY and by what signs with it. */
struct keyprov_key {
    atomic_uint refs;
    bool rsa;
    EVP_PKEY *public_key; /* owned: an ordinary one, of the default provider; NULL: empty yet */
    bool has_signer;      /* else it is a public key that is compared with */
    struct away_signer signer;
};
struct keyprov_key *keyprov_key_ref(struct keyprov_key *k);
void keyprov_key_unref(struct keyprov_key *k);

extern const OSSL_DISPATCH keyprov_ec_keymgmt[];
extern const OSSL_DISPATCH keyprov_rsa_keymgmt[];
extern const OSSL_DISPATCH keyprov_signature[];

#endif
