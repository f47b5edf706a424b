/* What the files of identity/rotate share. */
#ifndef POSTERN_ROTATE_PRIV_H
#define POSTERN_ROTATE_PRIV_H

#include <postern/mem.h>
#include <postern/rotate.h>

/* --- pem.c, pkcs12.c: bytes of one file --------------------------------------------------------
 */
/* Appends to a file that is being made; what is secret goes into secret memory only. */
struct rotate_bytes {
    uint8_t *data; /* owned: mem_secret memory if secret, else of malloc */
    size_t len, cap;
    bool secret;
};
void rotate_bytes_append(struct rotate_bytes *b, const void *p, size_t n);
void rotate_bytes_reset(struct rotate_bytes *b);

int rotate_pem_cert(struct rotate_bytes *b, X509 *cert, struct err *err);
int rotate_pem_key(struct rotate_bytes *b, EVP_PKEY *key, enum conf_rotate_encoding encoding,
                   struct err *err);
/* Key and chain; the passphrase may be empty. PBES2 with AES-256, HMAC with SHA-256. */
int rotate_pkcs12_identity(struct rotate_bytes *b, const struct x509_svid *svid,
                           const char *passphrase, struct err *err);
/* Certificates that Java takes as trusted. */
int rotate_pkcs12_trust(struct rotate_bytes *b, STACK_OF(X509) * certs, const char *passphrase,
                        struct err *err);

/* --- set.c: what is known of a set, as it stands beside its files -------------------------------
 */
#define ROTATE_SET_FILE "..set.json"
bool rotate_set_write(const struct rotate_set *set, struct buf *out);

/* --- generation.c: pure ------------------------------------------------------------------------
 */
#define ROTATE_DATA "..data"
#define ROTATE_GENERATION_PREFIX "..gen-"
#define ROTATE_NEW_LINK "..new-link"
enum { ROTATE_GENERATION_LEN = 64 };
void rotate_generation_name(uint64_t seq, uint64_t wall_ms, char ret_name[ROTATE_GENERATION_LEN]);
/* False: it is no such name of ours. */
bool rotate_generation_parse(struct str name, uint64_t *ret_seq, uint64_t *ret_wall_ms);

/* --- dir.c, swap.c, tidy.c: one directory ------------------------------------------------------
 */
struct rotate_dir {
    char *path, *name;                   /* owned; name: its last component */
    const struct conf_rotate_output *of; /* lent */
    int parent_fd;                       /* O_PATH */
    int fd;                              /* locked */
    uint64_t generation;                 /* the present one's number; 0: none */
    uint64_t last_seq;                   /* the highest that was ever seen here */
    char present[ROTATE_GENERATION_LEN]; /* its name; empty: none */
    rotate_step_fn step;                 /* tests; NULL */
    void *step_arg;
};
/* Beneath fd and without following any link; -1 with errno. */
int rotate_open_beneath(int fd, const char *name, int flags, mode_t mode);
/* The mode of a directory that lets in whom the file modes let read. */
mode_t rotate_dir_mode(const struct conf_rotate_output *o);
/* That the directory still is where the configuration says, and still ours alone. */
int rotate_check_place(const struct rotate_dir *d, struct err *err);
/* Group and mode of the directory itself, as the configuration says. */
int rotate_let_in(const struct rotate_dir *d, struct err *err);
/* Whether the step may be made; false: errno says why not. */
bool rotate_step(const struct rotate_dir *d, const char *what);
/* Removes what was never led to, and links of ours that were left over. */
int rotate_recover(struct rotate_dir *d, struct err *err);
/* Removes one generation; what others may not read is overwritten before. */
int rotate_remove_generation(struct rotate_dir *d, const char *name, struct err *err);

/* Links of ours to files that are no longer in the set. */
int rotate_remove_stale_links(struct rotate_dir *d, struct err *err);

/* --- tokens_message.c: pure functions over what an agent sends -------------------------------- */
struct rotate_token_text {
    char *text;      /* owned; a bearer token: wiped when it goes */
    char *spiffe_id; /* owned */
    int64_t ends_s;
};
/* The first token of a JWTSVIDResponse, which has to be of `wanted` (NULL: anybody's), for every
 * audience that was asked for, and not over. */
int rotate_read_token(struct str message, const char *wanted, const struct conf_strings *audience,
                      int64_t now_s, struct rotate_token_text *ret, struct err *err);
void rotate_token_text_reset(struct rotate_token_text *t);

/* As jwt_key_sets_read; at least one. */
int rotate_read_key_sets(struct str message, struct jwt_key_sets *ret, struct err *ret_warning,
                         struct err *err);

/* --- tokens.c ----------------------------------------------------------------------------------
 */
struct rotate_tokens_options {
    const char *socket;
    uint32_t renew_at, renew_jitter; /* percent */
};
struct rotate_tokens_events {
    void (*on_change)(void *arg); /* there is something new */
    /* The first failure of a row, or a warning; NULL: all is well again. */
    void (*on_trouble)(void *arg, const struct err *why);
};
struct rotate_tokens;
/* o, options and events are lent. Begins at once with key sets; with tokens when it is told whose.
 */
struct rotate_tokens *rotate_tokens_new(struct loop *loop, const struct conf_rotate_output *o,
                                        const struct rotate_tokens_options *options,
                                        const struct rotate_tokens_events *events, void *arg,
                                        struct err *err);
struct rotate_tokens *rotate_tokens_free(struct rotate_tokens *t);
/* NULL: of the first identity that the agent offers. */
void rotate_tokens_set_id(struct rotate_tokens *t, const char *spiffe_id);
/* Everything that a file wants has come. */
bool rotate_tokens_complete(const struct rotate_tokens *t);
/* One for each file of the output; lent until the next call of anything here. */
const struct rotate_token *rotate_tokens_get(struct rotate_tokens *t);
const struct jwt_key_sets *rotate_tokens_key_sets(const struct rotate_tokens *t);
/* Whose they are; NULL: not known. */
const char *rotate_tokens_id(const struct rotate_tokens *t);

#endif
