/* The set as JSON, as `postern readiness` reads it from proxies too. */
#include "readiness_priv.h"

#include <arpa/inet.h>
#include <postern/log.h>
#include <stdlib.h>
#include <string.h>

static bool put_text(struct buf *out, const char *key, const char *value)
{
    char text[8192];
    size_t n = log_json_escape(str_of(value), text, sizeof(text));
    return buf_printf(out, "\"%s\":\"%.*s\"", key, (int)n, text);
}

/* ,"key":7 or null */
static bool put_time(struct buf *out, const char *key, int64_t at_s)
{
    return at_s != 0 ? buf_printf(out, ",\"%s\":%lld", key, (long long)at_s)
                     : buf_printf(out, ",\"%s\":null", key);
}

static bool put_caller(struct buf *out, const struct readiness_caller *c)
{
    char source[INET6_ADDRSTRLEN] = "others";
    if (c->n_source > 0) {
        (void)inet_ntop(c->n_source == 4 ? AF_INET : AF_INET6, c->source, source, sizeof(source));
    }
    return buf_printf(out,
                      "{\"source\":\"%s\",\"class\":\"%s\",\"connections\":%llu,\"allowed\":%llu"
                      ",\"denied\":%llu",
                      source, c->n_source > 0 ? c->kind : "mixed",
                      (unsigned long long)c->connections, (unsigned long long)c->allowed,
                      (unsigned long long)c->denied) &&
           put_time(out, "first_seen_s", c->first_s) && put_time(out, "last_seen_s", c->last_s) &&
           put_time(out, "last_allowed_s", c->last_allowed_s) && buf_append(out, "}", 1);
}

static int by_last(const void *a, const void *b)
{
    int64_t x = (*(const struct readiness_caller *const *)a)->last_s;
    int64_t y = (*(const struct readiness_caller *const *)b)->last_s;
    return x > y ? -1 : x < y;
}

/* Those that came last, first. */
static bool put_callers(struct buf *out, const struct readiness_port *p)
{
    const struct readiness_caller *sorted[READINESS_CALLERS];
    size_t n = 0;
    for (size_t i = 0; i < p->n_callers; i++) {
        if (p->callers[i].last_s != 0) {
            sorted[n++] = &p->callers[i];
        }
    }
    qsort(sorted, n, sizeof(struct readiness_caller *), by_last);
    bool ok = buf_printf(out, ",\"callers\":[");
    for (size_t i = 0; ok && i < n; i++) {
        ok = (i == 0 || buf_append(out, ",", 1)) && put_caller(out, sorted[i]);
    }
    return ok && buf_printf(out, "],\"callers_not_shown\":0}");
}

static bool put_port(struct buf *out, const struct readiness_port *p)
{
    uint64_t sums[3] = {0, 0, 0};
    bool strict = readiness_is_strict(p);
    for (size_t i = 0; i < p->n_callers; i++) {
        sums[0] += p->callers[i].connections;
        sums[1] += p->callers[i].allowed;
        sums[2] += p->callers[i].denied;
    }
    return buf_append(out, "{", 1) && put_text(out, "listener", p->listener) &&
           buf_printf(out, ",\"port\":%u,\"mode\":\"%s\",\"strict_after_s\":%llu", p->port,
                      strict ? "strict" : "permissive", (unsigned long long)p->strict_after_s) &&
           put_time(out, "watched_since_s", p->watched_s) && put_time(out, "told_s", p->told_s) &&
           buf_printf(out, ",\"connections\":%llu,\"allowed\":%llu,\"denied\":%llu",
                      (unsigned long long)sums[0], (unsigned long long)sums[1],
                      (unsigned long long)sums[2]) &&
           put_time(out, "last_allowed_s", p->last_allowed_s) &&
           buf_printf(out, ",\"mtls_connections\":%llu", (unsigned long long)p->mtls) &&
           put_time(out, "last_mtls_s", p->last_mtls_s) &&
           (!strict || put_time(out, "turned_strict_s", p->strict_s)) && put_callers(out, p);
}

static int by_identity(const void *a, const void *b)
{
    const struct readiness_port *x = *(const struct readiness_port *const *)a;
    const struct readiness_port *y = *(const struct readiness_port *const *)b;
    int c = strcmp(x->identity, y->identity);
    if (c == 0) {
        c = strcmp(x->listener, y->listener);
    }
    return c != 0 ? c : (int)x->port - (int)y->port;
}

static bool put_workload(struct buf *out, const struct readiness_port *const *ports, size_t n)
{
    bool ok = buf_append(out, "{", 1) && put_text(out, "identity", ports[0]->identity) &&
              buf_append(out, ",", 1) && put_text(out, "name", ports[0]->name) &&
              buf_printf(out, ",\"ports\":[");
    for (size_t i = 0; ok && i < n; i++) {
        ok = (i == 0 || buf_append(out, ",", 1)) && put_port(out, ports[i]);
    }
    return ok && buf_printf(out, "]}");
}

bool readiness_write(const struct readiness *r, int64_t now_s, struct buf *out)
{
    const struct readiness_port *sorted[READINESS_PORTS];
    memcpy(sorted, r->items, r->n * sizeof(struct readiness_port *));
    qsort(sorted, r->n, sizeof(struct readiness_port *), by_identity);
    bool ok = buf_printf(out, "{\"now_s\":%lld,\"gap_s\":%d,\"not_kept\":%llu,\"workloads\":[",
                         (long long)now_s, READINESS_GAP_S, (unsigned long long)r->not_kept);
    for (size_t i = 0, n = 0; ok && i < r->n; i += n) {
        for (n = 1; i + n < r->n && strcmp(sorted[i]->identity, sorted[i + n]->identity) == 0;) {
            n++;
        }
        ok = (i == 0 || buf_append(out, ",", 1)) && put_workload(out, &sorted[i], n);
    }
    return ok && buf_printf(out, "]}\n");
}
