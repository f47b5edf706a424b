/* key_isolation: what a key that only signs handshakes of TLS 1.3 cannot go with. */
#include "config_priv.h"

#include <stdio.h>

const char *const words_key_isolation[] = {"none", "process", NULL};

static void refuse_old_tls(struct context *c, const struct node *at, const struct conf_listener *l)
{
    char advice[160];
    snprintf(advice, sizeof(advice), "give listener '%.60s' TLS 1.3, or credentials of its own",
             l->name != NULL ? l->name : "");
    report(c, at, NULL, advice,
           "'key_isolation: process' beside a leg that takes TLS 1.2 with this identity: the key "
           "signs handshakes of TLS 1.3 alone");
}

/* Whether some server name, or none, comes to the listener's own certificate. */
static bool shows_its_own(const struct conf_listener *l)
{
    bool shows = l->n_sni == 0 || l->to.kind != CONF_TARGET_NONE;
    for (size_t i = 0; i < l->n_sni; i++) {
        shows = shows || (!l->sni[i].passthrough && l->sni[i].credentials.n == 0);
    }
    return shows && l->downstream.credentials.n == 0;
}

/* Whether a leg that shows the identity may come to TLS 1.2. */
static bool takes_old_tls(const struct conf_listener *l)
{
    bool down = l->type == CONF_LISTENER_SERVER || l->type == CONF_LISTENER_RELAY;
    bool up = l->type == CONF_LISTENER_CLIENT || l->type == CONF_LISTENER_RELAY;
    return (down && shows_its_own(l) && l->downstream.tls.min == CONF_TLS_1_2) ||
           (up && l->upstream.credentials.n == 0 && !l->upstream.no_credentials &&
            l->upstream.tls.min == CONF_TLS_1_2);
}

void key_isolation_check(struct context *c, const struct node *map, const struct conf_proxy *p)
{
    const struct node *identity = node_get(map, "identity");
    const struct node *at =
        identity != NULL && identity->kind == NODE_MAP ? node_get(identity, "key_isolation") : NULL;
    if (at == NULL || p->identity.key_isolation != CONF_KEY_PROCESS) {
        return;
    }
    if (p->identity.key == CONF_KEY_AGENT) {
        report(c, at, NULL, "leave 'key' out, or say 'key: csr'",
               "'key_isolation: process' with 'key: agent': that key comes from outside");
    }
    for (size_t i = 0; p->gateway && i < p->n_listeners; i++) {
        if (takes_old_tls(&p->listeners[i])) {
            refuse_old_tls(c, at, &p->listeners[i]);
        }
    }
}
