/*
 * Streams that carry what the caller has: each message the whole state, at once, and again when it
 * is different. What kind of message that is, and for which identities certificates are wanted, is
 * the kind's (fetch.c, sds.c). A stream holds no key and no certificate between its messages, only
 * what it has to know to see a difference; so every message brings new keys.
 *
 * When an SVID cannot be renewed the client keeps the one that it has, and we try again with
 * backoff; a stream ends with Unavailable only when that one has expired.
 */
#include "service_priv.h"

#include <postern/mem.h>
#include <postern/os.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    RETRY_FIRST_MS = 1000,
    RETRY_MAX_MS = 30000,
    RENEW_MIN_MS = 500,
};

static void watch_free(struct service_watch *w)
{
    loop_timer_disarm(&w->timer);
    (void)service_job_free(w->job);
    service_stream_deinit(&w->stream);
    if (w->kind->free_data != NULL) {
        w->kind->free_data(w->data);
    }
    free(w);
}

void service_watch_finish(struct service_watch *w, enum grpc_status status, const char *text)
{
    struct grpc_call *call = w->stream.call;
    watch_free(w);
    service_finish(call, status, text);
}

static uint64_t generation_now(const struct service_watch *w)
{
    return w->kind->generation != NULL ? w->kind->generation(w->s) : w->s->bundle_generation;
}

/* --- what happens next ------------------------------------------------------------------------ */

static void retry_later(struct service_watch *w, enum grpc_status status, const char *text)
{
    int64_t left_s = w->expires_s - os_wall_s();
    bool expires = w->expires_s != INT64_MAX;
    if (!w->sent || (expires && left_s <= 0)) {
        service_watch_finish(w, status, text);
        return;
    }
    uint64_t ms = (uint64_t)RETRY_FIRST_MS << (w->failures < 5 ? w->failures : 5);
    ms = ms > RETRY_MAX_MS ? RETRY_MAX_MS : ms;
    if (expires && ms > (uint64_t)left_s * 1000) {
        ms = (uint64_t)left_s * 1000;
    }
    w->failures++;
    w->look = true;
    loop_timer_arm(&w->timer, ms);
}

static void on_timer(void *arg)
{
    struct service_watch *w = arg;
    if (w->sent && w->failures > 0 && os_wall_s() >= w->expires_s) {
        service_watch_finish(w, GRPC_UNAVAILABLE, "the SVID could not be renewed in time");
        return;
    }
    if (w->renew_ms != 0 && loop_now_ms(w->s->loop) >= w->renew_ms) {
        w->renew = true;
    }
    service_watch_poke(w);
}

/* Again, when the timer had been used for another try. */
static void arm_renewal(struct service_watch *w)
{
    uint64_t now_ms = loop_now_ms(w->s->loop);
    if (w->renew_ms != 0) {
        loop_timer_arm(&w->timer, w->renew_ms > now_ms ? w->renew_ms - now_ms : 1);
    } else {
        loop_timer_disarm(&w->timer);
    }
}

/* Renewal at half of what is left, a tenth more or less, so that callers spread. Without a
 * certificate there is nothing to renew. */
static void plan_renewal(struct service_watch *w, const struct service_job *job)
{
    int64_t now_s = os_wall_s();
    w->expires_s = INT64_MAX;
    w->renew_ms = 0;
    for (uint32_t i = 0; i < job->n; i++) {
        if (job->list[i].wanted && job->list[i].not_after_s < w->expires_s) {
            w->expires_s = job->list[i].not_after_s;
        }
    }
    if (w->expires_s != INT64_MAX) {
        uint64_t left_ms = w->expires_s > now_s ? (uint64_t)(w->expires_s - now_s) * 1000 : 0;
        uint64_t ms = left_ms / 2 - left_ms / 20 + os_random_below(left_ms / 10 + 1);
        w->renew_ms = loop_now_ms(w->s->loop) + (ms < RENEW_MIN_MS ? RENEW_MIN_MS : ms);
        w->renew_s = now_s + (int64_t)(ms / 1000) + 1;
    }
    arm_renewal(w);
}

/* The digest of all that comes from the entries in an answer: a stream may have thousands of
 * identities, and there are thousands of streams. */
static void make_listing(const struct service_job *job, uint8_t ret[SERVICE_LISTING_DIGEST])
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = ctx != NULL && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1;
    for (uint32_t i = 0; ok && i < job->n; i++) {
        const struct service_identity *id = &job->list[i];
        const char *hint = id->hint != NULL ? id->hint : "";
        const uint64_t numbers[] = {id->ttl_s, id->dns_digest};
        ok = !id->wanted || (EVP_DigestUpdate(ctx, id->spiffe_id, strlen(id->spiffe_id) + 1) == 1 &&
                             EVP_DigestUpdate(ctx, hint, strlen(hint) + 1) == 1 &&
                             EVP_DigestUpdate(ctx, numbers, sizeof(numbers)) == 1);
    }
    POSTERN_ASSERT(ok && EVP_DigestFinal_ex(ctx, ret, NULL) == 1);
    EVP_MD_CTX_free(ctx);
}

/* --- a job is done ---------------------------------------------------------------------------- */

static void on_listed(struct service_watch *w, struct service_job *job)
{
    uint8_t listing[SERVICE_LISTING_DIGEST];
    make_listing(job, listing);
    if (w->generation != generation_now(w) || memcmp(listing, w->listing, sizeof(listing)) != 0) {
        w->renew = true;
    }
    (void)service_job_free(job);
    if (w->last && !w->renew) {
        service_watch_finish(w, GRPC_OK, NULL);
        return;
    }
    arm_renewal(w);
    service_watch_poke(w);
}

static void on_issued(struct service_watch *w, struct service_job *job)
{
    enum grpc_send sent = w->kind->send(w, job);
    if (sent != GRPC_SENT) {
        (void)service_job_free(job);
        w->renew = true;
        retry_later(w, GRPC_UNAVAILABLE, "the message is too large for now");
        return;
    }
    make_listing(job, w->listing);
    plan_renewal(w, job);
    (void)service_job_free(job);
    w->sent = true;
    w->renew = false;
    w->failures = 0;
    w->generation = generation_now(w);
    service_count(w->s, w->kind->metric);
    if (w->last) {
        service_watch_finish(w, GRPC_OK, NULL);
    } else {
        service_watch_poke(w); /* if it changed again meanwhile */
    }
}

static void on_job(void *arg, struct service_job *job, enum grpc_status status, const char *text)
{
    struct service_watch *w = arg;
    w->job = NULL;
    if (status == GRPC_OK && !job->issue) {
        w->failures = 0;
        on_listed(w, job);
    } else if (status == GRPC_OK) {
        on_issued(w, job);
    } else {
        char copy[300]; /* the text may be the job's */
        (void)snprintf(copy, sizeof(copy), "%s", text);
        (void)service_job_free(job);
        if (status == GRPC_UNAVAILABLE) {
            retry_later(w, status, copy);
        } else {
            service_watch_finish(w, status, copy);
        }
    }
}

/* Starts what is due, unless something is under way or the reader has not taken the last message.
 */
void service_watch_poke(struct service_watch *w)
{
    bool due = !w->sent || w->renew || w->look;
    if (!due || w->job != NULL || (w->sent && grpc_call_unsent(w->stream.call) > 0)) {
        return;
    }
    w->look = false;
    w->job = service_job_new(w->stream.caller, !w->sent || w->renew, w->kind->choose, w->data,
                             on_job, w);
}

void service_watch_again(struct service_watch *w)
{
    w->job = service_job_free(w->job);
    w->renew = true;
    service_watch_poke(w);
}

void service_watch_end_soon(struct service_watch *w)
{
    w->last = true;
    if (w->sent && w->job == NULL && !w->renew) {
        service_watch_finish(w, GRPC_OK, NULL);
    }
}

/* --- from outside ----------------------------------------------------------------------------- */

static void stream_changed(struct service_stream *st)
{
    struct service_watch *w = (struct service_watch *)st;
    w->look = true;
    if (w->renew_ms != 0 && os_wall_s() >= w->renew_s) {
        w->renew = true; /* the clock was set */
    }
    service_watch_poke(w);
}

static void stream_end(struct service_stream *st, enum grpc_status status, const char *text)
{
    service_watch_finish((struct service_watch *)st, status, text);
}

static const struct service_stream_ops watch_ops = {stream_changed, stream_end};

struct service_watch *service_watch_start(struct grpc_call *call,
                                          const struct service_watch_kind *kind, void *data)
{
    struct service_watch *w = mem_must_new(struct service_watch);
    service_stream_init(&w->stream, call, &watch_ops);
    w->s = w->stream.s;
    w->kind = kind;
    w->data = data;
    w->expires_s = INT64_MAX;
    loop_timer_init(&w->timer, w->s->loop, on_timer, w);
    grpc_call_set_data(call, w);
    service_watch_poke(w);
    return w;
}

void service_watch_drained(struct grpc_call *call)
{
    struct service_watch *w = grpc_call_data(call);
    if (w != NULL) {
        service_watch_poke(w);
    }
}

void service_watch_cancel(struct grpc_call *call)
{
    struct service_watch *w = grpc_call_data(call);
    if (w != NULL) {
        watch_free(w);
    }
}
