/*
 * identity_client: this process's own identity, fetched from an agent over the SPIFFE Workload API
 * and renewed for as long as the process lives.
 *
 * Two ways to an identity:
 *   csr    this process makes a P-256 key for each renewal and has it signed by the agent
 *          (postern.v1.Identity/SignX509SVID); the key never leaves it. Trust comes from
 *          FetchX509Bundles. Renewed at half of the remaining life (or as said), with jitter; also
 * at once when the new trust no longer holds the chain's authority. agent  the agent makes the key
 * and pushes it (FetchX509SVID): any SPIFFE agent does that. auto   csr, and agent if the agent
 * answers Unimplemented; that is told by a notice.
 *
 * The result is an immutable, reference-counted identity_state. While the agent is away the last
 * one stays until it expires. It is withdrawn (on_state with NULL) when it expires, and when the
 * agent says PermissionDenied (SPIFFE_Workload_API.md: clients stop using the SVIDs then).
 * Retries go on with exponential backoff, 100 ms to 10 s with jitter, and never longer than a tenth
 * of what is left of the identity; after InvalidArgument they stop, since asking again would not
 * help.
 *
 * Thread: the client lives on one loop; states may be held and released by any thread.
 * Units: *_ms of os_now_ms, *_s of the wall clock.
 */
#ifndef POSTERN_IDENTITY_CLIENT_H
#define POSTERN_IDENTITY_CLIENT_H

#include <postern/err.h>
#include <postern/loop.h>
#include <postern/x509.h>
#include <stdbool.h>
#include <stdint.h>

enum identity_key_mode { IDENTITY_KEY_AUTO, IDENTITY_KEY_CSR, IDENTITY_KEY_AGENT };
enum identity_source { IDENTITY_FROM_CSR, IDENTITY_FROM_AGENT };

/* --- states ----------------------------------------------------------------------------------- */
struct identity_state {
    const struct x509_svid *svid;
    const struct x509_trust *trust;
    uint64_t generation;  /* grows with each state of a client; 1 is the first */
    int64_t renewed_at_s; /* when this SVID came; a change of trust alone leaves it */
    enum identity_source source;
    /* All IDs that the agent offers, in its order, the last one NULL; itself NULL with `csr`. */
    char *const *offered;
};
struct identity_state *identity_state_ref(const struct identity_state *state);
struct identity_state *identity_state_unref(struct identity_state *state);

/* --- the client ------------------------------------------------------------------------------- */
enum identity_notice {
    IDENTITY_RENEWED,       /* a new SVID is in the state */
    IDENTITY_TRUST_CHANGED, /* new bundles, same SVID */
    IDENTITY_FELL_BACK,     /* the agent cannot sign requests: it makes the key from now on */
    IDENTITY_AGENT_AWAY,    /* the first failure of a row; the last state stays in use */
    IDENTITY_AGENT_BACK,    /* a good message after that */
    IDENTITY_DENIED,        /* PermissionDenied: withdrawn; retries go on */
    IDENTITY_GAVE_UP,       /* InvalidArgument or Unimplemented: no more retries */
    IDENTITY_BAD_ANSWER,    /* a message that broke the specification was ignored */
    IDENTITY_EXPIRED,       /* the SVID ran out before it could be renewed: withdrawn */
};
/* "renewed", "agent_away" ...: for log lines. */
const char *identity_notice_name(enum identity_notice notice);

struct identity_client_events {
    /* The new state, lent (take a reference to keep it); NULL: there is no valid one any more. */
    void (*on_state)(void *arg, const struct identity_state *state);
    /* For the owner's log; why is NULL where nothing went wrong. NULL: not wanted. */
    void (*on_notice)(void *arg, enum identity_notice notice, const struct err *why);
};

/* Keys of our own that are made elsewhere. */
struct identity_keys {
    /* A key, and a certificate request that states it (free()). */
    int (*make)(void *arg, EVP_PKEY **ret_key, uint8_t **ret_request, size_t *ret_len,
                struct err *err);
    void *arg;
};

struct identity_client_options {
    const char *socket;    /* as identity_socket_path takes it; NULL: the environment */
    const char *spiffe_id; /* which one of several; NULL: the first offered */
    enum identity_key_mode key;
    bool check_agent; /* connect by identity_agent_connect only */
    /* With a key of our own: after how much of what is left of the life, in percent; 0: 50. And the
     * spread around that, likewise; 0: 5. Together at most 95. */
    uint32_t renew_at, renew_jitter;
    /* make NULL: keys are made here. Else `auto` is `csr`. */
    struct identity_keys keys;
};

struct identity_status {
    bool connected;
    bool denied;   /* the agent's last word was PermissionDenied */
    bool gave_up;  /* no more retries */
    bool fallback; /* `auto` uses the agent's key */
    unsigned failures_in_row;
    uint64_t last_success_ms; /* the last good message; 0: never */
    uint64_t last_error_ms;   /* 0: never */
    struct err last_error; /* stays when all is well again: see failures_in_row, denied, gave_up */
    uint64_t next_renewal_ms; /* when it will ask again; 0: it waits for the agent */
    int64_t expires_s;        /* of the current state; 0: there is none */
};

struct identity_client;
/* Begins to connect at once; callbacks come from the loop, never from within this. options are
 * copied, events is borrowed. Fails on a socket address or an ID that is wrong as it stands. */
struct identity_client *identity_client_new(struct loop *loop,
                                            const struct identity_client_options *options,
                                            const struct identity_client_events *events, void *arg,
                                            struct err *err);
/* Takes NULL. Not from within a callback of the client's own. No callback comes any more; states
 * that others hold live on. */
struct identity_client *identity_client_free(struct identity_client *client);
/* The current state, lent; NULL: none. */
const struct identity_state *identity_client_state(const struct identity_client *client);
void identity_client_get_status(const struct identity_client *client, struct identity_status *ret);
/* Asks again now, also after it gave up: for SIGHUP and people. */
void identity_client_renew(struct identity_client *client);
/* The key of what we have is gone, and so is the identity: it is withdrawn, and another one is
 * asked for. Not from within a callback of the client's own. */
void identity_client_key_lost(struct identity_client *client);

/* Connects to the agent's socket, which has to be root's or this process's own user's: the
 * directory and the socket in it, which nobody else may have put there, and whoever listens on it.
 * A process that could put up a socket in the agent's place could else say who we are and what is
 * allowed. A connected, non-blocking descriptor, or -1: ERR_UNAVAILABLE nobody is there, ERR_DENIED
 * it is somebody else. */
int identity_agent_connect(const char *path, struct err *err);

/* The path of "unix:/p", "unix:///p" or "/p"; text NULL: of SPIFFE_ENDPOINT_SOCKET. */
int identity_socket_path(const char *text, char *ret_path, size_t size, struct err *err);

MEM_DEFINE_CLEANUP(struct identity_state, identity_state_unref)

#endif
