/* conf_jwt: whose tokens in requests count. Of a Proxy file and of a Gateway file; docs/claims.md.
 * See conf.h for the rest. */
#ifndef POSTERN_CONF_JWT_H
#define POSTERN_CONF_JWT_H

#include <postern/conf_lists.h>
#include <stdbool.h>

enum { CONF_JWT_MAX = 16 }; /* entries of a file */

struct conf_jwt {
    char *issuer;       /* of ordinary tokens; or else NULL, and trust_domain is there: */
    char *trust_domain; /* of JWT-SVIDs */
    char *jwks_file;    /* absolute; or else NULL, and bundle is true: */
    bool bundle;        /* the keys are what the agent tells of trust_domain */
    struct conf_strings audiences; /* one of them has to be the token's; at least one */
    char *header; /* in lower case: holds the token alone; NULL: Authorization, as a Bearer */
    bool forward; /* the workload gets the token, too */
};
struct conf_jwts {
    struct conf_jwt *items;
    size_t n;
};

#endif
