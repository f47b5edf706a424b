/* suggest: a policy out of decisions. Each caller of each workload gets the ports and methods that
 * it used; callers that used exactly the same share a rule. A rule allows every combination of its
 * callers and of what it lists, so only what is the same for each of them may stand together. */
#include "suggest_priv.h"

#include <postern/mem.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_PART_MAX = 60, KEY_MAX = 8192 };

/* A caller's use of one port by one method. */
struct use {
    char *target, *peer, *method; /* owned; method NULL: a connection */
    uint16_t port;
    struct tally paths; /* items */
};

struct policy_suggest {
    struct policy_suggest_options options;
    struct policy_suggest_count count;
    struct tally uses;  /* of: struct use, owned */
    struct tally names; /* of: not NULL if a file takes it */
};

struct policy_suggest *policy_suggest_new(const struct policy_suggest_options *o)
{
    struct policy_suggest *s = mem_must_new(struct policy_suggest);
    s->options = *o;
    return s;
}

struct policy_suggest *policy_suggest_free(struct policy_suggest *s)
{
    if (s == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < s->uses.n; i++) {
        struct use *u = s->uses.items[i].of;
        free(u->target);
        free(u->peer);
        free(u->method);
        tally_deinit(&u->paths);
        free(u);
    }
    tally_deinit(&s->uses);
    tally_deinit(&s->names);
    free(s);
    return NULL;
}

void policy_suggest_counts(const struct policy_suggest *s, struct policy_suggest_count *ret)
{
    *ret = s->count;
}

/* --- taking ------------------------------------------------------------------------------------
 */
/* Whether a file takes it as an exact name and no more: asked of the reader of files itself. */
static bool try_name(struct str name, bool target)
{
    struct buf text = BUF_INIT(64 * 1024);
    struct conf_diag *diag = conf_diag_new();
    struct conf_policy *conf = NULL;
    bool clean = memchr(name.p, '*', name.n) == NULL;
    for (size_t i = 0; i < name.n; i++) {
        uint8_t c = (uint8_t)name.p[i];
        clean = clean && c >= 0x20 && c != 0x7f && c != '"' && c != '\\';
    }
    clean = clean &&
            buf_printf(&text,
                       "kind: Policy\nlevel: 1\nrules: [{name: a, action: ALLOW, "
                       "%s{principals: [\"%.*s\"]}%s}]\n",
                       target ? "target: " : "from: [", (int)name.n, name.p, target ? "" : "]");
    clean = clean &&
            conf_parse_policy("", (const char *)buf_head(&text), buf_len(&text), diag, &conf) == 0;
    conf_policy_free(conf);
    conf_diag_free(diag);
    buf_reset(&text);
    return clean;
}

static bool can_name(struct policy_suggest *s, struct str name, bool target)
{
    mem_autofree char *key = mem_must_printf("%c%.*s", target ? 't' : 'p', (int)name.n, name.p);
    size_t before = s->names.n;
    size_t at = tally_take(&s->names, str_of(key));
    if (at == SIZE_MAX) {
        s->count.too_many = true;
        return false;
    }
    if (s->names.n > before && try_name(name, target)) {
        s->names.items[at].of = s;
    }
    return s->names.items[at].of != NULL;
}

static struct use *find_use(struct policy_suggest *s, const struct policy_record *r)
{
    const struct policy_query *q = &r->query;
    struct buf key = BUF_INIT(KEY_MAX);
    struct use *u = NULL;
    bool fits = buf_append_str(&key, q->target) && buf_append(&key, "", 1) &&
                buf_append_str(&key, q->peer) &&
                buf_printf(&key, "%c%u%c%s", 0, q->port, 0, q->http ? "m" : "c") &&
                buf_append_str(&key, q->method);
    size_t at = fits ? tally_take(&s->uses, buf_str(&key)) : SIZE_MAX;
    if (at != SIZE_MAX) {
        u = s->uses.items[at].of;
    } else {
        s->count.too_many = true;
    }
    buf_reset(&key);
    if (u != NULL || at == SIZE_MAX) {
        return u;
    }
    u = mem_must_new(struct use);
    u->target = mem_must_strndup(q->target.p, q->target.n);
    u->peer = mem_must_strndup(q->peer.p, q->peer.n);
    u->method = q->http ? mem_must_strndup(q->method.p, q->method.n) : NULL;
    u->port = q->port;
    s->uses.items[at].of = u;
    return u;
}

void policy_suggest_add(struct policy_suggest *s, const struct policy_record *r)
{
    const struct policy_query *q = &r->query;
    if (!r->allowed && !s->options.denied) {
        s->count.denied++;
        return;
    }
    if (q->peer.n == 0) {
        s->count.no_identity++;
        return;
    }
    if (!can_name(s, q->peer, false) || !can_name(s, q->target, true)) {
        s->count.unspeakable++;
        return;
    }
    struct use *u = find_use(s, r);
    if (u == NULL) {
        return;
    }
    if (s->options.paths && q->http) {
        mem_autofree char *item = suggest_path_item(q->path, r->path_cut);
        if (tally_take(&u->paths, str_of(item)) == SIZE_MAX) {
            s->count.too_many = true;
            return;
        }
    }
    s->count.taken++;
}

/* --- what one caller did of one target, as text ------------------------------------------------
 */
static int compare_uses(const void *pa, const void *pb)
{
    const struct use *a = *(const struct use *const *)pa;
    const struct use *b = *(const struct use *const *)pb;
    int r = strcmp(a->target, b->target);
    r = r != 0 ? r : strcmp(a->peer, b->peer);
    if (r == 0 && a->port != b->port) {
        r = a->port < b->port ? -1 : 1;
    }
    if (r == 0 && (a->method == NULL || b->method == NULL)) {
        return (a->method != NULL) - (b->method != NULL);
    }
    return r != 0 ? r : strcmp(a->method, b->method);
}

static int compare_texts(const void *pa, const void *pb)
{
    return strcmp(*(const char *const *)pa, *(const char *const *)pb);
}

static bool put_list(struct buf *out, const char *key, const char *const *items, size_t n)
{
    bool ok = buf_printf(out, "        %s: [", key);
    for (size_t i = 0; ok && i < n; i++) {
        ok = buf_printf(out, "%s\"%s\"", i > 0 ? ", " : "", items[i]);
    }
    return ok && buf_printf(out, "]\n");
}

/* "        paths: [...]\n", or nothing; owned. */
static char *paths_text(const struct use *u)
{
    struct buf out = BUF_INIT(POLICY_TOOLS_TEXT_MAX);
    struct tally merged = {.items = NULL};
    suggest_paths_merge(&u->paths, &merged);
    const char **items = mem_must_calloc(merged.n + 1, sizeof(*items));
    for (size_t i = 0; i < merged.n; i++) {
        items[i] = merged.items[i].key;
    }
    qsort(items, merged.n, sizeof(*items), compare_texts);
    if (merged.n > 0) {
        (void)put_list(&out, "paths", items, merged.n);
    }
    char *text = mem_must_strndup(merged.n > 0 ? (const char *)buf_head(&out) : "", buf_len(&out));
    free(items);
    tally_deinit(&merged);
    buf_reset(&out);
    return text;
}

/* What was done at one port, as keys behind `ports` of one entry each: methods of the same paths
 * stand together. */
static void port_entries(struct use *const *uses, size_t n, struct tally *ret)
{
    if (uses[0]->method == NULL) {
        (void)tally_take(ret, STR_LIT("")); /* a connection is whatever is in it */
        return;
    }
    struct tally by_paths = {.items = NULL}; /* of: struct buf with the methods */
    for (size_t i = 0; i < n; i++) {
        mem_autofree char *paths = paths_text(uses[i]);
        struct tally_item *item = &by_paths.items[0];
        size_t at = tally_take(&by_paths, str_of(paths));
        item = &by_paths.items[at];
        if (item->of == NULL) {
            struct buf *methods = mem_must_new(struct buf);
            methods->max = POLICY_TOOLS_TEXT_MAX;
            item->of = methods;
        }
        struct buf *methods = item->of;
        buf_printf(methods, "%s\"%s\"", buf_len(methods) > 0 ? ", " : "", uses[i]->method);
    }
    for (size_t i = 0; i < by_paths.n; i++) {
        struct buf *methods = by_paths.items[i].of;
        mem_autofree char *entry =
            mem_must_printf("        methods: [%.*s]\n%s", (int)buf_len(methods),
                            (const char *)buf_head(methods), by_paths.items[i].key);
        (void)tally_take(ret, str_of(entry));
        buf_reset(methods);
        free(methods);
    }
    tally_deinit(&by_paths);
}

/* All that one caller did of one target: ports at which the same was done stand together. */
static bool caller_text(struct use *const *uses, size_t n, struct buf *out)
{
    struct tally by_entry = {.items = NULL}; /* of: struct buf with the ports */
    for (size_t i = 0; i < n;) {
        size_t end = i + 1;
        while (end < n && uses[end]->port == uses[i]->port) {
            end++;
        }
        struct tally entries = {.items = NULL};
        port_entries(uses + i, end - i, &entries);
        for (size_t k = 0; k < entries.n; k++) {
            size_t at = tally_take(&by_entry, str_of(entries.items[k].key));
            if (by_entry.items[at].of == NULL) {
                struct buf *ports = mem_must_new(struct buf);
                ports->max = 1 << 20;
                by_entry.items[at].of = ports;
            }
            struct buf *ports = by_entry.items[at].of;
            buf_printf(ports, "%s%u", buf_len(ports) > 0 ? ", " : "", uses[i]->port);
        }
        tally_deinit(&entries);
        i = end;
    }
    bool ok = true;
    for (size_t i = 0; i < by_entry.n; i++) {
        struct buf *ports = by_entry.items[i].of;
        ok = ok && buf_printf(out, "      - ports: [%.*s]\n%s", (int)buf_len(ports),
                              (const char *)buf_head(ports), by_entry.items[i].key);
        buf_reset(ports);
        free(ports);
    }
    tally_deinit(&by_entry);
    return ok;
}

/* --- rules -------------------------------------------------------------------------------------
 */
/* The last segment of an ID, as a name of a rule may have it. */
static void put_name_part(struct buf *out, const char *id)
{
    const char *slash = strrchr(id, '/');
    const char *part = slash != NULL && slash[1] != '\0' ? slash + 1 : id;
    for (size_t i = 0; part[i] != '\0' && i < NAME_PART_MAX; i++) {
        char c = part[i];
        bool word = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                    c == '.' || c == '_' || c == '-';
        buf_append(out, word ? &c : "-", 1);
    }
}

struct writing {
    struct buf *out;
    struct tally names;
    bool ok;
};

static void put_name(struct writing *w, const char *target, const struct buf *callers, size_t n)
{
    struct buf name = BUF_INIT(1024);
    put_name_part(&name, target);
    buf_printf(&name, "-from-");
    if (n == 1) {
        put_name_part(&name, (const char *)buf_head(callers));
    } else {
        buf_printf(&name, "%zu-callers", n);
    }
    size_t len = buf_len(&name);
    for (unsigned again = 2;; again++) {
        size_t before = w->names.n;
        (void)tally_take(&w->names, buf_str(&name));
        if (w->names.n > before) {
            break;
        }
        name.len = len;
        buf_printf(&name, "-%u", again);
    }
    w->ok = w->ok && buf_printf(w->out, "  - name: \"%.*s\"\n    action: ALLOW\n",
                                (int)buf_len(&name), (const char *)buf_head(&name));
    buf_reset(&name);
}

struct sharing {
    struct buf callers; /* names, each terminated */
    size_t n;
};

static void put_rule(struct writing *w, const char *target, const char *to, struct sharing *by)
{
    put_name(w, target, &by->callers, by->n);
    w->ok = w->ok && buf_printf(w->out,
                                "    target:\n      principals: [\"%s\"]\n    from:\n"
                                "      - principals: [",
                                target);
    const char *at = (const char *)buf_head(&by->callers);
    for (size_t i = 0; w->ok && i < by->n; i++, at += strlen(at) + 1) {
        w->ok = buf_printf(w->out, "%s\"%s\"", i > 0 ? ", " : "", at);
    }
    w->ok = w->ok && buf_printf(w->out, "]\n    to:\n%s\n", to);
}

/* All callers of one target, by what they did. */
static void put_target(struct writing *w, struct use *const *uses, size_t n)
{
    struct tally by_use = {.items = NULL}; /* of: struct sharing */
    for (size_t i = 0; i < n;) {
        size_t end = i + 1;
        while (end < n && strcmp(uses[end]->peer, uses[i]->peer) == 0) {
            end++;
        }
        struct buf to = BUF_INIT(POLICY_TOOLS_TEXT_MAX);
        w->ok = w->ok && caller_text(uses + i, end - i, &to);
        size_t at = tally_take(&by_use, buf_str(&to));
        if (by_use.items[at].of == NULL) {
            struct sharing *by = mem_must_new(struct sharing);
            by->callers.max = POLICY_TOOLS_TEXT_MAX;
            by_use.items[at].of = by;
        }
        struct sharing *by = by_use.items[at].of;
        w->ok = w->ok && buf_append(&by->callers, uses[i]->peer, strlen(uses[i]->peer) + 1);
        by->n++;
        buf_reset(&to);
        i = end;
    }
    for (size_t i = 0; i < by_use.n; i++) {
        struct sharing *by = by_use.items[i].of;
        put_rule(w, uses[0]->target, by_use.items[i].key, by);
        buf_reset(&by->callers);
        free(by);
    }
    tally_deinit(&by_use);
}

static bool has_templates(const struct policy_suggest *s)
{
    for (size_t i = 0; i < s->uses.n; i++) {
        const struct use *u = s->uses.items[i].of;
        struct tally merged = {.items = NULL};
        suggest_paths_merge(&u->paths, &merged);
        bool has = false;
        for (size_t k = 0; k < merged.n; k++) {
            has = has || suggest_path_is_template(merged.items[k].key);
        }
        tally_deinit(&merged);
        if (has) {
            return true;
        }
    }
    return false;
}

int policy_suggest_write(const struct policy_suggest *s, struct buf *out, struct err *err)
{
    struct buf text = BUF_INIT(POLICY_TOOLS_TEXT_MAX);
    struct writing w = {.out = &text, .ok = true};
    struct use **uses = mem_must_calloc(s->uses.n + 1, sizeof(*uses));
    for (size_t i = 0; i < s->uses.n; i++) {
        uses[i] = s->uses.items[i].of;
    }
    qsort(uses, s->uses.n, sizeof(*uses), compare_uses);
    w.ok = buf_printf(&text, "kind: Policy\nlevel: %d\nrules:%s\n", has_templates(s) ? 2 : 1,
                      s->uses.n == 0 ? " []" : "");
    for (size_t i = 0; i < s->uses.n;) {
        size_t end = i + 1;
        while (end < s->uses.n && strcmp(uses[end]->target, uses[i]->target) == 0) {
            end++;
        }
        put_target(&w, uses + i, end - i);
        i = end;
    }
    int rc = w.ok ? policy_fmt("the suggestion", buf_str(&text), out, err)
                  : err_set(err, ERR_LIMIT, "the policy would be too large");
    tally_deinit(&w.names);
    free(uses);
    buf_reset(&text);
    return rc;
}
