/* What the files of this room share: the conversion of one configuration, its keys and values, and
 * how it is told and written. */
#ifndef POSTERN_SPIFFE_HELPER_PRIV_H
#define POSTERN_SPIFFE_HELPER_PRIV_H

#include <postern/spiffe_helper.h>

#include "hcl_priv.h"

enum key {
    AGENT_ADDRESS,
    CMD,
    CMD_ARGS,
    PID_FILE_NAME,
    CERT_DIR,
    DAEMON_MODE,
    ADD_INTERMEDIATES_TO_BUNDLE,
    RENEW_SIGNAL,
    SVID_FILE_NAME,
    SVID_KEY_FILE_NAME,
    SVID_BUNDLE_FILE_NAME,
    JWT_SVIDS,
    JWT_BUNDLE_FILE_NAME,
    INCLUDE_FEDERATED_DOMAINS,
    CERT_FILE_MODE,
    KEY_FILE_MODE,
    JWT_BUNDLE_FILE_MODE,
    JWT_SVID_FILE_MODE,
    HINT,
    OMIT_EXPIRED,
    HEALTH_CHECKS,
    N_KEYS,
};
/* Its own defaults. */
#define HELPER_SOCKET "/tmp/spire-agent/public/api.sock"
enum {
    HELPER_CERT_MODE = 0644,
    HELPER_SECRET_MODE = 0600,
    HELPER_HEALTH_PORT = 8081,
    HELPER_ARGS_MAX = 60, /* a command of ours takes 64 words */
    HELPER_TOKENS_MAX = 60,
};

struct helper {
    const struct spiffe_helper_options *options;
    spiffe_helper_tell_fn tell;
    void *arg;
    const struct hcl_node *at[N_KEYS]; /* NULL: not in the file */
    bool refused;
    bool x509, daemon;
    struct {
        char *items[HELPER_ARGS_MAX]; /* owned */
        size_t n;
    } args; /* of cmd */
    struct buf *out;
    bool full;
};

/* --- values.c ----------------------------------------------------------------------------------
 */
/* n: what it is about; NULL: the file. */
void helper_refuse(struct helper *c, const struct hcl_node *n, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void helper_note(struct helper *c, const struct hcl_node *n, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Fills c->at; unknown keys and wrong types are refused. */
void helper_collect(struct helper *c, const struct hcl_node *root);
/* "" where the key is not there, or empty: both are the same over there. */
const char *helper_text(const struct helper *c, enum key k);
bool helper_truth(const struct helper *c, enum key k, bool absent);
/* absent, too, where it is 0 or refused. */
uint64_t helper_integer(struct helper *c, const struct hcl_node *n, uint64_t absent);
/* What stands in YAML between single quotes. */
bool helper_is_plain(const char *text);
const struct hcl_node *helper_find(const struct hcl_node *object, const char *key);

void helper_put(struct helper *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void helper_put_quoted(struct helper *c, const char *text);
/* A path as it is from anywhere. */
void helper_put_path(struct helper *c, const char *path);

/* --- actions.c ---------------------------------------------------------------------------------
 */
/* Splits cmd_args into c->args. */
void helper_check_actions(struct helper *c);
/* The supervised child, as words of a shell; nothing where there is none. */
void helper_put_child(struct helper *c);
void helper_put_actions(struct helper *c);

/* --- files.c -----------------------------------------------------------------------------------
 */
size_t helper_tokens(const struct helper *c);
void helper_put_modes(struct helper *c);
/* The files of the output, each name once. */
void helper_put_files(struct helper *c);

#endif
