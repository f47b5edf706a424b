/* istio_operation: what is called, as an AuthorizationPolicy says it. */
#include "convert_priv.h"

#include <stdio.h>
#include <string.h>

static bool scalar(const struct istio_rule *r, const struct node *n)
{
    if (n->kind == NODE_SCALAR && n->text.n > 0) {
        return true;
    }
    convert_fail(r->object, n, "a text", NULL, "an item without content");
    return false;
}

/* --- ports ------------------------------------------------------------------------------------ */
bool istio_ports(struct istio_rule *r, const struct node *list, bool negative, struct entries *to)
{
    struct texts items = {NULL, 0};
    if (!field_is_short_list(r->object, list, list->key->text.p)) {
        return false;
    }
    for (const struct node *n = list->child; n != NULL; n = n->next) {
        uint16_t port = 0;
        if (!field_port(r->object, n, &port)) {
            return false;
        }
        texts_add_new(&r->c->arena, &items, arena_printf(&r->c->arena, "%u", port));
    }
    struct entries e = entries_list(&r->c->arena, negative ? LIST_NOT_PORTS : LIST_PORTS, &items);
    return istio_and(r, list, to, &e);
}

/* --- hosts ------------------------------------------------------------------------------------ */
static bool has_host(const struct node *list, struct str host)
{
    for (const struct node *n = list->child; n != NULL; n = n->next) {
        if (n->kind == NODE_SCALAR && str_eq_nocase(n->text, host)) {
            return true;
        }
    }
    return false;
}

/* Envoy compares the header as it came, its port included, which is why Istio's policies say a host
 * twice, NAME and NAME:*. A policy asks for the host without port, so the two are one, and one with
 * a certain port is none. */
static const char *host(struct istio_rule *r, const struct node *list, const struct node *n)
{
    const char *colon = memchr(n->text.p, ':', n->text.n);
    struct arena *arena = &r->c->arena;
    bool two_stars = n->text.p[0] == '*' && colon != NULL && strcmp(colon, ":*") == 0;
    if (colon == NULL || n->text.p[0] == '[' || two_stars) { /* the second is no star to Istio */
        return n->text.p;
    }
    struct str name = {n->text.p, (size_t)(colon - n->text.p)};
    const char *any = arena_printf(arena, "%.*s:*", STR_ARG(name));
    if (strcmp(colon, ":*") == 0 || has_host(list, str_of(any))) {
        return arena_text(arena, name);
    }
    convert_fail(r->object, n, NULL, "say NAME and NAME:*, and the port in 'ports'",
                 "a host with a port: hosts are asked for without");
    return NULL;
}

/* --- methods ---------------------------------------------------------------------------------- */
static const char *method(struct istio_rule *r, const struct node *n)
{
    if (memchr(n->text.p, '*', n->text.n) == NULL) {
        return n->text.p;
    }
    convert_fail(r->object, n, "a method such as GET", "write the methods out",
                 "a pattern for methods has no counterpart");
    return NULL;
}

/* --- paths ------------------------------------------------------------------------------------ */
/* {*} is one segment there and {} here. A brace that is no template's stands for itself, which a
 * policy writes as %7B and %7D. */
static const char *path(struct istio_rule *r, const struct node *n)
{
    struct arena *arena = &r->c->arena;
    bool template = strstr(n->text.p, "{*}") != NULL || strstr(n->text.p, "{**}") != NULL;
    char *text = arena_take(arena, n->text.n * 3 + 1);
    char *to = text;
    for (const char *p = n->text.p; *p != '\0';) {
        if (template && strncmp(p, "{*}", 3) == 0) {
            memcpy(to, "{}", 2);
            to += 2;
            p += 3;
        } else if (template && strncmp(p, "{**}", 4) == 0) {
            memcpy(to, p, 4);
            to += 4;
            p += 4;
        } else if (*p == '{' || *p == '}') {
            memcpy(to, *p == '{' ? "%7B" : "%7D", 3);
            to += 3;
            p++;
        } else {
            *to++ = *p++;
        }
    }
    *to = '\0';
    return text;
}

/* --- the operation ---------------------------------------------------------------------------- */
static const char *item(struct istio_rule *r, const struct node *list, const struct node *n,
                        enum list_key key)
{
    if (!scalar(r, n)) {
        return NULL;
    }
    if (key == LIST_HOSTS || key == LIST_NOT_HOSTS) {
        return host(r, list, n);
    }
    return key == LIST_PATHS || key == LIST_NOT_PATHS ? path(r, n) : method(r, n);
}

static bool operation_list(struct istio_rule *r, const struct node *list, enum list_key key,
                           struct entries *to)
{
    struct texts items = {NULL, 0};
    bool any_method = false;
    if (!field_is_short_list(r->object, list, list->key->text.p)) {
        return false;
    }
    for (const struct node *n = list->child; n != NULL; n = n->next) {
        if (key == LIST_METHODS && n->kind == NODE_SCALAR && str_eq(n->text, STR_LIT("*"))) {
            any_method = true;
            continue;
        }
        const char *text = item(r, list, n, key);
        if (text == NULL || !field_item(r->object, n, key, text)) {
            return false;
        }
        texts_add_new(&r->c->arena, &items, text);
    }
    if (any_method) { /* any request, and no connection: what every path matches */
        items = (struct texts){NULL, 0};
        texts_add(&r->c->arena, &items, "*");
        key = LIST_PATHS;
    }
    struct entries e = entries_list(&r->c->arena, key, &items);
    return istio_and(r, list, to, &e);
}

bool istio_operation(struct istio_rule *r, const struct node *operation, struct entries *to)
{
    static const struct {
        const char *name;
        enum list_key key;
    } lists[] = {{"hosts", LIST_HOSTS},     {"notHosts", LIST_NOT_HOSTS},
                 {"methods", LIST_METHODS}, {"notMethods", LIST_NOT_METHODS},
                 {"paths", LIST_PATHS},     {"notPaths", LIST_NOT_PATHS}};
    bool ok = true;
    for (const struct node *n = operation->child; n != NULL; n = n->next) {
        size_t i = 0;
        struct str name = n->key->text;
        if (node_is_null(n)) {
            continue;
        }
        while (i < sizeof(lists) / sizeof(lists[0]) && !str_eq(name, str_of(lists[i].name))) {
            i++;
        }
        if (i < sizeof(lists) / sizeof(lists[0])) {
            ok = operation_list(r, n, lists[i].key, to) && ok;
        } else if (str_eq(name, STR_LIT("ports")) || str_eq(name, STR_LIT("notPorts"))) {
            ok = istio_ports(r, n, name.p[0] == 'n', to) && ok;
        } else {
            convert_fail(r->object, n->key, NULL, NULL,
                         "'%.60s' of an operation has no counterpart", name.p);
            ok = false;
        }
    }
    return ok;
}
