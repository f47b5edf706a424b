/*
 * The client's life: one connection to the agent, a stream that watches (bundles or SVIDs), and
 * with a key of our own a request to sign for each renewal. One timer says when to try what is
 * missing, one when to renew, one when the identity ends.
 */
#include <postern/identity_client.h>

#include "identity_client_priv.h"
#include <postern/grpc.h>
#include <postern/os.h>
#include <postern/proto.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/un.h>

enum {
    BACKOFF_MIN_MS = 100,
    BACKOFF_MAX_MS = 10000,
    SIGN_DEADLINE_MS = 10000,
    KEEPALIVE_MS = 20000, /* an agent that is stopped and not gone is noticed by this */
    /* The wall clock may be set: how often it is looked at. */
    CLOCK_MIN_MS = 1000,
    CLOCK_MAX_MS = 10000,
    RENEW_AT = 50, /* percent of what is left */
    RENEW_JITTER = 5,
};

struct identity_client {
    struct loop *loop;
    const struct identity_client_events *events; /* borrowed */
    void *arg;
    char socket_path[sizeof(((struct sockaddr_un *)0)->sun_path)];
    char *spiffe_id; /* owned; NULL: the first offered */
    enum identity_key_mode key_mode;
    bool check_agent;
    uint32_t renew_at, renew_jitter; /* percent */
    bool use_agent_key;              /* what key_mode comes to with this agent */
    struct identity_keys keys;       /* make NULL: made here */

    struct grpc_client *conn;
    struct grpc_client_call *watch;   /* FetchX509Bundles, or FetchX509SVID with the agent's key */
    struct grpc_client_call *tainted; /* WatchTainted; only with a key of our own */
    bool no_tainted;                  /* this agent does not serve it */
    bool ask_tainted_again;           /* its answer was about an SVID that is being replaced */
    struct grpc_client_call *sign;
    EVP_PKEY *pending_key; /* owned: what sign asks for */

    struct loop_timer retry_timer, renew_timer, expiry_timer;
    bool retry_armed, renew_due;

    struct x509_svid *svid; /* owned; waits for the first trust, or is the state's */
    struct x509_trust *trust;
    char **offered;      /* owned; with the agent's key: what its last message held */
    bool published_svid; /* svid is in the state */
    int64_t renewed_at_s, renew_at_s;
    uint64_t generation;
    struct identity_state *state;
    struct identity_status status;
};

static void notice(struct identity_client *c, enum identity_notice what, const struct err *why)
{
    if (c->events->on_notice != NULL) {
        c->events->on_notice(c->arg, what, why);
    }
}

/* --- the state -------------------------------------------------------------------------------- */

static void arm_expiry(struct identity_client *c)
{
    int64_t left_s = c->state->svid->not_after_s - os_wall_s();
    uint64_t left_ms = left_s > 0 ? (uint64_t)left_s * 1000 : 0;
    uint64_t ms = left_ms / 32;
    ms = ms < CLOCK_MIN_MS ? CLOCK_MIN_MS : ms;
    ms = ms > CLOCK_MAX_MS ? CLOCK_MAX_MS : ms;
    loop_timer_arm(&c->expiry_timer, left_ms < ms ? left_ms : ms);
}

/* There is no identity any more. */
static void withdraw(struct identity_client *c)
{
    bool had_one = c->state != NULL;
    loop_timer_disarm(&c->expiry_timer);
    loop_timer_disarm(&c->renew_timer);
    c->renew_due = true;
    c->svid = x509_svid_free(c->svid);
    c->state = identity_state_unref(c->state);
    if (had_one) {
        c->events->on_state(c->arg, NULL);
    }
}

/* Both halves are there: the owner gets a new whole. */
static void publish(struct identity_client *c)
{
    if (c->svid == NULL || c->trust == NULL) {
        return;
    }
    enum identity_notice news = c->published_svid ? IDENTITY_TRUST_CHANGED : IDENTITY_RENEWED;
    struct identity_state *old = c->state;
    c->generation++;
    struct identity_state what = {.generation = c->generation,
                                  .renewed_at_s = c->renewed_at_s,
                                  .source =
                                      c->use_agent_key ? IDENTITY_FROM_AGENT : IDENTITY_FROM_CSR};
    c->state = client_state_new(x509_svid_dup(c->svid), x509_trust_ref(c->trust),
                                c->use_agent_key ? client_offered_dup(c->offered) : NULL, &what);
    c->published_svid = true;
    arm_expiry(c);
    c->events->on_state(c->arg, c->state);
    identity_state_unref(old);
    notice(c, news, NULL);
}

static void arm_retry(struct identity_client *c, uint64_t delay_ms);

/* The timer of the renewal does not know of it. */
static void renew_if_clock_was_set(struct identity_client *c)
{
    if (!c->use_agent_key && !c->renew_due && c->sign == NULL && os_wall_s() > c->renew_at_s) {
        c->renew_due = true;
        if (!c->retry_armed) {
            arm_retry(c, 0);
        }
    }
}

static void on_expiry(void *arg)
{
    struct identity_client *c = arg;
    if (c->state->svid->not_after_s > os_wall_s()) {
        arm_expiry(c);
        renew_if_clock_was_set(c);
        return;
    }
    struct err why = c->status.last_error;
    if (why.code == ERR_NONE) {
        err_set(&why, ERR_UNAVAILABLE, "the agent did not renew it in time");
    }
    err_prefix(&why, "'%.200s' has expired", c->state->svid->spiffe_id);
    withdraw(c);
    notice(c, IDENTITY_EXPIRED, &why);
    if (!c->retry_armed && !c->status.gave_up) {
        arm_retry(c, 0); /* nothing has failed: the clock was set */
    }
}

/* --- trying again ----------------------------------------------------------------------------- */

static void arm_retry(struct identity_client *c, uint64_t delay_ms)
{
    c->retry_armed = true;
    loop_timer_arm(&c->retry_timer, delay_ms);
}

/* Doubles from 100 ms to 10 s, but never past a tenth of what is left of the identity: an agent
 * that comes back before the end is found before the end. Between half of that and all of it. */
static uint64_t backoff_ms(const struct identity_client *c)
{
    uint64_t full = BACKOFF_MIN_MS;
    uint64_t max = BACKOFF_MAX_MS;
    if (c->state != NULL) {
        int64_t left_s = c->state->svid->not_after_s - os_wall_s();
        uint64_t tenth_ms = left_s > 0 ? (uint64_t)left_s * 100 : 0;
        max = tenth_ms < max ? tenth_ms : max;
    }
    for (unsigned i = 1; i < c->status.failures_in_row && full < max; i++) {
        full *= 2;
    }
    max = max > BACKOFF_MIN_MS ? max : BACKOFF_MIN_MS;
    full = full < max ? full : max;
    return full / 2 + os_random_below(full / 2 + 1);
}

/* Something failed that may work later. One lost connection fails several calls: it counts once. */
static void failed(struct identity_client *c, const struct err *why)
{
    c->status.last_error = *why;
    c->status.last_error_ms = os_now_ms();
    if (c->retry_armed || c->status.gave_up) {
        return;
    }
    c->status.failures_in_row++;
    arm_retry(c, backoff_ms(c));
    if (c->status.failures_in_row == 1 && !c->status.denied) {
        notice(c, IDENTITY_AGENT_AWAY, why);
    }
}

static void give_up(struct identity_client *c, const struct err *why)
{
    c->status.last_error = *why;
    c->status.last_error_ms = os_now_ms();
    if (!c->status.gave_up) {
        c->status.gave_up = true;
        loop_timer_disarm(&c->retry_timer);
        c->retry_armed = false;
        notice(c, IDENTITY_GAVE_UP, why);
    }
}

static void denied(struct identity_client *c, const struct err *why)
{
    bool first = !c->status.denied;
    c->status.denied = true;
    failed(c, why);
    withdraw(c);
    if (first) {
        notice(c, IDENTITY_DENIED, why);
    }
}

/* Told once, not at each retry that gets the same again. */
static void bad_answer(struct identity_client *c, const struct err *why)
{
    bool again = c->status.failures_in_row > 0 && strcmp(c->status.last_error.what, why->what) == 0;
    c->status.last_error = *why;
    c->status.last_error_ms = os_now_ms();
    if (!again) {
        notice(c, IDENTITY_BAD_ANSWER, why);
    }
}

static void good_message(struct identity_client *c)
{
    bool was_away = c->status.failures_in_row > 0;
    c->status.failures_in_row = 0;
    c->status.denied = false;
    c->status.last_success_ms = os_now_ms();
    if (was_away) {
        notice(c, IDENTITY_AGENT_BACK, NULL);
    }
}

/* --- what came -------------------------------------------------------------------------------- */

/* At half of what is left, if nothing else was said, give or take: spread over all who were issued
 * together. */
static void arm_renewal(struct identity_client *c)
{
    int64_t left_s = c->svid->not_after_s - os_wall_s();
    uint64_t percent_ms = left_s > 0 ? (uint64_t)left_s * 10 : 0;
    uint64_t spread_ms = percent_ms * c->renew_jitter;
    c->renew_due = false;
    uint64_t ms = percent_ms * c->renew_at - spread_ms + os_random_below(2 * spread_ms + 1);
    loop_timer_arm(&c->renew_timer, ms);
    c->renew_at_s = os_wall_s() + (int64_t)(ms / 1000) + 1;
}

/* Never used when it has ended already: our clock and the agent's differ. Frees what it refuses. */
static bool usable(struct identity_client *c, struct x509_svid *svid)
{
    char end[32];
    struct err why = ERR_INIT;
    if (svid->not_after_s > os_wall_s()) {
        return true;
    }
    os_time_text(svid->not_after_s, end, sizeof(end));
    err_set(&why, ERR_PROTOCOL, "the agent sent a certificate that ended at %s", end);
    err_advise(&why, "compare this host's clock with the agent's");
    x509_svid_free(svid);
    bad_answer(c, &why);
    return false;
}

/* Takes svid over; false if it is what we have. */
static bool take_svid(struct identity_client *c, struct x509_svid *svid)
{
    if (c->svid != NULL && X509_cmp(c->svid->leaf, svid->leaf) == 0 &&
        c->svid->not_after_s == svid->not_after_s) {
        x509_svid_free(svid);
        return false;
    }
    x509_svid_free(c->svid);
    c->svid = svid;
    c->published_svid = false;
    c->renewed_at_s = os_wall_s();
    return true;
}

static bool take_trust(struct identity_client *c, struct x509_trust *trust)
{
    if (c->trust != NULL && x509_trust_equal(c->trust, trust)) {
        x509_trust_unref(trust);
        return false;
    }
    x509_trust_unref(c->trust);
    c->trust = trust;
    return true;
}

/* An authority that left the bundle takes our certificate with it: peers refuse it from now on. */
static bool still_trusted(const struct identity_client *c)
{
    struct x509_peer peer;
    return x509_verify_svid(c->trust, c->svid->leaf, c->svid->intermediates, true, os_wall_s(),
                            &peer, NULL) == X509_OK;
}

static void on_bundles(void *arg, struct str message)
{
    struct identity_client *c = arg;
    struct err err = ERR_INIT;
    struct err warning = ERR_INIT;
    struct x509_trust *trust = NULL;
    if (client_read_bundles(message, c->svid != NULL ? c->svid->spiffe_id : c->spiffe_id, &trust,
                            &warning, &err) == -1) {
        bad_answer(c, &err);
        return;
    }
    if (warning.code != ERR_NONE) {
        bad_answer(c, &warning);
    }
    good_message(c);
    if (!take_trust(c, trust)) {
        return;
    }
    if (c->svid != NULL && c->sign == NULL && !still_trusted(c)) {
        c->renew_due = true;
        if (!c->retry_armed) {
            arm_retry(c, 0);
        }
    }
    publish(c);
}

/* An authority that the agent no longer trusts itself, though others still do: another SVID at
 * once, long before ours ends. */
static void on_tainted(void *arg, struct str message)
{
    struct identity_client *c = arg;
    struct err err = ERR_INIT;
    bool tainted = false;
    if (c->svid == NULL) {
        return; /* what is signed from now on is under another one */
    }
    if (client_read_tainted(message, c->svid, &tainted, &err) == -1) {
        bad_answer(c, &err);
    } else if (tainted && c->sign != NULL) {
        c->ask_tainted_again = true; /* what comes may have been signed just before */
    } else if (tainted) {
        c->renew_due = true;
        if (!c->retry_armed) {
            arm_retry(c, 0);
        }
    }
}

static void on_svids(void *arg, struct str message)
{
    struct identity_client *c = arg;
    struct err err = ERR_INIT;
    struct err warning = ERR_INIT;
    struct x509_svid *svid = NULL;
    struct x509_trust *trust = NULL;
    mem_auto(client_offered_free) char **offered = NULL;
    if (client_read_svids(message, c->spiffe_id, &svid, &trust, &offered, &warning, &err) == -1) {
        if (err.code == ERR_DENIED) {
            denied(c, &err); /* each message is the whole state: what is absent is withdrawn */
        } else {
            bad_answer(c, &err);
        }
        return;
    }
    if (warning.code != ERR_NONE) {
        bad_answer(c, &warning);
    }
    if (!usable(c, svid)) {
        x509_trust_unref(trust);
        return;
    }
    good_message(c);
    client_offered_free(c->offered);
    c->offered = offered;
    offered = NULL;
    bool new_svid = take_svid(c, svid);
    bool new_trust = take_trust(c, trust);
    if (new_svid || new_trust) {
        publish(c);
    }
}

static void on_signed(void *arg, struct str message)
{
    struct identity_client *c = arg;
    struct err err = ERR_INIT;
    struct x509_svid *svid = NULL;
    if (client_read_signed(message, c->spiffe_id, c->pending_key, &svid, &err) == -1) {
        bad_answer(c, &err);
        return;
    }
    if (!usable(c, svid)) {
        return;
    }
    good_message(c);
    c->status.fallback = false;
    if (take_svid(c, svid)) {
        publish(c);
    }
    arm_renewal(c);
}

/* --- calls ------------------------------------------------------------------------------------ */

static void err_of_status(struct err *err, const char *rpc, enum grpc_status status,
                          const char *text)
{
    err_set(err, status == GRPC_PERMISSION_DENIED ? ERR_DENIED : ERR_UNAVAILABLE, "%s: %s%s%.200s",
            rpc, grpc_status_name(status), text[0] != '\0' ? ": " : "", text);
}

static void stop_calls(struct identity_client *c)
{
    grpc_client_cancel(c->watch);
    grpc_client_cancel(c->sign);
    grpc_client_cancel(c->tainted);
    c->watch = NULL;
    c->tainted = NULL;
    c->sign = NULL;
    EVP_PKEY_free(c->pending_key);
    c->pending_key = NULL;
}

/* The agent cannot do it with a key of ours. */
static void fall_back(struct identity_client *c, const struct err *why)
{
    stop_calls(c);
    c->use_agent_key = true;
    arm_retry(c, 0);
    if (!c->status.fallback) {
        c->status.fallback = true;
        notice(c, IDENTITY_FELL_BACK, why);
    }
}

/* Workload_Endpoint.md section 6, error codes: what to do is the same for every method. */
static void call_ended(struct identity_client *c, const char *rpc, enum grpc_status status,
                       const char *text)
{
    struct err why = ERR_INIT;
    err_of_status(&why, rpc, status, text);
    if (status == GRPC_PERMISSION_DENIED) {
        err_advise(&why, "see which entries the agent has for this process");
        denied(c, &why);
    } else if (status == GRPC_INVALID_ARGUMENT) {
        give_up(c, &why);
    } else if (status == GRPC_UNIMPLEMENTED && c->key_mode == IDENTITY_KEY_AUTO &&
               !c->use_agent_key) {
        fall_back(c, &why);
    } else if (status == GRPC_UNIMPLEMENTED) {
        if (c->keys.make != NULL) {
            err_advise(&why, "a key in a process of its own needs Postern's agent");
        } else if (c->key_mode == IDENTITY_KEY_CSR) {
            err_advise(&why, "set key: auto, so that the agent makes the key");
        }
        give_up(c, &why);
    } else {
        failed(c, &why);
    }
}

static void on_watch_end(void *arg, enum grpc_status status, const char *text)
{
    struct identity_client *c = arg;
    c->watch = NULL;
    call_ended(c, c->use_agent_key ? "FetchX509SVID" : "FetchX509Bundles", status, text);
}

/* From when there is an SVID on; each stream begins with the whole list. */
static void watch_tainted(struct identity_client *c)
{
    if (c->ask_tainted_again) {
        grpc_client_cancel(c->tainted);
        c->tainted = NULL;
        c->ask_tainted_again = false;
    }
    if (c->tainted == NULL && !c->no_tainted && !c->retry_armed) {
        arm_retry(c, 0);
    }
}

static void on_sign_end(void *arg, enum grpc_status status, const char *text)
{
    struct identity_client *c = arg;
    c->sign = NULL;
    EVP_PKEY_free(c->pending_key);
    c->pending_key = NULL;
    if (status != GRPC_OK) {
        call_ended(c, "SignX509SVID", status, text);
    } else if (c->renew_due) {
        failed(c, &c->status.last_error); /* its answer was no good */
    } else {
        watch_tainted(c);
    }
}

/* Agents of before, and others, do without: then trust alone says when to renew early. */
static void on_tainted_end(void *arg, enum grpc_status status, const char *text)
{
    struct identity_client *c = arg;
    struct err why = ERR_INIT;
    c->tainted = NULL;
    if (status == GRPC_UNIMPLEMENTED) {
        c->no_tainted = true;
    } else {
        err_of_status(&why, "WatchTainted", status, text);
        failed(c, &why);
    }
}

static const struct grpc_client_handlers tainted_handlers = {on_tainted, on_tainted_end};
static const struct grpc_client_handlers bundles_handlers = {on_bundles, on_watch_end};
static const struct grpc_client_handlers svids_handlers = {on_svids, on_watch_end};
static const struct grpc_client_handlers sign_handlers = {on_signed, on_sign_end};
/* Workload_Endpoint.md section 4: on every call. */
static const struct grpc_metadata workload_header = {PROTO_WORKLOAD_KEY, PROTO_WORKLOAD_VALUE};

static int start_watch(struct identity_client *c, struct err *err)
{
    struct grpc_request request = {.path = c->use_agent_key ? PROTO_FETCH_X509_SVID
                                                            : PROTO_FETCH_X509_BUNDLES,
                                   .metadata = &workload_header,
                                   .n_metadata = 1,
                                   .streaming = true};
    c->watch = grpc_client_start(c->conn, &request,
                                 c->use_agent_key ? &svids_handlers : &bundles_handlers, c, err);
    return c->watch != NULL ? 0 : -1;
}

static int start_tainted(struct identity_client *c, struct err *err)
{
    const struct grpc_request request = {.path = PROTO_WATCH_TAINTED,
                                         .metadata = &workload_header,
                                         .n_metadata = 1,
                                         .streaming = true};
    c->tainted = grpc_client_start(c->conn, &request, &tainted_handlers, c, err);
    return c->tainted != NULL ? 0 : -1;
}

static int make_key(void *arg, EVP_PKEY **ret_key, uint8_t **ret_request, size_t *ret_len,
                    struct err *err)
{
    mem_auto(EVP_PKEY_free) EVP_PKEY *key = x509_key_new(err);
    (void)arg;
    if (key == NULL || x509_csr_new(key, ret_request, ret_len, err) == -1) {
        return -1;
    }
    *ret_key = key;
    key = NULL;
    return 0;
}

static int start_sign(struct identity_client *c, struct err *err)
{
    uint8_t *message = NULL;
    size_t len = 0, csr_len = 0;
    mem_autofree uint8_t *csr = NULL;
    mem_auto(EVP_PKEY_free) EVP_PKEY *key = NULL;
    if ((c->keys.make != NULL ? c->keys.make : make_key)(c->keys.arg, &key, &csr, &csr_len, err) ==
        -1) {
        return -1;
    }
    client_write_sign(c->spiffe_id, (struct str){(const char *)csr, csr_len}, &message, &len);
    struct grpc_request request = {.path = PROTO_SIGN_X509_SVID,
                                   .message = {(const char *)message, len},
                                   .metadata = &workload_header,
                                   .n_metadata = 1,
                                   .deadline_ms = SIGN_DEADLINE_MS};
    c->sign = grpc_client_start(c->conn, &request, &sign_handlers, c, err);
    free(message);
    if (c->sign == NULL) {
        return -1;
    }
    c->pending_key = key;
    key = NULL;
    return 0;
}

/* --- the connection --------------------------------------------------------------------------- */

static void drop_connection(struct identity_client *c)
{
    stop_calls(c);
    c->conn = grpc_client_free(c->conn);
    c->status.connected = false;
    c->no_tainted = false;
    /* The next agent on this socket may sign. */
    c->use_agent_key = c->key_mode == IDENTITY_KEY_AGENT;
}

static void on_conn_closed(void *arg, const struct err *why)
{
    struct identity_client *c = arg;
    drop_connection(c);
    failed(c, why);
}

static void on_conn_ready(void *arg)
{
    struct identity_client *c = arg;
    c->status.connected = true;
}

static const struct grpc_client_events conn_events = {on_conn_ready, on_conn_closed};

/* Starts whatever is missing. */
static int proceed(struct identity_client *c, struct err *err)
{
    static const struct grpc_limits limits = {.keepalive_ms = KEEPALIVE_MS};
    if (c->conn == NULL) {
        int fd = c->check_agent ? identity_agent_connect(c->socket_path, err) : -1;
        if (c->check_agent) {
            c->conn =
                fd != -1 ? grpc_client_new_fd(c->loop, fd, &limits, &conn_events, c, err) : NULL;
        } else {
            c->conn = grpc_client_connect(c->loop, c->socket_path, &limits, &conn_events, c, err);
        }
        if (c->conn == NULL) {
            return -1;
        }
    }
    if (c->watch == NULL && start_watch(c, err) == -1) {
        return -1;
    }
    if (c->use_agent_key) {
        return 0;
    }
    if (c->sign == NULL && c->renew_due) {
        return start_sign(c, err);
    }
    if (c->sign == NULL && c->tainted == NULL && !c->no_tainted) {
        return start_tainted(c, err);
    }
    return 0;
}

static void on_retry(void *arg)
{
    struct identity_client *c = arg;
    struct err why = ERR_INIT;
    c->retry_armed = false;
    if (!c->status.gave_up && proceed(c, &why) == -1) {
        /* A connection that takes no calls (GOAWAY) is of no use any more. */
        drop_connection(c);
        failed(c, &why);
    }
}

static void on_renew(void *arg)
{
    struct identity_client *c = arg;
    c->renew_due = true;
    if (!c->retry_armed) {
        on_retry(c);
    }
}

/* --- the owner's side ------------------------------------------------------------------------- */

struct identity_client *identity_client_new(struct loop *loop,
                                            const struct identity_client_options *options,
                                            const struct identity_client_events *events, void *arg,
                                            struct err *err)
{
    struct spiffe_id id;
    char path[sizeof(((struct identity_client *)0)->socket_path)];
    if (identity_socket_path(options->socket, path, sizeof(path), err) == -1) {
        return NULL;
    }
    if (options->spiffe_id != NULL && spiffe_id_parse(str_of(options->spiffe_id), &id, err) == -1) {
        return NULL;
    }
    struct identity_client *c = mem_must_new(struct identity_client);
    memcpy(c->socket_path, path, sizeof(path));
    c->loop = loop;
    c->events = events;
    c->arg = arg;
    c->keys = options->keys;
    c->key_mode = c->keys.make != NULL ? IDENTITY_KEY_CSR : options->key;
    c->check_agent = options->check_agent;
    c->renew_at = options->renew_at != 0 ? options->renew_at : RENEW_AT;
    c->renew_jitter = options->renew_jitter != 0 ? options->renew_jitter : RENEW_JITTER;
    POSTERN_ASSERT(c->renew_at + c->renew_jitter < 100 && c->renew_at >= c->renew_jitter);
    c->use_agent_key = c->key_mode == IDENTITY_KEY_AGENT;
    c->spiffe_id = options->spiffe_id != NULL ? mem_must_strdup(options->spiffe_id) : NULL;
    c->renew_due = true;
    loop_timer_init(&c->retry_timer, loop, on_retry, c);
    loop_timer_init(&c->renew_timer, loop, on_renew, c);
    loop_timer_init(&c->expiry_timer, loop, on_expiry, c);
    arm_retry(c, 0);
    return c;
}

struct identity_client *identity_client_free(struct identity_client *c)
{
    if (c != NULL) {
        loop_timer_disarm(&c->retry_timer);
        loop_timer_disarm(&c->renew_timer);
        loop_timer_disarm(&c->expiry_timer);
        stop_calls(c);
        grpc_client_free(c->conn);
        x509_svid_free(c->svid);
        x509_trust_unref(c->trust);
        identity_state_unref(c->state);
        client_offered_free(c->offered);
        free(c->spiffe_id);
        free(c);
    }
    return NULL;
}

const struct identity_state *identity_client_state(const struct identity_client *client)
{
    return client->state;
}

void identity_client_get_status(const struct identity_client *c, struct identity_status *ret)
{
    *ret = c->status;
    ret->expires_s = c->state != NULL ? c->state->svid->not_after_s : 0;
    ret->next_renewal_ms = c->retry_armed ? c->retry_timer.due_ms : c->renew_timer.due_ms;
}

void identity_client_renew(struct identity_client *c)
{
    c->status.gave_up = false;
    c->renew_due = true;
    arm_retry(c, 0);
}

void identity_client_key_lost(struct identity_client *c)
{
    grpc_client_cancel(c->sign); /* it asks for a key that is gone as well */
    c->sign = NULL;
    EVP_PKEY_free(c->pending_key);
    c->pending_key = NULL;
    c->published_svid = false;
    withdraw(c);
    identity_client_renew(c);
}
