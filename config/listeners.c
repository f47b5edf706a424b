/* listeners: what the listeners of one file must not do to each other. */
#include <postern/conf.h>

#include <string.h>

#include "config_priv.h"

void listener_refuse_identity_limits(struct context *c, const struct node *map, const char *what)
{
    const struct node *limits = node_get(map, "limits");
    if (limits != NULL && limits->kind == NODE_MAP) {
        const char *advice = "who connects to it shows no identity";
        schema_refuse_key(c, limits, "per_identity_connections", what, advice);
        schema_refuse_key(c, limits, "per_identity_rate", what, advice);
    }
}

/* Whether two sockets cannot both listen. */
static bool addresses_clash(const struct conf_sockaddr *a, const struct conf_sockaddr *b)
{
    if (a->len == 0 || b->len == 0 || a->ss.ss_family != b->ss.ss_family ||
        sockaddr_port(a) != sockaddr_port(b)) {
        return false;
    }
    return sockaddr_equal(a, b) || sockaddr_is_any(a) || sockaddr_is_any(b);
}

static bool same_text(const char *a, const char *b)
{
    return a != NULL && b != NULL && strcmp(a, b) == 0;
}

static bool binds_clash(const struct conf_listener *a, const struct conf_listener *b)
{
    if (a->bind.kind != b->bind.kind) {
        return false;
    }
    if (a->bind.kind == CONF_BIND_SYSTEMD) {
        const char *x = a->bind.activation != NULL ? a->bind.activation : a->name;
        const char *y = b->bind.activation != NULL ? b->bind.activation : b->name;
        return same_text(x, y);
    }
    return same_text(a->bind.path, b->bind.path) ||
           addresses_clash(&a->bind.address, &b->bind.address);
}

/* Whether a connection to `to` would arrive at the listener of this very file. */
static bool leads_to(const struct conf_target *to, const struct conf_bind *bind)
{
    const struct conf_sockaddr *t = &to->address;
    const struct conf_sockaddr *l = &bind->address;
    if (same_text(to->path, bind->path)) {
        return true;
    }
    return t->len > 0 && l->len > 0 && t->ss.ss_family == l->ss.ss_family &&
           sockaddr_port(t) == sockaddr_port(l) &&
           (sockaddr_equal(t, l) || (sockaddr_is_any(l) && sockaddr_is_loopback(t)));
}

static void check_target(struct context *c, const struct node *at, const struct conf_target *to,
                         const struct conf_proxy *p)
{
    for (size_t k = 0; k < p->n_listeners; k++) {
        if (leads_to(to, &p->listeners[k].bind)) {
            struct shown s;
            report(c, at, "the address of a server", NULL,
                   "it leads back to listener %s of this %s",
                   show(&s, str_of(p->listeners[k].name)), p->gateway ? "gateway" : "proxy");
            return;
        }
    }
}

void listeners_check_addresses(struct context *c, const struct node *list,
                               const struct conf_proxy *p)
{
    const struct node *n = list->child;
    for (size_t i = 0; i < p->n_listeners; i++, n = n->next) {
        const struct conf_listener *l = &p->listeners[i];
        const struct node *address = node_get(n, "address");
        const struct node *sni = node_get(n, "sni");
        for (size_t k = 0; k < i; k++) {
            if (binds_clash(l, &p->listeners[k])) {
                struct shown s;
                report(c, address != NULL ? address : n, "an address of its own", NULL,
                       "the address of listener %s already",
                       show(&s, str_of(p->listeners[k].name)));
                break;
            }
        }
        const struct node *to = node_get(n, "to");
        check_target(c, to, &l->to, p);
        to = l->n_targets > 1 && to != NULL ? to->child : NULL;
        for (size_t k = 0; k < l->n_targets && to != NULL; k++, to = to->next) {
            check_target(c, to, &l->targets[k], p);
        }
        const struct node *route = sni != NULL ? sni->child : NULL;
        for (size_t k = 0; k < l->n_sni && route != NULL; k++, route = route->next) {
            check_target(c, node_get(route, "to"), &l->sni[k].to, p);
        }
        if (addresses_clash(&l->bind.address, &p->metrics)) {
            report(c, address, "an address of its own", NULL, "the address of 'metrics' already");
        }
        if (addresses_clash(&l->bind.address, &p->health)) {
            report(c, address, "an address of its own", NULL, "the address of 'health' already");
        }
    }
}
