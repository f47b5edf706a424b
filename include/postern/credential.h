/*
 * credential: own certificates and other people's authorities from files, tokens and second agents,
 * kept fresh for as long as the process lives (docs/credentials.md).
 *
 * The main thread owns one `struct credentials`. It loads what a specification names, watches the
 * files, and says when something new is in force. What is in force stays until something better
 * comes; a refusal is told once. What it hands out is lent until the next change or commit, and is
 * made of reference-counted OpenSSL objects: a tls_party made of it needs nothing of here.
 *
 * Reading bytes is apart (credential_parse_*): pure functions, for tests and fuzzers.
 * Thread: the loop's. Units: *_s of the wall clock.
 */
#ifndef POSTERN_CREDENTIAL_H
#define POSTERN_CREDENTIAL_H

#include <postern/err.h>
#include <postern/identity_client.h>
#include <postern/loop.h>
#include <postern/x509.h>
#include <postern/x509_peers.h>
#include <stdbool.h>
#include <stdint.h>

/* --- what there should be --------------------------------------------------------------------- */
enum credential_kind {
    CREDENTIAL_PEM,          /* cert, and key or NULL: in the same file */
    CREDENTIAL_PKCS12,       /* pkcs12 */
    CREDENTIAL_TOKEN,        /* cert, and the key's place: see away */
    CREDENTIAL_WORKLOAD_API, /* workload */
};
const char *credential_kind_name(enum credential_kind kind);

/* A key that is elsewhere: makes the EVP_PKEY for a certificate's public key (away_key.h). The key
 * keeps what it needs alive. */
struct credential_away {
    EVP_PKEY *(*key)(void *arg, EVP_PKEY *public_key, struct err *err);
    void *arg;
};

/* All texts are lent for the call that takes the specification. */
struct credential_spec {
    const char *name;
    enum credential_kind kind;
    const char *cert, *key, *pkcs12;
    const char *passphrase_file; /* NULL: there is none */
    struct credential_away away;
    struct {
        const char *socket, *spiffe_id;
        enum identity_key_mode key;
    } workload;
};
struct credential_bundle {
    const char *trust_domain, *path;
};
/* ca, and crl or NULL; or bundles. */
struct credential_trust {
    const char *name;
    const char *ca, *crl;
    const struct credential_bundle *bundles;
    size_t n_bundles;
};
struct credentials_spec {
    const struct credential_spec *own;
    size_t n_own;
    const struct credential_trust *trust;
    size_t n_trust;
};
enum { CREDENTIAL_BUNDLES_MAX = 64 };

/* --- the whole of them ------------------------------------------------------------------------ */
enum credential_notice {
    CREDENTIAL_LOADED,  /* new, or newer; the first time too */
    CREDENTIAL_REFUSED, /* what came is not taken; why says it; what is in force stays */
    CREDENTIAL_OPEN,    /* everybody may read the key's file */
    CREDENTIAL_EXPIRES, /* soon; why says when */
    CREDENTIAL_EXPIRED,
    CREDENTIAL_LOST, /* a workload's: the agent has withdrawn it */
};

struct credentials_events {
    /* Something of what is in force has changed: get it anew. */
    void (*on_change)(void *arg);
    /* For the owner's log. is_trust: name is a trust's. why may be NULL. */
    void (*on_notice)(void *arg, bool is_trust, const char *name, enum credential_notice notice,
                      const struct err *why);
};

struct credentials;
struct credentials *credentials_new(struct loop *loop, const struct credentials_events *events,
                                    void *arg);
/* Takes NULL. Not from within a callback. */
struct credentials *credentials_free(struct credentials *c);

/* A change of the specification is all or nothing. Prepare loads what is new or described otherwise
 * and keeps the rest as it is; -1: something cannot be loaded, and nothing has changed. A Workload
 * API that does not answer yet is no failure. Then either commit or abandon, before any other call.
 * No callback comes from within these but notices of what is loaded. */
struct credentials_set;
int credentials_prepare(struct credentials *c, const struct credentials_spec *spec,
                        struct credentials_set **ret, struct err *err);
void credentials_commit(struct credentials *c, struct credentials_set *set);
void credentials_abandon(struct credentials *c, struct credentials_set *set);
/* Looks at every file again: SIGHUP. */
void credentials_read_again(struct credentials *c);

/* What is in force by name, or in a set that is not committed yet; lent; NULL: nothing (yet). A set
 * of NULL is the one in force. */
const struct x509_svid *credentials_own(const struct credentials *c,
                                        const struct credentials_set *set, const char *name);
const struct x509_peers *credentials_peers(const struct credentials *c,
                                           const struct credentials_set *set, const char *name);
/* Whether there is something for each name. */
bool credentials_complete(const struct credentials *c);
/* The directories that have to stay readable: of every file, and of the links on the way, as they
 * are now. Calls fn for each, maybe more than once. */
void credentials_directories(const struct credentials *c, const struct credentials_set *set,
                             void (*fn)(void *arg, const char *dir), void *arg);

struct credential_status {
    const char *name; /* lent */
    bool is_trust;
    const char *kind; /* "pem", "pkcs12", "token", "workload_api", "ca", "bundles" */
    bool in_force;
    const struct x509_svid *own; /* lent; NULL: a trust, or nothing in force */
    size_t n_authorities, n_crls;
    int64_t end_s;    /* own: of the chain; trust: the next update of the earliest list; 0: none */
    int64_t loaded_s; /* when what is in force came; 0: nothing */
    uint64_t n_loaded, n_refused;
    struct err refused; /* the last one; code NONE: the newest was taken */
};
size_t credentials_count(const struct credentials *c);
void credentials_get_status(const struct credentials *c, size_t i, struct credential_status *ret);

/* --- reading bytes ---------------------------------------------------------------------------- */
enum {
    CREDENTIAL_FILE_MAX = 1024 * 1024, /* certificates, keys, PKCS#12 */
    CREDENTIAL_TRUST_MAX = 8 * 1024 * 1024,
    CREDENTIAL_CRL_MAX = 32 * 1024 * 1024,
    CREDENTIAL_PASSPHRASE_MAX = 1024,
};
/* Certificates of PEM text (other things in it are skipped), or of one DER certificate; at least
 * one, at most max. */
STACK_OF(X509) * credential_parse_certs(struct str text, int max, struct err *err);
/* PEM or DER; at least one. */
STACK_OF(X509_CRL) * credential_parse_crls(struct str text, struct err *err);
/* The one private key of PEM text. passphrase: of an encrypted one; STR_NONE: there is none. */
EVP_PKEY *credential_parse_key(struct str text, struct str passphrase, struct err *err);
/* cert and key may be the same text. */
int credential_parse_pem(struct str cert, struct str key, struct str passphrase,
                         struct x509_svid **ret, struct err *err);
int credential_parse_pkcs12(struct str der, struct str passphrase, struct x509_svid **ret,
                            struct err *err);
/* A bundle of a trust domain: PEM, a JWK set, or a map of such sets by trust domain. Adds to trust,
 * which is not shared yet. */
int credential_parse_bundle(struct str text, struct str trust_domain, struct x509_trust *trust,
                            struct err *err);

#endif
