/* network: a NetworkPolicy's ingress. Kubernetes goes by the addresses of pods, a policy by their
 * identities: what selects pods becomes the identities of these, and a caller who has none is none
 * of them. */
#include "convert_priv.h"

#include <stdio.h>
#include <string.h>

static bool add(struct policy_convert *c, const struct object *o, const struct node *at,
                struct entries *e, const struct entries *more)
{
    if (entries_or(&c->arena, e, more) == ENTRIES_OK) {
        return true;
    }
    convert_fail(o, at, NULL, "divide the policy",
                 "more than %d alternatives in a rule, or too many in all", CONVERT_ENTRIES_MAX);
    return false;
}

/* --- peers ------------------------------------------------------------------------------------ */
/* The namespaces that a selector takes: by the label that each has of itself, or by the manifests
 * of Namespaces. */
static bool select_namespaces(struct policy_convert *c, const struct object *o,
                              const struct node *selector, struct texts *ret)
{
    const struct node *labels = field_get(selector, "matchLabels");
    const struct node *name = field_get(labels, "kubernetes.io/metadata.name");
    const struct node *list = field_get(selector, "matchExpressions");
    if (name != NULL && labels->n == 1 && (list == NULL || list->n == 0)) {
        if (!field_is_segment(name->text.p)) {
            convert_fail(o, name, "small letters, digits and -", NULL,
                         "no namespace has such a name");
            return false;
        }
        texts_add(&c->arena, ret, name->text.p);
        return true;
    }
    for (size_t i = 0; i < c->others.n; i++) {
        const struct object *ns = &c->others.items[i];
        const struct node *has = field_get(field_get(ns->map, "metadata"), "labels");
        if (strcmp(ns->kind, "Namespace") == 0 && selector_matches(selector, has)) {
            texts_add_new(&c->arena, ret, ns->name);
        }
    }
    if (ret->n == 0) {
        convert_fail(o, selector, NULL,
                     "give the manifests of the Namespaces as well, with their labels",
                     "the labels select no namespace of those that were given");
    }
    return ret->n > 0;
}

static bool read_block(struct policy_convert *c, const struct object *o, const struct node *block,
                       struct entries *from)
{
    static const char *const keys[] = {"cidr", "except", NULL};
    struct entry e = {.lists = {{NULL, 0}}};
    bool sound = true;
    if (!field_is_map(o, block, "ipBlock") || !field_only(o, block, "an ipBlock", keys)) {
        return false;
    }
    const struct node *cidr = field_get(block, "cidr");
    const struct node *except = field_get(block, "except");
    if (cidr == NULL || cidr->kind != NODE_SCALAR || cidr->text.n == 0) {
        convert_fail(o, block, "'cidr'", NULL, "a block of no addresses");
        return false;
    }
    if (!field_item(o, cidr, LIST_IP_BLOCKS, cidr->text.p)) {
        return false;
    }
    texts_add(&c->arena, &e.lists[LIST_IP_BLOCKS], cidr->text.p);
    for (const struct node *n = field_first(o, except, "except", &sound); n != NULL; n = n->next) {
        if (n->kind != NODE_SCALAR || n->text.n == 0) {
            convert_fail(o, n, "a block of addresses", NULL, "an item without content");
            return false;
        }
        if (!field_item(o, n, LIST_NOT_IP_BLOCKS, n->text.p)) {
            return false;
        }
        texts_add_new(&c->arena, &e.lists[LIST_NOT_IP_BLOCKS], n->text.p);
    }
    return sound && add(c, o, block, from, &(struct entries){&e, 1});
}

static bool read_pods(struct policy_convert *c, const struct object *o, const struct node *peer,
                      struct entries *from)
{
    const struct node *pods = field_get(peer, "podSelector");
    const struct node *spaces = field_get(peer, "namespaceSelector");
    struct texts namespaces = {NULL, 0}, items = {NULL, 0};
    enum list_key key = LIST_PRINCIPALS;
    if ((pods != NULL && !selector_is_sound(o, pods, true)) ||
        (spaces != NULL && !selector_is_sound(o, spaces, true))) {
        return false;
    }
    if (spaces == NULL) {
        texts_add(&c->arena, &namespaces, o->ns);
    } else if (!selector_is_empty(spaces) && !select_namespaces(c, o, spaces, &namespaces)) {
        return false;
    }
    if (pods != NULL && !selector_is_empty(pods)) {
        if (!selector_ids(c, o, pods, &namespaces, false, &items)) {
            return false;
        }
    } else if (namespaces.n == 0) {
        key = LIST_TRUST_DOMAINS;
        texts_add(&c->arena, &items, c->options.trust_domain);
    } else {
        for (size_t i = 0; i < namespaces.n; i++) {
            texts_add(&c->arena, &items, workload_pattern(c, namespaces.items[i]));
        }
    }
    struct entries e = entries_list(&c->arena, key, &items);
    return add(c, o, peer, from, &e);
}

static bool read_peer(struct policy_convert *c, const struct object *o, const struct node *peer,
                      struct entries *from)
{
    static const char *const keys[] = {"podSelector", "namespaceSelector", "ipBlock", NULL};
    if (!field_is_map(o, peer, "from") || !field_only(o, peer, "a peer", keys)) {
        return false;
    }
    const struct node *block = field_get(peer, "ipBlock");
    bool pods =
        field_get(peer, "podSelector") != NULL || field_get(peer, "namespaceSelector") != NULL;
    if ((block != NULL) == pods) {
        convert_fail(o, peer, "'ipBlock', or 'podSelector' and 'namespaceSelector'", NULL,
                     "not a peer");
        return false;
    }
    return block != NULL ? read_block(c, o, block, from) : read_pods(c, o, peer, from);
}

/* --- ports ------------------------------------------------------------------------------------ */
/* A port's name is that of each selected workload, and the same number in all of them. */
static bool named_port(struct policy_convert *c, const struct object *o, const struct node *n,
                       const struct scope *scope, uint16_t *ret)
{
    uint16_t found = 0;
    for (size_t i = 0; i < c->n_workloads; i++) {
        const struct workload *w = &c->workloads[i];
        bool here =
            scope->ns != NULL ? strcmp(w->ns, scope->ns) == 0 : texts_have(&scope->ids, w->id);
        uint16_t own = 0;
        for (const struct pod_port *p = w->ports; here && p != NULL; p = p->next) {
            own = p->name != NULL && strcmp(p->name, n->text.p) == 0 ? p->port : own;
        }
        if (here && own != 0 && found != 0 && own != found) {
            convert_fail(o, n, NULL, "say its number",
                         "the port is %u in one of the workloads, and %u in another", found, own);
            return false;
        }
        found = own != 0 ? own : found;
    }
    if (found == 0) {
        convert_fail(o, n, NULL, "say its number, or give the manifests of the workloads as well",
                     "no workload that was given has a port of this name");
    }
    *ret = found;
    return found != 0;
}

static bool read_port(struct policy_convert *c, const struct object *o, const struct node *map,
                      const struct scope *scope, struct texts *ports)
{
    static const char *const keys[] = {"protocol", "port", "endPort", NULL};
    if (!field_is_map(o, map, "ports") || !field_only(o, map, "a port", keys)) {
        return false;
    }
    const struct node *protocol = field_get(map, "protocol");
    const struct node *port = field_get(map, "port");
    const struct node *end = field_get(map, "endPort");
    uint16_t first = 0;
    uint16_t last = 0;
    if (protocol != NULL && !str_eq(protocol->text, STR_LIT("TCP"))) {
        convert_fail(o, protocol, "TCP", "leave the port out: what is no TCP is not proxied",
                     "a protocol without a counterpart");
        return false;
    }
    if (port == NULL || port->kind != NODE_SCALAR) {
        convert_fail(o, map, "'port'", "leave 'ports' out for every port", "no port");
        return false;
    }
    bool is_name = !str_to_u64(port->text, UINT64_MAX, &(uint64_t){0});
    if (is_name ? !named_port(c, o, port, scope, &first) : !field_port(o, port, &first)) {
        return false;
    }
    if (end != NULL && (is_name || !field_port(o, end, &last))) {
        if (is_name) {
            convert_fail(o, end, NULL, NULL, "the end of a range that begins with a name");
        }
        return false;
    }
    last = end == NULL ? first : last;
    if (last < first || last - first >= CONVERT_PORTS_MAX) {
        convert_fail(o, end, NULL, "leave 'ports' out if every port is meant",
                     "a range of no port, or of more than %d", CONVERT_PORTS_MAX);
        return false;
    }
    for (uint32_t p = first; p <= last; p++) {
        texts_add_new(&c->arena, ports, arena_printf(&c->arena, "%u", p));
    }
    return true;
}

/* --- the policy ------------------------------------------------------------------------------- */
static void read_ingress(struct policy_convert *c, const struct object *o, const struct node *n,
                         size_t number, const struct scope *scope)
{
    static const char *const keys[] = {"from", "ports", NULL};
    struct rule rule = {.action = CONF_ALLOW};
    struct texts ports = {NULL, 0};
    bool sound = true;
    if (!field_is_map(o, n, "ingress") || !field_only(o, n, "an ingress rule", keys)) {
        return;
    }
    const struct node *from = field_get(n, "from");
    const struct node *list = field_get(n, "ports");
    for (const struct node *p = field_first(o, from, "from", &sound); p != NULL; p = p->next) {
        if (!read_peer(c, o, p, &rule.from)) {
            return;
        }
    }
    for (const struct node *p = field_first(o, list, "ports", &sound); p != NULL; p = p->next) {
        if (!read_port(c, o, p, scope, &ports)) {
            return;
        }
    }
    if (!sound) {
        return;
    }
    if (ports.n > 0) {
        rule.to = entries_list(&c->arena, LIST_PORTS, &ports);
    }
    scope_targets(c, scope, &rule.targets);
    rule.name = convert_rule_name(c, o, number);
    rule.comment = convert_comment(c, o, n);
    rule.reason = convert_reason(c, o, number, n);
    rule.line = n->line;
    convert_rule(c, &rule);
}

/* Whether the policy is about what comes in, and nothing else. False: it was reported. */
static bool read_types(struct policy_convert *c, const struct object *o, const struct node *spec,
                       bool *ret_ingress)
{
    const struct node *types = field_get(spec, "policyTypes");
    const struct node *egress = field_get(spec, "egress");
    const struct node *out = egress;
    *ret_ingress = types == NULL;
    bool sound = true;
    for (const struct node *n = field_first(o, types, "policyTypes", &sound); n != NULL;
         n = n->next) {
        if (n->kind == NODE_SCALAR && str_eq(n->text, STR_LIT("Ingress"))) {
            *ret_ingress = true;
        } else if (n->kind == NODE_SCALAR && str_eq(n->text, STR_LIT("Egress"))) {
            out = out != NULL ? out : n;
        } else {
            convert_fail(o, n, "Ingress or Egress", NULL, "no type of a NetworkPolicy");
            return false;
        }
    }
    if (out != NULL && !c->options.ignore_egress) {
        convert_fail(o, egress != NULL ? egress->key : out, NULL,
                     c->options.strict
                         ? "'unlisted' and 'allow_unlisted' of a Mesh file say where workloads may "
                           "go; 'policy_context.ignore_egress' takes the rest"
                         : "'unlisted' and 'allow_unlisted' of a Mesh file say where workloads may "
                           "go; --ignore-egress converts the rest",
                     "'egress' has no counterpart: a policy is asked where a call arrives");
        return false;
    }
    return sound;
}

void network_convert(struct policy_convert *c, const struct object *o)
{
    static const char *const keys[] = {"podSelector", "policyTypes", "ingress", "egress", NULL};
    static const char *const top[] = {"apiVersion", "kind", "metadata", "spec", "status", NULL};
    const struct node *spec = field_get(o->map, "spec");
    bool ingress = false;
    struct scope scope = {.ns = o->ns};
    if (spec == NULL) {
        convert_fail(o, o->map, "'spec'", NULL, "a NetworkPolicy without content");
        return;
    }
    if (!field_only(o, o->map, "a NetworkPolicy", top) || !field_is_map(o, spec, "spec") ||
        !field_only(o, spec, "a NetworkPolicy", keys) || !read_types(c, o, spec, &ingress) ||
        !ingress) {
        return;
    }
    const struct node *selector = field_get(spec, "podSelector");
    if (selector != NULL && !selector_is_sound(o, selector, true)) {
        return;
    }
    if (selector != NULL && !selector_is_empty(selector) &&
        !own_selects(c, o, selector, false, &scope)) {
        struct texts namespaces = {NULL, 0};
        texts_add(&c->arena, &namespaces, o->ns);
        scope = (struct scope){.all = false};
        if (!selector_ids(c, o, selector, &namespaces, true, &scope.ids)) {
            return;
        }
    }
    if (!scope.none) {
        coverage_add(c, &scope);
    }
    const struct node *list = field_get(spec, "ingress");
    if (list == NULL || list->n == 0) {
        texts_add(&c->arena, &c->head,
                  arena_printf(&c->arena, "%s: it has no rule, so by it nothing is allowed.",
                               convert_comment(c, o, o->map)));
    }
    size_t number = 0;
    size_t before = c->n_rules;
    bool sound = true;
    for (const struct node *n = field_first(o, list, "ingress", &sound); n != NULL; n = n->next) {
        read_ingress(c, o, n, ++number, &scope);
    }
    c->n_rules = scope.none ? before : c->n_rules;
}
