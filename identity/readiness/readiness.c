/* The set, and what a report changes in it. */
#include "readiness_priv.h"

#include <stdlib.h>
#include <string.h>

/* --- life ------------------------------------------------------------------------------------- */

struct readiness *readiness_new(void)
{
    return mem_must_new(struct readiness);
}

struct readiness *readiness_free(struct readiness *r)
{
    for (size_t i = 0; r != NULL && i < r->n; i++) {
        readiness_port_free(r->items[i]);
    }
    free(r);
    return NULL;
}

struct readiness_port *readiness_port_new(struct str identity, const char *listener, uint16_t port)
{
    struct readiness_port *p = mem_must_new(struct readiness_port);
    p->identity = mem_must_strndup(identity.p, identity.n);
    memcpy(p->listener, listener, strnlen(listener, READINESS_LISTENER_MAX));
    p->port = port;
    p->n_callers = 1;
    return p;
}

struct readiness_port *readiness_port_free(struct readiness_port *p)
{
    if (p != NULL) {
        free(p->identity);
        free(p);
    }
    return NULL;
}

/* --- what is said ----------------------------------------------------------------------------- */

bool readiness_listener_ok(const char *text)
{
    struct str s = str_of(text);
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] <= 0x20 || s.p[i] >= 0x7f) { /* names in files are of letters and digits */
            return false;
        }
    }
    return s.n > 0 && s.n <= READINESS_LISTENER_MAX;
}

bool readiness_kind_ok(const char *text)
{
    size_t n = strlen(text);
    return n > 0 && n <= READINESS_KIND_MAX &&
           strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789_") == n;
}

bool readiness_is_strict(const struct readiness_port *p)
{
    return p->strict_s != 0 && p->last_allowed_s < p->strict_s;
}

/* Cut; what is no text for a log or terminal is a '?'. */
static void keep_name(char *to, size_t size, struct str from)
{
    size_t n = 0;
    for (size_t i = 0; i < from.n && n < size - 1; i++) {
        to[n++] = (char)(from.p[i] >= 0x20 && from.p[i] < 0x7f ? from.p[i] : '?');
    }
    to[n] = '\0';
}

/* Seconds plus one, 0: never; a time before the epoch is one, of a clock that was set back. */
static int64_t moment(uint64_t ago, int64_t now_s)
{
    if (ago == 0) {
        return 0;
    }
    return ago - 1 < (uint64_t)now_s ? now_s - (int64_t)(ago - 1) : 1;
}

static void add(uint64_t *to, uint64_t n)
{
    n = n < READINESS_COUNT_MAX ? n : READINESS_COUNT_MAX;
    *to = *to + n < READINESS_COUNT_MAX ? *to + n : READINESS_COUNT_MAX;
}

static int64_t earlier(int64_t a, int64_t b)
{
    return a == 0 || (b != 0 && b < a) ? b : a;
}

static int64_t later(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* --- callers ---------------------------------------------------------------------------------- */

static void join(struct readiness_caller *to, const struct readiness_caller *c)
{
    add(&to->connections, c->connections);
    add(&to->allowed, c->allowed);
    add(&to->denied, c->denied);
    to->first_s = earlier(to->first_s, c->first_s);
    to->last_s = later(to->last_s, c->last_s);
    to->last_allowed_s = later(to->last_allowed_s, c->last_allowed_s);
}

/* Whether a makes room sooner than b: who was never let in, and then who is away longest. */
static bool goes_before(const struct readiness_caller *a, const struct readiness_caller *b)
{
    if ((a->last_allowed_s == 0) != (b->last_allowed_s == 0)) {
        return a->last_allowed_s == 0;
    }
    return a->last_s < b->last_s;
}

static struct readiness_caller *make_room(struct readiness_port *p,
                                          const struct readiness_caller *newer)
{
    struct readiness_caller *first = &p->callers[1];
    for (size_t i = 2; i < p->n_callers; i++) {
        if (goes_before(&p->callers[i], first)) {
            first = &p->callers[i];
        }
    }
    if (!goes_before(first, newer)) {
        return &p->callers[0];
    }
    join(&p->callers[0], first);
    *first = (struct readiness_caller){.n_source = newer->n_source};
    memcpy(first->source, newer->source, sizeof(first->source));
    memcpy(first->kind, newer->kind, sizeof(first->kind));
    return first;
}

static struct readiness_caller *row_of(struct readiness_port *p, const struct readiness_caller *c)
{
    if (c->n_source == 0) {
        return &p->callers[0];
    }
    for (size_t i = 1; i < p->n_callers; i++) {
        const struct readiness_caller *is = &p->callers[i];
        if (is->n_source == c->n_source && memcmp(is->source, c->source, c->n_source) == 0 &&
            strcmp(is->kind, c->kind) == 0) {
            return &p->callers[i];
        }
    }
    if (p->n_callers == READINESS_CALLERS) {
        return make_room(p, c);
    }
    struct readiness_caller *made = &p->callers[p->n_callers++];
    made->n_source = c->n_source;
    memcpy(made->source, c->source, sizeof(made->source));
    memcpy(made->kind, c->kind, sizeof(made->kind));
    return made;
}

static void take_caller(struct readiness_port *p, const Postern__V1__PlaintextCaller *m,
                        int64_t now_s)
{
    struct readiness_caller c = {.connections = m->connections,
                                 .allowed = m->allowed,
                                 .denied = m->denied,
                                 .first_s = moment(m->first_ago, now_s),
                                 .last_s = moment(m->last_ago, now_s),
                                 .last_allowed_s = moment(m->last_allowed_ago, now_s)};
    if ((m->source.len == 4 || m->source.len == READINESS_SOURCE_MAX) &&
        readiness_kind_ok(m->kind)) {
        c.n_source = (uint8_t)m->source.len;
        memcpy(c.source, m->source.data, m->source.len);
        memcpy(c.kind, m->kind, strlen(m->kind));
    }
    join(row_of(p, &c), &c);
    p->last_allowed_s = later(p->last_allowed_s, c.last_allowed_s);
}

/* --- ports ------------------------------------------------------------------------------------ */

static struct readiness_port *find(const struct readiness *r, struct str identity,
                                   const char *listener, uint16_t port)
{
    for (size_t i = 0; i < r->n; i++) {
        struct readiness_port *p = r->items[i];
        if (p->port == port && str_eq(str_of(p->identity), identity) &&
            strcmp(p->listener, listener) == 0) {
            return p;
        }
    }
    return NULL;
}

/* The place of the one that nobody told of for longest; identity.p NULL: of all. */
static size_t oldest(const struct readiness *r, struct str identity, size_t *ret_n)
{
    size_t at = 0;
    *ret_n = 0;
    for (size_t i = 0; i < r->n; i++) {
        if (identity.p != NULL && !str_eq(str_of(r->items[i]->identity), identity)) {
            continue;
        }
        if (*ret_n == 0 || r->items[i]->told_s < r->items[at]->told_s) {
            at = i;
        }
        (*ret_n)++;
    }
    return at;
}

/* NULL: there is no room. Of its own an identity displaces what it likes, of others only what
 * nobody has told of for days. */
static struct readiness_port *add_port(struct readiness *r, struct str identity,
                                       const char *listener, uint16_t port, int64_t now_s)
{
    size_t n, at = oldest(r, identity, &n);
    if (n < READINESS_IDENTITY_PORTS && r->n < READINESS_PORTS) {
        r->items[r->n] = readiness_port_new(identity, listener, port);
        return r->items[r->n++];
    }
    if (n < READINESS_IDENTITY_PORTS) {
        at = oldest(r, (struct str){NULL, 0}, &n);
        if (now_s - r->items[at]->told_s < READINESS_STALE_S) {
            return NULL;
        }
    } else if (r->items[at]->told_s >= now_s) {
        return NULL; /* all of them are in the same report */
    }
    readiness_port_free(r->items[at]);
    r->items[at] = readiness_port_new(identity, listener, port);
    return r->items[at];
}

/* Whether it is strict now and was not before. */
static bool take_port(struct readiness_port *p, struct str name,
                      const Postern__V1__PlaintextPort *m, int64_t now_s)
{
    bool was = readiness_is_strict(p);
    int64_t since_s = moment(m->watched_ago, now_s);
    keep_name(p->name, sizeof(p->name), name);
    if (p->watched_s == 0 || since_s > p->told_s + READINESS_GAP_S || p->told_s > now_s) {
        p->watched_s = since_s;
    }
    p->told_s = now_s;
    add(&p->mtls, m->mtls);
    p->last_mtls_s = later(p->last_mtls_s, moment(m->last_mtls_ago, now_s));
    p->last_allowed_s =
        later(p->last_allowed_s, m->open ? now_s : moment(m->last_allowed_ago, now_s));
    p->strict_after_s = m->strict_after_s < READINESS_COUNT_MAX ? m->strict_after_s : 0;
    p->strict_s = p->strict_after_s == 0 ? 0 : later(p->strict_s, moment(m->strict_ago, now_s));
    for (size_t i = 0; i < m->n_callers; i++) {
        take_caller(p, m->callers[i], now_s);
    }
    return readiness_is_strict(p) && !was;
}

enum readiness_taken readiness_take(struct readiness *r, struct str identity, struct str name,
                                    const Postern__V1__PlaintextReport *report, int64_t now_s)
{
    enum readiness_taken taken = READINESS_NOTHING;
    for (size_t i = 0; i < report->n_ports; i++) {
        const Postern__V1__PlaintextPort *m = report->ports[i];
        if (!readiness_listener_ok(m->listener) || m->port == 0 || m->port > UINT16_MAX ||
            m->watched_ago == 0) {
            r->not_kept++;
            continue;
        }
        struct readiness_port *p = find(r, identity, m->listener, (uint16_t)m->port);
        if (p == NULL) {
            p = add_port(r, identity, m->listener, (uint16_t)m->port, now_s);
        }
        if (p == NULL) {
            r->not_kept++;
            continue;
        }
        bool turned = take_port(p, name, m, now_s);
        taken = turned || taken == READINESS_TURNED ? READINESS_TURNED : READINESS_NEWS;
    }
    return taken;
}

/* --- asking ----------------------------------------------------------------------------------- */

bool readiness_strict(const struct readiness *r, struct str identity, size_t n,
                      struct readiness_strict *ret)
{
    for (size_t i = 0; i < r->n; i++) {
        const struct readiness_port *p = r->items[i];
        if (readiness_is_strict(p) && str_eq(str_of(p->identity), identity) && n-- == 0) {
            *ret = (struct readiness_strict){p->listener, p->port};
            return true;
        }
    }
    return false;
}

void readiness_count(const struct readiness *r, struct readiness_counts *ret)
{
    *ret = (struct readiness_counts){.ports = r->n, .not_kept = r->not_kept};
}
