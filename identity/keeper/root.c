/* Roots of the agent's own: making one, reading one, and the two files in which releases before
 * this kept theirs. A root is a keeper_record: everything of it is in the state file. */
#include "keeper_priv.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <postern/os.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    OLD_FILE_MAX = 16384, /* a P-256 key or a root certificate is below 1 kB */
    ROOT_PATH_LEN = 1,    /* root, one intermediate, leaf */
    ID_BYTES = 8,
};

const char *const keeper_root_advice =
    "restore the ca directory from a backup, or move it away: the next start then makes a new "
    "root, which every peer has to learn";

/* As the certificate's subject has it: the first bytes of the key's SHA-256. */
static int set_id(struct keeper_record *r, const uint8_t point[AGENT_POINT_SIZE], struct err *err)
{
    uint8_t hash[EVP_MAX_MD_SIZE];

    if (EVP_Digest(point, AGENT_POINT_SIZE, hash, NULL, EVP_sha256(), NULL) != 1) {
        ERR_clear_error();
        return err_set(err, ERR_CRYPTO, "SHA-256");
    }
    for (size_t i = 0; i < ID_BYTES; i++) {
        (void)snprintf(r->id + 2 * i, 3, "%02x", hash[i]);
    }
    return 0;
}

/* --- in a token --- */
static int make_in_token(const struct keeper_authority *a, struct keeper_record *r, int64_t now_s,
                         struct err *err)
{
    mem_auto(X509_free) X509 *cert = NULL;
    mem_autofree uint8_t *der = NULL;
    uint8_t point[AGENT_POINT_SIZE];
    size_t len = 0;

    if (keeper_signer_root(a->signer, r->state != KEEPER_ACTIVE, now_s - KEEPER_BACKDATE_S,
                           now_s + a->root_ttl_s, point, &cert, err) == -1 ||
        set_id(r, point, err) == -1 || x509_to_der(cert, &der, &len, err) == -1) {
        return err_prefix(err, "making a new root");
    }
    if (!keeper_record_set_cert(r, der, len)) {
        return err_set(err, ERR_LIMIT, "a root of %zu bytes", len);
    }
    r->created_s = r->changed_s = now_s;
    r->not_after_s = x509_not_after_s(cert);
    return 0;
}

/* --- making ----------------------------------------------------------------------------------- */
int keeper_root_make(const struct keeper_authority *a, struct keeper_record *r, int64_t now_s,
                     struct err *err)
{
    mem_auto(EVP_PKEY_free) EVP_PKEY *key = NULL;
    mem_auto(X509_free) X509 *cert = NULL;
    mem_autofree uint8_t *cert_der = NULL;
    uint8_t *key_der = NULL;
    size_t key_len, cert_len;
    uint8_t point[AGENT_POINT_SIZE];
    struct x509_issue what = {.spiffe_id = str_of(a->trust_domain_id),
                              .point = point,
                              .ca = true,
                              .path_len = ROOT_PATH_LEN,
                              .not_before_s = now_s - KEEPER_BACKDATE_S,
                              .not_after_s = now_s + a->root_ttl_s};
    bool ok;

    if (a->signer != NULL) {
        return make_in_token(a, r, now_s, err);
    }
    key = x509_key_new(err);
    if (key == NULL || x509_key_point(key, point, err) == -1 || set_id(r, point, err) == -1 ||
        x509_issue(&what, NULL, key, &cert, err) == -1 ||
        x509_to_der(cert, &cert_der, &cert_len, err) == -1 ||
        x509_key_to_pkcs8(key, &key_der, &key_len, err) == -1) {
        return err_prefix(err, "making a new root");
    }
    ok =
        keeper_record_set_key(r, key_der, key_len) && keeper_record_set_cert(r, cert_der, cert_len);
    mem_secret_free(key_der);
    if (!ok) {
        return err_set(err, ERR_LIMIT, "no memory for a new root");
    }
    r->created_s = r->changed_s = now_s;
    r->not_after_s = x509_not_after_s(cert);
    return 0;
}

/* --- reading ---------------------------------------------------------------------------------- */
static int parse_key(const struct keeper_record *r, EVP_PKEY **ret, struct err *err)
{
    uint8_t point[AGENT_POINT_SIZE];
    EVP_PKEY *key = x509_key_from_pkcs8((struct str){(const char *)r->key, r->key_len}, NULL);

    if (key == NULL || x509_key_point(key, point, NULL) == -1) {
        EVP_PKEY_free(key);
        err_set(err, ERR_CONFIG, "root.key does not hold a whole P-256 private key");
        err_expected(err, "PKCS#8 DER as the agent wrote it");
        return err_advise(err, "%s", keeper_root_advice);
    }
    *ret = key;
    return 0;
}

static int parse_cert(const struct keeper_record *r, X509 **ret, struct err *err)
{
    STACK_OF(X509) *chain =
        x509_chain_from_der((struct str){(const char *)r->cert, r->cert_len}, NULL);

    if (chain == NULL || sk_X509_num(chain) != 1) {
        sk_X509_pop_free(chain, X509_free);
        err_set(err, ERR_CONFIG, "root.crt does not hold one whole certificate");
        err_expected(err, "DER as the agent wrote it");
        return err_advise(err, "%s", keeper_root_advice);
    }
    *ret = sk_X509_shift(chain);
    sk_X509_free(chain);
    return 0;
}

/* The token has the other half. */
static int get_public(const struct keeper_authority *a, X509 *cert, EVP_PKEY **ret, struct err *err)
{
    uint8_t point[AGENT_POINT_SIZE];

    if (a->signer == NULL) {
        err_set(err, ERR_CONFIG,
                "the root's key lives in a token, and `ca.key_at_rest` names none");
        return err_advise(err, "name it as ca.key_at_rest.pkcs11; or %s", keeper_root_advice);
    }
    ERR_clear_error();
    *ret = X509_get_pubkey(cert);
    if (*ret == NULL || x509_key_point(*ret, point, NULL) == -1) {
        ERR_clear_error();
        err_set(err, ERR_CONFIG, "the root's key is not of P-256");
        return err_advise(err, "%s", keeper_root_advice);
    }
    return 0;
}

int keeper_root_read(const struct keeper_authority *a, const struct keeper_record *r,
                     EVP_PKEY **ret_key, X509 **ret_cert, struct err *err)
{
    mem_auto(EVP_PKEY_free) EVP_PKEY *key = NULL;
    mem_auto(X509_free) X509 *cert = NULL;
    char id[SPIFFE_ID_MAX + 1];

    if (parse_cert(r, &cert, err) == -1 || (r->key != NULL && parse_key(r, &key, err) == -1)) {
        return -1;
    }
    if (r->key == NULL && get_public(a, cert, &key, err) == -1) {
        return -1;
    }
    ERR_clear_error();
    if (X509_check_private_key(cert, key) != 1 || X509_verify(cert, key) != 1) {
        ERR_clear_error();
        err_set(err, ERR_CONFIG, "root.crt is not the certificate of root.key");
        return err_advise(err, "%s", keeper_root_advice);
    }
    if (x509_get_spiffe_id(cert, id, err) == -1) {
        return err_prefix(err, "root.crt");
    }
    if (strcmp(id, a->trust_domain_id) != 0) {
        err_set(err, ERR_CONFIG, "root.crt is the root of %s", id);
        err_expected(err, "%s", a->trust_domain_id);
        return err_advise(err, "give each trust domain a state directory of its own");
    }
    *ret_key = key;
    key = NULL;
    *ret_cert = cert;
    cert = NULL;
    return 0;
}

/* Who may have it is asked of the descriptor, so that nothing can be exchanged between the question
 * and the reading. */
int keeper_file_read(int fd, const char *name, uid_t owner, bool private, size_t max, uint8_t **ret,
                     size_t *ret_len, struct err *err)
{
    struct stat st;
    uint8_t *data;
    ssize_t n;

    if (fstat(fd, &st) == -1) {
        return err_sys(err, "%s", name);
    }
    if (!S_ISREG(st.st_mode) || st.st_size == 0 || (uint64_t)st.st_size > max) {
        err_set(err, ERR_CONFIG, "%s is empty, too large or no regular file", name);
        return err_advise(err, "%s", keeper_root_advice);
    }
    if (owner != KEEPER_ANY_OWNER && st.st_uid != owner) {
        err_set(err, ERR_CONFIG, "%s belongs to uid %u", name, (unsigned)st.st_uid);
        err_expected(err, "uid %u, whom the agent runs as", (unsigned)owner);
        return err_advise(err, "find out who could have read or written it before using it again");
    }
    if ((st.st_mode & (private ? 07077 : 07022)) != 0) {
        err_set(err, ERR_CONFIG, "%s has mode %04o: others can %s it", name,
                (unsigned)(st.st_mode & 07777), private ? "read" : "write");
        err_expected(err, "mode %s", private ? "0600" : "0644");
        return err_advise(err, "if nobody else had it, chmod it; else %s", keeper_root_advice);
    }
    data = mem_secret_alloc((size_t)st.st_size);
    if (data == NULL) {
        return err_set(err, ERR_LIMIT, "no memory for %s", name);
    }
    n = pread(fd, data, (size_t)st.st_size, 0);
    if (n != st.st_size) {
        err_sys(err, "%s cannot be read whole", name);
        mem_secret_free(data);
        return -1;
    }
    *ret = data;
    *ret_len = (size_t)n;
    return 0;
}

static int read_old_file(int fd, const char *name, uid_t owner, bool is_key,
                         struct keeper_record *r, struct err *err)
{
    uint8_t *der = NULL;
    size_t len = 0;
    bool ok;

    if (keeper_file_read(fd, name, owner, is_key, OLD_FILE_MAX, &der, &len, err) == -1) {
        return -1;
    }
    ok = is_key ? keeper_record_set_key(r, der, len) : keeper_record_set_cert(r, der, len);
    mem_secret_free(der);
    if (!ok) {
        err_set(err, ERR_CONFIG, "%s has %zu bytes", name, len);
        return err_advise(err, "%s", keeper_root_advice);
    }
    return 0;
}

int keeper_root_read_old(const struct keeper_authority *a, int key_fd, int cert_fd, uid_t owner,
                         int64_t now_s, struct keeper_record *r, struct err *err)
{
    mem_auto(EVP_PKEY_free) EVP_PKEY *key = NULL;
    mem_auto(X509_free) X509 *cert = NULL;
    uint8_t point[AGENT_POINT_SIZE];

    if (read_old_file(key_fd, "root.key", owner, true, r, err) == -1 ||
        read_old_file(cert_fd, "root.crt", owner, false, r, err) == -1 ||
        keeper_root_read(a, r, &key, &cert, err) == -1 || x509_key_point(key, point, err) == -1 ||
        set_id(r, point, err) == -1) {
        return -1;
    }
    r->created_s = x509_not_before_s(cert) + KEEPER_BACKDATE_S;
    r->changed_s = now_s;
    r->not_after_s = x509_not_after_s(cert);
    return 0;
}
