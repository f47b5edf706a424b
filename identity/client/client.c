/*
 * The client's life: what there is of an identity, when it ends, when what is missing is tried
 * again, and the owner's side. One timer says when to try what is missing, one when to renew, one
 * when the identity ends. What is asked of the agent, and what comes of it, is in calls.c.
 */
#include <postern/identity_client.h>

#include "identity_client_priv.h"
#include <postern/os.h>
#include <stdlib.h>
#include <string.h>

enum {
    BACKOFF_MIN_MS = 100,
    BACKOFF_MAX_MS = 10000,
    /* The wall clock may be set: how often it is looked at. */
    CLOCK_MIN_MS = 1000,
    CLOCK_MAX_MS = 10000,
    RENEW_AT = 50, /* percent of what is left */
    RENEW_JITTER = 5,
};

void client_notice(struct identity_client *c, enum identity_notice what, const struct err *why)
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
void client_publish(struct identity_client *c)
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
    client_notice(c, news, NULL);
}

/* The timer of the renewal does not know of it. */
static void renew_if_clock_was_set(struct identity_client *c)
{
    if (!c->use_agent_key && !c->renew_due && c->sign == NULL && os_wall_s() > c->renew_at_s) {
        c->renew_due = true;
        if (!c->retry_armed) {
            client_arm_retry(c, 0);
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
    client_notice(c, IDENTITY_EXPIRED, &why);
    if (!c->retry_armed && !c->status.gave_up) {
        client_arm_retry(c, 0); /* nothing has failed: the clock was set */
    }
}

/* --- trying again ----------------------------------------------------------------------------- */

void client_arm_retry(struct identity_client *c, uint64_t delay_ms)
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
void client_failed(struct identity_client *c, const struct err *why)
{
    c->status.last_error = *why;
    c->status.last_error_ms = os_now_ms();
    if (c->retry_armed || c->status.gave_up) {
        return;
    }
    c->status.failures_in_row++;
    client_arm_retry(c, backoff_ms(c));
    if (c->status.failures_in_row == 1 && !c->status.denied) {
        client_notice(c, IDENTITY_AGENT_AWAY, why);
    }
}

void client_give_up(struct identity_client *c, const struct err *why)
{
    c->status.last_error = *why;
    c->status.last_error_ms = os_now_ms();
    if (!c->status.gave_up) {
        c->status.gave_up = true;
        loop_timer_disarm(&c->retry_timer);
        c->retry_armed = false;
        client_notice(c, IDENTITY_GAVE_UP, why);
    }
}

void client_denied(struct identity_client *c, const struct err *why)
{
    bool first = !c->status.denied;
    c->status.denied = true;
    client_failed(c, why);
    withdraw(c);
    if (first) {
        client_notice(c, IDENTITY_DENIED, why);
    }
}

/* Told once, not at each retry that gets the same again. */
void client_bad_answer(struct identity_client *c, const struct err *why)
{
    bool again = c->status.failures_in_row > 0 && strcmp(c->status.last_error.what, why->what) == 0;
    c->status.last_error = *why;
    c->status.last_error_ms = os_now_ms();
    if (!again) {
        client_notice(c, IDENTITY_BAD_ANSWER, why);
    }
}

void client_good_message(struct identity_client *c)
{
    bool was_away = c->status.failures_in_row > 0;
    c->status.failures_in_row = 0;
    c->status.denied = false;
    c->status.last_success_ms = os_now_ms();
    if (was_away) {
        client_notice(c, IDENTITY_AGENT_BACK, NULL);
    }
}

static void on_retry(void *arg)
{
    struct identity_client *c = arg;
    struct err why = ERR_INIT;
    c->retry_armed = false;
    if (!c->status.gave_up && client_proceed(c, &why) == -1) {
        /* A connection that takes no calls (GOAWAY) is of no use any more. */
        client_drop_connection(c);
        client_failed(c, &why);
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
    client_arm_retry(c, 0);
    return c;
}

struct identity_client *identity_client_free(struct identity_client *c)
{
    if (c != NULL) {
        loop_timer_disarm(&c->retry_timer);
        loop_timer_disarm(&c->renew_timer);
        loop_timer_disarm(&c->expiry_timer);
        client_stop_calls(c);
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
    client_arm_retry(c, 0);
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
