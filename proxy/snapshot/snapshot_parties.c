/*
 * What the legs of a gateway go by, made of what its file says and of the credentials and trusts
 * that are in force. A leg of which something is not there yet has no party: its connections wait.
 */
#include <postern/snapshot.h>

#include <postern/mem.h>
#include <stdlib.h>
#include <string.h>

enum { OWN_MAX = TLS_OWN_MAX };

/* What one leg is made of, on the way to a party. */
struct making {
    const struct snapshot_material *from;
    const struct conf_listener *listener;
    const struct x509_svid *own[OWN_MAX];
    size_t n_own;
    struct x509_peers *peers; /* a reference */
    struct x509_names *names; /* owned */
    struct str *texts;        /* owned; of alpn, then of expected; the bytes are lent */
};

static void making_deinit(struct making *m)
{
    x509_peers_unref(m->peers);
    x509_names_unref(m->names);
    free(m->texts);
}

/* False: the first, which is the default, is not there yet. Others are left out until they are. */
static bool find_own(struct making *m, const struct conf_strings *names)
{
    const struct snapshot_material *from = m->from;
    if (names->n == 0) {
        m->own[0] = from->identity;
        m->n_own = from->identity != NULL ? 1 : 0;
        return from->identity != NULL;
    }
    for (size_t i = 0; i < names->n && m->n_own < OWN_MAX; i++) {
        const struct x509_svid *own = from->own(from->arg, names->items[i]);
        if (own == NULL && i == 0) {
            return false;
        }
        if (own != NULL) {
            m->own[m->n_own++] = own;
        }
    }
    return true;
}

static bool find_peers(struct making *m, const char *trust)
{
    const struct snapshot_material *from = m->from;
    if (trust != NULL) {
        const struct x509_peers *peers = from->peers(from->arg, trust);
        m->peers = peers != NULL ? x509_peers_ref(peers) : NULL;
    } else if (from->identity_trust != NULL) {
        m->peers = x509_peers_new_spiffe(from->identity_trust);
    }
    return m->peers != NULL;
}

static int add_names(struct x509_names *n, enum x509_name_kind kind,
                     const struct conf_strings *list, struct err *err)
{
    for (size_t i = 0; i < list->n; i++) {
        if (x509_names_add(n, kind, str_of(list->items[i]), err) == -1) {
            return -1;
        }
    }
    return 0;
}

/* Nothing said: names are not asked about. */
static int take_names(struct making *m, const struct conf_names *c, struct err *err)
{
    bool named = c->cn.n > 0 || c->ou.n > 0 || c->dns.n > 0 || c->uri.n > 0;
    if (!c->any && !named && c->host == NULL) {
        return 0;
    }
    m->names = x509_names_new(c->any);
    if (c->host != NULL &&
        (named ? x509_names_demand_host(m->names, str_of(c->host), err)
               : x509_names_add(m->names, X509_NAME_DNS, str_of(c->host), err)) == -1) {
        return -1;
    }
    return add_names(m->names, X509_NAME_URI, &c->uri, err) == -1 ||
                   add_names(m->names, X509_NAME_DNS, &c->dns, err) == -1 ||
                   add_names(m->names, X509_NAME_CN, &c->cn, err) == -1 ||
                   add_names(m->names, X509_NAME_OU, &c->ou, err) == -1
               ? -1
               : 0;
}

static void take_texts(struct making *m, const struct conf_tls_side *side,
                       struct tls_party_spec *spec)
{
    size_t n = 0;
    m->texts =
        (struct str *)mem_must_calloc(side->tls.alpn.n + side->identities.n + 3, sizeof(*m->texts));
    spec->alpn = m->texts;
    for (size_t i = 0; i < side->tls.alpn.n; i++) {
        m->texts[n++] = str_of(side->tls.alpn.items[i]);
    }
    spec->alpn_required = n > 0;
    if (n == 0 && spec->server) {
        if (m->listener->protocol == CONF_PROTOCOL_HTTP) {
            m->texts[n++] = STR_LIT("http/1.1"); /* first: it asks least of the target */
            m->texts[n++] = tls_alpn_h2;
            spec->alpn_required = true;
        }
        m->texts[n++] = tls_alpn_postern;
    }
    spec->n_alpn = n;
    spec->expected = m->texts + n;
    for (size_t i = 0; i < side->identities.n; i++) {
        m->texts[n++] = str_of(side->identities.items[i]);
    }
    spec->n_expected = side->identities.n;
}

static int finish(struct making *m, const struct conf_tls_side *side, struct tls_party_spec *spec,
                  struct tls_party **ret, struct err *err)
{
    take_texts(m, side, spec);
    spec->own = m->own;
    spec->n_own = m->n_own;
    spec->peers = m->peers;
    spec->names = m->names;
    snapshot_tls_fill(&side->tls, spec);
    spec->min = side->tls.min == CONF_TLS_1_2 ? TLS_MIN_1_2 : TLS_MIN_1_3;
    if (tls_party_new(spec, ret, err) == -1) {
        return err_prefix(err, "listener '%s'", m->listener->name);
    }
    return 0;
}

/* credentials: the listener's, or a route's. *ret NULL: something is not there yet. */
static int make_downstream(const struct snapshot_material *from, const struct conf_listener *l,
                           const struct conf_strings *credentials, struct tls_party **ret,
                           struct err *err)
{
    struct making m = {.from = from, .listener = l};
    struct tls_party_spec spec = {.server = true};
    bool asks = l->client_certificate == CONF_CLIENT_CERTIFICATE_REQUIRED;
    int r = 0;
    if (find_own(&m, credentials) && (!asks || find_peers(&m, l->downstream.trust))) {
        r = asks ? take_names(&m, &l->downstream.allow, err) : 0;
        r = r == 0 ? finish(&m, &l->downstream, &spec, ret, err) : -1;
    }
    making_deinit(&m);
    return r;
}

static int make_upstream(const struct snapshot_material *from, const struct conf_listener *l,
                         struct tls_party **ret, struct err *err)
{
    struct making m = {.from = from, .listener = l};
    struct tls_party_spec spec = {.server_name = l->upstream.server_name};
    bool shows = !l->upstream.no_credentials;
    int r = 0;
    if ((!shows || find_own(&m, &l->upstream.credentials)) && find_peers(&m, l->upstream.trust)) {
        r = take_names(&m, &l->upstream.verify, err);
        r = r == 0 ? finish(&m, &l->upstream, &spec, ret, err) : -1;
    }
    making_deinit(&m);
    return r;
}

/* --- legs ------------------------------------------------------------------------------------- */
static const char *own_id_of(const struct snapshot_material *from, const struct conf_listener *l)
{
    const struct x509_svid *own = l->downstream.credentials.n > 0
                                      ? from->own(from->arg, l->downstream.credentials.items[0])
                                      : from->identity;
    return own != NULL ? own->spiffe_id : NULL;
}

static int make_routes(const struct snapshot_material *from, const struct conf_listener *l,
                       struct snapshot_leg *leg, struct err *err)
{
    leg->routes = (struct tls_party **)mem_must_calloc(l->n_sni + 1, sizeof(*leg->routes));
    leg->n_routes = l->n_sni;
    for (size_t i = 0; i < l->n_sni; i++) {
        const struct conf_sni_route *route = &l->sni[i];
        if (route->passthrough) {
            continue;
        }
        if (route->credentials.n == 0) {
            leg->routes[i] = leg->downstream != NULL ? tls_party_ref(leg->downstream) : NULL;
        } else if (make_downstream(from, l, &route->credentials, &leg->routes[i], err) == -1) {
            return -1;
        }
    }
    return 0;
}

static int make_leg(const struct snapshot_material *from, const struct conf_listener *l,
                    struct snapshot_leg *leg, struct err *err)
{
    bool accepts = l->type == CONF_LISTENER_SERVER || l->type == CONF_LISTENER_RELAY;
    bool dials = l->type == CONF_LISTENER_CLIENT || l->type == CONF_LISTENER_RELAY;
    const char *id = own_id_of(from, l);
    leg->own_id = id != NULL ? mem_must_strdup(id) : NULL;
    if (accepts &&
        (make_downstream(from, l, &l->downstream.credentials, &leg->downstream, err) == -1 ||
         make_routes(from, l, leg, err) == -1)) {
        return -1;
    }
    return dials ? make_upstream(from, l, &leg->upstream, err) : 0;
}

int snapshot_parties_new(const struct snapshot_files *files, const struct snapshot_material *from,
                         struct snapshot_parties **ret, struct err *err)
{
    mem_auto(snapshot_parties_unref) struct snapshot_parties *p =
        mem_must_new(struct snapshot_parties);
    atomic_init(&p->refs, 1);
    p->legs = (struct snapshot_leg *)mem_must_calloc(files->n_listeners + 1, sizeof(*p->legs));
    p->n_legs = files->n_listeners;
    for (size_t i = 0; i < p->n_legs; i++) {
        if (make_leg(from, files->listeners[i].conf, &p->legs[i], err) == -1) {
            return -1;
        }
    }
    *ret = p;
    p = NULL;
    return 0;
}

struct snapshot_parties *snapshot_parties_ref(struct snapshot_parties *p)
{
    POSTERN_ASSERT(atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed) > 0);
    return p;
}

struct snapshot_parties *snapshot_parties_unref(struct snapshot_parties *p)
{
    if (p == NULL || atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) > 1) {
        return NULL;
    }
    for (size_t i = 0; i < p->n_legs; i++) {
        struct snapshot_leg *leg = &p->legs[i];
        for (size_t k = 0; k < leg->n_routes; k++) {
            tls_party_unref(leg->routes[k]);
        }
        free(leg->routes);
        tls_party_unref(leg->downstream);
        tls_party_unref(leg->upstream);
        free(leg->own_id);
    }
    free(p->legs);
    free(p);
    return NULL;
}

const struct tls_party *snapshot_downstream(const struct snapshot *s, size_t listener, long route)
{
    if (s->parties == NULL) {
        return s->identity != NULL ? s->identity->server : NULL;
    }
    POSTERN_ASSERT(listener < s->parties->n_legs);
    const struct snapshot_leg *leg = &s->parties->legs[listener];
    return route >= 0 && (size_t)route < leg->n_routes ? leg->routes[route] : leg->downstream;
}

const struct tls_party *snapshot_upstream(const struct snapshot *s, size_t listener)
{
    if (s->parties == NULL) {
        return s->identity != NULL ? s->identity->client : NULL;
    }
    POSTERN_ASSERT(listener < s->parties->n_legs);
    return s->parties->legs[listener].upstream;
}
