/*
 * What a question matches in the dimensions that have values by name: parameters of the query,
 * headers, claims. Only names of which rules speak are looked at; of those there may be so many in
 * one request and no more, or it is as if nothing were known of them (ALLOW is false, DENY true).
 */
#include "policy_hash.h"

#include <postern/policy_asked.h>
#include <string.h>

/* --- values of one dimension -------------------------------------------------------------------*/

/* False: there are too many. */
static bool add_value(const struct key_table *t, enum dim dim, struct named_match *m,
                      struct str name, struct str value)
{
    uint32_t key = policy_match_name(t, dim, name);
    if (key == KEY_NONE) {
        return true;
    }
    if (m->n_values == NAMED_VALUES_MAX || m->n_keys + 1 >= NAMED_KEYS_MAX) {
        return false;
    }
    uint32_t at = m->n_keys;
    m->keys[m->n_keys++] = key;
    uint32_t room = NAMED_KEYS_MAX - m->n_keys;
    uint32_t n = policy_match_text(t, dim, name, value, m->keys + m->n_keys, room);
    m->n_keys += n;
    m->values[m->n_values++] =
        (struct named_value){.name = key, .at = (uint16_t)at, .n = (uint16_t)(n + 1)};
    return n < room;
}

/* Values of one name side by side. */
static void sort_values(struct named_match *m)
{
    for (uint32_t i = 1; i < m->n_values; i++) {
        struct named_value v = m->values[i];
        uint32_t k = i;
        for (; k > 0 && m->values[k - 1].name > v.name; k--) {
            m->values[k] = m->values[k - 1];
        }
        m->values[k] = v;
    }
}

static bool add_list(const struct key_table *t, enum dim dim, struct named_match *m,
                     const struct policy_header *items, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!add_value(t, dim, m, items[i].name, items[i].value)) {
            return false;
        }
    }
    return true;
}

/* --- parameters --------------------------------------------------------------------------------*/

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    char l = (char)policy_fold((uint8_t)c);
    return l >= 'a' && l <= 'f' ? l - 'a' + 10 : -1;
}

bool policy_query_decode(struct str in, char *room, size_t size, size_t *used, struct str *ret)
{
    char *out = room + *used;
    size_t n = 0;
    for (size_t i = 0; i < in.n; i++) {
        char c = in.p[i] == '+' ? ' ' : in.p[i];
        if (c == '%') {
            if (in.n - i < 3 || hex_value(in.p[i + 1]) < 0 || hex_value(in.p[i + 2]) < 0) {
                return false;
            }
            c = (char)(hex_value(in.p[i + 1]) << 4 | hex_value(in.p[i + 2]));
            i += 2;
        }
        if (c == ';' && in.p[i] == ';') {
            return false; /* some take it for & */
        }
        if (*used + n == size) {
            return false;
        }
        out[n++] = c;
    }
    *used += n;
    *ret = (struct str){out, n};
    return true;
}

bool policy_query_take(struct str *rest, struct str *ret_one, struct str *ret_name,
                       struct str *ret_value)
{
    while (rest->n > 0) {
        const char *amp = memchr(rest->p, '&', rest->n);
        struct str one = {rest->p, amp != NULL ? (size_t)(amp - rest->p) : rest->n};
        size_t used = one.n + (amp != NULL);
        *rest = (struct str){rest->p + used, rest->n - used};
        if (one.n > 0) {
            const char *eq = memchr(one.p, '=', one.n);
            *ret_name = (struct str){one.p, eq != NULL ? (size_t)(eq - one.p) : one.n};
            *ret_value = eq != NULL ? (struct str){eq + 1, one.n - ret_name->n - 1} : STR_NONE;
            if (ret_one != NULL) {
                *ret_one = one;
            }
            return true;
        }
    }
    return false;
}

static bool add_query(struct ask *a, struct named_match *m)
{
    struct str rest = a->query->query;
    struct str name, value;
    while (policy_query_take(&rest, NULL, &name, &value)) {
        size_t used = 0; /* keys are all that is kept */
        if (!policy_query_decode(name, a->named->query_room, QUERY_ROOM, &used, &name) ||
            !policy_query_decode(value, a->named->query_room, QUERY_ROOM, &used, &value) ||
            !add_value(&a->policy->table, DIM_QUERY, m, name, value)) {
            return false;
        }
    }
    return true;
}

/* --- the whole ---------------------------------------------------------------------------------*/

static void fill_named(struct ask *a, enum dim dim, struct named_match *m)
{
    const struct policy_query *q = a->query;
    const struct key_table *t = &a->policy->table;
    bool known = false;
    m->n_values = 0;
    m->n_keys = 0;
    m->ready = true;
    if (dim == DIM_CLAIM) {
        if (q->claims == NULL || !q->http) {
            m->known = NOT_THERE;
            return;
        }
        known = add_list(t, dim, m, q->claims->items, q->claims->n);
    } else if (dim == DIM_HEADER) {
        known = q->headers != NULL && add_list(t, dim, m, q->headers->items, q->headers->n);
    } else {
        known = q->query.p != NULL && add_query(a, m);
    }
    m->known = known ? KNOWN : NOT_KNOWN;
    sort_values(m);
}

const struct named_match *policy_ask_named(struct ask *a, enum dim dim)
{
    struct named_match *m = &a->named->matches[dim - DIM_PLAIN_COUNT];
    if (!m->ready) {
        fill_named(a, dim, m);
    }
    return m;
}
