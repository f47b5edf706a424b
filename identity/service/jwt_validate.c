/*
 * ValidateJWTSVID: for workloads that would rather not judge tokens themselves. Whatever is wrong
 * with one is InvalidArgument with one text (SPIFFE_Workload_API.md section 6.2.3). The caller
 * needs an identity, as for everything here.
 */
#include "service_priv.h"

#include <postern/jwt.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <stdio.h>
#include <stdlib.h>

struct validation {
    struct grpc_call *call;
    struct service *s;
    struct service_caller *caller;
    struct service_job *job; /* owned */
    char *audience, *token;  /* owned */
};

static void validation_free(struct validation *v)
{
    (void)service_job_free(v->job);
    if (v->token != NULL) {
        mem_wipe(v->token, strlen(v->token));
    }
    free(v->token);
    free(v->audience);
    service_caller_discharge(v->caller);
    free(v);
}

static void finish(struct validation *v, enum grpc_status status, const char *text)
{
    struct grpc_call *call = v->call;
    validation_free(v);
    service_finish(call, status, text);
}

/* ValidateJWTSVIDResponse{1 spiffe_id, 2 claims}. */
static enum grpc_send answer(struct grpc_call *call, const struct jwt_token *token)
{
    struct buf out = BUF_INIT(1 << 20);
    uint8_t *claims = NULL;
    size_t n = 0;
    enum grpc_send sent = GRPC_FULL;
    if (jwt_claims_pack(token, &claims, &n, NULL) == 0 &&
        service_wire_put(&out, 1, str_of(token->spiffe_id)) &&
        service_wire_put(&out, 2, (struct str){(const char *)claims, n})) {
        sent = grpc_call_send(call, buf_head(&out), buf_len(&out));
    }
    free(claims);
    buf_reset(&out);
    return sent;
}

static void judge(struct validation *v)
{
    const struct jwt_bundle bundle = {{v->s->start.trust_domain, v->s->start.trust_domain_len},
                                      v->s->jwt.keys};
    struct jwt_token *token = NULL;
    struct err err = ERR_INIT;
    if (jwt_verify(str_of(v->token), &bundle, 1, str_of(v->audience), os_wall_s(), &token, &err) ==
        -1) {
        char text[700], why[600];
        (void)snprintf(text, sizeof(text), "svid: %s", err_text(&err, why, sizeof(why)));
        finish(v, GRPC_INVALID_ARGUMENT, text);
        return;
    }
    if (service_deny_has_id(&v->s->deny, token->spiffe_id)) {
        token = jwt_token_free(token);
        finish(v, GRPC_INVALID_ARGUMENT, "svid: its identity is quarantined on this node");
        return;
    }
    enum grpc_send sent = answer(v->call, token);
    token = jwt_token_free(token);
    if (sent == GRPC_SENT) {
        finish(v, GRPC_OK, NULL);
    } else {
        finish(v, GRPC_UNAVAILABLE, "the agent is busy: try again");
    }
}

static void on_listed(void *arg, struct service_job *job, enum grpc_status status, const char *text)
{
    struct validation *v = arg;
    v->job = job;
    if (status == GRPC_OK) {
        judge(v);
    } else {
        char copy[SERVICE_CHOOSE_TEXT]; /* the text may be the job's */
        (void)snprintf(copy, sizeof(copy), "%s", text);
        finish(v, status, copy);
    }
}

/* ValidateJWTSVIDRequest{1 audience, 2 svid}; NULL, or what is wrong with it. */
static const char *take_request(struct validation *v, struct str message,
                                enum grpc_status *ret_status)
{
    struct service_wire w = service_wire_of(message);
    struct str audience = STR_NONE, token = STR_NONE;
    while (service_wire_next(&w)) {
        if (w.field == 1 && w.is_bytes) {
            audience = w.bytes;
        } else if (w.field == 2 && w.is_bytes) {
            token = w.bytes;
        }
    }
    if (w.bad) {
        return "the request is not a ValidateJWTSVIDRequest";
    }
    if (audience.n == 0 || memchr(audience.p, 0, audience.n) != NULL) {
        return "audience is missing or no text";
    }
    if (token.n == 0 || token.n > JWT_TOKEN_MAX || memchr(token.p, 0, token.n) != NULL) {
        return "svid is missing, too long or no text";
    }
    if (!grpc_call_hold(v->call, sizeof(*v) + audience.n + token.n)) {
        *ret_status = GRPC_UNAVAILABLE;
        return SERVICE_NO_ROOM;
    }
    v->audience = mem_must_strndup(audience.p, audience.n);
    v->token = mem_must_strndup(token.p, token.n);
    return NULL;
}

void service_jwt_validate_request(struct grpc_call *call, void *arg, struct str message)
{
    struct validation *v = mem_must_new(struct validation);
    v->call = call;
    v->s = arg;
    v->caller = grpc_call_conn_context(call);
    grpc_call_set_data(call, v);
    enum grpc_status status = GRPC_INVALID_ARGUMENT;
    const char *wrong = take_request(v, message, &status);
    if (wrong != NULL) {
        finish(v, status, wrong);
    } else {
        v->job = service_job_new(v->caller, false, service_choose_none, NULL, on_listed, v);
    }
}

void service_jwt_validate_cancel(struct grpc_call *call)
{
    validation_free(grpc_call_data(call));
}
