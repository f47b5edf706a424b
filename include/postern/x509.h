/*
 * x509: X.509-SVIDs (X509-SVID.md): reading and judging them, making keys, CSRs and certificates.
 * Pure functions over bytes and OpenSSL objects; no I/O, no clock (times are handed in), any
 * thread.
 *
 * Judging a peer is one function, x509_verify_svid, and TLS uses nothing else: OpenSSL's own
 * purpose checks accept things that the specification forbids, and its store pools trust domains.
 */
#ifndef POSTERN_X509_H
#define POSTERN_X509_H

#include <openssl/evp.h>
#include <openssl/x509.h>
#include <postern/err.h>
#include <postern/mem.h>
#include <postern/spiffe.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* --- trust ------------------------------------------------------------------------------------ */
/* Trust bundles by trust domain: immutable once handed out, reference-counted (atomic). Each trust
 * domain has a store of its own; roots of different domains are never pooled. */
struct x509_trust;
struct x509_trust *x509_trust_new(void);
struct x509_trust *x509_trust_ref(const struct x509_trust *t);
struct x509_trust *x509_trust_unref(struct x509_trust *t);
/* Before it is shared: adds the bundle of `trust_domain`, DER CA certificates one after another.
 * Each must be a CA certificate; an empty bundle means "trust nothing from there". */
int x509_trust_add(struct x509_trust *t, struct str trust_domain, struct str ders, struct err *err);
size_t x509_trust_count(const struct x509_trust *t);
/* The i-th trust domain's name, in an order that stays; lent. */
struct str x509_trust_domain(const struct x509_trust *t, size_t i);
/* The roots of one trust domain, NULL if it is not known. Lent; not to be changed. */
STACK_OF(X509) * x509_trust_roots(const struct x509_trust *t, struct str trust_domain);
/* How many they are; 0 also if the domain is not known. */
size_t x509_trust_root_count(const struct x509_trust *t, struct str trust_domain);
/* The same domains with the same certificates in the same order. */
bool x509_trust_equal(const struct x509_trust *a, const struct x509_trust *b);

/* --- an own identity: chain and key ------------------------------------------------------------
 */
struct x509_svid {
    char *spiffe_id;                   /* owned; NULL: an ordinary certificate (x509_own_new) */
    X509 *leaf;                        /* owned */
    STACK_OF(X509) * intermediates;    /* owned; may be empty */
    EVP_PKEY *key;                     /* owned */
    int64_t not_before_s, not_after_s; /* not_after: the earliest of the whole chain */
    char serial[48];                   /* hex, of the leaf */
};
/* chain: DER certificates one after another, leaf first. Takes a reference on key. Checks that the
 * key fits and that the leaf is a proper SVID (section 2 of the specification's profile). */
int x509_svid_new(struct str chain, EVP_PKEY *key, struct x509_svid **ret, struct err *err);
/* The same of any certificate, leaf first; takes references. Checks that the key fits. */
int x509_own_new(STACK_OF(X509) * chain, EVP_PKEY *key, struct x509_svid **ret, struct err *err);
struct x509_svid *x509_svid_free(struct x509_svid *s);
/* Another one of the same; shares certificates and key by reference. */
struct x509_svid *x509_svid_dup(const struct x509_svid *s);

/* --- judging a peer ----------------------------------------------------------------------------
 */
/* Which step said no; the text for people comes in err. */
enum x509_verdict {
    X509_OK,
    X509_NO_CERTIFICATE,
    X509_BAD_ID,         /* no URI SAN, more than one, or not a SPIFFE ID with a path */
    X509_BAD_LEAF,       /* CA bit, keyCertSign, cRLSign, wrong EKU, no digitalSignature */
    X509_UNKNOWN_DOMAIN, /* no bundle for the ID's trust domain */
    X509_EXPIRED,        /* expired or not yet valid, somewhere in the chain */
    X509_BAD_CHAIN,      /* no path to that bundle */
    /* Of ordinary authorities (x509_peers.h). */
    X509_BAD_NAMES,   /* names that cannot be read, or that hold what no name may */
    X509_NOT_ALLOWED, /* a good certificate, but none of the names that count */
    X509_IS_REVOKED,  /* by its issuer's list */
    X509_NO_CRL,      /* its issuer's list is missing, outdated or not to be used */
    X509_N_VERDICTS,
};
const char *x509_verdict_name(enum x509_verdict v);

/* An authority's key: SHA-256 of its SubjectPublicKeyInfo. */
struct x509_key_id {
    uint8_t sha256[32];
};
enum { X509_ISSUERS_MAX = 10 };

struct x509_peer {
    char id[SPIFFE_ID_MAX + 1]; /* as shown, even if the verdict is no (may be empty) */
    size_t id_len;
    char serial[48];
    /* Of the verified path, leaf and anchor included; only if the verdict is yes. */
    int64_t not_before_s, not_after_s;            /* when all of it is valid */
    struct x509_key_id issuers[X509_ISSUERS_MAX]; /* all above the leaf, nearest first */
    size_t n_issuers;
};
/* leaf and the certificates that came with it (may be NULL), judged at now_s against the bundle of
 * the ID's own trust domain only. is_server: the peer acts as TLS server (EKU, if present). */
enum x509_verdict x509_verify_svid(const struct x509_trust *trust, X509 *leaf,
                                   STACK_OF(X509) * chain, bool is_server, int64_t now_s,
                                   struct x509_peer *ret_peer, struct err *err);
/* The SPIFFE ID a certificate shows: exactly one URI SAN, valid. Copies into ret (NUL-terminated).
 */
int x509_get_spiffe_id(X509 *cert, char ret[SPIFFE_ID_MAX + 1], struct err *err);

/* --- keys and CSRs -----------------------------------------------------------------------------
 */
EVP_PKEY *x509_key_new(struct err *err); /* ECDSA P-256 */
/* P-256 keys by the thousand, straight into the caller's (secret) memory. For one thread. */
struct x509_keygen;
enum { X509_PKCS8_LEN = 138 };
struct x509_keygen *x509_keygen_new(struct err *err);
struct x509_keygen *x509_keygen_free(struct x509_keygen *g);
int x509_keygen_make(struct x509_keygen *g, uint8_t ret_pkcs8[X509_PKCS8_LEN],
                     uint8_t ret_point[65], struct err *err);
/* PKCS#8 DER, unencrypted, in mem_secret memory (free with mem_secret_free). */
int x509_key_to_pkcs8(EVP_PKEY *key, uint8_t **ret, size_t *ret_len, struct err *err);
EVP_PKEY *x509_key_from_pkcs8(struct str der, struct err *err);
/* A PKCS#10 request (DER, caller's to free()) whose only statement is the key. */
int x509_csr_new(EVP_PKEY *key, uint8_t **ret, size_t *ret_len, struct err *err);
/* Checks the signature (proof of possession) and that the key is P-256; everything else that the
 * request says is ignored. ret_point: the uncompressed point, 65 bytes. At most 4 kB are read. */
int x509_csr_check(struct str der, uint8_t ret_point[65], struct err *err);
/* The same form for a key of ours. */
int x509_key_point(EVP_PKEY *key, uint8_t ret_point[65], struct err *err);
/* The reverse: a public key. EVP_PKEY_free. */
EVP_PKEY *x509_key_of_point(const uint8_t point[65], struct err *err);

/* --- making certificates (keeper) ---------------------------------------------------------------
 */
struct x509_issue {
    struct str spiffe_id;        /* of the subject; a trust domain ID for a CA */
    const uint8_t *point;        /* 65 bytes: the subject's P-256 key */
    const struct str *dns_names; /* leaf only */
    size_t n_dns_names;
    bool ca;
    int path_len;                      /* CA only; -1: none stated */
    int64_t not_before_s, not_after_s; /* the issuer's end caps not_after */
};
/* issuer NULL: self-signed by issuer_key. 128-bit random serial. *ret is the caller's (X509_free).
 */
int x509_issue(const struct x509_issue *what, X509 *issuer, EVP_PKEY *issuer_key, X509 **ret,
               struct err *err);
/* The same where an authority's key is somewhere else, of which all that is known is its point.
 * sign: the 64 bytes r and s of ECDSA over the hash, or -1 with the reason. The issuer is a root
 * that was made here: its names follow from its point. Self-signed if that is what->point. What
 * comes back is verified. For authorities alone: what->ca. */
struct x509_away {
    const uint8_t *point; /* 65 bytes */
    int (*sign)(void *arg, const uint8_t sha256[32], uint8_t ret_rs[64], struct err *err);
    void *arg;
};
int x509_issue_away(const struct x509_issue *what, const struct x509_away *issuer, X509 **ret,
                    struct err *err);
/* Whether that key signed it. */
bool x509_signed_by_point(X509 *cert, const uint8_t point[65]);
/* The same for leaves by the thousand: an authority made ready. It keeps references, and is for one
 * thread. */
struct x509_signer;
struct x509_signer *x509_signer_new(X509 *issuer, EVP_PKEY *issuer_key, struct err *err);
struct x509_signer *x509_signer_ref(struct x509_signer *s);
struct x509_signer *x509_signer_unref(struct x509_signer *s);
struct x509_made {
    uint8_t *der; /* owned: free() */
    size_t len;
    uint8_t serial[16];
    int64_t not_after_s;
};
int x509_signer_issue(struct x509_signer *s, const struct x509_issue *what, struct x509_made *ret,
                      struct err *err);
/* Whether the 65 bytes are an uncompressed point of P-256. */
bool x509_signer_takes(struct x509_signer *s, const uint8_t point[65]);
/* DER, caller's to free(). */
int x509_to_der(X509 *cert, uint8_t **ret, size_t *ret_len, struct err *err);
/* Splits concatenated DER; at most 16 certificates, nothing left over. */
STACK_OF(X509) * x509_chain_from_der(struct str ders, struct err *err);
/* In lower-case hex. */
void x509_serial_text(X509 *cert, char ret[48]);
int64_t x509_not_after_s(X509 *cert);
int64_t x509_not_before_s(X509 *cert);

MEM_DEFINE_CLEANUP(X509, X509_free)
MEM_DEFINE_CLEANUP(EVP_PKEY, EVP_PKEY_free)
MEM_DEFINE_CLEANUP(struct x509_svid, x509_svid_free)
MEM_DEFINE_CLEANUP(struct x509_trust, x509_trust_unref)

#endif
