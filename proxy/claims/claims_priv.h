/* What the files of claims share. */
#ifndef POSTERN_CLAIMS_PRIV_H
#define POSTERN_CLAIMS_PRIV_H

#include <postern/claims.h>
#include <postern/jwt.h>
#include <stdatomic.h>

enum { CLAIMS_DIGEST_SIZE = 32 };

/* Entries of one header. */
struct claims_place {
    char *header;               /* owned; NULL: Authorization, as a Bearer */
    struct jwt_issuer *issuers; /* owned; what they speak of is the keys' */
    bool *forward;              /* owned: of each of them */
    size_t n_issuers;
};
/* The keys of one entry, shared by all that did not change them. */
struct claims_set {
    _Atomic unsigned refs;
    struct jwt_keys *keys; /* owned */
    uint8_t digest[CLAIMS_DIGEST_SIZE];
    struct file_mark mark;
};
struct claims_keys {
    _Atomic unsigned refs;
    struct conf_jwt *entries; /* owned copies */
    struct claims_set **sets; /* references, one an entry; NULL: nothing is known of it */
    size_t n;
    struct claims_place *places; /* owned */
    size_t n_places;
    uint8_t digest[CLAIMS_DIGEST_SIZE]; /* of all that it is made of */
};

struct json_t;
/* All that a verified token says, as rules see it. Fails where that is too much. */
int claims_new(const struct json_t *claims, int64_t end_s, struct claims **ret, struct err *err);
/* Once, before anybody has it. */
void claims_withhold(struct claims *c, const char *header);

#endif
