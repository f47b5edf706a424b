/*
 * schema: one engine for every kind of file. It walks a tree by a table, stores each value at the
 * field's offset, fills in defaults by parsing their text, and reports every error; freeing walks
 * the same tables, so that a new key needs a row and nothing else.
 */
#include <postern/conf.h>

#include <postern/mem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config_priv.h"

static void *field_at(const struct field *f, void *value)
{
    return (char *)value + f->offset;
}

/* The fields are pointers of many types: their bytes are copied, never aliased. */
static void *list_items(const struct field *f, void *value)
{
    void *items;
    memcpy(&items, field_at(f, value), sizeof(items));
    return items;
}

static size_t list_count(const struct field *f, void *value)
{
    size_t n;
    memcpy(&n, (char *)value + f->n_offset, sizeof(n));
    return n;
}

static void list_set(const struct field *f, void *value, void *items, size_t n)
{
    memcpy(field_at(f, value), &items, sizeof(items));
    memcpy((char *)value + f->n_offset, &n, sizeof(n));
}

static void clear_one(const struct field *f, void *dst)
{
    if (f->type == TYPE_MAP) {
        schema_clear(f->table, dst);
    } else {
        value_clear(f, dst);
    }
}

void schema_clear(const struct table *t, void *value)
{
    for (size_t i = 0; i < t->n_fields; i++) {
        const struct field *f = &t->fields[i];
        if (!f->list) {
            clear_one(f, field_at(f, value));
            continue;
        }
        if (f->size == 0) {
            continue;
        }
        char *items = list_items(f, value);
        size_t n = list_count(f, value);
        for (size_t k = 0; k < n; k++) {
            clear_one(f, items + k * f->size);
        }
        free(items);
        list_set(f, value, NULL, 0);
    }
}

static const char *field_name_at(const void *set, size_t i)
{
    const struct table *t = set;
    return i < t->n_fields ? t->fields[i].name : NULL;
}

static void report_unknown_key(struct context *c, const struct table *t, const struct node *key)
{
    struct shown s;
    char expected[200];
    char advice[100];
    const char *near = nearest_word(key->text, field_name_at, t);
    if (near != NULL) {
        snprintf(advice, sizeof(advice), "did you mean '%s'?", near);
    }
    size_t n = 0, left = 0, len = 0;
    for (size_t i = 0; i < t->n_fields; i++) {
        left += t->fields[i].level <= c->level;
    }
    for (size_t i = 0; i < t->n_fields; i++) {
        if (t->fields[i].level > c->level) {
            continue;
        }
        const char *sep = n == 0 ? "" : n + 1 == left ? " or " : ", ";
        if (len + strlen(t->fields[i].name) + 8 > sizeof(expected)) {
            (void)snprintf(expected + len, sizeof(expected) - len, ", ...");
            break;
        }
        len += (size_t)snprintf(expected + len, sizeof(expected) - len, "%s%s", sep,
                                t->fields[i].name);
        n++;
    }
    report(c, key, expected, near != NULL ? advice : NULL, "unknown key %s", show(&s, key->text));
}

static const char *kind_text(const struct node *n)
{
    if (n->kind == NODE_LIST) {
        return "a list";
    }
    if (n->kind == NODE_MAP) {
        return "a mapping";
    }
    return node_is_null(n) ? "nothing" : "a single value";
}

static void parse_one(struct context *c, const struct field *f, const struct node *n, void *dst)
{
    if (n->kind == NODE_BAD) {
        return;
    }
    if (f->type == TYPE_MAP) {
        if (f->scalar != NULL && n->kind == NODE_SCALAR && !node_is_null(n)) {
            (void)f->scalar(c, f, n, dst);
        } else {
            schema_parse(c, f->table, n, dst);
        }
        return;
    }
    if (n->kind == NODE_SCALAR && !node_is_null(n)) {
        (void)value_parse(c, f, n, dst);
        return;
    }
    char expected[200];
    value_expected(f, expected, sizeof(expected));
    if (n->kind != NODE_SCALAR) {
        report(c, n, expected, NULL, "'%s' holds %s", f->name, kind_text(n));
    } else {
        report(c, n, expected, f->required ? NULL : "leave the key out where it does not apply",
               "'%s' has no value", f->name);
    }
}

static void parse_list(struct context *c, const struct field *f, const struct node *n, void *value)
{
    if (n->kind == NODE_BAD) {
        return;
    }
    if (f->none_word != NULL && n->kind == NODE_SCALAR && !n->quoted &&
        str_eq(n->text, str_of(f->none_word))) {
        *(bool *)((char *)value + f->none_offset) = true;
        return;
    }
    bool single = f->may_be_single && n->kind == NODE_SCALAR && !node_is_null(n);
    if (n->kind != NODE_LIST && !single) {
        report(c, n, "a list",
               n->kind == NODE_SCALAR && !node_is_null(n)
                   ? "write [ ] around it, or put '- ' before each"
                   : NULL,
               "'%s' holds %s", f->name, kind_text(n));
        return;
    }
    if (single) {
        char *item = mem_must_calloc(1, f->size);
        list_set(f, value, item, 1);
        parse_one(c, f, n, item);
        return;
    }
    if (n->n == 0) {
        if (!f->may_be_empty) {
            report(c, n, "at least one element",
                   f->empty_advice != NULL ? f->empty_advice : "leave the key out instead",
                   "'%s' is an empty list", f->name);
        }
        return;
    }
    char *items = mem_must_calloc(n->n, f->size);
    list_set(f, value, items, n->n);
    size_t i = 0;
    for (const struct node *e = n->child; e != NULL; e = e->next) {
        parse_one(c, f, e, items + f->size * i++);
    }
}

/* An absent key: its default, or the defaults inside it. */
static void fill_default(struct context *c, const struct field *f, void *value)
{
    void *dst = field_at(f, value);
    if (f->type == TYPE_MAP && !f->list) {
        for (size_t i = 0; i < f->table->n_fields; i++) {
            fill_default(c, &f->table->fields[i], dst);
        }
    } else if (f->def != NULL && f->size > 0) {
        struct node n = {.kind = NODE_SCALAR, .text = str_of(f->def)};
        POSTERN_ASSERT(!f->list && value_parse(c, f, &n, dst));
    }
}

bool schema_refuse_level(struct context *c, const struct node *at, unsigned level, const char *what)
{
    char advice[80];
    snprintf(advice, sizeof(advice), "write 'level: %u', which binaries that know it take", level);
    report(c, at, NULL, advice, "%s needs feature level %u, the file says %u", what, level,
           c->level);
    return false;
}

static const struct field *find_field(const struct table *t, struct str name)
{
    for (size_t i = 0; i < t->n_fields; i++) {
        if (str_eq(name, str_of(t->fields[i].name))) {
            return &t->fields[i];
        }
    }
    return NULL;
}

static void report_missing(struct context *c, const struct field *f, const struct node *map)
{
    char expected[200] = "a list";
    if (f->type == TYPE_MAP && !f->list) {
        snprintf(expected, sizeof(expected), "a mapping");
    } else if (!f->list) {
        value_expected(f, expected, sizeof(expected));
    }
    report(c, map, expected, NULL, "missing key '%s'", f->name);
}

void schema_parse(struct context *c, const struct table *t, const struct node *n, void *value)
{
    POSTERN_ASSERT(t->n_fields <= 64);
    if (n->kind == NODE_BAD) {
        return;
    }
    if (n->kind != NODE_MAP) {
        report(c, n, "a mapping (key: value)", NULL, "%s holds %s", t->name, kind_text(n));
        return;
    }
    if (t->empty_advice != NULL && n->n == 0) {
        report(c, n, "at least one key", t->empty_advice, "%s is empty", t->name);
        return;
    }
    uint64_t seen = 0;
    for (const struct node *e = n->child; e != NULL; e = e->next) {
        const struct field *f = find_field(t, e->key->text);
        if (f == NULL) {
            if (e->key->kind != NODE_BAD && e->kind != NODE_BAD) {
                report_unknown_key(c, t, e->key);
            }
            continue;
        }
        if (e->kind == NODE_BAD && (seen & UINT64_C(1) << (f - t->fields)) != 0) {
            continue; /* the second of two with the same key */
        }
        seen |= UINT64_C(1) << (f - t->fields);
        if (f->level > c->level) {
            char what[80];
            snprintf(what, sizeof(what), "'%s'", f->name);
            (void)schema_refuse_level(c, e->key, f->level, what);
            continue;
        }
        if (f->list) {
            parse_list(c, f, e, value);
        } else {
            parse_one(c, f, e, field_at(f, value));
        }
    }
    for (size_t i = 0; i < t->n_fields; i++) {
        const struct field *f = &t->fields[i];
        if ((seen & UINT64_C(1) << i) != 0) {
            continue;
        }
        if (f->required) {
            report_missing(c, f, n);
        } else {
            fill_default(c, f, value);
        }
    }
    if (t->check != NULL) {
        t->check(c, n, value);
    }
}

static int compare_texts(const void *pa, const void *pb)
{
    const struct node *a = *(const struct node *const *)pa;
    const struct node *b = *(const struct node *const *)pb;
    int r = strcmp(a->text.p, b->text.p);
    if (r != 0) {
        return r;
    }
    return a->line != b->line ? (a->line < b->line ? -1 : 1) : a->column < b->column ? -1 : 1;
}

void schema_check_unique_nodes(struct context *c, const struct node **nodes, size_t n,
                               const char *what)
{
    size_t first = 0;
    qsort(nodes, n, sizeof(*nodes), compare_texts);
    for (size_t i = 1; i < n; i++) {
        if (!str_eq(nodes[i]->text, nodes[first]->text)) {
            first = i;
            continue;
        }
        struct shown s;
        char advice[80];
        snprintf(advice, sizeof(advice), "the first is at line %u, column %u", nodes[first]->line,
                 nodes[first]->column);
        report(c, nodes[i], NULL, advice, "%s %s twice", what, show(&s, nodes[i]->text));
    }
}

void schema_check_unique(struct context *c, const struct node *list, const char *key,
                         const char *what)
{
    if (list == NULL || list->kind != NODE_LIST || list->n < 2) {
        return;
    }
    mem_autofree const struct node **sorted = mem_must_calloc(list->n, sizeof(*sorted));
    size_t n = 0;
    for (const struct node *e = list->child; e != NULL; e = e->next) {
        const struct node *text = key != NULL ? node_get(e, key) : e;
        if (text != NULL && text->kind == NODE_SCALAR) {
            sorted[n++] = text;
        }
    }
    schema_check_unique_nodes(c, sorted, n, what);
}

void schema_refuse_key(struct context *c, const struct node *map, const char *key, const char *what,
                       const char *advice)
{
    const struct node *n = node_get(map, key);
    if (n != NULL) {
        report(c, n->key, NULL, advice, "%s has no '%s'", what, key);
    }
}

void schema_require_key(struct context *c, const struct node *map, const char *key,
                        const char *what, const char *expected)
{
    if (node_get(map, key) == NULL) {
        report(c, map, expected, NULL, "missing key '%s' of %s", key, what);
    }
}

bool schema_word_is(const struct node *map, const char *key, const char *word)
{
    const struct node *n = node_get(map, key);
    return n != NULL && n->kind == NODE_SCALAR && str_eq(n->text, str_of(word));
}
