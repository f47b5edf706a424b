/* istio_when: the conditions of an AuthorizationPolicy, by the attribute that they ask about. */
#include "convert_priv.h"

#include <stdio.h>
#include <string.h>

/* The name in NAME[INNER], or in NAME[A][B] the path of a claim, as a policy writes it. */
static const char *bracketed(struct istio_rule *r, const struct node *key, size_t skip, bool path)
{
    struct buf out = BUF_INIT(4096);
    const char *p = key->text.p + skip;
    bool ok = *p == '[';
    while (ok && *p == '[') {
        const char *end = strchr(p, ']');
        ok = end != NULL && end > p + 1 && (path || end[1] == '\0') &&
             (buf_len(&out) == 0 || buf_append(&out, ".", 1));
        for (p++; ok && p < end; p++) {
            ok = (!path || (*p != '.' && *p != '\\') || buf_append(&out, "\\", 1)) &&
                 buf_append(&out, p, 1);
        }
        p = ok ? end + 1 : p;
    }
    const char *name = ok && *p == '\0' ? arena_text(&r->c->arena, buf_str(&out)) : NULL;
    if (name == NULL) {
        convert_fail(r->object, key,
                     path ? "request.auth.claims[NAME], or [NAME][NAME]" : "request.headers[NAME]",
                     NULL, "no name in brackets");
    }
    buf_reset(&out);
    return name;
}

/* A header or claim. What is not there is not among `notValues`, says Istio; in an ALLOW rule a
 * policy would have it there, so that is a second alternative. */
static bool named_values(struct istio_rule *r, const struct node *list, enum named_key key,
                         const char *name, struct entries *to)
{
    struct texts values = {NULL, 0};
    if (!field_is_short_list(r->object, list, list->key->text.p)) {
        return false;
    }
    for (const struct node *n = list->child; n != NULL; n = n->next) {
        if (n->kind != NODE_SCALAR || n->text.n == 0) {
            convert_fail(r->object, n, "a text", NULL, "an item without content");
            return false;
        }
        if (!field_named(r->object, n, key, name, n->text.p)) {
            return false;
        }
        texts_add_new(&r->c->arena, &values, n->text.p);
    }
    struct entries e = entries_named(&r->c->arena, key, name, &values);
    if (named_keys[key].negative && r->action == CONF_ALLOW) {
        struct entries none = entries_named(&r->c->arena, key, name, NULL);
        (void)entries_or(&r->c->arena, &e, &none); /* two */
    }
    return istio_and(r, list, to, &e);
}

static bool refuse(const struct istio_rule *r, const struct node *key, const char *advice)
{
    convert_fail(r->object, key, NULL, advice, "a condition on '%.80s' has no counterpart",
                 key->text.p);
    return false;
}

/* One of the two lists of a condition. */
static bool condition_list(struct istio_rule *r, const struct node *key, const struct node *list,
                           bool negative, struct entries *from, struct entries *to)
{
    static const struct str headers = {"request.headers", 15};
    static const struct str claims = {"request.auth.claims", 19};
    enum named_key claim_key = negative ? NAMED_NOT_CLAIMS : NAMED_CLAIMS;
    struct str k = key->text;
    if (str_eq(k, STR_LIT("source.ip"))) {
        return istio_blocks(r, list, negative, from);
    }
    if (str_eq(k, STR_LIT("source.namespace"))) {
        return istio_identity(r, list, negative ? LIST_NOT_NAMESPACES : LIST_NAMESPACES, from);
    }
    if (str_eq(k, STR_LIT("source.principal"))) {
        return istio_identity(r, list, negative ? LIST_NOT_PRINCIPALS : LIST_PRINCIPALS, from);
    }
    if (str_eq(k, STR_LIT("source.serviceAccount"))) {
        return istio_accounts(r, list, negative, from);
    }
    if (str_eq(k, STR_LIT("destination.port"))) {
        return istio_ports(r, list, negative, to);
    }
    if (str_eq(k, STR_LIT("request.auth.principal"))) {
        return istio_request_principals(r, list, negative, from);
    }
    if (str_eq(k, STR_LIT("request.auth.audiences"))) {
        return named_values(r, list, claim_key, "aud", from);
    }
    if (str_eq(k, STR_LIT("request.auth.presenter"))) {
        return named_values(r, list, claim_key, "azp", from);
    }
    if (str_has_prefix(k, claims)) {
        const char *name = bracketed(r, key, claims.n, true);
        return name != NULL && named_values(r, list, claim_key, name, from);
    }
    if (str_has_prefix(k, headers)) {
        const char *name = bracketed(r, key, headers.n, false);
        return name != NULL &&
               named_values(r, list, negative ? NAMED_NOT_HEADERS : NAMED_HEADERS, name, to);
    }
    if (str_eq(k, STR_LIT("remote.ip"))) {
        return refuse(r, key,
                      "behind a load balancer that speaks PROXY protocol, name it in "
                      "'proxy_protocol_from' and use source.ip");
    }
    if (str_eq(k, STR_LIT("destination.ip"))) {
        return refuse(r, key, "select the workload by labels instead");
    }
    return refuse(r, key, NULL);
}

bool istio_when(struct istio_rule *r, const struct node *condition, struct entries *from,
                struct entries *to)
{
    static const char *const keys[] = {"key", "values", "notValues", NULL};
    if (!field_is_map(r->object, condition, "when") ||
        !field_only(r->object, condition, "a condition", keys)) {
        return false;
    }
    const struct node *key = field_get(condition, "key");
    const struct node *values = field_get(condition, "values");
    const struct node *not_values = field_get(condition, "notValues");
    if (key == NULL || key->kind != NODE_SCALAR || (values == NULL && not_values == NULL)) {
        convert_fail(r->object, condition, "'key', and 'values' or 'notValues'", NULL,
                     "not a condition");
        return false;
    }
    return (values == NULL || condition_list(r, key, values, false, from, to)) &&
           (not_values == NULL || condition_list(r, key, not_values, true, from, to));
}
