/* hcl: HCL 1, as far as configurations of flat tools go. What would be taken in two ways, and what
 * belongs to larger things (here-documents, interpolation, labels), is refused and not guessed. */
#include "hcl_priv.h"

#include <postern/mem.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEY_MAX = 100 };

struct cursor {
    const char *name;
    const char *p, *end;
    const char *line_start;
    unsigned line;
    size_t n_nodes;
    struct err *err;
};

/* --- places ----------------------------------------------------------------------------------- */
static unsigned column(const struct cursor *c)
{
    return (unsigned)(c->p - c->line_start) + 1;
}

static int fail(struct cursor *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int fail(struct cursor *c, const char *fmt, ...)
{
    char what[200];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(what, sizeof(what), fmt, ap);
    va_end(ap);
    err_set(c->err, ERR_CONFIG, "%s", what);
    return err_where(c->err, "%s:%u:%u", c->name, c->line, column(c));
}

static void step(struct cursor *c)
{
    if (*c->p == '\n') {
        c->line++;
        c->line_start = c->p + 1;
    }
    c->p++;
}

static bool at(const struct cursor *c, char ch)
{
    return c->p < c->end && *c->p == ch;
}

static bool at_two(const struct cursor *c, const char *two)
{
    return c->end - c->p >= 2 && memcmp(c->p, two, 2) == 0;
}

/* Blanks, line ends and comments. */
static int skip(struct cursor *c)
{
    while (c->p < c->end) {
        if (*c->p == ' ' || *c->p == '\t' || *c->p == '\r' || *c->p == '\n') {
            step(c);
        } else if (*c->p == '#' || at_two(c, "//")) {
            while (c->p < c->end && *c->p != '\n') {
                step(c);
            }
        } else if (at_two(c, "/*")) {
            step(c);
            step(c);
            while (c->p < c->end && !at_two(c, "*/")) {
                step(c);
            }
            if (c->p == c->end) {
                return fail(c, "a comment that does not end");
            }
            step(c);
            step(c);
        } else {
            return 0;
        }
    }
    return 0;
}

/* --- nodes ------------------------------------------------------------------------------------ */
static struct hcl_node *node_new(struct cursor *c, enum hcl_kind kind)
{
    struct hcl_node *n;

    if (++c->n_nodes > HCL_NODES_MAX) {
        (void)fail(c, "more than %d values", HCL_NODES_MAX);
        return NULL;
    }
    n = mem_must_new(struct hcl_node);
    n->kind = kind;
    n->line = c->line;
    n->column = column(c);
    return n;
}

struct hcl_node *hcl_free(struct hcl_node *n)
{
    while (n != NULL) {
        struct hcl_node *next = n->next;

        (void)hcl_free(n->child); /* at most HCL_DEPTH_MAX below each other */
        free(n->key);
        free(n->text);
        free(n);
        n = next;
    }
    return NULL;
}

static void add(struct hcl_node *to, struct hcl_node *child)
{
    if (to->child == NULL) {
        to->child = child;
    } else {
        to->last->next = child;
    }
    to->last = child;
}

/* --- words and numbers ------------------------------------------------------------------------ */
static bool is_word_byte(char ch, bool first)
{
    return (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || ch == '_' ||
           (!first && ((ch >= '0' && ch <= '9') || ch == '-' || ch == '.'));
}

static struct str take_word(struct cursor *c)
{
    const char *from = c->p;

    while (c->p < c->end && is_word_byte(*c->p, c->p == from)) {
        c->p++;
    }
    return (struct str){from, (size_t)(c->p - from)};
}

static bool is_number_byte(char ch)
{
    return (ch >= '0' && ch <= '9') || (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') ||
           ch == '.' || ch == '-' || ch == '+';
}

/* --- strings ---------------------------------------------------------------------------------- */
static int hex_value(char ch)
{
    return ch >= '0' && ch <= '9'   ? ch - '0'
           : ch >= 'a' && ch <= 'f' ? ch - 'a' + 10
           : ch >= 'A' && ch <= 'F' ? ch - 'A' + 10
                                    : -1;
}

static size_t put_utf8(uint32_t code, char *out)
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (char)(0xc0 | code >> 6);
        out[1] = (char)(0x80 | (code & 0x3f));
        return 2;
    }
    out[0] = (char)(0xe0 | code >> 12);
    out[1] = (char)(0x80 | (code >> 6 & 0x3f));
    out[2] = (char)(0x80 | (code & 0x3f));
    return 3;
}

/* \uXXXX, after the u. */
static int take_code(struct cursor *c, char *out, size_t *n)
{
    uint32_t code = 0;

    for (int i = 0; i < 4; i++) {
        int v = c->p < c->end ? hex_value(*c->p) : -1;

        if (v == -1) {
            return fail(c, "\\u without four hexadecimal digits");
        }
        code = code << 4 | (uint32_t)v;
        c->p++;
    }
    if (code == 0 || (code >= 0xd800 && code <= 0xdfff)) {
        return fail(c, "\\u%04x in a string", (unsigned)code);
    }
    *n += put_utf8(code, out + *n);
    return 0;
}

/* After the backslash. */
static int take_escape(struct cursor *c, char *out, size_t *n)
{
    static const char from[] = "abfnrtv\\\"", to[] = "\a\b\f\n\r\t\v\\\"";
    char ch = c->p < c->end ? *c->p : '\0';
    const char *found = ch != '\0' ? strchr(from, ch) : NULL;

    if (ch == 'u') {
        c->p++;
        return take_code(c, out, n);
    }
    if (found == NULL) {
        return fail(c, "an escape in a string that is not \\\", \\\\, \\n, \\t or \\uXXXX");
    }
    out[(*n)++] = to[found - from];
    c->p++;
    return 0;
}

/* From the quote on; the caller's to free(). */
static char *take_string(struct cursor *c)
{
    /* No escape is longer than what it is written as. */
    mem_autofree char *out = mem_must_calloc((size_t)(c->end - c->p) + 1, 1);
    char *ret;
    size_t n = 0;

    c->p++;
    while (c->p < c->end && *c->p != '"') {
        if (*c->p == '\n' || *c->p == '\0') {
            (void)fail(c, "a string that goes over its line");
            return NULL;
        }
        if (at_two(c, "${")) {
            (void)fail(c, "'${' in a string: there is no interpolation here");
            return NULL;
        }
        if (*c->p == '\\') {
            c->p++;
            if (take_escape(c, out, &n) == -1) {
                return NULL;
            }
        } else {
            out[n++] = *c->p++;
        }
    }
    if (c->p == c->end) {
        (void)fail(c, "a string that does not end");
        return NULL;
    }
    c->p++;
    ret = mem_must_strndup(out, n);
    return ret;
}

/* --- values ----------------------------------------------------------------------------------- */
static struct hcl_node *take_value(struct cursor *c, unsigned depth);
static int take_items(struct cursor *c, struct hcl_node *object, unsigned depth);

static struct hcl_node *take_list(struct cursor *c, unsigned depth)
{
    struct hcl_node *list = node_new(c, HCL_LIST);

    if (list == NULL) {
        return NULL;
    }
    c->p++;
    for (;;) {
        struct hcl_node *element;

        if (skip(c) == -1) {
            return hcl_free(list);
        }
        if (at(c, ']')) {
            c->p++;
            return list;
        }
        element = take_value(c, depth + 1);
        if (element == NULL) {
            return hcl_free(list);
        }
        add(list, element);
        if (skip(c) == -1) {
            return hcl_free(list);
        }
        if (at(c, ',')) {
            c->p++;
        } else if (!at(c, ']')) {
            (void)fail(c, "a list goes on without ',' or ']'");
            return hcl_free(list);
        }
    }
}

static struct hcl_node *take_object(struct cursor *c, unsigned depth)
{
    struct hcl_node *object = node_new(c, HCL_OBJECT);

    if (object == NULL) {
        return NULL;
    }
    c->p++;
    if (take_items(c, object, depth + 1) == -1) {
        return hcl_free(object);
    }
    if (!at(c, '}')) {
        (void)fail(c, "a '{' that is not ended");
        return hcl_free(object);
    }
    c->p++;
    return object;
}

static struct hcl_node *take_scalar(struct cursor *c)
{
    struct hcl_node *n;
    struct str word;

    if (at(c, '"')) {
        n = node_new(c, HCL_STRING);
        if (n != NULL) {
            n->text = take_string(c);
        }
        return n != NULL && n->text == NULL ? hcl_free(n) : n;
    }
    if (at(c, '<')) {
        (void)fail(c, "a here-document");
        return NULL;
    }
    if (c->p < c->end && ((*c->p >= '0' && *c->p <= '9') || *c->p == '-')) {
        const char *from = c->p;

        n = node_new(c, HCL_NUMBER);
        while (n != NULL && c->p < c->end && is_number_byte(*c->p)) {
            c->p++;
        }
        if (n != NULL) {
            n->text = mem_must_strndup(from, (size_t)(c->p - from));
        }
        return n;
    }
    n = node_new(c, HCL_BOOL);
    if (n == NULL) {
        return NULL;
    }
    word = take_word(c);
    n->truth = str_eq(word, STR_LIT("true"));
    if (!n->truth && !str_eq(word, STR_LIT("false"))) {
        (void)fail(c, "no value: expected a string, a number, true, false, a list or an object");
        return hcl_free(n);
    }
    return n;
}

static struct hcl_node *take_value(struct cursor *c, unsigned depth)
{
    if (depth > HCL_DEPTH_MAX) {
        (void)fail(c, "nested deeper than %d", HCL_DEPTH_MAX);
        return NULL;
    }
    return at(c, '[') ? take_list(c, depth) : at(c, '{') ? take_object(c, depth) : take_scalar(c);
}

/* --- keys ------------------------------------------------------------------------------------- */
static char *take_key(struct cursor *c)
{
    struct str word;

    if (at(c, '"')) {
        char *key = take_string(c);

        if (key != NULL && (key[0] == '\0' || strlen(key) > KEY_MAX)) {
            (void)fail(c, "a key that is empty, or longer than %d bytes", KEY_MAX);
            free(key);
            return NULL;
        }
        return key;
    }
    word = take_word(c);
    if (word.n == 0 || word.n > KEY_MAX) {
        (void)fail(c, "no key where one has to be");
        return NULL;
    }
    return mem_must_strndup(word.p, word.n);
}

static int take_item(struct cursor *c, struct hcl_node *object, unsigned depth)
{
    unsigned line = c->line, col = column(c);
    mem_autofree char *key = take_key(c);
    struct hcl_node *value;

    if (key == NULL || skip(c) == -1) {
        return -1;
    }
    for (const struct hcl_node *n = object->child; n != NULL; n = n->next) {
        if (strcmp(n->key, key) == 0) {
            return fail(c, "key '%.60s' twice, the first time in line %u", key, n->line);
        }
    }
    if (at(c, '=')) {
        c->p++;
        if (skip(c) == -1) {
            return -1;
        }
    } else if (!at(c, '{')) {
        return fail(c, "neither '=' nor '{' after key '%.60s'", key);
    }
    value = take_value(c, depth);
    if (value == NULL) {
        return -1;
    }
    value->line = line;
    value->column = col;
    value->key = key;
    key = NULL;
    add(object, value);
    return 0;
}

/* Up to a brace, or the end. */
static int take_items(struct cursor *c, struct hcl_node *object, unsigned depth)
{
    for (;;) {
        if (skip(c) == -1) {
            return -1;
        }
        if (c->p == c->end || *c->p == '}') {
            return 0;
        }
        if (take_item(c, object, depth) == -1 || skip(c) == -1) {
            return -1;
        }
        if (at(c, ',')) {
            c->p++;
        }
    }
}

struct hcl_node *hcl_parse(const char *name, const char *text, size_t len, struct err *err)
{
    struct cursor c = {
        .name = name, .p = text, .end = text + len, .line_start = text, .line = 1, .err = err};
    struct hcl_node *root;

    if (len > 0 && memchr(text, '\0', len) != NULL) {
        (void)fail(&c, "a NUL byte in the file");
        return NULL;
    }
    root = node_new(&c, HCL_OBJECT);
    if (take_items(&c, root, 1) == -1) {
        return hcl_free(root);
    }
    if (c.p != c.end) {
        (void)fail(&c, "a '}' without its '{'");
        return hcl_free(root);
    }
    return root;
}
