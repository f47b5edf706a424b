/*
 * What permissive ports saw, told to the agent, which keeps it beyond this process
 * (docs/permissive.md): by the State stream, soon after something changed and now and then anyway.
 * Counts are those since the last report that went out, times are all that is known.
 */
#include "proxy_permissive.h"

#include <netinet/in.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <postern/proto.h>
#include <stdlib.h>
#include <string.h>

enum {
    LOOK_MS = 1000,
    EVERY_MS = 2000, /* and no sooner, unless it is due */
    SOON_MS = 50,
    ANYWAY_MS = 60000, /* so that the agent knows that it is watched */
    PORTS_MAX = 64,
    ROWS_MAX = 256, /* of a report; more are summed up as others of their port */
};

struct report {
    Postern__V1__PlaintextReport message;
    Postern__V1__PlaintextPort ports[PORTS_MAX];
    Postern__V1__PlaintextPort *port_places[PORTS_MAX];
    Postern__V1__PlaintextCaller rows[ROWS_MAX + PORTS_MAX];
    Postern__V1__PlaintextCaller *row_places[ROWS_MAX + PORTS_MAX];
    size_t n_rows, n_whole; /* all; of these, not others */
    uint64_t now_ms;
};

/* Seconds plus one; 0: never. */
static uint64_t ago(const struct report *r, uint64_t at_ms)
{
    return at_ms == 0 ? 0 : (r->now_ms > at_ms ? (r->now_ms - at_ms) / 1000 : 0) + 1;
}

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* --- rows ------------------------------------------------------------------------------------- */

static Postern__V1__PlaintextCaller *add_row(struct report *r)
{
    Postern__V1__PlaintextCaller *row = &r->rows[r->n_rows];
    postern__v1__plaintext_caller__init(row);
    r->row_places[r->n_rows++] = row;
    return row;
}

static void fill_row(const struct report *r, const struct permissive_seen *s,
                     const struct permissive_seen *told, Postern__V1__PlaintextCaller *row)
{
    row->connections += s->connections - (told != NULL ? told->connections : 0);
    row->allowed += s->allowed - (told != NULL ? told->allowed : 0);
    row->denied += s->denied - (told != NULL ? told->denied : 0);
    row->first_ago = later(row->first_ago, ago(r, s->first_ms));
    uint64_t last = ago(r, s->last_ms), allowed = ago(r, s->last_allowed_ms);
    row->last_ago = row->last_ago == 0 || last < row->last_ago ? last : row->last_ago;
    if (allowed != 0 && (row->last_allowed_ago == 0 || allowed < row->last_allowed_ago)) {
        row->last_allowed_ago = allowed;
    }
}

static bool is_news(const struct permissive_seen *s, const struct permissive_seen *told)
{
    return told == NULL || memcmp(s, told, sizeof(*s)) != 0;
}

/* *others: the port's, made when it is wanted. */
static void put_row(struct report *r, const struct permissive_seen *s,
                    const struct permissive_seen *told, Postern__V1__PlaintextCaller **others)
{
    bool whole = s->key.who == PERMISSIVE_SOURCE && r->n_whole < ROWS_MAX;
    if (!whole && *others == NULL) {
        *others = add_row(r);
    }
    Postern__V1__PlaintextCaller *row = whole ? add_row(r) : *others;
    if (whole) {
        r->n_whole++;
        row->source = (ProtobufCBinaryData){s->key.family == AF_INET ? 4 : sizeof(s->key.address),
                                            (uint8_t *)(uintptr_t)(const void *)s->key.address};
        row->kind = (char *)(uintptr_t)permissive_class_name((enum permissive_class)s->key.class);
    }
    fill_row(r, s, told, row);
}

/* The row of that key among what is left of a port's; both tallies are sorted alike, and no row
 * ever goes. NULL: there is none. */
static const struct permissive_seen *find(const struct permissive_seen **left, size_t *n_left,
                                          const struct permissive_key *key)
{
    if (*n_left == 0 || memcmp(&(*left)->key, key, sizeof(*key)) != 0) {
        return NULL;
    }
    (*n_left)--;
    return (*left)++;
}

/* --- ports ------------------------------------------------------------------------------------ */

static void put_port(struct report *r, const struct proxy_permissive *m,
                     const struct proxy_permissive_site *s, const struct permissive_tally *t,
                     bool all)
{
    Postern__V1__PlaintextPort *port = &r->ports[r->message.n_ports];
    Postern__V1__PlaintextCaller *others = NULL;
    size_t n = 0, first = r->n_rows;
    const struct permissive_seen *seen = permissive_tally_port(t, s->listener, s->port, &n);
    size_t n_before = 0;
    const struct permissive_seen *before =
        permissive_tally_port(&m->told, s->listener, s->port, &n_before);
    uint64_t allowed_ms = t->lost_ms;
    postern__v1__plaintext_port__init(port);
    port->listener = (char *)(uintptr_t)s->name;
    port->port = s->shown;
    port->watched_ago = ago(r, later(s->since_ms, 1));
    port->strict_after_s = s->conf.strict_after_s;
    port->strict_ago = ago(r, s->turned_ms);
    for (size_t i = 0; i < n; i++) {
        const struct permissive_seen *told = find(&before, &n_before, &seen[i].key);
        if (seen[i].key.who == PERMISSIVE_MTLS) {
            port->mtls = seen[i].connections - (told != NULL ? told->connections : 0);
            port->last_mtls_ago = ago(r, seen[i].last_ms);
            continue;
        }
        allowed_ms = later(allowed_ms, seen[i].last_allowed_ms);
        port->open |= seen[i].open > 0;
        if (all || is_news(&seen[i], told)) {
            put_row(r, &seen[i], told, &others);
        }
    }
    port->last_allowed_ago = ago(r, allowed_ms);
    port->callers = &r->row_places[first];
    port->n_callers = r->n_rows - first;
    r->port_places[r->message.n_ports++] = port;
}

/* Whether it went out. */
static bool tell(struct proxy_permissive *m, const struct permissive_tally *t, bool all)
{
    const struct proxy *p = m->proxy;
    mem_autofree struct report *r = mem_must_new(struct report);
    r->now_ms = os_now_ms();
    postern__v1__plaintext_report__init(&r->message);
    r->message.identity = p->identity->own_id;
    r->message.ports = r->port_places;
    for (size_t i = 0; i < m->n && i < PORTS_MAX; i++) {
        put_port(r, m, &m->sites[i], t, all);
    }
    return state_client_report(p->state_client, &r->message);
}

/* --- when ------------------------------------------------------------------------------------- */

static bool has_changed(const struct proxy_permissive *m, const struct permissive_tally *t)
{
    return t->n != m->told.n || t->lost_ms != m->told.lost_ms ||
           (t->n > 0 && memcmp(t->items, m->told.items, t->n * sizeof(*t->items)) != 0);
}

static void look(struct proxy_permissive *m)
{
    const struct proxy *p = m->proxy;
    struct state_client_status st;
    struct permissive_tally t;
    state_client_get_status(p->state_client, &st);
    if (!st.connected || p->identity == NULL) {
        return;
    }
    uint64_t now_ms = os_now_ms();
    /* After a snapshot it may be another agent that listens, which has not heard it all. */
    bool all = m->told_ms == 0 || m->n_snapshots != st.n_snapshots;
    proxy_permissive_tally(p, &t);
    if ((all || m->due || now_ms - m->told_ms >= ANYWAY_MS ||
         (now_ms - m->told_ms >= EVERY_MS && has_changed(m, &t))) &&
        tell(m, &t, all)) {
        permissive_tally_deinit(&m->told);
        m->told = t;
        m->told_ms = now_ms;
        m->n_snapshots = st.n_snapshots;
        m->due = false;
        return;
    }
    permissive_tally_deinit(&t);
}

static void on_report(void *arg)
{
    struct proxy_permissive *m = (struct proxy_permissive *)arg;
    if (m->n > 0 && m->proxy->state_client != NULL) {
        look(m);
        loop_timer_arm(&m->report_timer, LOOK_MS);
    }
}

void proxy_readiness_due(struct proxy_permissive *m)
{
    m->due = true;
    loop_timer_arm(&m->report_timer, SOON_MS);
}

void proxy_readiness_init(struct proxy_permissive *m)
{
    loop_timer_init(&m->report_timer, m->proxy->loop, on_report, m);
}

void proxy_readiness_deinit(struct proxy_permissive *m)
{
    loop_timer_disarm(&m->report_timer);
    permissive_tally_deinit(&m->told);
}
