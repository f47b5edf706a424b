/*
 * Groups for the exchange of keys: which are offered, and which was agreed on. The hybrid of X25519
 * and ML-KEM comes first where OpenSSL has it (3.5): who records today must not read when X25519
 * falls.
 */
#include <postern/tls.h>

#include "tls_priv.h"

#include <openssl/err.h>
#include <stdio.h>

/* OpenSSL 3.5 knows the hybrid group and the `*` (send a key share): two shares go out, so that a
 * peer with an older library needs no second round trip. Older ones refuse such a list whole. */
struct lists {
    const char *hybrid, *hybrid_384; /* tried first */
    const char *plain, *plain_384;   /* NULL: there is nothing else */
};
static const struct lists lists[] = {
    /* Ordinary certificates may have keys of P-384, which TLS 1.2 looks for here. */
    [TLS_MIN_X25519] = {"*X25519MLKEM768:*X25519:P-256", "*X25519MLKEM768:*X25519:P-256:P-384",
                        "X25519:P-256", "X25519:P-256:P-384"},
    [TLS_MIN_P384] = {"*X25519MLKEM768:*P-384", "*X25519MLKEM768:*P-384", "P-384", "P-384"},
    [TLS_MIN_X25519MLKEM768] = {"X25519MLKEM768", "X25519MLKEM768", NULL, NULL},
};

/* The macro casts const away, which clang minds; this is what it does. */
static bool set_list(SSL_CTX *c, const char *list)
{
    char copy[64];
    if (list == NULL) {
        return false;
    }
    snprintf(copy, sizeof(copy), "%s", list);
    return SSL_CTX_ctrl(c, SSL_CTRL_SET_GROUPS_LIST, 0, copy) == 1;
}

bool tls_groups_set(SSL_CTX *c, enum tls_min_group min, bool ordinary)
{
    const struct lists *l = &lists[min];
    return set_list(c, ordinary ? l->hybrid_384 : l->hybrid) ||
           set_list(c, ordinary ? l->plain_384 : l->plain);
}

int tls_min_group_check(enum tls_min_group min, struct err *err)
{
    SSL_CTX *c = SSL_CTX_new(TLS_method());
    bool ok = c != NULL && tls_groups_set(c, min, false);
    SSL_CTX_free(c);
    ERR_clear_error();
    if (ok) {
        return 0;
    }
    err_set(err, ERR_CONFIG, "'min_group: %s' cannot be had: this is %s",
            min == TLS_MIN_X25519MLKEM768 ? "x25519mlkem768"
            : min == TLS_MIN_P384         ? "p384"
                                          : "x25519",
            OpenSSL_version(OPENSSL_VERSION));
    err_expected(err, "OpenSSL 3.5 or later, which has X25519MLKEM768");
    return err_advise(err, "lower `min_group`, or run where the library is newer (Debian 13)");
}

/* RFC 8446's numbers come behind this where OpenSSL has no other. */
enum { NO_NID = 0x1000000, NUMBER_X25519MLKEM768 = 0x11ec };

enum tls_group tls_group(const struct tls_stream *s)
{
    switch (SSL_get_negotiated_group(s->ssl)) {
    case NID_X25519:
        return TLS_GROUP_X25519;
    case NID_X9_62_prime256v1:
        return TLS_GROUP_P256;
    case NID_secp384r1:
        return TLS_GROUP_P384;
    case NO_NID | NUMBER_X25519MLKEM768:
        return TLS_GROUP_X25519MLKEM768;
    default:
        return TLS_GROUP_OTHER;
    }
}

const char *tls_group_name(enum tls_group group)
{
    static const char *const names[TLS_N_GROUPS] = {
        [TLS_GROUP_X25519] = "X25519", [TLS_GROUP_P256] = "P-256",
        [TLS_GROUP_P384] = "P-384",    [TLS_GROUP_X25519MLKEM768] = "X25519MLKEM768",
        [TLS_GROUP_OTHER] = "other",
    };
    return names[group];
}
