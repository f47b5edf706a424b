/*
 * yaml: bytes to a tree whose every node knows its line and column. libyaml splits the text into
 * events; this file keeps what a configuration needs and refuses the rest of YAML: no anchors, no
 * aliases, no tags, no merge keys, no key twice, and of our own files no second document. All of it
 * is bounded, so that a file cannot cost more than its size suggests.
 */
#include <postern/conf.h>

#include <postern/mem.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "config_priv.h"

/* Nodes and their text live in blocks that go together. */
struct block {
    struct block *next;
    size_t used, size;
    _Alignas(8) char data[];
};

struct tree {
    struct block *blocks;
    struct node *root;
    size_t n_nodes;
};

static void *tree_alloc(struct tree *t, size_t n)
{
    enum { BLOCK = 32 * 1024 };
    n = (n + 7) & ~(size_t)7;
    if (t->blocks == NULL || t->blocks->size - t->blocks->used < n) {
        size_t size = n > BLOCK ? n : BLOCK;
        struct block *b = mem_must_calloc(1, sizeof(*b) + size);
        b->size = size;
        b->next = t->blocks;
        t->blocks = b;
    }
    void *p = t->blocks->data + t->blocks->used;
    t->blocks->used += n;
    return p;
}

struct tree *tree_free(struct tree *t)
{
    if (t == NULL) {
        return NULL;
    }
    struct block *b = t->blocks;
    while (b != NULL) {
        struct block *next = b->next;
        free(b);
        b = next;
    }
    free(t);
    return NULL;
}

const struct node *tree_root(const struct tree *t)
{
    return t->root;
}

size_t tree_count(const struct tree *t)
{
    return t->n_nodes;
}

const struct node *node_get(const struct node *map, const char *key)
{
    if (map == NULL || map->kind != NODE_MAP) {
        return NULL;
    }
    for (const struct node *n = map->child; n != NULL; n = n->next) {
        if (str_eq(n->key->text, str_of(key))) {
            return n;
        }
    }
    return NULL;
}

bool node_is_null(const struct node *n)
{
    return n->kind == NODE_SCALAR && !n->quoted &&
           (n->text.n == 0 || str_eq(n->text, STR_LIT("~")) ||
            str_eq_nocase(n->text, STR_LIT("null")));
}

/* --- from events to nodes --------------------------------------------------------------------- */
struct builder {
    struct context *c;
    struct tree *tree;
    struct node *open[CONFIG_DEPTH_MAX];      /* collections that have begun */
    const struct node *key[CONFIG_DEPTH_MAX]; /* in a mapping: the key that waits for its value */
    size_t depth;
    size_t n_documents;
    bool many; /* documents; then the root is there from the beginning */
};

static void place_of(yaml_mark_t mark, unsigned *ret_line, unsigned *ret_column)
{
    *ret_line = (unsigned)mark.line + 1;
    *ret_column = (unsigned)mark.column + 1;
}

static struct node *node_new(struct builder *b, enum node_kind kind, yaml_mark_t mark)
{
    struct node *n = tree_alloc(b->tree, sizeof(*n));
    n->kind = kind;
    place_of(mark, &n->line, &n->column);
    b->tree->n_nodes++;
    return n;
}

static struct node *scalar_new(struct builder *b, const yaml_event_t *e)
{
    const char *p = (const char *)e->data.scalar.value;
    size_t len = e->data.scalar.length;
    struct node *n = node_new(b, NODE_SCALAR, e->start_mark);
    if (memchr(p, '\0', len) != NULL) {
        report(b->c, n, "text", NULL, "a NUL character in a text");
        n->kind = NODE_BAD;
        len = 0;
    }
    char *copy = tree_alloc(b->tree, len + 1);
    memcpy(copy, p, len);
    copy[len] = '\0';
    n->text = (struct str){copy, len};
    n->quoted = e->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    return n;
}

/* Puts a finished or just begun node where it belongs. False: it stands where only a key may. */
static bool place_node(struct builder *b, struct node *n)
{
    if (b->depth == 0 && !b->many) {
        b->tree->root = n;
        return true;
    }
    struct node *parent = b->depth == 0 ? b->tree->root : b->open[b->depth - 1];
    if (parent->kind == NODE_MAP) {
        const struct node **key = &b->key[b->depth - 1];
        if (*key == NULL) {
            if (n->kind == NODE_LIST || n->kind == NODE_MAP) {
                report(b->c, n, "text as the key", NULL, "a key that is no text");
                return false;
            }
            if (!n->quoted && str_eq(n->text, STR_LIT("<<"))) {
                report(b->c, n, NULL, "write the keys out", "merge keys are not taken");
                n->kind = NODE_BAD;
            }
            *key = n;
            return true;
        }
        n->key = *key;
        *key = NULL;
    }
    if (parent->last == NULL) {
        parent->child = n;
    } else {
        parent->last->next = n;
    }
    parent->last = n;
    parent->n++;
    return true;
}

static int compare_keys(const void *pa, const void *pb)
{
    const struct node *a = *(const struct node *const *)pa;
    const struct node *b = *(const struct node *const *)pb;
    size_t n = a->key->text.n < b->key->text.n ? a->key->text.n : b->key->text.n;
    int r = memcmp(a->key->text.p, b->key->text.p, n);
    if (r != 0) {
        return r;
    }
    if (a->key->text.n != b->key->text.n) {
        return a->key->text.n < b->key->text.n ? -1 : 1;
    }
    if (a->key->line != b->key->line) {
        return a->key->line < b->key->line ? -1 : 1;
    }
    return a->key->column < b->key->column ? -1 : 1;
}

/* Sorted, because a file may hold a mapping with very many keys. */
static void drop_duplicates(struct builder *b, struct node *map)
{
    if (map->n < 2) {
        return;
    }
    mem_autofree struct node **sorted = mem_must_calloc(map->n, sizeof(*sorted));
    size_t i = 0;
    for (struct node *n = map->child; n != NULL; n = n->next) {
        sorted[i++] = n;
    }
    qsort(sorted, map->n, sizeof(*sorted), compare_keys);
    const struct node *first = sorted[0];
    for (i = 1; i < map->n; i++) {
        struct node *n = sorted[i];
        if (!str_eq(n->key->text, first->key->text)) {
            first = n;
            continue;
        }
        struct shown s;
        char advice[100];
        snprintf(advice, sizeof(advice), "it stands at line %u, column %u already; keep one",
                 first->key->line, first->key->column);
        report(b->c, n->key, NULL, advice, "duplicate key %s", show(&s, n->key->text));
        n->kind = NODE_BAD;
    }
}

static bool open_collection(struct builder *b, const yaml_event_t *e, enum node_kind kind)
{
    struct node *n = node_new(b, kind, e->start_mark);
    if (!place_node(b, n)) {
        return false;
    }
    if (b->depth == CONFIG_DEPTH_MAX) {
        report(b->c, n, NULL, NULL, "nested deeper than %d levels", CONFIG_DEPTH_MAX);
        return false;
    }
    b->key[b->depth] = NULL;
    b->open[b->depth++] = n;
    return true;
}

static void refuse_decorations(struct builder *b, const yaml_event_t *e, const yaml_char_t *anchor,
                               const yaml_char_t *tag)
{
    unsigned line;
    unsigned column;
    place_of(e->start_mark, &line, &column);
    if (anchor != NULL) {
        report_at(b->c, line, column, NULL, "write the value out where it is used",
                  "anchors are not taken");
    }
    if (tag != NULL) {
        report_at(b->c, line, column, NULL, "remove it: each key has its own type",
                  "tags are not taken");
    }
}

static bool begin_document(struct builder *b, const yaml_event_t *e)
{
    unsigned line;
    unsigned column;
    place_of(e->start_mark, &line, &column);
    if (b->n_documents++ > 0 && !b->many) {
        report_at(b->c, line, column, "one document in a file", "put it into a file of its own",
                  "a second document begins");
        return false;
    }
    if (e->data.document_start.version_directive != NULL ||
        e->data.document_start.tag_directives.start != e->data.document_start.tag_directives.end) {
        report_at(b->c, line, column, NULL, "remove them", "directives (%%) are not taken");
    }
    return true;
}

static size_t nodes_max(const struct context *c)
{
    return c->bounds.nodes > 0 ? c->bounds.nodes : CONFIG_NODES_MAX;
}

/* False: no use in reading on. */
static bool take_event(struct builder *b, const yaml_event_t *e)
{
    if (b->tree->n_nodes >= nodes_max(b->c)) {
        unsigned line;
        unsigned column;
        place_of(e->start_mark, &line, &column);
        report_at(b->c, line, column, NULL, NULL, "more than %zu values in one file",
                  nodes_max(b->c));
        return false;
    }
    switch (e->type) {
    case YAML_DOCUMENT_START_EVENT:
        return begin_document(b, e);
    case YAML_ALIAS_EVENT: {
        struct node *n = node_new(b, NODE_BAD, e->start_mark);
        n->text = STR_LIT("*");
        report(b->c, n, NULL, "write the value out; a text that begins with * stands in quotes",
               "aliases are not taken");
        return place_node(b, n);
    }
    case YAML_SCALAR_EVENT:
        refuse_decorations(b, e, e->data.scalar.anchor, e->data.scalar.tag);
        return place_node(b, scalar_new(b, e));
    case YAML_SEQUENCE_START_EVENT:
        refuse_decorations(b, e, e->data.sequence_start.anchor, e->data.sequence_start.tag);
        return open_collection(b, e, NODE_LIST);
    case YAML_MAPPING_START_EVENT:
        refuse_decorations(b, e, e->data.mapping_start.anchor, e->data.mapping_start.tag);
        return open_collection(b, e, NODE_MAP);
    case YAML_MAPPING_END_EVENT:
        drop_duplicates(b, b->open[b->depth - 1]);
        b->depth--;
        return true;
    case YAML_SEQUENCE_END_EVENT:
        b->depth--;
        return true;
    case YAML_NO_EVENT:
    case YAML_STREAM_START_EVENT:
    case YAML_STREAM_END_EVENT:
    case YAML_DOCUMENT_END_EVENT:
        return true;
    }
    return true;
}

/* The reader knows how many bytes it took, not on which line they are. */
static void report_reader(struct context *c, const yaml_parser_t *p, const char *text, size_t len)
{
    size_t end = p->problem_offset < len ? p->problem_offset : len;
    unsigned line = 1;
    size_t begin = 0;
    for (size_t i = 0; i < end; i++) {
        if (text[i] == '\n') {
            line++;
            begin = i + 1;
        }
    }
    report_at(c, line, (unsigned)(end - begin) + 1, "UTF-8 text", NULL, "not text: %s",
              p->problem != NULL ? p->problem : "not readable");
}

static void report_syntax(struct context *c, const yaml_parser_t *p)
{
    unsigned line;
    unsigned column;
    place_of(p->problem_mark, &line, &column);
    const char *problem = p->problem != NULL ? p->problem : "not readable";
    const char *advice = NULL;
    if (strstr(problem, "tab character") != NULL) {
        advice = "indent with blanks";
    } else if (strstr(problem, "cannot start any token") != NULL) {
        advice =
            "indent with blanks; a text that begins with a sign such as @ or % stands in quotes";
    }
    if (p->context != NULL) {
        report_at(c, line, column, NULL, advice, "not valid YAML: %s %s", p->context, problem);
    } else {
        report_at(c, line, column, NULL, advice, "not valid YAML: %s", problem);
    }
}

static struct tree *parse(struct context *c, const char *text, size_t len, bool many)
{
    size_t max = c->bounds.bytes > 0 ? c->bounds.bytes : CONFIG_FILE_MAX;
    if (len > max) {
        report_at(c, 1, 1, NULL, NULL, "larger than %zu bytes", max);
        return NULL;
    }
    yaml_parser_t parser;
    POSTERN_ASSERT(yaml_parser_initialize(&parser) == 1);
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, (const unsigned char *)(len > 0 ? text : ""), len);

    struct builder b = {.c = c, .tree = mem_must_new(struct tree), .many = many};
    if (many) {
        b.tree->root = node_new(&b, NODE_LIST, (yaml_mark_t){.index = 0});
    }
    bool go_on = true;
    bool whole = false;
    while (go_on) {
        yaml_event_t e;
        if (yaml_parser_parse(&parser, &e) != 1) {
            if (parser.error == YAML_READER_ERROR) {
                report_reader(c, &parser, text, len);
            } else {
                report_syntax(c, &parser);
            }
            break;
        }
        whole = e.type == YAML_STREAM_END_EVENT;
        go_on = take_event(&b, &e) && !whole;
        yaml_event_delete(&e);
    }
    yaml_parser_delete(&parser);
    if (whole && b.tree->root == NULL) {
        report_at(c, 1, 1, "a mapping that begins with 'kind:' and 'level:'", NULL,
                  "the file is empty");
    }
    /* Half a tree would only bring errors about what is missing in it. */
    return whole && b.tree->root != NULL ? b.tree : tree_free(b.tree);
}

struct tree *tree_parse(struct context *c, const char *text, size_t len)
{
    return parse(c, text, len, false);
}

struct tree *tree_parse_documents(struct context *c, const char *text, size_t len)
{
    return parse(c, text, len, true);
}
