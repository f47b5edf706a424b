/* gateway_to: where a gateway's listener connects, one place or several, and by which transport its
 * legs go. */
#include <postern/conf.h>

#include <string.h>

#include "config_priv.h"

/* --- several targets -------------------------------------------------------------------------- */

static uint16_t port_of(const struct conf_target *t)
{
    return t->kind == CONF_TARGET_HOST ? t->port : (uint16_t)sockaddr_port(&t->address);
}

/* What all of them have; 0: they differ. */
static uint16_t common_port(const struct conf_listener *l)
{
    uint16_t port = l->n_targets > 0 ? port_of(&l->targets[0]) : 0;
    for (size_t i = 1; i < l->n_targets; i++) {
        port = port_of(&l->targets[i]) == port ? port : 0;
    }
    return port;
}

static void check_list(struct context *c, const struct node *map, const struct conf_listener *l)
{
    const struct node *list = node_get(map, "to");
    if (!schema_word_is(map, "type", "client") && !schema_word_is(map, "type", "relay")) {
        report(c, list, "an address, a host or a Unix socket to connect to",
               "at a plain target nobody shows who it is",
               "'to' of a server listener with %zu places", l->n_targets);
        return;
    }
    if (l->n_targets > CONF_ENDPOINTS_MAX) {
        report(c, list, NULL, NULL, "more than %d targets", CONF_ENDPOINTS_MAX);
        return;
    }
    schema_check_unique(c, list, NULL, "target");
    const struct node *n = list->child;
    for (size_t i = 0; i < l->n_targets && n != NULL; i++, n = n->next) {
        const struct conf_target *t = &l->targets[i];
        if (t->kind == CONF_TARGET_UNIX) {
            report(c, n, "an address or a host, with port", NULL, "a Unix socket among several");
        } else if (t->kind == CONF_TARGET_ADDRESS && sockaddr_is_any(&t->address)) {
            report(c, n, "an address that is somebody's", NULL, "a target at any address");
        } else if (t->kind != CONF_TARGET_NONE && i > 0 && schema_word_is(map, "type", "relay") &&
                   port_of(t) != port_of(&l->targets[0])) {
            report(c, n, "the port of the first", "it is what policies call the port",
                   "targets of a relay with several ports");
        }
    }
    schema_refuse_key(c, map, "connect_proxy", "a listener with several targets",
                      "it asks for one of them");
    const struct node *upstream = node_get(map, "upstream");
    if (upstream != NULL && upstream->kind == NODE_MAP) {
        schema_refuse_key(c, upstream, "connect_proxy", "a relay with several targets",
                          "it asks for one of them");
    }
}

void gateway_take_targets(struct context *c, const struct node *map, struct conf_listener *l)
{
    const struct node *ejection = node_get(map, "ejection");
    bool dials_hbone =
        (schema_word_is(map, "type", "client") &&
         l->downstream.transport != CONF_TRANSPORT_DIRECT) ||
        (schema_word_is(map, "type", "relay") && l->upstream.transport != CONF_TRANSPORT_DIRECT);
    if (l->n_targets == 1) {
        l->to = l->targets[0];
    }
    if (l->n_targets > 1) {
        check_list(c, map, l);
    }
    /* A session is made to an address: what a name means is chosen like one of several. */
    if (l->n_targets > 1 || (dials_hbone && l->to.kind == CONF_TARGET_HOST)) {
        l->to = (struct conf_target){.kind = CONF_TARGET_LIST, .port = common_port(l)};
    } else if (ejection != NULL && !schema_word_is(map, "type", "server")) {
        report(c, ejection->key, NULL, "there is nothing else to go to",
               "'ejection' of a listener with one target");
    }
}

const struct conf_target *gateway_only_target(const struct conf_listener *l)
{
    return l->n_targets == 1 ? &l->targets[0] : &l->to;
}

/* --- transports ------------------------------------------------------------------------------- */

static void refuse_disable(struct context *c, const struct node *map, const char *expected,
                           const char *what)
{
    if (schema_word_is(map, "transport", "disable")) {
        report(c, node_get(map, "transport"), expected, NULL, "%s with 'transport: disable'", what);
    }
}

/* What says which protocol is spoken on the leg itself. */
static void refuse_tls(struct context *c, const struct node *map, const struct conf_tls *tls)
{
    const struct node *said = node_get(map, "tls");
    if (said == NULL || said->kind != NODE_MAP) {
        return;
    }
    schema_refuse_key(c, said, "alpn", "a leg that speaks HBONE", "it speaks HTTP/2");
    if (tls->min == CONF_TLS_1_2) {
        report(c, node_get(said, "min"), "1.3", NULL, "HBONE over TLS 1.2");
    }
}

void gateway_check_takes(struct context *c, const struct node *map, struct conf_listener *l)
{
    static const struct {
        const char *key, *advice;
    } keys[] = {
        {"sni", "its streams ask for a port"},
        {"proxy_protocol_from", "streams have no header before them"},
        {"client_certificate", "the session is what says who its clients are"},
    };
    refuse_disable(c, map, "direct or hbone", "a listener");
    if (l->downstream.transport == CONF_TRANSPORT_AUTO) {
        report(c, node_get(map, "transport"), "direct or hbone", "its clients choose",
               "a listener that takes connections with 'transport: auto'");
    }
    l->takes_hbone = l->downstream.transport == CONF_TRANSPORT_HBONE;
    for (size_t i = 0; l->takes_hbone && i < sizeof(keys) / sizeof(keys[0]); i++) {
        schema_refuse_key(c, map, keys[i].key, "a listener with 'transport: hbone'",
                          keys[i].advice);
    }
    if (l->takes_hbone) {
        refuse_tls(c, map, &l->downstream.tls);
    }
    if (l->takes_hbone && schema_word_is(map, "mode", "permissive")) {
        report(c, node_get(map, "mode"), "strict", "streams come in mTLS or not at all",
               "a listener with 'transport: hbone' has no 'permissive'");
    }
}

/* What a name means is chosen for the listener's own target only. */
static void check_sni_targets(struct context *c, const struct node *map,
                              const struct conf_listener *l, const char *what)
{
    const struct node *list = node_get(map, "sni");
    const struct node *n = list != NULL ? list->child : NULL;
    for (size_t i = 0; i < l->n_sni && n != NULL; i++, n = n->next) {
        const struct conf_target *to = &l->sni[i].to;
        if (!l->sni[i].passthrough &&
            (to->kind == CONF_TARGET_HOST || to->kind == CONF_TARGET_UNIX)) {
            report(c, node_get(n, "to"), "an address, with port",
                   "HBONE says by address where a stream goes", "%s to %s in 'sni'", what,
                   to->kind == CONF_TARGET_UNIX ? "a Unix socket" : "a host");
        }
    }
}

void gateway_check_dials(struct context *c, const struct node *map, const struct node *leg,
                         struct conf_listener *l, bool trusts_spiffe)
{
    const struct conf_tls_side *up = &l->upstream;
    const char *what = "a listener that dials by HBONE";
    const struct node *port = node_get(leg, "hbone_port");
    refuse_disable(c, leg, "direct, hbone or auto", leg == map ? "a listener" : "a relay");
    l->transport = up->transport == CONF_TRANSPORT_DISABLE ? CONF_TRANSPORT_DIRECT : up->transport;
    l->hbone_port = up->hbone_port;
    if (l->transport == CONF_TRANSPORT_DIRECT) {
        if (port != NULL) {
            report(c, port->key, NULL,
                   "remove 'hbone_port', or say 'transport: hbone' or 'transport: auto'",
                   "with 'transport: direct' no HBONE is spoken");
        }
        return;
    }
    if (l->to.kind == CONF_TARGET_UNIX) {
        report(c, node_get(map, "to"), "an address or a host, with port",
               "HBONE says by address where a stream goes", "%s to a Unix socket", what);
    }
    if (!trusts_spiffe) {
        report(c, node_get(leg, "transport"), "direct",
               "it shares connections by the SPIFFE IDs that answer",
               "HBONE with a peer of an ordinary CA");
    }
    schema_refuse_key(c, leg, "connect_proxy", what, "many streams share one connection");
    refuse_tls(c, leg, &up->tls);
    check_sni_targets(c, map, l, what);
}
