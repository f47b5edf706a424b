/* published: what is on disk, read back as any reader would: by the link, then from the generation
 * that was opened. Nothing here is written, and no daemon has to run. */
#include "rotate_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_MAX = 1024 * 1024 };

static enum rotate_freshness missing(const struct conf_rotate_output *o, struct err *err,
                                     const char *what, const char *name)
{
    err_sys(err, "%s '%.250s'", what, name);
    err_where(err, "%s", o->directory);
    return ROTATE_MISSING;
}

static enum rotate_freshness wrong(const struct conf_rotate_output *o, struct err *err,
                                   const char *name, const char *why)
{
    err_set(err, ERR_DENIED, "'%.250s' %s", name, why);
    err_where(err, "%s", o->directory);
    return ROTATE_MISSING;
}

/* At most FILE_MAX bytes of a file of the generation, terminated; the caller's to free. */
static char *read_file(int gen_fd, const char *name, size_t *ret_len)
{
    os_autofd int fd = rotate_open_beneath(gen_fd, name, O_RDONLY, 0);
    struct stat st;
    if (fd == -1 || fstat(fd, &st) == -1) {
        return NULL;
    }
    if (!S_ISREG(st.st_mode) || st.st_size > FILE_MAX) {
        errno = EFBIG;
        return NULL;
    }
    size_t len = 0;
    mem_autofree char *data = mem_must_calloc(1, (size_t)st.st_size + 1);
    while (len < (size_t)st.st_size) {
        ssize_t n = read(fd, data + len, (size_t)st.st_size - len);
        if (n == -1) {
            return NULL;
        }
        if (n == 0) {
            break;
        }
        len += (size_t)n;
    }
    char *ret = data;
    data = NULL;
    *ret_len = len;
    return ret;
}

/* The certificate in the file is the one that the set says it is. */
static bool shows_leaf(int gen_fd, const char *name, const struct rotate_set *set)
{
    size_t len = 0;
    uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    mem_autofree char *text = read_file(gen_fd, name, &len);
    BIO *bio = text != NULL ? BIO_new_mem_buf(text, (int)len) : NULL;
    mem_auto(X509_free) X509 *leaf = bio != NULL ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;
    BIO_free(bio);
    return leaf != NULL && X509_digest(leaf, EVP_sha256(), digest, &n) == 1 && n == 32 &&
           memcmp(digest, set->leaf_sha256, 32) == 0;
}

/* One file: by its name, in the generation, for whom. */
static enum rotate_freshness check_file(const struct conf_rotate_output *o,
                                        const struct conf_rotate_file *f, int dir_fd, int gen_fd,
                                        const struct rotate_set *set, struct err *err)
{
    char want[CONF_ROTATE_NAME_MAX + 16];
    char target[PATH_MAX];
    struct stat st;
    int len = snprintf(want, sizeof(want), "%s/%s", ROTATE_DATA, f->name);
    ssize_t n = readlinkat(dir_fd, f->name, target, sizeof(target));
    if (n == -1) {
        return missing(o, err, "no link", f->name);
    }
    if (n != len || memcmp(target, want, (size_t)n) != 0) {
        return wrong(o, err, f->name, "leads elsewhere");
    }
    if (fstatat(gen_fd, f->name, &st, AT_SYMLINK_NOFOLLOW) == -1) {
        return missing(o, err, "no file", f->name);
    }
    if (!S_ISREG(st.st_mode)) {
        return wrong(o, err, f->name, "is no plain file");
    }
    if (conf_rotate_is_secret(f->what) && (st.st_mode & 0007) != 0) {
        return wrong(o, err, f->name, "holds a secret that everybody may read");
    }
    if ((f->what == CONF_ROTATE_CHAIN || f->what == CONF_ROTATE_LEAF) &&
        faccessat(gen_fd, f->name, R_OK, AT_EACCESS) == 0 && !shows_leaf(gen_fd, f->name, set)) {
        return wrong(o, err, f->name, "does not hold the certificate that the set says");
    }
    return ROTATE_FRESH;
}

enum rotate_freshness rotate_published_read(const struct conf_rotate_output *o,
                                            uint32_t warn_percent, int64_t now_s,
                                            struct rotate_set *ret, struct err *err)
{
    char target[PATH_MAX];
    uint64_t seq = 0;
    uint64_t ms = 0;
    size_t len = 0;
    os_autofd int dir_fd = open(o->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd == -1) {
        return missing(o, err, "no directory", o->directory);
    }
    ssize_t n = readlinkat(dir_fd, ROTATE_DATA, target, sizeof(target) - 1);
    if (n == -1) {
        return missing(o, err, "nothing was written yet: no link", ROTATE_DATA);
    }
    target[n] = '\0';
    if (!rotate_generation_parse((struct str){target, (size_t)n}, &seq, &ms)) {
        return wrong(o, err, ROTATE_DATA, "leads to what is no generation");
    }
    os_autofd int gen_fd = rotate_open_beneath(dir_fd, target, O_RDONLY | O_DIRECTORY, 0);
    mem_autofree char *text = gen_fd != -1 ? read_file(gen_fd, ROTATE_SET_FILE, &len) : NULL;
    if (text == NULL) {
        return missing(o, err, "cannot read", gen_fd != -1 ? ROTATE_SET_FILE : target);
    }
    if (rotate_set_parse((struct str){text, len}, ret, err) == -1) {
        err_where(err, "%s", o->directory);
        return ROTATE_MISSING;
    }
    for (size_t i = 0; i < o->n_files; i++) {
        if (check_file(o, &o->files[i], dir_fd, gen_fd, ret, err) != ROTATE_FRESH) {
            return ROTATE_MISSING;
        }
    }
    return rotate_set_judge(ret, warn_percent, now_s);
}
