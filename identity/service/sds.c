/*
 * Envoy's secret discovery service, v3 and state of the world (docs/sds.md): the same identities
 * and bundles as the Workload API's, as PEM, under the names that Envoy's configuration gives.
 *
 * A stream is a watch whose caller may say at any time what else it wants. The order of things is
 * xDS's: a request whose nonce is not that of our last answer is stale; the same names once more
 * acknowledge or reject and are not answered; other names are.
 */
#include "sds_priv.h"

#include <postern/mem.h>
#include <postern/spiffe.h>
#include <stdio.h>
#include <stdlib.h>

enum { REJECTIONS_LOGGED = 5 /* of one stream */ };

/* --- names ------------------------------------------------------------------------------------ */

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static size_t find(const struct sds *d, const char *name)
{
    char *const key = (char *)(uintptr_t)name;
    char **at = d->n_names > 0 ? bsearch(&key, d->names, d->n_names, sizeof(key), by_text) : NULL;
    return at != NULL ? (size_t)(at - d->names) : SIZE_MAX;
}

bool service_sds_wants(const struct sds *d, const char *name)
{
    return find(d, name) != SIZE_MAX;
}

static void clear_names(struct sds *d)
{
    for (size_t i = 0; d->names != NULL && i < d->n_names; i++) {
        free(d->names[i]);
    }
    free(d->names);
    free(d->met);
    d->names = NULL;
    d->met = NULL;
    d->n_names = 0;
}

/* True if they are others than before. */
static bool take_names(struct sds *d, const Sds__DiscoveryRequest *r)
{
    struct sds next = {.n_names = 0};
    next.names = mem_must_calloc(r->n_resource_names + 1, sizeof(*next.names));
    for (size_t i = 0; i < r->n_resource_names; i++) {
        if (r->resource_names[i][0] != '\0') {
            next.names[next.n_names++] = mem_must_strdup(r->resource_names[i]);
        }
    }
    qsort(next.names, next.n_names, sizeof(*next.names), by_text);
    size_t kept = 0;
    for (size_t i = 0; i < next.n_names; i++) {
        if (kept > 0 && strcmp(next.names[kept - 1], next.names[i]) == 0) {
            free(next.names[i]);
        } else {
            next.names[kept++] = next.names[i];
        }
    }
    next.n_names = kept;
    bool same = d->names != NULL && d->n_names == next.n_names;
    for (size_t i = 0; same && i < kept; i++) {
        same = strcmp(d->names[i], next.names[i]) == 0;
    }
    if (same) {
        clear_names(&next);
        return false;
    }
    clear_names(d);
    d->names = next.names;
    d->n_names = kept;
    d->met = mem_must_calloc(kept + 1, sizeof(*d->met));
    return true;
}

static void meet(struct sds *d, const char *name)
{
    size_t at = find(d, name);
    if (at != SIZE_MAX) {
        d->met[at] = true;
    }
}

/* Certificates for the identities that were named; a name that is nobody's is refused. */
static bool choose(void *data, struct service_job *job, char *ret_text, size_t size)
{
    struct sds *d = data;
    memset(d->met, 0, d->n_names * sizeof(*d->met));
    meet(d, "ROOTCA");
    meet(d, job->s->own_domain_id);
    meet(d, "default");
    if (d->spiffe_validator) {
        meet(d, "ALL");
    }
    for (uint32_t i = 0; i < job->n; i++) {
        struct service_identity *id = &job->list[i];
        id->wanted = d->n_names == 0 || service_sds_wants(d, id->spiffe_id) ||
                     (i == 0 && service_sds_wants(d, "default"));
        meet(d, id->spiffe_id);
    }
    for (size_t i = 0; i < d->n_names; i++) {
        if (!d->met[i]) {
            (void)snprintf(
                ret_text, size, "no secret of this caller is named '%.150s'%s", d->names[i],
                strcmp(d->names[i], "ALL") == 0 ? ": this Envoy does not take the SPIFFE validator"
                                                : "");
            return false;
        }
    }
    return true;
}

/* What a subscription holds while its names are these, reckoned from above: each is a text of its
 * own. */
static bool hold(struct grpc_call *call, const Sds__DiscoveryRequest *r)
{
    enum { NAME = 48 };
    size_t n = sizeof(struct sds);
    for (size_t i = 0; i < r->n_resource_names; i++) {
        n += strlen(r->resource_names[i]) + NAME;
    }
    return grpc_call_hold(call, n);
}

/* --- a subscription --------------------------------------------------------------------------- */

static void sds_free(void *data)
{
    struct sds *d = data;
    clear_names(d);
    free(d);
}

static enum grpc_send send_secrets(struct service_watch *w, struct service_job *job)
{
    return service_sds_send(w->stream.call, w->s, job, w->data);
}

static const struct service_watch_kind kind = {.choose = choose,
                                               .send = send_secrets,
                                               .free_data = sds_free,
                                               .metric = SERVICE_METRIC_SDS_PUSHES};

/* NULL if it cannot be taken, with the reason. */
static Sds__DiscoveryRequest *parse(struct str message, const char **ret_why)
{
    Sds__DiscoveryRequest *r =
        sds__discovery_request__unpack(NULL, message.n, (const uint8_t *)message.p);
    if (r == NULL) {
        *ret_why = "the request is not a DiscoveryRequest";
    } else if (r->type_url[0] != '\0' && strcmp(r->type_url, SDS_SECRET_TYPE) != 0) {
        *ret_why = "only secrets are served: type_url is another one";
    } else if (r->n_resource_names > SDS_NAMES_MAX) {
        *ret_why = "too many resource names";
    } else {
        return r;
    }
    sds__discovery_request__free_unpacked(r, NULL);
    return NULL;
}

static struct service_watch *begin(struct grpc_call *call, const Sds__DiscoveryRequest *r,
                                   bool streaming)
{
    struct sds *d = mem_must_new(struct sds);
    d->streaming = streaming;
    d->spiffe_validator = service_sds_takes_spiffe_validator(r->node);
    (void)take_names(d, r);
    return service_watch_start(call, &kind, d);
}

static void log_rejection(struct service_watch *w, const Sds__DiscoveryRequest *r)
{
    struct sds *d = w->data;
    struct log_line l;
    if (d->n_rejected++ >= REJECTIONS_LOGGED) {
        return;
    }
    log_begin(&l, w->s->log, LOG_WARN, "secrets_rejected");
    log_str(&l, "reason", r->error_detail->message);
    log_str(&l, "version", r->version_info);
    log_uint(&l, "sent_version", d->version);
    log_uint(&l, "uid", w->stream.caller->uid);
    log_int(&l, "pid", w->stream.caller->pid);
    log_end(&l);
}

static bool is_stale(const struct service_watch *w, const Sds__DiscoveryRequest *r)
{
    const struct sds *d = w->data;
    return d->nonce[0] != '\0' && strcmp(r->response_nonce, d->nonce) != 0;
}

static void follow(struct service_watch *w, const Sds__DiscoveryRequest *r)
{
    struct sds *d = w->data;
    if (r->error_detail != NULL) {
        log_rejection(w, r);
    }
    if (take_names(d, r)) {
        service_watch_again(w);
    }
}

/* --- methods ---------------------------------------------------------------------------------- */

static void refuse(struct grpc_call *call, enum grpc_status status, const char *why)
{
    struct service_watch *w = grpc_call_data(call);
    if (w != NULL) {
        service_watch_finish(w, status, why);
    } else {
        service_caller_discharge(grpc_call_conn_context(call));
        service_finish(call, status, why);
    }
}

void service_sds_stream_request(struct grpc_call *call, void *arg, struct str message)
{
    (void)arg;
    struct service_watch *w = grpc_call_data(call);
    const char *why = NULL;
    Sds__DiscoveryRequest *r = parse(message, &why);
    if (r == NULL) {
        refuse(call, GRPC_INVALID_ARGUMENT, why);
        return;
    }
    if (w != NULL && is_stale(w, r)) {
        /* it speaks of an answer that is not our last one */
    } else if (!hold(call, r)) {
        refuse(call, GRPC_UNAVAILABLE, SERVICE_NO_ROOM);
    } else if (w != NULL) {
        follow(w, r);
    } else {
        (void)begin(call, r, true);
    }
    sds__discovery_request__free_unpacked(r, NULL);
}

/* The caller asks no more: what it asked for is still answered. */
void service_sds_stream_end(struct grpc_call *call, void *arg)
{
    (void)arg;
    struct service_watch *w = grpc_call_data(call);
    if (w != NULL) {
        service_watch_end_soon(w);
    } else {
        service_caller_discharge(grpc_call_conn_context(call));
        service_finish(call, GRPC_OK, NULL);
    }
}

void service_sds_fetch(struct grpc_call *call, void *arg, struct str message)
{
    (void)arg;
    const char *why = NULL;
    Sds__DiscoveryRequest *r = parse(message, &why);
    if (r == NULL) {
        refuse(call, GRPC_INVALID_ARGUMENT, why);
        return;
    }
    if (hold(call, r)) {
        service_watch_end_soon(begin(call, r, false));
    } else {
        refuse(call, GRPC_UNAVAILABLE, SERVICE_NO_ROOM);
    }
    sds__discovery_request__free_unpacked(r, NULL);
}
