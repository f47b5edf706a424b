/*
 * What is served, and what comes before all of it: the metadata that shows that the call was meant
 * for this API, on every method and before anything is done about identity
 * (SPIFFE_Workload_Endpoint.md section 5).
 */
#include "service_priv.h"

#include <postern/proto.h>

static enum service_metric metric_of(enum grpc_status status)
{
    switch (status) {
    case GRPC_OK:
        return SERVICE_METRIC_RPC_OK;
    case GRPC_CANCELLED:
        return SERVICE_METRIC_RPC_CANCELLED;
    case GRPC_INVALID_ARGUMENT:
        return SERVICE_METRIC_RPC_INVALID;
    case GRPC_PERMISSION_DENIED:
        return SERVICE_METRIC_RPC_DENIED;
    case GRPC_UNAVAILABLE:
        return SERVICE_METRIC_RPC_UNAVAILABLE;
    case GRPC_UNIMPLEMENTED:
        return SERVICE_METRIC_RPC_UNIMPLEMENTED;
    case GRPC_UNKNOWN:
    case GRPC_DEADLINE_EXCEEDED:
    case GRPC_NOT_FOUND:
    case GRPC_ALREADY_EXISTS:
    case GRPC_RESOURCE_EXHAUSTED:
    case GRPC_FAILED_PRECONDITION:
    case GRPC_ABORTED:
    case GRPC_OUT_OF_RANGE:
    case GRPC_INTERNAL:
    case GRPC_DATA_LOSS:
    case GRPC_UNAUTHENTICATED:
        break;
    }
    return SERVICE_METRIC_RPC_OTHER;
}

void service_finish(struct grpc_call *call, enum grpc_status status, const char *text)
{
    const struct service_caller *c = grpc_call_conn_context(call);
    service_count(c->s, metric_of(status));
    if (status == GRPC_PERMISSION_DENIED && log_enabled(c->s->log, LOG_INFO)) {
        struct log_line l;
        log_begin(&l, c->s->log, LOG_INFO, "denied");
        log_str(&l, "method", grpc_call_method(call)->path);
        log_str(&l, "reason", text);
        log_uint(&l, "uid", c->uid);
        log_uint(&l, "gid", c->gid);
        log_int(&l, "pid", c->pid);
        log_end(&l);
    }
    grpc_call_finish(call, status, text);
}

static bool check_metadata(struct grpc_call *call)
{
    struct str value;
    struct str key = STR_LIT(PROTO_WORKLOAD_KEY);
    if (grpc_call_metadata(call, key, 0, &value) && str_eq(value, STR_LIT(PROTO_WORKLOAD_VALUE)) &&
        !grpc_call_metadata(call, key, 1, &value)) {
        return true;
    }
    service_finish(call, GRPC_INVALID_ARGUMENT,
                   "security header missing: metadata " PROTO_WORKLOAD_KEY
                   " has to be there once, with the value " PROTO_WORKLOAD_VALUE);
    return false;
}

/* Charged here, discharged by whoever ends the call. */
static bool open_call(struct grpc_call *call, const struct service *s, bool needs_bundle)
{
    struct service_caller *c = grpc_call_conn_context(call);
    if (c->gone) {
        service_finish(call, GRPC_PERMISSION_DENIED,
                       "the process that opened this connection has ended");
        return false;
    }
    if (s->stopping || (needs_bundle && !s->have_bundle)) {
        service_finish(call, GRPC_UNAVAILABLE, "the agent is starting or ending: try again");
        return false;
    }
    if (grpc_conn_call_count(c->conn) > s->start.max_conn_calls || !service_caller_charge(c)) {
        service_finish(call, GRPC_UNAVAILABLE, "too many calls are open");
        return false;
    }
    return true;
}

static void on_open(struct grpc_call *call, void *arg)
{
    if (check_metadata(call)) {
        (void)open_call(call, arg, true);
    }
}

/* SDS: Envoy sends no metadata. Who may have what is the same. */
static void on_open_sds(struct grpc_call *call, void *arg)
{
    (void)open_call(call, arg, true);
}

/* What says nothing of any identity. */
static void on_open_public(struct grpc_call *call, void *arg)
{
    (void)open_call(call, arg, false);
}

static void on_open_delta(struct grpc_call *call, void *arg)
{
    (void)arg;
    service_finish(call, GRPC_UNIMPLEMENTED, "not served by this agent");
}

static void on_open_jwt(struct grpc_call *call, void *arg)
{
    const struct service *s = arg;
    if (check_metadata(call) && open_call(call, arg, true) && s->jwt.keys == NULL) {
        service_caller_discharge(grpc_call_conn_context(call));
        service_finish(call, GRPC_UNAVAILABLE, "there is no key for tokens yet: try again");
    }
}

static void on_open_unserved(struct grpc_call *call, void *arg)
{
    (void)arg;
    if (check_metadata(call)) {
        service_finish(call, GRPC_UNIMPLEMENTED, "not served by this agent");
    }
}

static void unserved(struct grpc_call *call, void *arg, struct str message)
{
    (void)arg;
    (void)message;
    service_finish(call, GRPC_UNIMPLEMENTED, "not served by this agent");
}

static void watch_drained(struct grpc_call *call, void *arg)
{
    (void)arg;
    service_watch_drained(call);
}

/* A call without data was charged and has not been asked yet. */
static void watch_cancel(struct grpc_call *call, void *arg)
{
    service_count(arg, SERVICE_METRIC_RPC_CANCELLED);
    if (grpc_call_data(call) != NULL) {
        service_watch_cancel(call);
    } else {
        service_caller_discharge(grpc_call_conn_context(call));
    }
}

/* As above, for a call whose answer is one message. */
static void unary_cancel(struct grpc_call *call, void *arg, void (*cancel)(struct grpc_call *call))
{
    service_count(arg, SERVICE_METRIC_RPC_CANCELLED);
    if (grpc_call_data(call) != NULL) {
        cancel(call);
    } else {
        service_caller_discharge(grpc_call_conn_context(call));
    }
}

static void unserved_end(struct grpc_call *call, void *arg)
{
    unserved(call, arg, STR_NONE);
}

static void public_cancel(struct grpc_call *call, void *arg)
{
    service_count(arg, SERVICE_METRIC_RPC_CANCELLED);
    service_caller_discharge(grpc_call_conn_context(call));
}

static void health_cancel(struct grpc_call *call, void *arg)
{
    if (grpc_call_data(call) == NULL) {
        public_cancel(call, arg);
    } else {
        service_count(arg, SERVICE_METRIC_RPC_CANCELLED);
        service_health_cancel(call);
    }
}

static void sign_cancel(struct grpc_call *call, void *arg)
{
    unary_cancel(call, arg, service_sign_cancel);
}

static void jwt_svid_cancel(struct grpc_call *call, void *arg)
{
    unary_cancel(call, arg, service_jwt_svid_cancel);
}

static void jwt_validate_cancel(struct grpc_call *call, void *arg)
{
    unary_cancel(call, arg, service_jwt_validate_cancel);
}

static void tainted_cancel(struct grpc_call *call, void *arg)
{
    service_count(arg, SERVICE_METRIC_RPC_CANCELLED);
    if (grpc_call_data(call) != NULL) {
        service_tainted_cancel(call);
    } else {
        service_caller_discharge(grpc_call_conn_context(call));
    }
}

#define UNSERVED(path, streaming) {path, streaming, on_open_unserved, unserved, NULL, NULL}
#define REFLECTION(service)                                                                        \
    {"/" service "/ServerReflectionInfo",                                                          \
     true,                                                                                         \
     on_open_public,                                                                               \
     service_reflect_request,                                                                      \
     NULL,                                                                                         \
     public_cancel,                                                                                \
     true,                                                                                         \
     service_reflect_end}
const struct grpc_method service_methods[] = {
    {PROTO_FETCH_X509_SVID, true, on_open, service_fetch_svids, watch_drained, watch_cancel},
    {PROTO_FETCH_X509_BUNDLES, true, on_open, service_fetch_bundles, watch_drained, watch_cancel},
    {PROTO_STATE_SUBSCRIBE, true, on_open, service_state_request, watch_drained, watch_cancel, true,
     service_state_request_end},
    {PROTO_SIGN_X509_SVID, false, on_open, service_sign_request, NULL, sign_cancel},
    {PROTO_FETCH_JWT_SVID, false, on_open_jwt, service_jwt_svid_request, NULL, jwt_svid_cancel},
    {PROTO_FETCH_JWT_BUNDLES, true, on_open_jwt, service_fetch_jwt_bundles, watch_drained,
     watch_cancel},
    {PROTO_VALIDATE_JWT_SVID, false, on_open_jwt, service_jwt_validate_request, NULL,
     jwt_validate_cancel},
    {PROTO_WATCH_TAINTED, true, on_open, service_tainted_start, service_tainted_drained,
     tainted_cancel},
    UNSERVED(PROTO_FETCH_WIT_SVID, true),
    UNSERVED(PROTO_FETCH_WIT_BUNDLES, true),
    {"/" PROTO_SDS "/StreamSecrets", true, on_open_sds, service_sds_stream_request, watch_drained,
     watch_cancel, true, service_sds_stream_end},
    {"/" PROTO_SDS "/FetchSecrets", false, on_open_sds, service_sds_fetch, NULL, watch_cancel},
    {"/" PROTO_SDS "/DeltaSecrets", true, on_open_delta, unserved, NULL, NULL, true, unserved_end},
    {"/" PROTO_HEALTH "/Check", false, on_open_public, service_health_check, NULL, public_cancel},
    {"/" PROTO_HEALTH "/List", false, on_open_public, service_health_list, NULL, public_cancel},
    {"/" PROTO_HEALTH "/Watch", true, on_open_public, service_health_watch, NULL, health_cancel},
    REFLECTION(PROTO_REFLECTION_V1),
    REFLECTION(PROTO_REFLECTION_V1ALPHA),
};
const size_t service_n_methods = sizeof(service_methods) / sizeof(service_methods[0]);

const char *const service_names[] = {
    "SpiffeWorkloadAPI", "postern.v1.Identity", "postern.v1.State",       PROTO_SDS,
    PROTO_HEALTH,        PROTO_REFLECTION_V1,   PROTO_REFLECTION_V1ALPHA, NULL};
