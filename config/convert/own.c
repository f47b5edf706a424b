/* own: a proxy reads for one workload, and knows its labels, so that no manifest has to say whom a
 * selector takes. What does not select it becomes no rule; what does becomes one for everybody of
 * the namespace, and nobody else is asked by it. */
#include "convert_priv.h"

#include <string.h>

/* KEY=VALUE as a mapping, like that of a manifest. */
void own_read(struct policy_convert *c)
{
    const struct conf_strings *labels = &c->options.own_labels;
    if (!c->options.own || !c->options.own_labels_known) {
        return;
    }
    struct node *map = arena_take(&c->arena, sizeof(*map));
    *map = (struct node){.kind = NODE_MAP};
    for (size_t i = 0; i < labels->n; i++) {
        const char *value = strchr(labels->items[i], '=');
        POSTERN_ASSERT(value != NULL);
        struct node *key = arena_take(&c->arena, sizeof(*key));
        struct node *node = arena_take(&c->arena, sizeof(*node));
        struct str name = {labels->items[i], (size_t)(value - labels->items[i])};
        *key = (struct node){.kind = NODE_SCALAR, .quoted = true};
        key->text = (struct str){arena_text(&c->arena, name), name.n};
        *node = (struct node){.kind = NODE_SCALAR, .quoted = true, .key = key, .next = map->child};
        node->text = str_of(value + 1);
        map->child = node;
        map->n++;
    }
    c->own_labels = map;
}

bool own_selects(struct policy_convert *c, const struct object *o, const struct node *selector,
                 bool root, struct scope *ret)
{
    if (c->own_labels == NULL) {
        return false;
    }
    *ret = (struct scope){.all = root, .ns = root ? NULL : o->ns};
    if (!selector_matches(selector, c->own_labels)) {
        *ret = (struct scope){.none = true};
    }
    return true;
}

const char *own_advice(const struct policy_convert *c, bool target)
{
    if (c->options.own && target) {
        return "say the own workload's labels, 'policy_context.labels'";
    }
    if (c->options.strict) {
        return "put the manifests of the workloads into the file as well (Deployments, Pods, ...): "
               "they say which labels and service account each has";
    }
    return "give the manifests of the workloads as well (Deployments, Pods, ...): they say which "
           "labels and service account each has";
}
