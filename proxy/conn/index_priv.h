/*
 * Who is connected, by what a change may concern: the peer (identity, serial, the authorities above
 * it), and what allowed it (a rule's content, or a route's). So that a change of policy, bundle,
 * deny list or mesh map finds its connections without asking all of them. docs/lifetimes.md.
 *
 * A connection is a slot, named by a number; the index knows nothing else of it. Every slot that
 * was not looked at since the last change stands in one of several queues, the urgent ones first.
 * Names are kept once a peer. For one worker; no clock, no I/O.
 */
#ifndef POSTERN_CONN_INDEX_PRIV_H
#define POSTERN_CONN_INDEX_PRIV_H

#include <postern/policy.h>
#include <postern/str.h>
#include <postern/x509.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* In what order slots are looked at. */
enum live_rank {
    LIVE_QUARANTINED,
    LIVE_TRUST,
    LIVE_CHANGED, /* what allowed it is another one now */
    LIVE_MAYBE,   /* it is concerned as many others are */
    LIVE_MOVE,    /* nothing of it changed: it takes the new snapshot, and is not judged */
    LIVE_RANKS,   /* in no queue */
};

enum live_by {
    LIVE_BY_NOTHING, /* not allowed yet: concerned by everything */
    LIVE_BY_RULE,    /* keys: the rule, and that of a policy that narrows; 0: none */
    LIVE_BY_REQUEST, /* each of its requests is allowed by itself */
    LIVE_BY_ROUTE,   /* key: the route */
    LIVE_BY_NO_ONE,  /* passed through: outbound, without a route; inbound by server name */
};

struct live_index;
struct live_index *live_index_new(void);
struct live_index *live_index_free(struct live_index *x);

/* --- slots ------------------------------------------------------------------------------------ */
/* Never 0. Of a new connection, in no queue. */
uint32_t live_add(struct live_index *x, void *owner, uint16_t listener, bool outbound);
void live_remove(struct live_index *x, uint32_t slot);
/* Whom its verified peer is. issuers: the keys above it. */
struct live_peer_facts {
    struct str id;      /* empty: none */
    const char *serial; /* "": none */
    const struct x509_key_id *issuers;
    size_t n_issuers;
};
void live_set_peer(struct live_index *x, uint32_t slot, const struct live_peer_facts *peer);
/* The serial of the own certificate that it was made under. Beyond a thousand of them at once
 * everything concerns it. */
void live_set_own(struct live_index *x, uint32_t slot, const char *serial);
/* Returns the name that it keeps for as long as somebody is allowed by this. */
const char *live_set_by(struct live_index *x, uint32_t slot, enum live_by by, uint64_t key,
                        uint64_t key2, const char *name);
/* More depends on it than the index knows: everything concerns it. */
void live_set_unsure(struct live_index *x, uint32_t slot);

/* --- a change: marking whom it concerns ------------------------------------------------------- */
void live_mark_id(struct live_index *x, struct str id, enum live_rank rank);
/* Peers, and what was made under an own certificate of this serial. */
void live_mark_serial(struct live_index *x, struct str serial, enum live_rank rank);
/* ids: ascending. Whose peer has no keys above it is concerned too. */
void live_mark_issuers(struct live_index *x, const struct x509_key_id *ids, size_t n,
                       enum live_rank rank);
/* keys: ascending. */
void live_mark_keys(struct live_index *x, enum live_by by, const uint64_t *keys, size_t n,
                    enum live_rank rank);
void live_mark_by(struct live_index *x, enum live_by by, enum live_rank rank);
void live_mark_who(struct live_index *x, const struct policy_who *who, enum live_rank rank);
void live_mark_listener(struct live_index *x, uint16_t listener, enum live_rank rank);
void live_mark_direction(struct live_index *x, bool outbound, enum live_rank rank);
/* Those that everything concerns. */
void live_mark_unsure(struct live_index *x, enum live_rank rank);
void live_mark_all(struct live_index *x, enum live_rank rank);

/* --- working it off --------------------------------------------------------------------------- */
/* The most urgent one, taken out of its queue; NULL: nobody is left. *ret_rank says which. */
void *live_next(struct live_index *x, enum live_rank *ret_rank);
/* Takes a slot out of its queue: it is being looked at. The rank that it had. */
enum live_rank live_take(struct live_index *x, uint32_t slot);

#endif
