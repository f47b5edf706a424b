/* An authority from the operator's files (docs/authority.md, "From files"): read whole, tried whole
 * with a certificate that nobody gets, and only then in force. */
#include "keeper_priv.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <postern/os.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FILE_MAX = 65536, CERTS_MAX = 8, ROOTS_MAX = 32, ID_BYTES = 8 };
static const char *const NAMES[AGENT_N_CA_FILES] = {"cert_file", "key_file", "bundle_file"};
static const char *const ADVICE = "see `ca.disk` in docs/authority.md; what was in force stays";

MEM_DEFINE_CLEANUP(BIO, BIO_free)

struct keeper_disk *keeper_disk_free(struct keeper_disk *d)
{
    if (d != NULL) {
        EVP_PKEY_free(d->key);
        X509_free(d->cert);
        free(d->chain);
        free(d->bundle);
        free(d);
    }
    return NULL;
}

/* --- PEM ---------------------------------------------------------------------------------------
 */
static void certs_free(STACK_OF(X509) * certs)
{
    sk_X509_pop_free(certs, X509_free);
}

/* Never asks anybody at a terminal. */
static int no_password(char *buf, int size, int writing, void *arg)
{
    (void)buf;
    (void)size;
    (void)writing;
    (void)arg;
    return -1;
}

/* Everything of the file has to be certificates, or text between them. */
static STACK_OF(X509) * read_certs(struct str pem, int max, struct err *err)
{
    mem_auto(BIO_free) BIO *bio = BIO_new_mem_buf(pem.p, (int)pem.n);
    STACK_OF(X509) *certs = sk_X509_new_null();
    X509 *cert;

    POSTERN_ASSERT(bio != NULL && certs != NULL);
    ERR_clear_error();
    while ((cert = PEM_read_bio_X509(bio, NULL, no_password, NULL)) != NULL) {
        if (sk_X509_num(certs) == max || sk_X509_push(certs, cert) == 0) {
            X509_free(cert);
            certs_free(certs);
            err_set(err, ERR_CONFIG, "it has more than %d certificates", max);
            return NULL;
        }
    }
    if (ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE || sk_X509_num(certs) == 0) {
        ERR_clear_error();
        certs_free(certs);
        err_set(err, ERR_CONFIG, "it does not hold certificates as PEM, whole and nothing else");
        return NULL;
    }
    ERR_clear_error();
    return certs;
}

static int append(uint8_t *space, size_t max, size_t *len, X509 *cert, struct err *err)
{
    uint8_t *der = NULL;
    size_t n = 0;

    if (x509_to_der(cert, &der, &n, err) == -1) {
        return -1;
    }
    if (n > max - *len) {
        free(der);
        return err_set(err, ERR_CONFIG, "its certificates are larger than %zu bytes together", max);
    }
    memcpy(space + *len, der, n);
    *len += n;
    free(der);
    return 0;
}

/* --- the three files ---------------------------------------------------------------------------
 */
static void set_id(struct keeper_disk *d)
{
    uint8_t hash[EVP_MAX_MD_SIZE] = {0};
    unsigned n = 0;

    (void)X509_digest(d->cert, EVP_sha256(), hash, &n);
    for (size_t i = 0; i < ID_BYTES; i++) {
        (void)snprintf(d->id + 2 * i, 3, "%02x", hash[i]);
    }
}

static int take_certs(struct keeper_disk *d, struct str pem, struct err *err)
{
    STACK_OF(X509) *certs = read_certs(pem, CERTS_MAX, err);
    int r = certs == NULL ? -1 : 0;

    d->chain = mem_must_calloc(1, AGENT_CHAIN_MAX);
    d->not_before_s = INT64_MIN;
    d->not_after_s = INT64_MAX;
    for (int i = 0; r == 0 && i < sk_X509_num(certs); i++) {
        X509 *cert = sk_X509_value(certs, i);
        int64_t begin_s = x509_not_before_s(cert), end_s = x509_not_after_s(cert);

        d->not_before_s = begin_s > d->not_before_s ? begin_s : d->not_before_s;
        d->not_after_s = end_s < d->not_after_s ? end_s : d->not_after_s;
        r = append(d->chain, AGENT_CHAIN_MAX, &d->chain_len, cert, err);
    }
    if (r == 0) {
        long path_len = X509_get_pathlen(sk_X509_value(certs, 0));

        d->cert = sk_X509_shift(certs);
        d->has_room = path_len == -1 || path_len > 0;
        set_id(d);
    }
    certs_free(certs);
    return r;
}

static int take_key(struct keeper_disk *d, struct str pem, struct err *err)
{
    mem_auto(BIO_free) BIO *bio = BIO_new_mem_buf(pem.p, (int)pem.n);

    POSTERN_ASSERT(bio != NULL);
    ERR_clear_error();
    d->key = PEM_read_bio_PrivateKey(bio, NULL, no_password, NULL);
    ERR_clear_error();
    return d->key != NULL
               ? 0
               : err_set(err, ERR_CONFIG, "it does not hold a private key as PEM, not encrypted");
}

static int take_bundle(struct keeper_disk *d, struct str pem, struct err *err)
{
    STACK_OF(X509) *certs = read_certs(pem, ROOTS_MAX, err);
    int r = certs == NULL ? -1 : 0;

    d->bundle = mem_must_calloc(1, AGENT_BUNDLE_MAX);
    for (int i = 0; r == 0 && i < sk_X509_num(certs); i++) {
        X509 *cert = sk_X509_value(certs, i);
        int64_t end_s = x509_not_after_s(cert);

        d->bundle_not_after_s = end_s > d->bundle_not_after_s ? end_s : d->bundle_not_after_s;
        r = append(d->bundle, AGENT_BUNDLE_MAX, &d->bundle_len, cert, err);
    }
    certs_free(certs);
    return r;
}

static int read_file(struct keeper_disk *d, enum agent_ca_file which, int fd, uid_t owner,
                     struct err *err)
{
    int (*const take[AGENT_N_CA_FILES])(struct keeper_disk *, struct str,
                                        struct err *) = {take_certs, take_key, take_bundle};
    bool is_key = which == AGENT_CA_FILE_KEY;
    uint8_t *data = NULL;
    size_t len = 0;
    int r = keeper_file_read(fd, NAMES[which], is_key ? owner : KEEPER_ANY_OWNER, is_key, FILE_MAX,
                             &data, &len, err);

    if (r == 0) {
        r = take[which](d, (struct str){(const char *)data, len}, err);
        mem_secret_free(data);
    }
    if (r == -1) {
        err_where(err, "%s", NAMES[which]);
        err_advise(err, "%s", ADVICE);
    }
    return r;
}

/* --- trying ------------------------------------------------------------------------------------
 */
/* The path of a certificate that this would issue, judged as a peer judges it. */
static int verify_trial(const struct keeper_authority *a, const struct keeper_force *f, X509 *leaf,
                        int64_t now_s, struct err *err)
{
    struct x509_trust *trust = x509_trust_new();
    struct str domain = {a->trust_domain_id + strlen("spiffe://"),
                         strlen(a->trust_domain_id) - strlen("spiffe://")};
    STACK_OF(X509) *chain = NULL;
    struct x509_peer peer;
    int r =
        x509_trust_add(trust, domain, (struct str){(const char *)f->bundle, f->bundle_len}, err);

    if (r == 0) {
        chain = x509_chain_from_der((struct str){(const char *)f->chain, f->chain_len}, err);
        r = chain != NULL &&
                    x509_verify_svid(trust, leaf, chain, true, now_s, &peer, err) == X509_OK
                ? 0
                : -1;
    }
    certs_free(chain);
    x509_trust_unref(trust);
    return r;
}

/* Made as every leaf is made. */
static int try_force(const struct keeper_authority *a, const struct keeper_force *f, int64_t now_s,
                     struct err *err)
{
    mem_auto(EVP_PKEY_free) EVP_PKEY *key = x509_key_new(err);
    STACK_OF(X509) *leaf = NULL;
    struct x509_made made = {.der = NULL};
    uint8_t point[AGENT_POINT_SIZE];
    char id[SPIFFE_ID_MAX + 16];
    struct x509_issue what = {
        .point = point, .not_before_s = f->node_not_before_s, .not_after_s = f->node_not_after_s};
    int r;

    (void)snprintf(id, sizeof(id), "%s/trial", a->trust_domain_id);
    what.spiffe_id = str_of(id);
    if (key == NULL || x509_key_point(key, point, err) == -1 ||
        x509_signer_issue(f->signer, &what, &made, err) == -1) {
        return -1;
    }
    leaf = x509_chain_from_der((struct str){(const char *)made.der, made.len}, err);
    r = leaf == NULL ? -1 : verify_trial(a, f, sk_X509_value(leaf, 0), now_s, err);
    certs_free(leaf);
    free(made.der);
    return r == -1 ? err_prefix(err, "of a certificate that it would sign") : 0;
}

int keeper_disk_check(const struct keeper_authority *a, struct keeper_force *f, int64_t now_s,
                      struct err *err)
{
    return try_force(a, f, now_s, err);
}

int keeper_disk_key_check(const struct keeper_disk *d, struct err *err)
{
    if (X509_check_private_key(d->cert, d->key) != 1) {
        ERR_clear_error();
        return err_set(err, ERR_CONFIG, "the key is not that of the first certificate");
    }
    return 0;
}

int keeper_disk_refuse(struct err *err)
{
    if (err != NULL) {
        err->code = ERR_CONFIG;
    }
    err_prefix(err, "the authority of the files is refused");
    err_where(err, "%s", NAMES[AGENT_CA_FILE_CERT]);
    return err_advise(err, "%s", ADVICE);
}

/* --- messages ----------------------------------------------------------------------------------
 */
static void log_loaded(struct keeper *k)
{
    const struct keeper_disk *d = k->authority.disk;
    struct log_line l;
    char when[32];

    os_time_text(d->not_after_s, when, sizeof(when));
    log_begin(&l, k->log, LOG_INFO, "ca_files_loaded");
    log_str(&l, "authority", d->id);
    log_str(&l, "not_after", when);
    log_bool(&l, "own_intermediate", d->has_room);
    log_end(&l);
}

/* Exchanges the files' authority while the agent runs; the state file has no part in it. */
void keeper_disk_apply(struct keeper *k)
{
    struct keeper_disk *old = k->authority.disk;
    struct keeper_store store = {.records = NULL};
    struct keeper_force *force = NULL;
    struct err err = ERR_INIT;

    k->authority.disk = k->disk_next;
    k->disk_next = NULL;
    if (keeper_store_copy(&k->authority.force->store, &store, &err) == 0) {
        force = keeper_force_build(&k->authority, &store, keeper_clock_wall_s(&k->clock), &err);
    }
    if (force == NULL) {
        keeper_disk_free(k->authority.disk);
        k->authority.disk = old;
        log_failure(k->log, LOG_ERROR, "ca_files_refused", &err);
        return;
    }
    keeper_disk_free(old);
    if (keeper_authority_take(&k->authority, force)) {
        k->bundle_generation++;
    }
    k->changed_pending = true;
    log_loaded(k);
}

int keeper_on_ca_file(struct keeper *k, const struct agent_msg_ca_file *msg, int fd,
                      struct err *err)
{
    struct err wrong = ERR_INIT;
    int r;

    if (msg->which == AGENT_CA_FILE_CERT) {
        keeper_disk_free(k->disk_in);
        k->disk_in = mem_must_new(struct keeper_disk);
        k->disk_bad = false;
    }
    if (k->disk_in == NULL || k->disk_bad) { /* the first bad one was told */
        close(fd);
        return 0;
    }
    r = read_file(k->disk_in, (enum agent_ca_file)msg->which, fd, msg->owner_uid, &wrong);
    close(fd);
    if (r == -1 && !k->started) {
        *err = wrong;
        return -1;
    }
    if (r == -1) {
        k->disk_bad = true;
        log_failure(k->log, LOG_ERROR, "ca_files_refused", &wrong);
    } else if (msg->which == AGENT_CA_FILE_BUNDLE && !k->started) {
        k->authority.disk = k->disk_in;
        k->disk_in = NULL;
    } else if (msg->which == AGENT_CA_FILE_BUNDLE) {
        keeper_disk_free(k->disk_next);
        k->disk_next = k->disk_in; /* taken up when no change is under way */
        k->disk_in = NULL;
    }
    return 0;
}
