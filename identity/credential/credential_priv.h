/*
 * What the files of credential share.
 *
 *   pem.c, bundle.c  bytes to certificates, keys and authorities: pure
 *   file.c           a file's bytes, and which file it was
 *   source.c         one credential or trust: what it is made of, and loading it
 *   credentials.c    all of them: sets, retries, notices
 */
#ifndef POSTERN_CREDENTIAL_PRIV_H
#define POSTERN_CREDENTIAL_PRIV_H

#include <openssl/x509.h>
#include <postern/credential.h>
#include <postern/file_mark.h>
#include <postern/file_watch.h>
#include <sys/stat.h>
#include <time.h>

/* --- pem.c ------------------------------------------------------------------------------------ */
void credential_certs_free(STACK_OF(X509) * certs);
int credential_crypto_failed(struct err *err, const char *what);
/* x509_own_new, with advice about the order. */
int credential_own(STACK_OF(X509) * chain, EVP_PKEY *key, struct x509_svid **ret, struct err *err);

/* --- file.c ----------------------------------------------------------------------------------- */
/* A file's bytes, in memory for secrets. */
struct file_bytes {
    char *p; /* owned: mem_secret_free */
    size_t n;
    struct file_mark mark;
    mode_t mode;
};
/* Follows links. A file that others than its owner may write is refused. */
int file_read(const char *path, size_t max, struct file_bytes *ret, struct err *err);
void file_bytes_deinit(struct file_bytes *b);

/* --- source.c --------------------------------------------------------------------------------- */
enum { SOURCE_FILES_MAX = CREDENTIAL_BUNDLES_MAX + 2 };

struct source_file {
    char *path, *trust_domain; /* owned; trust_domain of a bundle */
    struct file_mark read, seen;
};

struct source {
    struct credentials *all; /* lent */
    unsigned refs;           /* sets that have it */
    char *name;              /* owned */
    bool is_trust;
    enum credential_kind kind; /* own only */
    struct source_file *files; /* owned: see source.c for their places */
    size_t n_files;
    bool has_key, has_passphrase, has_crl;
    struct credential_away away;
    char *socket, *spiffe_id; /* owned; workload only */
    enum identity_key_mode key_mode;
    struct identity_client *client; /* owned; workload only */

    struct x509_svid *own;    /* owned; in force */
    struct x509_peers *peers; /* likewise */
    bool open_to_all;         /* the file of source_secret, when it was read last */
    unsigned failures;        /* in a row */
    bool told;                /* of the last of these */
    int end_stage;            /* of own: how much of its end was told */
    int64_t loaded_s;
    uint64_t n_loaded, n_refused;
    struct err refused;
};
struct source *source_new_own(struct credentials *all, const struct credential_spec *spec);
struct source *source_new_trust(struct credentials *all, const struct credential_trust *spec);
struct source *source_ref(struct source *s);
struct source *source_unref(struct source *s);
bool source_is_own(const struct source *s, const struct credential_spec *spec);
bool source_is_trust(const struct source *s, const struct credential_trust *spec);
/* Reads its files whole and takes what they say; *ret_changed: it is other than before. A
 * workload's has none. */
int source_load(struct source *s, bool *ret_changed, struct err *err);
/* Whether a file is another one than was read. by_event false: and looks the same as last time. */
bool source_looks_changed(struct source *s, bool by_event);
/* Which file keeps the key a secret: the passphrase's, else the one that it stands in. */
size_t source_secret(const struct source *s);
/* What the agent says, of a workload's; NULL: nothing any more. */
void source_take_state(struct source *s, const struct identity_state *state);

#endif
