/* What the files of identity/client share. */
#ifndef POSTERN_IDENTITY_CLIENT_PRIV_H
#define POSTERN_IDENTITY_CLIENT_PRIV_H

#include <postern/identity_client.h>

/* --- state.c --- */
/* Takes svid, trust and the list over; what says the rest. */
struct identity_state *client_state_new(struct x509_svid *svid, struct x509_trust *trust,
                                        char **offered, const struct identity_state *what);
char **client_offered_dup(char *const *offered);
void client_offered_free(char **offered);
MEM_DEFINE_CLEANUP(char *, client_offered_free)

/* --- messages.c: pure functions over what an agent sends --- */

/* X509SVIDResponse: the identity `wanted` (NULL: the first) and the bundles. A foreign bundle that
 * cannot be read is left out and told in *ret_warning (ERR_NONE if there is none). A refusal has
 * code ERR_DENIED if the message is in order but does not hold the identity wanted. */
int client_read_svids(struct str message, const char *wanted, struct x509_svid **ret_svid,
                      struct x509_trust **ret_trust, char ***ret_offered, struct err *ret_warning,
                      struct err *err);
/* X509BundlesResponse; the bundle of own_id's trust domain (NULL: not known yet) must be in order,
 * others as above. */
int client_read_bundles(struct str message, const char *own_id, struct x509_trust **ret_trust,
                        struct err *ret_warning, struct err *err);
/* SignX509SVIDResponse, for the request that `key` made. */
int client_read_signed(struct str message, const char *wanted, EVP_PKEY *key,
                       struct x509_svid **ret_svid, struct err *err);
/* WatchTaintedResponse: whether one of the tainted authorities stands above this SVID. */
int client_read_tainted(struct str message, const struct x509_svid *svid, bool *ret_tainted,
                        struct err *err);
/* SignX509SVIDRequest with a certificate request; the message is the caller's to free(). */
void client_write_sign(const char *wanted, struct str csr, uint8_t **ret, size_t *ret_len);

#endif
