/* permissive: plaintext beside mTLS, for one port by name. */
#include <postern/conf.h>

#include "config_priv.h"

const char *const words_plaintext_mode[] = {"strict", "permissive", NULL};

void permissive_check(struct context *c, const struct node *map, const struct conf_permissive *p)
{
    if (p->mode == CONF_MODE_PERMISSIVE) {
        return;
    }
    const char *what = "'mode: strict'";
    schema_refuse_key(c, map, "plaintext_wait", what, "nobody is waited for there");
    schema_refuse_key(c, map, "strict_after", what, "it is strict already");
}

void permissive_check_ports(struct context *c, const struct node *map,
                            const struct conf_listener *l, bool hbone)
{
    const struct node *list = node_get(map, "ports");
    const struct node *n = list != NULL && list->kind == NODE_LIST ? list->child : NULL;
    size_t count = 0;
    for (size_t i = 0; i < l->n_ports && n != NULL; i++, n = n->next) {
        if (l->ports[i].permissive.mode != CONF_MODE_PERMISSIVE) {
            continue;
        }
        if (hbone) {
            report(c, node_get(n, "mode"), "mode: strict",
                   "a stream comes by a session of mTLS; plaintext comes to the intercepted "
                   "listener, and is said there",
                   "'mode: permissive' of an HBONE listener");
        } else if (++count == CONF_PERMISSIVE_PORTS_MAX + 1) {
            report(c, node_get(n, "mode"), NULL, NULL, "more than %d permissive ports",
                   CONF_PERMISSIVE_PORTS_MAX);
        }
    }
}

void permissive_check_none(struct context *c, const struct node *map, const char *what,
                           const char *advice)
{
    schema_refuse_key(c, map, "mode", what, advice);
    schema_refuse_key(c, map, "plaintext_wait", what, advice);
    schema_refuse_key(c, map, "strict_after", what, advice);
}

void permissive_check_server(struct context *c, const struct node *map,
                             const struct conf_listener *l)
{
    if (l->permissive.mode != CONF_MODE_PERMISSIVE) {
        return;
    }
    const char *what = "a permissive listener";
    schema_refuse_key(c, map, "allow", what,
                      "it names certificates, and a plaintext client has none: say in the policy "
                      "who may come in");
    schema_refuse_key(c, map, "sni", what, "a plaintext client asks for no server name");
}
