/* The set as a file of lines, and as a document for people. */
#include <postern/rollout.h>

#include <postern/jsonl.h>
#include <postern/log.h>
#include <postern/os.h>
#include <string.h>

enum { FORMAT = 1, LINE_MAX = 6 * (ROLLOUT_SOURCE_MAX + ROLLOUT_STAGE_MAX) + 4096 };

/* --- printing --------------------------------------------------------------------------------- */
bool rollout_print(const struct rollout *r, struct buf *out)
{
    char space[LINE_MAX];
    struct jsonl_writer w;
    bool ok;

    jsonl_begin(&w, space, sizeof(space));
    jsonl_put_uint(&w, "rollout", FORMAT);
    jsonl_put_uint(&w, "last", r->last);
    jsonl_put_uint(&w, "in_force", r->in_force);
    jsonl_put_uint(&w, "staged", r->staged);
    jsonl_put_text(&w, "stage", str_of(r->stage), ROLLOUT_STAGE_MAX);
    ok = jsonl_end_in(&w, out);
    for (size_t i = 0; ok && i < r->n; i++) {
        const struct rollout_item *one = &r->items[i];

        jsonl_begin(&w, space, sizeof(space));
        jsonl_put_uint(&w, "generation", one->generation);
        jsonl_put_uint(&w, "replaced", one->replaced);
        jsonl_put_int(&w, "pushed", one->pushed_s);
        jsonl_put_uint(&w, "rules", one->n_rules);
        jsonl_put_text(&w, "sha256", str_of(one->sha256), ROLLOUT_SHA256_TEXT);
        jsonl_put_text(&w, "source", str_of(one->source), ROLLOUT_SOURCE_MAX);
        jsonl_put_text(&w, "by", str_of(one->by), ROLLOUT_BY_MAX);
        jsonl_put_text(&w, "comment", str_of(one->comment), ROLLOUT_COMMENT_MAX);
        ok = jsonl_end_in(&w, out);
    }
    jsonl_begin(&w, space, sizeof(space));
    jsonl_put_uint(&w, "end", r->n);
    return ok && jsonl_end_in(&w, out);
}

/* --- parsing ---------------------------------------------------------------------------------- */
static bool sha256_ok(const char *text)
{
    size_t n = strspn(text, "0123456789abcdef");

    return n == ROLLOUT_SHA256_TEXT - 1 && text[n] == '\0';
}

static bool take_item(const struct jsonl *l, const struct rollout *r, struct rollout_item *ret)
{
    uint64_t before = r->n > 0 ? r->items[r->n - 1].generation : 0;

    return jsonl_get_uint(l, "generation", &ret->generation) && ret->generation > before &&
           ret->generation <= r->last && jsonl_get_uint(l, "replaced", &ret->replaced) &&
           ret->replaced <= r->last && ret->replaced != ret->generation &&
           jsonl_get_int(l, "pushed", &ret->pushed_s) &&
           jsonl_get_uint(l, "rules", &ret->n_rules) &&
           jsonl_get_text(l, "sha256", ret->sha256, sizeof(ret->sha256)) &&
           sha256_ok(ret->sha256) &&
           jsonl_get_text(l, "source", ret->source, sizeof(ret->source)) &&
           rollout_text_ok(str_of(ret->source), ROLLOUT_SOURCE_MAX) && ret->source[0] != '\0' &&
           jsonl_get_text(l, "by", ret->by, sizeof(ret->by)) &&
           rollout_text_ok(str_of(ret->by), ROLLOUT_BY_MAX) &&
           jsonl_get_text(l, "comment", ret->comment, sizeof(ret->comment)) &&
           rollout_text_ok(str_of(ret->comment), ROLLOUT_COMMENT_MAX);
}

static bool head_ok(const struct jsonl *l, struct rollout *r)
{
    uint64_t format = 0;

    return jsonl_get_uint(l, "rollout", &format) && format == FORMAT &&
           jsonl_get_uint(l, "last", &r->last) && r->last < UINT64_MAX / 2 &&
           jsonl_get_uint(l, "in_force", &r->in_force) && jsonl_get_uint(l, "staged", &r->staged) &&
           jsonl_get_text(l, "stage", r->stage, sizeof(r->stage)) &&
           (r->staged != 0) == (r->stage[0] != '\0');
}

/* What it names is there, and the stage is one. */
static bool whole_ok(const struct rollout *r)
{
    struct rollout_stage *stage = NULL;
    bool ok = (r->in_force == 0 || rollout_find(r, r->in_force) != NULL) &&
              (r->staged == 0 || (r->staged != r->in_force && rollout_find(r, r->staged) != NULL &&
                                  rollout_stage_parse(str_of(r->stage), &stage, NULL) == 0));

    rollout_stage_free(stage);
    return ok;
}

int rollout_parse(struct str text, struct rollout *ret, struct err *err)
{
    struct rollout r = {.n = 0};
    struct str rest = text;
    struct jsonl line;
    uint64_t end = 0;
    bool ok = text.n <= ROLLOUT_FILE_MAX && jsonl_next(&rest, &line) && head_ok(&line, &r);

    while (ok && (ok = jsonl_next(&rest, &line)) && jsonl_find(&line, "end") == NULL) {
        ok = r.n < ROLLOUT_KEPT && take_item(&line, &r, &r.items[r.n]);
        r.n += ok ? 1 : 0;
    }
    if (!ok || !jsonl_get_uint(&line, "end", &end) || end != r.n || rest.n > 0 || !whole_ok(&r)) {
        return err_set(err, ERR_CONFIG, "this is no whole record of pushed policies");
    }
    *ret = r;
    return 0;
}

/* --- for people ------------------------------------------------------------------------------- */
static bool put_text(struct buf *out, const char *key, const char *value)
{
    char text[6 * ROLLOUT_STAGE_MAX + 8];
    size_t n = log_json_escape(str_of(value), text, sizeof(text));

    return buf_printf(out, ",\"%s\":\"%.*s\"", key, (int)n, text);
}

static bool put_item(const struct rollout_item *one, struct buf *out)
{
    char when[32];

    os_time_text(one->pushed_s, when, sizeof(when));
    return buf_printf(out, "{\"generation\":%llu,\"replaced\":%llu,\"rules\":%llu",
                      (unsigned long long)one->generation, (unsigned long long)one->replaced,
                      (unsigned long long)one->n_rules) &&
           put_text(out, "pushed", when) && put_text(out, "sha256", one->sha256) &&
           put_text(out, "source", one->source) && put_text(out, "by", one->by) &&
           put_text(out, "comment", one->comment) && buf_append(out, "}", 1);
}

bool rollout_document(const struct rollout *r, struct buf *out)
{
    bool ok = buf_printf(out, "\"in_force\":%llu,\"staged\":%llu", (unsigned long long)r->in_force,
                         (unsigned long long)r->staged) &&
              put_text(out, "stage", r->stage) && buf_printf(out, ",\"generations\":[");

    for (size_t i = 0; ok && i < r->n; i++) {
        ok = (i == 0 || buf_append(out, ",", 1)) && put_item(&r->items[i], out);
    }
    return ok && buf_append(out, "]", 1);
}
