/* peer_own: a PeerAuthentication where a file is read in place of a Policy. It opens nothing: which
 * ports take plaintext is said by the Proxy file alone. But what it closes must not be open there,
 * so a proxy holds its own ports against it. */
#include "convert_priv.h"

#include <string.h>

static const struct node *spec_of(const struct object *o)
{
    return field_get(o->map, "spec");
}

/* Of the one that counts for the workload as a whole: where an error is put. */
static const struct object *nearest_of(const struct object *const levels[3])
{
    return levels[2] != NULL ? levels[2] : levels[1] != NULL ? levels[1] : levels[0];
}

static void hold_ports(struct policy_convert *c, const struct object *const levels[3])
{
    const struct object *nearest = nearest_of(levels);
    enum peer_mode all = peer_mode_of(levels);
    for (size_t i = 0; i < c->options.plain_ports.n; i++) {
        uint16_t port = c->options.plain_ports.items[i];
        if (peer_mode_of_port(levels[2], port, all) == MODE_STRICT) {
            convert_fail(nearest, nearest->map, NULL,
                         "take 'mode: permissive' away there, or say PERMISSIVE for this port here",
                         "port %u is STRICT by it, and takes plaintext by the Proxy file", port);
        }
    }
}

/* A doubt where it says that something is open which is not. */
static void tell_permissive(const struct object *o)
{
    enum peer_mode mode = MODE_UNSET;
    const struct node *ports = field_get(spec_of(o), "portLevelMtls");
    const struct node *mtls = field_get(spec_of(o), "mtls");
    bool open = peer_read_mode(o, mtls, &mode) && mode == MODE_PERMISSIVE;
    for (const struct node *n = ports != NULL ? ports->child : NULL; n != NULL; n = n->next) {
        mode = MODE_UNSET;
        open = open || (peer_read_mode(o, n, &mode) && mode == MODE_PERMISSIVE);
    }
    if (open) {
        convert_doubt(o, o->map, "say 'mode: permissive' of the ports there, where it is wanted",
                      "it is PERMISSIVE, and which ports take plaintext is said by Proxy files "
                      "alone");
    }
}

static bool has_selector(const struct object *o)
{
    const struct node *selector = field_get(spec_of(o), "selector");
    return selector != NULL && !selector_is_empty(selector);
}

/* Whether enough is known to hold the ports against them; else that was reported. */
static bool is_known(struct policy_convert *c)
{
    const struct object *root = NULL;
    for (size_t i = 0; i < c->peers.n; i++) {
        const struct object *o = &c->peers.items[i];
        bool of_mesh = !has_selector(o) && strcmp(o->ns, c->options.root_namespace) == 0;
        root = of_mesh ? root : o;
    }
    if (root != NULL && c->options.own_namespace == NULL) {
        convert_fail(root, root->map, NULL, "say 'policy_context.namespace'",
                     "whether it is about the own workload, nobody says");
        return false;
    }
    return true;
}

void peer_own_check(struct policy_convert *c)
{
    const struct object *levels[3] = {NULL, NULL, NULL};
    bool sound = true;
    for (size_t i = 0; i < c->peers.n; i++) {
        const struct object *o = &c->peers.items[i];
        sound = peer_is_sound(c, o) && sound;
        if (sound) {
            tell_permissive(o);
        }
    }
    if (sound && c->peers.n > 0 && !c->options.own) {
        convert_doubt(&c->peers.items[0], c->peers.items[0].map, NULL,
                      "no port is held against it here: each is STRICT, unless its Proxy file says "
                      "'mode: permissive'");
    }
    if (!sound || c->peers.n == 0 || c->options.plain_ports.n == 0 || !is_known(c)) {
        return;
    }
    static const struct node nothing = {.kind = NODE_MAP};
    const struct node *labels = c->own_labels != NULL ? c->own_labels : &nothing;
    for (size_t i = 0; i < c->peers.n && c->own_labels == NULL; i++) {
        const struct object *o = &c->peers.items[i];
        if (has_selector(o) && strcmp(o->ns, c->options.own_namespace) == 0) {
            convert_fail(o, field_get(spec_of(o), "selector"), NULL, own_advice(c, true),
                         "whether it is about the own workload, nobody says");
            return;
        }
    }
    if (peer_find_levels(c, c->options.own_namespace != NULL ? c->options.own_namespace : "",
                         labels, "the own workload", levels) &&
        nearest_of(levels) != NULL) {
        hold_ports(c, levels);
    }
}
