/* Building snapshots, and letting go of them. */
#include <postern/snapshot.h>

#include <postern/mem.h>
#include <postern/os.h>
#include <postern/policy_source.h>
#include <stdlib.h>
#include <string.h>

static bool take_ref(_Atomic unsigned *refs)
{
    return atomic_fetch_add_explicit(refs, 1, memory_order_relaxed) > 0;
}

/* True for the last one, which then sees everything the others did before. */
static bool drop_ref(_Atomic unsigned *refs)
{
    return atomic_fetch_sub_explicit(refs, 1, memory_order_acq_rel) == 1;
}

/* --- files ------------------------------------------------------------------------------------ */

static void take_addr(const struct conf_sockaddr *c, struct net_addr *ret)
{
    if (c->len > 0) {
        (void)net_addr_from((const struct sockaddr *)&c->ss, c->len, ret);
    }
}

/* Whom its dialling side has to find; NULL: it has none, or asks the mesh map. */
static const struct conf_strings *expected(const struct conf_listener *l)
{
    switch (l->type) {
    case CONF_LISTENER_SIDECAR:
        return l->direction == CONF_OUTBOUND && l->capture == CONF_EXPLICIT ? &l->identities : NULL;
    case CONF_LISTENER_CLIENT:
    case CONF_LISTENER_RELAY:
        return &l->upstream.identities;
    case CONF_LISTENER_SERVER:
        break;
    }
    return NULL;
}

static void fill_listeners(struct snapshot_files *f)
{
    f->listeners = (struct snapshot_listener *)mem_must_calloc(f->conf->n_listeners + 1,
                                                               sizeof(*f->listeners));
    f->n_listeners = f->conf->n_listeners;
    for (size_t i = 0; i < f->n_listeners; i++) {
        struct snapshot_listener *l = &f->listeners[i];
        l->conf = &f->conf->listeners[i];
        take_addr(&l->conf->bind.address, &l->address);
        snapshot_targets_fill(l);
        const struct conf_strings *ids = expected(l->conf);
        if (ids != NULL) {
            l->explicit_route = route_new_explicit(l->conf->name, ids);
            route_set_transport(l->explicit_route, l->conf->transport, l->conf->hbone_port);
            if (l->n_targets > 0) {
                route_set_endpoints(l->explicit_route, l->conf->targets, l->n_targets,
                                    &l->conf->ejection);
            }
        }
    }
}

static int load_policy(struct snapshot_files *f, struct conf_diag *diag, struct err *err)
{
    if (f->conf->policy_path == NULL) {
        return 0;
    }
    struct conf_policy *conf = NULL;
    struct policy_source source;
    policy_source_of_proxy(f->conf, &source);
    f->policy_doubts = conf_diag_new();
    int r = policy_source_load(&source, f->conf->policy_path, diag, f->policy_doubts, &conf);
    policy_source_deinit(&source);
    if (r == -1) {
        return err_set(err, ERR_CONFIG, "the policy %s has errors", f->conf->policy_path);
    }
    f->n_rules = conf->n_rules;
    f->policy = policy_new(conf, err);
    conf_policy_free(conf);
    return f->policy != NULL ? 0 : -1;
}

static int load_mesh(struct snapshot_files *f, struct conf_diag *diag, struct err *err)
{
    struct conf_mesh *conf = NULL;
    if (f->conf->mesh_path != NULL && conf_load_mesh(f->conf->mesh_path, diag, &conf) == -1) {
        return err_set(err, ERR_CONFIG, "the mesh map %s has errors", f->conf->mesh_path);
    }
    int r = route_table_new(conf, &f->routes, err);
    conf_mesh_free(conf);
    return r;
}

static int check_group(const struct conf_tls *tls, const char *listener, struct err *err)
{
    struct tls_party_spec spec = {.server = false};
    snapshot_tls_fill(tls, &spec);
    if (tls_min_group_check(spec.min_group, err) == 0) {
        return 0;
    }
    return listener != NULL ? err_prefix(err, "listener '%s'", listener) : -1;
}

/* What only the library knows that is here. */
int snapshot_tls_check(const struct conf_proxy *conf, struct err *err)
{
    if (check_group(&conf->tls, NULL, err) == -1) {
        return -1;
    }
    for (size_t i = 0; i < conf->n_listeners; i++) {
        const struct conf_listener *l = &conf->listeners[i];
        if (check_group(&l->downstream.tls, l->name, err) == -1 ||
            check_group(&l->upstream.tls, l->name, err) == -1) {
            return -1;
        }
    }
    return 0;
}

int snapshot_files_new(struct conf_proxy *conf, uint64_t generation, struct conf_diag *diag,
                       struct snapshot_files **ret, struct err *err)
{
    mem_auto(snapshot_files_unref) struct snapshot_files *f = mem_must_new(struct snapshot_files);
    atomic_init(&f->refs, 1);
    f->generation = generation;
    f->conf = conf;
    /* Both, so that the errors of both are seen at once. */
    int policy = load_policy(f, diag, err);
    int mesh = load_mesh(f, diag, err);
    if (policy == -1 || mesh == -1 || claims_keys_load(&conf->jwt, &f->claims, err) == -1 ||
        snapshot_tls_check(conf, err) == -1) {
        return -1;
    }
    fill_listeners(f);
    *ret = f;
    f = NULL;
    return 0;
}

struct snapshot_files *snapshot_files_ref(struct snapshot_files *f)
{
    POSTERN_ASSERT(take_ref(&f->refs));
    return f;
}

struct snapshot_files *snapshot_files_unref(struct snapshot_files *f)
{
    if (f != NULL && drop_ref(&f->refs)) {
        for (size_t i = 0; i < f->n_listeners; i++) {
            route_free_explicit(f->listeners[i].explicit_route);
            snapshot_targets_free(&f->listeners[i]);
        }
        free(f->listeners);
        policy_free(f->policy);
        conf_diag_free(f->policy_doubts);
        claims_keys_unref(f->claims);
        route_table_free(f->routes);
        conf_proxy_free(f->conf);
        free(f);
    }
    return NULL;
}

static bool same_text(const char *a, const char *b)
{
    return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

static bool same_addr(const struct conf_sockaddr *a, const struct conf_sockaddr *b)
{
    return a->len == b->len && memcmp(&a->ss, &b->ss, a->len) == 0;
}

static bool same_bind(const struct conf_listener *a, const struct conf_listener *b)
{
    return a->bind.kind == b->bind.kind && same_addr(&a->bind.address, &b->bind.address) &&
           same_text(a->bind.path, b->bind.path) &&
           same_text(a->bind.activation, b->bind.activation) && a->socket.mode == b->socket.mode &&
           same_text(a->socket.owner, b->socket.owner) &&
           same_text(a->socket.group, b->socket.group);
}

static bool same_audit(const struct conf_audit *a, const struct conf_audit *b)
{
    return a->configured == b->configured && a->to == b->to && same_text(a->path, b->path) &&
           a->max_size == b->max_size && a->keep == b->keep && a->chain == b->chain;
}

static const char *changed_for_good(const struct conf_proxy *a, const struct conf_proxy *b)
{
    if (a->workers != b->workers) {
        return "workers";
    }
    if (a->no_identity != b->no_identity || !same_text(a->identity.socket, b->identity.socket) ||
        !same_text(a->identity.spiffe_id, b->identity.spiffe_id) ||
        a->identity.key != b->identity.key ||
        a->identity.key_isolation != b->identity.key_isolation) {
        return "identity";
    }
    if (a->run_as != b->run_as) {
        return "run_as";
    }
    if (a->state.from != b->state.from) {
        return "state";
    }
    if (a->tls.min_group != b->tls.min_group || a->tls.resumption != b->tls.resumption) {
        return "tls";
    }
    if (!same_text(a->admin.socket, b->admin.socket) || a->admin.take_over != b->admin.take_over ||
        a->admin.denials != b->admin.denials || !same_addr(&a->metrics, &b->metrics)) {
        return "admin or metrics";
    }
    if (a->n_listeners != b->n_listeners) {
        return "listeners";
    }
    for (size_t i = 0; i < a->n_listeners; i++) {
        const struct conf_listener *x = &a->listeners[i];
        const struct conf_listener *y = &b->listeners[i];
        if (!same_text(x->name, y->name) || x->type != y->type || x->direction != y->direction ||
            x->capture != y->capture || x->transparent != y->transparent ||
            x->takes_hbone != y->takes_hbone || !same_bind(x, y)) {
            return "listeners";
        }
    }
    if (a->interception.canary != b->interception.canary ||
        a->interception.interval_ms != b->interception.interval_ms) {
        return "interception";
    }
    return same_audit(&a->audit, &b->audit) ? NULL : "audit";
}

/* Whom a service manager's socket lets in was looked at when it was taken over, so it can only be
 * widened. NULL: it is; else the listener. */
static const char *reach_taken_back(const struct conf_proxy *a, const struct conf_proxy *b)
{
    for (size_t i = 0; i < a->n_listeners; i++) {
        if (a->listeners[i].bind.kind == CONF_BIND_SYSTEMD &&
            a->listeners[i].allow_remote_clients && !b->listeners[i].allow_remote_clients) {
            return b->listeners[i].name;
        }
    }
    return NULL;
}

int snapshot_files_compatible(const struct snapshot_files *now, const struct snapshot_files *next,
                              struct err *err)
{
    const char *what = changed_for_good(now->conf, next->conf);
    const char *listener = what == NULL ? reach_taken_back(now->conf, next->conf) : NULL;
    if (what == NULL && listener == NULL) {
        return 0;
    }
    if (what != NULL) {
        err_set(err, ERR_CONFIG, "`%s` cannot be changed while running", what);
    } else {
        err_set(err, ERR_CONFIG,
                "listener %s: `allow_remote_clients` cannot be taken back while running", listener);
    }
    err_where(err, "%s", next->conf->path != NULL ? next->conf->path : "");
    return err_advise(err, "restart the %s for this change, or take it back",
                      next->conf->gateway ? "gateway" : "proxy");
}

bool snapshot_is_own_port(const struct snapshot_files *f, const struct net_addr *a, bool local)
{
    uint16_t port = net_addr_port(a);
    struct net_addr metrics = {.len = 0};
    take_addr(&f->conf->metrics, &metrics);
    if (metrics.len > 0 && net_addr_port(&metrics) == port &&
        (local || net_addr_same_host(&metrics, a) || net_addr_is_local(a))) {
        return true;
    }
    for (size_t i = 0; i < f->n_listeners; i++) {
        const struct net_addr *own = &f->listeners[i].address;
        if (net_addr_port(own) == port &&
            (local || net_addr_same_host(own, a) || net_addr_is_local(a))) {
            return true;
        }
    }
    return false;
}

/* --- identity --------------------------------------------------------------------------------- */

void snapshot_tls_fill(const struct conf_tls *tls, struct tls_party_spec *ret)
{
    static const enum tls_min_group groups[] = {
        [CONF_GROUP_X25519] = TLS_MIN_X25519,
        [CONF_GROUP_P384] = TLS_MIN_P384,
        [CONF_GROUP_X25519MLKEM768] = TLS_MIN_X25519MLKEM768,
    };
    ret->min_group = groups[tls->min_group];
    ret->resumption = tls->resumption == CONF_RESUMPTION_ON;
}

int snapshot_identity_new(const struct x509_svid *svid, const struct x509_trust *trust,
                          const struct conf_tls *tls, struct snapshot_identity **ret,
                          struct err *err)
{
    mem_auto(snapshot_identity_unref) struct snapshot_identity *i =
        mem_must_new(struct snapshot_identity);
    atomic_init(&i->refs, 1);
    mem_auto(x509_peers_unref) struct x509_peers *peers = x509_peers_new_spiffe(trust);
    struct tls_party_spec spec = {.server = true,
                                  .own = &svid,
                                  .n_own = 1,
                                  .peers = peers,
                                  .alpn = &tls_alpn_postern,
                                  .n_alpn = 1};
    if (tls != NULL) {
        snapshot_tls_fill(tls, &spec);
    }
    if (tls_party_new(&spec, &i->server, err) == -1) {
        return -1;
    }
    spec.server = false;
    if (tls_party_new(&spec, &i->client, err) == -1) {
        return -1;
    }
    i->trust = x509_trust_ref(trust);
    i->own_id = mem_must_strdup(svid->spiffe_id);
    i->own = str_of(i->own_id);
    i->not_before_s = svid->not_before_s;
    i->not_after_s = svid->not_after_s;
    memcpy(i->serial, svid->serial, sizeof(i->serial));
    *ret = i;
    i = NULL;
    return 0;
}

struct snapshot_identity *snapshot_identity_ref(struct snapshot_identity *i)
{
    POSTERN_ASSERT(take_ref(&i->refs));
    return i;
}

struct snapshot_identity *snapshot_identity_unref(struct snapshot_identity *i)
{
    if (i != NULL && drop_ref(&i->refs)) {
        tls_party_unref(i->server);
        tls_party_unref(i->client);
        x509_trust_unref(i->trust);
        free(i->own_id);
        free(i);
    }
    return NULL;
}

/* --- the whole -------------------------------------------------------------------------------- */

struct snapshot *snapshot_new(uint64_t generation, const struct snapshot_parts *parts)
{
    struct snapshot *s = mem_must_new(struct snapshot);
    atomic_init(&s->refs, 1);
    s->generation = generation;
    s->at_s = os_wall_s();
    s->files = snapshot_files_ref(parts->files);
    s->identity = parts->identity != NULL ? snapshot_identity_ref(parts->identity) : NULL;
    if (parts->parties != NULL) {
        POSTERN_ASSERT(parts->parties->n_legs == parts->files->n_listeners);
        s->parties = snapshot_parties_ref(parts->parties);
    }
    s->balance = parts->balance != NULL ? balance_state_ref(parts->balance) : NULL;
    s->tickets = parts->tickets != NULL ? tls_tickets_ref(parts->tickets) : NULL;
    s->resolved = parts->resolved != NULL ? resolve_state_ref(parts->resolved) : NULL;
    struct claims_keys *claims = parts->claims != NULL ? parts->claims : parts->files->claims;
    s->claims = claims != NULL ? claims_keys_ref(claims) : NULL;
    if (parts->strict != NULL) {
        s->strict = *parts->strict;
    }
    s->wants_state = parts->files->conf->state.from == CONF_STATE_AGENT;
    if (s->wants_state) {
        s->state = parts->state != NULL ? snapshot_state_ref(parts->state) : NULL;
        s->own_quarantined =
            parts->quarantined ||
            (s->identity != NULL && snapshot_denies(s, s->identity->own, s->identity->serial));
    }
    s->change = parts->before != NULL ? snapshot_change_new(parts->before, s) : NULL;
    return s;
}

struct snapshot *snapshot_ref(struct snapshot *s)
{
    POSTERN_ASSERT(take_ref(&s->refs));
    return s;
}

bool snapshot_is_last(struct snapshot *s)
{
    return atomic_load_explicit(&s->refs, memory_order_acquire) == 1;
}

struct snapshot *snapshot_unref(struct snapshot *s)
{
    if (s != NULL && drop_ref(&s->refs)) {
        balance_state_unref(s->balance);
        snapshot_files_unref(s->files);
        snapshot_identity_unref(s->identity);
        resolve_state_unref(s->resolved);
        snapshot_parties_unref(s->parties);
        tls_tickets_unref(s->tickets);
        claims_keys_unref(s->claims);
        snapshot_state_unref(s->state);
        snapshot_change_free(s->change);
        free(s);
    }
    return NULL;
}
