/* fmt_write: the canonical form. Keys in the order of the reference, two blanks a level, lists of
 * texts on one line where they fit and no comment stands in them, one empty line at most. */
#include "fmt_priv.h"

#include <postern/mem.h>
#include <stdlib.h>
#include <string.h>

enum { WIDTH = 100, STEP = 2 };

/* Of all tables together: no key stands in two of them in another order. */
static const char *const key_order[] = {
    "kind",
    "level",
    "roles",
    "rules",
    "name",
    "action",
    "mode",
    "reason",
    "expires",
    "target",
    "role",
    "from",
    "to",
    "principals",
    "not_principals",
    "namespaces",
    "not_namespaces",
    "service_accounts",
    "not_service_accounts",
    "trust_domains",
    "not_trust_domains",
    "ip_blocks",
    "not_ip_blocks",
    "claims",
    "not_claims",
    "ports",
    "not_ports",
    "hosts",
    "not_hosts",
    "methods",
    "not_methods",
    "paths",
    "not_paths",
    "query",
    "not_query",
    "headers",
    "not_headers",
    "grpc",
    "not_grpc",
    "values",
    "present",
};
enum { N_KEYS = sizeof(key_order) / sizeof(key_order[0]) };

struct writer {
    struct buf *out;
    bool opened; /* a collection has just begun: no empty line here */
    bool ok;
};

/* --- scalars -----------------------------------------------------------------------------------
 */
bool fmt_text_is_ambiguous(struct str text)
{
    static const char *const words[] = {"null", "true", "false", "yes", "no", "on",
                                        "off",  "y",    "n",     "nan", "inf"};
    if (text.n == 0 || (text.p[0] >= '0' && text.p[0] <= '9') ||
        memchr("+-.~=<", text.p[0], 6) != NULL) {
        return true;
    }
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (str_eq_nocase(text, str_of(words[i]))) {
            return true;
        }
    }
    return false;
}

/* May stand without quotes wherever it stands, in brackets too. */
static bool is_plain(struct str text)
{
    bool blank = true; /* no blank at the beginning, and no two */
    for (size_t i = 0; i < text.n; i++) {
        char c = text.p[i];
        bool word = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                    memchr("_./-+@;()=~$^<>\\", c, 16) != NULL || (c == '%' && i > 0) ||
                    (c == ':' && i + 1 < text.n && text.p[i + 1] != ' ' && i > 0) ||
                    (c == '\'' && i > 0);
        bool first = i == 0 && memchr("-.=~<>@", c, 7) != NULL;
        if ((!word || first) && (c != ' ' || blank)) {
            return false;
        }
        blank = c == ' ';
    }
    return text.n > 0 && !blank;
}

static void put(struct writer *w, struct str s)
{
    w->ok = w->ok && buf_append_str(w->out, s);
}

static void put_text(struct writer *w, const char *text)
{
    put(w, str_of(text));
}

static void put_quoted(struct writer *w, struct str s)
{
    put_text(w, "\"");
    for (size_t i = 0; i < s.n; i++) {
        uint8_t c = (uint8_t)s.p[i];
        uint8_t next = i + 1 < s.n ? (uint8_t)s.p[i + 1] : 0;
        if (c == '"' || c == '\\') {
            w->ok = w->ok && buf_printf(w->out, "\\%c", c);
        } else if (c < 0x20 || c == 0x7f) {
            w->ok = w->ok && buf_printf(w->out, "\\x%02x", c);
        } else if (c == 0xc2 && next >= 0x80 && next < 0xa1) {
            w->ok = w->ok && buf_printf(w->out, "\\u%04x", next);
            i++;
        } else {
            put(w, (struct str){s.p + i, 1});
        }
    }
    put_text(w, "\"");
}

/* What could be a number keeps the form that it had. */
static void put_scalar(struct writer *w, const struct fmt_node *n)
{
    bool ambiguous = fmt_text_is_ambiguous(n->text);
    bool bare = ambiguous ? !n->quoted : is_plain(n->text);
    if (bare) {
        put(w, n->text);
    } else {
        put_quoted(w, n->text);
    }
}

/* --- lines -------------------------------------------------------------------------------------
 */
static void put_indent(struct writer *w, size_t indent)
{
    w->ok = w->ok && buf_printf(w->out, "%*s", (int)indent, "");
}

static void put_empty_line(struct writer *w, bool wanted)
{
    if (wanted && !w->opened && buf_len(w->out) > 0) {
        put_text(w, "\n");
    }
    w->opened = false;
}

static void put_comments(struct writer *w, const struct fmt_comments *list, size_t indent)
{
    for (size_t i = 0; i < list->n; i++) {
        put_empty_line(w, list->items[i].blank);
        put_indent(w, indent);
        put(w, list->items[i].text);
        put_text(w, "\n");
    }
}

static void end_line(struct writer *w, struct str comment)
{
    if (comment.n > 0) {
        put_text(w, " ");
        put(w, comment);
    }
    put_text(w, "\n");
}

/* --- collections -------------------------------------------------------------------------------
 */
static size_t rank(const struct fmt_entry *e)
{
    for (size_t i = 0; i < N_KEYS; i++) {
        if (str_eq(e->key, str_of(key_order[i]))) {
            return i;
        }
    }
    return N_KEYS;
}

static int compare_entries(const void *pa, const void *pb)
{
    const struct fmt_entry *a = *(const struct fmt_entry *const *)pa;
    const struct fmt_entry *b = *(const struct fmt_entry *const *)pb;
    size_t ra = rank(a);
    size_t rb = rank(b);
    return ra != rb ? (ra < rb ? -1 : 1) : a->start < b->start ? -1 : a->start > b->start;
}

/* On one line, after `used` bytes of it; false: it has to be many. */
static bool put_inline(struct writer *w, const struct fmt_node *list, size_t used)
{
    struct buf room = BUF_INIT(WIDTH);
    struct writer line = {.out = &room, .ok = true};
    put_text(&line, "[");
    for (size_t i = 0; i < list->n; i++) {
        const struct fmt_entry *e = list->entries[i];
        if (e->value->kind != FMT_SCALAR || e->above.n > 0 || e->behind.n > 0) {
            line.ok = false;
            break;
        }
        put_text(&line, i > 0 ? ", " : "");
        put_scalar(&line, e->value);
    }
    put_text(&line, "]");
    bool fits = line.ok && used + buf_len(&room) <= WIDTH;
    if (fits) {
        put(w, buf_str(&room));
    }
    buf_reset(&room);
    return fits;
}

static void put_map(struct writer *w, const struct fmt_node *map, size_t indent, bool behind_dash);

static void put_list(struct writer *w, const struct fmt_node *list, size_t indent)
{
    w->opened = true;
    for (size_t i = 0; i < list->n; i++) {
        const struct fmt_entry *e = list->entries[i];
        put_comments(w, &e->above, indent);
        if (e->value->kind == FMT_MAP && e->value->n > 0) {
            w->opened = w->opened && e->above.n == 0;
            put_empty_line(w, e->blank);
            put_map(w, e->value, indent + STEP, true);
            continue;
        }
        w->ok = w->ok && e->value->kind == FMT_SCALAR;
        w->opened = false;
        put_indent(w, indent);
        put_text(w, "- ");
        put_scalar(w, e->value);
        end_line(w, e->behind);
    }
}

static void put_value(struct writer *w, const struct fmt_entry *e, size_t indent)
{
    const struct fmt_node *v = e->value;
    size_t used = indent + e->key.n + 2;
    if (v->kind == FMT_SCALAR) {
        put_text(w, " ");
        put_scalar(w, v);
        end_line(w, e->behind);
        return;
    }
    if (v->n == 0) {
        put_text(w, v->kind == FMT_LIST ? " []" : " {}");
        end_line(w, e->behind);
        return;
    }
    if (v->kind == FMT_LIST) {
        put_text(w, " ");
        if (put_inline(w, v, used)) {
            end_line(w, e->behind);
            return;
        }
        w->out->len--; /* the blank */
    }
    end_line(w, e->behind);
    if (v->kind == FMT_LIST) {
        put_list(w, v, indent + STEP);
    } else {
        w->opened = true;
        put_map(w, v, indent + STEP, false);
    }
}

static void put_map(struct writer *w, const struct fmt_node *map, size_t indent, bool behind_dash)
{
    mem_autofree struct fmt_entry **sorted = mem_must_calloc(map->n, sizeof(*sorted));
    memcpy(sorted, map->entries, map->n * sizeof(*sorted));
    qsort(sorted, map->n, sizeof(*sorted), compare_entries);
    for (size_t i = 0; i < map->n; i++) {
        const struct fmt_entry *e = sorted[i];
        bool dash = behind_dash && i == 0;
        bool section = indent == 0 && i > 0 && e->value->kind == FMT_LIST;
        put_comments(w, &e->above, dash ? indent - STEP : indent);
        if (!dash) {
            put_empty_line(w, section ? e->above.n == 0 : e->blank);
        }
        w->opened = false;
        put_indent(w, dash ? indent - STEP : indent);
        put_text(w, dash ? "- " : "");
        put_scalar(w, &(struct fmt_node){.kind = FMT_SCALAR, .text = e->key});
        put_text(w, ":");
        put_value(w, e, indent);
    }
}

int fmt_write(const struct fmt_doc *d, struct buf *out, struct err *err)
{
    struct writer w = {.out = out, .opened = true, .ok = true};
    put_comments(&w, &d->top, 0);
    w.opened = d->top.n == 0;
    put_map(&w, d->root, 0, false);
    w.opened = false;
    put_comments(&w, &d->end, 0);
    if (!w.ok) {
        return err_set(err, ERR_LIMIT, "the file is too large, or holds what no policy holds");
    }
    return 0;
}
