/* convert: files to objects by kind, and what happens when all of them are there. Labels can select
 * what a later file tells of, so nothing is converted before the last one. */
#include "convert_priv.h"

#include <postern/mem.h>
#include <stdlib.h>
#include <string.h>

struct policy_convert *policy_convert_new(const struct policy_convert_options *o)
{
    struct policy_convert *c = mem_must_new(struct policy_convert);
    c->options = *o;
    c->options.trust_domain = o->trust_domain != NULL ? o->trust_domain : "cluster.local";
    c->options.root_namespace = o->root_namespace != NULL ? o->root_namespace : "istio-system";
    c->options.default_namespace = o->default_namespace != NULL ? o->default_namespace : "default";
    c->own_errors = conf_diag_new();
    c->own_doubts = conf_diag_new();
    c->errors = o->errors != NULL ? o->errors : c->own_errors;
    c->doubts = o->doubts != NULL ? o->doubts : c->own_doubts;
    return c;
}

struct policy_convert *policy_convert_free(struct policy_convert *c)
{
    if (c == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < c->n_docs; i++) {
        conf_documents_free(c->docs[i]);
    }
    free(c->docs);
    free(c->istio.items);
    free(c->peers.items);
    free(c->network.items);
    free(c->others.items);
    free(c->workloads);
    free(c->rules);
    arena_deinit(&c->arena);
    conf_diag_free(c->own_errors);
    conf_diag_free(c->own_doubts);
    free(c);
    return NULL;
}

const struct conf_diag *policy_convert_errors(const struct policy_convert *c)
{
    return c->errors;
}

const struct conf_diag *policy_convert_doubts(const struct policy_convert *c)
{
    return c->doubts;
}

/* --- objects ---------------------------------------------------------------------------------- */
static void objects_add(struct objects *list, const struct object *o)
{
    if (list->n == CONVERT_OBJECTS_MAX) {
        convert_fail(o, o->map, NULL, "convert the files one after the other",
                     "more than %d objects of a kind", CONVERT_OBJECTS_MAX);
        return;
    }
    if (list->n == list->cap) {
        list->cap = list->cap == 0 ? 16 : list->cap * 2;
        list->items = mem_must_realloc(list->items, list->cap * sizeof(list->items[0]));
    }
    list->items[list->n++] = *o;
}

static bool group_is(const char *version, const char *group)
{
    size_t n = strlen(group);
    return strncmp(version, group, n) == 0 && version[n] == '/';
}

/* What restricts traffic must not be passed over; what is no policy tells at most who is who. */
static bool is_other_policy(const char *version, const char *kind)
{
    static const char *const groups[] = {
        "security.istio.io",       "networking.k8s.io", "policy.networking.k8s.io", "cilium.io",
        "crd.projectcalico.org",   "projectcalico.org", "policy.linkerd.io",        "rbac.istio.io",
        "authentication.istio.io", "config.istio.io"};
    bool of_group = false;
    for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++) {
        of_group = of_group || group_is(version, groups[i]);
    }
    bool harmless = strcmp(kind, "Ingress") == 0 || strcmp(kind, "IngressClass") == 0;
    return of_group && !harmless;
}

static void take_policy(struct policy_convert *c, struct object *o, const char *version,
                        struct objects *list, const char *const *versions)
{
    for (size_t i = 0; versions[i] != NULL; i++) {
        if (strcmp(version, versions[i]) == 0) {
            objects_add(list, o);
            texts_add_new(&c->arena, &c->namespaces, o->ns);
            return;
        }
    }
    convert_fail(o, field_get(o->map, "apiVersion"), versions[0], NULL,
                 "a version of %s that is not known", o->kind);
}

/* Where it lives and how it is called. False: it was reported. */
static bool read_metadata(struct policy_convert *c, struct object *o)
{
    const struct node *metadata = field_get(o->map, "metadata");
    const char *name = field_text(metadata, "name");
    const char *ns = field_text(metadata, "namespace");
    o->name = name != NULL ? name : "unnamed";
    o->ns = ns != NULL ? ns : c->options.default_namespace;
    if (ns == NULL && c->options.strict && c->options.own_namespace == NULL &&
        strcmp(o->kind, "Namespace") != 0) {
        convert_fail(o, metadata != NULL ? metadata : o->map, "'metadata.namespace'",
                     "or say 'policy_context.namespace'", "whose namespace this is, nobody says");
        return false;
    }
    if (!field_is_segment(o->ns)) {
        convert_fail(o, ns != NULL ? field_get(metadata, "namespace") : o->map,
                     "small letters, digits and -", NULL, "no namespace has such a name");
        return false;
    }
    if (name != NULL && !field_is_segment(name)) {
        convert_fail(o, field_get(metadata, "name"), "small letters, digits, - and .", NULL,
                     "no object has such a name");
        return false;
    }
    return true;
}

static void take_object(struct policy_convert *c, const struct conf_documents *d,
                        const struct node *n, bool in_list)
{
    static const char *const istio[] = {"security.istio.io/v1", "security.istio.io/v1beta1", NULL};
    static const char *const network[] = {"networking.k8s.io/v1", NULL};
    struct object o = {.docs = d, .map = n};
    if (node_is_null(n)) {
        return;
    }
    const char *version = field_text(n, "apiVersion");
    o.kind = field_text(n, "kind");
    if (o.kind == NULL || version == NULL) {
        convert_fail(&o, n, "a mapping with 'apiVersion' and 'kind'", NULL,
                     "not an object of Kubernetes");
        return;
    }
    const struct node *items = field_get(n, "items");
    if (str_has_suffix(str_of(o.kind), STR_LIT("List")) && items != NULL && !in_list) {
        for (const struct node *i = items->child; i != NULL; i = i->next) {
            take_object(c, d, i, true);
        }
        return;
    }
    if (!read_metadata(c, &o)) {
        return;
    }
    if (group_is(version, "security.istio.io") && strcmp(o.kind, "AuthorizationPolicy") == 0) {
        take_policy(c, &o, version, &c->istio, istio);
    } else if (group_is(version, "security.istio.io") &&
               strcmp(o.kind, "PeerAuthentication") == 0) {
        take_policy(c, &o, version, &c->peers, istio);
    } else if (group_is(version, "networking.k8s.io") && strcmp(o.kind, "NetworkPolicy") == 0) {
        take_policy(c, &o, version, &c->network, network);
    } else if (strcmp(o.kind, "RequestAuthentication") == 0) {
        convert_fail(&o, field_get(n, "kind"), NULL,
                     "say its issuers as 'jwt' in the Proxy file, and leave it out here",
                     "RequestAuthentication has no counterpart in a policy");
    } else if (is_other_policy(version, o.kind)) {
        convert_fail(&o, field_get(n, "kind"),
                     "AuthorizationPolicy, PeerAuthentication or NetworkPolicy",
                     "leave it out, if what it restricts may be open", "%.60s has no counterpart",
                     field_shown(c, str_of(o.kind)));
    } else {
        objects_add(&c->others, &o);
    }
}

void policy_convert_add(struct policy_convert *c, const char *name, struct str text)
{
    struct conf_documents *d = conf_documents_parse(name, text.p, text.n, c->errors, c->doubts);
    if (d == NULL) {
        return;
    }
    c->docs = mem_must_realloc(c->docs, (c->n_docs + 1) * sizeof(c->docs[0]));
    c->docs[c->n_docs++] = d;
    for (const struct node *n = conf_documents_list(d)->child; n != NULL; n = n->next) {
        take_object(c, d, n, false);
    }
}

/* --- rules ------------------------------------------------------------------------------------ */
static bool has_empty(const struct entries *e)
{
    for (size_t i = 0; i < e->n; i++) {
        if (entry_is_empty(&e->items[i])) {
            return true;
        }
    }
    return false;
}

void convert_rule(struct policy_convert *c, const struct rule *rule)
{
    if (c->n_rules == c->cap_rules) {
        c->cap_rules = c->cap_rules == 0 ? 16 : c->cap_rules * 2;
        c->rules = mem_must_realloc(c->rules, c->cap_rules * sizeof(c->rules[0]));
    }
    struct rule *r = &c->rules[c->n_rules++];
    *r = *rule;
    if (has_empty(&r->from)) {
        r->from.n = 0; /* one that asks for nothing is enough */
    }
    if (has_empty(&r->to)) {
        r->to.n = 0;
    }
}

const char *convert_rule_name(struct policy_convert *c, const struct object *o, size_t number)
{
    enum { NAME_MAX_BYTES = 120 }; /* of the 128 that a name may have */
    const char *name = arena_printf(&c->arena, "%.50s/%.60s", o->ns, o->name);
    const char *whole = name;
    if (number > 1) {
        whole = arena_printf(&c->arena, "%s:%zu", name, number);
    }
    /* Two objects whose names are cut alike, or one of each kind. */
    for (size_t again = 2;; again++) {
        bool taken = false;
        for (size_t i = 0; i < c->n_rules; i++) {
            taken = taken || strcmp(c->rules[i].name, whole) == 0;
        }
        if (!taken) {
            return whole;
        }
        whole = arena_printf(&c->arena, "%s:%zu.%zu", name, number, again);
    }
}

const char *convert_comment(struct policy_convert *c, const struct object *o, const struct node *at)
{
    return arena_printf(&c->arena, "%s %s/%s, %s:%u", o->kind, o->ns, o->name,
                        field_shown(c, str_of(conf_documents_name(o->docs))), at->line);
}

const char *convert_reason(struct policy_convert *c, const struct object *o, size_t number,
                           const struct node *at)
{
    return arena_printf(&c->arena, "%s %.80s/%.80s, rule %zu, line %u", o->kind, o->ns, o->name,
                        number, at->line);
}

/* --- all of it -------------------------------------------------------------------------------- */
static void convert_all(struct policy_convert *c)
{
    own_read(c);
    workloads_read(c);
    if (c->options.own && c->options.own_namespace != NULL) {
        texts_add_new(&c->arena, &c->namespaces, c->options.own_namespace);
    }
    if (c->istio.n > 0 && c->network.n > 0) {
        convert_fail(&c->network.items[0], c->network.items[0].map, NULL,
                     "convert them apart: a proxy asks two policies, its own and its agent's, and "
                     "both have to allow",
                     "a NetworkPolicy beside an AuthorizationPolicy, of which each has to allow");
        return;
    }
    for (size_t i = 0; i < c->istio.n; i++) {
        istio_convert(c, &c->istio.items[i]);
    }
    for (size_t i = 0; i < c->network.n; i++) {
        network_convert(c, &c->network.items[i]);
    }
    if (c->options.strict) {
        peer_own_check(c);
    } else {
        peer_auth_convert(c);
    }
    if (c->istio.n + c->network.n > 0) {
        implied_allow(c);
    }
}

size_t policy_convert_count(const struct policy_convert *c)
{
    return c->n_rules;
}

unsigned policy_convert_line(const struct policy_convert *c, size_t rule)
{
    POSTERN_ASSERT(rule < c->n_rules);
    return c->rules[rule].line;
}

/* Rules stand in the order of the file; what was made of nothing in it is the last. */
static void order_lines(struct policy_convert *c)
{
    unsigned line = 1;
    for (size_t i = 0; i < c->n_rules; i++) {
        line = c->rules[i].line > line ? c->rules[i].line : line;
        c->rules[i].line = line;
    }
}

int policy_convert_write(struct policy_convert *c, struct buf *out, struct err *err)
{
    if (conf_diag_count(c->errors) == 0 && c->istio.n + c->network.n + c->peers.n == 0) {
        err_set(err, ERR_CONFIG, "there is no policy in what was given");
        return err_expected(err, "an AuthorizationPolicy, PeerAuthentication or NetworkPolicy");
    }
    if (conf_diag_count(c->errors) == 0) {
        convert_all(c);
    }
    if (conf_diag_count(c->errors) > 0) {
        return err_set(err, ERR_UNSUPPORTED, "nothing is converted");
    }
    order_lines(c);
    return write_policy(c, out, err);
}
