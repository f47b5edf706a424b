/*
 * One connection to the agent: a stream that watches (bundles or SVIDs), with a key of our own a
 * request to sign for each renewal and a stream that tells of tainted authorities; and what is done
 * with what comes.
 */
#include <postern/identity_client.h>

#include "identity_client_priv.h"
#include <postern/os.h>
#include <postern/proto.h>
#include <stdlib.h>

enum {
    SIGN_DEADLINE_MS = 10000,
    KEEPALIVE_MS = 20000, /* an agent that is stopped and not gone is noticed by this */
};

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
    client_bad_answer(c, &why);
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
        client_bad_answer(c, &err);
        return;
    }
    if (warning.code != ERR_NONE) {
        client_bad_answer(c, &warning);
    }
    client_good_message(c);
    if (!take_trust(c, trust)) {
        return;
    }
    if (c->svid != NULL && c->sign == NULL && !still_trusted(c)) {
        c->renew_due = true;
        if (!c->retry_armed) {
            client_arm_retry(c, 0);
        }
    }
    client_publish(c);
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
        client_bad_answer(c, &err);
    } else if (tainted && c->sign != NULL) {
        c->ask_tainted_again = true; /* what comes may have been signed just before */
    } else if (tainted) {
        c->renew_due = true;
        if (!c->retry_armed) {
            client_arm_retry(c, 0);
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
            client_denied(c,
                          &err); /* each message is the whole state: what is absent is withdrawn */
        } else {
            client_bad_answer(c, &err);
        }
        return;
    }
    if (warning.code != ERR_NONE) {
        client_bad_answer(c, &warning);
    }
    if (!usable(c, svid)) {
        x509_trust_unref(trust);
        return;
    }
    client_good_message(c);
    client_offered_free(c->offered);
    c->offered = offered;
    offered = NULL;
    bool new_svid = take_svid(c, svid);
    bool new_trust = take_trust(c, trust);
    if (new_svid || new_trust) {
        client_publish(c);
    }
}

static void on_signed(void *arg, struct str message)
{
    struct identity_client *c = arg;
    struct err err = ERR_INIT;
    struct x509_svid *svid = NULL;
    if (client_read_signed(message, c->spiffe_id, c->pending_key, &svid, &err) == -1) {
        client_bad_answer(c, &err);
        return;
    }
    if (!usable(c, svid)) {
        return;
    }
    client_good_message(c);
    c->status.fallback = false;
    if (take_svid(c, svid)) {
        client_publish(c);
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

void client_stop_calls(struct identity_client *c)
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
    client_stop_calls(c);
    c->use_agent_key = true;
    client_arm_retry(c, 0);
    if (!c->status.fallback) {
        c->status.fallback = true;
        client_notice(c, IDENTITY_FELL_BACK, why);
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
        client_denied(c, &why);
    } else if (status == GRPC_INVALID_ARGUMENT) {
        client_give_up(c, &why);
    } else if (status == GRPC_UNIMPLEMENTED && c->key_mode == IDENTITY_KEY_AUTO &&
               !c->use_agent_key) {
        fall_back(c, &why);
    } else if (status == GRPC_UNIMPLEMENTED) {
        if (c->keys.make != NULL) {
            err_advise(&why, "a key in a process of its own needs Postern's agent");
        } else if (c->key_mode == IDENTITY_KEY_CSR) {
            err_advise(&why, "set key: auto, so that the agent makes the key");
        }
        client_give_up(c, &why);
    } else {
        client_failed(c, &why);
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
        client_arm_retry(c, 0);
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
        client_failed(c, &c->status.last_error); /* its answer was no good */
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
        client_failed(c, &why);
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

void client_drop_connection(struct identity_client *c)
{
    client_stop_calls(c);
    c->conn = grpc_client_free(c->conn);
    c->status.connected = false;
    c->no_tainted = false;
    /* The next agent on this socket may sign. */
    c->use_agent_key = c->key_mode == IDENTITY_KEY_AGENT;
}

static void on_conn_closed(void *arg, const struct err *why)
{
    struct identity_client *c = arg;
    client_drop_connection(c);
    client_failed(c, why);
}

static void on_conn_ready(void *arg)
{
    struct identity_client *c = arg;
    c->status.connected = true;
}

static const struct grpc_client_events conn_events = {on_conn_ready, on_conn_closed};

/* Starts whatever is missing. */
int client_proceed(struct identity_client *c, struct err *err)
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
