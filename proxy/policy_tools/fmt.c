/* fmt: the canonical form of a Policy file. What is printed is read again and held against what was
 * there, so that a comment or a meaning that would be lost is an error and never a loss. */
#include "fmt_priv.h"

#include <postern/mem.h>
#include <stdlib.h>
#include <string.h>

/* --- the same ----------------------------------------------------------------------------------
 */
static bool same_node(const struct fmt_node *a, const struct fmt_node *b);

static const struct fmt_entry *find(const struct fmt_node *map, struct str key)
{
    for (size_t i = 0; i < map->n; i++) {
        if (str_eq(map->entries[i]->key, key)) {
            return map->entries[i];
        }
    }
    return NULL;
}

/* Keys in any order. */
static bool same_map(const struct fmt_node *a, const struct fmt_node *b)
{
    for (size_t i = 0; i < a->n; i++) {
        const struct fmt_entry *other = find(b, a->entries[i]->key);
        if (other == NULL || !same_node(a->entries[i]->value, other->value)) {
            return false;
        }
    }
    return a->n == b->n;
}

static bool same_node(const struct fmt_node *a, const struct fmt_node *b)
{
    if (a->kind != b->kind || a->n != b->n) {
        return false;
    }
    if (a->kind == FMT_MAP) {
        return same_map(a, b);
    }
    if (a->kind == FMT_SCALAR) {
        return str_eq(a->text, b->text) &&
               (a->quoted == b->quoted || !fmt_text_is_ambiguous(a->text));
    }
    for (size_t i = 0; i < a->n; i++) {
        if (!same_node(a->entries[i]->value, b->entries[i]->value)) {
            return false;
        }
    }
    return true;
}

/* --- comments ----------------------------------------------------------------------------------
 */
struct texts {
    struct str *items;
    size_t n;
};

static void collect(struct texts *t, const struct fmt_comments *list)
{
    for (size_t i = 0; i < list->n; i++) {
        t->items[t->n++] = list->items[i].text;
    }
}

static int compare_texts(const void *pa, const void *pb)
{
    const struct str *a = pa;
    const struct str *b = pb;
    size_t n = a->n < b->n ? a->n : b->n;
    int r = memcmp(a->p, b->p, n);
    return r != 0 ? r : a->n < b->n ? -1 : a->n > b->n;
}

static struct texts comments_of(const struct fmt_doc *d)
{
    size_t room = d->top.n + d->end.n;
    for (size_t i = 0; i < d->n; i++) {
        room += d->entries[i]->above.n + 1;
    }
    struct texts t = {.items = mem_must_calloc(room + 1, sizeof(*t.items))};
    collect(&t, &d->top);
    collect(&t, &d->end);
    for (size_t i = 0; i < d->n; i++) {
        collect(&t, &d->entries[i]->above);
        if (d->entries[i]->behind.n > 0) {
            t.items[t.n++] = d->entries[i]->behind;
        }
    }
    qsort(t.items, t.n, sizeof(*t.items), compare_texts);
    return t;
}

static bool same_comments(const struct fmt_doc *a, const struct fmt_doc *b)
{
    struct texts ta = comments_of(a);
    struct texts tb = comments_of(b);
    bool same = ta.n == tb.n;
    for (size_t i = 0; same && i < ta.n; i++) {
        same = str_eq(ta.items[i], tb.items[i]);
    }
    free(ta.items);
    free(tb.items);
    return same;
}

/* --- fmt ---------------------------------------------------------------------------------------
 */
/* Reads what was written; it must be the same, and written again too. */
static int check(const struct fmt_doc *before, struct str text, struct err *err)
{
    struct fmt_doc after = {.root = NULL};
    struct buf again = BUF_INIT(POLICY_TOOLS_TEXT_MAX);
    int rc = fmt_read("the canonical form", text, &after, err);
    if (rc == 0) {
        rc = fmt_write(&after, &again, err);
    }
    if (rc == 0 && (!same_node(before->root, after.root) || !same_comments(before, &after) ||
                    !str_eq(buf_str(&again), text))) {
        err_set(err, ERR_UNSUPPORTED, "cannot be brought into the canonical form without a loss");
        rc = err_advise(err, "put comments on lines of their own, above a key or a '- '");
    }
    buf_reset(&again);
    fmt_doc_deinit(&after);
    return rc;
}

int policy_fmt(const char *name, struct str text, struct buf *out, struct err *err)
{
    struct fmt_doc doc = {.root = NULL};
    struct buf written = BUF_INIT(POLICY_TOOLS_TEXT_MAX);
    int rc = fmt_read(name, text, &doc, err);
    if (rc == 0) {
        rc = fmt_write(&doc, &written, err);
    }
    if (rc == 0) {
        rc = check(&doc, buf_str(&written), err);
        if (rc != 0 && err != NULL && err->where[0] == '\0') {
            err_where(err, "%s", name);
        }
    }
    if (rc == 0 && !buf_append_str(out, buf_str(&written))) {
        rc = err_set(err, ERR_LIMIT, "the file is too large");
    }
    buf_reset(&written);
    fmt_doc_deinit(&doc);
    return rc;
}
