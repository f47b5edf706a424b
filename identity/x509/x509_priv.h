/* What the files of x509 share. */
#ifndef POSTERN_X509_PRIV_H
#define POSTERN_X509_PRIV_H

#include <openssl/x509v3.h>
#include <postern/x509.h>
#include <stdbool.h>

enum {
    X509_CHAIN_MAX = 16,   /* certificates that one side may send */
    X509_BUNDLE_MAX = 128, /* roots of one trust domain: rotations and federation need a few */
    X509_DEPTH_MAX = 8,    /* intermediates between leaf and root */
    X509_POINT_LEN = 65,
};

/* err_set with ERR_CRYPTO and OpenSSL's own reason; empties its queue. */
int x509_err_crypto(struct err *err, const char *what);

/* --- x509_der.c --- */
/* Certificates one after another, at least `min` and at most `max`, nothing left over. */
STACK_OF(X509) * x509_ders_parse(struct str ders, int min, int max, struct err *err);
void x509_stack_free(STACK_OF(X509) * certs);
int64_t x509_time_s(const ASN1_TIME *t);

/* --- x509_name.c --- */
/* The one URI among the certificate's names, as it stands there: a view that *ret_names keeps
 * alive, which is the caller's (GENERAL_NAMES_free). Names of other types don't count. */
int x509_uri_find(X509 *cert, GENERAL_NAMES **ret_names, struct str *ret_uri, struct err *err);
/* Copies what may be shown to people: other than printable ASCII becomes '?', cut to the size. */
size_t x509_text_copy(struct str text, char *ret, size_t size);
/* The URI of `cert` for people, even one that we refuse; "" if there is none. */
size_t x509_uri_show(X509 *cert, char *ret, size_t size);
/* Specification, section 4.1 and 4.3: no CA, a key for signatures, none for certificates. */
int x509_leaf_check(X509 *leaf, struct err *err);
/* What may stand above a leaf: cA, and keyCertSign. An anchor may lack key usage altogether. */
int x509_ca_check(X509 *cert, bool anchor, struct err *err);
/* Section 3.2: a signing certificate that shows a SPIFFE ID shows its own trust domain's, without a
 * path. Roots may be shared by trust domains, so this is what keeps the authority of one from
 * minting names of another. */
int x509_ca_domain_check(X509 *cert, struct str trust_domain, struct err *err);

/* --- x509_path.c --- */
/* What a verified path says besides: when all of it is valid, and whose keys vouch for it. */
bool x509_path_read(STACK_OF(X509) * path, struct x509_peer *ret);

/* --- x509_issue.c --- */
/* What may be asked for, whoever signs. */
int x509_issue_check(const struct x509_issue *what, struct err *err);
/* x509_issue for any key: whether it is the issuer's is not asked. */
int x509_issue_with(const struct x509_issue *what, X509 *issuer, EVP_PKEY *key_to_sign, X509 **ret,
                    struct err *err);

#endif
