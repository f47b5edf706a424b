/*
 * From a token's JSON to a flat list of names and values. A name is the keys on the way to the
 * value, joined by dots, a dot or backslash of a key behind a backslash: so that no key can look
 * like a way.
 */
#include "claims_priv.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct claims {
    unsigned refs;
    int64_t end_s;
    struct policy_claims list;
    struct policy_header *items; /* owned */
    struct buf text;             /* of names and values */
    char *withheld;              /* owned; NULL: nothing is */
};

struct making {
    struct claims *c;
    struct {
        size_t name_at, name_n, value_at, value_n;
    } at[CLAIMS_VALUES_MAX]; /* in text, which moves as it grows */
    size_t n;
    struct buf name; /* of where we are */
    bool full;
};

struct claims *claims_ref(struct claims *c)
{
    c->refs++;
    return c;
}

struct claims *claims_unref(struct claims *c)
{
    if (c != NULL && --c->refs == 0) {
        buf_reset(&c->text);
        free(c->items);
        free(c->withheld);
        free(c);
    }
    return NULL;
}

const struct policy_claims *claims_list(const struct claims *c)
{
    return &c->list;
}

const char *claims_withheld(const struct claims *c)
{
    return c->withheld;
}

void claims_withhold(struct claims *c, const char *header)
{
    c->withheld = mem_must_strdup(header);
}

int64_t claims_end_s(const struct claims *c)
{
    return c->end_s;
}

/* --- values ----------------------------------------------------------------------------------- */
static void add(struct making *m, struct str value)
{
    struct buf *text = &m->c->text;
    if (m->n == CLAIMS_VALUES_MAX) {
        m->full = true;
        return;
    }
    size_t name_at = buf_len(text);
    m->full = m->full || !buf_append(text, buf_head(&m->name), buf_len(&m->name)) ||
              (value.n > 0 && !buf_append(text, value.p, value.n));
    if (!m->full) {
        m->at[m->n].name_at = name_at;
        m->at[m->n].name_n = buf_len(&m->name);
        m->at[m->n].value_at = name_at + buf_len(&m->name);
        m->at[m->n].value_n = value.n;
        m->n++;
    }
}

/* False: it is no value. */
static bool add_scalar(struct making *m, const json_t *v)
{
    char number[32];
    if (json_is_string(v)) {
        add(m, (struct str){json_string_value(v), json_string_length(v)});
    } else if (json_is_integer(v)) {
        int n = snprintf(number, sizeof(number), "%" JSON_INTEGER_FORMAT, json_integer_value(v));
        add(m, (struct str){number, (size_t)n});
    } else if (json_is_boolean(v)) {
        add(m, json_is_true(v) ? STR_LIT("true") : STR_LIT("false"));
    } else {
        return false;
    }
    return true;
}

/* RFC 8693, 4.2: words with blanks between them. */
static void add_words(struct making *m, struct str words)
{
    while (words.n > 0) {
        const char *blank = memchr(words.p, ' ', words.n);
        size_t n = blank != NULL ? (size_t)(blank - words.p) : words.n;
        if (n > 0) {
            add(m, (struct str){words.p, n});
        }
        n += blank != NULL ? 1 : 0;
        words = (struct str){words.p + n, words.n - n};
    }
}

/* --- names ------------------------------------------------------------------------------------ */
static void enter(struct making *m, const char *key)
{
    bool ok = buf_len(&m->name) == 0 || buf_append(&m->name, ".", 1);
    for (; ok && *key != '\0'; key++) {
        ok = ((*key != '.' && *key != '\\') || buf_append(&m->name, "\\", 1)) &&
             buf_append(&m->name, key, 1);
    }
    m->full = m->full || !ok;
}

static void leave(struct making *m, size_t len)
{
    m->name.len = len;
}

static void add_object(struct making *m, json_t *object, unsigned depth);

static void add_member(struct making *m, const char *key, json_t *v, unsigned depth)
{
    size_t i;
    json_t *e;
    size_t before = buf_len(&m->name);
    enter(m, key);
    if (json_is_object(v)) {
        add_object(m, v, depth + 1);
    } else if (json_is_array(v)) {
        json_array_foreach(v, i, e)
        {
            (void)add_scalar(m, e);
        }
    } else if (depth == 1 && strcmp(key, "scope") == 0 && json_is_string(v)) {
        add_words(m, (struct str){json_string_value(v), json_string_length(v)});
    } else {
        (void)add_scalar(m, v);
    }
    leave(m, before);
}

static void add_object(struct making *m, json_t *object, unsigned depth)
{
    const char *key;
    json_t *v;
    if (depth > CLAIMS_DEPTH_MAX) {
        m->full = true;
    }
    json_object_foreach(object, key, v)
    {
        if (m->full) {
            return;
        }
        if (key[0] != '\0') { /* rules have no name for the other */
            add_member(m, key, v, depth);
        }
    }
}

int claims_new(const json_t *claims, int64_t end_s, struct claims **ret, struct err *err)
{
    struct making *m = mem_must_new(struct making);
    m->c = mem_must_new(struct claims);
    *m->c = (struct claims){.refs = 1, .end_s = end_s, .text = BUF_INIT(CLAIMS_BYTES_MAX)};
    m->name = (struct buf)BUF_INIT(CLAIMS_BYTES_MAX);
    add_object(m, (json_t *)(uintptr_t)claims, 1);
    struct claims *c = m->c;
    bool full = m->full;
    if (!full) {
        const char *text = (const char *)buf_head(&c->text);
        c->items = mem_must_calloc(m->n + 1, sizeof(c->items[0]));
        for (size_t i = 0; i < m->n; i++) {
            c->items[i] = (struct policy_header){{text + m->at[i].name_at, m->at[i].name_n},
                                                 {text + m->at[i].value_at, m->at[i].value_n}};
        }
        c->list = (struct policy_claims){m->n, c->items};
    }
    buf_reset(&m->name);
    free(m);
    if (full) {
        claims_unref(c);
        err_set(err, ERR_LIMIT, "the token says more than rules can be asked about");
        return err_expected(err, "at most %d values, %d bytes of them, %d names deep",
                            CLAIMS_VALUES_MAX, CLAIMS_BYTES_MAX, CLAIMS_DEPTH_MAX);
    }
    *ret = c;
    return 0;
}
