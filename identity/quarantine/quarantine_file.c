/* The set as a file, and as a document for people. */
#include <postern/quarantine.h>

#include <postern/jsonl.h>
#include <postern/log.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <stdlib.h>
#include <string.h>

enum { FORMAT = 1, LINE_MAX = 6 * (QUARANTINE_TEXT_MAX + QUARANTINE_REASON_MAX) + 1024 };

/* --- printing --------------------------------------------------------------------------------- */
bool quarantine_print(const struct quarantine *q, struct buf *out)
{
    char space[LINE_MAX];
    struct jsonl_writer w;
    bool ok;

    jsonl_begin(&w, space, sizeof(space));
    jsonl_put_uint(&w, "quarantine", FORMAT);
    jsonl_put_uint(&w, "version", q->version);
    jsonl_put_uint(&w, "last_id", q->last_id);
    ok = jsonl_end_in(&w, out);
    for (size_t i = 0; ok && i < q->n; i++) {
        const struct quarantine_item *one = &q->items[i];

        jsonl_begin(&w, space, sizeof(space));
        jsonl_put_uint(&w, "id", one->id);
        jsonl_put_text(&w, "kind", str_of(quarantine_kind_name(one->kind)), 32);
        jsonl_put_text(&w, "subject", str_of(one->text), QUARANTINE_TEXT_MAX);
        jsonl_put_uint(&w, "parent", one->parent);
        jsonl_put_int(&w, "added", one->added_s);
        jsonl_put_int(&w, "until", one->until_s);
        jsonl_put_text(&w, "reason", str_of(one->reason), QUARANTINE_REASON_MAX);
        ok = jsonl_end_in(&w, out);
    }
    jsonl_begin(&w, space, sizeof(space));
    jsonl_put_uint(&w, "end", q->n);
    return ok && jsonl_end_in(&w, out);
}

/* --- parsing ---------------------------------------------------------------------------------- */
static bool take_kind(const struct jsonl *l, enum quarantine_kind *ret)
{
    for (uint32_t k = 0; k < QUARANTINE_N_KINDS; k++) {
        if (jsonl_is(l, "kind", quarantine_kind_name(k))) {
            *ret = (enum quarantine_kind)k;
            return true;
        }
    }
    return false;
}

/* The subject must be in the one spelling that is compared. */
static bool subject_ok(enum quarantine_kind kind, const char *text)
{
    mem_autofree char *spelled =
        mem_must_printf("%s%s", kind == QUARANTINE_SERIAL ? "serial:" : "", text);
    char again[QUARANTINE_TEXT_MAX + 1];
    enum quarantine_kind found;

    return quarantine_subject(str_of(spelled), &found, again, NULL) == 0 && found == kind &&
           strcmp(again, text) == 0;
}

static bool take_item(const struct jsonl *l, uint64_t now_ms, struct quarantine *q)
{
    char text[QUARANTINE_TEXT_MAX + 1], reason[QUARANTINE_REASON_MAX + 1];
    struct quarantine_item i = {.id = 0};
    uint64_t last = q->n > 0 ? q->items[q->n - 1].id : 0;

    if (!jsonl_get_uint(l, "id", &i.id) || i.id <= last || i.id > q->last_id ||
        !take_kind(l, &i.kind) || !jsonl_get_text(l, "subject", text, sizeof(text)) ||
        !subject_ok(i.kind, text) || !jsonl_get_uint(l, "parent", &i.parent) ||
        !jsonl_get_int(l, "added", &i.added_s) || !jsonl_get_int(l, "until", &i.until_s) ||
        i.until_s < 0 || !jsonl_get_text(l, "reason", reason, sizeof(reason)) ||
        quarantine_find(q, i.kind, text) != NULL || q->n == QUARANTINE_ITEMS_MAX) {
        return false;
    }
    i.due_ms = now_ms; /* after a restart the wall clock is all there is */
    i.text = mem_must_strdup(text);
    i.reason = mem_must_strdup(reason);
    q->items = mem_must_realloc(q->items, (q->n + 1) * sizeof(*q->items));
    q->items[q->n++] = i;
    return true;
}

int quarantine_parse(struct str text, uint64_t now_ms, struct quarantine *ret, struct err *err)
{
    struct quarantine q = {.items = NULL};
    struct jsonl l;
    uint64_t format, n;

    if (!jsonl_next(&text, &l) || !jsonl_get_uint(&l, "quarantine", &format) ||
        !jsonl_get_uint(&l, "version", &q.version) || !jsonl_get_uint(&l, "last_id", &q.last_id)) {
        return err_set(err, ERR_CONFIG, "this is no quarantine file");
    }
    if (format != FORMAT) {
        return err_set(err, ERR_UNSUPPORTED, "the quarantine file is of another version");
    }
    for (;;) {
        if (!jsonl_next(&text, &l)) {
            break;
        }
        if (jsonl_get_uint(&l, "end", &n)) {
            if (n != q.n || text.n != 0) {
                break;
            }
            *ret = q;
            return 0;
        }
        if (!take_item(&l, now_ms, &q)) {
            break;
        }
    }
    err_set(err, ERR_CONFIG, "the quarantine file is damaged after its item %zu", q.n);
    quarantine_deinit(&q);
    return -1;
}

/* --- for people ------------------------------------------------------------------------------- */
static bool put_text(struct buf *out, const char *key, const char *value)
{
    char text[6 * QUARANTINE_TEXT_MAX];
    size_t n = log_json_escape(str_of(value), text, sizeof(text));

    return buf_printf(out, ",\"%s\":\"", key) && buf_append(out, text, n) &&
           buf_append(out, "\"", 1);
}

static bool put_item(struct buf *out, const struct quarantine *q, const struct quarantine_item *one)
{
    char added[32], until[32];
    size_t serials = 0;

    for (size_t i = 0; i < q->n; i++) {
        serials += q->items[i].parent == one->id;
    }
    os_time_text(one->added_s, added, sizeof(added));
    os_time_text(one->until_s, until, sizeof(until));
    return buf_printf(out, "{\"id\":%llu,\"kind\":\"%s\"", (unsigned long long)one->id,
                      quarantine_kind_name(one->kind)) &&
           put_text(out, "subject", one->text) && put_text(out, "added", added) &&
           (one->until_s == 0 ? buf_printf(out, ",\"until\":null")
                              : put_text(out, "until", until)) &&
           put_text(out, "reason", one->reason) && buf_printf(out, ",\"serials\":%zu}", serials);
}

/* What somebody asked for: the serials behind an image digest are counted only. */
bool quarantine_document(const struct quarantine *q, struct buf *out)
{
    bool first = true;
    bool ok = buf_printf(out, "{\"version\":%llu,\"scope\":\"this node only\",\"items\":[",
                         (unsigned long long)q->version);

    for (size_t i = 0; ok && i < q->n; i++) {
        if (q->items[i].parent == 0) {
            ok = (first || buf_append(out, ",", 1)) && put_item(out, q, &q->items[i]);
            first = false;
        }
    }
    return ok && buf_append(out, "]}\n", 3);
}
