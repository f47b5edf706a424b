/* What names, lists and judging by ordinary authorities share. */
#ifndef POSTERN_X509_NAMES_PRIV_H
#define POSTERN_X509_NAMES_PRIV_H

#include <openssl/x509v3.h>
#include <postern/x509_peers.h>

/* --- x509_names.c --- */
/* *ret is the caller's (GENERAL_NAMES_free), NULL: the certificate has none. */
int x509_sans_read(X509 *cert, GENERAL_NAMES **ret, struct err *err);
/* Whether one counts; it becomes the principal. want NULL: anybody. */
bool x509_names_find(const struct x509_names *want, X509 *cert, const GENERAL_NAMES *sans,
                     bool is_server, struct x509_peer *peer);
/* For people; NULL: none is named. */
const char *x509_names_first(const struct x509_names *want);
/* The host that is demanded as well, or NULL. */
const char *x509_names_host(const struct x509_names *want);

/* --- x509_crl.c --- */
struct x509_crls;
/* Takes references. */
int x509_crls_new(STACK_OF(X509_CRL) * lists, STACK_OF(X509) * cas, struct x509_crls **ret,
                  struct err *err);
struct x509_crls *x509_crls_free(struct x509_crls *c);
size_t x509_crls_count(const struct x509_crls *c);
int64_t x509_crls_end_s(const struct x509_crls *c);
bool x509_crls_equal(const struct x509_crls *a, const struct x509_crls *b);
/* Each certificate of a verified path but the anchor, by its issuer's list. */
enum x509_verdict x509_crls_judge(const struct x509_crls *c, STACK_OF(X509) * path,
                                  const struct x509_ask *ask, struct err *err);

#endif
