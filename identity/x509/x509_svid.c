/*
 * An own identity: what the agent sent, checked before anything relies on it.
 */
#include <postern/x509.h>

#include "x509_priv.h"
#include <openssl/err.h>
#include <stdlib.h>

static int fill(struct x509_svid *s, struct err *err)
{
    char id[SPIFFE_ID_MAX + 1];
    struct spiffe_id parsed;
    if (x509_get_spiffe_id(s->leaf, id, err) == -1 || x509_leaf_check(s->leaf, err) == -1) {
        return -1;
    }
    if (spiffe_id_parse(str_of(id), &parsed, err) == -1) {
        return -1;
    }
    if (parsed.path.n == 0) {
        return err_set(err, ERR_PROTOCOL, "'%.200s' names a trust domain, not a workload", id);
    }
    ERR_clear_error();
    if (X509_check_private_key(s->leaf, s->key) != 1) {
        return x509_err_crypto(err, "the key does not fit the certificate");
    }
    s->spiffe_id = mem_must_strdup(id);
    s->not_before_s = x509_time_s(X509_get0_notBefore(s->leaf));
    s->not_after_s = x509_not_after_s(s->leaf);
    x509_serial_text(s->leaf, s->serial);
    for (int i = 0; i < sk_X509_num(s->intermediates); i++) {
        X509 *cert = sk_X509_value(s->intermediates, i);
        int64_t end_s = x509_not_after_s(cert);
        if (x509_ca_check(cert, true, err) == -1) {
            return err_prefix(err, "certificate %d of the chain", i + 2);
        }
        s->not_after_s = end_s < s->not_after_s ? end_s : s->not_after_s;
    }
    return 0;
}

int x509_svid_new(struct str chain, EVP_PKEY *key, struct x509_svid **ret, struct err *err)
{
    mem_auto(x509_svid_free) struct x509_svid *s = mem_must_new(struct x509_svid);
    s->intermediates = x509_chain_from_der(chain, err);
    if (s->intermediates == NULL) {
        return err_prefix(err, "SVID");
    }
    s->leaf = sk_X509_shift(s->intermediates);
    EVP_PKEY_up_ref(key);
    s->key = key;
    if (fill(s, err) == -1) {
        return err_prefix(err, "SVID");
    }
    *ret = s;
    s = NULL;
    return 0;
}

/* Only a certificate that is an SVID as it should be has an identity of its own. */
static char *own_id(X509 *leaf)
{
    char id[SPIFFE_ID_MAX + 1];
    struct spiffe_id parsed;
    bool is_svid = x509_get_spiffe_id(leaf, id, NULL) == 0 && x509_leaf_check(leaf, NULL) == 0 &&
                   spiffe_id_parse(str_of(id), &parsed, NULL) == 0 && parsed.path.n > 0;
    return is_svid ? mem_must_strdup(id) : NULL;
}

int x509_own_new(STACK_OF(X509) * chain, EVP_PKEY *key, struct x509_svid **ret, struct err *err)
{
    mem_auto(x509_svid_free) struct x509_svid *s = mem_must_new(struct x509_svid);
    if (sk_X509_num(chain) < 1 || sk_X509_num(chain) > X509_CHAIN_MAX) {
        return err_set(err, ERR_CONFIG, "%d certificates; a chain has 1 to %d", sk_X509_num(chain),
                       (int)X509_CHAIN_MAX);
    }
    s->intermediates = X509_chain_up_ref(chain);
    POSTERN_ASSERT(s->intermediates != NULL);
    s->leaf = sk_X509_shift(s->intermediates);
    EVP_PKEY_up_ref(key);
    s->key = key;
    ERR_clear_error();
    if (X509_check_private_key(s->leaf, key) != 1) {
        return x509_err_crypto(err, "the key does not fit the certificate");
    }
    s->spiffe_id = own_id(s->leaf);
    s->not_before_s = x509_time_s(X509_get0_notBefore(s->leaf));
    s->not_after_s = x509_not_after_s(s->leaf);
    x509_serial_text(s->leaf, s->serial);
    for (int i = 0; i < sk_X509_num(s->intermediates); i++) {
        int64_t end_s = x509_not_after_s(sk_X509_value(s->intermediates, i));
        s->not_after_s = end_s < s->not_after_s ? end_s : s->not_after_s;
    }
    *ret = s;
    s = NULL;
    return 0;
}

struct x509_svid *x509_svid_free(struct x509_svid *s)
{
    if (s != NULL) {
        free(s->spiffe_id);
        X509_free(s->leaf);
        x509_stack_free(s->intermediates);
        EVP_PKEY_free(s->key);
        free(s);
    }
    return NULL;
}

struct x509_svid *x509_svid_dup(const struct x509_svid *s)
{
    struct x509_svid *dup = mem_must_new(struct x509_svid);
    *dup = *s;
    dup->spiffe_id = s->spiffe_id != NULL ? mem_must_strdup(s->spiffe_id) : NULL;
    dup->intermediates = X509_chain_up_ref(s->intermediates);
    POSTERN_ASSERT(dup->intermediates != NULL);
    X509_up_ref(dup->leaf);
    EVP_PKEY_up_ref(dup->key);
    return dup;
}
