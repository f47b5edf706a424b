/* Where a gateway's listeners connect: their own targets and those of their routes by server name,
 * the proxy that is asked for a tunnel, and the addresses of names. */
#include <postern/snapshot.h>

#include <arpa/inet.h>
#include <postern/mem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void snapshot_target_fill(const struct conf_target *conf, struct snapshot_target *ret)
{
    ret->conf = conf;
    if (conf->address.len > 0) {
        (void)net_addr_from((const struct sockaddr *)&conf->address.ss, conf->address.len,
                            &ret->address);
    }
    bool said = conf->kind == CONF_TARGET_HOST || conf->kind == CONF_TARGET_LIST;
    ret->port = said ? conf->port : net_addr_port(&ret->address);
}

/* --- of one listener -------------------------------------------------------------------------- */

static void fill_list(const struct conf_listener *c, struct snapshot_listener *l)
{
    l->n_targets = c->n_targets;
    l->targets = (struct snapshot_target *)mem_must_calloc(c->n_targets + 1, sizeof(*l->targets));
    for (size_t i = 0; i < c->n_targets; i++) {
        snapshot_target_fill(&c->targets[i], &l->targets[i]);
    }
}

static void fill_routes(const struct conf_listener *c, struct snapshot_listener *l)
{
    size_t n = 0;
    for (size_t i = 0; i < c->n_sni; i++) {
        n += c->sni[i].names.n;
    }
    l->routes = (struct snapshot_target *)mem_must_calloc(c->n_sni + 1, sizeof(*l->routes));
    l->patterns = (struct client_hello_pattern *)mem_must_calloc(n + 1, sizeof(*l->patterns));
    for (size_t i = 0; i < c->n_sni; i++) {
        const struct conf_sni_route *r = &c->sni[i];
        snapshot_target_fill(r->to.kind != CONF_TARGET_NONE ? &r->to : &c->to, &l->routes[i]);
        for (size_t k = 0; k < r->names.n; k++) {
            l->patterns[l->n_patterns++] =
                (struct client_hello_pattern){.text = str_of(r->names.items[k]), .route = i};
        }
    }
}

static void take_address(const char *text, int family, uint16_t port, struct net_addr *ret)
{
    struct sockaddr_in in4 = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    bool v4 = family == AF_INET;
    bool ok = inet_pton(family, text, v4 ? (void *)&in4.sin_addr : (void *)&in6.sin6_addr) == 1 &&
              net_addr_from(v4 ? (struct sockaddr *)&in4 : (struct sockaddr *)&in6,
                            v4 ? sizeof(in4) : sizeof(in6), ret);
    POSTERN_ASSERT(ok);
}

static void fill_connect_proxy(const char *url, struct snapshot_listener *l)
{
    struct conf_connect_proxy said;
    struct snapshot_connect_proxy *p = mem_must_new(struct snapshot_connect_proxy);
    POSTERN_ASSERT(conf_connect_proxy_parse(str_of(url), &said)); /* checked with its file */
    p->host = mem_must_strndup(said.host.p, said.host.n);
    p->credentials = said.credentials;
    p->conf = (struct conf_target){.port = said.port};
    if (said.family == AF_UNSPEC) {
        p->conf.kind = CONF_TARGET_HOST;
        p->conf.host = p->host;
        snapshot_target_fill(&p->conf, &p->target);
    } else {
        p->conf.kind = CONF_TARGET_ADDRESS;
        p->target = (struct snapshot_target){.conf = &p->conf, .port = said.port};
        take_address(p->host, said.family, said.port, &p->target.address);
    }
    l->connect_proxy = p;
}

void snapshot_targets_fill(struct snapshot_listener *l)
{
    const struct conf_listener *c = l->conf;
    snapshot_target_fill(&c->to, &l->target);
    if (c->to.kind == CONF_TARGET_LIST) {
        fill_list(c, l);
    }
    if (c->n_sni > 0) {
        fill_routes(c, l);
    }
    if (c->upstream.connect_proxy != NULL) {
        fill_connect_proxy(c->upstream.connect_proxy, l);
    }
}

void snapshot_targets_free(struct snapshot_listener *l)
{
    free(l->targets);
    free(l->routes);
    free(l->patterns);
    if (l->connect_proxy != NULL) {
        free(l->connect_proxy->host);
        free(l->connect_proxy);
    }
}

const struct snapshot_target *snapshot_listener_target(const struct snapshot_listener *l,
                                                       long route)
{
    return route >= 0 ? &l->routes[route] : &l->target;
}

/* --- names ------------------------------------------------------------------------------------ */

static void tell_host(const struct snapshot_target *t, void (*fn)(void *, const char *), void *arg)
{
    if (t->conf->kind == CONF_TARGET_HOST) {
        fn(arg, t->conf->host);
    }
}

void snapshot_hosts(const struct snapshot_files *f, const struct snapshot_state *state,
                    void (*fn)(void *arg, const char *host), void *arg)
{
    route_hosts(f->routes, fn, arg);
    if (state != NULL && state->has_mesh) {
        route_hosts(state->routes, fn, arg);
    }
    for (size_t i = 0; i < f->n_listeners; i++) {
        const struct snapshot_listener *l = &f->listeners[i];
        if (l->connect_proxy != NULL) {
            tell_host(&l->connect_proxy->target, fn, arg); /* and the target's it looks up itself */
            continue;
        }
        tell_host(&l->target, fn, arg);
        for (size_t k = 0; k < l->n_targets; k++) {
            tell_host(&l->targets[k], fn, arg);
        }
        for (size_t k = 0; k < l->conf->n_sni; k++) {
            tell_host(&l->routes[k], fn, arg);
        }
    }
}

size_t snapshot_addresses(const struct snapshot *s, const struct snapshot_target *t,
                          struct net_addr *ret, size_t max, size_t *ret_preferred)
{
    *ret_preferred = 1;
    if (t->conf->kind == CONF_TARGET_ADDRESS && max > 0) {
        ret[0] = t->address;
        return 1;
    }
    const struct resolve_host *h =
        t->conf->kind == CONF_TARGET_HOST ? resolve_state_find(s->resolved, t->conf->host) : NULL;
    size_t n = 0;
    for (; h != NULL && n < h->n_addrs && n < max; n++) {
        ret[n] = h->addrs[n];
        net_addr_set_port(&ret[n], t->port);
    }
    if (h != NULL) {
        *ret_preferred = h->n_preferred < n ? h->n_preferred : n;
    }
    return n;
}

bool snapshot_has_address(const struct snapshot *s, const struct snapshot_target *t)
{
    if (t->conf->kind != CONF_TARGET_HOST) {
        return true; /* of a list: the one that was chosen */
    }
    const struct resolve_host *h = resolve_state_find(s->resolved, t->conf->host);
    return h != NULL && h->n_addrs > 0;
}

/* --- text ------------------------------------------------------------------------------------- */

const char *snapshot_target_text(const struct snapshot_target *t, char *ret_text, size_t size)
{
    char address[NET_ADDR_TEXT_MAX];
    switch (t->conf->kind) {
    case CONF_TARGET_NONE:
        snprintf(ret_text, size, "-");
        break;
    case CONF_TARGET_ADDRESS:
        snprintf(ret_text, size, "%s", net_addr_text(&t->address, address));
        break;
    case CONF_TARGET_HOST:
        snprintf(ret_text, size, "%s:%u", t->conf->host, t->port);
        break;
    case CONF_TARGET_UNIX:
        snprintf(ret_text, size, "unix:%s", t->conf->path);
        break;
    case CONF_TARGET_LIST:
        snprintf(ret_text, size, "one of several");
        break;
    }
    return ret_text;
}
