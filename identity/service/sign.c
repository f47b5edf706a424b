/* postern.v1.Identity/SignX509SVID: a certificate for a key that stays with its process. */
#include "service_priv.h"

#include <postern/mem.h>
#include <postern/proto.h>
#include <postern/spiffe.h>
#include <stdlib.h>

struct sign {
    struct grpc_call *call;
    struct service_caller *caller;
    struct service_job *job; /* owned */
};

static void sign_free(struct sign *g)
{
    (void)service_job_free(g->job);
    service_caller_discharge(g->caller);
    free(g);
}

static enum grpc_send answer(struct grpc_call *call, const struct service_identity *id)
{
    Postern__V1__SignX509SVIDResponse r;
    postern__v1__sign_x509_svidresponse__init(&r);
    r.spiffe_id = id->spiffe_id;
    r.x509_svid = (ProtobufCBinaryData){id->n_chain, id->chain};
    if (id->hint != NULL) {
        r.hint = id->hint;
    }
    r.not_after = id->not_after_s;
    size_t n = postern__v1__sign_x509_svidresponse__get_packed_size(&r);
    mem_autofree uint8_t *packed = mem_must_calloc(1, n);
    (void)postern__v1__sign_x509_svidresponse__pack(&r, packed);
    return grpc_call_send(call, packed, n);
}

static void on_job(void *arg, struct service_job *job, enum grpc_status status, const char *text)
{
    struct sign *g = arg;
    struct grpc_call *call = g->call;
    if (status == GRPC_OK && answer(call, &job->list[job->at]) != GRPC_SENT) {
        status = GRPC_UNAVAILABLE;
        text = "the agent is busy: try again";
    }
    if (status == GRPC_OK) {
        service_count(job->s, SERVICE_METRIC_SIGNED);
    }
    service_finish(call, status, text);
    sign_free(g);
}

/* 0, or -1 with the text for the caller. */
static int check(const Postern__V1__SignX509SVIDRequest *r, uint8_t ret_point[AGENT_POINT_SIZE],
                 char *ret_text, size_t size)
{
    struct err err = ERR_INIT;
    struct spiffe_id id;
    if (r->spiffe_id[0] != '\0' && spiffe_id_parse(str_of(r->spiffe_id), &id, &err) == -1) {
        (void)err_prefix(&err, "spiffe_id");
    } else if (r->csr.len == 0) {
        (void)err_set(&err, ERR_PROTOCOL, "csr is missing");
    } else if (x509_csr_check((struct str){(const char *)r->csr.data, r->csr.len}, ret_point,
                              &err) == 0) {
        return 0;
    } else {
        (void)err_prefix(&err, "csr");
    }
    (void)err_text(&err, ret_text, size);
    return -1;
}

void service_sign_request(struct grpc_call *call, void *arg, struct str message)
{
    (void)arg;
    struct service_caller *caller = grpc_call_conn_context(call);
    uint8_t point[AGENT_POINT_SIZE];
    char text[600];
    Postern__V1__SignX509SVIDRequest *r =
        postern__v1__sign_x509_svidrequest__unpack(NULL, message.n, (const uint8_t *)message.p);
    if (r == NULL) {
        service_caller_discharge(caller);
        service_finish(call, GRPC_INVALID_ARGUMENT, "the request is not a SignX509SVIDRequest");
        return;
    }
    if (check(r, point, text, sizeof(text)) == -1) {
        service_caller_discharge(caller);
        service_finish(call, GRPC_INVALID_ARGUMENT, text);
    } else {
        struct sign *g = mem_must_new(struct sign);
        g->call = call;
        g->caller = caller;
        grpc_call_set_data(call, g);
        g->job = service_job_new_sign(caller, str_of(r->spiffe_id), point, on_job, g);
    }
    postern__v1__sign_x509_svidrequest__free_unpacked(r, NULL);
}

void service_sign_cancel(struct grpc_call *call)
{
    sign_free(grpc_call_data(call));
}
