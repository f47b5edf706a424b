/* implied: both systems allow what no policy restricts; a Policy denies what no rule allows. So
 * what is left of the workloads gets a rule of its own, and a doubt: nobody sees from here which
 * workloads there are beside those that were given. */
#include "convert_priv.h"

#include <string.h>

/* The workloads of a namespace of which nothing is said. */
static void add_rest(struct policy_convert *c, const char *ns, struct texts *targets)
{
    const struct coverage *said = &c->coverage;
    struct texts rest = {NULL, 0};
    bool some = false;
    for (size_t i = 0; i < said->ids.n; i++) {
        const char *prefix = workload_pattern(c, ns);
        some = some || strncmp(said->ids.items[i], prefix, strlen(prefix) - 1) == 0;
    }
    if (!some) {
        texts_add(&c->arena, targets, workload_pattern(c, ns));
        return;
    }
    for (size_t i = 0; i < c->n_workloads; i++) {
        if (strcmp(c->workloads[i].ns, ns) == 0 && !texts_have(&said->ids, c->workloads[i].id)) {
            texts_add_new(&c->arena, &rest, c->workloads[i].id);
        }
    }
    for (size_t i = 0; i < rest.n; i++) {
        texts_add(&c->arena, targets, rest.items[i]);
    }
}

/* One workload reads, and knows its namespace: whether anything restricts it is known. */
static bool tell_own(struct policy_convert *c, const struct object *first, const char *who,
                     struct rule *rule)
{
    if (texts_have(&c->coverage.namespaces, c->options.own_namespace)) {
        return false;
    }
    if (c->options.no_implied_allow) {
        convert_doubt(first, first->map, NULL,
                      "no policy here that allows anything is about the own workload: %s would "
                      "allow everything, and here it is denied everything",
                      who);
        return false;
    }
    convert_doubt(first, first->map, "say 'policy_context.implied_allow: false' to deny instead",
                  "no policy here that allows anything is about the own workload, so %s allows "
                  "everything, and so does the rule 'implied-allow'",
                  who);
    texts_add(&c->arena, &rule->targets, workload_pattern(c, c->options.own_namespace));
    return true;
}

static bool tell_others(struct policy_convert *c, const struct object *first, const char *who,
                        struct rule *rule)
{
    const struct coverage *said = &c->coverage;
    if (c->options.no_implied_allow) {
        convert_doubt(first, first->map, NULL,
                      "%s allows everything to workloads that no policy restricts; here they are "
                      "denied everything",
                      who);
        return false;
    }
    for (size_t i = 0; said->any && i < c->namespaces.n; i++) {
        const char *ns = c->namespaces.items[i];
        if (!texts_have(&said->namespaces, ns) && strcmp(ns, c->options.root_namespace) != 0) {
            add_rest(c, ns, &rule->targets);
        }
    }
    if (said->any) {
        convert_doubt(first, first->map,
                      "give their manifests too, or write a rule for them if they may be open",
                      "%s allows everything to workloads that no policy restricts; of those that "
                      "are not given here nothing is said, which denies",
                      who);
    }
    if (said->any && rule->targets.n == 0) {
        return false;
    }
    convert_doubt(first, first->map,
                  c->options.strict ? "say 'policy_context.implied_allow: false' to deny instead"
                                    : "remove the rule 'implied-allow' if that is not wanted",
                  "%s allows everything to workloads that no policy restricts, and so does the "
                  "rule 'implied-allow'",
                  who);
    return true;
}

void implied_allow(struct policy_convert *c)
{
    const struct object *first = c->istio.n > 0 ? &c->istio.items[0] : &c->network.items[0];
    const char *who = c->istio.n > 0 ? "Istio" : "Kubernetes";
    struct rule rule = {.name = "implied-allow", .action = CONF_ALLOW};
    bool own = c->options.own && c->options.own_namespace != NULL;
    if (c->coverage.all ||
        (own ? !tell_own(c, first, who, &rule) : !tell_others(c, first, who, &rule))) {
        return;
    }
    rule.comment =
        arena_printf(&c->arena, "No policy restricts these, so %s allows everything.", who);
    rule.reason = arena_printf(&c->arena, "no policy restricts it, so %s allows everything", who);
    convert_rule(c, &rule);
}
