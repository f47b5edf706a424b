/*
 * Keys of tokens in force: those of the files, read again by themselves when these change, and
 * those that the agent tells. Workers get another one with a snapshot. docs/claims.md.
 */
#include "proxy_priv.h"

#include <jansson.h>
#include <postern/claims.h>
#include <postern/file_watch.h>
#include <postern/jwt_bundles.h>
#include <postern/mem.h>
#include <postern/metrics.h>
#include <postern/os.h>
#include <stdio.h>
#include <stdlib.h>

/* Beside each entry of the keys. */
struct entry {
    struct file_mark looked_at,
        seen;           /* what was read or refused; what was there at the last look */
    struct err refused; /* ERR_NONE: what is there is in force */
};

struct proxy_claims {
    struct proxy *p;
    struct file_watch *watch;  /* NULL: no entry goes by a file */
    struct jwt_bundles *agent; /* NULL: no entry goes by it */
    struct claims_keys *keys;  /* a reference; NULL: no token is looked for */
    struct entry *entries;     /* owned, one an entry of the keys */
    uint64_t n_refused;
};

static size_t count(const struct proxy_claims *c)
{
    return c->keys != NULL ? claims_keys_count(c->keys) : 0;
}

static const char *whose(const struct claims_entry *e)
{
    return e->issuer != NULL ? e->issuer : e->trust_domain;
}

static void tell(const struct proxy_claims *c, size_t i, const char *event, const struct err *why)
{
    struct claims_entry e;
    struct log_line l;
    claims_keys_entry(c->keys, i, &e);
    log_begin(&l, c->p->log, why != NULL ? LOG_ERROR : LOG_INFO, event);
    log_str(&l, "issuer", whose(&e));
    log_str(&l, "from", e.file != NULL ? e.file : "agent");
    log_uint(&l, "keys", e.n_keys);
    if (why != NULL) {
        log_errinfo(&l, why);
    }
    log_end(&l);
}

/* Whether any entry goes by a file, or by the agent. */
static bool any_by(const struct proxy_claims *c, bool file)
{
    bool any = false;
    for (size_t i = 0; i < count(c); i++) {
        struct claims_entry e;
        claims_keys_entry(c->keys, i, &e);
        any = any || (e.file != NULL) == file;
    }
    return any;
}

/* Takes next over. False: it judges as the ones in force do, which stay. */
static bool use(struct proxy_claims *c, struct claims_keys *next)
{
    if (claims_keys_equal(c->keys, next)) {
        claims_keys_unref(next);
        return false;
    }
    claims_keys_unref(c->keys);
    c->keys = next;
    return true;
}

/* --- files -------------------------------------------------------------------------------------
 */
static void watch_files(struct proxy_claims *c)
{
    struct claims_entry e;
    if (c->watch == NULL) {
        return;
    }
    file_watch_begin(c->watch);
    for (size_t i = 0; i < count(c); i++) {
        claims_keys_entry(c->keys, i, &e);
        if (e.file != NULL) {
            file_watch_add(c->watch, e.file);
        }
    }
    file_watch_end(c->watch);
}

static bool looks_changed(struct entry *mine, const char *file, bool by_event)
{
    struct file_mark now = file_mark_now(file);
    bool changed =
        !file_mark_same(&now, &mine->looked_at) && (by_event || file_mark_same(&now, &mine->seen));
    mine->seen = now;
    return changed;
}

/* False: what is in force stays. */
static bool read_again(struct proxy_claims *c, size_t i)
{
    struct entry *mine = &c->entries[i];
    struct claims_keys *next = NULL;
    struct err err = ERR_INIT;
    mine->looked_at = mine->seen;
    mine->refused = err;
    if (claims_keys_read_again(c->keys, i, &next, &err) == -1) {
        mine->refused = err;
        c->n_refused++;
        tell(c, i, "token_keys_refused", &err);
        return false;
    }
    if (!use(c, next)) {
        return false;
    }
    tell(c, i, "token_keys_loaded", NULL);
    return true;
}

static void on_look(void *arg, bool by_event)
{
    struct proxy_claims *c = arg;
    bool changed = false;
    for (size_t i = 0; i < count(c); i++) {
        struct claims_entry e;
        claims_keys_entry(c->keys, i, &e);
        if (e.file != NULL && looks_changed(&c->entries[i], e.file, by_event)) {
            changed = read_again(c, i) || changed;
        }
    }
    watch_files(c); /* links may lead elsewhere now */
    if (changed) {
        proxy_publish(c->p);
    }
}

/* --- the agent ---------------------------------------------------------------------------------
 */
static void on_sets(void *arg, const struct jwt_key_sets *sets)
{
    struct proxy_claims *c = arg;
    if (!use(c, claims_keys_told(c->keys, sets))) {
        proxy_restart_check(c->p); /* of trust domains that nobody named; but it has answered */
        return;
    }
    for (size_t i = 0; i < count(c); i++) {
        struct claims_entry e;
        claims_keys_entry(c->keys, i, &e);
        if (e.file == NULL) {
            tell(c, i, e.known ? "token_keys_loaded" : "token_keys_withdrawn", NULL);
        }
    }
    proxy_publish(c->p);
}

static void on_trouble(void *arg, const struct err *why)
{
    const struct proxy_claims *c = arg;
    struct log_line l;
    log_begin(&l, c->p->log, why != NULL ? LOG_WARN : LOG_INFO, "token_keys");
    log_str(&l, "notice", why != NULL ? "agent_trouble" : "agent_back");
    if (why != NULL) {
        log_errinfo(&l, why);
    }
    log_end(&l);
}

static int ask_agent(struct proxy_claims *c, struct err *err)
{
    static const struct jwt_bundles_events events = {on_sets, on_trouble};
    const struct conf_proxy *conf = c->p->files->conf;
    const struct jwt_bundles_options o = {.socket = conf->identity.socket,
                                          .check_agent = conf->state.from == CONF_STATE_AGENT};
    if (!any_by(c, false)) {
        c->agent = jwt_bundles_free(c->agent);
        return 0;
    }
    if (c->agent != NULL) {
        jwt_bundles_renew(c->agent);
        return 0;
    }
    c->agent = jwt_bundles_new(c->p->loop, &o, &events, c, err);
    return c->agent != NULL ? 0 : -1;
}

/* --- start, reload -----------------------------------------------------------------------------
 */
/* Those of the files, with what the agent has told. */
static void take_files(struct proxy_claims *c)
{
    struct claims_keys *of_files = c->p->files->claims;
    struct claims_keys *next = NULL;
    if (of_files != NULL) {
        next = c->agent != NULL ? claims_keys_told(of_files, jwt_bundles_get(c->agent))
                                : claims_keys_ref(of_files);
    }
    claims_keys_unref(c->keys);
    c->keys = next;
    free(c->entries);
    c->entries = mem_must_calloc(count(c) + 1, sizeof(c->entries[0]));
    for (size_t i = 0; i < count(c); i++) {
        struct claims_entry e;
        claims_keys_entry(c->keys, i, &e);
        c->entries[i].looked_at = c->entries[i].seen = e.mark;
    }
}

int proxy_claims_start(struct proxy *p, struct err *err)
{
    struct proxy_claims *c = mem_must_new(struct proxy_claims);
    p->claims = c;
    c->p = p;
    take_files(c);
    if (any_by(c, true)) {
        c->watch = file_watch_new(p->loop, on_look, c);
        watch_files(c);
    }
    return ask_agent(c, err);
}

void proxy_claims_use(struct proxy *p)
{
    struct err err = ERR_INIT;
    struct proxy_claims *c = p->claims;
    take_files(c);
    if (c->watch == NULL && any_by(c, true)) {
        c->watch = file_watch_new_slow(p->loop, on_look, c); /* the sandbox is closed */
    }
    watch_files(c);
    if (ask_agent(c, &err) == -1) {
        on_trouble(c, &err);
    }
}

struct claims_keys *proxy_claims_keys(const struct proxy *p)
{
    return p->claims != NULL ? p->claims->keys : NULL;
}

bool proxy_claims_ready(const struct proxy *p)
{
    const struct proxy_claims *c = p->claims;
    return c == NULL || c->agent == NULL || jwt_bundles_answered(c->agent);
}

void proxy_claims_stop(struct proxy *p)
{
    struct proxy_claims *c = p->claims;
    if (c != NULL) {
        jwt_bundles_free(c->agent);
        file_watch_free(c->watch);
        claims_keys_unref(c->keys);
        free(c->entries);
        free(c);
        p->claims = NULL;
    }
}

/* --- what is told ------------------------------------------------------------------------------
 */
json_t *proxy_claims_status(const struct proxy *p)
{
    const struct proxy_claims *c = p->claims;
    json_t *a = json_array();
    for (size_t i = 0; c != NULL && i < count(c); i++) {
        struct claims_entry e;
        char text[600];
        json_t *o = json_object();
        claims_keys_entry(c->keys, i, &e);
        json_object_set_new(o, e.issuer != NULL ? "issuer" : "trust_domain",
                            json_string(whose(&e)));
        json_object_set_new(o, "from", json_string(e.file != NULL ? e.file : "agent"));
        json_object_set_new(o, "keys", e.known ? json_integer((json_int_t)e.n_keys) : json_null());
        json_object_set_new(o, "refused",
                            c->entries[i].refused.code != ERR_NONE
                                ? json_string(err_text(&c->entries[i].refused, text, sizeof(text)))
                                : json_null());
        json_array_append_new(a, o);
    }
    return a;
}

void proxy_claims_metrics(const struct proxy *p, struct buf *out)
{
    const struct proxy_claims *c = p->claims;
    bool first = true;
    for (size_t i = 0; c != NULL && i < count(c); i++) {
        struct claims_entry e;
        char labels[160];
        claims_keys_entry(c->keys, i, &e);
        snprintf(labels, sizeof(labels), "entry=\"%zu\"", i);
        (void)metrics_write_value(out, "postern_token_keys", METRIC_GAUGE,
                                  first ? "Keys that verify tokens of requests, by entry of `jwt`."
                                        : NULL,
                                  labels, (double)e.n_keys);
        first = false;
    }
    if (!first) {
        (void)metrics_write_value(out, "postern_token_keys_refused", METRIC_COUNTER,
                                  "Newer files of keys that were not taken.", NULL,
                                  (double)c->n_refused);
    }
}
