/* proxy_interception: how the sidecar looks after the kernel's redirection, and what a transparent
 * listener cannot have. */
#include <postern/conf.h>

#include "config_priv.h"

static const char *const words_canary[] = {"off", "on", NULL};

static const struct field fields_interception[] = {
    {.name = "canary",
     .type = TYPE_WORD,
     .words = words_canary,
     AT(struct conf_proxy, interception.canary),
     .def = "off",
     .doc = "`on`: the proxy dials addresses that the rules of `postern intercept` keep for this, "
            "and is ready only while each such connection ends as the rules say."},
    {.name = "interval",
     .type = TYPE_DURATION_MS,
     .min = 100,
     .max = 3600000,
     AT(struct conf_proxy, interception.interval_ms),
     .def = "10s",
     .doc = "Between two such rounds; each is up to a fifth earlier or later."},
};
const struct table table_proxy_interception = {
    .name = "interception",
    .doc = "Whether the rules are still in force. Read at the start only.",
    FIELDS(fields_interception)};

void transparent_check(struct context *c, const struct node *map, const struct conf_listener *l)
{
    const struct node *n = node_get(map, "transparent");
    if (n == NULL || !l->transparent) {
        return;
    }
    if (schema_word_is(map, "capture", "explicit")) {
        schema_refuse_key(c, map, "transparent", "an explicit listener",
                          "it is for what `postern intercept --inbound-mode tproxy` brings");
    } else if (schema_word_is(map, "capture", "hbone")) {
        schema_refuse_key(c, map, "transparent", "an HBONE listener",
                          "its streams come from the proxy's address");
    } else if (schema_word_is(map, "direction", "outbound")) {
        schema_refuse_key(c, map, "transparent", "an outbound listener",
                          "the workload's own connections have its own address");
    }
    const struct node *ports = node_get(map, "ports");
    for (const struct node *p = ports != NULL && ports->kind == NODE_LIST ? ports->child : NULL;
         p != NULL; p = p->next) {
        const struct node *at = p->kind == NODE_MAP ? node_get(p, "local_address") : NULL;
        if (at != NULL) {
            report(c, at->key, NULL,
                   "let the workload listen on the pod's address, or leave 'transparent' out",
                   "'local_address' of a port whose clients' addresses are kept");
        }
    }
}

void interception_check(struct context *c, const struct node *map, const struct conf_proxy *p)
{
    const struct node *n = node_get(map, "interception");
    const struct node *canary = n != NULL && n->kind == NODE_MAP ? node_get(n, "canary") : NULL;
    if (canary == NULL || p->interception.canary == CONF_CANARY_OFF || p->n_listeners == 0) {
        return;
    }
    for (size_t i = 0; i < p->n_listeners; i++) {
        if (p->listeners[i].capture == CONF_INTERCEPTED) {
            return;
        }
    }
    report(c, canary->key, "an intercepted listener, or 'off'", NULL,
           "'canary' of a proxy to which nothing is redirected");
}
