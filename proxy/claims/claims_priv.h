/* What the files of claims share. */
#ifndef POSTERN_CLAIMS_PRIV_H
#define POSTERN_CLAIMS_PRIV_H

#include <postern/claims.h>
#include <postern/jwt.h>

enum { CLAIMS_DIGEST_SIZE = 32 };

/* Entries of one header. */
struct claims_place {
    char *header;               /* owned; NULL: Authorization, as a Bearer */
    struct jwt_issuer *issuers; /* owned; what they speak of is the keys' */
    size_t n_issuers;
};
struct claims_keys {
    struct conf_jwt *entries; /* owned copies */
    struct jwt_keys **sets;   /* owned, one an entry */
    size_t n;
    struct claims_place *places; /* owned */
    size_t n_places;
    uint8_t digest[CLAIMS_DIGEST_SIZE]; /* of all that it is made of */
};

struct json_t;
/* All that a verified token says, as rules see it. Fails where that is too much. */
int claims_new(const struct json_t *claims, int64_t end_s, struct claims **ret, struct err *err);

#endif
