/* suggest_paths: paths as they were asked for, to the few templates that people would write. */
#include "suggest_priv.h"

#include <postern/conf.h>
#include <postern/mem.h>
#include <stdlib.h>
#include <string.h>

enum {
    ITEM_MAX = 3000,      /* bytes of an item; longer paths become a prefix */
    VALUES_OF_A_NAME = 5, /* so many values of a segment are values, and not names */
    HEX_AT_LEAST = 8,
};

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* A number, a UUID, a digest: what names one thing of many. */
static bool looks_like_id(struct str segment)
{
    size_t digits = 0;
    size_t hex = 0;
    for (size_t i = 0; i < segment.n; i++) {
        char c = segment.p[i];
        digits += is_digit(c);
        hex += is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F') || c == '-';
    }
    return segment.n > 0 &&
           (digits == segment.n || (hex == segment.n && digits > 0 && segment.n >= HEX_AT_LEAST));
}

/* As a client would encode it, and everything that a pattern or template would take for a sign. */
static void put_segment(struct buf *out, struct str segment)
{
    for (size_t i = 0; i < segment.n; i++) {
        char c = segment.p[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || is_digit(c) ||
                     memchr("-._~!$&'()+,;=:@", c, 16) != NULL;
        if (plain) {
            buf_append(out, &c, 1);
        } else {
            buf_printf(out, "%%%02X", (unsigned)(uint8_t)c);
        }
    }
}

char *suggest_path_item(struct str path, bool cut)
{
    struct buf out = BUF_INIT(ITEM_MAX * 16);
    if (path.n == 0 || path.p[0] != '/') {
        return mem_must_strdup("*"); /* OPTIONS of the server as a whole: no other item holds it */
    }
    path.n -= cut ? 3 : 0;
    path.n = path.n > ITEM_MAX ? ITEM_MAX : path.n;
    bool prefix = cut || path.n == ITEM_MAX;
    for (size_t i = 0; i < path.n;) {
        size_t end = i + 1;
        while (end < path.n && path.p[end] != '/') {
            end++;
        }
        struct str segment = {path.p + i + 1, end - i - 1};
        buf_append(&out, "/", 1);
        if (!prefix && looks_like_id(segment)) {
            buf_append(&out, "{}", 2);
        } else {
            put_segment(&out, segment);
        }
        i = end;
    }
    /* A prefix and a template in one there is not; an encoded byte stays whole. */
    size_t n = buf_len(&out) > ITEM_MAX ? ITEM_MAX : buf_len(&out);
    const char *text = (const char *)buf_head(&out);
    if (n < buf_len(&out)) {
        n -= text[n - 1] == '%' ? 1 : text[n - 2] == '%' ? 2 : 0;
        prefix = true;
    }
    char *item = mem_must_printf("%.*s%s", (int)n, text, prefix ? "*" : "");
    buf_reset(&out);
    return item;
}

bool suggest_path_is_template(const char *item)
{
    return conf_has_segment(item, "{}", true);
}

/* --- merging -----------------------------------------------------------------------------------
 */
/* Where segment i stands; false: there are fewer. */
static bool find_segment(struct str item, size_t which, struct str *ret)
{
    size_t at = 0;
    for (size_t i = 0; at < item.n; i++) {
        size_t end = at + 1;
        while (end < item.n && item.p[end] != '/') {
            end++;
        }
        if (i == which) {
            *ret = (struct str){item.p + at + 1, end - at - 1};
            return true;
        }
        at = end;
    }
    return false;
}

/* The item with {} in the place of one segment; owned. */
static char *without(struct str item, struct str segment)
{
    size_t before = (size_t)(segment.p - item.p);
    return mem_must_printf("%.*s{}%.*s", (int)before, item.p, (int)(item.n - before - segment.n),
                           segment.p + segment.n);
}

static bool may_merge(struct str item, size_t which, struct str *ret_segment)
{
    return item.n > 0 && item.p[0] == '/' && item.p[item.n - 1] != '*' &&
           find_segment(item, which, ret_segment) && ret_segment->n > 0;
}

/* One segment of all items; whether any was merged. */
static void merge_at(const struct tally *items, size_t which, struct tally *ret)
{
    struct tally groups = {.items = NULL};
    size_t *sizes = mem_must_calloc(items->n + 1, sizeof(*sizes));
    struct str segment;
    for (size_t i = 0; i < items->n; i++) {
        struct str item = {items->items[i].key, items->items[i].n};
        if (may_merge(item, which, &segment)) {
            mem_autofree char *group = without(item, segment);
            sizes[tally_take(&groups, str_of(group))]++;
        }
    }
    for (size_t i = 0; i < items->n; i++) {
        struct str item = {items->items[i].key, items->items[i].n};
        if (may_merge(item, which, &segment)) {
            mem_autofree char *group = without(item, segment);
            size_t of = tally_take(&groups, str_of(group));
            bool merged = sizes[of] >= VALUES_OF_A_NAME;
            (void)tally_take(ret, merged ? str_of(group) : item);
        } else {
            (void)tally_take(ret, item);
        }
    }
    free(sizes);
    tally_deinit(&groups);
}

void suggest_paths_merge(const struct tally *items, struct tally *ret)
{
    size_t deepest = 0;
    for (size_t i = 0; i < items->n; i++) {
        size_t depth = 0;
        for (const char *p = items->items[i].key; *p != '\0'; p++) {
            depth += *p == '/';
        }
        deepest = depth > deepest ? depth : deepest;
    }
    struct tally now = {.items = NULL};
    for (size_t i = 0; i < items->n; i++) {
        (void)tally_take(&now, (struct str){items->items[i].key, items->items[i].n});
    }
    for (size_t which = deepest; which-- > 0;) {
        struct tally next = {.items = NULL};
        merge_at(&now, which, &next);
        tally_deinit(&now);
        now = next;
    }
    *ret = now;
}
