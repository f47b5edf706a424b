/* What the files of identity/client share. */
#ifndef POSTERN_IDENTITY_CLIENT_PRIV_H
#define POSTERN_IDENTITY_CLIENT_PRIV_H

#include <postern/grpc.h>
#include <postern/identity_client.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/un.h>

struct identity_client {
    struct loop *loop;
    const struct identity_client_events *events; /* borrowed */
    void *arg;
    char socket_path[sizeof(((struct sockaddr_un *)0)->sun_path)];
    char *spiffe_id; /* owned; NULL: the first offered */
    enum identity_key_mode key_mode;
    bool check_agent;
    uint32_t renew_at, renew_jitter; /* percent */
    bool use_agent_key;              /* what key_mode comes to with this agent */
    struct identity_keys keys;       /* make NULL: made here */

    struct grpc_client *conn;
    struct grpc_client_call *watch;   /* FetchX509Bundles, or FetchX509SVID with the agent's key */
    struct grpc_client_call *tainted; /* WatchTainted; only with a key of our own */
    bool no_tainted;                  /* this agent does not serve it */
    bool ask_tainted_again;           /* its answer was about an SVID that is being replaced */
    struct grpc_client_call *sign;
    EVP_PKEY *pending_key; /* owned: what sign asks for */

    struct loop_timer retry_timer, renew_timer, expiry_timer;
    bool retry_armed, renew_due;

    struct x509_svid *svid; /* owned; waits for the first trust, or is the state's */
    struct x509_trust *trust;
    char **offered;      /* owned; with the agent's key: what its last message held */
    bool published_svid; /* svid is in the state */
    int64_t renewed_at_s, renew_at_s;
    uint64_t generation;
    struct identity_state *state;
    struct identity_status status;
};

/* --- client.c --- */
void client_notice(struct identity_client *c, enum identity_notice what, const struct err *why);
/* If both halves are there, the owner gets a new whole. */
void client_publish(struct identity_client *c);
void client_arm_retry(struct identity_client *c, uint64_t delay_ms);
/* Something failed that may work later. */
void client_failed(struct identity_client *c, const struct err *why);
/* It will not, until the owner says otherwise. */
void client_give_up(struct identity_client *c, const struct err *why);
void client_denied(struct identity_client *c, const struct err *why);
void client_bad_answer(struct identity_client *c, const struct err *why);
void client_good_message(struct identity_client *c);

/* --- calls.c --- */
/* Starts whatever is missing. */
int client_proceed(struct identity_client *c, struct err *err);
void client_stop_calls(struct identity_client *c);
void client_drop_connection(struct identity_client *c);

/* --- state.c --- */
/* Takes svid, trust and the list over; what says the rest. */
struct identity_state *client_state_new(struct x509_svid *svid, struct x509_trust *trust,
                                        char **offered, const struct identity_state *what);
char **client_offered_dup(char *const *offered);
void client_offered_free(char **offered);
MEM_DEFINE_CLEANUP(char *, client_offered_free)

/* --- messages.c: pure functions over what an agent sends --- */

/* X509SVIDResponse: the identity `wanted` (NULL: the first) and the bundles. A foreign bundle that
 * cannot be read is left out and told in *ret_warning (ERR_NONE if there is none). A refusal has
 * code ERR_DENIED if the message is in order but does not hold the identity wanted. */
int client_read_svids(struct str message, const char *wanted, struct x509_svid **ret_svid,
                      struct x509_trust **ret_trust, char ***ret_offered, struct err *ret_warning,
                      struct err *err);
/* X509BundlesResponse; the bundle of own_id's trust domain (NULL: not known yet) must be in order,
 * others as above. */
int client_read_bundles(struct str message, const char *own_id, struct x509_trust **ret_trust,
                        struct err *ret_warning, struct err *err);
/* SignX509SVIDResponse, for the request that `key` made. */
int client_read_signed(struct str message, const char *wanted, EVP_PKEY *key,
                       struct x509_svid **ret_svid, struct err *err);
/* WatchTaintedResponse: whether one of the tainted authorities stands above this SVID. */
int client_read_tainted(struct str message, const struct x509_svid *svid, bool *ret_tainted,
                        struct err *err);
/* SignX509SVIDRequest with a certificate request; the message is the caller's to free(). */
void client_write_sign(const char *wanted, struct str csr, uint8_t **ret, size_t *ret_len);

#endif
