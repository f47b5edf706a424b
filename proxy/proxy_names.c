/* Names of targets, of endpoints and of unlisted destinations, as the main thread sees them: the
 * helper that looks them up, and what is told of it. A sidecar whose mesh map has none starts none.
 */
#include "proxy_priv.h"

#include <jansson.h>
#include <postern/mem_grow.h>
#include <postern/metrics.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- names ------------------------------------------------------------------------------------ */

struct names {
    const char **list; /* owned; the texts are lent by the files */
    size_t n, room;
};

static void add_name(void *arg, const char *host)
{
    struct names *names = (struct names *)arg;
    MEM_GROW(names->list, names->n, names->room, 16);
    names->list[names->n++] = host;
}

static void on_resolved(void *arg, struct resolve_state *state)
{
    struct proxy *p = (struct proxy *)arg;
    resolve_state_unref(p->resolved);
    p->resolved = resolve_state_ref(state);
    if (p->serving) {
        proxy_publish(p);
    }
}

static void on_resolver_notice(void *arg, enum resolver_notice notice, const char *host,
                               const struct err *why)
{
    const struct proxy *p = (const struct proxy *)arg;
    bool good = notice == RESOLVER_RECOVERED || notice == RESOLVER_CHANGED;
    struct log_line l;
    log_begin(&l, p->log,
              notice == RESOLVER_GONE ? LOG_ERROR
              : good                  ? LOG_INFO
                                      : LOG_WARN,
              "resolver");
    log_str(&l, "notice", resolver_notice_name(notice));
    log_str(&l, "host", host);
    if (why != NULL) {
        log_errinfo(&l, why);
    }
    log_end(&l);
}

/* The caller frees list. */
static struct names wanted(const struct snapshot_files *files, const struct snapshot_state *state)
{
    struct names names = {.n = 0};
    snapshot_hosts(files, state, add_name, &names);
    return names;
}

void proxy_names_tell(struct proxy *p)
{
    struct names names = wanted(p->files, p->state);
    if (p->resolver != NULL) {
        resolver_set_names(p->resolver, names.list, names.n);
    } else if (names.n > 0 && !p->told_unresolved) {
        struct err err = ERR_INIT;
        p->told_unresolved = true;
        err_set(&err, ERR_CONFIG, "'%s' is a name, and nothing here looks names up", names.list[0]);
        err_advise(&err, "say 'resolve_names: on' and restart");
        log_failure(p->log, LOG_WARN, "resolver", &err);
    }
    free(names.list);
}

int proxy_names_start(struct proxy *p, struct err *err)
{
    static const struct resolver_events events = {.on_state = on_resolved,
                                                  .on_notice = on_resolver_notice};
    struct names names = wanted(p->files, NULL);
    free(names.list);
    if (names.n == 0 && p->files->conf->resolve_names != CONF_RESOLVE_ON) {
        return 0;
    }
    p->resolver = resolver_new(p->loop, &events, p, err);
    return p->resolver != NULL ? 0 : -1;
}

void proxy_names_stop(struct proxy *p)
{
    p->resolver = resolver_free(p->resolver);
    p->resolved = resolve_state_unref(p->resolved);
}

int proxy_names_cover(const struct proxy *p, const struct snapshot_files *next, struct err *err)
{
    struct names names = wanted(next, NULL);
    const char *first = names.n > 0 ? names.list[0] : NULL;
    free(names.list);
    if (first == NULL || p->resolver != NULL) {
        return 0;
    }
    err_set(err, ERR_CONFIG, "'%s' is a name, and this process was started without any", first);
    err_where(err, "%s", next->conf->path != NULL ? next->conf->path : "");
    return err_advise(err, "restart it: what looks names up is started with it, or not at all");
}

json_t *proxy_names_status(const struct proxy *p)
{
    const struct resolver *r = p->resolver;
    if (r == NULL) {
        return json_null();
    }
    json_t *a = json_array();
    for (size_t i = 0; i < resolver_count(r); i++) {
        struct resolver_status st;
        resolver_get_status(r, i, &st);
        const struct resolve_host *h = resolve_state_find(p->resolved, st.host);
        json_t *addrs = json_array();
        for (size_t k = 0; h != NULL && k < h->n_addrs; k++) {
            char text[NET_ADDR_TEXT_MAX];
            net_addr_text(&h->addrs[k], text);
            char *colon = strrchr(text, ':'); /* it has no port */
            *colon = '\0';
            json_array_append_new(addrs, json_string(text));
        }
        json_t *o = json_object();
        json_object_set_new(o, "host", json_string(st.host));
        json_object_set_new(o, "addresses", addrs);
        json_object_set_new(o, "failures_in_row", json_integer(st.failures_in_row));
        json_object_set_new(o, "error", st.error[0] != '\0' ? json_string(st.error) : json_null());
        json_array_append_new(a, o);
    }
    json_t *o = json_object();
    json_object_set_new(o, "helper", json_boolean(resolver_alive(r)));
    json_object_set_new(o, "hosts", a);
    return o;
}

void proxy_names_metrics(const struct proxy *p, struct buf *out)
{
    if (p->resolver == NULL) {
        return;
    }
    (void)metrics_write_value(out, "postern_resolver_up", METRIC_GAUGE,
                              "1 while the process that looks names up lives.", "",
                              resolver_alive(p->resolver) ? 1 : 0);
    for (size_t i = 0; i < resolver_count(p->resolver); i++) {
        struct resolver_status st;
        char labels[300];
        resolver_get_status(p->resolver, i, &st);
        snprintf(labels, sizeof(labels), "host=\"%s\"", st.host);
        (void)metrics_write_value(out, "postern_resolver_addresses", METRIC_GAUGE,
                                  i == 0 ? "Addresses that are known of a target's name." : NULL,
                                  labels, (double)st.n_addrs);
    }
    for (size_t i = 0; i < resolver_count(p->resolver); i++) {
        struct resolver_status st;
        char labels[300];
        resolver_get_status(p->resolver, i, &st);
        snprintf(labels, sizeof(labels), "host=\"%s\"", st.host);
        (void)metrics_write_value(out, "postern_resolver_failures", METRIC_GAUGE,
                                  i == 0 ? "Failed look-ups of a target's name in a row." : NULL,
                                  labels, st.failures_in_row);
    }
}
