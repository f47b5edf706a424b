/*
 * A job asks who the caller is now (attestor), which identities that gives (keeper, one at a time),
 * and has certificates issued for them, a few questions ahead of their answers. It begins when it
 * is its uid's turn, and again when entries or facts change under it, a bounded number of times.
 */
#include "service_priv.h"

#include <postern/mem.h>
#include <postern/os.h>
#include <postern/proto.h>
#include <stdlib.h>

enum { RESTARTS_MAX = 5, PENDING_RETRY_MS = 200 };

static void begin(struct service_turn *t);
static void attest(struct service_job *job);
static void list_begin(struct service_job *job);
static void issue_more(struct service_job *job);

static void identity_clear(struct service_identity *i)
{
    free(i->spiffe_id);
    free(i->hint);
    free(i->chain);
    *i = (struct service_identity){0};
}

static void list_clear(struct service_job *job)
{
    for (uint32_t i = 0; i < job->n; i++) {
        identity_clear(&job->list[i]);
    }
    service_secret_give(job->s, &job->keys);
    free(job->list);
    job->list = NULL;
    job->n = 0;
    job->total = 0;
    job->at = 0;
}

/* --- questions on their way: their answers come in order ---------------------------------------
 */

static void ask(struct service_job *job, struct service_channel *ch, void *msg,
                enum agent_msg_type answer_type, service_answer_fn fn)
{
    POSTERN_ASSERT(job->n_asks < SERVICE_JOB_ASKS);
    job->asks[(job->first_ask + job->n_asks++) % SERVICE_JOB_ASKS] =
        service_channel_ask(ch, msg, answer_type, fn, job);
}

static void answered(struct service_job *job)
{
    job->first_ask = (job->first_ask + 1) % SERVICE_JOB_ASKS;
    job->n_asks--;
    loop_timer_arm(&job->timer, SERVICE_JOB_TIMEOUT_MS);
}

static void forget_asks(struct service_job *job)
{
    for (; job->n_asks > 0; job->n_asks--) {
        service_ask_forget(job->asks[job->first_ask]);
        job->first_ask = (job->first_ask + 1) % SERVICE_JOB_ASKS;
    }
}

static void end(struct service_job *job, enum grpc_status status, const char *text)
{
    loop_timer_disarm(&job->timer);
    loop_timer_disarm(&job->pending);
    forget_asks(job);
    service_turn_give(&job->turn);
    service_trim_later(job->s);
    job->done(job->arg, job, status, text);
}

static void on_timeout(void *arg)
{
    end(arg, GRPC_UNAVAILABLE, "the agent is busy: try again");
}

/* The kubelet tells of a new container a moment after it runs. Only this job waits, and holds up no
 * other one of its uid; for how long, the keeper decides, and then answers by what it knows. */
static void wait_for_pods(struct service_job *job)
{
    forget_asks(job);
    list_clear(job);
    service_turn_give(&job->turn);
    loop_timer_arm(&job->timer, SERVICE_WAIT_MS);
    loop_timer_arm(&job->pending, PENDING_RETRY_MS);
}

static void on_pending(void *arg)
{
    struct service_job *job = arg;
    service_turn_take(&job->turn, job->account, begin);
}

static void begin_again(struct service_job *job, void (*step)(struct service_job *job))
{
    if (++job->restarts > RESTARTS_MAX) {
        end(job, GRPC_UNAVAILABLE, "entries keep changing: try again");
        return;
    }
    forget_asks(job);
    list_clear(job);
    step(job);
}

/* What the keeper's refusals mean to the caller (SPIFFE_Workload_Endpoint.md, error codes). */
static void refused(struct service_job *job, uint32_t outcome)
{
    switch ((enum agent_outcome)outcome) {
    case AGENT_STALE_FACTS:
        begin_again(job, attest);
        return;
    case AGENT_STALE_GENERATION:
        begin_again(job, list_begin);
        return;
    case AGENT_PENDING:
        wait_for_pods(job);
        return;
    case AGENT_NO_HANDLE:
    case AGENT_NOT_ENTITLED:
        end(job, GRPC_PERMISSION_DENIED, "no identity issued");
        return;
    case AGENT_QUARANTINED:
        end(job, GRPC_PERMISSION_DENIED, PROTO_QUARANTINED);
        return;
    case AGENT_BAD_AUDIENCE:
        end(job, GRPC_INVALID_ARGUMENT, "an audience is empty, too long or no text");
        return;
    case AGENT_BAD_KEY:
        end(job, GRPC_INVALID_ARGUMENT, "the key is not a point of P-256");
        return;
    case AGENT_LIMITED:
        end(job, GRPC_UNAVAILABLE, "too many certificates were asked for: try again later");
        return;
    case AGENT_OK:
    case AGENT_UNAVAILABLE:
    case AGENT_N_OUTCOMES:
        break;
    }
    end(job, GRPC_UNAVAILABLE, "the agent cannot issue now: try again");
}

/* --- issue ------------------------------------------------------------------------------------ */

static uint32_t next_wanted(const struct service_job *job, uint32_t from)
{
    while (from < job->n && !job->list[from].wanted) {
        from++;
    }
    return from;
}

static bool take_chain(struct service_identity *i, const struct agent_msg_issued *a)
{
    free(i->chain);
    i->n_chain = (size_t)a->leaf_len + a->chain_len;
    i->chain = malloc(i->n_chain);
    if (i->chain == NULL) {
        return false;
    }
    memcpy(i->chain, a->leaf, a->leaf_len);
    memcpy(i->chain + a->leaf_len, a->chain, a->chain_len);
    i->not_before_s = a->not_before_s;
    i->not_after_s = a->not_after_s;
    return true;
}

static void on_issued(void *arg, const union agent_msg *answer)
{
    struct service_job *job = arg;
    const struct agent_msg_issued *a = &answer->issued;
    answered(job);
    service_count(job->s,
                  a->outcome == AGENT_OK ? SERVICE_METRIC_ISSUED : SERVICE_METRIC_ISSUE_REFUSED);
    if (a->outcome != AGENT_OK) {
        refused(job, a->outcome);
    } else if (a->handle != job->handle || !take_chain(&job->list[job->at], a)) {
        end(job, GRPC_UNAVAILABLE, "the agent cannot issue now: try again");
    } else {
        job->s->last_issued_s = os_wall_s();
        job->at++;
        job->at = job->given_key ? job->at - 1 : next_wanted(job, job->at);
        if (job->given_key || job->at == job->n) {
            end(job, GRPC_OK, NULL);
        } else {
            issue_more(job);
        }
    }
}

/* False: the job has ended. */
static bool issue_one(struct service_job *job)
{
    struct service_identity *i = &job->list[job->asked];
    job->asked = next_wanted(job, job->asked + 1);
    struct agent_msg_issue msg;
    struct err err = ERR_INIT;
    agent_ipc_init(&msg, AGENT_MSG_ISSUE, 0);
    msg.handle = job->handle;
    msg.generation = job->generation;
    msg.entry = i->entry;
    memcpy(msg.point, job->point, sizeof(msg.point));
    if (!job->given_key) {
        i->pkcs8 = job->keys.bytes + (size_t)job->n_keys++ * X509_PKCS8_LEN;
        if (x509_keygen_make(job->s->keygen, i->pkcs8, msg.point, &err) == -1) {
            log_failure(job->s->log, LOG_ERROR, "key_failed", &err);
            end(job, GRPC_UNAVAILABLE, "the agent cannot make a key now: try again");
            return false;
        }
    }
    ask(job, &job->s->keeper, &msg, AGENT_MSG_ISSUED, on_issued);
    return true;
}

static void issue_more(struct service_job *job)
{
    while (job->asked < job->n && job->n_asks < SERVICE_JOB_ASKS) {
        if (!issue_one(job)) {
            return;
        }
    }
}

/* --- list ------------------------------------------------------------------------------------- */

/* False: it has ended. */
static bool choose_wanted(struct service_job *job)
{
    bool found = !job->given_key;
    if (job->choose != NULL) {
        if (!job->choose(job->choose_arg, job, job->choose_text, sizeof(job->choose_text))) {
            end(job, GRPC_INVALID_ARGUMENT, job->choose_text);
            return false;
        }
        return true;
    }
    for (uint32_t i = 0; i < job->n && (!job->given_key || !found); i++) {
        struct service_identity *id = &job->list[i];
        id->wanted =
            !job->given_key || job->wanted_id == NULL || strcmp(id->spiffe_id, job->wanted_id) == 0;
        found = found || id->wanted;
    }
    if (!found) {
        end(job, GRPC_PERMISSION_DENIED, "this identity is not the caller's");
    }
    return found;
}

static bool take_keys(struct service_job *job)
{
    size_t n = 0;
    job->n_keys = 0;
    for (uint32_t i = 0; i < job->n; i++) {
        n += job->list[i].wanted;
    }
    return job->given_key || service_secret_take(job->s, n * X509_PKCS8_LEN, &job->keys);
}

static void listed(struct service_job *job)
{
    if (!choose_wanted(job)) {
        return;
    }
    job->at = next_wanted(job, 0);
    job->asked = job->at;
    if (!job->issue || job->at == job->n) {
        end(job, GRPC_OK, NULL);
    } else if (!take_keys(job)) {
        end(job, GRPC_UNAVAILABLE, "the agent has no memory for keys now: try again");
    } else {
        issue_more(job);
    }
}

static void take_identity(struct service_job *job, const struct agent_msg_identity *a)
{
    struct service_identity *i = &job->list[job->n++];
    i->spiffe_id = mem_must_strndup(a->spiffe_id, a->spiffe_id_len);
    i->hint = a->hint_len > 0 ? mem_must_strndup(a->hint, a->hint_len) : NULL;
    i->entry = a->entry;
    i->ttl_s = a->ttl_s;
    i->dns_digest = a->dns_digest;
}

static void list_more(struct service_job *job);

static void on_identity(void *arg, const union agent_msg *answer)
{
    struct service_job *job = arg;
    const struct agent_msg_identity *a = &answer->identity;
    answered(job);
    if (a->outcome != AGENT_OK) {
        if ((a->outcome == AGENT_NOT_ENTITLED || a->outcome == AGENT_QUARANTINED) && job->n > 0) {
            begin_again(job, list_begin); /* there are fewer than a moment ago */
        } else {
            refused(job, a->outcome);
        }
        return;
    }
    if (job->n == 0 && a->position == 0 && a->total > 0 && a->total <= AGENT_IDENTITIES_MAX) {
        job->generation = a->generation;
        job->facts = a->facts;
        job->total = a->total;
        job->list = mem_must_calloc(job->total, sizeof(*job->list));
    }
    if (a->generation != job->generation || a->facts != job->facts || a->total != job->total ||
        a->position != job->n || a->handle != job->handle || job->n >= job->total) {
        begin_again(job, list_begin);
        return;
    }
    take_identity(job, a);
    if (job->n < job->total) {
        list_more(job);
    } else {
        listed(job);
    }
}

static void list_one(struct service_job *job)
{
    struct agent_msg_identity_get msg;
    agent_ipc_init(&msg, AGENT_MSG_IDENTITY_GET, 0);
    msg.handle = job->handle;
    msg.position = job->asked++;
    ask(job, &job->s->keeper, &msg, AGENT_MSG_IDENTITY, on_identity);
}

static void list_more(struct service_job *job)
{
    while (job->asked < job->total && job->n_asks < SERVICE_JOB_ASKS) {
        list_one(job);
    }
}

/* The first answer says how many there are. */
static void list_begin(struct service_job *job)
{
    job->asked = 0;
    list_one(job);
}

/* --- attest ----------------------------------------------------------------------------------- */

static void on_reattested(void *arg, const union agent_msg *answer)
{
    struct service_job *job = arg;
    answered(job);
    switch ((enum agent_attest)answer->reattested.outcome) {
    case AGENT_ATTEST_OK:
        list_begin(job);
        return;
    case AGENT_ATTEST_GONE:
        end(job, GRPC_PERMISSION_DENIED, "the process that opened this connection has ended");
        return;
    case AGENT_ATTEST_FAILED:
        break;
    }
    end(job, GRPC_UNAVAILABLE, "the caller could not be attested: try again");
}

static void attest(struct service_job *job)
{
    struct agent_msg_ask msg;
    agent_ipc_init(&msg, AGENT_MSG_REATTEST, 0);
    msg.handle = job->handle;
    ask(job, &job->s->attestor, &msg, AGENT_MSG_REATTESTED, on_reattested);
}

/* --- life ------------------------------------------------------------------------------------- */

static void begin(struct service_turn *t)
{
    struct service_job *job =
        (struct service_job *)((char *)t - offsetof(struct service_job, turn));
    loop_timer_arm(&job->timer, SERVICE_JOB_TIMEOUT_MS);
    attest(job);
}

static struct service_job *job_new(struct service_caller *caller, service_done_fn done, void *arg)
{
    struct service_job *job = mem_must_new(struct service_job);
    job->s = caller->s;
    job->account = caller->account;
    job->handle = caller->handle;
    job->done = done;
    job->arg = arg;
    loop_timer_init(&job->timer, job->s->loop, on_timeout, job);
    loop_timer_init(&job->pending, job->s->loop, on_pending, job);
    loop_timer_arm(&job->timer, SERVICE_WAIT_MS);
    return job;
}

struct service_job *service_job_new(struct service_caller *caller, bool issue,
                                    service_choose_fn choose, void *choose_arg,
                                    service_done_fn done, void *arg)
{
    struct service_job *job = job_new(caller, done, arg);
    job->issue = issue;
    job->choose = choose;
    job->choose_arg = choose_arg;
    service_turn_take(&job->turn, caller->account, begin);
    return job;
}

struct service_job *service_job_new_sign(struct service_caller *caller, struct str wanted_id,
                                         const uint8_t point[AGENT_POINT_SIZE],
                                         service_done_fn done, void *arg)
{
    struct service_job *job = job_new(caller, done, arg);
    job->issue = true;
    job->given_key = true;
    job->wanted_id = wanted_id.n > 0 ? mem_must_strndup(wanted_id.p, wanted_id.n) : NULL;
    memcpy(job->point, point, sizeof(job->point));
    service_turn_take(&job->turn, caller->account, begin);
    return job;
}

struct service_job *service_job_free(struct service_job *job)
{
    if (job != NULL) {
        loop_timer_disarm(&job->timer);
        loop_timer_disarm(&job->pending);
        forget_asks(job);
        service_turn_give(&job->turn);
        list_clear(job);
        free(job->wanted_id);
        free(job);
    }
    return NULL;
}
