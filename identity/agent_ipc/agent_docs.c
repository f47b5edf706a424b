#include <postern/agent_docs.h>

#include <postern/mem.h>
#include <postern/mem_grow.h>
#include <stdlib.h>
#include <string.h>

void agent_doc_init(struct agent_doc *d)
{
    *d = (struct agent_doc){.head = BUF_INIT(AGENT_DOC_HEAD_MAX),
                            .text = BUF_INIT(AGENT_DOC_BYTES_MAX),
                            .targets = BUF_INIT(AGENT_DOC_TARGETS_MAX)};
}

void agent_doc_deinit(struct agent_doc *d)
{
    free(d->source);
    free(d->items);
    buf_reset(&d->head);
    buf_reset(&d->text);
    buf_reset(&d->targets);
    agent_doc_init(d);
}

void agent_doc_move(struct agent_doc *to, struct agent_doc *from)
{
    agent_doc_deinit(to);
    *to = *from;
    agent_doc_init(from);
}

/* --- building --------------------------------------------------------------------------------- */
static bool add_head(struct agent_doc *d, struct str text)
{
    if (d->present || d->source == NULL) {
        return false;
    }
    d->present = true;
    return buf_append_str(&d->head, text);
}

static bool add_bytes(struct agent_doc *d, uint32_t document, struct str text)
{
    return text.n <= agent_doc_bytes_max(document) - buf_len(&d->text) &&
           buf_append_str(&d->text, text);
}

static bool add_item(struct agent_doc *d, uint32_t document, uint32_t line, struct str text)
{
    if (!d->present || d->n_items == AGENT_DOC_ITEMS_MAX || line == 0 ||
        line > AGENT_DOC_LINES_MAX || (d->n_items > 0 && d->items[d->n_items - 1].line > line)) {
        return false;
    }
    MEM_GROW(d->items, d->n_items, d->cap_items, 16);
    d->items[d->n_items++] = (struct agent_doc_item){.line = line,
                                                     .text_at = buf_len(&d->text),
                                                     .n_text = text.n,
                                                     .targets_at = buf_len(&d->targets)};
    return add_bytes(d, document, text);
}

static bool add_text(struct agent_doc *d, uint32_t document, struct str text)
{
    if (d->n_items == 0) {
        return d->present && buf_append_str(&d->head, text);
    }
    if (!add_bytes(d, document, text)) {
        return false;
    }
    d->items[d->n_items - 1].n_text += text.n;
    return true;
}

static bool add_target(struct agent_doc *d, struct str text)
{
    if (d->n_items == 0 || text.n == 0 || !buf_append_str(&d->targets, text) ||
        !buf_append(&d->targets, "", 1)) {
        return false;
    }
    d->items[d->n_items - 1].n_targets++;
    return true;
}

static bool add_source(struct agent_doc *d, struct str text)
{
    if (d->source != NULL || text.n == 0 || text.n > AGENT_DOC_SOURCE_MAX) {
        return false;
    }
    d->source = mem_must_strndup(text.p, text.n);
    return true;
}

static bool add(struct agent_doc *d, const struct agent_msg_doc_part *part)
{
    struct str text = {part->text, part->text_len};

    switch ((enum agent_doc_part_kind)part->kind) {
    case AGENT_DOC_SOURCE:
        return add_source(d, text);
    case AGENT_DOC_HEAD:
        return add_head(d, text);
    case AGENT_DOC_ITEM:
        return add_item(d, part->document, part->line, text);
    case AGENT_DOC_TARGET:
        return add_target(d, text);
    case AGENT_DOC_TEXT:
        return add_text(d, part->document, text);
    }
    return false;
}

bool agent_doc_add(struct agent_doc *d, const struct agent_msg_doc_part *part)
{
    if (!d->broken && !add(d, part)) {
        d->broken = true;
    }
    return !d->broken;
}

/* --- sending ---------------------------------------------------------------------------------- */
struct sending {
    struct agent_msg_doc_part msg;
    uint32_t document;
    agent_doc_tell_fn tell;
    void *arg;
};

static int send_part(struct sending *s, enum agent_doc_part_kind kind, uint32_t line,
                     struct str text)
{
    agent_ipc_init(&s->msg, AGENT_MSG_DOC_PART, 0);
    s->msg.document = s->document;
    s->msg.kind = kind;
    s->msg.line = line;
    POSTERN_ASSERT(agent_ipc_put(s->msg.text, AGENT_DOC_PART_MAX, &s->msg.text_len, text));
    return s->tell(s->arg, &s->msg);
}

/* The first piece as `kind`, what is left as TEXT. */
static int send_text(struct sending *s, enum agent_doc_part_kind kind, uint32_t line,
                     struct str text)
{
    do {
        size_t n = text.n < AGENT_DOC_PART_MAX ? text.n : AGENT_DOC_PART_MAX;

        if (send_part(s, kind, line, (struct str){text.p, n}) == -1) {
            return -1;
        }
        text = (struct str){text.p + n, text.n - n};
        kind = AGENT_DOC_TEXT;
        line = 0;
    } while (text.n > 0);
    return 0;
}

static const char *first_target(const struct agent_doc *d, const struct agent_doc_item *item)
{
    return (const char *)buf_head(&d->targets) + item->targets_at;
}

static struct str item_text(const struct agent_doc *d, const struct agent_doc_item *item)
{
    return (struct str){(const char *)buf_head(&d->text) + item->text_at, item->n_text};
}

int agent_doc_send(const struct agent_doc *d, uint32_t document, agent_doc_tell_fn tell, void *arg)
{
    struct sending s = {.document = document, .tell = tell, .arg = arg};
    int r;

    if (!d->present) {
        return 0;
    }
    r = send_part(&s, AGENT_DOC_SOURCE, 0, str_of(d->source));
    r = r == -1 ? -1 : send_text(&s, AGENT_DOC_HEAD, 0, buf_str(&d->head));
    for (size_t i = 0; r == 0 && i < d->n_items; i++) {
        const char *target;

        r = send_text(&s, AGENT_DOC_ITEM, d->items[i].line, item_text(d, &d->items[i]));
        target = d->items[i].n_targets > 0 ? first_target(d, &d->items[i]) : NULL;
        for (uint32_t k = 0; r == 0 && k < d->items[i].n_targets; k++) {
            r = send_part(&s, AGENT_DOC_TARGET, 0, str_of(target));
            target += strlen(target) + 1;
        }
    }
    return r;
}

/* --- writing ---------------------------------------------------------------------------------- */
/* Cuts the first segment off. */
static struct str take_segment(struct str *s)
{
    const char *slash = memchr(s->p, '/', s->n);
    size_t n = slash != NULL ? (size_t)(slash - s->p) : s->n;
    struct str segment = {s->p, n};

    n += slash != NULL ? 1 : 0;
    *s = (struct str){s->p + n, s->n - n};
    return segment;
}

/* Segment by segment. A "**" stands at the end, for any number of them, none included. */
static bool glob_matches(struct str glob, struct str id)
{
    bool more = true;

    while (glob.n > 0) {
        struct str want = take_segment(&glob);
        bool last = id.n == 0 || memchr(id.p, '/', id.n) == NULL;

        if (str_eq(want, STR_LIT("**"))) {
            return true;
        }
        if (!more) {
            return false;
        }
        struct str have = take_segment(&id);
        if (str_eq(want, STR_LIT("*")) ? have.n == 0 : !str_eq(want, have)) {
            return false;
        }
        more = !last;
    }
    return !more;
}

/* As conf_is_glob, of a target that is no plain "prefix*". */
static bool is_glob(struct str target)
{
    static const struct str scheme = {"spiffe://", 9};
    bool last = false;

    if (!str_has_prefix(target, scheme)) {
        return false;
    }
    for (struct str left = {target.p + 9, target.n - 9}; left.n > 0 && !last;) {
        struct str segment = take_segment(&left);

        last = left.n == 0;
        if (str_eq(segment, STR_LIT("**")) || (str_eq(segment, STR_LIT("*")) && !last)) {
            return true;
        }
    }
    return false;
}

bool agent_doc_target_matches(struct str target, struct str id)
{
    if (is_glob(target)) {
        return glob_matches(target, id);
    }
    if (target.n > 0 && target.p[target.n - 1] == '*') {
        return str_has_prefix(id, (struct str){target.p, target.n - 1});
    }
    if (target.n > 0 && target.p[0] == '*') {
        return str_has_suffix(id, (struct str){target.p + 1, target.n - 1});
    }
    return str_eq(target, id);
}

static bool concerns(const struct agent_doc *d, const struct agent_doc_item *item,
                     const struct str *ids, size_t n_ids)
{
    const char *target = item->n_targets > 0 ? first_target(d, item) : NULL;

    if (target == NULL) {
        return true;
    }
    for (uint32_t k = 0; k < item->n_targets; k++) {
        struct str text = str_of(target);

        for (size_t i = 0; i < n_ids; i++) {
            if (agent_doc_target_matches(text, ids[i])) {
                return true;
            }
        }
        target += text.n + 1;
    }
    return false;
}

/* Line ends up to the line that is wanted. */
static bool pad(struct buf *out, uint32_t *line, uint32_t want)
{
    for (; *line < want; (*line)++) {
        if (!buf_append(out, "\n", 1)) {
            return false;
        }
    }
    return true;
}

#define LIST_BEGIN ", \"services\": ["
_Static_assert(sizeof("{" LIST_BEGIN "]}\n") <= AGENT_DOC_FRAME_MAX, "the longest name of a list");

bool agent_doc_write(const struct agent_doc *d, enum agent_document which, const struct str *ids,
                     size_t n_ids, struct buf *out)
{
    static const char *const LISTS[AGENT_N_DOCUMENTS] = {"rules", "services", NULL};
    uint32_t line = 1;
    bool first = true;
    bool ok = buf_append(out, "{", 1) && buf_append_str(out, buf_str(&d->head));

    if (ok && LISTS[which] != NULL) {
        ok = buf_printf(out, ", \"%s\": [", LISTS[which]);
        for (size_t i = 0; ok && i < d->n_items; i++) {
            if (concerns(d, &d->items[i], ids, n_ids)) {
                ok = (first || buf_append(out, ", ", 2)) && pad(out, &line, d->items[i].line) &&
                     buf_append_str(out, item_text(d, &d->items[i]));
                first = false;
            }
        }
        ok = ok && buf_append(out, "]", 1);
    }
    return ok && buf_append(out, "}\n", 2);
}
