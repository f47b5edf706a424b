/* peer_auth: which of a workload's ports take plaintext beside mutual TLS. A policy has no word for
 * that: a Proxy file has, `mode` of a port. So what comes out is said in comments, as the lines
 * that each Proxy file wants. The nearest of workload, namespace and mesh that says a mode counts,
 * and what nobody says is PERMISSIVE. */
#include "convert_priv.h"

#include <stdio.h>
#include <string.h>

bool peer_read_mode(const struct object *o, const struct node *map, enum peer_mode *ret)
{
    static const char *const words[] = {"UNSET", "DISABLE", "PERMISSIVE", "STRICT"};
    static const char *const keys[] = {"mode", NULL};
    *ret = MODE_UNSET;
    if (map == NULL) {
        return true;
    }
    if (!field_is_map(o, map, "mtls") || !field_only(o, map, "mtls", keys)) {
        return false;
    }
    const struct node *n = field_get(map, "mode");
    if (n == NULL) {
        return true;
    }
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (n->kind == NODE_SCALAR && str_eq(n->text, str_of(words[i]))) {
            *ret = (enum peer_mode)i;
        }
    }
    if (*ret == MODE_DISABLE) {
        convert_fail(o, n, "STRICT, PERMISSIVE or UNSET",
                     "PERMISSIVE takes plaintext beside mutual TLS; a port that takes nothing else "
                     "is left out of the interception",
                     "DISABLE has no counterpart");
        return false;
    }
    if (*ret == MODE_UNSET && !str_eq(n->text, STR_LIT("UNSET"))) {
        convert_fail(o, n, "STRICT, PERMISSIVE or UNSET", NULL, "no mode");
        return false;
    }
    return true;
}

static const struct node *spec_of(const struct object *o)
{
    return field_get(o->map, "spec");
}

bool peer_is_sound(struct policy_convert *c, const struct object *o)
{
    static const char *const keys[] = {"selector", "mtls", "portLevelMtls", NULL};
    static const char *const top[] = {"apiVersion", "kind", "metadata", "spec", "status", NULL};
    const struct node *spec = spec_of(o);
    enum peer_mode mode;
    if (!field_only(o, o->map, "a PeerAuthentication", top)) {
        return false;
    }
    if (spec == NULL) {
        return true;
    }
    if (!field_is_map(o, spec, "spec") || !field_only(o, spec, "a PeerAuthentication", keys) ||
        !peer_read_mode(o, field_get(spec, "mtls"), &mode)) {
        return false;
    }
    const struct node *selector = field_get(spec, "selector");
    const struct node *ports = field_get(spec, "portLevelMtls");
    if (selector != NULL && !selector_is_sound(o, selector, false)) {
        return false;
    }
    bool whole = selector == NULL || selector_is_empty(selector);
    if (ports != NULL && (whole || ports->kind != NODE_MAP)) {
        convert_fail(o, ports->key, "a mapping of ports, beside a 'selector'", NULL,
                     "'portLevelMtls' that nothing takes notice of");
        return false;
    }
    for (const struct node *n = ports != NULL ? ports->child : NULL; n != NULL; n = n->next) {
        uint16_t port;
        if (!field_port(o, n->key, &port) || !peer_read_mode(o, n, &mode)) {
            return false;
        }
    }
    struct texts namespaces = {NULL, 0}, ids = {NULL, 0};
    struct scope scope;
    texts_add(&c->arena, &namespaces, o->ns);
    return whole || own_selects(c, o, selector, false, &scope) ||
           selector_ids(c, o, selector, &namespaces, true, &ids);
}

/* --- what counts ------------------------------------------------------------------------------ */
static bool speaks_of(const struct object *o, const char *ns, const struct node *labels,
                      const char *root, unsigned *ret_near)
{
    const struct node *selector = field_get(spec_of(o), "selector");
    bool same = strcmp(o->ns, ns) == 0;
    if (selector != NULL && !selector_is_empty(selector)) {
        *ret_near = 2;
        return same && selector_matches(selector, labels);
    }
    *ret_near = strcmp(o->ns, root) == 0 ? 0 : 1;
    return same || *ret_near == 0;
}

bool peer_find_levels(struct policy_convert *c, const char *ns, const struct node *labels,
                      const char *who, const struct object *levels[3])
{
    for (size_t i = 0; i < c->peers.n; i++) {
        const struct object *o = &c->peers.items[i];
        unsigned near;
        if (!speaks_of(o, ns, labels, c->options.root_namespace, &near)) {
            continue;
        }
        if (levels[near] != NULL) {
            convert_fail(o, o->map, "one of a kind", NULL,
                         "%.60s speaks of %.80s too, and the older one counts", levels[near]->name,
                         who);
            return false;
        }
        levels[near] = o;
    }
    return true;
}

enum peer_mode peer_mode_of(const struct object *const levels[3])
{
    enum peer_mode mode = MODE_UNSET;
    for (unsigned near = 3; near-- > 0 && mode == MODE_UNSET;) {
        if (levels[near] != NULL) {
            (void)peer_read_mode(levels[near], field_get(spec_of(levels[near]), "mtls"), &mode);
        }
    }
    return mode == MODE_UNSET ? MODE_PERMISSIVE : mode;
}

enum peer_mode peer_mode_of_port(const struct object *nearest, uint16_t port, enum peer_mode all)
{
    const struct node *ports =
        nearest != NULL ? field_get(spec_of(nearest), "portLevelMtls") : NULL;
    for (const struct node *n = ports != NULL ? ports->child : NULL; n != NULL; n = n->next) {
        uint64_t number = 0;
        enum peer_mode mode = MODE_UNSET;
        if (str_to_u64(n->key->text, 65535, &number) && number == port &&
            peer_read_mode(nearest, n, &mode) && mode != MODE_UNSET) {
            return mode;
        }
    }
    return all;
}

static void add_port(struct policy_convert *c, struct texts *lines, uint16_t port,
                     enum peer_mode mode)
{
    if (mode == MODE_PERMISSIVE) {
        texts_add_new(&c->arena, lines,
                      arena_printf(&c->arena, "    - {port: %u, mode: permissive}", port));
    }
}

/* The lines of one workload's Proxy file. */
static void tell_workload(struct policy_convert *c, const struct workload *w)
{
    const struct object *levels[3] = {NULL, NULL, NULL};
    struct texts lines = {NULL, 0};
    const char *who = arena_printf(&c->arena, "workload %s", w->object->name);
    if (!peer_find_levels(c, w->ns, w->labels, who, levels)) {
        return;
    }
    enum peer_mode all = peer_mode_of(levels);
    for (const struct pod_port *p = w->ports; p != NULL; p = p->next) {
        add_port(c, &lines, p->port, peer_mode_of_port(levels[2], p->port, all));
    }
    const struct node *said =
        levels[2] != NULL ? field_get(spec_of(levels[2]), "portLevelMtls") : NULL;
    for (const struct node *n = said != NULL ? said->child : NULL; n != NULL; n = n->next) {
        uint16_t port;
        if (field_port(levels[2], n->key, &port)) {
            add_port(c, &lines, port, peer_mode_of_port(levels[2], port, all));
        }
    }
    const char *whose =
        arena_printf(&c->arena, "%s %s/%s (%s)", w->object->kind, w->ns, w->object->name, w->id);
    if (lines.n == 0 && all == MODE_PERMISSIVE && w->ports == NULL) {
        convert_doubt(w->object, w->object->map, "add its 'containerPort's",
                      "it is PERMISSIVE, and its ports are not known");
    }
    if (lines.n == 0) {
        texts_add(
            &c->arena, &c->head,
            arena_printf(&c->arena, "%s: no port is permissive, which is what ports are.", whose));
        return;
    }
    texts_add(&c->arena, &c->head,
              arena_printf(&c->arena, "%s: in its Proxy file, of the inbound listener:", whose));
    texts_add(&c->arena, &c->head, "  ports:");
    for (size_t i = 0; i < lines.n; i++) {
        texts_add(&c->arena, &c->head, lines.items[i]);
    }
}

void peer_auth_convert(struct policy_convert *c)
{
    bool sound = true;
    bool all_strict = true;
    for (size_t i = 0; i < c->peers.n; i++) {
        const struct object *o = &c->peers.items[i];
        enum peer_mode mode = MODE_UNSET;
        sound = peer_is_sound(c, o) && sound;
        if (sound) {
            (void)peer_read_mode(o, field_get(spec_of(o), "mtls"), &mode);
            all_strict = all_strict && mode == MODE_STRICT;
        }
    }
    if (!sound || c->peers.n == 0) {
        return;
    }
    if (c->n_workloads == 0 && !all_strict) {
        convert_fail(&c->peers.items[0], c->peers.items[0].map, NULL,
                     "give the manifests of the workloads as well (Deployments, Pods, ...)",
                     "which ports are PERMISSIVE is said by workload, and none is given");
        return;
    }
    for (size_t i = 0; i < c->n_workloads; i++) {
        tell_workload(c, &c->workloads[i]);
    }
    if (c->n_workloads == 0) {
        texts_add(&c->arena, &c->head,
                  "PeerAuthentication STRICT: what every port is without a word.");
    }
}
