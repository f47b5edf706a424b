/*
 * A gateway's credentials and trusts: from its file to their sources, from what is in force to the
 * parties that the workers go by, and what is told about them. A sidecar has none of this.
 */
#include "proxy_priv.h"

#include <jansson.h>
#include <postern/mem.h>
#include <postern/metrics.h>
#include <postern/os.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- from the file ---------------------------------------------------------------------------- */
/* What a specification's texts lie in, for the call that takes it. */
struct spec_room {
    struct credentials_spec spec;
    struct credential_spec *own;
    struct credential_trust *trust;
    struct credential_bundle **bundles;
    char **paths; /* owned: of systemd credentials */
    size_t n_own, n_trust;
};

static void spec_free(struct spec_room *r)
{
    for (size_t i = 0; i < r->n_trust; i++) {
        free(r->bundles[i]);
    }
    for (size_t i = 0; i < r->n_own; i++) {
        free(r->paths[i]);
    }
    free(r->paths);
    free(r->bundles);
    free(r->own);
    free(r->trust);
}

/* systemd.exec(5), "Credentials". */
static int systemd_path(const char *name, char **ret, struct err *err)
{
    const char *dir = secure_getenv("CREDENTIALS_DIRECTORY");
    if (dir == NULL || dir[0] != '/') {
        err_set(err, ERR_CONFIG, "there is no credential '%s': CREDENTIALS_DIRECTORY is not set",
                name);
        return err_advise(err, "give the unit LoadCredential= or LoadCredentialEncrypted= with "
                               "this name, or use passphrase_file");
    }
    *ret = mem_must_printf("%s/%s", dir, name);
    return 0;
}

static int fill_own(struct proxy *p, const struct conf_credential *c, char **path,
                    struct credential_spec *ret, struct err *err)
{
    static const enum credential_kind kinds[] = {[CONF_CREDENTIAL_PEM] = CREDENTIAL_PEM,
                                                 [CONF_CREDENTIAL_PKCS12] = CREDENTIAL_PKCS12,
                                                 [CONF_CREDENTIAL_PKCS11] = CREDENTIAL_TOKEN,
                                                 [CONF_CREDENTIAL_WORKLOAD_API] =
                                                     CREDENTIAL_WORKLOAD_API};
    static const enum identity_key_mode modes[] = {[CONF_KEY_AUTO] = IDENTITY_KEY_AUTO,
                                                   [CONF_KEY_CSR] = IDENTITY_KEY_CSR,
                                                   [CONF_KEY_AGENT] = IDENTITY_KEY_AGENT};
    if (c->passphrase_credential != NULL &&
        systemd_path(c->passphrase_credential, path, err) == -1) {
        return -1;
    }
    *ret = (struct credential_spec){.name = c->name,
                                    .kind = kinds[c->kind],
                                    .cert = c->cert,
                                    .key = c->key,
                                    .pkcs12 = c->pkcs12,
                                    .passphrase_file = *path != NULL ? *path : c->passphrase_file,
                                    .workload = {.socket = c->workload_api.socket,
                                                 .spiffe_id = c->workload_api.spiffe_id,
                                                 .key = modes[c->workload_api.key]}};
    return c->kind == CONF_CREDENTIAL_PKCS11 ? proxy_token_away(p, c, &ret->away, err) : 0;
}

static void fill_trust(const struct conf_trust *t, struct credential_bundle **bundles,
                       struct credential_trust *ret)
{
    *bundles = (struct credential_bundle *)mem_must_calloc(t->n_bundles + 1, sizeof(**bundles));
    for (size_t i = 0; i < t->n_bundles; i++) {
        (*bundles)[i] = (struct credential_bundle){.trust_domain = t->bundles[i].trust_domain,
                                                   .path = t->bundles[i].path};
    }
    *ret = (struct credential_trust){.name = t->name,
                                     .ca = t->ca,
                                     .crl = t->crl,
                                     .bundles = *bundles,
                                     .n_bundles = t->n_bundles};
}

static int spec_fill(struct proxy *p, const struct conf_proxy *conf, struct spec_room *r,
                     struct err *err)
{
    *r = (struct spec_room){.n_own = conf->n_credentials, .n_trust = conf->n_trust};
    r->own = (struct credential_spec *)mem_must_calloc(r->n_own + 1, sizeof(*r->own));
    r->paths = (char **)mem_must_calloc(r->n_own + 1, sizeof(*r->paths));
    r->trust = (struct credential_trust *)mem_must_calloc(r->n_trust + 1, sizeof(*r->trust));
    r->bundles = (struct credential_bundle **)mem_must_calloc(r->n_trust + 1, sizeof(*r->bundles));
    for (size_t i = 0; i < r->n_own; i++) {
        const struct conf_credential *c = &conf->credentials[i];
        if (fill_own(p, c, &r->paths[i], &r->own[i], err) == -1) {
            return err_prefix(err, "credential '%s'", c->name);
        }
    }
    for (size_t i = 0; i < r->n_trust; i++) {
        fill_trust(&conf->trust[i], &r->bundles[i], &r->trust[i]);
    }
    r->spec = (struct credentials_spec){
        .own = r->own, .n_own = r->n_own, .trust = r->trust, .n_trust = r->n_trust};
    return 0;
}

/* --- parties ---------------------------------------------------------------------------------- */
struct material {
    const struct credentials *credentials;
    const struct credentials_set *set;
};

static const struct x509_svid *own_of(void *arg, const char *name)
{
    const struct material *m = (const struct material *)arg;
    return credentials_own(m->credentials, m->set, name);
}

static const struct x509_peers *peers_of(void *arg, const char *name)
{
    const struct material *m = (const struct material *)arg;
    return credentials_peers(m->credentials, m->set, name);
}

/* state: of `identity`; NULL: none. */
static int make_parties(const struct proxy *p, const struct snapshot_files *files,
                        const struct credentials_set *set, const struct identity_state *state,
                        struct snapshot_parties **ret, struct err *err)
{
    struct material m = {.credentials = p->credentials, .set = set};
    const struct snapshot_material from = {.own = own_of,
                                           .peers = peers_of,
                                           .arg = &m,
                                           .identity = state != NULL ? state->svid : NULL,
                                           .identity_trust = state != NULL ? state->trust : NULL};
    return snapshot_parties_new(files, &from, ret, err);
}

static const struct identity_state *state_now(const struct proxy *p)
{
    return p->client != NULL ? identity_client_state(p->client) : NULL;
}

int proxy_parties_renew(struct proxy *p, const struct identity_state *state, struct err *err)
{
    struct snapshot_parties *next = NULL;
    if (p->credentials == NULL) {
        return 0;
    }
    if (make_parties(p, p->files, NULL, state, &next, err) == -1) {
        return -1;
    }
    snapshot_parties_unref(p->parties);
    p->parties = next;
    return 0;
}

/* --- what the sources say --------------------------------------------------------------------- */
static void on_change(void *arg)
{
    struct proxy *p = (struct proxy *)arg;
    struct err err = ERR_INIT;
    if (proxy_parties_renew(p, state_now(p), &err) == -1) {
        log_failure(p->log, LOG_ERROR, "credential_unusable", &err);
        return; /* what the workers have stays */
    }
    proxy_publish(p);
}

static const char *event_of(bool is_trust, enum credential_notice notice)
{
    switch (notice) {
    case CREDENTIAL_LOADED:
        return is_trust ? "trust_loaded" : "credential_loaded";
    case CREDENTIAL_REFUSED:
        return is_trust ? "trust_refused" : "credential_refused";
    case CREDENTIAL_OPEN:
        return "credential_open";
    case CREDENTIAL_EXPIRES:
        return "credential_expires";
    case CREDENTIAL_EXPIRED:
        return "credential_expired";
    case CREDENTIAL_LOST:
        break;
    }
    return "credential_lost";
}

static void on_notice(void *arg, bool is_trust, const char *name, enum credential_notice notice,
                      const struct err *why)
{
    struct proxy *p = (struct proxy *)arg;
    const struct x509_svid *own =
        is_trust || p->credentials == NULL ? NULL : credentials_own(p->credentials, NULL, name);
    struct log_line l;
    log_begin(&l, p->log,
              notice == CREDENTIAL_LOADED                                 ? LOG_INFO
              : notice == CREDENTIAL_OPEN || notice == CREDENTIAL_EXPIRES ? LOG_WARN
                                                                          : LOG_ERROR,
              event_of(is_trust, notice));
    log_str(&l, is_trust ? "trust" : "credential", name);
    if (notice == CREDENTIAL_LOADED && own != NULL) {
        char text[32];
        os_time_text(own->not_after_s, text, sizeof(text));
        log_str(&l, "serial", own->serial);
        log_str(&l, "not_after", text);
    }
    if (why != NULL && why->code != ERR_NONE) {
        log_errinfo(&l, why);
    }
    log_end(&l);
}

/* --- start, reload ---------------------------------------------------------------------------- */
int proxy_credentials_start(struct proxy *p, struct err *err)
{
    static const struct credentials_events events = {.on_change = on_change,
                                                     .on_notice = on_notice};
    struct proxy_credentials_change change = {.set = NULL};
    if (!p->files->conf->gateway) {
        return 0;
    }
    p->credentials = credentials_new(p->loop, &events, p);
    if (proxy_credentials_prepare(p, p->files, &change, err) == -1) {
        return -1;
    }
    proxy_credentials_commit(p, &change);
    return 0;
}

int proxy_credentials_prepare(struct proxy *p, const struct snapshot_files *next,
                              struct proxy_credentials_change *ret, struct err *err)
{
    struct spec_room room;
    struct proxy_credentials_change change = {.set = NULL};
    if (p->credentials == NULL) {
        *ret = change;
        return 0;
    }
    int r = spec_fill(p, next->conf, &room, err);
    if (r == 0) {
        r = credentials_prepare(p->credentials, &room.spec, &change.set, err);
    }
    spec_free(&room);
    if (r == 0 && make_parties(p, next, change.set, state_now(p), &change.parties, err) == -1) {
        credentials_abandon(p->credentials, change.set);
        r = -1;
    }
    if (r == 0) {
        *ret = change;
    }
    return r;
}

void proxy_credentials_commit(struct proxy *p, struct proxy_credentials_change *change)
{
    if (change->set != NULL) {
        credentials_commit(p->credentials, change->set);
        snapshot_parties_unref(p->parties);
        p->parties = change->parties;
        *change = (struct proxy_credentials_change){.set = NULL};
    }
}

void proxy_credentials_stop(struct proxy *p)
{
    p->credentials = credentials_free(p->credentials);
    p->parties = snapshot_parties_unref(p->parties);
}

/* --- what is told ----------------------------------------------------------------------------- */
static json_t *one(const struct credential_status *st)
{
    char text[600] = "";
    json_t *o = json_object();
    json_object_set_new(o, "name", json_string(st->name));
    json_object_set_new(o, "kind", json_string(st->kind));
    json_object_set_new(o, "in_force", json_boolean(st->in_force));
    json_object_set_new(o, "loaded_at", report_time_or_null(st->loaded_s));
    if (st->is_trust) {
        json_object_set_new(o, "authorities", json_integer((json_int_t)st->n_authorities));
        json_object_set_new(o, "revocation_lists", json_integer((json_int_t)st->n_crls));
        json_object_set_new(o, "next_update", report_time_or_null(st->end_s));
    } else {
        bool has = st->own != NULL;
        if (has) {
            (void)x509_cert_show_names(st->own->leaf, text, sizeof(text));
        }
        json_object_set_new(o, "names",
                            has ? json_stringn_nocheck(text, strlen(text)) : json_null());
        json_object_set_new(o, "serial", has ? json_string(st->own->serial) : json_null());
        json_object_set_new(o, "not_after", report_time_or_null(st->end_s));
        json_object_set_new(o, "expires_in_s",
                            has ? json_integer(st->end_s - os_wall_s()) : json_null());
    }
    if (st->refused.code != ERR_NONE) {
        err_text(&st->refused, text, sizeof(text));
        json_object_set_new(o, "refused", json_string(text));
    } else {
        json_object_set_new(o, "refused", json_null());
    }
    return o;
}

json_t *proxy_credentials_report(const struct proxy *p, bool trust)
{
    json_t *a = json_array();
    for (size_t i = 0; p->credentials != NULL && i < credentials_count(p->credentials); i++) {
        struct credential_status st;
        credentials_get_status(p->credentials, i, &st);
        if (st.is_trust == trust) {
            json_array_append_new(a, one(&st));
        }
    }
    return a;
}

void proxy_credentials_metrics(const struct proxy *p, struct buf *out)
{
    static const struct {
        const char *name, *help;
        enum metric_type type;
        bool trust;
    } families[] = {
        {"postern_credential_expiry_seconds",
         "When an own certificate's chain ends, seconds since the epoch; 0: there is none.",
         METRIC_GAUGE, false},
        {"postern_credential_refused", "Newer ones that were not taken.", METRIC_COUNTER, false},
        {"postern_trust_next_update_seconds",
         "When the earliest revocation list ends, seconds since the epoch; 0: there are none.",
         METRIC_GAUGE, true},
        {"postern_trust_refused", "Newer ones that were not taken.", METRIC_COUNTER, true},
    };
    for (size_t f = 0; f < sizeof(families) / sizeof(families[0]); f++) {
        bool first = true;
        for (size_t i = 0; p->credentials != NULL && i < credentials_count(p->credentials); i++) {
            struct credential_status st;
            char labels[160];
            credentials_get_status(p->credentials, i, &st);
            if (st.is_trust != families[f].trust) {
                continue;
            }
            snprintf(labels, sizeof(labels), "%s=\"%.120s\"", st.is_trust ? "trust" : "credential",
                     st.name);
            (void)metrics_write_value(
                out, families[f].name, families[f].type, first ? families[f].help : NULL, labels,
                families[f].type == METRIC_GAUGE ? (double)st.end_s : (double)st.n_refused);
            first = false;
        }
    }
}
