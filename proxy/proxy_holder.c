/* The identity's key in a process of its own (docs/key-holder.md): its start, what its end means,
 * and what is told of it. */
#include "proxy_priv.h"

#include <jansson.h>
#include <postern/key_holder.h>
#include <postern/mem.h>
#include <postern/metrics.h>
#include <postern/os.h>
#include <stdlib.h>

enum {
    LINES_MS = 10000, /* between two lines about signatures that did not come */
    REPORT_MAX = 8192,
};

struct proxy_holder {
    struct proxy *proxy;
    struct key_holder *holder;
    uint64_t quiet_until_ms;
    uint64_t timeouts_told;
    bool weak; /* told */
};

/* --- its life --------------------------------------------------------------------------------- */
static void tell(struct proxy *p, enum log_level level, const char *what, const struct err *why)
{
    struct key_holder_status st;
    struct log_line l;
    key_holder_get_status(p->holder->holder, &st);
    log_begin(&l, p->log, level, "key_holder");
    log_str(&l, "notice", what);
    if (st.pid != 0) {
        log_int(&l, "pid", st.pid);
    }
    if (why != NULL) {
        log_errinfo(&l, why);
    }
    log_end(&l);
}

static void tell_timeout(struct proxy *p)
{
    struct proxy_holder *h = p->holder;
    struct key_holder_status st;
    struct log_line l;
    if (os_now_ms() < h->quiet_until_ms) {
        return;
    }
    h->quiet_until_ms = os_now_ms() + LINES_MS;
    key_holder_get_status(h->holder, &st);
    log_begin(&l, p->log, LOG_ERROR, "key_holder_timeout");
    log_uint(&l, "count", st.timeouts - h->timeouts_told);
    log_fmt(&l, "message", "no signature within %d ms: handshakes fail", KEY_HOLDER_SIGN_MS);
    log_end(&l);
    h->timeouts_told = st.timeouts;
}

/* Nobody can start another one: whoever takes our place can. */
static void give_up(struct proxy *p, const struct err *why)
{
    tell(p, LOG_ERROR, "lost", why);
    p->exit_status = 1;
    identity_client_key_lost(p->client);
    if (!p->serving) {
        loop_stop(p->loop);
    } else if (!p->draining) {
        proxy_drain(p);
    }
}

static void tell_weakness(struct proxy *p)
{
    struct key_holder_report r;
    if (!p->holder->weak && key_holder_get_report(p->holder->holder, &r, NULL) == 0 &&
        !r.keys_locked) {
        p->holder->weak = true;
        hardening_degraded(p->hardening, "the key holder's keys are not in locked memory",
                           "raise RLIMIT_MEMLOCK (LimitMEMLOCK= of a unit) to 1 MiB");
    }
}

static void on_event(void *arg, enum key_holder_event event, const struct err *why)
{
    struct proxy *p = ((struct proxy_holder *)arg)->proxy;
    switch (event) {
    case KEY_HOLDER_UP:
        tell(p, LOG_INFO, "started", NULL);
        tell_weakness(p);
        identity_client_renew(p->client);
        return;
    case KEY_HOLDER_ENDED:
        tell(p, LOG_ERROR, "ended", why);
        identity_client_key_lost(p->client);
        return;
    case KEY_HOLDER_TIMEOUT:
        tell_timeout(p);
        return;
    case KEY_HOLDER_STUCK:
        tell(p, LOG_ERROR, "stuck", why);
        return;
    case KEY_HOLDER_LOST:
        give_up(p, why);
        return;
    }
}

/* --- its start -------------------------------------------------------------------------------- */
/* A sidecar's outbound listeners are clients, its inbound ones servers; so are a gateway's. */
static void roles_of(const struct conf_proxy *conf, struct key_holder_options *ret)
{
    for (size_t i = 0; i < conf->n_listeners; i++) {
        const struct conf_listener *l = &conf->listeners[i];
        bool relay = l->type == CONF_LISTENER_RELAY;
        ret->server = ret->server || relay || l->direction == CONF_INBOUND;
        ret->client = ret->client || relay || l->direction == CONF_OUTBOUND;
    }
}

int proxy_holder_start(struct proxy *p, struct err *err)
{
    static const struct key_holder_events events = {.on_event = on_event};
    const struct conf_proxy *conf = p->files->conf;
    struct key_holder_options o = {.n_threads = p->n_workers + 1};
    if (conf->no_identity || conf->identity.key_isolation != CONF_KEY_PROCESS) {
        return 0;
    }
    roles_of(conf, &o);
    p->holder = mem_must_new(struct proxy_holder);
    p->holder->proxy = p;
    p->holder->holder = key_holder_start(p->loop, &o, &events, p->holder, err);
    return p->holder->holder != NULL ? 0 : -1;
}

void proxy_holder_leave_loop(struct proxy *p)
{
    if (p->holder != NULL) {
        key_holder_leave_loop(p->holder->holder);
    }
}

void proxy_holder_stop(struct proxy *p)
{
    if (p->holder != NULL) {
        key_holder_free(p->holder->holder);
        free(p->holder);
        p->holder = NULL;
    }
}

static int make(void *arg, EVP_PKEY **ret_key, uint8_t **ret_request, size_t *ret_len,
                struct err *err)
{
    return key_holder_make((struct key_holder *)arg, ret_key, ret_request, ret_len, err);
}

struct identity_keys proxy_holder_keys(const struct proxy *p)
{
    return p->holder != NULL ? (struct identity_keys){.make = make, .arg = p->holder->holder}
                             : (struct identity_keys){.make = NULL};
}

bool proxy_holder_ready(const struct proxy *p)
{
    struct key_holder_status st;
    if (p->holder == NULL) {
        return true;
    }
    key_holder_get_status(p->holder->holder, &st);
    return st.answers;
}

/* --- what is told ----------------------------------------------------------------------------- */
/* As it says itself, of what is in force there; null: it does not answer. */
static json_t *confinement(const struct proxy *p, struct key_holder_report *ret)
{
    struct buf text = BUF_INIT(REPORT_MAX);
    json_t *o = NULL;
    if (key_holder_get_report(p->holder->holder, ret, NULL) == 0 && buf_printf(&text, "{") &&
        sandbox_report_write(&ret->sandbox, &ret->landlock, &text) && buf_printf(&text, "}")) {
        o = json_loadb((const char *)buf_head(&text), buf_len(&text), 0, NULL);
    }
    buf_reset(&text);
    return o;
}

json_t *proxy_holder_status(const struct proxy *p)
{
    struct key_holder_status st;
    struct key_holder_report r;
    if (p->holder == NULL) {
        return json_null();
    }
    json_t *o = confinement(p, &r);
    key_holder_get_status(p->holder->holder, &st);
    static const char *const untold[] = {"capability_sets", "seccomp_filters", "locked_bytes"};
    for (size_t i = 0; i < sizeof(untold) / sizeof(untold[0]); i++) {
        json_object_del(o, untold[i]); /* of /proc, which it has no way to */
    }
    bool answers = o != NULL;
    o = answers ? o : json_object();
    json_object_set_new(o, "answers", json_boolean(answers));
    json_object_set_new(o, "pid", st.pid != 0 ? json_integer(st.pid) : json_null());
    json_object_set_new(o, "started", json_integer(st.n_started));
    json_object_set_new(o, "signatures", json_integer((json_int_t)st.signatures));
    json_object_set_new(o, "refused", json_integer((json_int_t)st.refused));
    json_object_set_new(o, "timeouts", json_integer((json_int_t)st.timeouts));
    if (answers) {
        json_object_set_new(o, "keys", json_integer(r.n_keys));
        json_object_set_new(o, "keys_locked", json_boolean(r.keys_locked));
    }
    return o;
}

void proxy_holder_metrics(const struct proxy *p, struct buf *out)
{
    struct key_holder_status st;
    if (p->holder == NULL) {
        return;
    }
    key_holder_get_status(p->holder->holder, &st);
    (void)metrics_write_value(out, "postern_key_holder_up", METRIC_GAUGE,
                              "1 while the process with the identity's key answers.", NULL,
                              st.answers ? 1 : 0);
    (void)metrics_write_value(out, "postern_key_holder_starts", METRIC_COUNTER,
                              "Key holders that were started.", NULL, (double)st.n_started);
    (void)metrics_write_value(out, "postern_key_holder_signatures", METRIC_COUNTER,
                              "Handshakes that it signed.", NULL, (double)st.signatures);
    (void)metrics_write_value(out, "postern_key_holder_refused", METRIC_COUNTER,
                              "Handshakes that it did not sign, those below included.", NULL,
                              (double)st.refused);
    (void)metrics_write_value(out, "postern_key_holder_timeouts", METRIC_COUNTER,
                              "Answers that did not come in time.", NULL, (double)st.timeouts);
}
