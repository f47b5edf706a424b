/*
 * write: a tree to text. YAML in the block style that kubectl prints; every text that any reader
 * could take for something else is quoted, and one of several lines is a literal block where that
 * keeps it to the byte.
 */
#include <postern/manifest.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int to_buf(const char *p, size_t n, void *arg)
{
    return buf_append(arg, p, n) ? 0 : -1;
}

static bool put(struct buf *out, const char *z)
{
    return buf_append(out, z, strlen(z));
}

static bool put_indent(struct buf *out, size_t n)
{
    static const char blanks[] = "                                ";
    for (; n > sizeof(blanks) - 1; n -= sizeof(blanks) - 1) {
        if (!put(out, blanks)) {
            return false;
        }
    }
    return buf_append(out, blanks, n);
}

/* --- texts ------------------------------------------------------------------------------------ */
/* Bytes at `at` that a reader of YAML takes for a control or for the end of a line, and their code
 * point; 0: none. */
static size_t special(struct str s, size_t at, unsigned *ret)
{
    const unsigned char *u = (const unsigned char *)s.p + at;
    size_t left = s.n - at;
    if (u[0] < 0x20 || u[0] == 0x7f) {
        *ret = u[0];
        return 1;
    }
    if (u[0] == 0xc2 && left > 1 && u[1] < 0xa0) {
        *ret = u[1];
        return 2;
    }
    if (u[0] == 0xe2 && left > 2 && u[1] == 0x80 && (u[2] == 0xa8 || u[2] == 0xa9)) {
        *ret = 0x2000U + (u[2] & 0x3fU);
        return 3;
    }
    if (u[0] == 0xef && left > 2 &&
        ((u[1] == 0xbb && u[2] == 0xbf) || (u[1] == 0xbf && u[2] >= 0xbe))) {
        *ret = u[1] == 0xbb ? 0xfeffU : 0xffc0U + (u[2] & 0x3fU);
        return 3;
    }
    return 0;
}

static bool put_quoted(struct buf *out, struct str s)
{
    bool ok = buf_append(out, "\"", 1);
    for (size_t i = 0; ok && i < s.n;) {
        unsigned code;
        size_t n = special(s, i, &code);
        if (n == 0) {
            ok = ((s.p[i] != '"' && s.p[i] != '\\') || buf_append(out, "\\", 1)) &&
                 buf_append(out, s.p + i, 1);
            n = 1;
        } else if (code == '\n' || code == '\t') {
            ok = put(out, code == '\n' ? "\\n" : "\\t");
        } else {
            ok = buf_printf(out, code < 0x100 ? "\\x%02x" : "\\u%04x", code);
        }
        i += n;
    }
    return ok && buf_append(out, "\"", 1);
}

static bool plain_byte(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
           strchr("_./@+=,-", c) != NULL;
}

/* Stricter than YAML: what stands here without quotes is a text to every reader. */
static bool is_plain(struct str s)
{
    if (s.n == 0 || s.n > 200 || !(plain_byte(s.p[0]) && s.p[0] != '\0') ||
        strchr(".@+=,-", s.p[0]) != NULL || (s.p[0] >= '0' && s.p[0] <= '9')) {
        return false;
    }
    for (size_t i = 0; i < s.n; i++) {
        char next = i + 1 < s.n ? s.p[i + 1] : ' ';
        bool inner = (s.p[i] == ':' && next != ' ') ||
                     (s.p[i] == ' ' && next != ' ' && next != '#' && i + 1 < s.n);
        if (s.p[i] == '\0' || (!plain_byte(s.p[i]) && !inner)) {
            return false;
        }
    }
    json_t *v = manifest_scalar(s);
    bool text = json_is_string(v);
    json_decref(v);
    return text;
}

/* Whether a literal block keeps it: no line that begins or ends with a blank, no control. */
static bool is_block(struct str s)
{
    if (memchr(s.p, '\n', s.n) == NULL || s.p[0] == '\n') {
        return false;
    }
    for (size_t i = 0; i < s.n; i++) {
        unsigned code;
        bool begins = i == 0 || s.p[i - 1] == '\n';
        bool ends = i + 1 == s.n || s.p[i + 1] == '\n';
        if (s.p[i] != '\n' &&
            (special(s, i, &code) > 0 || (s.p[i] == ' ' && (ends || (begins && i == 0))))) {
            return false;
        }
    }
    return true;
}

static bool put_block(struct buf *out, struct str s, size_t indent)
{
    size_t newlines = 0;
    while (newlines < s.n && s.p[s.n - 1 - newlines] == '\n') {
        newlines++;
    }
    bool ok = put(out, newlines == 0 ? "|-\n" : newlines == 1 ? "|\n" : "|+\n");
    for (size_t i = 0; ok && i < s.n;) {
        const char *end = memchr(s.p + i, '\n', s.n - i);
        size_t n = end != NULL ? (size_t)(end - s.p) - i : s.n - i;
        ok = (n == 0 || put_indent(out, indent)) && buf_append(out, s.p + i, n) &&
             buf_append(out, "\n", 1);
        i += n + 1;
    }
    return ok;
}

static struct str text_of(const json_t *v)
{
    return (struct str){json_string_value(v), json_string_length(v)};
}

/* --- numbers ---------------------------------------------------------------------------------- */
/* The shortest text that reads as the same number. */
static bool put_real(struct buf *out, double v)
{
    char text[40];
    int precision = 1;
    if (v == trunc(v) && fabs(v) < 9e15) {
        return buf_printf(out, "%.0f", v == 0 ? 0.0 : v); /* as it is read: a whole number */
    }
    do {
        snprintf(text, sizeof(text), "%.*g", precision, v);
    } while (precision++ < 17 && strtod(text, NULL) != v);
    return put(out, text) && (strpbrk(text, ".e") != NULL || put(out, ".0"));
}

/* --- nodes ------------------------------------------------------------------------------------ */
static bool is_collection(const json_t *v)
{
    return (json_is_object(v) && json_object_size(v) > 0) ||
           (json_is_array(v) && json_array_size(v) > 0);
}

/* The rest of the line after a key or a dash, and what hangs below it. */
static bool put_leaf(struct buf *out, const json_t *v, size_t indent)
{
    switch (json_typeof(v)) {
    case JSON_STRING:
        if (is_plain(text_of(v))) {
            return buf_append_str(out, text_of(v)) && put(out, "\n");
        }
        if (indent > 0 && is_block(text_of(v))) {
            return put_block(out, text_of(v), indent);
        }
        return put_quoted(out, text_of(v)) && put(out, "\n");
    case JSON_INTEGER:
        return buf_printf(out, "%lld\n", (long long)json_integer_value(v));
    case JSON_REAL:
        return put_real(out, json_real_value(v)) && put(out, "\n");
    case JSON_TRUE:
        return put(out, "true\n");
    case JSON_FALSE:
        return put(out, "false\n");
    case JSON_NULL:
        return put(out, "null\n");
    case JSON_OBJECT:
        return put(out, "{}\n");
    case JSON_ARRAY:
        return put(out, "[]\n");
    }
    return false;
}

static bool put_key(struct buf *out, const char *key)
{
    struct str s = str_of(key);
    return (is_plain(s) ? buf_append_str(out, s) : put_quoted(out, s)) && put(out, ":");
}

/* `begun`: the first line's indent stands already, behind a dash. */
static bool put_tree(struct buf *out, const json_t *v, size_t indent, bool begun, unsigned depth);

static bool put_object(struct buf *out, const json_t *v, size_t indent, bool begun, unsigned depth)
{
    const char *key;
    json_t *child;
    bool ok = true;
    json_object_foreach((json_t *)(uintptr_t)v, key, child)
    {
        ok = ok && (begun || put_indent(out, indent)) && put_key(out, key);
        begun = false;
        if (!is_collection(child)) {
            ok = ok && put(out, " ") && put_leaf(out, child, indent + 2);
        } else {
            /* A list hangs at its key's own indent. */
            ok = ok && put(out, "\n") &&
                 put_tree(out, child, json_is_array(child) ? indent : indent + 2, false, depth);
        }
    }
    return ok;
}

static bool put_tree(struct buf *out, const json_t *v, size_t indent, bool begun, unsigned depth)
{
    size_t i;
    json_t *child;
    bool ok = depth < MANIFEST_DEPTH_MAX;
    if (ok && json_is_object(v) && is_collection(v)) {
        return put_object(out, v, indent, begun, depth + 1);
    }
    if (ok && !is_collection(v)) {
        return (begun || put_indent(out, indent)) && put_leaf(out, v, indent);
    }
    json_array_foreach(v, i, child)
    {
        ok = ok && (begun || put_indent(out, indent)) && put(out, "- ") &&
             put_tree(out, child, indent + 2, true, depth + 1);
        begun = false;
    }
    return ok;
}

bool manifest_write_yaml(const json_t *tree, struct buf *out)
{
    return put_tree(out, tree, 0, false, 0);
}

bool manifest_write(const struct manifest *m, size_t i, const json_t *tree, struct buf *out)
{
    const struct manifest_doc *d = &m->docs[i];
    struct str header = {d->bytes.p, d->header_len};
    if (!buf_append_str(out, header)) {
        return false;
    }
    if (m->form == MANIFEST_JSON) {
        return json_dump_callback(tree, to_buf, out,
                                  JSON_INDENT(4) | JSON_PRESERVE_ORDER | JSON_ENCODE_ANY) == 0 &&
               put(out, "\n");
    }
    /* Its separator may have stood on the line of its content. */
    bool separated = d->bytes.n >= 3 && memcmp(d->bytes.p, "---", 3) == 0;
    return (!separated || header.n > 0 || put(out, "---\n")) && manifest_write_yaml(tree, out);
}
