/*
 * Streams: FetchX509SVID and FetchX509Bundles. Each carries the whole state: at once, and again
 * when it is different. A stream holds no key and no certificate between its messages, only what
 * it has to know to see a difference; so every message brings new keys.
 *
 * When an SVID cannot be renewed the client keeps the one that it has, and we try again with
 * backoff; a stream ends with Unavailable only when that one has expired.
 */
#include "service_priv.h"

#include <postern/buf.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <stdlib.h>

enum {
    RETRY_FIRST_MS = 1000,
    RETRY_MAX_MS = 30000,
    RENEW_MIN_MS = 500,
    LISTING_MAX = AGENT_IDENTITIES_MAX * (AGENT_ID_MAX + AGENT_HINT_MAX + 64),
};

struct service_watch {
    struct service_watch *prev, *next;
    struct service *s;
    struct service_caller *caller;
    struct grpc_call *call;
    struct service_job *job; /* owned; NULL: none is running */
    struct loop_timer timer; /* renewal, or another try */
    bool bundles_only;
    bool sent;                  /* the first message has gone out */
    bool look;                  /* something may have changed: list again */
    bool renew;                 /* send again, whatever the list says */
    struct buf listing;         /* what was sent last, for comparison */
    uint64_t bundle_generation; /* of what was sent last */
    int64_t expires_s;          /* the first of what was sent last */
    uint64_t renew_ms;          /* when to send anew; 0: never (bundles) */
    unsigned failures;
};

static void watch_poke(struct service_watch *w);

static void watch_free(struct service_watch *w)
{
    loop_timer_disarm(&w->timer);
    (void)service_job_free(w->job);
    buf_reset(&w->listing);
    if (w->prev != NULL) {
        w->prev->next = w->next;
    } else {
        w->s->watches = w->next;
    }
    if (w->next != NULL) {
        w->next->prev = w->prev;
    }
    service_caller_discharge(w->caller);
    free(w);
}

static void watch_finish(struct service_watch *w, enum grpc_status status, const char *text)
{
    struct grpc_call *call = w->call;
    watch_free(w);
    service_finish(call, status, text);
}

/* --- what happens next ------------------------------------------------------------------------ */

static void retry_later(struct service_watch *w, enum grpc_status status, const char *text)
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
    struct service_watch *w = arg;
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
static void arm_renewal(struct service_watch *w)
{
    uint64_t now_ms = loop_now_ms(w->s->loop);
    if (w->renew_ms != 0) {
        loop_timer_arm(&w->timer, w->renew_ms > now_ms ? w->renew_ms - now_ms : 1);
    }
}

/* Renewal at half of what is left, a tenth more or less, so that callers spread. */
static void plan_renewal(struct service_watch *w, const struct service_job *job)
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

/* All of an answer that comes from the entries, as text. */
static void make_listing(const struct service_job *job, struct buf *out)
{
    for (uint32_t i = 0; i < job->n; i++) {
        const struct service_identity *id = &job->list[i];
        POSTERN_ASSERT(buf_printf(out, "%s\n%s\n%u %llx\n", id->spiffe_id,
                                  id->hint != NULL ? id->hint : "", id->ttl_s,
                                  (unsigned long long)id->dns_digest));
    }
}

/* --- a job is done ---------------------------------------------------------------------------- */

static void sent_or_later(struct service_watch *w, enum grpc_send sent)
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

static void on_listed(struct service_watch *w, struct service_job *job)
{
    struct buf listing = BUF_INIT(LISTING_MAX);
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
    make_listing(job, &listing);
    if (bundle_changed || !str_eq(buf_str(&listing), buf_str(&w->listing))) {
        w->renew = true;
    }
    buf_reset(&listing);
    (void)service_job_free(job);
    arm_renewal(w);
    watch_poke(w);
}

static void on_issued(struct service_watch *w, struct service_job *job)
{
    enum grpc_send sent = service_send_svids(w->call, w->s, job);
    if (sent == GRPC_SENT) {
        buf_reset(&w->listing);
        make_listing(job, &w->listing);
        plan_renewal(w, job);
    }
    (void)service_job_free(job);
    sent_or_later(w, sent);
}

static void on_job(void *arg, struct service_job *job, enum grpc_status status, const char *text)
{
    struct service_watch *w = arg;
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
static void watch_poke(struct service_watch *w)
{
    bool due = !w->sent || w->renew || w->look;
    if (!due || w->job != NULL || (w->sent && grpc_call_unsent(w->call) > 0)) {
        return;
    }
    bool issue = !w->bundles_only && (!w->sent || w->renew);
    w->look = false;
    w->job = service_job_new(w->s, w->caller->handle, issue ? SERVICE_WANT_ALL : SERVICE_WANT_LIST,
                             STR_NONE, NULL, on_job, w);
}

/* --- from outside ----------------------------------------------------------------------------- */

void service_watch_start(struct grpc_call *call, bool bundles_only)
{
    struct service_caller *caller = grpc_call_conn_context(call);
    struct service *s = caller->s;
    struct service_watch *w = mem_must_new(struct service_watch);
    w->s = s;
    w->caller = caller;
    w->call = call;
    w->bundles_only = bundles_only;
    w->listing.max = LISTING_MAX;
    loop_timer_init(&w->timer, s->loop, on_timer, w);
    w->next = s->watches;
    if (w->next != NULL) {
        w->next->prev = w;
    }
    s->watches = w;
    grpc_call_set_data(call, w);
    watch_poke(w);
}

void service_watch_drained(struct grpc_call *call)
{
    struct service_watch *w = grpc_call_data(call);
    if (w != NULL) {
        watch_poke(w);
    }
}

void service_watch_cancel(struct grpc_call *call)
{
    struct service_watch *w = grpc_call_data(call);
    if (w != NULL) {
        watch_free(w);
    }
}

void service_watches_changed(struct service *s)
{
    /* None goes away here: what ends a stream comes from its job, later. */
    for (struct service_watch *w = s->watches; w != NULL; w = w->next) {
        w->look = true;
        watch_poke(w);
    }
}

void service_watches_end(struct service *s, const struct service_caller *c, enum grpc_status status,
                         const char *text)
{
    struct service_watch *next = NULL;
    for (struct service_watch *w = s->watches; w != NULL; w = next) {
        next = w->next;
        if (c == NULL || w->caller == c) {
            watch_finish(w, status, text);
        }
    }
}
