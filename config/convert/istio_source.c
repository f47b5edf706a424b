/* istio_source: who calls, as an AuthorizationPolicy says it, in `source` and in `when`. */
#include "convert_priv.h"

#include <postern/mem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool scalar(const struct istio_rule *r, const struct node *n)
{
    if (n->kind == NODE_SCALAR && n->text.n > 0) {
        return true;
    }
    convert_fail(r->object, n, "a text", NULL, "an item without content");
    return false;
}

/* --- principals, namespaces, blocks ----------------------------------------------------------- */
/* Istio leaves spiffe:// out, and cluster.local is the mesh's own domain, whatever it is called. */
static const char *principal(struct istio_rule *r, const struct node *n)
{
    static const struct str local = {"cluster.local/", 14};
    struct arena *arena = &r->c->arena;
    if (str_has_prefix(n->text, STR_LIT("spiffe://"))) {
        convert_fail(r->object, n, "TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT", "leave spiffe:// out",
                     "Istio puts spiffe:// before it once more, so it never matches");
        return NULL;
    }
    if (n->text.p[0] == '*') {
        return n->text.p;
    }
    if (str_has_prefix(n->text, local)) {
        return arena_printf(arena, "spiffe://%s/%s", r->c->options.trust_domain,
                            n->text.p + local.n);
    }
    return arena_printf(arena, "spiffe://%s", n->text.p);
}

bool istio_identity(struct istio_rule *r, const struct node *list, enum list_key key,
                    struct entries *from)
{
    struct texts items = {NULL, 0};
    bool principals = key == LIST_PRINCIPALS || key == LIST_NOT_PRINCIPALS;
    if (!field_is_short_list(r->object, list, list->key->text.p)) {
        return false;
    }
    for (const struct node *n = list->child; n != NULL; n = n->next) {
        const char *text = !scalar(r, n) ? NULL : principals ? principal(r, n) : n->text.p;
        if (text == NULL || !field_item(r->object, n, key, text)) {
            return false;
        }
        texts_add_new(&r->c->arena, &items, text);
    }
    struct entries e = entries_list(&r->c->arena, key, &items);
    return istio_and(r, list, from, &e);
}

bool istio_blocks(struct istio_rule *r, const struct node *list, bool negative,
                  struct entries *from)
{
    return istio_identity(r, list, negative ? LIST_NOT_IP_BLOCKS : LIST_IP_BLOCKS, from);
}

/* --- service accounts ------------------------------------------------------------------------- */
/* NAMESPACE/ACCOUNT, or ACCOUNT of the policy's namespace. */
static bool account(struct istio_rule *r, const struct node *n, const char **ret_ns,
                    const char **ret_account)
{
    if (!scalar(r, n)) {
        return false;
    }
    const char *slash = strchr(n->text.p, '/');
    *ret_ns = r->object->ns;
    *ret_account = n->text.p;
    if (slash != NULL) {
        *ret_ns = arena_text(&r->c->arena, (struct str){n->text.p, (size_t)(slash - n->text.p)});
        *ret_account = slash + 1;
    }
    if (!field_is_segment(*ret_ns) || !field_is_segment(*ret_account)) {
        convert_fail(r->object, n, "NAMESPACE/ACCOUNT, or ACCOUNT", NULL,
                     "no service account has such a name");
        return false;
    }
    return true;
}

/* Accounts of one namespace stand in one entry. */
bool istio_accounts(struct istio_rule *r, const struct node *list, bool negative,
                    struct entries *from)
{
    struct arena *arena = &r->c->arena;
    struct texts namespaces = {NULL, 0}, not_principals = {NULL, 0};
    struct entries any = {NULL, 0};
    const char *ns = NULL;
    const char *name = NULL;
    if (!field_is_short_list(r->object, list, list->key->text.p)) {
        return false;
    }
    for (const struct node *n = list->child; n != NULL; n = n->next) {
        if (!account(r, n, &ns, &name)) {
            return false;
        }
        texts_add_new(arena, &namespaces, ns);
        texts_add_new(arena, &not_principals, arena_printf(arena, "*/ns/%s/sa/%s", ns, name));
    }
    if (negative) {
        any = entries_list(arena, LIST_NOT_PRINCIPALS, &not_principals);
        return istio_and(r, list, from, &any);
    }
    for (size_t i = 0; i < namespaces.n; i++) {
        struct texts one = {NULL, 0}, accounts = {NULL, 0};
        texts_add(arena, &one, namespaces.items[i]);
        for (const struct node *n = list->child; n != NULL; n = n->next) {
            if (account(r, n, &ns, &name) && strcmp(ns, namespaces.items[i]) == 0) {
                texts_add_new(arena, &accounts, name);
            }
        }
        struct entries e = entries_list(arena, LIST_NAMESPACES, &one);
        struct entries a = entries_list(arena, LIST_SERVICE_ACCOUNTS, &accounts);
        if (!istio_and(r, list, &e, &a) || entries_or(arena, &any, &e) != ENTRIES_OK) {
            return false;
        }
    }
    return istio_and(r, list, from, &any);
}

/* --- request principals ----------------------------------------------------------------------- */
/* ISSUER/SUBJECT, divided at the last slash, each a pattern; NULL: that it is there. */
struct request_principal {
    const char *issuer, *subject;
};

static struct request_principal divide(struct arena *arena, struct str text)
{
    const char *slash = strrchr(text.p, '/');
    if (str_eq(text, STR_LIT("*"))) {
        return (struct request_principal){NULL, NULL};
    }
    if (slash == NULL) { /* half a pattern speaks of the half that it touches */
        bool suffix = text.p[0] == '*';
        return suffix ? (struct request_principal){NULL, arena_text(arena, text)}
                      : (struct request_principal){arena_text(arena, text), NULL};
    }
    struct str issuer = {text.p, (size_t)(slash - text.p)};
    struct str subject = {slash + 1, text.n - issuer.n - 1};
    return (struct request_principal){
        str_eq(issuer, STR_LIT("*")) ? NULL : arena_text(arena, issuer),
        str_eq(subject, STR_LIT("*")) ? NULL : arena_text(arena, subject)};
}

static bool claim(struct istio_rule *r, const struct node *at, const char *name, const char *value,
                  bool negative, struct entries *ret)
{
    enum named_key key = negative ? NAMED_NOT_CLAIMS : NAMED_CLAIMS;
    struct texts values = {NULL, 0};
    if (!field_named(r->object, at, key, name, value)) {
        return false;
    }
    if (value != NULL) {
        texts_add(&r->c->arena, &values, value);
    }
    *ret = entries_named(&r->c->arena, key, name, &values);
    /* What is not there is not it, says Istio; of an ALLOW rule that has to be said. */
    if (negative && value != NULL && r->action == CONF_ALLOW) {
        struct entries none = entries_named(&r->c->arena, NAMED_NOT_CLAIMS, name, NULL);
        return entries_or(&r->c->arena, ret, &none) == ENTRIES_OK;
    }
    return true;
}

/* Not both is not the one or not the other. */
static bool add_request_principal(struct istio_rule *r, const struct node *n, bool negative,
                                  struct entries *to)
{
    struct request_principal p = divide(&r->c->arena, n->text);
    struct entries issuer, subject;
    bool bare =
        memchr(n->text.p, '/', n->text.n) == NULL && memchr(n->text.p, '*', n->text.n) == NULL;
    if (bare) {
        convert_fail(r->object, n, "ISSUER/SUBJECT, or one with a * at its beginning or end", NULL,
                     "a request principal without a subject, which matches nothing");
        return false;
    }
    if (!claim(r, n, "iss", p.issuer, negative, &issuer) ||
        !claim(r, n, "sub", p.subject, negative, &subject)) {
        return false;
    }
    if (!negative) {
        return istio_and(r, n, &issuer, &subject) &&
               entries_or(&r->c->arena, to, &issuer) == ENTRIES_OK;
    }
    return entries_or(&r->c->arena, &issuer, &subject) == ENTRIES_OK &&
           istio_and(r, n, to, &issuer);
}

bool istio_request_principals(struct istio_rule *r, const struct node *list, bool negative,
                              struct entries *from)
{
    struct entries e = negative ? entries_all(&r->c->arena) : (struct entries){NULL, 0};
    if (!field_is_short_list(r->object, list, list->key->text.p)) {
        return false;
    }
    for (const struct node *n = list->child; n != NULL; n = n->next) {
        if (!scalar(r, n) || !add_request_principal(r, n, negative, &e)) {
            return false;
        }
    }
    return istio_and(r, list, from, &e);
}

/* --- the source ------------------------------------------------------------------------------- */
static void refuse_remote(const struct istio_rule *r, const struct node *n)
{
    convert_fail(r->object, n->key, NULL,
                 "behind a load balancer that speaks PROXY protocol, name it in "
                 "'proxy_protocol_from' and use ipBlocks",
                 "'%s' is what a header says, which no policy asks about", n->key->text.p);
}

static bool source_field(struct istio_rule *r, const struct node *n, struct entries *from)
{
    static const struct {
        const char *name;
        enum list_key key;
    } lists[] = {{"principals", LIST_PRINCIPALS}, {"notPrincipals", LIST_NOT_PRINCIPALS},
                 {"namespaces", LIST_NAMESPACES}, {"notNamespaces", LIST_NOT_NAMESPACES},
                 {"ipBlocks", LIST_IP_BLOCKS},    {"notIpBlocks", LIST_NOT_IP_BLOCKS}};
    struct str name = n->key->text;
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        if (str_eq(name, str_of(lists[i].name))) {
            return istio_identity(r, n, lists[i].key, from);
        }
    }
    if (str_eq(name, STR_LIT("serviceAccounts"))) {
        return istio_accounts(r, n, false, from);
    }
    if (str_eq(name, STR_LIT("notServiceAccounts"))) {
        return istio_accounts(r, n, true, from);
    }
    if (str_eq(name, STR_LIT("requestPrincipals"))) {
        return istio_request_principals(r, n, false, from);
    }
    if (str_eq(name, STR_LIT("notRequestPrincipals"))) {
        return istio_request_principals(r, n, true, from);
    }
    if (str_eq(name, STR_LIT("remoteIpBlocks")) || str_eq(name, STR_LIT("notRemoteIpBlocks"))) {
        refuse_remote(r, n);
        return false;
    }
    convert_fail(r->object, n->key, NULL, NULL, "'%.60s' of a source has no counterpart", name.p);
    return false;
}

bool istio_source(struct istio_rule *r, const struct node *source, struct entries *from)
{
    bool ok = true;
    for (const struct node *n = source->child; n != NULL; n = n->next) {
        ok = (node_is_null(n) || source_field(r, n, from)) && ok;
    }
    return ok;
}
