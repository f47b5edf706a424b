/*
 * Streams: FetchX509SVID and FetchX509Bundles. Each carries the whole state: at once, and again
 * when it is different. A stream holds no key and no certificate between its messages, only what
 * it has to know to see a difference; so every message brings new keys.
 *
 * When an SVID cannot be renewed the client keeps the one that it has, and we try again with
 * backoff; a stream ends with Unavailable only when that one has expired.
 */
#include "service_priv.h"

#include <postern/mem.h>
#include <postern/os.h>
#include <stdlib.h>

enum {
    RETRY_FIRST_MS = 1000,
    RETRY_MAX_MS = 30000,
    RENEW_MIN_MS = 500,
    LISTING_DIGEST = 32,
};

struct watch {
    struct service_stream stream; /* first: the service knows it by this */
    struct service *s;
    struct grpc_call *call;
    struct service_job *job; /* owned; NULL: none is running */
    struct loop_timer timer; /* renewal, or another try */
    bool bundles_only;
    bool sent;                       /* the first message has gone out */
    bool look;                       /* something may have changed: list again */
    bool renew;                      /* send again, whatever the list says */
    uint8_t listing[LISTING_DIGEST]; /* of what was sent last, for comparison */
    uint64_t bundle_generation;      /* of what was sent last */
    int64_t expires_s;               /* the first of what was sent last */
    uint64_t renew_ms;               /* when to send anew; 0: never (bundles) */
    unsigned failures;
};

static void watch_poke(struct watch *w);

static void watch_free(struct watch *w)
{
    loop_timer_disarm(&w->timer);
    (void)service_job_free(w->job);
    service_stream_deinit(&w->stream);
    free(w);
}

static void watch_finish(struct watch *w, enum grpc_status status, const char *text)
{
    struct grpc_call *call = w->call;
    watch_free(w);
    service_finish(call, status, text);
}

/* --- what happens next ------------------------------------------------------------------------ */

static void retry_later(struct watch *w, enum grpc_status status, const char *text)
{
    int64_t left_s = w->expires_s - os_wall_s();
    if (!w->sent || (!w->bundles_only && left_s <= 0)) {
        watch_finish(w, status, text);
        return;
    }
    uint64_t ms = (uint64_t)RETRY_FIRST_MS << (w->failures < 5 ? w->failures : 5);
    ms = ms > RETRY_MAX_MS ? RETRY_MAX_MS : ms;
    if (!w->bundles_only && ms > (uint64_t)left_s * 1000) {
        ms = (uint64_t)left_s * 1000;
    }
    w->failures++;
    w->look = true;
    loop_timer_arm(&w->timer, ms);
}

static void on_timer(void *arg)
{
    struct watch *w = arg;
    if (!w->bundles_only && w->sent && os_wall_s() >= w->expires_s) {
        watch_finish(w, GRPC_UNAVAILABLE, "the SVID could not be renewed in time");
        return;
    }
    if (w->renew_ms != 0 && loop_now_ms(w->s->loop) >= w->renew_ms) {
        w->renew = true;
    }
    watch_poke(w);
}

/* Again, when the timer had been used for another try. */
static void arm_renewal(struct watch *w)
{
    uint64_t now_ms = loop_now_ms(w->s->loop);
    if (w->renew_ms != 0) {
        loop_timer_arm(&w->timer, w->renew_ms > now_ms ? w->renew_ms - now_ms : 1);
    }
}

/* Renewal at half of what is left, a tenth more or less, so that callers spread. */
static void plan_renewal(struct watch *w, const struct service_job *job)
{
    int64_t now_s = os_wall_s();
    w->expires_s = INT64_MAX;
    for (uint32_t i = 0; i < job->n; i++) {
        if (job->list[i].not_after_s < w->expires_s) {
            w->expires_s = job->list[i].not_after_s;
        }
    }
    uint64_t left_ms = w->expires_s > now_s ? (uint64_t)(w->expires_s - now_s) * 1000 : 0;
    uint64_t ms = left_ms / 2 - left_ms / 20 + os_random_below(left_ms / 10 + 1);
    w->renew_ms = loop_now_ms(w->s->loop) + (ms < RENEW_MIN_MS ? RENEW_MIN_MS : ms);
    arm_renewal(w);
}

/* The digest of all that comes from the entries in an answer: a stream may have thousands of
 * identities, and there are thousands of streams. */
static void make_listing(const struct service_job *job, uint8_t ret[LISTING_DIGEST])
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = ctx != NULL && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1;
    for (uint32_t i = 0; ok && i < job->n; i++) {
        const struct service_identity *id = &job->list[i];
        const char *hint = id->hint != NULL ? id->hint : "";
        const uint64_t numbers[] = {id->ttl_s, id->dns_digest};
        ok = EVP_DigestUpdate(ctx, id->spiffe_id, strlen(id->spiffe_id) + 1) == 1 &&
             EVP_DigestUpdate(ctx, hint, strlen(hint) + 1) == 1 &&
             EVP_DigestUpdate(ctx, numbers, sizeof(numbers)) == 1;
    }
    POSTERN_ASSERT(ok && EVP_DigestFinal_ex(ctx, ret, NULL) == 1);
    EVP_MD_CTX_free(ctx);
}

/* --- a job is done ---------------------------------------------------------------------------- */

static void sent_or_later(struct watch *w, enum grpc_send sent)
{
    if (sent == GRPC_SENT) {
        w->sent = true;
        w->renew = false;
        w->failures = 0;
        w->bundle_generation = w->s->bundle_generation;
        service_count(w->s,
                      w->bundles_only ? SERVICE_METRIC_BUNDLE_PUSHES : SERVICE_METRIC_SVID_PUSHES);
        watch_poke(w); /* if it changed again meanwhile */
    } else {
        w->renew = true;
        retry_later(w, GRPC_UNAVAILABLE, "the message is too large for now");
    }
}

static void on_listed(struct watch *w, struct service_job *job)
{
    uint8_t listing[LISTING_DIGEST];
    bool bundle_changed = w->bundle_generation != w->s->bundle_generation;
    if (w->bundles_only) {
        (void)service_job_free(job);
        if (!w->sent || bundle_changed) {
            sent_or_later(w, service_send_bundles(w->call, w->s));
        } else {
            watch_poke(w);
        }
        return;
    }
    make_listing(job, listing);
    if (bundle_changed || memcmp(listing, w->listing, sizeof(listing)) != 0) {
        w->renew = true;
    }
    (void)service_job_free(job);
    arm_renewal(w);
    watch_poke(w);
}

static void on_issued(struct watch *w, struct service_job *job)
{
    enum grpc_send sent = service_send_svids(w->call, w->s, job);
    if (sent == GRPC_SENT) {
        make_listing(job, w->listing);
        plan_renewal(w, job);
    }
    (void)service_job_free(job);
    sent_or_later(w, sent);
}

static void on_job(void *arg, struct service_job *job, enum grpc_status status, const char *text)
{
    struct watch *w = arg;
    w->job = NULL;
    if (status == GRPC_OK && job->want == SERVICE_WANT_LIST) {
        w->failures = 0;
        on_listed(w, job);
    } else if (status == GRPC_OK) {
        on_issued(w, job);
    } else {
        (void)service_job_free(job);
        if (status == GRPC_UNAVAILABLE) {
            retry_later(w, status, text);
        } else {
            watch_finish(w, status, text);
        }
    }
}

/* Starts what is due, unless something is under way or the reader has not taken the last message.
 */
static void watch_poke(struct watch *w)
{
    bool due = !w->sent || w->renew || w->look;
    if (!due || w->job != NULL || (w->sent && grpc_call_unsent(w->call) > 0)) {
        return;
    }
    bool issue = !w->bundles_only && (!w->sent || w->renew);
    w->look = false;
    w->job = service_job_new(w->stream.caller, issue ? SERVICE_WANT_ALL : SERVICE_WANT_LIST,
                             STR_NONE, NULL, on_job, w);
}

static void stream_changed(struct service_stream *st)
{
    struct watch *w = (struct watch *)st;
    w->look = true;
    watch_poke(w);
}

static void stream_end(struct service_stream *st, enum grpc_status status, const char *text)
{
    watch_finish((struct watch *)st, status, text);
}

static const struct service_stream_ops watch_ops = {stream_changed, stream_end};

/* --- from outside ----------------------------------------------------------------------------- */

void service_watch_start(struct grpc_call *call, bool bundles_only)
{
    struct watch *w = mem_must_new(struct watch);
    service_stream_init(&w->stream, call, &watch_ops);
    w->s = w->stream.s;
    w->call = call;
    w->bundles_only = bundles_only;
    loop_timer_init(&w->timer, w->s->loop, on_timer, w);
    grpc_call_set_data(call, w);
    watch_poke(w);
}

void service_watch_drained(struct grpc_call *call)
{
    struct watch *w = grpc_call_data(call);
    if (w != NULL) {
        watch_poke(w);
    }
}

void service_watch_cancel(struct grpc_call *call)
{
    struct watch *w = grpc_call_data(call);
    if (w != NULL) {
        watch_free(w);
    }
}
