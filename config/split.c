/*
 * split: a Policy, Mesh or Modes file given out again part by part, as canonical JSON, for those
 * who have to hand parts of it on without understanding them. JSON is YAML too, so what is put
 * together from the parts is read by the same strict parsers.
 */
#include <postern/conf.h>

#include <postern/mem.h>
#include <stdlib.h>
#include <string.h>

#include "config_priv.h"

/* --- printing a tree -------------------------------------------------------------------------- */
static bool is_plain(uint8_t c)
{
    return c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
}

/* libyaml knows no surrogate pairs, so everything but the two signs and control bytes goes as it
 * is. C1 controls, separators and the byte order mark are not printable in YAML. */
static bool put_text(struct buf *out, struct str s)
{
    bool ok = buf_append(out, "\"", 1);

    for (size_t i = 0; ok && i < s.n; i++) {
        size_t plain = i;

        while (plain < s.n && is_plain((uint8_t)s.p[plain])) {
            plain++;
        }
        if (plain > i) {
            ok = buf_append(out, s.p + i, plain - i);
            i = plain - 1;
            continue;
        }
        uint8_t c = (uint8_t)s.p[i];
        uint8_t next = i + 1 < s.n ? (uint8_t)s.p[i + 1] : 0;
        uint8_t third = i + 2 < s.n ? (uint8_t)s.p[i + 2] : 0;

        if (c == '"' || c == '\\') {
            ok = buf_printf(out, "\\%c", c);
        } else if (c < 0x20 || c == 0x7f) {
            ok = buf_printf(out, "\\u%04x", c);
        } else if (c == 0xc2 && next < 0xa0) {
            ok = buf_printf(out, "\\u%04x", next);
            i += 1;
        } else if (c == 0xe2 && next == 0x80 && (third == 0xa8 || third == 0xa9)) {
            ok = buf_printf(out, "\\u20%02x", third == 0xa8 ? 0x28 : 0x29);
            i += 2;
        } else if (c == 0xef && next == 0xbb && third == 0xbf) {
            ok = buf_printf(out, "\\ufeff");
            i += 2;
        } else {
            ok = buf_append(out, &c, 1);
        }
    }
    return ok && buf_append(out, "\"", 1);
}

/* A scalar without quotes keeps its nature: what a number or a bool may be stays bare. */
static bool put_scalar(struct buf *out, const struct node *n)
{
    uint64_t number;

    if (node_is_null(n)) {
        return buf_append_str(out, STR_LIT("null"));
    }
    if (!n->quoted && (str_to_u64(n->text, UINT64_MAX, &number) ||
                       str_eq(n->text, STR_LIT("true")) || str_eq(n->text, STR_LIT("false")))) {
        return buf_append(out, n->text.p, n->text.n);
    }
    return put_text(out, n->text);
}

static bool put_node(struct buf *out, const struct node *n);

static bool put_children(struct buf *out, const struct node *n)
{
    bool ok = true;

    for (const struct node *e = n->child; ok && e != NULL; e = e->next) {
        if (n->kind == NODE_MAP) {
            ok = put_text(out, e->key->text) && buf_append(out, ": ", 2);
        }
        ok = ok && put_node(out, e) && (e->next == NULL || buf_append(out, ", ", 2));
    }
    return ok;
}

/* As deep as the tree, which the parser has bounded. NODE_BAD is not in a tree without errors. */
static bool put_node(struct buf *out, const struct node *n)
{
    switch (n->kind) {
    case NODE_SCALAR:
        return put_scalar(out, n);
    case NODE_LIST:
        return buf_append(out, "[", 1) && put_children(out, n) && buf_append(out, "]", 1);
    case NODE_MAP:
        return buf_append(out, "{", 1) && put_children(out, n) && buf_append(out, "}", 1);
    case NODE_BAD:
        break;
    }
    return false;
}

/* --- parts ------------------------------------------------------------------------------------ */
struct splitting {
    struct context errors;
    const char *list;                 /* the key whose elements are parts; NULL: none */
    const struct conf_policy *policy; /* NULL: of another kind */
    conf_part_fn emit;
    void *arg;
};

static int say_part(struct splitting *s, const struct node *at, struct buf *out, bool whole,
                    const struct conf_part *part)
{
    int r = -1;

    if (whole) {
        r = s->emit(s->arg, part);
    } else {
        report(&s->errors, at, NULL, "split it", "larger than %d MiB as JSON, in one piece",
               CONF_PART_MAX >> 20);
    }
    buf_reset(out);
    return r;
}

static int emit_head(struct splitting *s, const struct node *root)
{
    struct buf out = BUF_INIT(CONF_PART_MAX);
    bool ok = true;

    for (const struct node *e = root->child; ok && e != NULL; e = e->next) {
        if (s->list != NULL && str_eq(e->key->text, str_of(s->list))) {
            continue;
        }
        ok = (out.len == 0 || buf_append(&out, ", ", 2)) && put_text(&out, e->key->text) &&
             buf_append(&out, ": ", 2) && put_node(&out, e);
    }
    const struct conf_part part = {.text = buf_str(&out), .policy = s->policy};
    return say_part(s, root, &out, ok, &part);
}

static int emit_item(struct splitting *s, const struct node *item, size_t i)
{
    struct buf out = BUF_INIT(CONF_PART_MAX);
    bool ok = put_node(&out, item);
    const struct conf_part part = {
        .line = item->line,
        .text = buf_str(&out),
        .targets = s->policy != NULL ? &s->policy->rules[i].target_principals : NULL};

    return say_part(s, item, &out, ok, &part);
}

static int emit_all(struct splitting *s, const struct node *root)
{
    const struct node *list = s->list != NULL ? node_get(root, s->list) : NULL;
    size_t i = 0;

    if (emit_head(s, root) == -1) {
        return -1;
    }
    for (const struct node *e = list != NULL ? list->child : NULL; e != NULL; e = e->next) {
        if (emit_item(s, e, i++) == -1) {
            return -1;
        }
    }
    return 0;
}

static int parse_again(const char *text, size_t len, struct splitting *s)
{
    struct tree *tree = tree_parse(&s->errors, text, len);
    int r = tree != NULL ? emit_all(s, tree_root(tree)) : -1;

    tree_free(tree);
    return r;
}

int conf_split(enum conf_document kind, const char *name, const char *text, size_t len,
               struct conf_diag *diag, conf_part_fn emit, void *arg)
{
    struct splitting s = {
        .errors = {.diag = diag, .file = name, .dir = "/"}, .emit = emit, .arg = arg};
    struct conf_policy *policy = NULL;
    struct conf_mesh *mesh = NULL;
    struct conf_modes *modes = NULL;
    struct tree *tree = NULL;
    int r = -1;

    switch (kind) {
    case CONF_DOCUMENT_POLICY:
        s.list = "rules";
        r = conf_parse_policy_tree(name, text, len, diag, &policy, &tree);
        s.policy = policy;
        break;
    case CONF_DOCUMENT_MESH:
        s.list = "services";
        r = conf_parse_mesh(name, text, len, diag, &mesh);
        break;
    case CONF_DOCUMENT_MODES:
        r = conf_parse_modes(name, text, len, diag, &modes);
        break;
    }
    if (r == 0) {
        s.errors.file_no = diag_next_file(diag);
        r = tree != NULL ? emit_all(&s, tree_root(tree)) : parse_again(text, len, &s);
    }
    tree_free(tree);
    conf_policy_free(policy);
    conf_mesh_free(mesh);
    conf_modes_free(modes);
    return r;
}
