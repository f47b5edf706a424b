/* Permissive ports, in the main thread: which there are, who still needs them, and turning strict
 * those that are asked to. docs/permissive.md. */
#include "proxy_permissive.h"

#include <arpa/inet.h>
#include <jansson.h>
#include <postern/mem.h>
#include <postern/metrics.h>
#include <postern/os.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    LOOK_MAX_MS = 30000,
    LOOK_MIN_MS = 250,
    CALLERS_MAX = 500, /* of a port, in a report: those that came last */
};

/* --- which ------------------------------------------------------------------------------------ */

static void add_site(struct proxy_permissive *m, const struct proxy_permissive_site *s)
{
    m->sites =
        (struct proxy_permissive_site *)mem_must_realloc(m->sites, (m->n + 1) * sizeof(*m->sites));
    m->sites[m->n++] = *s;
}

static void find_sites(struct proxy_permissive *m, const struct snapshot_files *f)
{
    for (size_t i = 0; i < f->n_listeners; i++) {
        const struct snapshot_listener *l = &f->listeners[i];
        struct proxy_permissive_site s = {
            .listener = (uint16_t)i, .name = l->conf->name, .since_ms = os_now_ms()};
        if (l->conf->permissive.mode == CONF_MODE_PERMISSIVE) {
            s.shown = l->target.port != 0 ? l->target.port : net_addr_port(&l->address);
            s.conf = l->conf->permissive;
            add_site(m, &s);
        }
        for (size_t k = 0; k < l->conf->n_ports; k++) {
            if (l->conf->ports[k].permissive.mode == CONF_MODE_PERMISSIVE) {
                s.port = s.shown = l->conf->ports[k].port;
                s.conf = l->conf->ports[k].permissive;
                add_site(m, &s);
            }
        }
    }
}

/* In the log, so that nobody forgets them. */
static void tell(const struct proxy_permissive *m)
{
    struct log_line l;
    char text[512];
    size_t at = 0, left = 0;
    for (size_t i = 0; i < m->n; i++) {
        int n = snprintf(text + at, sizeof(text) - at, "%s%s:%u", at > 0 ? ", " : "",
                         m->sites[i].name, m->sites[i].shown);
        if (n < 0 || (size_t)n >= sizeof(text) - at) {
            text[at] = '\0';
            left = m->n - i;
            break;
        }
        at += (size_t)n;
    }
    log_begin(&l, m->proxy->log, LOG_WARN, "permissive_ports");
    log_str(&l, "ports", text);
    log_uint(&l, "not_named", left);
    log_str(&l, "message",
            "these ports take plaintext beside mTLS, from peers without an identity: `postern "
            "readiness` says who still needs that");
    log_end(&l);
}

static void fill_strict(struct proxy_permissive *m)
{
    m->strict.n = 0;
    for (size_t i = 0; i < m->n && m->strict.n < SNAPSHOT_STRICT_MAX; i++) {
        if (m->sites[i].turned_s != 0) {
            m->strict.items[m->strict.n].listener = m->sites[i].listener;
            m->strict.items[m->strict.n++].port = m->sites[i].port;
        }
    }
}

static void turned(const struct proxy_permissive *m, struct proxy_permissive_site *s,
                   const char *message)
{
    struct log_line l;
    s->turned_s = os_wall_s();
    s->turned_ms = os_now_ms();
    log_begin(&l, m->proxy->log, LOG_WARN, "port_turned_strict");
    log_str(&l, "listener", s->name);
    log_uint(&l, "port", s->shown);
    log_uint(&l, "quiet_s", s->conf.strict_after_s);
    log_str(&l, "message", message);
    log_end(&l);
}

static void look_later(struct proxy_permissive *m)
{
    uint64_t next_ms = 0;
    for (size_t i = 0; i < m->n; i++) {
        uint64_t ms = m->sites[i].conf.strict_after_s * UINT64_C(1000) / 8;
        if (ms > 0 && m->sites[i].turned_s == 0 && (next_ms == 0 || ms < next_ms)) {
            next_ms = ms;
        }
    }
    if (next_ms != 0) {
        next_ms = next_ms > LOOK_MAX_MS ? LOOK_MAX_MS : next_ms;
        loop_timer_arm(&m->timer, next_ms < LOOK_MIN_MS ? LOOK_MIN_MS : next_ms);
    }
}

/* Those that a process before this one turned, as the agent remembers, which is asked once for
 * each: it never turns a port that has been open here. */
static bool stay_strict(struct proxy_permissive *m)
{
    bool any = false;
    for (size_t i = 0; m->proxy->state != NULL && m->proxy->state_client != NULL && i < m->n; i++) {
        struct proxy_permissive_site *s = &m->sites[i];
        if (!s->asked && s->turned_s == 0 && s->conf.strict_after_s > 0 &&
            state_client_is_strict(m->proxy->state_client, s->name, s->shown)) {
            turned(m, s,
                   "had turned strict before this process began, as the agent remembers: "
                   "mTLS and nothing else; write `mode: strict`");
            any = true;
        }
        s->asked = true;
    }
    return any;
}

void proxy_permissive_told(struct proxy *p)
{
    if (stay_strict(p->permissive)) {
        fill_strict(p->permissive);
    }
    proxy_readiness_due(p->permissive);
}

void proxy_permissive_use(struct proxy *p)
{
    struct proxy_permissive *m = p->permissive;
    struct proxy_permissive_site *before = m->sites;
    size_t n_before = m->n;
    m->sites = NULL;
    m->n = 0;
    find_sites(m, p->files);
    for (size_t i = 0; i < m->n; i++) {
        for (size_t k = 0; k < n_before; k++) {
            if (before[k].listener == m->sites[i].listener && before[k].port == m->sites[i].port) {
                m->sites[i].since_ms = before[k].since_ms;
                m->sites[i].turned_s = before[k].turned_s;
                m->sites[i].turned_ms = before[k].turned_ms;
                m->sites[i].asked = before[k].asked;
            }
        }
    }
    free(before);
    stay_strict(m);
    fill_strict(m);
    if (m->n > 0) {
        tell(m);
    }
    look_later(m);
    proxy_readiness_due(m);
}

const struct snapshot_strict *proxy_permissive_strict(const struct proxy *p)
{
    return p->permissive != NULL ? &p->permissive->strict : NULL;
}

/* --- turning strict --------------------------------------------------------------------------- */

void proxy_permissive_tally(const struct proxy *p, struct permissive_tally *ret)
{
    mem_autofree const struct permissive_book **books =
        mem_must_calloc(p->n_workers + 1, sizeof(*books));
    for (unsigned i = 0; i < p->n_workers; i++) {
        books[i] = conn_worker_book(p->workers[i]);
    }
    permissive_tally_init(ret, books, p->n_workers);
}

static void on_look(void *arg)
{
    struct proxy_permissive *m = (struct proxy_permissive *)arg;
    int64_t now_s = (int64_t)(os_now_ms() / 1000);
    struct permissive_tally t;
    bool any = false;
    proxy_permissive_tally(m->proxy, &t);
    for (size_t i = 0; i < m->n; i++) {
        struct proxy_permissive_site *s = &m->sites[i];
        struct permissive_facts f;
        permissive_tally_facts(&t, s->listener, s->port, s->since_ms, &f);
        if (s->turned_s == 0 && permissive_may_arm(&f, now_s, s->conf.strict_after_s)) {
            turned(m, s,
                   "no plaintext that policy allows came for `strict_after`: mTLS and nothing else "
                   "from now on; write `mode: strict`");
            any = true;
        }
    }
    permissive_tally_deinit(&t);
    if (any) {
        fill_strict(m);
        proxy_publish(m->proxy);
        proxy_readiness_due(m);
    }
    look_later(m);
}

void proxy_permissive_init(struct proxy *p)
{
    p->permissive = mem_must_new(struct proxy_permissive);
    p->permissive->proxy = p;
    loop_timer_init(&p->permissive->timer, p->loop, on_look, p->permissive);
    proxy_readiness_init(p->permissive);
    proxy_permissive_use(p);
}

void proxy_permissive_free(struct proxy *p)
{
    if (p->permissive != NULL) {
        loop_timer_disarm(&p->permissive->timer);
        proxy_readiness_deinit(p->permissive);
        free(p->permissive->sites);
        free(p->permissive);
        p->permissive = NULL;
    }
}

/* --- telling ---------------------------------------------------------------------------------- */

/* A moment of the clock that nothing sets, by the clock of the wall as it is now. */
static json_t *wall(uint64_t ms)
{
    uint64_t now = os_now_ms();
    return ms == 0 ? json_null()
                   : json_integer(os_wall_s() - (int64_t)((now > ms ? now - ms : 0) / 1000));
}

static json_t *caller(const struct permissive_seen *s)
{
    char text[INET6_ADDRSTRLEN] = "others";
    if (s->key.who == PERMISSIVE_SOURCE) {
        (void)inet_ntop(s->key.family, s->key.address, text, sizeof(text));
    }
    const char *class = s->key.who == PERMISSIVE_SOURCE
                            ? permissive_class_name((enum permissive_class)s->key.class)
                            : "mixed";
    return json_pack("{s:s,s:s,s:I,s:I,s:I,s:I,s:o,s:o,s:o}", "source", text, "class", class,
                     "connections", (json_int_t)s->connections, "allowed", (json_int_t)s->allowed,
                     "denied", (json_int_t)s->denied, "open", (json_int_t)s->open, "first_seen_s",
                     wall(s->first_ms), "last_seen_s", wall(s->last_ms), "last_allowed_s",
                     wall(s->last_allowed_ms));
}

static int by_last(const void *a, const void *b)
{
    uint64_t x = (*(const struct permissive_seen *const *)a)->last_ms;
    uint64_t y = (*(const struct permissive_seen *const *)b)->last_ms;
    return x > y ? -1 : x < y;
}

/* Those that came last, first. */
static json_t *callers(const struct permissive_seen *all, size_t n, uint64_t *ret_not_shown)
{
    json_t *a = json_array();
    mem_autofree const struct permissive_seen **sorted = mem_must_calloc(n + 1, sizeof(*sorted));
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        if (all[i].key.who != PERMISSIVE_MTLS) {
            sorted[k++] = &all[i];
        }
    }
    qsort(sorted, k, sizeof(*sorted), by_last);
    for (size_t i = 0; i < k && i < CALLERS_MAX; i++) {
        json_array_append_new(a, caller(sorted[i]));
    }
    *ret_not_shown = k > CALLERS_MAX ? k - CALLERS_MAX : 0;
    return a;
}

static json_t *port(const struct proxy_permissive_site *s, const struct permissive_tally *t,
                    bool whole)
{
    size_t n = 0;
    const struct permissive_seen *all = permissive_tally_port(t, s->listener, s->port, &n);
    uint64_t sums[3] = {0, 0, 0}, open = 0, mtls = 0, mtls_ms = 0, not_shown = 0;
    uint64_t allowed_ms = t->lost_ms;
    for (size_t i = 0; i < n; i++) {
        if (all[i].key.who == PERMISSIVE_MTLS) {
            mtls = all[i].connections;
            mtls_ms = all[i].last_ms;
            continue;
        }
        sums[0] += all[i].connections;
        sums[1] += all[i].allowed;
        sums[2] += all[i].denied;
        open += all[i].open;
        allowed_ms = all[i].last_allowed_ms > allowed_ms ? all[i].last_allowed_ms : allowed_ms;
    }
    json_t *o =
        json_pack("{s:s,s:i,s:s,s:I,s:o,s:I,s:I,s:I,s:I,s:o,s:I,s:o}", "listener", s->name, "port",
                  s->shown, "mode", s->turned_s != 0 ? "strict" : "permissive", "strict_after_s",
                  (json_int_t)s->conf.strict_after_s, "watched_since_s", wall(s->since_ms),
                  "connections", (json_int_t)sums[0], "allowed", (json_int_t)sums[1], "denied",
                  (json_int_t)sums[2], "open", (json_int_t)open, "last_allowed_s", wall(allowed_ms),
                  "mtls_connections", (json_int_t)mtls, "last_mtls_s", wall(mtls_ms));
    if (s->turned_s != 0) {
        json_object_set_new(o, "turned_strict_s", json_integer(s->turned_s));
    }
    if (whole) {
        json_object_set_new(o, "callers", callers(all, n, &not_shown));
        json_object_set_new(o, "callers_not_shown", json_integer((json_int_t)not_shown));
    }
    return o;
}

static json_t *ports(const struct proxy *p, bool whole)
{
    const struct proxy_permissive *m = p->permissive;
    struct permissive_tally t;
    json_t *a = json_array();
    proxy_permissive_tally(p, &t);
    for (size_t i = 0; m != NULL && i < m->n; i++) {
        json_array_append_new(a, port(&m->sites[i], &t, whole));
    }
    permissive_tally_deinit(&t);
    return a;
}

json_t *proxy_permissive_status(const struct proxy *p)
{
    return ports(p, false);
}

bool proxy_report_readiness(void *arg, struct buf *out)
{
    const struct proxy *p = (const struct proxy *)arg;
    json_t *o =
        json_pack("{s:I,s:[{s:o,s:o,s:o}]}", "now_s", (json_int_t)os_wall_s(), "workloads",
                  "identity", report_text_or_null(p->identity != NULL ? p->identity->own_id : NULL),
                  "name", report_text_or_null(p->files->conf->name), "ports", ports(p, true));
    char *text = o != NULL ? json_dumps(o, JSON_INDENT(1)) : NULL;
    bool ok = text != NULL && buf_printf(out, "%s\n", text);
    free(text);
    json_decref(o);
    return ok;
}

static void class_metrics(const struct proxy_permissive_site *s, const struct permissive_tally *t,
                          struct buf *out, const char **help)
{
    size_t n = 0;
    const struct permissive_seen *all = permissive_tally_port(t, s->listener, s->port, &n);
    uint64_t classes[PERMISSIVE_CLASS_COUNT + 1] = {0};
    for (size_t i = 0; i < n; i++) {
        if (all[i].key.who != PERMISSIVE_MTLS) {
            classes
                [all[i].key.who == PERMISSIVE_SOURCE ? all[i].key.class : PERMISSIVE_CLASS_COUNT] +=
                all[i].connections;
        }
    }
    for (unsigned c = 0; c <= PERMISSIVE_CLASS_COUNT; c++) {
        char labels[200];
        snprintf(
            labels, sizeof(labels), "listener=\"%s\",port=\"%u\",class=\"%s\"", s->name, s->shown,
            c < PERMISSIVE_CLASS_COUNT ? permissive_class_name((enum permissive_class)c) : "mixed");
        (void)metrics_write_value(out, "postern_permissive_connections", METRIC_COUNTER, *help,
                                  labels, (double)classes[c]);
        *help = NULL;
    }
}

static void verdict_metrics(const struct proxy_permissive_site *s, const struct permissive_tally *t,
                            struct buf *out, const char **help)
{
    size_t n = 0;
    const struct permissive_seen *all = permissive_tally_port(t, s->listener, s->port, &n);
    uint64_t verdicts[2] = {0, 0};
    for (size_t i = 0; i < n; i++) {
        verdicts[0] += all[i].allowed;
        verdicts[1] += all[i].denied;
    }
    for (unsigned v = 0; v < 2; v++) {
        char labels[200];
        snprintf(labels, sizeof(labels), "listener=\"%s\",port=\"%u\",verdict=\"%s\"", s->name,
                 s->shown, v == 0 ? "allow" : "deny");
        (void)metrics_write_value(out, "postern_permissive_decisions", METRIC_COUNTER, *help,
                                  labels, (double)verdicts[v]);
        *help = NULL;
    }
}

void proxy_permissive_metrics(const struct proxy *p, struct buf *out)
{
    const struct proxy_permissive *m = p->permissive;
    struct permissive_tally t;
    if (m == NULL || m->n == 0) {
        return;
    }
    proxy_permissive_tally(p, &t);
    const char *help = "Ports that take plaintext beside mTLS; turned: that did, by their file.";
    for (unsigned turned = 0; turned < 2; turned++) {
        uint64_t n = turned != 0 ? m->strict.n : m->n - m->strict.n;
        (void)metrics_write_value(out, "postern_permissive_ports", METRIC_GAUGE, help,
                                  turned != 0 ? "state=\"turned\"" : "state=\"permissive\"",
                                  (double)n);
        help = NULL;
    }
    help = "Connections in plaintext to permissive ports, by their first bytes.";
    for (size_t i = 0; i < m->n; i++) {
        class_metrics(&m->sites[i], &t, out, &help);
    }
    help = "Decisions about these connections, or the requests in them.";
    for (size_t i = 0; i < m->n; i++) {
        verdict_metrics(&m->sites[i], &t, out, &help);
    }
    permissive_tally_deinit(&t);
}
