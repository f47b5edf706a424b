#include "keeper_priv.h"

#include <openssl/asn1.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <postern/os.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    BACKDATE_S = 10,        /* for peers whose clock is a little behind */
    STATE_FILE_MAX = 16384, /* a P-256 key or a root certificate is below 1 kB */
    ROOT_PATH_LEN = 1,      /* root, one intermediate, leaf */
};

static const char *const NEW_ROOT_ADVICE =
    "restore the ca directory from a backup, or move it away: the next start then makes a new "
    "root, which every peer has to learn";

void keeper_authority_init(struct keeper_authority *a, struct str trust_domain, uint32_t root_ttl_s,
                           uint32_t node_ttl_s)
{
    *a = (struct keeper_authority){.root_ttl_s = root_ttl_s, .node_ttl_s = node_ttl_s};
    memcpy(a->trust_domain_id, "spiffe://", 9);
    memcpy(a->trust_domain_id + 9, trust_domain.p, trust_domain.n);
}

void keeper_authority_deinit(struct keeper_authority *a)
{
    EVP_PKEY_free(a->root_key);
    EVP_PKEY_free(a->node_key);
    X509_free(a->root);
    X509_free(a->node);
    free(a->root_der);
    free(a->node_der);
    *a = (struct keeper_authority){.root_key = NULL};
}

/* --- making and reading the root -------------------------------------------------------------- */
static int write_state(int fd, const char *name, const void *data, size_t len, struct err *err)
{
    if (os_write_all(fd, data, len) == -1 || fsync(fd) == -1) {
        err_sys(err, "the new %s cannot be written", name);
        err_where(err, "%s", name);
        return err_advise(err, "make room or make the state directory writable; nothing was "
                               "changed, the next start begins anew");
    }
    return 0;
}

int keeper_authority_create(struct keeper_authority *a, int key_fd, int cert_fd, int64_t now_s,
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
                              .not_before_s = now_s - BACKDATE_S,
                              .not_after_s = now_s + a->root_ttl_s};
    int r;

    key = x509_key_new(err);
    if (key == NULL || x509_key_point(key, point, err) == -1 ||
        x509_issue(&what, NULL, key, &cert, err) == -1 ||
        x509_to_der(cert, &cert_der, &cert_len, err) == -1 ||
        x509_key_to_pkcs8(key, &key_der, &key_len, err) == -1) {
        return err_prefix(err, "making a new root");
    }
    a->secret_kind = mem_secret_kind_of(key_der);
    r = write_state(key_fd, "root.key", key_der, key_len, err);
    mem_secret_free(key_der);
    if (r == -1 || write_state(cert_fd, "root.crt", cert_der, cert_len, err) == -1) {
        return -1;
    }
    a->root_key = key;
    key = NULL;
    a->root = cert;
    cert = NULL;
    a->root_der = cert_der;
    a->root_der_len = cert_len;
    cert_der = NULL;
    return 0;
}

/* The whole of a state file into memory for secrets. Who may have it is asked of the descriptor, so
 * that nothing can be exchanged between the question and the reading. */
static int read_state(int fd, const char *name, uid_t owner, bool private, uint8_t **ret,
                      size_t *ret_len, struct err *err)
{
    struct stat st;
    uint8_t *data;
    ssize_t n;

    if (fstat(fd, &st) == -1) {
        return err_sys(err, "%s", name);
    }
    if (!S_ISREG(st.st_mode) || st.st_size == 0 || st.st_size > STATE_FILE_MAX) {
        err_set(err, ERR_CONFIG, "%s is empty, too large or no regular file", name);
        return err_advise(err, "%s", NEW_ROOT_ADVICE);
    }
    if (st.st_uid != owner) {
        err_set(err, ERR_CONFIG, "%s belongs to uid %u", name, (unsigned)st.st_uid);
        err_expected(err, "uid %u, whom the agent runs as", (unsigned)owner);
        return err_advise(err, "find out who could have read or written it before using it again");
    }
    if ((st.st_mode & (private ? 07077 : 07022)) != 0) {
        err_set(err, ERR_CONFIG, "%s has mode %04o: others can %s it", name,
                (unsigned)(st.st_mode & 07777), private ? "read" : "write");
        err_expected(err, "mode %s", private ? "0600" : "0644");
        return err_advise(err, "if nobody else had it, chmod it; else %s", NEW_ROOT_ADVICE);
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

static int read_key(int fd, uid_t owner, EVP_PKEY **ret, uint32_t *ret_kind, struct err *err)
{
    uint8_t *der = NULL;
    size_t len = 0;
    uint8_t point[AGENT_POINT_SIZE];
    EVP_PKEY *key;

    if (read_state(fd, "root.key", owner, true, &der, &len, err) == -1) {
        return -1;
    }
    *ret_kind = mem_secret_kind_of(der);
    key = x509_key_from_pkcs8((struct str){(const char *)der, len}, NULL);
    mem_secret_free(der);
    if (key == NULL || x509_key_point(key, point, NULL) == -1) {
        EVP_PKEY_free(key);
        err_set(err, ERR_CONFIG, "root.key does not hold a whole P-256 private key");
        err_expected(err, "PKCS#8 DER as the agent wrote it");
        return err_advise(err, "%s", NEW_ROOT_ADVICE);
    }
    *ret = key;
    return 0;
}

static int read_cert(int fd, uid_t owner, X509 **ret, struct err *err)
{
    uint8_t *der = NULL;
    size_t len = 0;
    STACK_OF(X509) *chain = NULL;

    if (read_state(fd, "root.crt", owner, false, &der, &len, err) == -1) {
        return -1;
    }
    chain = x509_chain_from_der((struct str){(const char *)der, len}, NULL);
    mem_secret_free(der);
    if (chain == NULL || sk_X509_num(chain) != 1) {
        sk_X509_pop_free(chain, X509_free);
        err_set(err, ERR_CONFIG, "root.crt does not hold one whole certificate");
        err_expected(err, "DER as the agent wrote it");
        return err_advise(err, "%s", NEW_ROOT_ADVICE);
    }
    *ret = sk_X509_shift(chain);
    sk_X509_free(chain);
    return 0;
}

static int64_t cert_not_before_s(X509 *cert)
{
    struct tm tm;

    if (ASN1_TIME_to_tm(X509_get0_notBefore(cert), &tm) != 1) {
        return INT64_MAX;
    }
    return (int64_t)timegm(&tm);
}

/* Everything that a root must be before anything is signed with it. */
static int check_root(const struct keeper_authority *a, X509 *cert, EVP_PKEY *key, int64_t now_s,
                      struct err *err)
{
    char id[SPIFFE_ID_MAX + 1];
    char when[32];

    ERR_clear_error();
    if (X509_check_private_key(cert, key) != 1 || X509_verify(cert, key) != 1) {
        ERR_clear_error();
        err_set(err, ERR_CONFIG, "root.crt is not the certificate of root.key");
        return err_advise(err, "%s", NEW_ROOT_ADVICE);
    }
    if (x509_get_spiffe_id(cert, id, err) == -1) {
        return err_prefix(err, "root.crt");
    }
    if (strcmp(id, a->trust_domain_id) != 0) {
        err_set(err, ERR_CONFIG, "root.crt is the root of %s", id);
        err_expected(err, "%s", a->trust_domain_id);
        return err_advise(err, "give each trust domain a state directory of its own");
    }
    if (x509_not_after_s(cert) <= now_s) {
        os_time_text(x509_not_after_s(cert), when, sizeof(when));
        err_set(err, ERR_CONFIG, "the root expired at %s", when);
        return err_advise(err, "%s", NEW_ROOT_ADVICE);
    }
    if (cert_not_before_s(cert) > now_s) {
        os_time_text(cert_not_before_s(cert), when, sizeof(when));
        err_set(err, ERR_CONFIG, "the root is valid only from %s on", when);
        return err_advise(err, "set this machine's clock");
    }
    return 0;
}

int keeper_authority_load(struct keeper_authority *a, int key_fd, int cert_fd, uid_t owner,
                          int64_t now_s, struct err *err)
{
    mem_auto(EVP_PKEY_free) EVP_PKEY *key = NULL;
    mem_auto(X509_free) X509 *cert = NULL;
    uint8_t *der = NULL;
    size_t len = 0;

    if (read_key(key_fd, owner, &key, &a->secret_kind, err) == -1 ||
        read_cert(cert_fd, owner, &cert, err) == -1 || check_root(a, cert, key, now_s, err) == -1 ||
        x509_to_der(cert, &der, &len, err) == -1) {
        return -1;
    }
    a->root_key = key;
    key = NULL;
    a->root = cert;
    cert = NULL;
    a->root_der = der;
    a->root_der_len = len;
    return 0;
}

/* --- the intermediate, and leaves ------------------------------------------------------------- */
int keeper_authority_renew_node(struct keeper_authority *a, int64_t now_s, struct err *err)
{
    mem_auto(EVP_PKEY_free) EVP_PKEY *key = NULL;
    mem_auto(X509_free) X509 *cert = NULL;
    uint8_t *der = NULL;
    size_t len = 0;
    int64_t half_s;
    uint8_t point[AGENT_POINT_SIZE];
    struct x509_issue what = {.spiffe_id = str_of(a->trust_domain_id),
                              .point = point,
                              .ca = true,
                              .path_len = 0,
                              .not_before_s = now_s - BACKDATE_S,
                              .not_after_s = now_s + a->node_ttl_s};

    if (x509_not_after_s(a->root) <= now_s) {
        return err_set(err, ERR_UNAVAILABLE, "the root has expired");
    }
    key = x509_key_new(err);
    if (key == NULL || x509_key_point(key, point, err) == -1 ||
        x509_issue(&what, a->root, a->root_key, &cert, err) == -1 ||
        x509_to_der(cert, &der, &len, err) == -1) {
        return err_prefix(err, "making the node's intermediate");
    }
    if (len > AGENT_CHAIN_MAX) {
        free(der);
        return err_set(err, ERR_LIMIT, "the node's intermediate is too large");
    }
    EVP_PKEY_free(a->node_key);
    X509_free(a->node);
    free(a->node_der);
    a->node_key = key;
    key = NULL;
    a->node = cert;
    cert = NULL;
    a->node_der = der;
    a->node_der_len = len;
    half_s = (x509_not_after_s(a->node) - now_s) / 2;
    a->node_renew_s = now_s + (half_s > 0 ? half_s : 1);
    return 0;
}

int keeper_authority_issue(struct keeper_authority *a, struct x509_issue *what, uint32_t ttl_s,
                           int64_t now_s, struct keeper_leaf *ret, struct err *err)
{
    mem_auto(X509_free) X509 *cert = NULL;
    const ASN1_INTEGER *serial;
    struct keeper_leaf leaf = {.der = NULL};
    int n;

    if (x509_not_after_s(a->node) <= now_s || cert_not_before_s(a->node) > now_s) {
        return err_set(err, ERR_UNAVAILABLE, "the node's intermediate is not valid now");
    }
    what->ca = false;
    what->not_before_s = now_s - BACKDATE_S;
    what->not_after_s = now_s + ttl_s;
    if (x509_issue(what, a->node, a->node_key, &cert, err) == -1 ||
        x509_to_der(cert, &leaf.der, &leaf.len, err) == -1) {
        return -1;
    }
    serial = X509_get0_serialNumber(cert);
    n = ASN1_STRING_length(serial);
    if (leaf.len > AGENT_LEAF_MAX || n < 0 || (size_t)n > sizeof(leaf.serial)) {
        free(leaf.der);
        return err_set(err, ERR_LIMIT, "the certificate does not fit a message");
    }
    memcpy(leaf.serial + (sizeof(leaf.serial) - (size_t)n), ASN1_STRING_get0_data(serial),
           (size_t)n);
    leaf.not_before_s = what->not_before_s;
    leaf.not_after_s = x509_not_after_s(cert);
    *ret = leaf;
    return 0;
}

bool keeper_point_ok(const uint8_t point[AGENT_POINT_SIZE])
{
    char group[] = "P-256";
    uint8_t copy[AGENT_POINT_SIZE];
    EVP_PKEY_CTX *ctx = NULL;
    EVP_PKEY *key = NULL;
    bool ok;

    if (point[0] != 0x04) { /* compressed, hybrid, and infinity */
        return false;
    }
    memcpy(copy, point, sizeof(copy));
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, group, 0),
        OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, copy, sizeof(copy)),
        OSSL_PARAM_construct_end()};
    ctx = EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL);
    ok = ctx != NULL && EVP_PKEY_fromdata_init(ctx) == 1 &&
         EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_PUBLIC_KEY, params) == 1;
    EVP_PKEY_CTX_free(ctx);
    if (ok) {
        ctx = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);
        ok = ctx != NULL && EVP_PKEY_public_check(ctx) == 1;
        EVP_PKEY_CTX_free(ctx);
    }
    EVP_PKEY_free(key);
    ERR_clear_error();
    return ok;
}
