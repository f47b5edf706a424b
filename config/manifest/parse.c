/*
 * parse: a text to documents. libyaml splits YAML into events, jansson reads JSON; here they become
 * trees, within bounds, and each document gets the bytes that are its own.
 */
#include <postern/manifest.h>

#include <stdlib.h>
#include <string.h>
#include <yaml.h>

enum { ANCHORS_MAX = 1000, EXPANDED_MAX = 64 << 20 };

struct anchor {
    char *name;
    json_t *tree; /* NULL: its collection has not ended */
};

struct frame {
    json_t *tree;
    char *key;     /* of a mapping: waits for its value */
    size_t anchor; /* its index + 1; 0: none */
};

struct parser {
    const char *name;
    struct err *err;
    struct manifest *m;
    struct frame stack[MANIFEST_DEPTH_MAX];
    size_t depth;
    struct anchor anchors[ANCHORS_MAX];
    size_t n_anchors;
    size_t n_nodes, n_bytes; /* of all documents, aliases expanded */
};

struct manifest *manifest_free(struct manifest *m)
{
    if (m != NULL) {
        for (size_t i = 0; i < m->n; i++) {
            json_decref(m->docs[i].tree);
        }
        free(m->docs);
        free(m);
    }
    return NULL;
}

static struct manifest_doc *add_document(struct manifest *m)
{
    /* By doubling: a power of two is full. */
    if ((m->n & (m->n - 1)) == 0) {
        size_t room = m->n == 0 ? 1 : 2 * m->n;
        m->docs = mem_must_realloc(m->docs, room * sizeof(*m->docs));
    }
    struct manifest_doc *d = &m->docs[m->n++];
    *d = (struct manifest_doc){.line = 1};
    return d;
}

static int refuse(struct parser *p, yaml_mark_t mark, enum err_code code, const char *what,
                  const char *advice)
{
    err_set(p->err, code, "%s", what);
    if (advice != NULL) {
        err_advise(p->err, "%s", advice);
    }
    return err_where(p->err, "%s:%zu:%zu", p->name, mark.line + 1, mark.column + 1);
}

/* --- bounds ----------------------------------------------------------------------------------- */
static void count(const json_t *t, size_t *nodes, size_t *bytes)
{
    const char *key;
    json_t *child;
    size_t i;
    (*nodes)++;
    *bytes += json_string_length(t);
    json_object_foreach((json_t *)(uintptr_t)t, key, child)
    {
        *bytes += strlen(key);
        count(child, nodes, bytes);
    }
    json_array_foreach(t, i, child)
    {
        count(child, nodes, bytes);
    }
}

static size_t depth_of(const json_t *t)
{
    const char *key;
    json_t *child;
    size_t i, most = 0;
    json_object_foreach((json_t *)(uintptr_t)t, key, child)
    {
        size_t d = depth_of(child);
        most = d > most ? d : most;
    }
    json_array_foreach(t, i, child)
    {
        size_t d = depth_of(child);
        most = d > most ? d : most;
    }
    return most + 1;
}

static int charge(struct parser *p, yaml_mark_t mark, size_t nodes, size_t bytes)
{
    p->n_nodes += nodes;
    p->n_bytes += bytes;
    if (p->n_nodes > MANIFEST_NODES_MAX || p->n_bytes > EXPANDED_MAX) {
        return refuse(p, mark, ERR_LIMIT, "more values than are taken, aliases counted each time",
                      "split the file");
    }
    return 0;
}

/* --- from events to trees --------------------------------------------------------------------- */
/* Only what makes a plain text: the type is the scalar's own. */
static bool tag_is_string(const yaml_char_t *tag)
{
    return strcmp((const char *)tag, "tag:yaml.org,2002:str") == 0 ||
           strcmp((const char *)tag, "!") == 0;
}

static int take_anchor(struct parser *p, const yaml_event_t *e, const yaml_char_t *name,
                       json_t *tree, size_t *ret_index)
{
    *ret_index = 0;
    if (name == NULL) {
        return 0;
    }
    size_t i = 0;
    while (i < p->n_anchors && strcmp(p->anchors[i].name, (const char *)name) != 0) {
        i++;
    }
    if (i == ANCHORS_MAX) {
        return refuse(p, e->start_mark, ERR_LIMIT, "more anchors than are taken", NULL);
    }
    if (i == p->n_anchors) {
        p->anchors[p->n_anchors++] = (struct anchor){mem_must_strdup((const char *)name), NULL};
    }
    json_decref(p->anchors[i].tree);
    p->anchors[i].tree = json_incref(tree);
    *ret_index = i + 1;
    return 0;
}

/* As kubectl: a key that reads as a boolean or whole number is that one's text. */
static int make_key(struct parser *p, const yaml_event_t *e, char **ret)
{
    struct str s = {(const char *)e->data.scalar.value, e->data.scalar.length};
    bool plain = e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE && e->data.scalar.tag == NULL;
    if (plain && str_eq(s, STR_LIT("<<"))) {
        return refuse(p, e->start_mark, ERR_CONFIG, "merge keys are not taken",
                      "write the keys out");
    }
    for (size_t i = 0; i < s.n; i++) {
        if ((unsigned char)s.p[i] < ' ' || s.p[i] == 0x7f) {
            return refuse(p, e->start_mark, ERR_CONFIG, "a control character in a key", NULL);
        }
    }
    if (s.n > MANIFEST_KEY_MAX) {
        return refuse(p, e->start_mark, ERR_LIMIT, "a key longer than any of Kubernetes", NULL);
    }
    json_t *v = plain ? manifest_scalar(s) : json_stringn(s.p, s.n);
    if (json_is_string(v)) {
        *ret = mem_must_strndup(json_string_value(v), s.n);
    } else if (json_is_boolean(v)) {
        *ret = mem_must_strdup(json_is_true(v) ? "true" : "false");
    } else if (json_is_integer(v)) {
        *ret = mem_must_printf("%lld", (long long)json_integer_value(v));
    } else {
        json_decref(v);
        return refuse(p, e->start_mark, ERR_CONFIG, "a key that is no text", "put it into quotes");
    }
    json_decref(v);
    return 0;
}

/* Puts a value where it belongs; takes it in any case. */
static int place(struct parser *p, yaml_mark_t mark, json_t *tree)
{
    if (p->depth == 0) {
        struct manifest_doc *d = &p->m->docs[p->m->n - 1];
        json_decref(d->tree);
        d->tree = tree;
        d->line = (unsigned)mark.line + 1;
        return 0;
    }
    struct frame *f = &p->stack[p->depth - 1];
    if (json_is_array(f->tree)) {
        return json_array_append_new(f->tree, tree);
    }
    if (f->key == NULL) {
        json_decref(tree);
        return refuse(p, mark, ERR_CONFIG, "a key that is no text", NULL);
    }
    POSTERN_ASSERT(json_object_set_new(f->tree, f->key, tree) == 0);
    free(f->key);
    f->key = NULL;
    return 0;
}

static bool wants_key(const struct parser *p)
{
    return p->depth > 0 && json_is_object(p->stack[p->depth - 1].tree) &&
           p->stack[p->depth - 1].key == NULL;
}

static int take_key(struct parser *p, const yaml_event_t *e)
{
    struct frame *f = &p->stack[p->depth - 1];
    char *key = NULL;
    if (make_key(p, e, &key) != 0) {
        return -1;
    }
    POSTERN_ASSERT(key != NULL);
    if (json_object_get(f->tree, key) != NULL) {
        free(key);
        return refuse(p, e->start_mark, ERR_CONFIG, "a key for the second time in one mapping",
                      "keep one of them");
    }
    f->key = key;
    return charge(p, e->start_mark, 0, strlen(key));
}

static int take_scalar(struct parser *p, const yaml_event_t *e)
{
    const yaml_char_t *tag = e->data.scalar.tag;
    struct str s = {(const char *)e->data.scalar.value, e->data.scalar.length};
    size_t anchor;
    if (tag != NULL && !tag_is_string(tag)) {
        return refuse(p, e->start_mark, ERR_CONFIG, "a tag other than !!str", "remove it");
    }
    if (wants_key(p)) {
        return e->data.scalar.anchor != NULL
                   ? refuse(p, e->start_mark, ERR_CONFIG, "an anchor of a key", "remove it")
                   : take_key(p, e);
    }
    if (memchr(s.p, '\0', s.n) != NULL) {
        return refuse(p, e->start_mark, ERR_CONFIG, "a NUL character in a text", NULL);
    }
    bool plain = e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE && tag == NULL;
    json_t *v = plain ? manifest_scalar(s) : json_stringn(s.p, s.n);
    if (v == NULL) {
        return refuse(p, e->start_mark, ERR_CONFIG,
                      "a value that JSON, and so Kubernetes, has no number for",
                      "put it into quotes if it is a text");
    }
    if (charge(p, e->start_mark, 1, s.n) != 0 ||
        take_anchor(p, e, e->data.scalar.anchor, v, &anchor) != 0) {
        json_decref(v);
        return -1;
    }
    return place(p, e->start_mark, v);
}

static int take_alias(struct parser *p, const yaml_event_t *e)
{
    const char *name = (const char *)e->data.alias.anchor;
    size_t nodes = 0, bytes = 0;
    size_t i = 0;
    if (wants_key(p)) {
        return refuse(p, e->start_mark, ERR_CONFIG, "an alias as a key", "write it out");
    }
    while (i < p->n_anchors && strcmp(p->anchors[i].name, name) != 0) {
        i++;
    }
    if (i == p->n_anchors) {
        return refuse(p, e->start_mark, ERR_CONFIG, "an alias without its anchor", NULL);
    }
    const json_t *tree = p->anchors[i].tree;
    if (tree == NULL) {
        return refuse(p, e->start_mark, ERR_CONFIG, "an alias inside of what it stands for", NULL);
    }
    count(tree, &nodes, &bytes);
    if (depth_of(tree) + p->depth > MANIFEST_DEPTH_MAX) {
        return refuse(p, e->start_mark, ERR_LIMIT, "nested too deeply", NULL);
    }
    return charge(p, e->start_mark, nodes, bytes) != 0
               ? -1
               : place(p, e->start_mark, json_deep_copy(tree));
}

static int open_collection(struct parser *p, const yaml_event_t *e, json_t *tree,
                           const yaml_char_t *anchor, const yaml_char_t *tag)
{
    struct frame *f = &p->stack[p->depth];
    int r = 0;
    if (tag != NULL) {
        r = refuse(p, e->start_mark, ERR_CONFIG, "a tag other than !!str", "remove it");
    } else if (wants_key(p)) {
        r = refuse(p, e->start_mark, ERR_CONFIG, "a key that is no text", NULL);
    } else if (p->depth == MANIFEST_DEPTH_MAX) {
        r = refuse(p, e->start_mark, ERR_LIMIT, "nested too deeply", NULL);
    } else {
        r = charge(p, e->start_mark, 1, 0);
    }
    if (r == 0) {
        *f = (struct frame){.tree = tree};
        r = take_anchor(p, e, anchor, NULL, &f->anchor);
    }
    if (r != 0) {
        json_decref(tree);
        return -1;
    }
    if (p->depth == 0) {
        p->m->docs[p->m->n - 1].line = (unsigned)e->start_mark.line + 1;
    }
    p->depth++;
    return 0;
}

static int close_collection(struct parser *p, const yaml_event_t *e)
{
    struct frame *f = &p->stack[--p->depth];
    json_t *tree = f->tree;
    unsigned line = p->m->docs[p->m->n - 1].line;
    f->tree = NULL;
    if (f->anchor > 0) {
        json_decref(p->anchors[f->anchor - 1].tree);
        p->anchors[f->anchor - 1].tree = json_incref(tree);
    }
    int r = place(p, e->start_mark, tree);
    p->m->docs[p->m->n - 1].line = line;
    return r;
}

static void forget_anchors(struct parser *p)
{
    for (size_t i = 0; i < p->n_anchors; i++) {
        free(p->anchors[i].name);
        json_decref(p->anchors[i].tree);
    }
    p->n_anchors = 0;
}

static void forget(struct parser *p)
{
    while (p->depth > 0) {
        p->depth--;
        json_decref(p->stack[p->depth].tree);
        free(p->stack[p->depth].key);
    }
    forget_anchors(p);
}

/* --- which bytes are whose -------------------------------------------------------------------- */
/* How many bytes end a line here, as libyaml counts lines; 0: none do. */
static size_t line_end(struct str s, size_t at)
{
    const unsigned char *u = (const unsigned char *)s.p + at;
    size_t left = s.n - at;
    if (u[0] == '\r' && left > 1 && u[1] == '\n') {
        return 2;
    }
    if (u[0] == '\n' || u[0] == '\r') {
        return 1;
    }
    if (u[0] == 0xc2 && left > 1 && u[1] == 0x85) {
        return 2;
    }
    return u[0] == 0xe2 && left > 2 && u[1] == 0x80 && (u[2] == 0xa8 || u[2] == 0xa9) ? 3 : 0;
}

static size_t next_line(struct str s, size_t at)
{
    while (at < s.n) {
        size_t end = line_end(s, at);
        if (end > 0) {
            return at + end;
        }
        at++;
    }
    return at;
}

/* A separator without content, a comment, or nothing. */
static bool is_header_line(struct str line)
{
    size_t at = 0;
    if (str_has_prefix(line, STR_LIT("\xef\xbb\xbf"))) {
        at = 3;
    }
    if (line.n - at >= 3 && memcmp(line.p + at, "---", 3) == 0) {
        at += 3;
    }
    while (at < line.n && (line.p[at] == ' ' || line.p[at] == '\t')) {
        at++;
    }
    return at == line.n || line.p[at] == '#' || line_end(line, at) > 0;
}

/* Documents begin at these lines (from 0), the first at the text's own beginning. */
static void cut(struct manifest *m, struct str text, const size_t *starts)
{
    size_t at = 0, line = 0;
    for (size_t i = 0; i < m->n; i++) {
        struct manifest_doc *d = &m->docs[i];
        size_t begin = at;
        bool header = true;
        while (at < text.n && (i + 1 == m->n || line < starts[i + 1])) {
            size_t end = next_line(text, at);
            header =
                header && line + 1 < d->line && is_header_line((struct str){text.p + at, end - at});
            if (header) {
                d->header_len = end - begin;
            }
            at = end;
            line++;
        }
        d->bytes = (struct str){text.p + begin, at - begin};
    }
}

/* --- YAML ------------------------------------------------------------------------------------- */
static int begin_document(struct parser *p, const yaml_event_t *e, size_t **starts)
{
    if (e->data.document_start.version_directive != NULL ||
        e->data.document_start.tag_directives.start != e->data.document_start.tag_directives.end) {
        return refuse(p, e->start_mark, ERR_CONFIG, "directives are not taken", "remove them");
    }
    if (p->m->n > 0 && e->data.document_start.implicit) {
        return refuse(p, e->start_mark, ERR_CONFIG, "a further document without ---",
                      "begin it with a line of ---");
    }
    if (p->m->n == MANIFEST_DOCUMENTS_MAX) {
        return refuse(p, e->start_mark, ERR_LIMIT, "more documents than are taken", NULL);
    }
    add_document(p->m);
    *starts = mem_must_realloc(*starts, (p->m->n + 1) * sizeof(**starts));
    (*starts)[p->m->n - 1] = e->start_mark.line;
    return 0;
}

static int take_event(struct parser *p, const yaml_event_t *e, size_t **starts)
{
    switch (e->type) {
    case YAML_DOCUMENT_START_EVENT:
        return begin_document(p, e, starts);
    case YAML_DOCUMENT_END_EVENT:
        forget_anchors(p);
        return 0;
    case YAML_ALIAS_EVENT:
        return take_alias(p, e);
    case YAML_SCALAR_EVENT:
        return take_scalar(p, e);
    case YAML_SEQUENCE_START_EVENT:
        return open_collection(p, e, json_array(), e->data.sequence_start.anchor,
                               e->data.sequence_start.tag);
    case YAML_MAPPING_START_EVENT:
        return open_collection(p, e, json_object(), e->data.mapping_start.anchor,
                               e->data.mapping_start.tag);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        return close_collection(p, e);
    case YAML_NO_EVENT:
    case YAML_STREAM_START_EVENT:
    case YAML_STREAM_END_EVENT:
        return 0;
    }
    return 0;
}

static int syntax(struct parser *p, const yaml_parser_t *y)
{
    char what[300];
    if (y->error == YAML_READER_ERROR) {
        err_set(p->err, ERR_CONFIG, "not text: %s, at byte %zu",
                y->problem != NULL ? y->problem : "not readable", y->problem_offset);
        err_expected(p->err, "UTF-8");
        return err_where(p->err, "%s", p->name);
    }
    snprintf(what, sizeof(what), "not valid YAML: %s%s%s", y->context != NULL ? y->context : "",
             y->context != NULL ? " " : "", y->problem != NULL ? y->problem : "not readable");
    return refuse(p, y->problem_mark, ERR_CONFIG, what, NULL);
}

static int parse_yaml(struct parser *p, struct str text)
{
    yaml_parser_t y;
    mem_autofree size_t *starts = NULL;
    bool end = false;
    int r = 0;
    POSTERN_ASSERT(yaml_parser_initialize(&y) == 1);
    yaml_parser_set_encoding(&y, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&y, (const unsigned char *)(text.n > 0 ? text.p : ""), text.n);
    while (r == 0 && !end) {
        yaml_event_t e;
        if (yaml_parser_parse(&y, &e) != 1) {
            r = syntax(p, &y);
            break;
        }
        end = e.type == YAML_STREAM_END_EVENT;
        r = take_event(p, &e, &starts);
        yaml_event_delete(&e);
    }
    yaml_parser_delete(&y);
    if (r == 0 && p->m->n == 0) { /* nothing, or comments alone */
        add_document(p->m)->tree = json_null();
    }
    if (r == 0) {
        cut(p->m, text, starts);
    }
    return r;
}

/* --- JSON ------------------------------------------------------------------------------------- */
static size_t skip_blanks(struct str text, size_t at)
{
    while (at < text.n && strchr(" \t\r\n", text.p[at]) != NULL && text.p[at] != '\0') {
        at++;
    }
    return at;
}

static unsigned newlines(struct str text, size_t from, size_t to)
{
    unsigned n = 0;
    for (size_t i = from; i < to; i++) {
        n += text.p[i] == '\n' ? 1 : 0;
    }
    return n;
}

static int parse_json(struct parser *p, struct str text)
{
    size_t at = 0, content = skip_blanks(text, 0);
    unsigned line = 1 + newlines(text, 0, content);
    while (content < text.n) {
        json_error_t e;
        if (p->m->n == MANIFEST_DOCUMENTS_MAX) {
            return err_set(p->err, ERR_LIMIT, "more documents than are taken");
        }
        json_t *tree = json_loadb(text.p + content, text.n - content,
                                  JSON_REJECT_DUPLICATES | JSON_DISABLE_EOF_CHECK, &e);
        if (tree == NULL) {
            err_set(p->err, ERR_CONFIG, "not valid JSON: %s", e.text);
            return err_where(p->err, "%s:%u:%d", p->name, line + (unsigned)e.line - 1, e.column);
        }
        struct manifest_doc *d = add_document(p->m);
        size_t nodes = 0, bytes = 0;
        *d = (struct manifest_doc){.tree = tree, .header_len = content - at, .line = line};
        if (depth_of(tree) > MANIFEST_DEPTH_MAX) {
            err_set(p->err, ERR_LIMIT, "nested too deeply");
            return err_where(p->err, "%s", p->name);
        }
        count(tree, &nodes, &bytes);
        if (charge(p, (yaml_mark_t){.line = line - 1}, nodes, bytes) != 0) {
            return -1;
        }
        size_t end = content + (size_t)e.position;
        size_t next = skip_blanks(text, end);
        line += newlines(text, content, next);
        content = next;
        end = content == text.n ? text.n : end;
        d->bytes = (struct str){text.p + at, end - at};
        at = end;
    }
    return 0;
}

struct manifest *manifest_parse(const char *name, struct str text, struct err *err)
{
    struct parser *p = mem_must_new(struct parser);
    size_t first = skip_blanks(text, 0);
    struct err json_err = ERR_INIT;
    int r = -1;
    p->name = name;
    p->err = err;
    p->m = mem_must_new(struct manifest);
    if (text.n > MANIFEST_TEXT_MAX) {
        err_set(err, ERR_LIMIT, "larger than %d bytes", MANIFEST_TEXT_MAX);
        err_where(err, "%s", name);
    } else if (first < text.n && text.p[first] == '{') {
        /* A mapping in YAML's flow style begins alike: that is tried next. */
        p->err = &json_err;
        p->m->form = MANIFEST_JSON;
        r = parse_json(p, text);
    }
    if (r != 0 && text.n <= MANIFEST_TEXT_MAX) {
        manifest_free(p->m);
        p->m = mem_must_new(struct manifest);
        p->n_nodes = p->n_bytes = 0;
        p->err = err;
        r = parse_yaml(p, text);
        if (r != 0 && json_err.code == ERR_LIMIT && err != NULL) {
            *err = json_err;
        }
    }
    struct manifest *m = r == 0 ? p->m : manifest_free(p->m);
    forget(p);
    free(p);
    return m;
}
