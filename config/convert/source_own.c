/* source_own: what a data plane or an agent knows of itself, for policies that are not ours: out of
 * its own file, of `policy_context` first. */
#include "convert_priv.h"

#include <netinet/in.h>
#include <postern/mem.h>
#include <postern/policy_source.h>
#include <postern/spiffe.h>
#include <stdlib.h>
#include <string.h>

/* --- ports ------------------------------------------------------------------------------------ */
static void add_port(struct policy_convert_ports *ports, uint16_t port)
{
    for (size_t i = 0; i < ports->n; i++) {
        if (ports->items[i] == port) {
            return;
        }
    }
    if (port != 0) {
        ports->items = mem_must_realloc(ports->items, (ports->n + 1) * sizeof(ports->items[0]));
        ports->items[ports->n++] = port;
    }
}

static uint16_t address_port(const struct conf_sockaddr *a)
{
    if (a->len == 0) {
        return 0;
    }
    return ntohs(a->ss.ss_family == AF_INET6 ? ((const struct sockaddr_in6 *)&a->ss)->sin6_port
                                             : ((const struct sockaddr_in *)&a->ss)->sin_port);
}

struct carried {
    struct policy_convert_ports tcp, http, plain;
    unsigned n_rest; /* listeners of which what is not declared is opaque */
};

static void add(struct carried *c, enum conf_protocol protocol, bool plain, uint16_t port)
{
    add_port(protocol == CONF_PROTOCOL_TCP ? &c->tcp : &c->http, port);
    if (plain) {
        add_port(&c->plain, port);
    }
}

static void add_target(struct carried *c, const struct conf_listener *l,
                       const struct conf_target *t)
{
    uint16_t port = t->kind == CONF_TARGET_ADDRESS ? address_port(&t->address) : t->port;
    add(c, l->protocol, l->permissive.mode == CONF_MODE_PERMISSIVE,
        port != 0 ? port : address_port(&l->bind.address));
}

/* By the port that a policy is asked for. */
static void add_listener(struct carried *c, const struct conf_listener *l)
{
    if (l->direction != CONF_INBOUND) {
        return;
    }
    if (l->type == CONF_LISTENER_SIDECAR && l->capture != CONF_EXPLICIT) {
        for (size_t i = 0; i < l->n_ports; i++) {
            const struct conf_port *p = &l->ports[i];
            add(c, p->protocol, p->permissive.mode == CONF_MODE_PERMISSIVE, p->port);
        }
        c->n_rest += l->capture == CONF_INTERCEPTED && l->undeclared == CONF_UNDECLARED_TCP;
        return;
    }
    if (l->n_targets == 0) {
        add_target(c, l, &l->to);
    }
    for (size_t i = 0; i < l->n_targets; i++) {
        add_target(c, l, &l->targets[i]);
    }
    for (size_t i = 0; i < l->n_sni; i++) {
        if (l->sni[i].to.kind != CONF_TARGET_NONE) {
            add_target(c, l, &l->sni[i].to);
        }
    }
}

/* --- the whole -------------------------------------------------------------------------------- */
/* NAMESPACE of an ID of the form .../ns/NAMESPACE/sa/ACCOUNT; owned, NULL: it has none. */
static char *namespace_of(const struct spiffe_id *id)
{
    struct str p = id->path;
    if (!str_has_prefix(p, STR_LIT("/ns/"))) {
        return NULL;
    }
    const char *name = p.p + 4;
    const char *slash = memchr(name, '/', p.n - 4);
    if (slash == NULL || strncmp(slash, "/sa/", 4) != 0 || strchr(slash + 4, '/') != NULL) {
        return NULL;
    }
    return mem_must_strndup(name, (size_t)(slash - name));
}

/* Taken apart and copied, so that nothing is lent. */
static void finish(const struct policy_convert_options *o, struct policy_source *ret)
{
    const struct policy_source lent = {.options = *o};
    struct buf text = BUF_INIT(CONVERT_TEXT_MAX);
    POSTERN_ASSERT(policy_source_write(&lent, &text));       /* bounded by the file */
    POSTERN_ASSERT(policy_source_read(buf_str(&text), ret)); /* checked by its reader */
    buf_reset(&text);
}

static void take_context(const struct conf_policy_context *x, struct policy_convert_options *o)
{
    o->strict = true;
    o->root_namespace = x->root_namespace;
    o->no_implied_allow = !x->implied_allow;
    o->ignore_egress = x->ignore_egress;
}

void policy_source_of_proxy(const struct conf_proxy *conf, struct policy_source *ret)
{
    const struct conf_policy_context *x = &conf->policy_context;
    struct policy_convert_options o = {.own = true, .tcp_ports_known = true};
    struct carried ports = {.n_rest = 0};
    struct spiffe_id id;
    mem_autofree char *trust_domain = NULL;
    mem_autofree char *namespace = NULL;
    if (conf->identity.spiffe_id != NULL &&
        spiffe_id_parse(str_of(conf->identity.spiffe_id), &id, NULL) == 0) {
        trust_domain = mem_must_strndup(id.trust_domain.p, id.trust_domain.n);
        namespace = namespace_of(&id);
    }
    take_context(x, &o);
    o.trust_domain = x->trust_domain != NULL ? x->trust_domain : trust_domain;
    o.own_namespace = x->namespace != NULL ? x->namespace : namespace;
    if (o.own_namespace != NULL && !field_is_segment(o.own_namespace)) {
        o.own_namespace = NULL; /* none of Kubernetes' */
    }
    o.default_namespace = o.own_namespace;
    o.own_labels_known = x->labels_said;
    o.own_labels = x->labels;
    for (size_t i = 0; i < conf->n_listeners; i++) {
        add_listener(&ports, &conf->listeners[i]);
    }
    o.tcp_ports = ports.tcp;
    o.tcp_rest = ports.n_rest > 0;
    if (ports.n_rest == 1) { /* of several, one's HTTP may be opaque at another */
        o.http_ports = ports.http;
    }
    o.plain_ports = ports.plain;
    finish(&o, ret);
    free(ports.tcp.items);
    free(ports.http.items);
    free(ports.plain.items);
}

void policy_source_of_agent(const struct conf_agent *conf, struct policy_source *ret)
{
    const struct conf_policy_context *x = &conf->policy_context;
    struct policy_convert_options o = {.tcp_ports_known = x->tcp_ports_said};
    take_context(x, &o);
    o.trust_domain = x->trust_domain != NULL ? x->trust_domain : conf->trust_domain;
    o.default_namespace = x->namespace;
    o.own_namespace = x->namespace;
    o.tcp_ports = (struct policy_convert_ports){x->tcp_ports, x->n_tcp_ports};
    finish(&o, ret);
}
