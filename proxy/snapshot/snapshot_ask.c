/* What holds, where the agent tells one thing and a file beside the proxy another: the file can
 * only take away. */
#include <postern/snapshot.h>

#include <string.h>

void snapshot_decide(const struct snapshot *s, const struct policy_query *q,
                     struct policy_verdict *ret, const struct policy **ret_by)
{
    const struct policy *first = s->files->policy;
    const struct policy *second = NULL;
    if (first == NULL && !s->wants_state && s->files->conf->gateway) {
        /* The handshake has judged by what the listener says, which then says something. */
        *ret = (struct policy_verdict){.allow = true};
        if (ret_by != NULL) {
            *ret_by = NULL;
        }
        return;
    }
    if (s->wants_state && (s->state == NULL || s->state->has_policy)) {
        first = s->state != NULL ? s->state->policy : NULL; /* none: everything is denied */
        second = s->files->policy;
    }
    const struct policy *by = first;
    policy_decide(first, q, ret);
    if (ret->allow && second != NULL) {
        struct policy_verdict narrowed;
        policy_decide(second, q, &narrowed);
        if (!narrowed.allow) {
            *ret = narrowed;
            by = second;
        }
    }
    if (ret_by != NULL) {
        *ret_by = by;
    }
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
    return true;
}

static const struct route *narrow(const struct snapshot *s, const struct net_addr *dst,
                                  bool *ret_passthrough)
{
    const struct route *told = route_lookup(s->state->routes, dst);
    bool passthrough = route_passthrough(s->state->routes);
    if (s->files->conf->mesh_path != NULL) {
        const struct route *file = route_lookup(s->files->routes, dst);
        bool silent = file == NULL && route_passthrough(s->files->routes);
        if (told == NULL) {
            passthrough = passthrough && silent;
        } else if (!silent) {
            passthrough = false;
            told = file != NULL && is_narrower(file, told) ? file : NULL;
        }
    }
    *ret_passthrough = passthrough;
    return told;
}

const struct route *snapshot_route(const struct snapshot *s, const struct net_addr *dst,
                                   bool *ret_passthrough)
{
    const struct route *r;
    if (s->wants_state && s->state == NULL) {
        *ret_passthrough = false;
        return NULL;
    }
    if (s->wants_state && s->state->has_mesh) {
        r = narrow(s, dst, ret_passthrough);
    } else {
        r = route_lookup(s->files->routes, dst);
        *ret_passthrough = route_passthrough(s->files->routes);
    }
    if (s->wants_state && s->state->no_plaintext) {
        *ret_passthrough = false;
        if (r != NULL && r->transport == CONF_TRANSPORT_DISABLE) {
            r = NULL;
        }
    }
    return r;
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
    case CONF_TARGET_NONE:
        break;
    }
    return true;
}
