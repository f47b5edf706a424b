/* What a question matches in the dimensions that have one value: facts to keys.
 */
#include "policy_hash.h"

#include <string.h>

struct found {
    uint32_t *keys;
    uint32_t n, max;
};

static inline void add(struct found *f, uint32_t key)
{
    if (key != KEY_NONE && f->n < f->max) {
        f->keys[f->n++] = key;
    }
}

static bool is_spiffe_id(struct str id)
{
    return str_has_prefix(id, STR_LIT("spiffe://"));
}

static void match_shapes(const struct key_table *t, enum dim dim, struct str value, struct found *f)
{
    struct segments v __attribute__((uninitialized));
    if (!policy_segments_split(dim, value, &v)) {
        return;
    }
    for (uint32_t i = 0; i < t->n_shapes; i++) {
        const struct shape *s = &t->shapes[i];
        size_t least = (size_t)s->n_before + s->n_after;
        least += dim == DIM_PATH && s->rest && s->n_after == 0; /* "/files/", and not "/files" */
        bool fits = s->dim == dim && (s->rest ? v.n >= least : v.n == least);
        for (uint64_t wild = s->wild; fits && wild != 0; wild &= wild - 1) {
            fits = v.first[__builtin_ctzl(wild)].n > 0;
        }
        if (!fits) {
            continue;
        }
        uint64_t hash = policy_hash_finish(policy_shape_hash(s, &v), dim, FORM_SHAPE);
        if (!policy_keys_may_have(t, hash)) {
            continue;
        }
        for (uint32_t at = (uint32_t)hash & t->mask; t->slots[at].key != KEY_NONE;
             at = (at + 1) & t->mask) {
            const struct key *k = policy_key(t, t->slots[at].key);
            if (t->slots[at].tag == (uint32_t)(hash >> 32) && k->dim == dim &&
                k->form == FORM_SHAPE && k->prefix_len == i && policy_shape_key_is(k, s, &v)) {
                add(f, t->slots[at].key);
                break;
            }
        }
    }
}

uint32_t policy_match_text(const struct key_table *t, enum dim dim, struct str name,
                           struct str value, uint32_t *keys, uint32_t max)
{
    struct found f = {.keys = keys, .max = max};
    const uint8_t *text = (const uint8_t *)value.p;
    const struct hash_text forwards = policy_hash_text(dim, FORM_PREFIX, text, value.n);
    const uint64_t start = policy_hash_name(name);
    if (dim_is_named(dim)) {
        add(&f, policy_keys_find(t, dim, FORM_ANY, 0, name, text, 0, start));
    } else {
        add(&f, t->any[dim]);
    }
    const struct lengths *l = &t->prefixes[dim];
    uint64_t h = start;
    size_t pos = 0;
    for (uint32_t i = 0; i < l->n && l->items[i] <= value.n; i++) {
        size_t len = l->items[i];
        h = policy_hash_words(h, &forwards, &pos, len);
        add(&f, policy_keys_find(t, dim, FORM_PREFIX, 0, name, text, len,
                                 policy_hash_rest(h, &forwards, pos, len)));
    }
    if (t->has_exact[dim]) {
        h = policy_hash_words(h, &forwards, &pos, value.n);
        add(&f, policy_keys_find(t, dim, FORM_EXACT, 0, name, text, value.n,
                                 policy_hash_rest(h, &forwards, pos, value.n)));
    }
    if (dim == DIM_PRINCIPAL && !is_spiffe_id(value)) {
        return f.n; /* how an ID ends says nothing of a name that ends alike */
    }
    const struct hash_text backwards = policy_hash_text(dim, FORM_SUFFIX, text, value.n);
    l = &t->suffixes[dim];
    h = start;
    pos = 0;
    for (uint32_t i = 0; i < l->n && l->items[i] <= value.n; i++) {
        size_t len = l->items[i];
        h = policy_hash_words(h, &backwards, &pos, len);
        add(&f, policy_keys_find(t, dim, FORM_SUFFIX, 0, name, text + (value.n - len), len,
                                 policy_hash_rest(h, &backwards, pos, len)));
    }
    if (!dim_is_named(dim) && t->n_shapes_of[dim] > 0) {
        match_shapes(t, dim, value, &f);
    }
    return f.n;
}

uint32_t policy_match_name(const struct key_table *t, enum dim dim, struct str name)
{
    if (name.n == 0 || (t->name_lengths[dim - DIM_PLAIN_COUNT] & 1UL << (name.n & 63U)) == 0) {
        return KEY_NONE;
    }
    return policy_keys_find(t, dim, FORM_NAME, 0, name, (const uint8_t *)"", 0,
                            policy_hash_name(name));
}

static void match_source(const struct key_table *t, const struct sockaddr *source, struct match *m)
{
    struct found f = {.keys = m->keys, .max = MATCH_MAX};
    struct address whole;
    if (!policy_address_of(source, &whole)) {
        m->known = NOT_KNOWN;
        return;
    }
    const struct lengths *l = &t->blocks[whole.bytes[0] == 4 ? 0 : 1];
    for (uint32_t i = 0; i < l->n; i++) {
        struct address a = whole;
        policy_address_cut(&a, (uint8_t)l->items[i]);
        add(&f, policy_keys_find(t, DIM_SOURCE, FORM_PREFIX, a.prefix_len, STR_NONE, a.bytes,
                                 SOURCE_LEN, policy_address_hash(a.bytes, a.prefix_len)));
    }
    m->n = f.n;
}

/* --- facts
 * -------------------------------------------------------------------------------------*/

/* What stands up to the next slash, or to the end; *rest is what is behind that
 * slash, p NULL: there is none. */
static struct str cut_segment(struct str s, struct str *rest)
{
    const char *slash = s.n > 0 ? memchr(s.p, '/', s.n) : NULL;
    if (slash == NULL) {
        *rest = STR_NONE;
        return s;
    }
    struct str segment = {s.p, (size_t)(slash - s.p)};
    *rest = (struct str){slash + 1, s.n - segment.n - 1};
    return segment;
}

/* The trust domain of a SPIFFE ID that was verified: no more than cutting it
 * out. */
static struct str trust_domain_of(struct str id)
{
    struct str rest;
    const struct str scheme = STR_LIT("spiffe://");
    return is_spiffe_id(id) ? cut_segment((struct str){id.p + scheme.n, id.n - scheme.n}, &rest)
                            : STR_NONE;
}

/* Of spiffe://TD/ns/NS/sa/SA, exactly. */
static bool split_kubernetes(struct str id, struct str *ret_ns, struct str *ret_account)
{
    const struct str scheme = STR_LIT("spiffe://");
    struct str rest = {id.p + scheme.n, id.n - scheme.n};
    if (!is_spiffe_id(id)) {
        return false;
    }
    struct str td = cut_segment(rest, &rest);
    struct str first = cut_segment(rest, &rest);
    *ret_ns = cut_segment(rest, &rest);
    struct str third = cut_segment(rest, &rest);
    *ret_account = cut_segment(rest, &rest);
    return td.n > 0 && str_eq(first, STR_LIT("ns")) && str_eq(third, STR_LIT("sa")) &&
           ret_ns->n > 0 && ret_account->n > 0 && rest.p == NULL;
}

/* "/pkg.Service/Method", which is what a server of gRPC goes by. */
struct str policy_grpc_method(struct str path)
{
    struct str rest = STR_NONE;
    if (path.n < 2 || path.p[0] != '/') {
        return STR_NONE;
    }
    struct str whole = {path.p + 1, path.n - 1};
    struct str service = cut_segment(whole, &rest);
    struct str method = cut_segment(rest, &rest);
    return service.n > 0 && method.n > 0 && rest.p == NULL ? whole : STR_NONE;
}

struct str policy_identity_part(struct str id, enum dim dim)
{
    struct str ns = STR_NONE, account = STR_NONE;
    if (dim == DIM_PRINCIPAL) {
        return id;
    }
    if (dim == DIM_DOMAIN) {
        return trust_domain_of(id);
    }
    if (!split_kubernetes(id, &ns, &account)) {
        return STR_NONE;
    }
    return dim == DIM_NAMESPACE ? ns : account;
}

struct str policy_fact_value(const struct policy_query *q, enum dim dim)
{
    switch (dim) {
    case DIM_TARGET:
        return q->target;
    case DIM_PRINCIPAL:
    case DIM_DOMAIN:
    case DIM_NAMESPACE:
    case DIM_ACCOUNT:
        return policy_identity_part(q->peer, dim);
    case DIM_PATH:
        return q->path;
    case DIM_GRPC:
        return policy_grpc_method(q->path);
    case DIM_HOST: {
        struct str host = q->host;
        if (host.n > 1 && host.p[host.n - 1] == '.') {
            host.n--;
        }
        return host;
    }
    case DIM_METHOD:
        return q->method;
    case DIM_PORT:
    case DIM_SOURCE:
    case DIM_CLAIM:
    case DIM_QUERY:
    case DIM_HEADER:
    case DIM_COUNT:
        break;
    }
    return STR_NONE;
}

/* What it means that there is no such value. */
static enum known known_of(enum dim dim)
{
    bool identity =
        dim == DIM_PRINCIPAL || dim == DIM_DOMAIN || dim == DIM_NAMESPACE || dim == DIM_ACCOUNT;
    return identity || dim == DIM_GRPC ? NOT_THERE : NOT_KNOWN;
}

static void fill_match(struct ask *a, enum dim dim, struct match *m)
{
    const struct key_table *t = &a->policy->table;
    m->n = 0;
    m->known = KNOWN;
    m->ready = true;
    if (dim_is_request(dim) && !a->query->http) {
        m->known = NOT_THERE; /* there is no request: whoever asks looks at that first */
    } else if (dim == DIM_PORT) {
        uint8_t text[2] = {(uint8_t)(a->query->port >> 8), (uint8_t)a->query->port};
        const struct hash_text whole = policy_hash_text(DIM_PORT, FORM_EXACT, text, sizeof(text));
        uint64_t h = policy_hash_whole(policy_hash_start, &whole);
        uint32_t key = policy_keys_find(t, DIM_PORT, FORM_EXACT, 0, STR_NONE, text, 2, h);
        m->keys[0] = key;
        m->n = key != KEY_NONE;
    } else if (dim == DIM_SOURCE) {
        match_source(t, a->query->source, m);
    } else {
        struct str value = policy_fact_value(a->query, dim);
        if (value.n == 0) {
            m->known = (uint8_t)known_of(dim);
        } else {
            m->n = policy_match_text(t, dim, STR_NONE, value, m->keys, MATCH_MAX);
        }
    }
}

void policy_ask_init(struct ask *a, struct ask_named *named, const struct policy *p,
                     const struct policy_query *q)
{
    a->policy = p;
    a->query = q;
    a->named = named;
    a->n_ops = 0;
    for (int d = 0; d < DIM_PLAIN_COUNT; d++) {
        a->matches[d].ready = false;
    }
    for (int d = 0; named != NULL && d < DIM_NAMED_COUNT; d++) {
        named->matches[d].ready = false;
    }
}

const struct match *policy_ask_match(struct ask *a, enum dim dim)
{
    struct match *m = &a->matches[dim];
    if (!m->ready) {
        fill_match(a, dim, m);
    }
    return m;
}

static bool holds_key(const uint32_t *list, uint32_t n, uint32_t key)
{
    uint32_t low = 0;
    uint32_t high = n;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        if (list[mid] < key) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low < n && list[low] == key;
}

bool policy_keys_meet(const struct policy *p, const uint32_t *keys, uint32_t n,
                      const struct run *list)
{
    const uint32_t *own = policy_run_keys(p, list);
    for (uint32_t i = 0; i < n; i++) {
        if (holds_key(own, list->n, keys[i])) {
            return true;
        }
    }
    return false;
}
