/* All credentials and trusts of a process: sets, what is read again and when, what is told. */
#include "credential_priv.h"

#include <postern/dir_watch.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <stdlib.h>
#include <string.h>

enum {
    RETRY_MS = 250, /* after a failure: the writer may be between two files */
    RETRIES = 4,    /* before it is told */
    DAY_S = 24 * 3600,
};

struct credentials_set {
    struct source **items; /* references */
    size_t n;
};

struct credentials {
    struct loop *loop;
    const struct credentials_events *events;
    void *arg;
    struct file_watch *watch;
    struct credentials_set *set; /* in force */
};

const char *credential_kind_name(enum credential_kind kind)
{
    static const char *const names[] = {[CREDENTIAL_PEM] = "pem",
                                        [CREDENTIAL_PKCS12] = "pkcs12",
                                        [CREDENTIAL_TOKEN] = "token",
                                        [CREDENTIAL_WORKLOAD_API] = "workload_api"};
    return (size_t)kind < sizeof(names) / sizeof(names[0]) ? names[kind] : "?";
}

static void notice(const struct source *s, enum credential_notice what, const struct err *why)
{
    const struct credentials *c = s->all;
    c->events->on_notice(c->arg, s->is_trust, s->name, what, why);
}

/* --- ends ------------------------------------------------------------------------------------- */
static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* How near the end is: 1 far off, 4 it has come; 0: not worth a word. */
static int stage_of(const struct x509_svid *own, int64_t now_s)
{
    int64_t life_s = own->not_after_s - own->not_before_s;
    int64_t left_s = own->not_after_s - now_s;
    if (left_s <= 0) {
        return 4;
    }
    return left_s <= least(DAY_S, life_s / 30)       ? 3
           : left_s <= least(3 * DAY_S, life_s / 10) ? 2
           : left_s <= least(14 * DAY_S, life_s / 3) ? 1
                                                     : 0;
}

static void look_at_end(struct source *s)
{
    if (s->own == NULL) {
        return;
    }
    int stage = stage_of(s->own, os_wall_s());
    if (stage <= s->end_stage || (s->kind == CREDENTIAL_WORKLOAD_API && stage < 4)) {
        return;
    }
    char until[32];
    struct err why = ERR_INIT;
    os_time_text(s->own->not_after_s, until, sizeof(until));
    s->end_stage = stage;
    err_set(&why, ERR_UNAVAILABLE, "the certificate (serial %s) %s %s", s->own->serial,
            stage == 4 ? "has expired:" : "is valid until", until);
    err_advise(&why, stage == 4 ? "peers refuse it; put a new one into its place"
                                : "put a new one into its place");
    notice(s, stage == 4 ? CREDENTIAL_EXPIRED : CREDENTIAL_EXPIRES, &why);
}

/* --- reading again ---------------------------------------------------------------------------- */
static void watch_set(struct credentials *c)
{
    file_watch_begin(c->watch);
    for (size_t i = 0; i < c->set->n; i++) {
        for (size_t k = 0; k < c->set->items[i]->n_files; k++) {
            file_watch_add(c->watch, c->set->items[i]->files[k].path);
        }
    }
    file_watch_end(c->watch);
}

static void tell_open(const struct source *s)
{
    struct err why = ERR_INIT;
    if (s->open_to_all) {
        err_set(&why, ERR_CONFIG, "everybody on this machine may read the %s",
                s->has_passphrase ? "key's passphrase" : "key");
        err_where(&why, "%s", s->files[source_secret(s)].path);
        err_advise(&why, "chmod o-r");
        notice(s, CREDENTIAL_OPEN, &why);
    }
}

/* Once for each text. */
static void refuse(struct source *s, const struct err *why)
{
    bool new_text = s->refused.code == ERR_NONE || strcmp(s->refused.what, why->what) != 0;
    s->refused = *why;
    if (!s->told && (s->failures >= RETRIES || s->failures == 0)) {
        s->told = true;
        s->n_refused++;
        if (new_text || s->failures >= RETRIES) {
            notice(s, CREDENTIAL_REFUSED, why);
        }
    }
}

/* True: something else is in force. */
static bool reload(struct source *s)
{
    bool changed = false;
    struct err err = ERR_INIT;
    if (source_load(s, &changed, &err) == -1) {
        s->failures++;
        refuse(s, &err);
        return false;
    }
    s->failures = 0;
    s->told = false;
    s->refused = (struct err)ERR_INIT;
    if (changed) {
        notice(s, CREDENTIAL_LOADED, NULL);
        tell_open(s);
    }
    return changed;
}

static void look(struct credentials *c, bool by_event, bool all)
{
    bool changed = false, retry = false;
    watch_set(c); /* first: what changes after the look is then an event */
    for (size_t i = 0; i < c->set->n; i++) {
        struct source *s = c->set->items[i];
        bool other = source_looks_changed(s, by_event);
        if (other) {
            s->told = false;
            s->failures = 0;
        }
        if (other || all || (s->failures > 0 && s->failures < RETRIES)) {
            changed = reload(s) || changed;
        }
        retry = retry || (s->failures > 0 && s->failures < RETRIES);
        look_at_end(s);
    }
    if (retry) {
        file_watch_soon(c->watch, RETRY_MS);
    }
    if (changed) {
        watch_set(c);
        c->events->on_change(c->arg);
    }
}

static void on_watch(void *arg, bool by_event)
{
    look(arg, by_event, false);
}

void credentials_read_again(struct credentials *c)
{
    for (size_t i = 0; i < c->set->n; i++) {
        struct source *s = c->set->items[i];
        s->told = false;
        s->failures = 0;
        if (s->client != NULL) {
            struct identity_status st;
            identity_client_get_status(s->client, &st);
            if (st.gave_up) {
                identity_client_renew(s->client);
            }
        }
    }
    look(c, true, true);
}

/* --- Workload APIs ---------------------------------------------------------------------------- */
static void on_state(void *arg, const struct identity_state *state)
{
    struct source *s = arg;
    bool had = s->own != NULL;
    source_take_state(s, state);
    if (state != NULL) {
        notice(s, CREDENTIAL_LOADED, NULL);
    } else if (had) {
        notice(s, CREDENTIAL_LOST, &s->refused);
    }
    if (s->all->set != NULL) {
        s->all->events->on_change(s->all->arg);
    }
}

static void on_client_notice(void *arg, enum identity_notice what, const struct err *why)
{
    struct source *s = arg;
    if (what == IDENTITY_AGENT_BACK || what == IDENTITY_RENEWED) {
        s->refused = (struct err)ERR_INIT;
    } else if (why != NULL) {
        s->refused = *why;
        s->n_refused++;
        notice(s, CREDENTIAL_REFUSED, why);
    }
}

static int start_workload(struct source *s, struct loop *loop, struct err *err)
{
    static const struct identity_client_events events = {.on_state = on_state,
                                                         .on_notice = on_client_notice};
    const struct identity_client_options o = {
        .socket = s->socket, .spiffe_id = s->spiffe_id, .key = s->key_mode};
    s->client = identity_client_new(loop, &o, &events, s, err);
    return s->client != NULL ? 0 : err_prefix(err, "credential '%s'", s->name);
}

/* --- sets ------------------------------------------------------------------------------------- */
static void set_add(struct credentials_set *set, struct source *s)
{
    set->items = (struct source **)mem_must_realloc(set->items, (set->n + 1) * sizeof(*set->items));
    set->items[set->n++] = s;
}

static struct credentials_set *set_free(struct credentials_set *set)
{
    if (set != NULL) {
        for (size_t i = 0; i < set->n; i++) {
            source_unref(set->items[i]);
        }
        free(set->items);
        free(set);
    }
    return NULL;
}

static struct source *find(const struct credentials_set *set, bool is_trust, const char *name)
{
    for (size_t i = 0; i < set->n; i++) {
        struct source *s = set->items[i];
        if (s->is_trust == is_trust && strcmp(s->name, name) == 0) {
            return s;
        }
    }
    return NULL;
}

/* What is described as before stays as it is, good or bad; what is new has to load now. */
static int add(struct credentials *c, struct credentials_set *set, struct source *before,
               struct source *fresh, struct err *err)
{
    bool changed = false;
    if (before != NULL) {
        source_unref(fresh);
        set_add(set, source_ref(before));
        return 0;
    }
    set_add(set, fresh);
    if (!fresh->is_trust && fresh->kind == CREDENTIAL_WORKLOAD_API) {
        return start_workload(fresh, c->loop, err);
    }
    return source_load(fresh, &changed, err);
}

int credentials_prepare(struct credentials *c, const struct credentials_spec *spec,
                        struct credentials_set **ret, struct err *err)
{
    struct credentials_set *set = mem_must_new(struct credentials_set);
    int r = 0;
    for (size_t i = 0; r == 0 && i < spec->n_own; i++) {
        struct source *before = find(c->set, false, spec->own[i].name);
        before = before != NULL && source_is_own(before, &spec->own[i]) ? before : NULL;
        r = add(c, set, before, source_new_own(c, &spec->own[i]), err);
    }
    for (size_t i = 0; r == 0 && i < spec->n_trust; i++) {
        struct source *before = find(c->set, true, spec->trust[i].name);
        before = before != NULL && source_is_trust(before, &spec->trust[i]) ? before : NULL;
        r = add(c, set, before, source_new_trust(c, &spec->trust[i]), err);
    }
    if (r == -1) {
        set_free(set);
        return -1;
    }
    *ret = set;
    return 0;
}

void credentials_commit(struct credentials *c, struct credentials_set *set)
{
    struct credentials_set *before = c->set;
    c->set = set;
    for (size_t i = 0; i < set->n; i++) {
        struct source *s = set->items[i];
        if (s->refs == 1 && (s->own != NULL || s->peers != NULL)) { /* not of the set before */
            notice(s, CREDENTIAL_LOADED, NULL);
            tell_open(s);
        }
        look_at_end(s);
    }
    set_free(before);
    watch_set(c);
    file_watch_soon(c->watch, RETRY_MS); /* what changed before it was watched */
}

void credentials_abandon(struct credentials *c, struct credentials_set *set)
{
    (void)c;
    set_free(set);
}

struct credentials *credentials_new(struct loop *loop, const struct credentials_events *events,
                                    void *arg)
{
    struct credentials *c = mem_must_new(struct credentials);
    c->loop = loop;
    c->events = events;
    c->arg = arg;
    c->set = mem_must_new(struct credentials_set);
    c->watch = file_watch_new(loop, on_watch, c);
    return c;
}

struct credentials *credentials_free(struct credentials *c)
{
    if (c != NULL) {
        file_watch_free(c->watch);
        set_free(c->set);
        free(c);
    }
    return NULL;
}

/* --- asking ----------------------------------------------------------------------------------- */
const struct x509_svid *credentials_own(const struct credentials *c,
                                        const struct credentials_set *set, const char *name)
{
    const struct source *s = find(set != NULL ? set : c->set, false, name);
    return s != NULL ? s->own : NULL;
}

const struct x509_peers *credentials_peers(const struct credentials *c,
                                           const struct credentials_set *set, const char *name)
{
    const struct source *s = find(set != NULL ? set : c->set, true, name);
    return s != NULL ? s->peers : NULL;
}

bool credentials_complete(const struct credentials *c)
{
    for (size_t i = 0; i < c->set->n; i++) {
        if (c->set->items[i]->own == NULL && c->set->items[i]->peers == NULL) {
            return false;
        }
    }
    return true;
}

void credentials_directories(const struct credentials *c, const struct credentials_set *set,
                             void (*fn)(void *arg, const char *dir), void *arg)
{
    const struct credentials_set *which = set != NULL ? set : c->set;
    for (size_t i = 0; i < which->n; i++) {
        for (size_t k = 0; k < which->items[i]->n_files; k++) {
            dir_watch_path_dirs(which->items[i]->files[k].path, fn, arg);
        }
    }
}

size_t credentials_count(const struct credentials *c)
{
    return c->set->n;
}

void credentials_get_status(const struct credentials *c, size_t i, struct credential_status *ret)
{
    POSTERN_ASSERT(i < c->set->n);
    const struct source *s = c->set->items[i];
    *ret = (struct credential_status){
        .name = s->name,
        .is_trust = s->is_trust,
        .kind = !s->is_trust                       ? credential_kind_name(s->kind)
                : s->files[0].trust_domain != NULL ? "bundles"
                                                   : "ca",
        .in_force = s->own != NULL || s->peers != NULL,
        .own = s->own,
        .n_authorities = s->peers != NULL ? x509_peers_count(s->peers) : 0,
        .n_crls = s->peers != NULL ? x509_peers_crl_count(s->peers) : 0,
        .end_s = s->own != NULL     ? s->own->not_after_s
                 : s->peers != NULL ? x509_peers_crl_end_s(s->peers)
                                    : 0,
        .loaded_s = s->loaded_s,
        .n_loaded = s->n_loaded,
        .n_refused = s->n_refused,
        .refused = s->refused};
}
