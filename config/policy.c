/* policy: the tables of a Policy file and of its rules. */
#include <postern/conf.h>

#include "policy_priv.h"

static const char *const words_action[] = {"ALLOW", "DENY", "AUDIT", NULL};
static const char *const words_mode[] = {"enforce", "dry-run", NULL};

static bool check_reason(struct context *c, const struct field *f, const struct node *n)
{
    for (size_t i = 0; i < n->text.n; i++) {
        if (str_control(n->text, i) > 0) {
            value_fail(c, f, n, "write it on one line", "with a control character");
            return false;
        }
    }
    return true;
}

static const struct field fields_target[] = {
    {.name = "principals",
     .type = TYPE_TEXT,
     .required = true,
     LIST_AT(struct conf_rule, target_principals.items, target_principals.n),
     .empty_advice = "leave 'target' out to speak of every workload",
     PRINCIPAL,
     .doc = "The workloads, by their own SPIFFE ID."},
};
static const struct table table_target = {.name = "target", FIELDS(fields_target)};

static void check_rule(struct context *c, const struct node *map, void *value);

static const struct field fields_rule[] = {
    {.name = "name",
     .type = TYPE_NAME,
     .required = true,
     AT(struct conf_rule, name),
     .doc = "Unique in the file; named by every decision."},
    {.name = "action",
     .type = TYPE_WORD,
     .words = words_action,
     .required = true,
     AT(struct conf_rule, action),
     .doc = "A `DENY` that matches wins over every `ALLOW`. What nothing allows is denied. An "
            "`AUDIT` (level 2) decides nothing: it marks the decision for the audit log."},
    {.name = "mode",
     .type = TYPE_WORD,
     .words = words_mode,
     .level = 2,
     AT(struct conf_rule, mode),
     .def = "enforce",
     .doc = "`dry-run`: it decides nothing, and what it would have decided is counted and logged."},
    {.name = "reason",
     .type = TYPE_TEXT,
     .max = 256,
     .level = 2,
     .check = check_reason,
     AT(struct conf_rule, reason),
     .doc = "What it is for: said in the log with each decision, and by `postern policy explain`."},
    {.name = "expires",
     .type = TYPE_TIME,
     .level = 2,
     AT(struct conf_rule, expires_s),
     .def_doc = "never",
     .doc = "The end of this day, or this moment, in UTC: from then on the rule is as if it were "
            "not there, whatever its action."},
    {.name = "target",
     .type = TYPE_MAP,
     .table = &table_target,
     .def_doc = "every workload",
     .doc = "Which workloads the rule speaks of."},
    {.name = "from",
     .type = TYPE_MAP,
     .table = &table_policy_from,
     LIST_AT(struct conf_rule, from, n_from),
     .def_doc = "anyone",
     .empty_advice = "leave 'from' out to speak of every caller",
     .doc = "Who calls; absent, callers without an identity are meant too."},
    {.name = "to",
     .type = TYPE_MAP,
     .table = &table_policy_to,
     LIST_AT(struct conf_rule, to, n_to),
     .def_doc = "anything",
     .empty_advice = "leave 'to' out to speak of everything",
     .doc = "What is called."},
    {.name = "role",
     .type = TYPE_NAME,
     LIST_AT(struct conf_rule, roles.items, roles.n),
     .level = 2,
     .may_be_single = true,
     .def_doc = "none",
     .empty_advice = "leave 'role' out where it does not matter",
     .doc = "What is called, by a name of `roles`; one of several is enough. With `to` as well, "
            "both hold."},
};
static const struct table table_rule = {
    .name = "a rule",
    .doc = "Within a rule each list means \"any of\", and all keys must hold.",
    .size = sizeof(struct conf_rule),
    FIELDS(fields_rule),
    .check = check_rule,
};

static void check_policy(struct context *c, const struct node *map, void *value);

static const struct field fields_policy[] = {
    KIND_FIELDS("Policy"),
    {.name = "roles",
     .type = TYPE_MAP,
     .table = &table_policy_role,
     LIST_AT(struct conf_policy, roles, n_roles),
     .level = 2,
     .def_doc = "none",
     .empty_advice = "leave 'roles' out where there are none",
     .doc = "What rules can call by a name."},
    {.name = "rules",
     .type = TYPE_MAP,
     .table = &table_rule,
     .required = true,
     .may_be_empty = true,
     LIST_AT(struct conf_policy, rules, n_rules),
     .doc = "In any order; `[]` denies everything."},
};
const struct table table_policy = {
    .name = "the file",
    .doc = "Who may do what. Named by `policy` in a Proxy; one file can serve a whole mesh, since "
           "rules select their targets.",
    .size = sizeof(struct conf_policy),
    FIELDS(fields_policy),
    .check = check_policy,
};

static void check_rule(struct context *c, const struct node *map, void *value)
{
    struct conf_rule *rule = value;
    rule->line = map->line;
    rule->column = map->column;
    if (rule->action == CONF_AUDIT && c->level < 2) {
        (void)schema_refuse_level(c, node_get(map, "action"), 2, "the action AUDIT");
    }
}

static void check_policy(struct context *c, const struct node *map, void *value)
{
    if (node_get(map, "roles") != NULL) {
        schema_check_unique(c, node_get(map, "roles"), "name", "role");
    }
    schema_check_unique(c, node_get(map, "rules"), "name", "rule");
    policy_apply_roles(c, map, value);
}
