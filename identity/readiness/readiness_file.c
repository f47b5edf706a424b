/* The file of it: a protobuf message, read as strictly as if a stranger had written it. */
#include "readiness_priv.h"

#include <history.pb-c.h>
#include <postern/spiffe.h>
#include <stdlib.h>
#include <string.h>

enum { VERSION = 1 };

/* --- writing ---------------------------------------------------------------------------------- */

/* protobuf-c's texts are not const; packing writes to none of them. */
static char *text_of(const char *p)
{
    return (char *)(uintptr_t)p;
}

struct parts {
    Postern__V1__PlaintextHistory history;
    Postern__V1__HistoryPort *ports;       /* owned */
    Postern__V1__HistoryPort **places;     /* likewise */
    Postern__V1__HistoryCaller *callers;   /* READINESS_CALLERS of each port */
    Postern__V1__HistoryCaller **c_places; /* likewise */
};

static void fill_callers(const struct readiness_port *p, Postern__V1__HistoryCaller *to,
                         Postern__V1__HistoryCaller **places)
{
    for (size_t i = 0; i < p->n_callers; i++) {
        const struct readiness_caller *c = &p->callers[i];
        postern__v1__history_caller__init(&to[i]);
        to[i].source =
            (ProtobufCBinaryData){c->n_source, (uint8_t *)(uintptr_t)(const void *)c->source};
        to[i].kind = text_of(c->kind);
        to[i].connections = c->connections;
        to[i].allowed = c->allowed;
        to[i].denied = c->denied;
        to[i].first = c->first_s;
        to[i].last = c->last_s;
        to[i].last_allowed = c->last_allowed_s;
        places[i] = &to[i];
    }
}

static void fill_port(const struct readiness_port *p, Postern__V1__HistoryPort *to)
{
    postern__v1__history_port__init(to);
    to->identity = p->identity;
    to->listener = text_of(p->listener);
    to->port = p->port;
    to->proxy = text_of(p->name);
    to->watched_since = p->watched_s;
    to->told = p->told_s;
    to->strict_since = p->strict_s;
    to->strict_after_s = p->strict_after_s;
    to->last_allowed = p->last_allowed_s;
    to->mtls = p->mtls;
    to->last_mtls = p->last_mtls_s;
}

static bool pack(const struct parts *a, struct buf *out)
{
    size_t n = postern__v1__plaintext_history__get_packed_size(&a->history);
    uint8_t *to = buf_reserve(out, n);
    if (to == NULL) {
        return false;
    }
    buf_commit(out, postern__v1__plaintext_history__pack(&a->history, to));
    return true;
}

/* What nobody told of for so long is forgotten. */
static void forget(struct readiness *r, int64_t now_s)
{
    size_t n = 0;
    for (size_t i = 0; i < r->n; i++) {
        if (now_s - r->items[i]->told_s > READINESS_KEEP_S) {
            readiness_port_free(r->items[i]);
        } else {
            r->items[n++] = r->items[i];
        }
    }
    r->n = n;
}

bool readiness_save(struct readiness *r, int64_t now_s, struct buf *out)
{
    forget(r, now_s);
    size_t n = r->n * READINESS_CALLERS;
    struct parts a = {.ports = mem_must_calloc(r->n + 1, sizeof(*a.ports)),
                      .places = mem_must_calloc(r->n + 1, sizeof(Postern__V1__HistoryPort *)),
                      .callers = mem_must_calloc(n + 1, sizeof(*a.callers)),
                      .c_places = mem_must_calloc(n + 1, sizeof(Postern__V1__HistoryCaller *))};
    postern__v1__plaintext_history__init(&a.history);
    a.history.version = VERSION;
    a.history.ports = a.places;
    a.history.n_ports = r->n;
    for (size_t i = 0; i < r->n; i++) {
        size_t at = i * READINESS_CALLERS;
        fill_port(r->items[i], &a.ports[i]);
        fill_callers(r->items[i], &a.callers[at], &a.c_places[at]);
        a.ports[i].callers = &a.c_places[at];
        a.ports[i].n_callers = r->items[i]->n_callers;
        a.places[i] = &a.ports[i];
    }
    bool ok = pack(&a, out);
    free(a.ports);
    free(a.places);
    free(a.callers);
    free(a.c_places);
    return ok;
}

/* --- reading ---------------------------------------------------------------------------------- */

static bool name_ok(const char *text)
{
    struct str s = str_of(text);
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < 0x20 || s.p[i] >= 0x7f) {
            return false;
        }
    }
    return s.n <= READINESS_NAME_MAX;
}

static bool read_caller(const Postern__V1__HistoryCaller *m, bool others,
                        struct readiness_caller *ret)
{
    bool sound = others ? m->source.len == 0 && m->kind[0] == '\0'
                        : (m->source.len == 4 || m->source.len == READINESS_SOURCE_MAX) &&
                              readiness_kind_ok(m->kind);
    if (!sound || m->connections > READINESS_COUNT_MAX || m->allowed > READINESS_COUNT_MAX ||
        m->denied > READINESS_COUNT_MAX || m->first < 0 || m->last < 0 || m->last_allowed < 0) {
        return false;
    }
    *ret = (struct readiness_caller){.n_source = (uint8_t)m->source.len,
                                     .connections = m->connections,
                                     .allowed = m->allowed,
                                     .denied = m->denied,
                                     .first_s = m->first,
                                     .last_s = m->last,
                                     .last_allowed_s = m->last_allowed};
    if (m->source.len > 0) {
        memcpy(ret->source, m->source.data, m->source.len);
    }
    memcpy(ret->kind, m->kind, strlen(m->kind));
    return true;
}

static bool read_numbers(const Postern__V1__HistoryPort *m, struct readiness_port *p)
{
    p->watched_s = m->watched_since;
    p->told_s = m->told;
    p->strict_s = m->strict_since;
    p->strict_after_s = m->strict_after_s;
    p->last_allowed_s = m->last_allowed;
    p->mtls = m->mtls;
    p->last_mtls_s = m->last_mtls;
    return p->watched_s > 0 && p->told_s > 0 && p->strict_s >= 0 && p->last_allowed_s >= 0 &&
           p->last_mtls_s >= 0 && p->mtls <= READINESS_COUNT_MAX &&
           p->strict_after_s < READINESS_COUNT_MAX && (p->strict_s == 0 || p->strict_after_s > 0);
}

/* NULL: it is not sound. */
static struct readiness_port *read_port(const Postern__V1__HistoryPort *m)
{
    struct spiffe_id id;
    if (!readiness_listener_ok(m->listener) || !name_ok(m->proxy) || m->port == 0 ||
        m->port > UINT16_MAX || m->n_callers == 0 || m->n_callers > READINESS_CALLERS ||
        spiffe_id_parse(str_of(m->identity), &id, NULL) == -1) {
        return NULL;
    }
    struct readiness_port *p =
        readiness_port_new(str_of(m->identity), m->listener, (uint16_t)m->port);
    bool ok = read_numbers(m, p);
    memcpy(p->name, m->proxy, strlen(m->proxy));
    p->n_callers = m->n_callers;
    for (size_t i = 0; ok && i < m->n_callers; i++) {
        ok = read_caller(m->callers[i], i == 0, &p->callers[i]);
    }
    return ok ? p : readiness_port_free(p);
}

int readiness_load(struct readiness *r, struct str file, struct err *err)
{
    struct readiness *next = readiness_new();
    bool ok = true;
    Postern__V1__PlaintextHistory *m =
        file.n > 0 ? postern__v1__plaintext_history__unpack(NULL, file.n, (const uint8_t *)file.p)
                   : NULL;
    if (file.n > 0) {
        ok = m != NULL && m->version == VERSION && m->n_ports <= READINESS_PORTS;
    }
    for (size_t i = 0; ok && m != NULL && i < m->n_ports; i++) {
        next->items[next->n] = read_port(m->ports[i]);
        ok = next->items[next->n] != NULL;
        next->n += ok ? 1 : 0;
    }
    if (m != NULL) {
        postern__v1__plaintext_history__free_unpacked(m, NULL);
    }
    struct readiness *gone = next;
    if (ok) {
        struct readiness before = *r;
        next->not_kept = r->not_kept;
        *r = *next;
        *next = before;
    }
    readiness_free(gone);
    return ok ? 0
              : err_set(err, ERR_PROTOCOL, "the history of permissive ports is not what was kept");
}
