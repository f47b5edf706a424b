/* gateway: the table of a Gateway file, and what holds between its parts: names that listeners use
 * stand in it, every leg has a certificate and a trust, somebody is let in, and every peer that is
 * dialled is known by name. */
#include <postern/conf.h>

#include <arpa/inet.h>
#include <postern/mem.h>
#include <stdio.h>
#include <string.h>

#include "config_priv.h"

enum { LISTENERS_MAX = 1024, NAMED_MAX = 256 };

static void check_gateway(struct context *c, const struct node *map, void *value);

static const struct field fields_gateway[] = {
    KIND_FIELDS("Gateway"),
    {.name = "name",
     .type = TYPE_NAME,
     .max = 64,
     AT(struct conf_proxy, name),
     .def_doc = "the host name",
     .doc = "Shown in logs and by `postern status`."},
    {.name = "workers",
     .type = TYPE_UINT,
     .min = 1,
     .max = 256,
     .zero_word = "auto",
     AT(struct conf_proxy, workers),
     .def = "auto",
     .doc = "Threads. `auto`: as many as the process may use CPUs, two at most."},
    {.name = "identity",
     .type = TYPE_MAP,
     .table = &table_proxy_identity,
     .doc = "Where the gateway's own identity and the mesh's bundles come from: the certificate of "
            "every leg without `credentials`, and the trust of every leg without `trust`. May be "
            "left out where there is no such leg."},
    {.name = "state",
     .type = TYPE_MAP,
     .table = &table_proxy_state,
     .doc = "Where the policy comes from."},
    POLICY_FIELDS("none: `allow` alone decides",
                  "Who may come in and do what at server and relay listeners"),
    JWT_FIELD,
    {.name = "credentials",
     .type = TYPE_MAP,
     .table = &table_credential,
     LIST_AT(struct conf_proxy, credentials, n_credentials),
     .doc = "Own certificates that do not come with `identity`."},
    {.name = "trust",
     .type = TYPE_MAP,
     .table = &table_trust,
     LIST_AT(struct conf_proxy, trust, n_trust),
     .doc = "Whom peers' certificates must lead to, where that does not come with `identity`."},
    {.name = "listeners",
     .type = TYPE_MAP,
     .table = &table_gateway_listener,
     .required = true,
     LIST_AT(struct conf_proxy, listeners, n_listeners),
     .empty_advice = "a gateway without a listener does nothing",
     .doc = "Where connections are taken."},
    {.name = "timeouts",
     .type = TYPE_MAP,
     .table = &table_proxy_timeouts,
     .doc = "How long to wait."},
    {.name = "limits", .type = TYPE_MAP, .table = &table_proxy_limits, .doc = "How much to hold."},
    {.name = "http",
     .type = TYPE_MAP,
     .table = &table_http_general,
     AT(struct conf_proxy, http),
     .doc = "What is added to requests, and what is kept for them."},
    {.name = "admin",
     .type = TYPE_MAP,
     .table = &table_dataplane_admin,
     AT(struct conf_proxy, admin),
     .doc = "The admin socket."},
    {.name = "metrics",
     .type = TYPE_MAP,
     .table = &table_metrics,
     AT(struct conf_proxy, metrics),
     .doc = "OpenMetrics over HTTP; absent: none."},
    {.name = "targets",
     .type = TYPE_MAP,
     .table = &table_gateway_targets,
     .def_doc = "no target is checked",
     .doc = "Checks of the targets, which /readyz and the metrics tell of."},
    {.name = "health",
     .type = TYPE_MAP,
     .table = &table_health,
     AT(struct conf_proxy, health),
     .doc = "/healthz and /readyz over HTTP; absent: none."},
    {.name = "log",
     .type = TYPE_MAP,
     .table = &table_proxy_log,
     .doc = "JSON lines on standard error."},
    {.name = "audit",
     .type = TYPE_MAP,
     .table = &table_audit,
     AT(struct conf_proxy, audit),
     .def_doc = "none",
     .doc = "The audit log: one JSON line a decision."},
};
const struct table table_gateway = {
    .name = "the file",
    .doc = "Explicit listeners that put mutual TLS in front of programs that have none, or pass it "
           "on: `postern gateway FILE`.",
    .size = sizeof(struct conf_proxy),
    FIELDS(fields_gateway),
    .check = check_gateway,
};

/* --- names that are used ---------------------------------------------------------------------- */
static const char *credential_at(const void *set, size_t i)
{
    const struct conf_proxy *p = set;
    return i < p->n_credentials ? p->credentials[i].name : NULL;
}

static const char *trust_at(const void *set, size_t i)
{
    const struct conf_proxy *p = set;
    return i < p->n_trust ? p->trust[i].name : NULL;
}

static void report_unknown(struct context *c, const struct node *n, const char *what,
                           const char *(*next)(const void *set, size_t i),
                           const struct conf_proxy *p)
{
    struct shown s;
    char advice[120];
    const char *near = nearest_word(n->text, next, p);
    if (near != NULL) {
        snprintf(advice, sizeof(advice), "did you mean '%s'?", near);
    }
    report(c, n, NULL, near != NULL ? advice : NULL, "no %s %s in this file", what,
           show(&s, n->text));
}

static void check_credentials(struct context *c, const struct node *map, const struct conf_proxy *p)
{
    const struct node *list = map != NULL ? node_get(map, "credentials") : NULL;
    if (list == NULL || list->kind != NODE_LIST) {
        return;
    }
    for (const struct node *n = list->child; n != NULL; n = n->next) {
        if (n->kind == NODE_SCALAR && conf_find_credential(p, n->text.p) == NULL) {
            report_unknown(c, n, "credential", credential_at, p);
        }
    }
    schema_check_unique(c, list, NULL, "credential");
}

static void check_trust(struct context *c, const struct node *map, const struct conf_proxy *p)
{
    const struct node *n = map != NULL ? node_get(map, "trust") : NULL;
    if (n != NULL && n->kind == NODE_SCALAR && conf_find_trust(p, n->text.p) == NULL) {
        report_unknown(c, n, "trust", trust_at, p);
    }
}

/* --- what a leg needs ------------------------------------------------------------------------- */
bool conf_trusts_spiffe(const struct conf_proxy *c, const struct conf_tls_side *side)
{
    const struct conf_trust *t = side->trust != NULL ? conf_find_trust(c, side->trust) : NULL;
    return t == NULL || t->ca == NULL;
}

/* A leg without a key of its own falls back on `identity`, which then has to be there. */
static void need(struct context *c, const struct node *map, const struct conf_proxy *p,
                 const char *key, const char *expected)
{
    if (p->no_identity && node_get(map, key) == NULL) {
        report(c, map, expected, "or give the file an 'identity'",
               "missing key '%s' in a file without 'identity'", key);
    }
}

struct terminated {
    bool any;        /* TLS ends here for some names */
    bool by_default; /* the listener's own credentials are shown to some */
};

static struct terminated terminates(const struct node *map, const struct conf_listener *l)
{
    struct terminated t = {.any = node_get(map, "to") != NULL || l->n_sni == 0};
    t.by_default = t.any;
    for (size_t i = 0; i < l->n_sni; i++) {
        t.any = t.any || !l->sni[i].passthrough;
        t.by_default = t.by_default || (!l->sni[i].passthrough && l->sni[i].credentials.n == 0);
    }
    return t;
}

static void check_downstream(struct context *c, const struct node *map, const struct conf_proxy *p,
                             const struct conf_listener *l)
{
    struct terminated t = terminates(map, l);
    const struct node *sni = node_get(map, "sni");
    check_credentials(c, map, p);
    for (const struct node *r = sni != NULL ? sni->child : NULL; r != NULL; r = r->next) {
        check_credentials(c, r, p);
    }
    if (t.by_default) {
        need(c, map, p, "credentials", "the names of credentials");
    }
    if (t.any && l->client_certificate != CONF_CLIENT_CERTIFICATE_NONE) {
        check_trust(c, map, p);
        need(c, map, p, "trust", "the name of a trust");
    }
    if (t.any && p->policy_path == NULL && p->state.from != CONF_STATE_AGENT &&
        node_get(map, "allow") == NULL) {
        report(c, map, "a mapping", "or give the file a 'policy'",
               "missing key 'allow' in a file without 'policy': nobody could come in");
    }
}

/* What `verify` is where nothing is said: the name that it asks for, or the address. */
static void default_name(struct context *c, const struct node *map, const struct conf_target *to,
                         struct conf_tls_side *side)
{
    char text[INET6_ADDRSTRLEN] = "";
    const char *name = side->server_name;
    if (name == NULL && to->kind == CONF_TARGET_ADDRESS) {
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
        memcpy(&in, &to->address.ss, sizeof(in));
        memcpy(&in6, &to->address.ss, sizeof(in6));
        name = inet_ntop(in.sin_family,
                         in.sin_family == AF_INET ? (const void *)&in.sin_addr
                                                  : (const void *)&in6.sin6_addr,
                         text, sizeof(text));
    }
    if (name == NULL) {
        if (to->kind == CONF_TARGET_UNIX || to->kind == CONF_TARGET_LIST) {
            report(c, map, "the server's name", NULL,
                   "missing key 'verify' or 'server_name': %s to demand",
                   to->kind == CONF_TARGET_UNIX ? "a Unix socket has no name"
                                                : "several targets have no one name");
        }
        return;
    }
    side->verify.dns.items = mem_must_calloc(1, sizeof(char *));
    side->verify.dns.items[0] = mem_must_strdup(name);
    side->verify.dns.n = 1;
}

static void check_upstream(struct context *c, const struct node *map, const struct conf_proxy *p,
                           const struct conf_target *to, struct conf_tls_side *side)
{
    check_credentials(c, map, p);
    check_trust(c, map, p);
    need(c, map, p, "credentials", "the names of credentials, or none");
    need(c, map, p, "trust", "the name of a trust");
    if (side->server_name == NULL && to->kind == CONF_TARGET_HOST &&
        node_get(map, "server_name") == NULL) {
        side->server_name = mem_must_strdup(to->host);
    }
    if (side->trust != NULL ? conf_find_trust(p, side->trust) == NULL : p->no_identity) {
        return; /* reported */
    }
    if (conf_trusts_spiffe(p, side)) {
        schema_require_key(c, map, "identities", "a leg that trusts SPIFFE bundles",
                           "the SPIFFE IDs that may answer at 'to'");
        schema_refuse_key(c, map, "verify", "a leg that trusts SPIFFE bundles",
                          "'identities' says whom it must find");
        return;
    }
    schema_refuse_key(c, map, "identities", "a leg that trusts ordinary CAs",
                      "they vouch for names, not for SPIFFE IDs; 'verify' says which");
    if (node_get(map, "verify") == NULL) {
        default_name(c, map, to, side);
    }
}

static void check_legs(struct context *c, const struct node *map, const struct conf_proxy *p,
                       struct conf_listener *l)
{
    const struct node *upstream = node_get(map, "upstream");
    const struct conf_target *to = gateway_only_target(l);
    if (schema_word_is(map, "type", "client")) {
        check_upstream(c, map, p, to, &l->upstream);
        gateway_check_dials(c, map, map, l, conf_trusts_spiffe(p, &l->upstream));
    } else if (schema_word_is(map, "type", "server") || schema_word_is(map, "type", "relay")) {
        check_downstream(c, map, p, l);
    }
    if (schema_word_is(map, "type", "relay") && upstream != NULL && upstream->kind == NODE_MAP) {
        check_upstream(c, upstream, p, to, &l->upstream);
        gateway_check_dials(c, map, upstream, l, conf_trusts_spiffe(p, &l->upstream));
    }
}

static bool too_many(struct context *c, const struct node *map, const char *key, size_t n,
                     size_t max)
{
    if (n > max) {
        report(c, node_get(map, key), NULL, NULL, "more than %zu %s", max, key);
    }
    return n > max;
}

static void check_gateway(struct context *c, const struct node *map, void *value)
{
    struct conf_proxy *p = value;
    const struct node *list = node_get(map, "listeners");
    p->gateway = true;
    p->no_identity = node_get(map, "identity") == NULL;
    if (p->no_identity && p->state.from == CONF_STATE_AGENT) {
        report(c, node_get(map, "state")->key, NULL, "give the file an 'identity'",
               "'from: agent' in a file that has no agent");
    }
    bool large = too_many(c, map, "listeners", p->n_listeners, LISTENERS_MAX);
    large = too_many(c, map, "credentials", p->n_credentials, NAMED_MAX) || large;
    large = too_many(c, map, "trust", p->n_trust, NAMED_MAX) || large;
    schema_check_unique(c, node_get(map, "credentials"), "name", "credential");
    schema_check_unique(c, node_get(map, "trust"), "name", "trust");
    if (!large && p->n_listeners > 0) {
        const struct node *n = list->child;
        schema_check_unique(c, list, "name", "listener");
        listeners_check_addresses(c, list, p);
        for (size_t i = 0; i < p->n_listeners; i++, n = n->next) {
            if (n->kind == NODE_MAP) {
                check_legs(c, n, p, &p->listeners[i]);
                gateway_finish_check(c, n, p, node_get(map, "targets") != NULL, &p->listeners[i]);
            }
        }
    }
    key_isolation_check(c, map, p);
    jwt_check(c, map, p);
    proxy_finish(p);
}
