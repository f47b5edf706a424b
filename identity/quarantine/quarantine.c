#include <postern/quarantine.h>

#include <postern/mem.h>
#include <postern/spiffe.h>
#include <stdlib.h>
#include <string.h>

const char *quarantine_kind_name(uint32_t kind)
{
    static const char *const NAMES[QUARANTINE_N_KINDS] = {"spiffe_id", "serial", "image_digest"};

    return kind < QUARANTINE_N_KINDS ? NAMES[kind] : "unknown";
}

static void item_clear(struct quarantine_item *i)
{
    free(i->text);
    free(i->reason);
}

void quarantine_deinit(struct quarantine *q)
{
    for (size_t i = 0; i < q->n; i++) {
        item_clear(&q->items[i]);
    }
    free(q->items);
    *q = (struct quarantine){.items = NULL};
}

/* --- subjects --------------------------------------------------------------------------------- */
static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

enum { SERIAL_DIGITS_MAX = 40 }; /* RFC 5280: 20 bytes */

static int take_serial(struct str s, char *ret, struct err *err)
{
    char digits[SERIAL_DIGITS_MAX + 2];
    size_t n = 0;

    for (size_t i = 0; i < s.n; i++) {
        int v = hex_digit(s.p[i]);

        if (s.p[i] == ':' && i > 0 && i + 1 < s.n) {
            continue;
        }
        if (v == -1 || (n == 0 && v == 0 && i + 1 < s.n)) {
            if (v == 0) {
                continue; /* a leading zero */
            }
            return err_set(err, ERR_USAGE, "a serial is hexadecimal digits");
        }
        if (n == SERIAL_DIGITS_MAX) {
            return err_set(err, ERR_USAGE, "a serial has at most %d digits", SERIAL_DIGITS_MAX);
        }
        digits[n++] = "0123456789abcdef"[v];
    }
    if (n == 0) {
        return err_set(err, ERR_USAGE, "the serial is missing");
    }
    if (n % 2 != 0) {
        *ret++ = '0';
    }
    memcpy(ret, digits, n);
    ret[n] = '\0';
    return 0;
}

static int take_digest(struct str hex, char *ret, struct err *err)
{
    if (hex.n != 64) {
        return err_set(err, ERR_USAGE, "an image digest is sha256: and 64 hexadecimal digits");
    }
    memcpy(ret, "sha256:", 7);
    for (size_t i = 0; i < hex.n; i++) {
        int v = hex_digit(hex.p[i]);

        if (v == -1) {
            return err_set(err, ERR_USAGE, "an image digest is sha256: and 64 hexadecimal digits");
        }
        ret[7 + i] = "0123456789abcdef"[v];
    }
    ret[7 + 64] = '\0';
    return 0;
}

int quarantine_subject(struct str s, enum quarantine_kind *ret_kind,
                       char ret_text[QUARANTINE_TEXT_MAX + 1], struct err *err)
{
    const struct str serial = STR_LIT("serial:"), digest = STR_LIT("sha256:");
    const char *at = s.n > 0 ? memrchr(s.p, '@', s.n) : NULL;
    char text[QUARANTINE_TEXT_MAX + 1];
    struct spiffe_id id;
    int r;

    if (at != NULL) {
        s = (struct str){at + 1, s.n - (size_t)(at + 1 - s.p)};
    }
    if (str_has_prefix(s, STR_LIT("spiffe:"))) {
        if (s.n > QUARANTINE_TEXT_MAX || spiffe_id_parse(s, &id, err) == -1) {
            return err_prefix(err, "%.*s", STR_ARG(s));
        }
        if (id.path.n == 0) { /* nobody has it: it would be taken, and stop nothing */
            err_set(err, ERR_USAGE, "%.*s names a whole trust domain", STR_ARG(s));
            return err_expected(err, "the ID of a workload, with a path");
        }
        memcpy(ret_text, s.p, s.n);
        ret_text[s.n] = '\0';
        *ret_kind = QUARANTINE_SPIFFE_ID;
        return 0;
    }
    if (str_has_prefix(s, serial)) {
        r = take_serial((struct str){s.p + serial.n, s.n - serial.n}, text, err);
        *ret_kind = QUARANTINE_SERIAL;
    } else if (str_has_prefix(s, digest)) {
        r = take_digest((struct str){s.p + digest.n, s.n - digest.n}, text, err);
        *ret_kind = QUARANTINE_IMAGE_DIGEST;
    } else {
        err_set(err, ERR_USAGE, "'%.*s' names nothing that can be quarantined", STR_ARG(s));
        return err_expected(err, "spiffe://..., serial:HEX or sha256:HEX (an image digest)");
    }
    if (r == 0) {
        memcpy(ret_text, text, strlen(text) + 1);
    }
    return r;
}

/* --- the set ---------------------------------------------------------------------------------- */
/* Grows also over the loss of the file: it is never below the time of the change. */
static void next_version(struct quarantine *q, int64_t now_s)
{
    uint64_t at = now_s > 0 ? (uint64_t)now_s : 0;

    q->version = q->version + 1 > at ? q->version + 1 : at;
}

static struct quarantine_item *find(const struct quarantine *q, enum quarantine_kind kind,
                                    const char *text)
{
    for (size_t i = 0; i < q->n; i++) {
        if (q->items[i].kind == kind && strcmp(q->items[i].text, text) == 0) {
            return &q->items[i];
        }
    }
    return NULL;
}

const struct quarantine_item *quarantine_find(const struct quarantine *q, enum quarantine_kind kind,
                                              const char *text)
{
    return find(q, kind, text);
}

int quarantine_add(struct quarantine *q, enum quarantine_kind kind, const char *text,
                   const char *reason, uint64_t for_s, uint64_t parent, int64_t now_s,
                   uint64_t now_ms, struct quarantine_item **ret_item, struct err *err)
{
    struct quarantine_item *i = find(q, kind, text);

    if (for_s > UINT32_MAX) {
        return err_set(err, ERR_USAGE, "the time limit is too long");
    }
    if (i == NULL) {
        if (q->n == QUARANTINE_ITEMS_MAX) {
            err_set(err, ERR_LIMIT, "%d things are quarantined already", QUARANTINE_ITEMS_MAX);
            return err_advise(err, "remove what is over, or quarantine an identity instead of its "
                                   "serials");
        }
        q->items = mem_must_realloc(q->items, (q->n + 1) * sizeof(*q->items));
        i = &q->items[q->n++];
        *i = (struct quarantine_item){
            .id = ++q->last_id, .kind = kind, .text = mem_must_strdup(text), .parent = parent};
    } else if (parent != 0 && i->parent != parent) {
        if (ret_item != NULL) {
            *ret_item = i; /* it is there by itself, with an end of its own */
        }
        return 0;
    } else if (parent == 0) {
        i->parent = 0;
    }
    free(i->reason);
    i->reason = mem_must_strndup(reason, strnlen(reason, QUARANTINE_REASON_MAX));
    i->added_s = now_s;
    i->until_s = for_s > 0 ? now_s + (int64_t)for_s : 0;
    i->due_ms = now_ms + for_s * 1000;
    next_version(q, now_s);
    if (ret_item != NULL) {
        *ret_item = i;
    }
    return 0;
}

void quarantine_remove(struct quarantine *q, uint64_t id, int64_t now_s)
{
    size_t kept = 0;

    for (size_t i = 0; i < q->n; i++) {
        if (q->items[i].id == id || q->items[i].parent == id) {
            item_clear(&q->items[i]);
        } else {
            q->items[kept++] = q->items[i];
        }
    }
    if (kept != q->n) {
        q->n = kept;
        next_version(q, now_s);
    }
}

const struct quarantine_item *quarantine_due(const struct quarantine *q, int64_t now_s,
                                             uint64_t now_ms)
{
    for (size_t i = 0; i < q->n; i++) {
        const struct quarantine_item *one = &q->items[i];

        if (one->until_s != 0 && one->until_s <= now_s && one->due_ms <= now_ms) {
            return one;
        }
    }
    return NULL;
}

uint64_t quarantine_next_ms(const struct quarantine *q, int64_t now_s, uint64_t now_ms,
                            uint64_t max_ms)
{
    uint64_t next = max_ms;

    for (size_t i = 0; i < q->n; i++) {
        const struct quarantine_item *one = &q->items[i];
        uint64_t wall = one->until_s > now_s ? (uint64_t)(one->until_s - now_s) * 1000 : 0;
        uint64_t own = one->due_ms > now_ms ? one->due_ms - now_ms : 0;
        uint64_t both = wall > own ? wall : own;

        if (one->until_s != 0 && both < next) {
            next = both;
        }
    }
    return next;
}
