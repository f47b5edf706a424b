/* A relay between a client and the last hop, for tests of it: the client and the last hop are the
 * world's own sides (gateway_world.h). */
#ifndef POSTERN_TESTS_RELAY_WORLD_H
#define POSTERN_TESTS_RELAY_WORLD_H

#include "gateway_world.h"

#define APP "spiffe://a.b/app"

static const char TAKES[] = "  - {name: in, type: server, address: \"127.0.0.1:%u\",\n"
                            "     to: \"127.0.0.1:%u\", transport: hbone}\n";
static const char DIRECT[] = "  - {name: in, type: server, address: \"127.0.0.1:%u\",\n"
                             "     to: \"127.0.0.1:%u\"}\n";
static const char MAY[] = "kind: Policy\nlevel: 1\nrules: [{name: app-may, action: ALLOW, from: "
                          "[{principals: [\"" APP "\"]}]}]\n";
static const char NOBODY[] = "kind: Policy\nlevel: 1\nrules: []\n";

struct way {
    struct world *w;   /* its server is the last hop */
    struct side mid;   /* the relay */
    struct side other; /* a second client; worker NULL: none */
    uint16_t port, plain;
    int held[2]; /* these two */
};

static inline struct way *way_new(const char *last)
{
    struct way *y = calloc(1, sizeof(*y));
    y->held[0] = held_port(&y->port);
    y->held[1] = held_port(&y->plain);
    y->w = world_new(last);
    return y;
}

static inline void way_free(struct way *y)
{
    side_stop(&y->other);
    side_stop(&y->w->client); /* before its streams are lost with the relay */
    memset(&y->w->client, 0, sizeof(y->w->client));
    side_stop(&y->mid);
    world_free(y->w);
    close(y->held[0]);
    close(y->held[1]);
    free(y);
}

static inline void settled(struct side *s)
{
    const struct conn_counters *n = conn_worker_counters(s->worker);
    uint64_t end = os_now_ms() + WAIT_MS;
    while (n->generation != s->generation) {
        assert_true(os_now_ms() < end);
        (void)poll(NULL, 0, 2);
    }
}

/* What an agent says to it. denied NULL: nobody is. */
static inline void told(struct side *s, const char *policy, const char *denied)
{
    struct conf_diag *diag = conf_diag_new();
    struct deny_item item = {DENY_SPIFFE_ID, str_of(denied)};
    struct snapshot_told told = {.generation = 1,
                                 .policy = {"policy", str_of(policy)},
                                 .deny = &item,
                                 .n_deny = denied != NULL ? 1 : 0};
    struct err err = ERR_INIT;
    s->state = snapshot_state_unref(s->state);
    assert_int_equal(snapshot_state_new(&told, diag, &s->state, &err), 0);
    conf_diag_free(diag);
}

/* to: a list of addresses; upstream: further keys of the leg that dials; more: of the relay. */
static inline void relay(struct way *y, const char *to, const char *upstream, const char *more,
                         const char *policy)
{
    char conf[1200];
    snprintf(conf, sizeof(conf),
             "kind: Gateway\nlevel: 1\nidentity: {socket: unix:/nowhere, wait: 300ms}\n"
             "state: {from: agent}\ntimeouts: {connect: 2s, handshake: 1s}\nlisteners:\n"
             "  - {name: mid, type: relay, address: 127.0.0.1:%u, to: [%s],\n"
             "     upstream: {identities: [\"spiffe://a.b/server\"], %s}%s}\n",
             y->port, to, upstream, more);
    make_identity(y->w, &y->mid, "spiffe://a.b/client"); /* whom the last hop lets in */
    told(&y->mid, policy, NULL);
    side_start(y->w, &y->mid, conf);
}

/* To the last hop as it stands, by HBONE. */
static inline void relay_hbone(struct way *y, const char *transport, const char *more,
                               const char *policy)
{
    char to[60];
    char upstream[100];
    snprintf(to, sizeof(to), "\"127.0.0.1:%u\"", y->w->target_port[0]);
    snprintf(upstream, sizeof(upstream), "transport: %s, hbone_port: %u", transport, y->w->port);
    relay(y, to, upstream, more, policy);
}

static inline void client(struct way *y, struct side *s, const char *id, uint16_t at,
                          bool by_stream)
{
    char conf[700];
    char more[80] = "";
    if (by_stream) {
        snprintf(more, sizeof(more), ", transport: hbone, hbone_port: %u", y->port);
    }
    snprintf(conf, sizeof(conf),
             "kind: Gateway\nlevel: 1\nidentity: {socket: unix:/nowhere}\nlisteners:\n"
             "  - {name: out, type: client, address: 127.0.0.1:%u, to: 127.0.0.1:%u,\n"
             "     identities: [\"spiffe://a.b/client\"]%s}\n",
             at, by_stream ? y->w->target_port[0] : y->port, more);
    snapshot_identity_unref(s->identity);
    x509_svid_free(s->svid);
    s->identity = NULL;
    s->svid = NULL;
    make_identity(y->w, s, id);
    side_start(y->w, s, conf);
}

static inline void app(struct way *y, bool by_stream)
{
    client(y, &y->w->client, APP, y->w->plain, by_stream);
}

static inline uint64_t sessions(struct side *s, enum conf_direction d)
{
    return conn_worker_counters(s->worker)->sessions[d];
}

/* One that goes through: both ends. */
static inline int through(struct way *y, uint16_t at, int *ret_target)
{
    int c = dial(at);
    say(c, "ping", 4);
    *ret_target = take(y->w->target[0]);
    hear(*ret_target, "ping", 4);
    say(*ret_target, "pong", 4);
    hear(c, "pong", 4);
    return c;
}

#endif
