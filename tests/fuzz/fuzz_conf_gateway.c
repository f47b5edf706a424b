/* A file of kind Gateway: it loads and then holds what its table promises (every leg has a
 * certificate and a trust, nobody is let in by silence, and no client listener stands open to
 * other machines unsaid), or there is an error. */
#include "conf_fuzz.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t n_names(const struct conf_names *names)
{
    return names->cn.n + names->ou.n + names->dns.n + names->uri.n;
}

static void check_names(const struct conf_names *names)
{
    conf_fuzz_check_texts(&names->cn);
    conf_fuzz_check_texts(&names->ou);
    conf_fuzz_check_texts(&names->dns);
    conf_fuzz_check_texts(&names->uri);
    assert(!names->any || n_names(names) == 0);
}

static void check_side(const struct conf_proxy *conf, const struct conf_tls_side *side)
{
    conf_fuzz_check_texts(&side->credentials);
    conf_fuzz_check_texts(&side->tls.alpn);
    conf_fuzz_check_texts(&side->identities);
    check_names(&side->allow);
    check_names(&side->verify);
    for (size_t i = 0; i < side->credentials.n; i++) {
        assert(conf_find_credential(conf, side->credentials.items[i]) != NULL);
    }
    assert(side->trust == NULL || conf_find_trust(conf, side->trust) != NULL);
}

static void check_target(const struct conf_target *to)
{
    assert((to->kind == CONF_TARGET_ADDRESS) == (to->address.len > 0));
    assert((to->kind == CONF_TARGET_HOST) == (to->host != NULL));
    assert(to->kind != CONF_TARGET_HOST || to->port > 0);
    assert((to->kind == CONF_TARGET_UNIX) == (to->path != NULL));
}

static void check_upstream(const struct conf_proxy *conf, const struct conf_listener *l)
{
    const struct conf_tls_side *up = &l->upstream;
    check_side(conf, up);
    assert(l->to.kind != CONF_TARGET_NONE || l->n_sni > 0);
    assert(!conf->no_identity ||
           ((up->credentials.n > 0 || up->no_credentials) && up->trust != NULL));
    if (conf_trusts_spiffe(conf, up)) {
        assert(up->identities.n > 0 && n_names(&up->verify) == 0);
    } else {
        assert(up->identities.n == 0 && n_names(&up->verify) > 0);
    }
}

static void check_downstream(const struct conf_proxy *conf, const struct conf_listener *l)
{
    bool terminates = l->to.kind != CONF_TARGET_NONE;
    bool by_default = terminates;
    check_side(conf, &l->downstream);
    for (size_t i = 0; i < l->n_sni; i++) {
        const struct conf_sni_route *r = &l->sni[i];
        assert(r->names.n > 0);
        conf_fuzz_check_texts(&r->names);
        check_target(&r->to);
        assert(r->to.kind != CONF_TARGET_NONE || l->to.kind != CONF_TARGET_NONE);
        assert(!r->passthrough || r->credentials.n == 0);
        terminates = terminates || !r->passthrough;
        by_default = by_default || (!r->passthrough && r->credentials.n == 0);
    }
    assert(!by_default || !conf->no_identity || l->downstream.credentials.n > 0);
    if (terminates) {
        assert(l->client_certificate == CONF_CLIENT_CERTIFICATE_NONE || !conf->no_identity ||
               l->downstream.trust != NULL);
        assert(conf->policy_path != NULL || conf->state.from == CONF_STATE_AGENT ||
               l->downstream.allow.any || n_names(&l->downstream.allow) > 0);
    }
}

static void check_transport(const struct conf_listener *l)
{
    assert(l->transport != CONF_TRANSPORT_DISABLE);
    if (l->transport != CONF_TRANSPORT_DIRECT) {
        assert(l->type != CONF_LISTENER_SERVER && l->upstream.connect_proxy == NULL);
        assert(l->type == CONF_LISTENER_CLIENT || l->protocol == CONF_PROTOCOL_TCP);
        assert(l->n_sni == 0);
        assert(l->upstream.identities.n > 0 && l->upstream.tls.alpn.n == 0);
        assert(l->to.kind == CONF_TARGET_ADDRESS || l->to.kind == CONF_TARGET_LIST);
    }
    if (l->takes_hbone) {
        assert(l->type != CONF_LISTENER_CLIENT && l->n_sni == 0 && l->proxy_protocol_from.n == 0);
        assert(l->client_certificate == CONF_CLIENT_CERTIFICATE_REQUIRED);
    }
    if (l->to.kind == CONF_TARGET_LIST) {
        assert(l->type != CONF_LISTENER_SERVER && l->upstream.connect_proxy == NULL);
        assert(l->type != CONF_LISTENER_RELAY || l->to.port > 0);
    }
}

static bool is_loopback(const struct conf_sockaddr *a)
{
    static const uint8_t v6[16] = {[15] = 1};
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    memcpy(&in, &a->ss, sizeof(in));
    memcpy(&in6, &a->ss, sizeof(in6));
    return in.sin_family == AF_INET ? ((const uint8_t *)&in.sin_addr)[0] == 127
                                    : memcmp(&in6.sin6_addr, v6, 16) == 0;
}

static void check(const struct conf_proxy *conf)
{
    assert(conf->gateway && conf->name != NULL && conf->n_listeners >= 1);
    assert(conf->mesh_path == NULL);
    for (size_t i = 0; i < conf->n_listeners; i++) {
        const struct conf_listener *l = &conf->listeners[i];
        assert(l->name != NULL && l->capture == CONF_EXPLICIT && l->type != CONF_LISTENER_SIDECAR);
        assert((l->direction == CONF_OUTBOUND) == (l->type == CONF_LISTENER_CLIENT));
        assert((l->bind.kind == CONF_BIND_ADDRESS) == (l->bind.address.len > 0));
        assert((l->bind.kind == CONF_BIND_UNIX) == (l->bind.path != NULL));
        assert((l->socket.mode & ~(mode_t)0777) == 0);
        check_target(&l->to);
        assert((l->n_targets == 0) == (l->to.kind == CONF_TARGET_NONE));
        assert(l->n_targets < 2 || l->to.kind == CONF_TARGET_LIST);
        for (size_t k = 0; k < l->n_targets; k++) {
            check_target(&l->targets[k]);
        }
        check_transport(l);
        if (l->type == CONF_LISTENER_CLIENT) {
            assert(l->bind.kind != CONF_BIND_ADDRESS || l->allow_remote_clients ||
                   is_loopback(&l->bind.address));
            assert(l->n_sni == 0 && l->to.kind != CONF_TARGET_NONE);
        } else {
            check_downstream(conf, l);
        }
        if (l->type != CONF_LISTENER_SERVER) {
            check_upstream(conf, l);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct conf_diag *diag = conf_diag_new();
    struct conf_proxy *conf = NULL;
    bool loaded = conf_parse_gateway("/f.yaml", (const char *)data, size, diag, &conf) == 0;
    conf_fuzz_check_diag(diag, loaded, conf != NULL);
    if (loaded) {
        check(conf);
    }
    conf_proxy_free(conf);
    return 0;
}
