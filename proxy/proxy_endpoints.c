/* What is told of endpoints and of services with a limit: of the snapshot in force, whose records
 * the workers count in. */
#include "proxy_priv.h"

#include <jansson.h>
#include <postern/metrics.h>
#include <postern/os.h>
#include <stdio.h>
#include <string.h>

static uint32_t load32(const _Atomic uint32_t *v)
{
    return atomic_load_explicit((_Atomic uint32_t *)(uintptr_t)v, memory_order_relaxed);
}

static uint64_t load64(const _Atomic uint64_t *v)
{
    return atomic_load_explicit((_Atomic uint64_t *)(uintptr_t)v, memory_order_relaxed);
}

/* "10.0.0.1:80", or without a port where it is the dialled one. */
static const char *address_text(const struct balance_endpoint *e, char text[NET_ADDR_TEXT_MAX])
{
    net_addr_text(&e->address, text);
    if (net_addr_port(&e->address) == 0) {
        *strrchr(text, ':') = '\0';
    }
    return text;
}

static json_t *endpoint_status(const struct balance_endpoint *e)
{
    char text[NET_ADDR_TEXT_MAX];
    uint64_t now = os_now_ms();
    uint64_t until = load64(&e->ejected_until_ms);
    json_t *o = json_object();
    json_object_set_new(o, "address", json_string(address_text(e, text)));
    json_object_set_new(o, "open", json_integer(load32(&e->open)));
    json_object_set_new(o, "failures_in_row", json_integer(load32(&e->failures)));
    json_object_set_new(o, "failures", json_integer((json_int_t)load64(&e->n_failures)));
    json_object_set_new(o, "ejections", json_integer((json_int_t)load64(&e->n_ejections)));
    json_object_set_new(o, "ejected_for_ms",
                        until > now ? json_integer((json_int_t)(until - now)) : json_integer(0));
    return o;
}

json_t *proxy_endpoints_status(const struct proxy *p)
{
    const struct balance_state *b = p->snapshot->balance;
    json_t *a = json_array();
    for (size_t i = 0; i < b->n_sets; i++) {
        const struct balance_set *s = &b->sets[i];
        json_t *list = json_array();
        for (size_t k = 0; k < s->n; k++) {
            json_array_append_new(list, endpoint_status(s->endpoints[k]));
        }
        json_t *o = json_object();
        uint32_t max = s->route->max_connections;
        json_object_set_new(o, "service", json_string(s->service->name));
        json_object_set_new(o, "open", json_integer(load32(&s->service->open)));
        json_object_set_new(o, "limit", max > 0 ? json_integer(max) : json_null());
        json_object_set_new(o, "refused", json_integer((json_int_t)load64(&s->service->n_refused)));
        json_object_set_new(o, "panics", json_integer((json_int_t)load64(&s->service->n_panics)));
        json_object_set_new(o, "endpoints", list);
        json_array_append_new(a, o);
    }
    return a;
}

/* --- metrics ---------------------------------------------------------------------------------- */

/* Two maps may have a service of the same name, which is then counted as one. */
static bool seen(const struct balance_state *b, size_t n, const struct balance_service *s)
{
    for (size_t i = 0; i < n; i++) {
        if (b->sets[i].service == s) {
            return true;
        }
    }
    return false;
}

struct family {
    const char *name;
    enum metric_type type;
    const char *help;
    double (*value)(const void *of, uint64_t now_ms);
};

static double service_open(const void *of, uint64_t now_ms)
{
    (void)now_ms;
    return load32(&((const struct balance_service *)of)->open);
}

static double service_refused(const void *of, uint64_t now_ms)
{
    (void)now_ms;
    return (double)load64(&((const struct balance_service *)of)->n_refused);
}

static double service_panics(const void *of, uint64_t now_ms)
{
    (void)now_ms;
    return (double)load64(&((const struct balance_service *)of)->n_panics);
}

static double endpoint_open(const void *of, uint64_t now_ms)
{
    (void)now_ms;
    return load32(&((const struct balance_endpoint *)of)->open);
}

static double endpoint_failures(const void *of, uint64_t now_ms)
{
    (void)now_ms;
    return (double)load64(&((const struct balance_endpoint *)of)->n_failures);
}

static double endpoint_ejections(const void *of, uint64_t now_ms)
{
    (void)now_ms;
    return (double)load64(&((const struct balance_endpoint *)of)->n_ejections);
}

static double endpoint_ejected(const void *of, uint64_t now_ms)
{
    return balance_is_ejected((const struct balance_endpoint *)of, now_ms) ? 1 : 0;
}

static void write_service(struct buf *out, const struct family *f, const char **help,
                          const struct balance_set *s, uint64_t now_ms)
{
    char labels[200];
    snprintf(labels, sizeof(labels), "service=\"%s\"", s->service->name);
    (void)metrics_write_value(out, f->name, f->type, *help, labels, f->value(s->service, now_ms));
    *help = NULL;
}

static void write_endpoints(struct buf *out, const struct family *f, const char **help,
                            const struct balance_set *s, uint64_t now_ms)
{
    for (size_t k = 0; k < s->n; k++) {
        char labels[300];
        char text[NET_ADDR_TEXT_MAX];
        snprintf(labels, sizeof(labels), "service=\"%s\",endpoint=\"%s\"", s->service->name,
                 address_text(s->endpoints[k], text));
        (void)metrics_write_value(out, f->name, f->type, *help, labels,
                                  f->value(s->endpoints[k], now_ms));
        *help = NULL;
    }
}

void proxy_endpoints_metrics(const struct proxy *p, struct buf *out)
{
    static const struct family services[] = {
        {"postern_service_connections", METRIC_GAUGE,
         "Connections to a service with endpoints or a limit, by this proxy.", service_open},
        {"postern_service_refused", METRIC_COUNTER, "Connections beyond a service's limit.",
         service_refused},
        {"postern_service_panics", METRIC_COUNTER,
         "Choices among all endpoints because too many were left out.", service_panics}};
    static const struct family endpoints[] = {
        {"postern_endpoint_connections", METRIC_GAUGE, "Connections to an endpoint.",
         endpoint_open},
        {"postern_endpoint_failures", METRIC_COUNTER,
         "Connects and handshakes with an endpoint that failed.", endpoint_failures},
        {"postern_endpoint_ejections", METRIC_COUNTER, "How often an endpoint was left out.",
         endpoint_ejections},
        {"postern_endpoint_ejected", METRIC_GAUGE, "1 while an endpoint is left out.",
         endpoint_ejected}};
    const struct balance_state *b = p->snapshot != NULL ? p->snapshot->balance : NULL;
    uint64_t now_ms = os_now_ms();
    for (size_t f = 0; b != NULL && f < sizeof(services) / sizeof(services[0]); f++) {
        const char *help = services[f].help;
        for (size_t i = 0; i < b->n_sets; i++) {
            if (!seen(b, i, b->sets[i].service)) {
                write_service(out, &services[f], &help, &b->sets[i], now_ms);
            }
        }
    }
    for (size_t f = 0; b != NULL && f < sizeof(endpoints) / sizeof(endpoints[0]); f++) {
        const char *help = endpoints[f].help;
        for (size_t i = 0; i < b->n_sets; i++) {
            if (!seen(b, i, b->sets[i].service)) {
                write_endpoints(out, &endpoints[f], &help, &b->sets[i], now_ms);
            }
        }
    }
}
