/* fmt_read: a text to its tree, and each comment to the entry that it is about. libyaml says where
 * scalars and brackets stand; what is between them, and begins with #, is a comment. */
#include "fmt_priv.h"

#include <postern/mem.h>
#include <postern/mem_grow.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

struct range {
    size_t from, to;
};

struct reader {
    const char *name;
    struct str text;
    struct fmt_doc *doc;
    size_t *offsets; /* of each character; libyaml counts these */
    size_t n_chars;
    struct range *scalars; /* in the order of the text */
    size_t n_scalars, cap_scalars;
    struct fmt_node *open;     /* the collection that has begun last */
    struct fmt_entry *waiting; /* a key without its value */
};

/* --- the tree ----------------------------------------------------------------------------------
 */
static void node_free(struct fmt_node *n)
{
    if (n == NULL) {
        return;
    }
    for (size_t i = 0; i < n->n; i++) {
        node_free(n->entries[i]->value);
        free(n->entries[i]->above.items);
        free(n->entries[i]->name);
        free(n->entries[i]);
    }
    free(n->entries);
    free(n->scalar);
    free(n);
}

void fmt_doc_deinit(struct fmt_doc *d)
{
    node_free(d->root);
    free(d->entries);
    free(d->top.items);
    free(d->end.items);
    *d = (struct fmt_doc){.root = NULL};
}

static size_t offset_of(const struct reader *r, yaml_mark_t mark)
{
    return mark.index < r->n_chars ? r->offsets[mark.index] : r->text.n;
}

static void count_characters(struct reader *r)
{
    r->offsets = mem_must_calloc(r->text.n + 1, sizeof(*r->offsets));
    for (size_t i = 0; i < r->text.n; i++) {
        if (((uint8_t)r->text.p[i] & 0xc0U) != 0x80) {
            r->offsets[r->n_chars++] = i;
        }
    }
}

static struct str keep(const yaml_event_t *e, char **ret_owned)
{
    size_t n = e->data.scalar.length;
    *ret_owned = mem_must_strndup((const char *)e->data.scalar.value, n);
    return (struct str){*ret_owned, n};
}

static struct fmt_entry *add_entry(struct reader *r, yaml_mark_t at)
{
    struct fmt_entry *e = mem_must_new(struct fmt_entry);
    e->in = r->open;
    e->start = offset_of(r, at);
    e->line = (unsigned)at.line;
    MEM_GROW(r->open->entries, r->open->n, r->open->cap, 8);
    r->open->entries[r->open->n++] = e;
    MEM_GROW(r->doc->entries, r->doc->n, r->doc->cap, 8);
    r->doc->entries[r->doc->n++] = e;
    return e;
}

/* A value that has begun, to where it belongs. */
static void place(struct reader *r, struct fmt_node *n, yaml_mark_t at)
{
    if (r->open == NULL) {
        r->doc->root = n;
        return;
    }
    struct fmt_entry *e = r->open->kind == FMT_LIST ? add_entry(r, at) : r->waiting;
    r->waiting = NULL;
    POSTERN_ASSERT(e != NULL); /* whoever is not a value has been refused */
    e->value = n;
    n->owner = e;
}

static int take_scalar(struct reader *r, const yaml_event_t *e, struct err *err)
{
    struct range at = {offset_of(r, e->start_mark), offset_of(r, e->end_mark)};
    yaml_scalar_style_t style = e->data.scalar.style;
    if (style == YAML_LITERAL_SCALAR_STYLE || style == YAML_FOLDED_SCALAR_STYLE) {
        for (size_t i = at.from; i < at.to && r->text.p[i] != '\n'; i++) {
            if (r->text.p[i] == '#') {
                err_set(err, ERR_CONFIG, "a comment behind the sign that begins a block of text");
                err_where(err, "%s:%zu", r->name, e->start_mark.line + 1);
                return err_advise(err, "put the comment on a line of its own, above the key");
            }
        }
    }
    MEM_GROW(r->scalars, r->n_scalars, r->cap_scalars, 8);
    r->scalars[r->n_scalars++] = at;
    if (r->open != NULL && r->open->kind == FMT_MAP && r->waiting == NULL) {
        r->waiting = add_entry(r, e->start_mark);
        r->waiting->key = keep(e, &r->waiting->name);
        return 0;
    }
    struct fmt_node *n = mem_must_new(struct fmt_node);
    n->kind = FMT_SCALAR;
    n->text = keep(e, &n->scalar);
    n->quoted = style != YAML_PLAIN_SCALAR_STYLE;
    n->end = at.to;
    n->end_line = (unsigned)e->end_mark.line;
    place(r, n, e->start_mark);
    return 0;
}

static void begin(struct reader *r, enum fmt_kind kind, bool flow, yaml_mark_t at)
{
    struct fmt_node *n = mem_must_new(struct fmt_node);
    n->kind = kind;
    n->flow = flow;
    place(r, n, at);
    r->open = n;
}

static void end(struct reader *r, yaml_mark_t at)
{
    POSTERN_ASSERT(r->open != NULL); /* the parser pairs ends with beginnings */
    r->open->end = offset_of(r, at);
    r->open->end_line = (unsigned)at.line;
    r->open = r->open->owner != NULL ? r->open->owner->in : NULL;
}

static int take_event(struct reader *r, const yaml_event_t *e, struct err *err)
{
    switch (e->type) {
    case YAML_SCALAR_EVENT:
        return take_scalar(r, e, err);
    case YAML_SEQUENCE_START_EVENT:
        begin(r, FMT_LIST, e->data.sequence_start.style == YAML_FLOW_SEQUENCE_STYLE, e->start_mark);
        return 0;
    case YAML_MAPPING_START_EVENT:
        begin(r, FMT_MAP, e->data.mapping_start.style == YAML_FLOW_MAPPING_STYLE, e->start_mark);
        return 0;
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        end(r, e->end_mark);
        return 0;
    case YAML_ALIAS_EVENT:
        err_set(err, ERR_CONFIG, "aliases are not taken");
        return err_where(err, "%s:%zu", r->name, e->start_mark.line + 1);
    case YAML_NO_EVENT:
    case YAML_STREAM_START_EVENT:
    case YAML_STREAM_END_EVENT:
    case YAML_DOCUMENT_START_EVENT:
    case YAML_DOCUMENT_END_EVENT:
        break;
    }
    return 0;
}

static int read_tree(struct reader *r, struct err *err)
{
    yaml_parser_t parser;
    POSTERN_ASSERT(yaml_parser_initialize(&parser) == 1);
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, (const unsigned char *)(r->text.n > 0 ? r->text.p : ""),
                                 r->text.n);
    int rc = 0;
    bool whole = false;
    while (rc == 0 && !whole) {
        yaml_event_t e;
        if (yaml_parser_parse(&parser, &e) != 1) {
            err_set(err, ERR_CONFIG, "not valid YAML: %s",
                    parser.problem != NULL ? parser.problem : "not readable");
            rc = err_where(err, "%s:%zu", r->name, parser.problem_mark.line + 1);
            break;
        }
        whole = e.type == YAML_STREAM_END_EVENT;
        rc = take_event(r, &e, err);
        yaml_event_delete(&e);
    }
    yaml_parser_delete(&parser);
    if (rc == 0 && (r->doc->root == NULL || r->doc->root->kind != FMT_MAP)) {
        err_set(err, ERR_CONFIG, "no policy");
        rc = err_where(err, "%s", r->name);
    }
    return rc;
}

/* --- comments ----------------------------------------------------------------------------------
 */
static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* Whether the line above the one that holds `at` is empty. */
static bool blank_above(struct str text, size_t at)
{
    size_t i = at;
    while (i > 0 && text.p[i - 1] != '\n') {
        i--;
    }
    if (i == 0) {
        return false;
    }
    i--;
    while (i > 0 && is_blank(text.p[i - 1])) {
        i--;
    }
    return i == 0 || text.p[i - 1] == '\n';
}

/* Whether only blanks stand before it on its line. */
static bool is_alone(struct str text, size_t at)
{
    while (at > 0 && is_blank(text.p[at - 1])) {
        at--;
    }
    return at == 0 || text.p[at - 1] == '\n';
}

/* The first entry that begins behind `at`; doc->n: none. */
static size_t next_entry(const struct fmt_doc *d, size_t at)
{
    size_t low = 0;
    size_t high = d->n;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (d->entries[mid]->start < at) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low;
}

/* Whose line a comment ends: of what closed last before it, the outermost. NULL: nobody's. */
static struct fmt_entry *ends_line_of(const struct fmt_doc *d, size_t at, unsigned line)
{
    size_t next = next_entry(d, at);
    if (next == 0) {
        return NULL;
    }
    struct fmt_entry *e = d->entries[next - 1];
    while (e->in->flow && e->in->end <= at && e->in->owner != NULL) {
        e = e->in->owner;
    }
    const struct fmt_node *v = e->value;
    bool closed = v != NULL && (v->kind == FMT_SCALAR || v->flow) && v->end <= at;
    return e->line == line || (closed && v->end_line == line) ? e : NULL;
}

static void add_comment(struct fmt_comments *list, struct str text, bool blank)
{
    MEM_GROW(list->items, list->n, list->cap, 8);
    list->items[list->n++] = (struct fmt_comment){text, blank};
}

static void take_comment(struct reader *r, size_t at, size_t end_at, unsigned line)
{
    struct fmt_doc *d = r->doc;
    while (end_at > at && is_blank(r->text.p[end_at - 1])) {
        end_at--;
    }
    struct str text = {r->text.p + at, end_at - at};
    bool alone = is_alone(r->text, at);
    struct fmt_entry *of = alone ? NULL : ends_line_of(d, at, line);
    bool whole =
        of != NULL && of->value != NULL && (of->value->kind == FMT_SCALAR || of->key.p != NULL);
    if (whole && of->behind.n == 0) {
        of->behind = text;
        return;
    }
    size_t next = of == NULL ? next_entry(d, at) : d->n;
    struct fmt_comments *list = of != NULL    ? &of->above
                                : next == 0   ? &d->top
                                : next < d->n ? &d->entries[next]->above
                                              : &d->end;
    add_comment(list, text, alone && blank_above(r->text, at));
}

static void read_comments(struct reader *r)
{
    size_t scalar = 0;
    unsigned line = 0;
    for (size_t i = 0; i < r->text.n; i++) {
        while (scalar < r->n_scalars && r->scalars[scalar].to <= i) {
            scalar++;
        }
        char c = r->text.p[i];
        line += c == '\n';
        bool inside = scalar < r->n_scalars && r->scalars[scalar].from <= i;
        bool may = i == 0 || is_blank(r->text.p[i - 1]) || r->text.p[i - 1] == '\n';
        if (c != '#' || inside || !may) {
            continue;
        }
        size_t end_at = i;
        while (end_at < r->text.n && r->text.p[end_at] != '\n') {
            end_at++;
        }
        take_comment(r, i, end_at, line);
        i = end_at - 1;
    }
    for (size_t i = 0; i < r->doc->n; i++) {
        struct fmt_entry *e = r->doc->entries[i];
        e->blank = blank_above(r->text, e->start);
    }
}

int fmt_read(const char *name, struct str text, struct fmt_doc *ret, struct err *err)
{
    struct fmt_doc doc = {.root = NULL};
    struct reader r = {.name = name, .text = text, .doc = &doc};
    count_characters(&r);
    int rc = read_tree(&r, err);
    if (rc == 0) {
        read_comments(&r);
        *ret = doc;
    } else {
        fmt_doc_deinit(&doc);
    }
    free(r.offsets);
    free(r.scalars);
    return rc;
}
