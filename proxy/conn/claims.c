/* Tokens of requests on inbound connections: docs/claims.md. */
#include "claims_priv.h"

#include <postern/os.h>

/* Whoever sets the clock back meanwhile is noticed so often. */
enum { LOOK_MS = 60 * 60 * 1000 };

bool conn_claims_wanted(const struct conn *c)
{
    return conn_snapshot(c)->claims != NULL;
}

static void watch(struct conn_claims *k)
{
    int64_t left_s = claims_end_s(k->claims) - os_wall_s();
    uint64_t left_ms = left_s > 0 ? (uint64_t)left_s * 1000 : 0;
    loop_timer_arm(&k->timer, left_ms < LOOK_MS ? left_ms : LOOK_MS);
}

static void on_timer(void *arg)
{
    struct conn_claims *k = arg;
    if (claims_end_s(k->claims) > os_wall_s()) {
        watch(k);
        return;
    }
    k->claims = claims_unref(k->claims);
    k->ended(k->arg);
}

bool conn_claims_take(struct conn_claims *k, const struct conn *c,
                      const struct policy_headers *headers, void (*ended)(void *arg), void *arg,
                      struct err *err)
{
    conn_claims_drop(k);
    if (claims_look(c->worker->claims, conn_snapshot(c)->claims, headers, os_wall_s(), &k->claims,
                    err) == -1) {
        return false;
    }
    if (k->claims != NULL) {
        k->ended = ended;
        k->arg = arg;
        loop_timer_init(&k->timer, c->worker->loop, on_timer, k);
        watch(k);
    }
    return true;
}

void conn_claims_withhold(const struct conn_claims *k, struct http1_request *r)
{
    const char *name = k->claims != NULL ? claims_withheld(k->claims) : NULL;
    for (unsigned i = 0; name != NULL && i < r->n_headers; i++) {
        r->headers[i].drop = r->headers[i].drop || str_eq_nocase(r->headers[i].name, str_of(name));
    }
}

void conn_claims_drop(struct conn_claims *k)
{
    if (k->claims != NULL) {
        k->claims = claims_unref(k->claims);
        loop_timer_disarm(&k->timer);
    }
}
