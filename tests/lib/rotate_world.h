/*
 * rotate_world: what tests of rotation stand on: an authority, identities one after another, and
 * readers that judge a published set as a program would. Asserts instead of failing.
 */
#ifndef POSTERN_TESTS_ROTATE_WORLD_H
#define POSTERN_TESTS_ROTATE_WORLD_H

#include "certs.h"

#include <postern/rotate.h>

struct rotate_world {
    struct certs_pair root, mid, foreign, expired; /* mid: an intermediate; foreign: of other.org */
    struct x509_trust *trust;                      /* example.org (root and expired), other.org */
    struct x509_svid *svid;                        /* the present one; see rotate_world_renew */
    struct identity_state state;
    char dir[64]; /* a directory of its own, for outputs */
};

struct rotate_world *rotate_world_new(void);
/* Removes the directory with all that is in it. */
struct rotate_world *rotate_world_free(struct rotate_world *w);
/* Another key and certificate, of this kind; `with_mid`: under the intermediate. */
void rotate_world_renew(struct rotate_world *w, enum certs_key key, bool with_mid);
/* The bytes of a set of the present identity. */
struct rotate_files *rotate_world_files(struct rotate_world *w, const struct conf_rotate_output *o,
                                        const char *passphrase);
/* "OUTPUT" of a file "kind: Rotate ... outputs: [OUTPUT]", with DIR in it replaced. */
struct conf_rotate *rotate_world_conf(const struct rotate_world *w, const char *output);

/* What a reader of DIR sees, who opens the directory behind ..data, and one by the plain names.
 * NULL: nothing is published. Else a text that says what is torn, or "whole SERIAL". */
const char *rotate_world_read(const char *dir, char *space, size_t size);

#endif
