/* tls_sides: certificates and parties of the trust domain a.b, for tests of resumption. Asserts
 * instead of failing. */
#ifndef POSTERN_TESTS_TLS_SIDES_H
#define POSTERN_TESTS_TLS_SIDES_H

#include "certs.h"
#include <postern/tls.h>

/* From a minute ago, by os_wall_s, for to_s seconds. issuer NULL: an authority. */
struct certs_pair sides_make(const char *uri, const struct certs_pair *issuer, int64_t to_s);
/* With resumption. root NULL: it asks for no certificate. */
struct tls_party *sides_party(const struct certs_pair *own, const struct certs_pair *root,
                              bool server, enum tls_min min);

#endif
