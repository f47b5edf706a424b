/*
 * certs: the certificate factory of the tests. Makes proper SVIDs and every malformed variant with
 * OpenSSL directly, so that what it makes does not depend on the code under test. Asserts instead
 * of failing.
 */
#ifndef POSTERN_TESTS_CERTS_H
#define POSTERN_TESTS_CERTS_H

#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <postern/str.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The moment at which the tests judge: 2026-01-01T00:00:00Z. */
#define CERTS_NOW INT64_C(1767225600)

enum certs_key { CERTS_P256, CERTS_P384, CERTS_RSA2048, CERTS_RSA1024, CERTS_ED25519 };
enum { CERTS_SERVER_AUTH = 1, CERTS_CLIENT_AUTH = 2, CERTS_CODE_SIGNING = 4 };

/* What a certificate says. Begin with certs_leaf or certs_ca and change what the case is about. */
struct certs_spec {
    struct str uris[3]; /* URI names; those of length 0 with p == NULL are left out */
    struct str dns;     /* a DNS name before the URIs; NULL: none */
    const char *common_name;
    bool no_constraints; /* leave basicConstraints out */
    bool ca;
    int path_len; /* -1: none */
    bool no_key_usage;
    bool key_usage_not_critical;
    unsigned key_usage; /* KU_* */
    unsigned purposes;  /* CERTS_*_AUTH; 0: no extended key usage */
    bool unknown_critical;
    bool sha1;
    bool broken_signature;
    enum certs_key key;
    int64_t not_before_s, not_after_s;
};

struct certs_pair {
    X509 *cert;
    EVP_PKEY *key;
};

struct certs_spec certs_leaf(const char *uri);
struct certs_spec certs_ca(const char *uri);
/* issuer NULL: self-signed. */
struct certs_pair certs_make(const struct certs_spec *spec, const struct certs_pair *issuer);
void certs_free(struct certs_pair *pair);
EVP_PKEY *certs_key_new(enum certs_key kind);

/* DER of up to n certificates one after another; stops at the first NULL. The caller's to free().
 */
uint8_t *certs_der(X509 *const *certs, size_t n, size_t *ret_len);
/* Lends: the certificates are not referenced, free with sk_X509_free. */
STACK_OF(X509) * certs_stack(X509 *const *certs, size_t n);

#endif
