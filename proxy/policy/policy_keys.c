/*
 * Items of a policy to keys: equal items of one dimension are one key.
 */
#include "policy_hash.h"

#include <postern/mem.h>
#include <postern/mem_grow.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- the table
 * ---------------------------------------------------------------------------------*/

static void put(struct slot *slots, uint32_t mask, uint32_t hash, struct slot slot)
{
    uint32_t i = hash & mask;
    while (slots[i].key != KEY_NONE) {
        i = (i + 1) & mask;
    }
    slots[i] = slot;
}

/* At most half full: a miss, which is the common answer, ends after a probe or
 * two. */
static void make_slots(struct key_table *t)
{
    if (t->slots != NULL && t->n < t->mask / 2) {
        return;
    }
    uint32_t size = t->slots == NULL ? 64 : (t->mask + 1) * 2;
    struct slot *slots = mem_must_calloc(size, sizeof(slots[0]));
    for (uint32_t i = 0; t->slots != NULL && i <= t->mask; i++) {
        if (t->slots[i].key != KEY_NONE) {
            put(slots, size - 1, policy_key(t, t->slots[i].key)->hash, t->slots[i]);
        }
    }
    free(t->slots);
    t->slots = slots;
    t->mask = size - 1;
}

static uint32_t make_key(struct key_table *t, size_t len)
{
    size_t at = t->len > 0 ? t->len : KEY_ALIGN;
    POSTERN_ASSERT(at / KEY_ALIGN < UINT32_MAX / 2);
    while (t->cap < at + policy_key_size(len)) {
        t->cap = t->cap > 0 ? t->cap * 2 : 1024;
        t->bytes = mem_must_realloc(t->bytes, t->cap);
    }
    memset(t->bytes + at, 0, policy_key_size(len));
    t->len = at + policy_key_size(len);
    t->n++;
    return (uint32_t)(at / KEY_ALIGN);
}

static void add_length(struct lengths *l, uint32_t len)
{
    uint32_t i = 0;
    while (i < l->n && l->items[i] < len) {
        i++;
    }
    if (i < l->n && l->items[i] == len) {
        return;
    }
    MEM_GROW(l->items, l->n, l->cap, 8);
    memmove(&l->items[i + 1], &l->items[i], (l->n - i) * sizeof(l->items[0]));
    l->items[i] = len;
    l->n++;
}

struct new_key {
    enum dim dim;
    enum form form;
    uint8_t prefix_len;
    struct str name;
    const uint8_t *text;
    size_t len;
};

static uint32_t put_key(struct key_table *t, const struct new_key *n, uint64_t running)
{
    make_slots(t);
    size_t before = n->name.n > 0 ? n->name.n + 1 : 0;
    uint32_t no = t->n;
    uint32_t key = make_key(t, before + n->len);
    uint64_t hash = policy_hash_finish(running, n->dim, n->form);
    struct key *k = (struct key *)(void *)(t->bytes + (size_t)key * KEY_ALIGN);
    *k = (struct key){
        .hash = (uint32_t)hash,
        .len = (uint32_t)(before + n->len),
        .no = no,
        .dim = (uint8_t)n->dim,
        .form = (uint8_t)n->form,
        .prefix_len = n->prefix_len,
        .name_len = (uint8_t)n->name.n,
    };
    if (n->name.n > 0) {
        memcpy(k->text, n->name.p, n->name.n);
    }
    for (size_t i = 0; i < n->len; i++) {
        k->text[before + i] = (char)(n->dim == DIM_HOST ? policy_fold(n->text[i]) : n->text[i]);
    }
    put(t->slots, t->mask, k->hash, (struct slot){.tag = (uint32_t)(hash >> 32), .key = key});
    return key;
}

/* As policy_shape_hash: each of its segments has a / behind. */
static uint64_t hash_of_segments(const uint8_t *text, size_t len)
{
    uint64_t h = policy_hash_start;
    for (size_t at = 0; at < len;) {
        const uint8_t *slash = memchr(text + at, '/', len - at);
        POSTERN_ASSERT(slash != NULL);
        size_t n = (size_t)(slash - (text + at));
        h = policy_hash_segment(h, (struct str){(const char *)text + at, n});
        at += n + 1;
    }
    return h;
}

static uint64_t hash_of(const struct new_key *n)
{
    if (n->dim == DIM_SOURCE) {
        return policy_address_hash(n->text, n->prefix_len);
    }
    if (n->form == FORM_SHAPE) {
        return hash_of_segments(n->text, n->len);
    }
    const struct hash_text t = policy_hash_text(n->dim, n->form, n->text, n->len);
    return policy_hash_whole(policy_hash_name(n->name), &t);
}

static uint32_t intern(struct key_table *t, const struct new_key *n)
{
    uint64_t running = hash_of(n);
    uint32_t key =
        policy_keys_find(t, n->dim, n->form, n->prefix_len, n->name, n->text, n->len, running);
    return key != KEY_NONE ? key : put_key(t, n, running);
}

/* --- items
 * -------------------------------------------------------------------------------------*/

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    char l = (char)policy_fold((uint8_t)c);
    return l >= 'a' && l <= 'f' ? l - 'a' + 10 : -1;
}

/* %XX stands for that byte, as in a request. In place; false: a % without two
 * digits. */
static bool decode_percent(char *text, size_t *len)
{
    size_t n = 0;
    for (size_t i = 0; i < *len; i++) {
        char c = text[i];
        if (c == '%') {
            if (*len - i < 3 || hex_value(text[i + 1]) < 0 || hex_value(text[i + 2]) < 0) {
                return false;
            }
            c = (char)(hex_value(text[i + 1]) << 4 | hex_value(text[i + 2]));
            i += 2;
        }
        text[n++] = c;
    }
    *len = n;
    return true;
}

static int refuse_pattern(const char *item, struct err *err, const char *expected)
{
    err_set(err, ERR_CONFIG, "'%s' is no pattern", item);
    return err_expected(err, "%s", expected);
}

/* --- globs and templates
 * -----------------------------------------------------------------------*/

static bool has_segment(const char *item, const char *segment)
{
    size_t n = strlen(segment);
    for (const char *p = strchr(item, '/'); p != NULL; p = strchr(p + 1, '/')) {
        if (strncmp(p + 1, segment, n) == 0 && (p[1 + n] == '/' || p[1 + n] == '\0')) {
            return true;
        }
    }
    return false;
}

/* A segment "**"; or "*" that is not the last one, which would be a prefix. */
static bool is_glob(const char *item)
{
    return has_segment(item, "**") || strstr(item, "/*/") != NULL;
}

static bool is_template(const char *item)
{
    return has_segment(item, "{}") || has_segment(item, "{**}");
}

static int shape_number(struct key_table *t, const struct shape *s, uint8_t *ret, struct err *err)
{
    for (uint32_t i = 0; i < t->n_shapes; i++) {
        const struct shape *x = &t->shapes[i];
        if (x->dim == s->dim && x->rest == s->rest && x->wild == s->wild &&
            x->n_before == s->n_before && x->n_after == s->n_after) {
            *ret = (uint8_t)i;
            return 0;
        }
    }
    if (t->n_shapes_of[s->dim] == SHAPES_MAX) {
        err_set(err, ERR_LIMIT, "globs or templates of more than %d shapes", SHAPES_MAX);
        return err_advise(err, "use the same number of segments, and the same ones free, again");
    }
    t->n_shapes_of[s->dim]++;
    *ret = (uint8_t)t->n_shapes;
    t->shapes[t->n_shapes++] = *s;
    return 0;
}

/* Takes one segment into the shape, and a fixed one's text into `text`. False:
 * it may not stand there. */
static bool take_segment(struct shape *s, struct str segment, struct buf *text)
{
    bool path = s->dim == DIM_PATH;
    if (str_eq(segment, path ? STR_LIT("{**}") : STR_LIT("**"))) {
        bool again = s->rest;
        s->rest = true;
        return !again;
    }
    if (str_eq(segment, path ? STR_LIT("{}") : STR_LIT("*"))) {
        s->wild |= 1UL << s->n_before++;
        return !s->rest;
    }
    if (s->rest && !path) {
        return false;
    }
    mem_autofree char *fixed = mem_must_strndup(segment.p, segment.n);
    size_t len = segment.n;
    if (memchr(fixed, '*', len) != NULL || (path && !decode_percent(fixed, &len)) ||
        memchr(fixed, '/', len) != NULL || (path && memchr(segment.p, '{', segment.n) != NULL)) {
        return false;
    }
    if (s->rest) {
        s->n_after++;
    } else {
        s->n_before++;
    }
    return buf_append(text, fixed, len) && buf_append(text, "/", 1);
}

static int key_of_shape(struct key_table *t, enum dim dim, const char *item, uint32_t *ret,
                        struct err *err)
{
    struct segments *v = mem_must_new(struct segments);
    struct shape s = {.dim = (uint8_t)dim};
    struct buf text = BUF_INIT(65536);
    bool ok = policy_segments_split(dim, str_of(item), v) && v->n <= SEGMENTS_MAX;
    for (size_t i = 0; ok && i < v->n; i++) {
        ok = take_segment(&s, v->first[i], &text) && (dim == DIM_PATH || i > 0 || s.wild == 0);
    }
    int r = -1;
    uint8_t number = 0;
    if (!ok) {
        refuse_pattern(item, err,
                       dim == DIM_PATH ? "at most 64 segments, each of them fixed, "
                                         "{} or, once and last of "
                                         "these, {**}"
                                       : "at most 64 segments, each of them fixed "
                                         "or *, and ** at the end");
    } else if (shape_number(t, &s, &number, err) == 0) {
        struct str fixed = buf_str(&text);
        *ret = intern(t, &(struct new_key){.dim = dim,
                                           .form = FORM_SHAPE,
                                           .prefix_len = number,
                                           .text = (const uint8_t *)fixed.p,
                                           .len = fixed.n});
        r = 0;
    }
    buf_reset(&text);
    free(v);
    return r;
}

/* --- patterns
 * ----------------------------------------------------------------------------------*/

static enum form form_of(const char *text, size_t *at, size_t *len)
{
    if (*len == 1 && text[0] == '*') {
        *len = 0;
        return FORM_ANY;
    }
    if (*len > 1 && text[*len - 1] == '*') {
        (*len)--;
        return FORM_PREFIX;
    }
    if (*len > 1 && text[0] == '*') {
        *at = 1;
        (*len)--;
        return FORM_SUFFIX;
    }
    return FORM_EXACT;
}

static void add_form(struct key_table *t, enum dim dim, enum form form, size_t len, uint32_t key)
{
    if (form == FORM_ANY && !dim_is_named(dim)) {
        t->any[dim] = key;
    } else if (form == FORM_PREFIX) {
        add_length(&t->prefixes[dim], (uint32_t)len);
    } else if (form == FORM_SUFFIX) {
        add_length(&t->suffixes[dim], (uint32_t)len);
    } else if (form == FORM_EXACT) {
        t->has_exact[dim] = true;
    }
}

int policy_key_of_pattern(struct key_table *t, enum dim dim, const char *name, const char *item,
                          uint32_t *ret, struct err *err)
{
    if (dim == DIM_PATH ? is_template(item)
                        : (dim == DIM_PRINCIPAL || dim == DIM_TARGET) && is_glob(item)) {
        return key_of_shape(t, dim, item, ret, err);
    }
    mem_autofree char *text = mem_must_strdup(item);
    size_t len = strlen(text);
    size_t at = 0;
    bool patterns = dim != DIM_DOMAIN && dim != DIM_METHOD;
    enum form form = form_of(text, &at, &len);
    if ((len == 0 && form != FORM_ANY) || memchr(text + at, '*', len) != NULL ||
        (form != FORM_EXACT && !patterns)) {
        return refuse_pattern(item, err,
                              patterns ? "text, *, or text with one * at its beginning or end"
                                       : "text without *");
    }
    if (dim == DIM_PATH && !decode_percent(text + at, &len)) {
        err_set(err, ERR_CONFIG, "path '%s' has a %% that stands for no byte", item);
        return err_expected(err, "%%XX with two hexadecimal digits; a %% itself is %%25");
    }
    if (dim == DIM_HOST && len > 0 && form != FORM_PREFIX && text[at + len - 1] == '.') {
        len--; /* one final dot, as in a question */
        if (len == 0) {
            err_set(err, ERR_CONFIG, "host '%s' is empty but for its final dot", item);
            return err_expected(err, "a host name");
        }
    }
    *ret = intern(t, &(struct new_key){.dim = dim,
                                       .form = form,
                                       .name = str_of(name),
                                       .text = (const uint8_t *)text + at,
                                       .len = len});
    add_form(t, dim, form, len, *ret);
    return 0;
}

uint32_t policy_key_of_name(struct key_table *t, enum dim dim, const char *name)
{
    struct str text = str_of(name);
    t->name_lengths[dim - DIM_PLAIN_COUNT] |= 1UL << (text.n & 63U);
    return intern(t, &(struct new_key){
                         .dim = dim, .form = FORM_NAME, .name = text, .text = (const uint8_t *)""});
}

uint32_t policy_key_of_port(struct key_table *t, uint16_t port)
{
    uint8_t text[2] = {(uint8_t)(port >> 8), (uint8_t)port};
    t->has_exact[DIM_PORT] = true;
    return intern(t, &(struct new_key){
                         .dim = DIM_PORT, .form = FORM_EXACT, .text = text, .len = sizeof(text)});
}

uint32_t policy_key_of_block(struct key_table *t, const struct conf_cidr *block)
{
    struct address a;
    policy_address_set(&a, block->family, block->addr, block->prefix_len);
    policy_address_cut(&a, a.prefix_len);
    add_length(&t->blocks[a.bytes[0] == 4 ? 0 : 1], a.prefix_len);
    return intern(t, &(struct new_key){.dim = DIM_SOURCE,
                                       .form = FORM_PREFIX,
                                       .prefix_len = a.prefix_len,
                                       .text = a.bytes,
                                       .len = SOURCE_LEN});
}

/* --- limits
 * ------------------------------------------------------------------------------------*/

enum { FILTER_SLOTS = 2048, FILTER_BITS = 4 }; /* from so many on; so many bits for each */

static void make_filter(struct key_table *t)
{
    if (t->slots == NULL || t->mask < FILTER_SLOTS - 1) {
        return;
    }
    t->filter = mem_must_calloc(((size_t)t->mask + 1) * FILTER_BITS / 64, sizeof(t->filter[0]));
    t->filter_mask = (t->mask + 1) * FILTER_BITS - 1;
    for (uint32_t i = 0; i <= t->mask; i++) {
        uint32_t bit = t->slots[i].tag & t->filter_mask;
        if (t->slots[i].key != KEY_NONE) {
            t->filter[bit / 64] |= 1UL << bit % 64;
        }
    }
}

/* How many of the same form contain this key's pattern, itself included. */
static uint32_t nesting(const struct key_table *t, const struct key *k)
{
    bool suffix = k->form == FORM_SUFFIX;
    const struct lengths *l = suffix ? &t->suffixes[k->dim] : &t->prefixes[k->dim];
    struct str name = {k->text, k->name_len};
    size_t before = name.n > 0 ? name.n + 1 : 0;
    const uint8_t *text = (const uint8_t *)k->text + before;
    size_t n = k->len - before;
    const struct hash_text whole = policy_hash_text((enum dim)k->dim, (enum form)k->form, text, n);
    uint64_t h = policy_hash_name(name);
    uint32_t count = 0;
    size_t pos = 0;
    for (uint32_t i = 0; i < l->n && l->items[i] <= n; i++) {
        uint32_t len = l->items[i];
        h = policy_hash_words(h, &whole, &pos, len);
        const uint8_t *part = suffix ? text + (n - len) : text;
        count += policy_keys_find(t, (enum dim)k->dim, (enum form)k->form, 0, name, part, len,
                                  policy_hash_rest(h, &whole, pos, len)) != KEY_NONE;
    }
    return count;
}

int policy_keys_finish(struct key_table *t, struct str *ret_pattern, struct err *err)
{
    uint32_t deepest[DIM_COUNT][2] = {0};
    for (size_t at = KEY_ALIGN; at < t->len;) {
        const struct key *k = policy_key(t, (uint32_t)(at / KEY_ALIGN));
        at += policy_key_size(k->len);
        if (k->dim == DIM_SOURCE || (k->form != FORM_PREFIX && k->form != FORM_SUFFIX)) {
            continue;
        }
        uint32_t n = nesting(t, k);
        uint32_t *d = &deepest[k->dim][k->form == FORM_SUFFIX];
        *d = n > *d ? n : *d;
        if (deepest[k->dim][0] + deepest[k->dim][1] > NESTING_MAX) {
            const char *text = (const char *)k->text + k->name_len + (k->name_len > 0 ? 1 : 0);
            *ret_pattern = str_of(text);
            err_set(err, ERR_LIMIT, "pattern '%.200s' is contained in too many others", text);
            err_expected(err, "at most %d patterns that contain each other", NESTING_MAX);
            return err_advise(err, "leave out what a wider pattern of the file already says");
        }
    }
    for (int family = 0; family < 2; family++) {
        if (t->blocks[family].n > NESTING_MAX + 2) {
            err_set(err, ERR_LIMIT, "address blocks of %u different lengths", t->blocks[family].n);
            return err_expected(err, "at most %d different prefix lengths of a family",
                                NESTING_MAX + 2);
        }
    }
    make_filter(t);
    return 0;
}

void policy_keys_deinit(struct key_table *t)
{
    for (int d = 0; d < DIM_COUNT; d++) {
        free(t->prefixes[d].items);
        free(t->suffixes[d].items);
    }
    free(t->blocks[0].items);
    free(t->blocks[1].items);
    free(t->bytes);
    free(t->slots);
    free(t->filter);
    *t = (struct key_table){0};
}
