/* fields: reading objects. What is not known is an error that names the key, and whether an item
 * can stand in a policy is asked of the reader of policies itself. */
#include "convert_priv.h"

#include <stdio.h>
#include <string.h>

const struct node *field_get(const struct node *map, const char *key)
{
    const struct node *n = node_get(map, key);
    return n != NULL && node_is_null(n) ? NULL : n;
}

const char *field_text(const struct node *map, const char *key)
{
    const struct node *n = field_get(map, key);
    return n != NULL && n->kind == NODE_SCALAR ? n->text.p : NULL;
}

bool field_is_map(const struct object *o, const struct node *n, const char *what)
{
    if (n->kind != NODE_MAP) {
        convert_fail(o, n, "a mapping", NULL, "'%s' is no mapping", what);
    }
    return n->kind == NODE_MAP;
}

bool field_is_list(const struct object *o, const struct node *n, const char *what)
{
    if (n->kind != NODE_LIST || n->n == 0) {
        convert_fail(o, n, "a list with at least one element", NULL,
                     n->kind == NODE_LIST ? "'%s' is empty" : "'%s' is no list", what);
    }
    return n->kind == NODE_LIST && n->n > 0;
}

bool field_is_short_list(const struct object *o, const struct node *n, const char *what)
{
    if (!field_is_list(o, n, what)) {
        return false;
    }
    if (n->n > CONVERT_LIST_MAX) {
        convert_fail(o, n, NULL, "divide the rule", "'%s' has more than %d items", what,
                     CONVERT_LIST_MAX);
    }
    return n->n <= CONVERT_LIST_MAX;
}

const struct node *field_first(const struct object *o, const struct node *n, const char *what,
                               bool *sound)
{
    if (n == NULL || n->kind == NODE_LIST) {
        return n != NULL ? n->child : NULL;
    }
    convert_fail(o, n, "a list", NULL, "'%s' is no list", what);
    *sound = false;
    return NULL;
}

const char *field_shown(struct policy_convert *c, struct str text)
{
    char *shown = arena_text(&c->arena, text);
    for (char *p = shown; *p != '\0'; p++) {
        size_t n = str_control((struct str){shown, text.n}, (size_t)(p - shown));
        for (size_t i = 0; i < n; i++) {
            p[i] = '?';
        }
    }
    return shown;
}

bool field_only(const struct object *o, const struct node *map, const char *what,
                const char *const *names)
{
    bool all = true;
    for (const struct node *n = map->child; n != NULL; n = n->next) {
        size_t i = 0;
        while (names[i] != NULL && !str_eq(n->key->text, str_of(names[i]))) {
            i++;
        }
        if (names[i] == NULL) {
            convert_fail(o, n->key, NULL, NULL, "'%.60s' of %s has no counterpart", n->key->text.p,
                         what);
            all = false;
        }
    }
    return all;
}

bool field_is_segment(const char *text)
{
    size_t n = strlen(text);
    return n > 0 && n <= 253 && strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-.") == n &&
           text[0] != '.' && text[0] != '-';
}

/* --- items ------------------------------------------------------------------------------------ */
/* A policy with this clause alone; what is wrong with it is said where the item stands. */
static bool try_policy(const struct object *o, const struct node *at, const char *what,
                       const struct buf *text)
{
    struct conf_diag *diag = conf_diag_new();
    struct conf_policy *conf = NULL;
    bool ok = conf_parse_policy("", (const char *)buf_head(text), buf_len(text), diag, &conf) == 0;
    if (!ok) {
        const struct err *e = conf_diag_get(diag, 0);
        convert_fail(o, at, e->expected, e->advice[0] != '\0' ? e->advice : NULL,
                     "no policy can hold '%s': %.250s", what, e->what);
    }
    conf_policy_free(conf);
    conf_diag_free(diag);
    return ok;
}

static const char head[] = "kind: Policy\nlevel: 2\nrules: [{name: a, action: ALLOW, ";

static bool too_long(const struct object *o, const struct node *at)
{
    convert_fail(o, at, NULL, NULL, "the text is too long");
    return false;
}

bool field_item(const struct object *o, const struct node *at, enum list_key key, const char *text)
{
    struct buf out = BUF_INIT(64 * 1024);
    bool port = key == LIST_PORTS || key == LIST_NOT_PORTS;
    bool ok = buf_printf(&out, "%s%s: [{%s: [", head, list_keys[key].from ? "from" : "to",
                         list_keys[key].name) &&
              (port ? buf_printf(&out, "%s", text) : write_quoted(&out, text)) &&
              buf_printf(&out, "]}]}]\n");
    ok = ok ? try_policy(o, at, list_keys[key].name, &out) : too_long(o, at);
    buf_reset(&out);
    return ok;
}

bool field_named(const struct object *o, const struct node *at, enum named_key key,
                 const char *name, const char *text)
{
    struct buf out = BUF_INIT(64 * 1024);
    bool ok = buf_printf(&out, "%s%s: [{%s: [{name: ", head, named_keys[key].from ? "from" : "to",
                         named_keys[key].name) &&
              write_quoted(&out, name);
    if (text == NULL) {
        ok = ok && buf_printf(&out, ", present: true}]}]}]\n");
    } else {
        ok = ok && buf_printf(&out, ", values: [") && write_quoted(&out, text) &&
             buf_printf(&out, "]}]}]}]\n");
    }
    ok = ok ? try_policy(o, at, named_keys[key].name, &out) : too_long(o, at);
    buf_reset(&out);
    return ok;
}

bool field_port(const struct object *o, const struct node *n, uint16_t *ret)
{
    uint64_t port = 0;
    if (n->kind != NODE_SCALAR || !str_to_u64(n->text, 65535, &port) || port == 0) {
        convert_fail(o, n, "a number from 1 to 65535", NULL, "no port");
        return false;
    }
    *ret = (uint16_t)port;
    return true;
}
