/*
 * signer: the process that uses the PKCS#11 token with the root's key. What its files share.
 *
 * main.c   its start, as a list
 * privs.c  all that it may do
 * judge.c  what it signs, and nothing else: a library, so that it is tested without a token
 * token.c  module, token, session
 * keys.c   keys in the token
 * run.c    the keeper's questions
 * says.c   what the module would say to syslog
 *
 * Beside it postern-token, which signs a gateway's handshakes (include/postern/token_key.h):
 * tls_main.c, tls_keys.c, tls_privs.c; token_key.c is its asker's side.
 *
 * docs/authority.md, "A token". One thread.
 */
#ifndef POSTERN_SIGNER_PRIV_H
#define POSTERN_SIGNER_PRIV_H

#include <postern/agent_ipc.h>
#include <postern/x509.h>

/* --- judging ---------------------------------------------------------------------------------- */
struct signer_rules {
    char trust_domain_id[SPIFFE_ID_MAX + 1]; /* "spiffe://td": of all that it signs */
    uint32_t root_ttl_s, node_ttl_s;
};
/* Whether that may be signed now: a pure function. */
int signer_judge(const struct signer_rules *rules, const struct agent_msg_signer_sign *ask,
                 int64_t now_s, struct err *err);
/* Judges, builds and has it signed; *ret is the caller's. away->point is not looked at. */
int signer_certify(const struct signer_rules *rules, const struct agent_msg_signer_sign *ask,
                   int64_t now_s, const struct x509_away *away, X509 **ret, struct err *err);

/* --- the token -------------------------------------------------------------------------------- */
struct signer_token;
struct signer_token_name {
    const char *module, *label, *key;
};
/* Loads the module, finds the token, logs in. The PIN is not kept. Texts are lent for as long as
 * the token lives. */
int signer_token_open(const struct signer_token_name *name, struct str pin,
                      struct signer_token **ret, struct err *err);
/* The key with the label itself, made if there is none; or another one. */
int signer_token_key(struct signer_token *t, bool another, uint8_t ret_point[AGENT_POINT_SIZE],
                     bool *ret_made, struct err *err);
/* Signs with the key of that point, if it is one of ours: the function of struct x509_away. */
struct signer_key {
    struct signer_token *token;
    const uint8_t *point;
};
int signer_key_sign(void *key, const uint8_t sha256[32], uint8_t ret_rs[64], struct err *err);

/* --- calls (syscalls.c) ----------------------------------------------------------------------- */
extern const char *const signer_syscalls[]; /* NULL-terminated */

/* --- the process ------------------------------------------------------------------------------ */
struct signer {
    int control, keeper;
    struct agent_msg_start_signer start;
    struct signer_rules rules;
    char module[AGENT_PATH_MAX + 1], label[AGENT_TOKEN_LABEL_MAX + 1], key[AGENT_TOKEN_KEY_MAX + 1];
    struct signer_token *token;
    union agent_msg in;
};
int signer_drop_privileges(const struct agent_msg_start_signer *start,
                           struct agent_msg_report *ret_report, struct err *err);
/* Until the supervisor closes the channel: 0; -1: the token failed, or one of ours is gone. */
int signer_run(struct signer *s, struct err *err);

enum {
    SIGNER_CALL_S = 10
}; /* a module that takes longer for one thing is stuck: SIGALRM ends us */

#endif
