#include "rotate_world.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <openssl/pem.h>
#include <postern/mem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void trust_add(struct x509_trust *t, const char *td, X509 *const *certs, size_t n)
{
    size_t len = 0;
    uint8_t *der = certs_der(certs, n, &len);
    POSTERN_ASSERT(x509_trust_add(t, str_of(td), (struct str){(char *)der, len}, NULL) == 0);
    free(der);
}

struct rotate_world *rotate_world_new(void)
{
    struct rotate_world *w = mem_must_new(struct rotate_world);
    struct certs_spec spec = certs_ca("spiffe://example.org");
    w->root = certs_make(&spec, NULL);
    spec.common_name = "intermediate";
    w->mid = certs_make(&spec, &w->root);
    spec.common_name = "of before";
    spec.not_before_s = CERTS_NOW - 7200;
    spec.not_after_s = CERTS_NOW - 3600;
    w->expired = certs_make(&spec, NULL);
    spec = certs_ca("spiffe://other.org");
    spec.common_name = "foreign authority";
    w->foreign = certs_make(&spec, NULL);
    w->trust = x509_trust_new();
    X509 *own[] = {w->root.cert, w->expired.cert};
    trust_add(w->trust, "other.org", &w->foreign.cert, 1);
    trust_add(w->trust, "example.org", own, 2);
    /* Hundreds of changes, each with several fsync: in memory where that is to be had. */
    snprintf(w->dir, sizeof(w->dir), "/dev/shm/rotate-XXXXXX");
    if (mkdtemp(w->dir) == NULL) {
        snprintf(w->dir, sizeof(w->dir), "/tmp/rotate-XXXXXX");
        POSTERN_ASSERT(mkdtemp(w->dir) != NULL);
    }
    rotate_world_renew(w, CERTS_P256, false);
    return w;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

struct rotate_world *rotate_world_free(struct rotate_world *w)
{
    nftw(w->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    certs_free(&w->root);
    certs_free(&w->mid);
    certs_free(&w->foreign);
    certs_free(&w->expired);
    x509_trust_unref(w->trust);
    x509_svid_free(w->svid);
    free(w);
    return NULL;
}

void rotate_world_renew(struct rotate_world *w, enum certs_key key, bool with_mid)
{
    struct certs_spec spec = certs_leaf("spiffe://example.org/web");
    spec.key = key;
    struct certs_pair leaf = certs_make(&spec, with_mid ? &w->mid : &w->root);
    X509 *chain[] = {leaf.cert, with_mid ? w->mid.cert : NULL};
    size_t len = 0;
    uint8_t *der = certs_der(chain, 2, &len);
    x509_svid_free(w->svid);
    POSTERN_ASSERT(x509_svid_new((struct str){(char *)der, len}, leaf.key, &w->svid, NULL) == 0);
    free(der);
    certs_free(&leaf);
    w->state.svid = w->svid;
    w->state.trust = w->trust;
    w->state.generation++;
    w->state.renewed_at_s = CERTS_NOW;
}

struct rotate_files *rotate_world_files(struct rotate_world *w, const struct conf_rotate_output *o,
                                        const char *passphrase)
{
    struct rotate_files *files = NULL;
    struct rotate_token token = {"a.token.text", CERTS_NOW, CERTS_NOW + 300};
    struct rotate_token tokens[CONF_ROTATE_FILES_MAX];
    const struct jwt_key_set sets[] = {{STR_LIT("example.org"), STR_LIT("{\"keys\":[]}")}};
    for (size_t i = 0; i < CONF_ROTATE_FILES_MAX; i++) {
        tokens[i] = token;
    }
    const struct rotate_material m = {.x509 = &w->state,
                                      .tokens = tokens,
                                      .key_sets = sets,
                                      .n_key_sets = 1,
                                      .spiffe_id = w->svid->spiffe_id,
                                      .passphrase = passphrase,
                                      .now_s = CERTS_NOW};
    struct err err = ERR_INIT;
    if (rotate_files_new(o, &m, &files, &err) == -1) {
        fprintf(stderr, "%s\n", err.what);
        abort();
    }
    return files;
}

struct conf_rotate *rotate_world_conf(const struct rotate_world *w, const char *output)
{
    struct buf text = BUF_INIT(65536);
    struct conf_diag *diag = conf_diag_new();
    struct conf_rotate *conf = NULL;
    POSTERN_ASSERT(buf_printf(&text, "kind: Rotate\nlevel: 1\noutputs: ["));
    for (const char *p = output; *p != '\0';) {
        bool dir = strncmp(p, "DIR", 3) == 0;
        POSTERN_ASSERT(buf_printf(&text, "%.*s", dir ? (int)strlen(w->dir) : 1, dir ? w->dir : p));
        p += dir ? 3 : 1;
    }
    POSTERN_ASSERT(buf_printf(&text, "]\n"));
    if (conf_parse_rotate("/f.yaml", (const char *)buf_head(&text), buf_len(&text), diag, &conf) !=
        0) {
        fprintf(stderr, "%s\n", conf_diag_get(diag, 0)->what);
        abort();
    }
    conf_diag_free(diag);
    buf_reset(&text);
    return conf;
}

/* --- a reader ----------------------------------------------------------------------------------
 */
/* A PEM file of the directory: certificate or key or both, whichever it holds. */
static void read_pem(int dir_fd, const char *name, X509 **ret_cert, EVP_PKEY **ret_key)
{
    int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC);
    FILE *f = fd != -1 ? fdopen(fd, "r") : NULL;
    if (f == NULL) {
        return;
    }
    if (ret_cert != NULL) {
        *ret_cert = PEM_read_X509(f, NULL, NULL, NULL);
        rewind(f);
    }
    if (ret_key != NULL) {
        *ret_key = PEM_read_PrivateKey(f, NULL, NULL, NULL);
    }
    fclose(f);
}

/* tls.crt, tls.key and site.pem of an open directory. */
static const char *read_set(int dir_fd, char *space, size_t size)
{
    X509 *cert = NULL;
    X509 *combined_cert = NULL;
    EVP_PKEY *key = NULL;
    EVP_PKEY *combined_key = NULL;
    const char *ret = space;
    read_pem(dir_fd, "tls.crt", &cert, NULL);
    read_pem(dir_fd, "tls.key", NULL, &key);
    read_pem(dir_fd, "site.pem", &combined_cert, &combined_key);
    if (cert == NULL || key == NULL || combined_cert == NULL || combined_key == NULL) {
        ret = "a file is missing or cut";
    } else if (X509_check_private_key(cert, key) != 1) {
        ret = "the key is another one's";
    } else if (X509_cmp(cert, combined_cert) != 0 || EVP_PKEY_eq(key, combined_key) != 1) {
        ret = "the combined file is of another set";
    } else {
        snprintf(space, size, "whole %ld", ASN1_INTEGER_get(X509_get0_serialNumber(cert)));
    }
    X509_free(cert);
    X509_free(combined_cert);
    EVP_PKEY_free(key);
    EVP_PKEY_free(combined_key);
    return ret;
}

const char *rotate_world_read(const char *dir, char *space, size_t size)
{
    char path[300];
    char plain[64];
    snprintf(path, sizeof(path), "%s/..data", dir);
    int data_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (data_fd == -1) {
        return errno == ENOENT ? NULL : "..data cannot be opened";
    }
    const char *held = read_set(data_fd, space, size);
    close(data_fd);
    int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    POSTERN_ASSERT(dir_fd != -1);
    /* A first set may end before its links are there; those that are lead to whole files. */
    bool linked = faccessat(dir_fd, "site.pem", F_OK, 0) == 0;
    const char *by_name = linked ? read_set(dir_fd, plain, sizeof(plain)) : held;
    close(dir_fd);
    return strcmp(held, by_name) == 0 ? held : by_name;
}
