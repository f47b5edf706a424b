#include "rollout_store.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <postern/conf.h>
#include <postern/dir_walk.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CHUNK = 65536, NAME_MAX_BYTES = 40 };
static const char DIR_NAME[] = "policies", INDEX[] = "index", SUFFIX[] = ".policy";

static void name_of(uint64_t generation, char ret[NAME_MAX_BYTES])
{
    (void)snprintf(ret, NAME_MAX_BYTES, "%llu%s", (unsigned long long)generation, SUFFIX);
}

char *rollout_store_name(const struct rollout_store *s, uint64_t generation)
{
    return mem_must_printf("%s/%llu%s", s->path, (unsigned long long)generation, SUFFIX);
}

/* --- opening ---------------------------------------------------------------------------------- */
static bool is_named(const struct rollout *r, const char *name)
{
    char known[NAME_MAX_BYTES];

    for (size_t i = 0; i < r->n; i++) {
        name_of(r->items[i].generation, known);
        if (strcmp(known, name) == 0) {
            return true;
        }
    }
    return strcmp(name, INDEX) == 0;
}

struct leftovers {
    const struct rollout_store *store;
    const struct rollout *named;
};

/* Left by an agent that was killed while it wrote. */
static int remove_leftover(void *arg, const char *name)
{
    const struct leftovers *l = arg;

    if (name[0] != '.' && !is_named(l->named, name)) {
        (void)unlinkat(l->store->dir_fd, name, 0);
    }
    return 0;
}

static int open_dir(struct rollout_store *s, struct err *err)
{
    if (s->dir_fd == -1) {
        s->dir_fd = open(s->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    }
    if (s->dir_fd == -1 && errno != ENOENT) {
        err_sys(err, "the directory of pushed policies cannot be opened");
        return err_where(err, "%s", s->path);
    }
    return 0;
}

static int read_index(const struct rollout_store *s, struct rollout *ret, struct err *err)
{
    mem_autofree char *path = mem_must_printf("%s/%s", s->path, INDEX);
    mem_autofree char *text = NULL;
    struct err own = ERR_INIT;
    size_t len = 0;

    *ret = (struct rollout){.n = 0};
    if (s->dir_fd == -1 || (access(path, F_OK) == -1 && errno == ENOENT)) {
        return 0;
    }
    if (os_read_file(path, ROLLOUT_FILE_MAX, true, &text, &len, &own) == -1 ||
        rollout_parse((struct str){text, len}, ret, &own) == -1) {
        err_where(&own, "%s", path);
        err_advise(&own, "restore it; or move the directory away, so that the agent's own policy "
                         "file holds");
        if (err != NULL) {
            *err = own;
        }
        return -1;
    }
    return 0;
}

int rollout_store_open(struct rollout_store *s, const char *state_dir, struct rollout *ret,
                       struct err *err)
{
    *s =
        (struct rollout_store){.dir_fd = -1, .path = mem_must_printf("%s/%s", state_dir, DIR_NAME)};
    if (open_dir(s, err) == -1 || read_index(s, ret, err) == -1) {
        return -1;
    }
    if (s->dir_fd != -1) {
        struct leftovers l = {s, ret};

        (void)dir_walk(s->dir_fd, remove_leftover, &l);
    }
    return 0;
}

void rollout_store_close(struct rollout_store *s)
{
    if (s->dir_fd != -1) {
        close(s->dir_fd);
    }
    free(s->path);
    *s = (struct rollout_store){.dir_fd = -1};
}

/* --- writing ---------------------------------------------------------------------------------- */
static int make_dir(struct rollout_store *s, struct err *err)
{
    if (s->dir_fd == -1 && mkdir(s->path, 0700) == -1 && errno != EEXIST) {
        err_sys(err, "the directory of pushed policies cannot be made");
        return err_where(err, "%s", s->path);
    }
    if (open_dir(s, err) == -1) {
        return -1;
    }
    return s->dir_fd >= 0 ? 0 : err_sys(err, "the directory of pushed policies is gone");
}

int rollout_store_save(struct rollout_store *s, const struct rollout *r, struct err *err)
{
    mem_autofree char *path = mem_must_printf("%s/%s", s->path, INDEX);
    struct buf text = BUF_INIT(ROLLOUT_FILE_MAX);
    int rc = make_dir(s, err);

    if (rc == 0) {
        rc = rollout_print(r, &text)
                 ? os_write_file_atomic(path, buf_head(&text), buf_len(&text), 0600, err)
                 : err_set(err, ERR_LIMIT, "no memory");
    }
    buf_reset(&text);
    return rc;
}

/* --- contents --------------------------------------------------------------------------------- */
static void digest_text(EVP_MD_CTX *md, char ret[ROLLOUT_SHA256_TEXT])
{
    uint8_t digest[32];

    POSTERN_ASSERT(EVP_DigestFinal_ex(md, digest, NULL) == 1);
    for (size_t i = 0; i < sizeof(digest); i++) {
        (void)snprintf(ret + 2 * i, 3, "%02x", digest[i]);
    }
}

static int write_all(int fd, const uint8_t *p, size_t n, struct err *err)
{
    while (n > 0) {
        ssize_t done = write(fd, p, n);

        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done < 0) {
            return err_sys(err, "the policy cannot be kept");
        }
        p += done;
        n -= (size_t)done;
    }
    return 0;
}

/* All of `from`, hashed; written to `to` unless that is -1. */
static int go_through(int from, int to, char ret_sha256[ROLLOUT_SHA256_TEXT], struct err *err)
{
    mem_autofree uint8_t *chunk = mem_must_calloc(1, CHUNK);
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    uint64_t at = 0;
    ssize_t n = 0;
    int rc = 0;

    POSTERN_ASSERT(md != NULL && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1);
    while (rc == 0 && (n = pread(from, chunk, CHUNK, (off_t)at)) > 0) {
        at += (uint64_t)n;
        POSTERN_ASSERT(EVP_DigestUpdate(md, chunk, (size_t)n) == 1);
        if (at > CONF_POLICY_FILE_MAX) {
            rc = err_set(err, ERR_LIMIT, "the file is larger than %d MiB",
                         CONF_POLICY_FILE_MAX >> 20);
        } else if (to != -1) {
            rc = write_all(to, chunk, (size_t)n, err);
        }
    }
    if (rc == 0 && n < 0) {
        rc = err_sys(err, "the file cannot be read");
    }
    digest_text(md, ret_sha256);
    EVP_MD_CTX_free(md);
    return rc;
}

int rollout_store_copy(struct rollout_store *s, int file, uint64_t generation,
                       char ret_sha256[ROLLOUT_SHA256_TEXT], struct err *err)
{
    char name[NAME_MAX_BYTES];
    struct stat st;
    os_autofd int to = -1;
    int rc;

    if (fstat(file, &st) == -1 || !S_ISREG(st.st_mode)) {
        return err_set(err, ERR_USAGE, "this is no regular file");
    }
    if (make_dir(s, err) == -1) {
        return -1;
    }
    POSTERN_ASSERT(s->dir_fd >= 0);
    name_of(generation, name);
    to = openat(s->dir_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (to == -1) {
        return err_sys(err, "the policy cannot be kept");
    }
    rc = go_through(file, to, ret_sha256, err);
    if (rc == 0 && (fsync(to) == -1 || fsync(s->dir_fd) == -1)) {
        rc = err_sys(err, "the policy cannot be kept");
    }
    if (rc == -1) {
        rollout_store_remove(s, generation);
    }
    return rc;
}

int rollout_store_check(struct rollout_store *s, const struct rollout_item *item, struct err *err)
{
    char name[NAME_MAX_BYTES], sha256[ROLLOUT_SHA256_TEXT];
    os_autofd int fd = -1;

    name_of(item->generation, name);
    fd = s->dir_fd != -1 ? openat(s->dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;
    if (fd == -1) {
        err_sys(err, "generation %llu cannot be opened", (unsigned long long)item->generation);
        return err_where(err, "%s/%s", s->path, name);
    }
    if (go_through(fd, -1, sha256, err) == -1) {
        return err_where(err, "%s/%s", s->path, name);
    }
    if (strcmp(sha256, item->sha256) != 0) {
        err_set(err, ERR_CONFIG, "generation %llu is not what was pushed: its SHA-256 is %s",
                (unsigned long long)item->generation, sha256);
        err_expected(err, "%s", item->sha256);
        return err_where(err, "%s/%s", s->path, name);
    }
    return 0;
}

void rollout_store_remove(struct rollout_store *s, uint64_t generation)
{
    char name[NAME_MAX_BYTES];

    name_of(generation, name);
    (void)unlinkat(s->dir_fd, name, 0);
}
