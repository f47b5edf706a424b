/* How often: requests of a peer or of a route, and requests that are sent a second time. */
#include "http_priv.h"

#include <postern/limit.h>
#include <stdio.h>
#include <string.h>

enum {
    RETRY = 1000,             /* what one costs */
    RETRIES_MAX = 100 * RETRY /* what quiet times are good for */
};

const struct conf_http *http_conf(const struct conn *c)
{
    const struct conf_listener *l = conn_listener(c)->conf;
    if (c->target != NULL) {
        return &l->http;
    }
    const struct conf_port *p = conn_declared_port(l, net_addr_port(&c->original));
    return p != NULL ? &p->http : &l->http;
}

/* --- rates ------------------------------------------------------------------------------------ */

static bool is_listed(char *const *list, size_t n, struct str s)
{
    for (size_t i = 0; i < n; i++) {
        if (str_eq(s, str_of(list[i]))) {
            return true;
        }
    }
    return n == 0;
}

static bool path_matches(const char *pattern, struct str path)
{
    size_t n = strlen(pattern);
    if (pattern[0] == '*') {
        return path.n >= n - 1 && memcmp(path.p + path.n - (n - 1), pattern + 1, n - 1) == 0;
    }
    if (pattern[n - 1] == '*') {
        return path.n >= n - 1 && memcmp(path.p, pattern, n - 1) == 0;
    }
    return str_eq(path, str_of(pattern));
}

static bool is_about(const struct conf_rate_limit *l, struct str method, struct str path)
{
    bool match = l->n_paths == 0;
    for (size_t i = 0; i < l->n_paths && !match; i++) {
        match = path_matches(l->paths[i], path);
    }
    return match && is_listed(l->methods, l->n_methods, method);
}

/* Which limit of which port it is, and whose, if each has one. */
static struct str key_of(const struct conn *c, const struct conf_rate_limit *l, size_t index,
                         char *text, size_t size)
{
    char address[NET_ADDR_TEXT_MAX];
    struct str who = STR_NONE;
    if (l->per == CONF_RATE_IDENTITY) {
        who = conn_peer_id(c);
        if (who.n == 0) {
            who = str_of(net_addr_text(&c->source, address));
            const char *colon = conn_source(c) != NULL ? strrchr(address, ':') : NULL;
            who.n = colon != NULL ? (size_t)(colon - address) : who.n;
        }
    }
    int n = snprintf(text, size, "%u %zu %.*s", conn_port(c), index, STR_ARG(who));
    return (struct str){text, n > 0 && (size_t)n < size ? (size_t)n : size - 1};
}

bool http_rate_take(struct conn *c, struct str method, struct str path)
{
    enum { KEY_MAX = 2200 };
    const struct conf_http *conf = http_conf(c);
    struct limit_table *t = c->worker->shared->rates;
    char text[KEY_MAX] __attribute__((uninitialized));
    for (size_t i = 0; i < conf->n_rate_limits && t != NULL; i++) {
        const struct conf_rate_limit *l = &conf->rate_limits[i];
        if (is_about(l, method, path) &&
            limit_rate(t, (uint32_t)c->listener, key_of(c, l, i, text, sizeof(text)), l->rate,
                       l->burst > 0 ? l->burst : l->rate,
                       loop_now_ms(c->worker->loop) * 1000) != LIMIT_OK) {
            counter_add(&c->worker->counters.requests_limited, 1);
            return false;
        }
    }
    return true;
}

/* --- retries ---------------------------------------------------------------------------------- */

void http_retry_earn(struct conn_worker *w, uint32_t percent)
{
    uint64_t next = w->retry_credit + percent * (RETRY / 100);
    w->retry_credit = next < RETRIES_MAX ? next : RETRIES_MAX;
}

/* Beside what requests have earned there are three a second. */
bool http_retry_take(struct conn_worker *w, uint32_t percent)
{
    uint64_t now = loop_now_ms(w->loop);
    uint64_t free_ms = w->retry_ms != 0 ? now - w->retry_ms : 1000;
    uint64_t credit = w->retry_credit + 3 * (free_ms < 1000 ? free_ms : 1000);
    w->retry_ms = now;
    w->retry_credit = credit < RETRIES_MAX ? credit : RETRIES_MAX;
    if (percent == 0 || w->retry_credit < RETRY) {
        counter_add(&w->counters.retries_refused, 1);
        return false;
    }
    w->retry_credit -= RETRY;
    counter_add(&w->counters.retries, 1);
    return true;
}

/* --- CONNECT ---------------------------------------------------------------------------------- */

bool http_connect_listed(const struct conn *c, struct str target)
{
    const struct conf_http *conf = http_conf(c);
    for (size_t i = 0; i < conf->n_connect; i++) {
        struct str pattern = str_of(conf->connect[i]);
        if (str_has_prefix(pattern, STR_LIT("*"))) {
            pattern = (struct str){pattern.p + 1, pattern.n - 1};
            if (target.n > pattern.n &&
                memcmp(target.p + target.n - pattern.n, pattern.p, pattern.n) == 0) {
                return true;
            }
        } else if (str_eq(target, pattern)) {
            return true;
        }
    }
    return false;
}
