/*
 * FetchJWTSVID: a token for each of the caller's identities, or for the one that it asks for. Who
 * the caller is and what it has comes by a job, as for everything; then the keeper is asked for one
 * token after the other, in the uid's turn.
 */
#include "service_priv.h"

#include <postern/jwt.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <postern/spiffe.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    TOKENS_MAX = 4 << 20, /* bytes of one answer: clients take no more */
    RESTARTS_MAX = 5,
};

struct jwt_call {
    struct grpc_call *call;
    struct service *s;
    struct service_caller *caller;
    struct service_job *job; /* owned: running, or done with its list; NULL: none */
    struct service_turn turn;
    struct loop_timer timer;
    struct service_ask *ask;
    char *wanted_id;                    /* owned; NULL: all */
    struct agent_msg_jwt_sign question; /* with the audiences; the rest for each identity */
    uint32_t at;                        /* the identity whose token is being signed */
    unsigned restarts;
    struct buf answer; /* JWTSVIDResponse, as far as it has come; holds tokens */
};

static void jwt_call_free(struct jwt_call *j)
{
    loop_timer_disarm(&j->timer);
    service_ask_forget(j->ask);
    service_turn_give(&j->turn);
    (void)service_job_free(j->job);
    buf_reset_secret(&j->answer);
    free(j->wanted_id);
    service_caller_discharge(j->caller);
    free(j);
}

static void finish(struct jwt_call *j, enum grpc_status status, const char *text)
{
    struct grpc_call *call = j->call;
    jwt_call_free(j);
    service_finish(call, status, text);
}

static void list(struct jwt_call *j);

/* Itself, its list, and the answer so far. */
static bool hold(struct jwt_call *j)
{
    enum { IDENTITY = 256 /* what one is about, with its texts */ };
    size_t n = sizeof(*j) + buf_len(&j->answer);
    if (j->wanted_id != NULL) {
        n += strlen(j->wanted_id);
    }
    if (j->job != NULL) {
        n += (size_t)j->job->n * IDENTITY;
    }
    if (!grpc_call_hold(j->call, n)) {
        finish(j, GRPC_UNAVAILABLE, SERVICE_NO_ROOM);
        return false;
    }
    return true;
}

/* Entries or facts are others than a moment ago. */
static void begin_again(struct jwt_call *j)
{
    service_turn_give(&j->turn);
    buf_reset_secret(&j->answer);
    if (++j->restarts > RESTARTS_MAX) {
        finish(j, GRPC_UNAVAILABLE, "entries keep changing: try again");
        return;
    }
    list(j);
}

/* --- one token -------------------------------------------------------------------------------- */

static bool hint_was_used(const struct service_job *job, uint32_t before, const char *hint)
{
    for (uint32_t i = 0; i < before; i++) {
        if (job->list[i].hint != NULL && strcmp(job->list[i].hint, hint) == 0) {
            return true;
        }
    }
    return false;
}

static bool is_wanted(const struct jwt_call *j, uint32_t i)
{
    return j->wanted_id == NULL || strcmp(j->job->list[i].spiffe_id, j->wanted_id) == 0;
}

/* JWTSVID{1 spiffe_id, 2 svid, 3 hint} into JWTSVIDResponse{1 repeated svids}. */
static bool add_token(struct jwt_call *j, struct str token)
{
    const struct service_identity *id = &j->job->list[j->at];
    struct buf one = BUF_INIT(JWT_TOKEN_MAX + AGENT_ID_MAX + AGENT_HINT_MAX + 64);
    bool hint = id->hint != NULL && !hint_was_used(j->job, j->at, id->hint);
    bool ok = service_wire_put(&one, 1, str_of(id->spiffe_id)) &&
              service_wire_put(&one, 2, token) &&
              (!hint || service_wire_put(&one, 3, str_of(id->hint))) &&
              service_wire_put(&j->answer, 1, buf_str(&one));
    buf_reset_secret(&one);
    return ok;
}

static void refused(struct jwt_call *j, enum agent_outcome outcome)
{
    switch (outcome) {
    case AGENT_STALE_FACTS:
    case AGENT_STALE_GENERATION:
    case AGENT_PENDING: /* the job that lists again waits for it */
        begin_again(j);
        return;
    case AGENT_NO_HANDLE:
    case AGENT_NOT_ENTITLED:
    case AGENT_QUARANTINED:
        finish(j, GRPC_PERMISSION_DENIED, "no identity issued");
        return;
    case AGENT_BAD_AUDIENCE:
        finish(j, GRPC_INVALID_ARGUMENT, "an audience is empty, too long or no text");
        return;
    case AGENT_LIMITED:
        finish(j, GRPC_UNAVAILABLE, "too many tokens were asked for: try again later");
        return;
    case AGENT_OK:
    case AGENT_BAD_KEY:
    case AGENT_UNAVAILABLE:
    case AGENT_N_OUTCOMES:
        break;
    }
    finish(j, GRPC_UNAVAILABLE, "the agent cannot issue now: try again");
}

static void sign_next(struct jwt_call *j);

static void on_signed(void *arg, const union agent_msg *answer)
{
    struct jwt_call *j = arg;
    const struct agent_msg_jwt_signed *a = &answer->jwt_signed;
    j->ask = NULL;
    service_count(j->s, a->outcome == AGENT_OK ? SERVICE_METRIC_JWT_ISSUED
                                               : SERVICE_METRIC_ISSUE_REFUSED);
    if (a->outcome != AGENT_OK) {
        refused(j, (enum agent_outcome)a->outcome);
    } else if (a->handle != j->caller->handle || a->token_len == 0) {
        finish(j, GRPC_UNAVAILABLE, "the agent cannot issue now: try again");
    } else if (!add_token(j, (struct str){(const char *)a->token, a->token_len})) {
        finish(j, GRPC_UNAVAILABLE, "too many tokens for one answer: ask for one spiffe_id");
    } else {
        j->s->last_issued_s = os_wall_s();
        j->at++;
        if (hold(j)) {
            sign_next(j);
        }
    }
}

static void sign_next(struct jwt_call *j)
{
    while (j->at < j->job->n && !is_wanted(j, j->at)) {
        j->at++;
    }
    if (j->at < j->job->n) {
        j->question.handle = j->caller->handle;
        j->question.generation = j->job->generation;
        j->question.entry = j->job->list[j->at].entry;
        j->question.head.request_id = 0;
        j->ask =
            service_channel_ask(&j->s->keeper, &j->question, AGENT_MSG_JWT_SIGNED, on_signed, j);
        loop_timer_arm(&j->timer, SERVICE_JOB_TIMEOUT_MS);
        return;
    }
    bool less = grpc_call_hold(j->call, sizeof(*j)); /* the queue is charged for its copy */
    POSTERN_ASSERT(less);
    if (grpc_call_send(j->call, buf_head(&j->answer), buf_len(&j->answer)) == GRPC_SENT) {
        finish(j, GRPC_OK, NULL);
    } else {
        finish(j, GRPC_UNAVAILABLE, "the agent is busy: try again");
    }
}

static void on_turn(struct service_turn *t)
{
    struct jwt_call *j = (struct jwt_call *)((char *)t - offsetof(struct jwt_call, turn));
    j->at = 0;
    sign_next(j);
}

static void on_timeout(void *arg)
{
    finish(arg, GRPC_UNAVAILABLE, "the agent is busy: try again");
}

/* --- who it is, and what it has --------------------------------------------------------------- */

static void on_listed(void *arg, struct service_job *job, enum grpc_status status, const char *text)
{
    struct jwt_call *j = arg;
    bool any = false;
    j->job = job;
    if (status != GRPC_OK) {
        char copy[SERVICE_CHOOSE_TEXT]; /* the text may be the job's */
        (void)snprintf(copy, sizeof(copy), "%s", text);
        finish(j, status, copy);
        return;
    }
    for (uint32_t i = 0; i < job->n; i++) {
        any = any || is_wanted(j, i);
    }
    if (!any) {
        finish(j, GRPC_PERMISSION_DENIED, "this identity is not the caller's");
        return;
    }
    if (!hold(j)) {
        return;
    }
    loop_timer_arm(&j->timer, SERVICE_WAIT_MS);
    service_turn_take(&j->turn, j->caller->account, on_turn);
}

static void list(struct jwt_call *j)
{
    loop_timer_disarm(&j->timer); /* a job has its own */
    j->job = service_job_free(j->job);
    j->job = service_job_new(j->caller, false, NULL, NULL, on_listed, j);
}

/* --- the request ------------------------------------------------------------------------------ */

static bool add_audience(struct agent_msg_jwt_sign *q, struct str audience)
{
    if (q->n_audiences == AGENT_AUDIENCES_MAX || !jwt_audience_ok(audience) ||
        audience.n > AGENT_AUDIENCES_BYTES - q->audiences_len) {
        return false;
    }
    memcpy(q->audiences + q->audiences_len, audience.p, audience.n);
    q->audiences_len += (uint32_t)audience.n;
    q->lens[q->n_audiences++] = (uint16_t)audience.n;
    return true;
}

/* JWTSVIDRequest{1 repeated audience, 2 spiffe_id}; NULL, or what is wrong with it. */
static const char *take_request(struct jwt_call *j, struct str message, char *text, size_t size)
{
    struct service_wire w = service_wire_of(message);
    struct str wanted = STR_NONE;
    struct spiffe_id id;
    struct err err = ERR_INIT;
    while (service_wire_next(&w)) {
        if (w.field == 1 && w.is_bytes && !add_audience(&j->question, w.bytes)) {
            (void)snprintf(text, size,
                           "audience: each is text of 1 to %d bytes without control characters, at "
                           "most %d of them and %d bytes in all",
                           JWT_AUDIENCE_MAX, AGENT_AUDIENCES_MAX, AGENT_AUDIENCES_BYTES);
            return text;
        }
        if (w.field == 2 && w.is_bytes) {
            wanted = w.bytes;
        }
    }
    if (w.bad) {
        return "the request is not a JWTSVIDRequest";
    }
    if (j->question.n_audiences == 0) {
        return "audience is missing: a token is for somebody";
    }
    if (wanted.n > 0 && spiffe_id_parse(wanted, &id, &err) == -1) {
        char why[500];
        (void)snprintf(text, size, "spiffe_id: %s", err_text(&err, why, sizeof(why)));
        return text;
    }
    j->wanted_id = wanted.n > 0 ? mem_must_strndup(wanted.p, wanted.n) : NULL;
    return NULL;
}

void service_jwt_svid_request(struct grpc_call *call, void *arg, struct str message)
{
    struct jwt_call *j = mem_must_new(struct jwt_call);
    char text[600];
    j->call = call;
    j->s = arg;
    j->caller = grpc_call_conn_context(call);
    j->answer.max = TOKENS_MAX;
    loop_timer_init(&j->timer, j->s->loop, on_timeout, j);
    agent_ipc_init(&j->question, AGENT_MSG_JWT_SIGN, 0);
    grpc_call_set_data(call, j);
    const char *wrong = take_request(j, message, text, sizeof(text));
    if (wrong != NULL) {
        finish(j, GRPC_INVALID_ARGUMENT, wrong);
    } else if (hold(j)) {
        list(j);
    }
}

void service_jwt_svid_cancel(struct grpc_call *call)
{
    jwt_call_free(grpc_call_data(call));
}
