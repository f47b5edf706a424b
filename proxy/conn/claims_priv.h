/* What a request's token said, as long as the request goes on and the token does. */
#ifndef POSTERN_CONN_CLAIMS_PRIV_H
#define POSTERN_CONN_CLAIMS_PRIV_H

#include "conn_priv.h"

/* Embedded in an exchange; zeroed. */
struct conn_claims {
    struct claims *claims; /* a reference; NULL: there is no token, or it has ended */
    struct loop_timer timer;
    void (*ended)(void *arg);
    void *arg;
};

/* Whether tokens are looked for at all, and headers have to be known for it. */
bool conn_claims_wanted(const struct conn *c);
/* Takes the claims of the request with these headers. Calls `ended` once when they count no more,
 * with none of them left. False: there is a token that does not hold, err says why. */
bool conn_claims_take(struct conn_claims *k, const struct conn *c,
                      const struct policy_headers *headers, void (*ended)(void *arg), void *arg,
                      struct err *err);
void conn_claims_drop(struct conn_claims *k);
/* Takes the token out of what the workload gets, where the file says so. */
void conn_claims_withhold(const struct conn_claims *k, struct http1_request *r);
/* For policy_query; lent. */
static inline const struct policy_claims *conn_claims_list(const struct conn_claims *k)
{
    return k->claims != NULL ? claims_list(k->claims) : NULL;
}

#endif
