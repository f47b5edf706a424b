/* What the service may ask about tokens, judged like a certificate: the caller, its entry, and
 * bounds are this process's own knowledge; of the service come only the audiences. */
#include "keeper_priv.h"

#include <postern/os.h>
#include <stdlib.h>
#include <string.h>

/* --- answers ---------------------------------------------------------------------------------- */
/* The audiences of the message, which fill their bytes exactly. */
static bool take_audiences(const struct agent_msg_jwt_sign *ask,
                           struct str ret[AGENT_AUDIENCES_MAX])
{
    size_t at = 0;

    for (uint32_t i = 0; i < ask->n_audiences; i++) {
        if (ask->lens[i] > ask->audiences_len - at) {
            return false;
        }
        ret[i] = (struct str){(const char *)ask->audiences + at, ask->lens[i]};
        at += ask->lens[i];
        if (!jwt_audience_ok(ret[i])) {
            return false;
        }
    }
    return ask->n_audiences > 0 && at == ask->audiences_len;
}

static void hex(const uint8_t *p, size_t n, char *ret)
{
    for (size_t i = 0; i < n; i++) {
        (void)snprintf(ret + 2 * i, 3, "%02x", p[i]);
    }
}

static void log_signed(const struct keeper *k, const struct keeper_caller *c,
                       const struct keeper_grant *g, const struct keeper_token *t,
                       const struct str *audiences, size_t n_audiences)
{
    struct log_line l;
    char when[32], jti[2 * JWT_JTI_SIZE + 1];

    hex(t->jti, sizeof(t->jti), jti);
    os_time_text(t->expires_s, when, sizeof(when));
    log_begin(&l, k->log, LOG_INFO, "jwt_issued");
    log_str(&l, "spiffe_id", g->spiffe_id);
    log_str(&l, "entry", g->entry->id);
    log_strn(&l, "audience", audiences[0]);
    log_uint(&l, "audiences", n_audiences);
    log_str(&l, "jti", jti);
    log_str(&l, "kid", t->kid);
    log_str(&l, "not_after", when);
    log_uint(&l, "handle", c->handle);
    keeper_log_caller(&l, c);
    log_end(&l);
}

static enum agent_outcome sign(struct keeper *k, const struct keeper_caller *c,
                               const struct keeper_grant *g, const struct str *audiences, size_t n,
                               struct agent_msg_jwt_signed *a)
{
    struct keeper_token t;
    struct err err = ERR_INIT;
    size_t len;

    if (keeper_jwt_sign(&k->jwt, str_of(g->spiffe_id), g->entry->jwt_ttl_s, audiences, n,
                        keeper_clock_wall_s(&k->clock), &t, &err) == -1) {
        log_failure(k->log, LOG_ERROR, "jwt_failed", &err);
        return AGENT_UNAVAILABLE;
    }
    len = strlen(t.text);
    POSTERN_ASSERT(len <= AGENT_TOKEN_MAX);
    memcpy(a->token, t.text, len);
    a->token_len = (uint32_t)len;
    a->issued_s = t.issued_s;
    a->expires_s = t.expires_s;
    k->jwt.n_issued++;
    keeper_journal_issued_jwt(k, c, g, t.kid, t.jti, t.issued_s, t.expires_s);
    log_signed(k, c, g, &t, audiences, n);
    mem_wipe(t.text, len);
    free(t.text);
    return AGENT_OK;
}

void keeper_on_jwt_sign(struct keeper *k)
{
    const struct agent_msg_jwt_sign *ask = &k->in.jwt_sign;
    struct agent_msg_jwt_signed *a = &k->answer.jwt_signed;
    struct keeper_caller *c = NULL;
    struct keeper_grant g = {.entry = NULL};
    struct str audiences[AGENT_AUDIENCES_MAX];
    enum agent_outcome outcome;

    _Static_assert((int)AGENT_TOKEN_MAX == (int)JWT_TOKEN_MAX, "a token fits its message");
    agent_ipc_init(a, AGENT_MSG_JWT_SIGNED, ask->head.request_id);
    a->handle = ask->handle;
    outcome = keeper_judge(k, ask->handle, ask->generation, ask->entry, &c, &g);
    if (outcome == AGENT_OK && !take_audiences(ask, audiences)) {
        outcome = AGENT_BAD_AUDIENCE;
    }
    if (outcome == AGENT_OK &&
        !keeper_caller_charge(k->callers, c, keeper_clock_now_ms(&k->clock))) {
        outcome = AGENT_LIMITED;
    }
    if (outcome == AGENT_OK) {
        outcome = sign(k, c, &g, audiences, ask->n_audiences, a);
    }
    a->outcome = outcome;
    if (outcome != AGENT_OK) {
        keeper_log_refusal(k, ask->handle, c, &g, outcome);
    }
}

void keeper_on_jwks_get(struct keeper *k)
{
    struct agent_msg_jwks *a = &k->answer.jwks;

    agent_ipc_init(a, AGENT_MSG_JWKS, k->in.ask.head.request_id);
    a->generation = k->jwt.generation;
    memcpy(a->jwks, k->jwt.set != NULL ? k->jwt.set : "", k->jwt.set_len);
    a->jwks_len = (uint32_t)k->jwt.set_len;
}
