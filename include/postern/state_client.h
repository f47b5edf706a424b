/*
 * state_client: what the agent of this node tells its proxies (docs/state-stream.md), for as long
 * as the process lives.
 *
 * It connects to the agent's socket if that is root's or our own (identity_agent_connect), keeps a
 * State stream open, parses and compiles each snapshot whole and strictly, hands it to the owner
 * and says to the agent what runs. Who is quarantined counts at once; the rest is made by a thread
 * that lives for one snapshot (loop_job.h), and of those that come meanwhile the newest is next. A
 * snapshot that is wrong is refused with its first error, and the one of before stays, but for its
 * deny list, which is the new one's; so does it while the agent is away, and its age counts.
 * Retries go on for ever, with backoff from 100 ms to 2 s.
 *
 * Thread: one loop. Units: *_ms of os_now_ms.
 */
#ifndef POSTERN_STATE_CLIENT_H
#define POSTERN_STATE_CLIENT_H

#include <postern/err.h>
#include <postern/loop.h>
#include <postern/snapshot.h>
#include <postern/state_bounds.h>
#include <stdbool.h>
#include <stdint.h>

enum state_notice {
    STATE_AGENT_AWAY,  /* the first failure of a row; what was told last stays */
    STATE_AGENT_BACK,  /* a good snapshot after that */
    STATE_REFUSED,     /* a snapshot was wrong; the documents that were told before stay */
    STATE_NOT_TRUSTED, /* whoever is at the socket is not believed */
    STATE_DENIED,      /* PermissionDenied: no identity, so nothing is told */
};
const char *state_notice_name(enum state_notice notice);

struct state_client_events {
    /* A new one, the owner's to unref. Only if its content is another one than before. */
    void (*on_state)(void *arg, struct snapshot_state *state);
    /* Whether the agent says that our own identity is quarantined. */
    void (*on_quarantined)(void *arg, bool quarantined);
    /* For the owner's log; why may be NULL. */
    void (*on_notice)(void *arg, enum state_notice notice, const struct err *why);
};

struct state_client_options {
    const char *socket; /* as identity_socket_path takes it; NULL: the environment */
    const char *name;   /* of the proxy, for people */
    const char *version;
    const struct conf_strings *labels; /* of it; NULL: none */
};

struct state_client_status {
    bool connected;                    /* the stream has brought a snapshot and is open */
    bool have;                         /* there has been a good one */
    uint64_t generation, deny_version; /* that run */
    uint64_t age_ms;                   /* since the agent was last heard; 0 while connected */
    uint64_t refused_generation;       /* 0: the newest was taken */
    uint64_t n_snapshots, n_refused;
    unsigned failures_in_row;
    struct err last_error;
};

struct state_client;
/* Begins to connect at once; callbacks come from the loop. options are copied, events borrowed. */
struct state_client *state_client_new(struct loop *loop, const struct state_client_options *options,
                                      const struct state_client_events *events, void *arg,
                                      struct err *err);
struct state_client *state_client_free(struct state_client *c);
/* Tells the agent what permissive ports saw, beside what runs (docs/permissive.md); lent for the
 * call. false: it did not go out, since there is no stream that has brought a snapshot, or no room.
 */
struct Postern__V1__PlaintextReport;
bool state_client_report(struct state_client *c, struct Postern__V1__PlaintextReport *report);
/* Whether that port had turned strict by itself in a process before this one, as the last good
 * snapshot says. */
bool state_client_is_strict(const struct state_client *c, const char *listener, uint16_t port);
void state_client_get_status(const struct state_client *c, struct state_client_status *ret);

/* Ports of ours that have turned strict by themselves, as our agent remembers (docs/permissive.md):
 * of a Snapshot message, those that a listener of ours can be called. */
struct state_strict {
    char listener[STATE_LISTENER_MAX + 1];
    uint16_t port;
};
/* The items are the caller's to free; NULL: there are none, or it is no message. */
struct state_strict *state_message_read_strict(struct str message, size_t *ret_n);

/* A Snapshot message, whole: the pure part. *ret_generation is filled as soon as it is known, for a
 * refusal. before (NULL: nothing) is not changed; its documents are used again if the message has
 * the same. Any thread. */
int state_message_read(struct str message, struct snapshot_state *before,
                       struct snapshot_state **ret, uint64_t *ret_generation, struct err *err);
/* Of a message that was refused: the documents of `before`, and the message's deny list. NULL: it
 * has none that could be read. */
struct snapshot_state *state_message_read_deny(struct str message, struct snapshot_state *before);

#endif
