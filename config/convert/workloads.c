/* workloads: who has which labels. Istio and Kubernetes select pods by labels, a policy speaks of
 * identities, and between the two stands the service account. The manifests that are given beside
 * the policies tell. A selector that takes some of an identity's pods and not the others cannot be
 * said by identity, so that is an error. */
#include "convert_priv.h"

#include <postern/mem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- manifests -------------------------------------------------------------------------------- */
/* Where the pod stands in an object of this kind; NULL: it makes no pods. */
static const struct node *find_pod(const struct object *o)
{
    static const char *const with_template[] = {"Deployment", "StatefulSet",           "DaemonSet",
                                                "ReplicaSet", "ReplicationController", "Job"};
    if (strcmp(o->kind, "Pod") == 0) {
        return o->map;
    }
    const struct node *spec = field_get(o->map, "spec");
    if (strcmp(o->kind, "CronJob") == 0) {
        return field_get(field_get(field_get(spec, "jobTemplate"), "spec"), "template");
    }
    for (size_t i = 0; i < sizeof(with_template) / sizeof(with_template[0]); i++) {
        if (strcmp(o->kind, with_template[i]) == 0) {
            return field_get(spec, "template");
        }
    }
    return NULL;
}

static void read_ports(struct policy_convert *c, struct workload *w, const struct node *spec)
{
    const struct node *containers = field_get(spec, "containers");
    for (const struct node *k = containers != NULL ? containers->child : NULL; k != NULL;
         k = k->next) {
        const struct node *ports = field_get(k, "ports");
        for (const struct node *p = ports != NULL ? ports->child : NULL; p != NULL; p = p->next) {
            const char *number = field_text(p, "containerPort");
            const char *protocol = field_text(p, "protocol");
            uint64_t port = 0;
            bool tcp = protocol == NULL || strcmp(protocol, "TCP") == 0;
            if (number == NULL || !tcp || !str_to_u64(str_of(number), 65535, &port) || port == 0) {
                continue;
            }
            struct pod_port *item = arena_take(&c->arena, sizeof(*item));
            *item = (struct pod_port){field_text(p, "name"), (uint16_t)port, w->ports};
            w->ports = item;
        }
    }
}

static bool labels_are_texts(const struct object *o, const struct node *labels)
{
    if (labels == NULL) {
        return true;
    }
    if (!field_is_map(o, labels, "labels")) {
        return false;
    }
    for (const struct node *n = labels->child; n != NULL; n = n->next) {
        if (n->kind != NODE_SCALAR) {
            convert_fail(o, n, "a text", NULL, "a label that is none");
            return false;
        }
    }
    return true;
}

void workloads_read(struct policy_convert *c)
{
    for (size_t i = 0; i < c->others.n; i++) {
        const struct object *o = &c->others.items[i];
        const struct node *pod = find_pod(o);
        const char *whose = strcmp(o->kind, "Namespace") == 0 ? o->name : o->ns;
        const struct node *labels = field_get(field_get(o->map, "metadata"), "labels");
        if (strcmp(o->kind, "Namespace") == 0 && labels_are_texts(o, labels)) {
            texts_add_new(&c->arena, &c->namespaces, whose);
        }
        if (pod == NULL) {
            continue;
        }
        const struct node *spec = field_get(pod, "spec");
        const char *account = field_text(spec, "serviceAccountName");
        account = account != NULL ? account : field_text(spec, "serviceAccount");
        struct workload w = {.object = o,
                             .ns = whose,
                             .account = account != NULL ? account : "default",
                             .labels = field_get(field_get(pod, "metadata"), "labels")};
        if (!labels_are_texts(o, w.labels)) {
            continue;
        }
        if (!field_is_segment(w.account)) {
            convert_fail(o, spec, "small letters, digits, - and .", NULL,
                         "no service account has such a name");
            continue;
        }
        w.id = arena_printf(&c->arena, "spiffe://%s/ns/%s/sa/%s", c->options.trust_domain, w.ns,
                            w.account);
        read_ports(c, &w, spec);
        texts_add_new(&c->arena, &c->namespaces, w.ns);
        c->workloads =
            mem_must_realloc(c->workloads, (c->n_workloads + 1) * sizeof(c->workloads[0]));
        c->workloads[c->n_workloads++] = w;
    }
}

/* --- selectors -------------------------------------------------------------------------------- */
static bool expression_is_sound(const struct object *o, const struct node *e)
{
    static const char *const keys[] = {"key", "operator", "values", NULL};
    if (!field_is_map(o, e, "matchExpressions") || !field_only(o, e, "matchExpressions", keys)) {
        return false;
    }
    const char *op = field_text(e, "operator");
    const struct node *values = field_get(e, "values");
    bool in = op != NULL && (strcmp(op, "In") == 0 || strcmp(op, "NotIn") == 0);
    bool is = op != NULL && (strcmp(op, "Exists") == 0 || strcmp(op, "DoesNotExist") == 0);
    if (field_text(e, "key") == NULL || (!in && !is)) {
        convert_fail(o, e, "'key', and 'operator' In, NotIn, Exists or DoesNotExist", NULL,
                     "no expression about labels");
        return false;
    }
    if (in != (values != NULL && values->kind == NODE_LIST && values->n > 0)) {
        convert_fail(o, e, in ? "a list of 'values'" : "no 'values'", NULL,
                     "no expression about labels");
        return false;
    }
    return true;
}

bool selector_is_sound(const struct object *o, const struct node *selector, bool expressions)
{
    static const char *const istio[] = {"matchLabels", NULL};
    static const char *const kubernetes[] = {"matchLabels", "matchExpressions", NULL};
    if (!field_is_map(o, selector, "selector") ||
        !field_only(o, selector, "a selector", expressions ? kubernetes : istio)) {
        return false;
    }
    const struct node *list = field_get(selector, "matchExpressions");
    bool sound = labels_are_texts(o, field_get(selector, "matchLabels"));
    for (const struct node *e = field_first(o, list, "matchExpressions", &sound);
         e != NULL && sound; e = e->next) {
        sound = expression_is_sound(o, e);
    }
    return sound;
}

bool selector_is_empty(const struct node *selector)
{
    const struct node *labels = field_get(selector, "matchLabels");
    const struct node *list = field_get(selector, "matchExpressions");
    return (labels == NULL || labels->n == 0) && (list == NULL || list->n == 0);
}

static bool expression_holds(const struct node *e, const struct node *labels)
{
    const struct node *label = node_get(labels, field_text(e, "key"));
    const char *op = field_text(e, "operator");
    if (strcmp(op, "Exists") == 0) {
        return label != NULL;
    }
    if (strcmp(op, "DoesNotExist") == 0) {
        return label == NULL;
    }
    bool among = false;
    for (const struct node *v = field_get(e, "values")->child; v != NULL; v = v->next) {
        among = among || (label != NULL && str_eq(v->text, label->text));
    }
    return among == (strcmp(op, "In") == 0);
}

bool selector_matches(const struct node *selector, const struct node *labels)
{
    const struct node *want = field_get(selector, "matchLabels");
    for (const struct node *n = want != NULL ? want->child : NULL; n != NULL; n = n->next) {
        const struct node *label = node_get(labels, n->key->text.p);
        if (label == NULL || !str_eq(label->text, n->text)) {
            return false;
        }
    }
    const struct node *list = field_get(selector, "matchExpressions");
    for (const struct node *e = list != NULL ? list->child : NULL; e != NULL; e = e->next) {
        if (!expression_holds(e, labels)) {
            return false;
        }
    }
    return true;
}

bool selector_ids(struct policy_convert *c, const struct object *o, const struct node *selector,
                  const struct texts *namespaces, bool target, struct texts *ret)
{
    struct texts ids = {NULL, 0};
    for (size_t i = 0; i < c->n_workloads; i++) {
        const struct workload *w = &c->workloads[i];
        if ((namespaces->n == 0 || texts_have(namespaces, w->ns)) &&
            selector_matches(selector, w->labels)) {
            texts_add_new(&c->arena, &ids, w->id);
        }
    }
    if (ids.n == 0) {
        convert_fail(o, selector, NULL, own_advice(c, target),
                     "the labels select no workload of those that were given");
        return false;
    }
    for (size_t i = 0; i < c->n_workloads; i++) {
        const struct workload *w = &c->workloads[i];
        if (texts_have(&ids, w->id) && !selector_matches(selector, w->labels)) {
            convert_fail(o, selector, NULL, "give the workloads service accounts of their own",
                         "%s %s/%s has the identity %.120s, and these labels do not select it",
                         w->object->kind, w->ns, w->object->name, w->id);
            return false;
        }
    }
    *ret = ids;
    return true;
}

/* --- scopes ----------------------------------------------------------------------------------- */
const char *workload_pattern(struct policy_convert *c, const char *ns)
{
    return arena_printf(&c->arena, "spiffe://%s/ns/%s/sa/*", c->options.trust_domain, ns);
}

void scope_targets(struct policy_convert *c, const struct scope *s, struct texts *ret)
{
    *ret = (struct texts){NULL, 0};
    if (s->ns != NULL) {
        texts_add(&c->arena, ret, workload_pattern(c, s->ns));
    } else if (!s->all) {
        *ret = s->ids;
    }
}

void coverage_add(struct policy_convert *c, const struct scope *s)
{
    struct coverage *to = &c->coverage;
    to->any = true;
    to->all = to->all || s->all;
    if (s->ns != NULL) {
        texts_add_new(&c->arena, &to->namespaces, s->ns);
    }
    for (size_t i = 0; i < s->ids.n; i++) {
        texts_add_new(&c->arena, &to->ids, s->ids.items[i]);
    }
}
