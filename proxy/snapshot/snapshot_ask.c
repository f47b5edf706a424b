/* What holds, where the agent tells one thing and a file beside the proxy another: the file can
 * only take away. */
#include <postern/snapshot.h>

#include <postern/mem.h>
#include <postern/os.h>
#include <string.h>

bool snapshot_policies(const struct snapshot *s, const struct policy **ret_first,
                       const struct policy **ret_second)
{
    *ret_first = s->files->policy;
    *ret_second = NULL;
    if (s->files->policy == NULL && !s->wants_state && s->files->conf->gateway) {
        /* The handshake has judged by what the listener says, which then says something. */
        return true;
    }
    if (s->wants_state && (s->state == NULL || s->state->has_policy)) {
        *ret_first = s->state != NULL ? s->state->policy : NULL; /* none: everything is denied */
        *ret_second = s->files->policy;
    }
    return false;
}

int64_t snapshot_next_expiry(const struct snapshot *s, int64_t now_s)
{
    const struct policy *first, *second;
    if (snapshot_policies(s, &first, &second)) {
        return 0;
    }
    int64_t a = policy_next_expiry(first, now_s);
    int64_t b = policy_next_expiry(second, now_s);
    return a == 0 || (b != 0 && b < a) ? b : a;
}

static bool is_strict_now(const struct snapshot *s, size_t listener, uint16_t port)
{
    for (size_t i = 0; i < s->strict.n; i++) {
        if (s->strict.items[i].listener == listener && s->strict.items[i].port == port) {
            return true;
        }
    }
    return false;
}

const struct conf_permissive *snapshot_permissive(const struct snapshot *s, size_t listener,
                                                  uint16_t port)
{
    const struct conf_listener *l = s->files->listeners[listener].conf;
    const struct conf_permissive *p = NULL;
    if (l->direction != CONF_INBOUND || l->capture == CONF_HBONE ||
        l->type == CONF_LISTENER_RELAY) {
        return NULL;
    }
    if (l->capture == CONF_EXPLICIT) {
        p = port == 0 ? &l->permissive : NULL;
    }
    for (size_t i = 0; i < l->n_ports && p == NULL; i++) {
        p = l->ports[i].port == port ? &l->ports[i].permissive : NULL;
    }
    bool plain = p != NULL && p->mode == CONF_MODE_PERMISSIVE;
    return plain && !is_strict_now(s, listener, port) ? p : NULL;
}

void snapshot_decide(const struct snapshot *s, const struct policy_query *q,
                     struct policy_verdict *ret, const struct policy **ret_by)
{
    const struct policy *first, *second;
    struct policy_query timed;
    if (q->now_s == 0 && snapshot_next_expiry(s, 0) != 0) {
        timed = *q;
        timed.now_s = os_wall_s();
        q = &timed;
    }
    if (snapshot_policies(s, &first, &second)) {
        *ret = (struct policy_verdict){.allow = true};
        if (ret_by != NULL) {
            *ret_by = NULL;
        }
        return;
    }
    const struct policy *by = first;
    policy_decide(first, q, ret);
    if (ret->allow && second != NULL) {
        struct policy_verdict narrowed;
        policy_decide(second, q, &narrowed);
        ret->narrowed_key = narrowed.rule_key;
        narrowed.audit = narrowed.audit != NULL ? narrowed.audit : ret->audit;
        if (!narrowed.allow) {
            *ret = narrowed;
            by = second;
        } else {
            ret->audit = ret->audit != NULL ? ret->audit : narrowed.audit;
            if (narrowed.shadow == POLICY_SHADOW_DENY && ret->shadow == POLICY_SHADOW_SAME) {
                ret->shadow = narrowed.shadow;
                ret->shadow_rule = narrowed.shadow_rule;
            }
        }
    }
    if (ret_by != NULL) {
        *ret_by = by;
    }
}

bool snapshot_wants_requests(const struct snapshot *s, struct str target, uint16_t port)
{
    bool told = s->wants_state && s->state != NULL && s->state->has_policy &&
                policy_wants_requests(s->state->policy, target, port);
    return told || policy_wants_requests(s->files->policy, target, port);
}

static bool among(struct str id, const struct route *r)
{
    for (size_t i = 0; i < r->n_identities; i++) {
        if (str_eq(r->identities[i], id)) {
            return true;
        }
    }
    return false;
}

static bool same_endpoint(const struct route_endpoint *a, const struct route_endpoint *b)
{
    if (a->port != b->port || (a->host == NULL) != (b->host == NULL)) {
        return false;
    }
    return a->host != NULL ? strcmp(a->host, b->host) == 0
                           : net_addr_same_host(&a->address, &b->address);
}

/* Whether the file leads nowhere that the agent does not lead to. */
static bool leads_there(const struct route *file, const struct route *told)
{
    for (size_t i = 0; i < file->n_endpoints; i++) {
        bool found = false;
        for (size_t k = 0; !found && k < told->n_endpoints; k++) {
            found = same_endpoint(&file->endpoints[i], &told->endpoints[k]);
        }
        if (!found) {
            return false;
        }
    }
    return true;
}

/* Whether the file expects nobody at this destination but those whom the agent expects there. Which
 * form of mTLS it takes there is the file's to say. */
static bool is_narrower(const struct route *file, const struct route *told)
{
    if (!route_transports_alike(file->transport, told->transport)) {
        return false;
    }
    for (size_t i = 0; i < file->n_identities; i++) {
        if (!among(file->identities[i], told)) {
            return false;
        }
    }
    return leads_there(file, told);
}

/* What one map says. */
struct word {
    const struct route *route;
    const struct route_pass *pass; /* without a route */
};

static struct word ask(const struct snapshot *s, const struct route_table *t,
                       const struct net_addr *dst, const struct route_pass *before)
{
    struct word w = {.route = route_lookup(t, dst)};
    if (w.route == NULL) {
        w.pass = route_pass(t, dst, s->resolved, before);
    }
    return w;
}

static struct word narrow(const struct snapshot *s, const struct net_addr *dst,
                          const struct route_pass *before)
{
    struct word told = ask(s, s->state->routes, dst, before);
    if (s->files->conf->mesh_path == NULL) {
        return told;
    }
    struct word file = ask(s, s->files->routes, dst, before);
    if (told.route == NULL) {
        /* Both have to let it through; what the more telling one calls it. */
        bool named = told.pass != NULL && told.pass->name != NULL;
        told.pass = file.pass == NULL || told.pass == NULL ? NULL : named ? told.pass : file.pass;
    } else if (file.route != NULL) {
        told.route = is_narrower(file.route, told.route) ? file.route : NULL;
    } else if (file.pass == NULL) {
        told.route = NULL;
    }
    return told;
}

const struct route *snapshot_route(const struct snapshot *s, const struct net_addr *dst,
                                   const struct route_pass *before,
                                   const struct route_pass **ret_pass)
{
    *ret_pass = NULL;
    if (s->wants_state && s->state == NULL) {
        return NULL;
    }
    struct word w = s->wants_state && s->state->has_mesh ? narrow(s, dst, before)
                                                         : ask(s, s->files->routes, dst, before);
    const struct route *r = w.route;
    *ret_pass = w.pass;
    if (s->wants_state && s->state->no_plaintext) {
        *ret_pass = NULL;
        if (r != NULL && r->transport == CONF_TRANSPORT_DISABLE) {
            r = NULL;
        }
    }
    return r;
}

size_t snapshot_sets(const struct snapshot *s, const struct route *r, const struct net_addr *dst,
                     const struct balance_set *ret[SNAPSHOT_SETS_MAX])
{
    size_t n = 0;
    if (s->balance == NULL || s->balance->n_sets == 0 || r == NULL) {
        return 0;
    }
    const struct balance_set *own = balance_find(s->balance, r);
    const struct balance_set *told = NULL;
    if (s->wants_state && s->state != NULL && s->state->has_mesh &&
        s->files->conf->mesh_path != NULL) {
        const struct route *first = route_lookup(s->state->routes, dst);
        told = first != r ? balance_find(s->balance, first) : NULL;
    }
    if (told != NULL && told->route->n_endpoints > 0 && r->n_endpoints == 0) {
        ret[n++] = told;
        told = NULL;
    }
    if (own != NULL) {
        ret[n++] = own;
    }
    if (told != NULL) {
        ret[n++] = told;
    }
    return n;
}

const struct balance_set *snapshot_endpoints(const struct snapshot *s, const struct route *r,
                                             const struct net_addr *dst)
{
    const struct balance_set *sets[SNAPSHOT_SETS_MAX];
    return snapshot_sets(s, r, dst, sets) > 0 && sets[0]->route->n_endpoints > 0 ? sets[0] : NULL;
}

const struct balance_set *snapshot_listed(const struct snapshot *s,
                                          const struct snapshot_listener *l)
{
    return l->n_targets > 0 ? balance_find(s->balance, l->explicit_route) : NULL;
}

struct balance_state *snapshot_balance(struct balance *b, const struct snapshot_files *files,
                                       const struct snapshot_state *state,
                                       const struct resolve_state *resolved, uint64_t now_ms)
{
    const struct route_table *tables[] = {files->routes,
                                          state != NULL && state->has_mesh ? state->routes : NULL};
    mem_autofree const struct route **routes = (const struct route **)mem_must_calloc(
        files->n_listeners + 1, sizeof(const struct route *));
    for (size_t i = 0; i < files->n_listeners; i++) {
        routes[i] = files->listeners[i].explicit_route;
    }
    return balance_build(b,
                         &(const struct balance_from){.tables = tables,
                                                      .n_tables = 2,
                                                      .routes = routes,
                                                      .n_routes = files->n_listeners,
                                                      .resolved = resolved},
                         now_ms);
}

bool snapshot_denies(const struct snapshot *s, struct str id, const char *serial)
{
    return s->state != NULL && deny_set_has(s->state->deny, id, str_of(serial));
}

bool snapshot_target_equal(const struct snapshot_target *a, const struct snapshot_target *b)
{
    if (a->conf->kind != b->conf->kind) {
        return false;
    }
    switch (a->conf->kind) {
    case CONF_TARGET_ADDRESS:
        return net_addr_equal(&a->address, &b->address);
    case CONF_TARGET_HOST:
        return a->port == b->port && strcmp(a->conf->host, b->conf->host) == 0;
    case CONF_TARGET_UNIX:
        return strcmp(a->conf->path, b->conf->path) == 0;
    case CONF_TARGET_LIST: /* who is at one of them has shown who it is */
        return a->port == b->port;
    case CONF_TARGET_NONE:
        break;
    }
    return true;
}
