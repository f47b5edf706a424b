/* What is told of the listeners: where they stand and lead, what they show, how many are there. */
#include "proxy_priv.h"

#include <jansson.h>
#include <postern/metrics.h>
#include <stdio.h>

static const char *const DIRECTIONS[] = {[CONF_OUTBOUND] = "outbound", [CONF_INBOUND] = "inbound"};
static const char *const TYPES[] = {[CONF_LISTENER_SIDECAR] = "sidecar",
                                    [CONF_LISTENER_SERVER] = "server",
                                    [CONF_LISTENER_CLIENT] = "client",
                                    [CONF_LISTENER_RELAY] = "relay"};

static json_t *address(const struct snapshot_listener *l)
{
    const struct conf_bind *b = &l->conf->bind;
    char text[NET_ADDR_TEXT_MAX];
    switch (b->kind) {
    case CONF_BIND_UNIX:
        return json_sprintf("unix:%s", b->path);
    case CONF_BIND_SYSTEMD:
        return json_sprintf("systemd:%s", b->activation != NULL ? b->activation : l->conf->name);
    case CONF_BIND_ADDRESS:
        break;
    }
    return json_string(net_addr_text(&l->address, text));
}

static json_t *target(const struct conf_target *t)
{
    char text[NET_ADDR_TEXT_MAX];
    struct net_addr a = {.len = 0};
    switch (t->kind) {
    case CONF_TARGET_UNIX:
        return json_sprintf("unix:%s", t->path);
    case CONF_TARGET_HOST:
        return json_sprintf("%s:%u", t->host, t->port);
    case CONF_TARGET_ADDRESS:
        (void)net_addr_from((const struct sockaddr *)&t->address.ss, t->address.len, &a);
        return json_string(net_addr_text(&a, text));
    case CONF_TARGET_LIST:
    case CONF_TARGET_NONE:
        break;
    }
    return json_null();
}

static json_t *leads_to(const struct conf_listener *l)
{
    if (l->to.kind != CONF_TARGET_LIST) {
        return target(&l->to);
    }
    json_t *a = json_array();
    for (size_t i = 0; i < l->n_targets; i++) {
        json_array_append_new(a, target(&l->targets[i]));
    }
    return a;
}

/* Names of credentials, which are shown with their ends under `credentials`. */
static json_t *shows(const struct conf_tls_side *side)
{
    if (side->no_credentials || side->credentials.n == 0) {
        return json_string(side->no_credentials ? "none" : "identity");
    }
    json_t *a = json_array();
    for (size_t i = 0; i < side->credentials.n; i++) {
        json_array_append_new(a, json_string(side->credentials.items[i]));
    }
    return a;
}

static json_t *leg(const struct conf_tls_side *side)
{
    json_t *o = json_object();
    json_object_set_new(o, "credentials", shows(side));
    json_object_set_new(o, "trust", json_string(side->trust != NULL ? side->trust : "identity"));
    return o;
}

static void put_gateway(const struct proxy *p, size_t i, json_t *o)
{
    const struct conf_listener *l = p->files->listeners[i].conf;
    const struct conn_shared_listener *n = &p->shared.listeners[i];
    json_object_set_new(o, "type", json_string(TYPES[l->type]));
    if (l->type != CONF_LISTENER_CLIENT) {
        json_object_set_new(o, "downstream", leg(&l->downstream));
        json_object_set_new(o, "client_certificate",
                            json_string(l->client_certificate == CONF_CLIENT_CERTIFICATE_NONE
                                            ? "none"
                                            : "required"));
    }
    if (l->type != CONF_LISTENER_SERVER) {
        json_object_set_new(o, "upstream", leg(&l->upstream));
    }
    json_object_set_new(
        o, "open", json_integer((json_int_t)atomic_load_explicit(&n->open, memory_order_relaxed)));
    json_object_set_new(
        o, "accepted",
        json_integer((json_int_t)atomic_load_explicit(&n->accepted, memory_order_relaxed)));
    json_object_set_new(
        o, "denied",
        json_integer((json_int_t)atomic_load_explicit(&n->denied, memory_order_relaxed)));
}

static const char *const CAPTURES[] = {
    [CONF_INTERCEPTED] = "intercepted", [CONF_EXPLICIT] = "explicit", [CONF_HBONE] = "hbone"};

json_t *proxy_listeners_report(const struct proxy *p)
{
    json_t *a = json_array();
    for (size_t i = 0; i < p->files->n_listeners; i++) {
        const struct snapshot_listener *l = &p->files->listeners[i];
        json_t *o = json_object();
        json_object_set_new(o, "name", json_string(l->conf->name));
        json_object_set_new(o, "direction", json_string(DIRECTIONS[l->conf->direction]));
        json_object_set_new(o, "capture", json_string(CAPTURES[l->conf->capture]));
        json_object_set_new(o, "address", address(l));
        if (l->conf->to.kind != CONF_TARGET_NONE) {
            json_object_set_new(o, "to", leads_to(l->conf));
        }
        if (p->shared.listeners != NULL) {
            put_gateway(p, i, o);
        }
        json_array_append_new(a, o);
    }
    return a;
}

void proxy_listeners_metrics(const struct proxy *p, struct buf *out)
{
    static const struct {
        const char *name, *help;
        enum metric_type type;
    } families[] = {
        {"postern_listener_connections", "Connections now, by listener.", METRIC_GAUGE},
        {"postern_listener_accepted", "Connections accepted, by listener.", METRIC_COUNTER},
        {"postern_listener_denied",
         "Connections refused by handshake or policy, by listener; requests are counted apart.",
         METRIC_COUNTER},
    };
    for (size_t f = 0; p->shared.listeners != NULL && f < 3; f++) {
        for (size_t i = 0; i < p->files->n_listeners; i++) {
            const struct conn_shared_listener *n = &p->shared.listeners[i];
            uint64_t value = f == 0   ? atomic_load_explicit(&n->open, memory_order_relaxed)
                             : f == 1 ? atomic_load_explicit(&n->accepted, memory_order_relaxed)
                                      : atomic_load_explicit(&n->denied, memory_order_relaxed);
            char labels[96]; /* a name is of letters, digits and ._-:/ */
            snprintf(labels, sizeof(labels), "listener=\"%s\"", p->files->listeners[i].conf->name);
            (void)metrics_write_value(out, families[f].name, families[f].type,
                                      i == 0 ? families[f].help : NULL, labels, (double)value);
        }
    }
}
