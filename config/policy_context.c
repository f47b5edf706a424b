/* policy_context: what a policy of Istio's or Kubernetes' leaves to whoever reads it. A Proxy or
 * Gateway file speaks of one workload, an Agent file of all of its node's. */
#include <postern/conf.h>

#include <string.h>

#include "config_priv.h"

static bool check_namespace(struct context *c, const struct field *f, const struct node *n)
{
    size_t len = n->text.n;
    bool ok = len > 0 && n->text.p[0] != '-' && n->text.p[len - 1] != '-' &&
              strspn(n->text.p, "abcdefghijklmnopqrstuvwxyz0123456789-") == len;
    if (!ok) {
        value_fail(c, f, n, NULL, "which no namespace is called");
    }
    return ok;
}

static bool check_label(struct context *c, const struct field *f, const struct node *n)
{
    static const char signs[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/";
    size_t key = strspn(n->text.p, signs);
    bool ok = key > 0 && n->text.p[key] == '=';
    ok = ok && key + 1 + strspn(n->text.p + key + 1, signs) == n->text.n;
    if (!ok) {
        value_fail(c, f, n, NULL, "which is no label");
    }
    return ok;
}

#define CONTEXT_FIELDS(base, whose_domain, whose_namespace)                                        \
    {.name = "trust_domain",                                                                       \
     .type = TYPE_TRUST_DOMAIN,                                                                    \
     AT(base, policy_context.trust_domain),                                                        \
     .def_doc = (whose_domain),                                                                    \
     .doc = "What `cluster.local` is, and of which domain the workloads are that labels select."}, \
        {.name = "namespace",                                                                      \
         .type = TYPE_TEXT,                                                                        \
         .max = 63,                                                                                \
         .check = check_namespace,                                                                 \
         .expected = "small letters, digits and -",                                                \
         AT(base, policy_context.namespace),                                                       \
         .def_doc = (whose_namespace),                                                             \
         .doc =                                                                                    \
             "Of objects without `metadata.namespace`; of a proxy or gateway also the own one."},  \
        {.name = "root_namespace",                                                                 \
         .type = TYPE_TEXT,                                                                        \
         .max = 63,                                                                                \
         .check = check_namespace,                                                                 \
         .expected = "small letters, digits and -",                                                \
         AT(base, policy_context.root_namespace),                                                  \
         .def = "istio-system",                                                                    \
         .doc = "Istio's root namespace: its policies are about every workload."},                 \
        {.name = "implied_allow",                                                                  \
         .type = TYPE_BOOL,                                                                        \
         AT(base, policy_context.implied_allow),                                                   \
         .def = "true",                                                                            \
         .doc = "Whether what no policy restricts is allowed, as there, by a rule "                \
                "`implied-allow`, with a warning."},                                               \
        {.name = "ignore_egress",                                                                  \
         .type = TYPE_BOOL,                                                                        \
         AT(base, policy_context.ignore_egress),                                                   \
         .def = "false",                                                                           \
         .doc = "Whether `egress` of a NetworkPolicy is passed over; else it is an error."}

static const struct field fields_own[] = {
    CONTEXT_FIELDS(struct conf_proxy, "that of `identity.spiffe_id`",
                   "that of `identity.spiffe_id`"),
    {.name = "labels",
     .type = TYPE_TEXT,
     .max = 320,
     .check = check_label,
     .expected = "KEY=VALUE of letters, digits and . _ - /",
     .may_be_empty = true,
     LIST_AT(struct conf_proxy, policy_context.labels.items, policy_context.labels.n),
     .def_doc = "not known: a selector is an error",
     .doc = "Of the own workload, KEY=VALUE, 128 at most: whom `selector` and `podSelector` take. "
            "`[]`: it has none."},
};

static void check_own(struct context *c, const struct node *map, void *value);
const struct table table_policy_context = {
    .name = "policy_context",
    .doc = "What a `policy` of Istio's or Kubernetes' does not say itself. Of no meaning with a "
           "file of kind Policy.",
    FIELDS(fields_own),
    .check = check_own,
};

static void check_own(struct context *c, const struct node *map, void *value)
{
    enum { LABELS_MAX = 128 };
    struct conf_proxy *p = value;
    const struct node *labels = node_get(map, "labels");
    p->policy_context.labels_said = labels != NULL;
    if (p->policy_context.labels.n > LABELS_MAX) {
        report(c, labels, NULL, NULL, "more than %d labels", LABELS_MAX);
    }
}

static const struct field fields_agent[] = {
    CONTEXT_FIELDS(struct conf_agent, "the agent's", "none: an error where it is missing"),
    {.name = "tcp_ports",
     .type = TYPE_PORT,
     LIST_AT(struct conf_agent, policy_context.tcp_ports, policy_context.n_tcp_ports),
     .none_word = "none",
     .none_offset = offsetof(struct conf_agent, policy_context.tcp_ports_none),
     .def_doc = "not known: a warning where it matters",
     .empty_advice = "say none",
     .doc = "All ports of workloads that carry something else than HTTP, 1024 at most: there "
            "Istio takes a `DENY` without what it says of requests."},
};

static void check_agent(struct context *c, const struct node *map, void *value);
const struct table table_agent_policy_context = {
    .name = "policy_context",
    .doc = "What a policy of Istio's or Kubernetes', in the place of `state.policy` or pushed, "
           "does not say itself.",
    FIELDS(fields_agent),
    .check = check_agent,
};

static void check_agent(struct context *c, const struct node *map, void *value)
{
    enum { PORTS_MAX = 1024 };
    struct conf_agent *a = value;
    const struct node *ports = node_get(map, "tcp_ports");
    a->policy_context.tcp_ports_said = ports != NULL;
    if (a->policy_context.n_tcp_ports > PORTS_MAX) {
        report(c, ports, NULL, NULL, "more than %d ports", PORTS_MAX);
    }
}
