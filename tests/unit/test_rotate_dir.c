/* One directory of a rotation daemon: docs/rotation.md, the attack cases first; then each step of a
 * change made to fail, and made to be the last one. */
#include "rotate_priv.h"

#include "rotate_world.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <postern/os.h>
#include <seccomp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define OUTPUT                                                                                     \
    "{name: a, directory: DIR/out, files: [{name: tls.crt, what: chain}, {name: tls.key, what: "   \
    "key}, {name: site.pem, what: combined}]"

enum { STEPS_MAX = 200 };
#define T0 UINT64_C(1767225600000)

struct test {
    struct rotate_world *w;
    struct conf_rotate *conf;
    const struct conf_rotate_output *o;
    char out[80];
    char space[64];
};

static int setup(void **state)
{
    struct test *t = mem_must_new(struct test);
    t->w = rotate_world_new();
    t->conf = rotate_world_conf(t->w, OUTPUT "}");
    t->o = &t->conf->outputs[0];
    snprintf(t->out, sizeof(t->out), "%s/out", t->w->dir);
    *state = t;
    return 0;
}

static int teardown(void **state)
{
    struct test *t = *state;
    conf_rotate_free(t->conf);
    rotate_world_free(t->w);
    free(t);
    return 0;
}

static void use(struct test *t, const char *more)
{
    char text[1000];
    snprintf(text, sizeof(text), "%s, %s}", OUTPUT, more);
    conf_rotate_free(t->conf);
    t->conf = rotate_world_conf(t->w, text);
    t->o = &t->conf->outputs[0];
}

static struct rotate_dir *open_dir(struct test *t)
{
    struct err err = ERR_INIT;
    struct rotate_dir *d = rotate_dir_open(t->o, &err);
    if (d == NULL) {
        fail_msg("%s: %s", err.where, err.what);
    }
    return d;
}

static void refuse_open(struct test *t, enum err_code code, const char *part)
{
    struct err err = ERR_INIT;
    struct rotate_dir *d = rotate_dir_open(t->o, &err);
    assert_null(d);
    if (err.code != code || strstr(err.what, part) == NULL) {
        fail_msg("%s instead of %s", err.what, part);
    }
}

/* Another set of files, at that time. */
static int publish_at(struct test *t, struct rotate_dir *d, uint64_t now_ms, struct err *err)
{
    uint64_t generation = 0;
    rotate_world_renew(t->w, CERTS_P256, false);
    struct rotate_files *files = rotate_world_files(t->w, t->o, "");
    int rc = rotate_dir_publish(d, files, now_ms, &generation, err);
    rotate_files_free(files);
    return rc == 0 ? (int)generation : -1;
}

static int publish(struct test *t, struct rotate_dir *d)
{
    struct err err = ERR_INIT;
    int generation = publish_at(t, d, T0, &err);
    if (generation == -1) {
        fail_msg("%s", err.what);
    }
    return generation;
}

static void refuse_publish(struct test *t, struct rotate_dir *d, const char *part)
{
    struct err err = ERR_INIT;
    assert_int_equal(publish_at(t, d, T0, &err), -1);
    if (strstr(err.what, part) == NULL) {
        fail_msg("%s instead of %s", err.what, part);
    }
}

static const char *read_out(struct test *t)
{
    return rotate_world_read(t->out, t->space, sizeof(t->space));
}

static void assert_whole(struct test *t)
{
    char want[64];
    snprintf(want, sizeof(want), "whole %ld",
             ASN1_INTEGER_get(X509_get0_serialNumber(t->w->svid->leaf)));
    assert_string_equal(read_out(t), want);
}

/* Names in the directory that begin so. */
static unsigned count(const char *dir, const char *prefix)
{
    unsigned n = 0;
    DIR *d = opendir(dir);
    assert_non_null(d);
    const struct dirent *e;
    while ((e = readdir(d)) != NULL) {
        n += strncmp(e->d_name, prefix, strlen(prefix)) == 0 ? 1 : 0;
    }
    closedir(d);
    return n;
}

static char *path_in(const char *dir, const char *name)
{
    return mem_must_printf("%s/%s", dir, name);
}

static void put_file(const char *dir, const char *name, const char *text)
{
    mem_autofree char *path = path_in(dir, name);
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    fclose(f);
}

/* --- whose directory ---------------------------------------------------------------------------
 */
static void test_directory_is_a_link(void **state)
{
    struct test *t = *state;
    mem_autofree char *real = path_in(t->w->dir, "real");
    assert_int_equal(mkdir(real, 0755), 0);
    assert_int_equal(symlink(real, t->out), 0);
    refuse_open(t, ERR_DENIED, "a link or a file stands");
    assert_int_equal(unlink(t->out), 0);
    assert_int_equal(symlink("nowhere", t->out), 0);
    refuse_open(t, ERR_DENIED, "a link or a file stands");
    assert_int_equal(count(real, "."), 2);
}

static void test_directory_is_a_file(void **state)
{
    struct test *t = *state;
    put_file(t->w->dir, "out", "text");
    refuse_open(t, ERR_DENIED, "a link or a file stands");
}

static void test_directory_above_is_missing(void **state)
{
    struct test *t = *state;
    conf_rotate_free(t->conf);
    t->conf = rotate_world_conf(t->w, "{name: a, directory: DIR/x/out, layout: separate}");
    t->o = &t->conf->outputs[0];
    refuse_open(t, ERR_SYSTEM, "cannot open the directory above");
}

static void test_directory_of_another(void **state)
{
    struct test *t = *state;
    if (geteuid() != 0) {
        skip();
    }
    assert_int_equal(mkdir(t->out, 0755), 0);
    assert_int_equal(chown(t->out, 4711, 4711), 0);
    refuse_open(t, ERR_DENIED, "belongs to uid 4711");
}

static void test_directory_writable_by_others(void **state)
{
    struct test *t = *state;
    const mode_t modes[] = {0777, 0775, 0757, 01777};
    assert_int_equal(mkdir(t->out, 0755), 0);
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        assert_int_equal(chmod(t->out, modes[i]), 0);
        refuse_open(t, ERR_DENIED, "others may write");
    }
}

static void test_two_daemons(void **state)
{
    struct test *t = *state;
    struct rotate_dir *d = open_dir(t);
    refuse_open(t, ERR_UNAVAILABLE, "another daemon");
    rotate_dir_close(d);
    rotate_dir_close(open_dir(t));
}

static void test_data_of_another(void **state)
{
    struct test *t = *state;
    assert_int_equal(mkdir(t->out, 0755), 0);
    mem_autofree char *data = path_in(t->out, "..data");
    assert_int_equal(symlink("/etc", data), 0);
    refuse_open(t, ERR_DENIED, "is not of this daemon's making");
    assert_int_equal(unlink(data), 0);
    assert_int_equal(symlink("..2026_01_01_00_00_00.123", data), 0);
    refuse_open(t, ERR_DENIED, "is not of this daemon's making");
    assert_int_equal(unlink(data), 0);
    assert_int_equal(mkdir(data, 0755), 0);
    refuse_open(t, ERR_DENIED, "is not of this daemon's making");
}

static void test_directory_exchanged(void **state)
{
    struct test *t = *state;
    mem_autofree char *away = path_in(t->w->dir, "away");
    struct rotate_dir *d = open_dir(t);
    publish(t, d);
    assert_int_equal(rename(t->out, away), 0);
    refuse_publish(t, d, "was taken away");
    assert_int_equal(mkdir(t->out, 0755), 0);
    refuse_publish(t, d, "was taken away");
    assert_int_equal(count(t->out, "."), 2);
    assert_int_equal(rmdir(t->out), 0);
    assert_int_equal(symlink(away, t->out), 0);
    refuse_publish(t, d, "was taken away");
    assert_int_equal(unlink(t->out), 0);
    assert_int_equal(rename(away, t->out), 0);
    publish(t, d);
    assert_whole(t);
    assert_int_equal(chmod(t->out, 0777), 0);
    refuse_publish(t, d, "others may write");
    rotate_dir_close(d);
}

/* --- what stands under our names ---------------------------------------------------------------
 */
static void test_planted_names(void **state)
{
    struct test *t = *state;
    struct rotate_dir *d = open_dir(t);
    mem_autofree char *victim = path_in(t->w->dir, "victim");
    mem_autofree char *key = path_in(t->out, "tls.key");
    mem_autofree char *new_link = path_in(t->out, ROTATE_NEW_LINK);
    put_file(t->w->dir, "victim", "untouched");
    /* A link out of the directory: not followed, not replaced, and told. */
    assert_int_equal(symlink(victim, key), 0);
    refuse_publish(t, d, "'tls.key' is there");
    assert_null(read_out(t));
    assert_int_equal(unlink(key), 0);
    /* A plain file, a directory. */
    put_file(t->out, "tls.key", "mine");
    refuse_publish(t, d, "'tls.key' is there");
    assert_int_equal(unlink(key), 0);
    assert_int_equal(mkdir(key, 0755), 0);
    refuse_publish(t, d, "'tls.key' is there");
    assert_int_equal(rmdir(key), 0);
    /* Where a link is made before it is moved: taken away. */
    assert_int_equal(symlink(victim, new_link), 0);
    publish(t, d);
    assert_whole(t);
    /* The name that the next generation will have. */
    char name[ROTATE_GENERATION_LEN];
    rotate_generation_name(d->last_seq + 1, T0, name);
    mem_autofree char *next = path_in(t->out, name);
    assert_int_equal(symlink(t->w->dir, next), 0);
    refuse_publish(t, d, "cannot make");
    publish(t, d);
    assert_whole(t);
    mem_autofree char *text = NULL;
    size_t len = 0;
    assert_int_equal(os_read_file(victim, 100, true, &text, &len, NULL), 0);
    assert_string_equal(text, "untouched");
    rotate_dir_close(d);
}

static void test_files_of_before_are_replaced(void **state)
{
    struct test *t = *state;
    use(t, "replace_files: true");
    struct rotate_dir *d = open_dir(t);
    mem_autofree char *key = path_in(t->out, "tls.key");
    put_file(t->out, "tls.key", "of another program");
    put_file(t->out, "unrelated", "stays");
    publish(t, d);
    assert_whole(t);
    assert_int_equal(count(t->out, "unrelated"), 1);
    /* Links of others and directories stay errors. */
    assert_int_equal(unlink(key), 0);
    assert_int_equal(symlink("/etc/hosts", key), 0);
    refuse_publish(t, d, "'tls.key' is there");
    rotate_dir_close(d);
}

/* The key file is linked elsewhere: what goes from here goes there as well. */
static void test_hard_link_is_wiped(void **state)
{
    struct test *t = *state;
    struct err err = ERR_INIT;
    struct rotate_dir *d = open_dir(t);
    publish(t, d);
    mem_autofree char *old = path_in(t->out, d->present);
    mem_autofree char *key = path_in(old, "tls.key");
    mem_autofree char *kept = path_in(t->w->dir, "kept");
    assert_int_equal(link(key, kept), 0);
    for (int i = 0; i < 3; i++) {
        publish(t, d);
    }
    assert_int_equal(rotate_dir_tidy(d, T0 + 3600000, &err), 0);
    assert_int_equal(access(old, F_OK), -1);
    mem_autofree char *text = NULL;
    size_t len = 0;
    assert_int_equal(os_read_file(kept, 10000, true, &text, &len, NULL), 0);
    assert_true(len > 100);
    for (size_t i = 0; i < len; i++) {
        assert_int_equal(text[i], 0);
    }
    rotate_dir_close(d);
}

/* What is asked of openat2 holds without it. */
static void test_without_openat2(void **state)
{
    struct test *t = *state;
    mem_autofree char *victim = path_in(t->w->dir, "victim");
    put_file(t->w->dir, "victim", "untouched");
    pid_t pid = fork();
    if (pid == 0) {
        struct err err = ERR_INIT;
        scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);
        bool ok = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(openat2), 0) == 0 &&
                  seccomp_load(ctx) == 0;
        seccomp_release(ctx);
        struct rotate_dir *d = ok ? rotate_dir_open(t->o, &err) : NULL;
        ok = d != NULL && publish_at(t, d, T0, &err) == 1;
        /* A link where a file has to be made or opened. */
        ok = ok && symlinkat(victim, d->fd, "planted") == 0 &&
             rotate_open_beneath(d->fd, "planted", O_RDONLY, 0) == -1 && errno == ELOOP &&
             rotate_open_beneath(d->fd, "planted", O_WRONLY | O_CREAT, 0600) == -1 &&
             errno == ELOOP &&
             rotate_open_beneath(d->fd, ROTATE_DATA, O_RDONLY | O_DIRECTORY, 0) == -1;
        rotate_dir_close(d);
        _exit(ok ? 0 : 1);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_int_equal(strncmp(read_out(t), "whole ", 6), 0);
    mem_autofree char *text = NULL;
    size_t len = 0;
    assert_int_equal(os_read_file(victim, 100, true, &text, &len, NULL), 0);
    assert_string_equal(text, "untouched");
}

/* Somebody removed the generation that is in force: another one takes its place. */
static void test_present_is_gone(void **state)
{
    struct test *t = *state;
    struct rotate_dir *d = open_dir(t);
    publish(t, d);
    assert_int_equal(publish(t, d), 2);
    mem_autofree char *present = path_in(t->out, d->present);
    mem_autofree char *away = path_in(t->w->dir, "away");
    assert_int_equal(rename(present, away), 0);
    assert_int_equal(publish(t, d), 3);
    assert_whole(t);
    mem_autofree char *third = path_in(t->out, d->present);
    rotate_dir_close(d);
    mem_autofree char *away_too = path_in(t->w->dir, "away-too");
    assert_int_equal(rename(third, away_too), 0);
    d = open_dir(t);
    assert_int_equal(rotate_dir_generation(d), 0);
    assert_int_equal(publish(t, d), 4);
    assert_whole(t);
    rotate_dir_close(d);
}

/* --- what is made ------------------------------------------------------------------------------
 */
static void check_stat(struct test *t, const char *name, mode_t mode, uid_t uid, gid_t gid)
{
    struct stat st;
    mem_autofree char *path = path_in(t->out, name);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, mode);
    assert_int_equal(st.st_uid, uid);
    assert_int_equal(st.st_gid, gid);
}

static void test_modes_and_owners(void **state)
{
    struct test *t = *state;
    struct rotate_dir *d = open_dir(t);
    publish(t, d);
    check_stat(t, "tls.key", 0600, geteuid(), getegid());
    check_stat(t, "site.pem", 0600, geteuid(), getegid());
    check_stat(t, "tls.crt", 0644, geteuid(), getegid());
    check_stat(t, "..data", 0755, geteuid(), getegid());
    check_stat(t, ".", 0755, geteuid(), getegid());
    rotate_dir_close(d);
    if (geteuid() != 0) {
        return;
    }
    use(t, "owner: '4711', group: '4712', mode: 0440, public_mode: 0640");
    d = open_dir(t);
    publish(t, d);
    check_stat(t, "tls.key", 0440, 4711, 4712);
    check_stat(t, "tls.crt", 0640, 4711, 4712);
    check_stat(t, "..data", 0750, 0, 4712);
    check_stat(t, ".", 0750, 0, 4712);
    check_stat(t, "..data/..set.json", 0640, 4711, 4712);
    rotate_dir_close(d);
}

/* Those who may not give files away are told so, and the old set stays. */
static void test_owner_without_the_right(void **state)
{
    struct test *t = *state;
    if (geteuid() != 0) {
        skip();
    }
    use(t, "owner: '4711'");
    assert_int_equal(chmod(t->w->dir, 0777), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct err err = ERR_INIT;
        bool dropped = setgid(4713) == 0 && setuid(4713) == 0;
        struct rotate_dir *d = dropped ? rotate_dir_open(t->o, &err) : NULL;
        _exit(d == NULL && strstr(err.what, "cannot give") != NULL ? 0 : 1);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void test_links_follow_the_set(void **state)
{
    struct test *t = *state;
    struct rotate_dir *d = open_dir(t);
    publish(t, d);
    rotate_dir_close(d);
    put_file(t->out, "note", "a stranger's");
    mem_autofree char *alien = path_in(t->out, "alien");
    assert_int_equal(symlink("note", alien), 0);
    conf_rotate_free(t->conf);
    t->conf = rotate_world_conf(t->w, "{name: a, directory: DIR/out, files: [{name: tls.key, "
                                      "what: key}, {name: new.pem, what: leaf}]}");
    t->o = &t->conf->outputs[0];
    d = open_dir(t);
    assert_int_equal(publish(t, d), 2);
    assert_int_equal(count(t->out, "tls.crt"), 0);
    assert_int_equal(count(t->out, "site.pem"), 0);
    assert_int_equal(count(t->out, "tls.key") + count(t->out, "new.pem"), 2);
    assert_int_equal(count(t->out, "note") + count(t->out, "alien"), 2);
    rotate_dir_close(d);
}

/* --- old generations ---------------------------------------------------------------------------
 */
static void test_old_generations_go(void **state)
{
    struct test *t = *state;
    struct err err = ERR_INIT;
    struct rotate_dir *d = open_dir(t);
    for (unsigned i = 0; i < 6; i++) {
        assert_int_equal(publish_at(t, d, T0 + i * 1000, &err), i + 1);
    }
    /* Just out of use: a reader may still hold them. */
    assert_int_equal(rotate_dir_tidy(d, T0 + 6000, &err), 0);
    assert_int_equal(count(t->out, "..gen-"), 6);
    /* The first was in use until T0 + 1 s, and so on. */
    assert_int_equal(rotate_dir_tidy(d, T0 + 62500, &err), 0);
    assert_int_equal(count(t->out, "..gen-"), 4);
    assert_int_equal(rotate_dir_tidy(d, T0 + 3600000, &err), 0);
    assert_int_equal(count(t->out, "..gen-"), 3);
    assert_whole(t);
    /* A clock that was set back takes nothing away. */
    assert_int_equal(publish_at(t, d, T0 - 86400000, &err), 7);
    assert_int_equal(rotate_dir_tidy(d, T0 - 86400000, &err), 0);
    assert_int_equal(count(t->out, "..gen-"), 4);
    assert_whole(t);
    rotate_dir_close(d);
}

static void test_numbers_go_on_after_a_restart(void **state)
{
    struct test *t = *state;
    struct rotate_dir *d = open_dir(t);
    assert_int_equal(publish(t, d), 1);
    assert_int_equal(publish(t, d), 2);
    rotate_dir_close(d);
    d = open_dir(t);
    assert_int_equal(rotate_dir_generation(d), 2);
    assert_int_equal(publish(t, d), 3);
    rotate_dir_close(d);
}

/* --- each step ---------------------------------------------------------------------------------
 */
struct fault {
    unsigned at, n;
    int error; /* 0: the process ends instead */
    char what[32];
};

static bool on_step(void *arg, const char *what)
{
    struct fault *f = arg;
    if (f->n++ != f->at) {
        return true;
    }
    snprintf(f->what, sizeof(f->what), "%s", what);
    if (f->error == 0) {
        _exit(9);
    }
    errno = f->error;
    return false;
}

/* A set is in force before (or none), and an error comes at each step in turn. */
static void fail_each_step(struct test *t, bool first)
{
    unsigned at = 0;
    for (;; at++) {
        int error = at % 2 == 0 ? ENOSPC : EIO;
        struct fault f = {.at = at, .error = error};
        char before[64] = "";
        assert_true(at < STEPS_MAX);
        struct rotate_dir *d = open_dir(t);
        if (!first) {
            publish(t, d);
            snprintf(before, sizeof(before), "%s", read_out(t));
        }
        rotate_dir_set_step(d, on_step, &f);
        struct err err = ERR_INIT;
        int rc = publish_at(t, d, T0, &err);
        rotate_dir_set_step(d, NULL, NULL);
        if (rc != -1) {
            assert_whole(t);
            rotate_dir_close(d);
            break; /* there was no such step any more */
        }
        assert_true(err.code == ERR_SYSTEM && err.sys_errno == error && err.where[0] != '\0');
        /* Whole, old or new; and what is not in force is gone. */
        const char *seen = read_out(t);
        if (rotate_dir_generation(d) == d->last_seq) {
            assert_whole(t);
        } else if (first) {
            assert_null(seen);
            assert_int_equal(count(t->out, "..gen-"), 0);
        } else {
            assert_string_equal(seen, before);
        }
        assert_int_equal(count(t->out, ROTATE_NEW_LINK), 0);
        publish(t, d);
        assert_whole(t);
        rotate_dir_close(d);
        if (first) {
            rotate_world_free(t->w);
            t->w = rotate_world_new();
            use(t, "keep: 2");
            snprintf(t->out, sizeof(t->out), "%s/out", t->w->dir);
        }
    }
    assert_true(at > 20);
}

static void test_failed_at_each_step(void **state)
{
    fail_each_step(*state, false);
}

static void test_first_set_failed_at_each_step(void **state)
{
    fail_each_step(*state, true);
}

/* The process ends at each step in turn, as kill -9 or the loss of power would have it. */
static void test_killed_at_each_step(void **state)
{
    struct test *t = *state;
    unsigned at = 0;
    for (;; at++) {
        char before[64];
        char after[64];
        assert_true(at < STEPS_MAX);
        struct rotate_dir *d = open_dir(t);
        publish(t, d);
        rotate_dir_close(d);
        snprintf(before, sizeof(before), "%s", read_out(t));
        rotate_world_renew(t->w, CERTS_P256, false);
        snprintf(after, sizeof(after), "whole %ld",
                 ASN1_INTEGER_get(X509_get0_serialNumber(t->w->svid->leaf)));
        pid_t pid = fork();
        if (pid == 0) {
            struct fault f = {.at = at};
            uint64_t generation = 0;
            struct rotate_files *files = rotate_world_files(t->w, t->o, "");
            d = rotate_dir_open(t->o, NULL);
            rotate_dir_set_step(d, on_step, &f);
            int rc = rotate_dir_publish(d, files, T0, &generation, NULL);
            rc |= rotate_dir_tidy(d, T0 + 3600000, NULL);
            _exit(rc == 0 ? 0 : 1);
        }
        int status = 0;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status) && (WEXITSTATUS(status) == 9 || WEXITSTATUS(status) == 0));
        /* What readers see at once, and what the next daemon makes of it. */
        const char *seen = read_out(t);
        if (strcmp(seen, before) != 0 && strcmp(seen, after) != 0) {
            fail_msg("step %u: %s", at, seen);
        }
        mem_autofree char *kept = mem_must_strdup(seen);
        d = open_dir(t);
        assert_string_equal(read_out(t), kept);
        assert_int_equal(count(t->out, ROTATE_NEW_LINK), 0);
        publish(t, d);
        assert_int_equal(rotate_dir_tidy(d, T0 + 3600000, NULL), 0);
        assert_int_equal(count(t->out, "..gen-"), at == 0 ? 2 : 3);
        assert_whole(t);
        rotate_dir_close(d);
        if (WEXITSTATUS(status) == 0) {
            break;
        }
    }
    assert_true(at > 30);
}

/* The very first set: its links may be missing, until the next change. */
static void test_first_set_killed_at_each_step(void **state)
{
    struct test *t = *state;
    for (unsigned at = 0;; at++) {
        assert_true(at < STEPS_MAX);
        pid_t pid = fork();
        if (pid == 0) {
            struct fault f = {.at = at};
            uint64_t generation = 0;
            struct rotate_files *files = rotate_world_files(t->w, t->o, "");
            struct rotate_dir *d = rotate_dir_open(t->o, NULL);
            rotate_dir_set_step(d, on_step, &f);
            _exit(rotate_dir_publish(d, files, T0, &generation, NULL) == 0 ? 0 : 1);
        }
        int status = 0;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        const char *seen = read_out(t);
        if (seen != NULL && strncmp(seen, "whole ", 6) != 0) {
            fail_msg("step %u: %s", at, seen);
        }
        struct rotate_dir *d = open_dir(t);
        assert_int_equal(count(t->out, "..gen-"), seen != NULL ? 1 : 0);
        publish(t, d);
        assert_whole(t);
        rotate_dir_close(d);
        if (WEXITSTATUS(status) == 0) {
            break;
        }
        rotate_world_free(t->w);
        t->w = rotate_world_new();
        use(t, "keep: 2");
        snprintf(t->out, sizeof(t->out), "%s/out", t->w->dir);
    }
}

/* --- names -------------------------------------------------------------------------------------
 */
static void test_generation_names(void **state)
{
    static const char *const bad[] = {
        "",
        "..data",
        "..gen-",
        "..gen-0000000000000017",
        "..gen-0000000000000017-",
        "..gen-0000000000000017-19ad0d2b6c",
        "..gen-0000000000000017-19AD0D2B6C4",
        "..gen-000000000000001x-19ad0d2b6c4",
        "..gen-0000000000000017_19ad0d2b6c4",
        "..gen-0000000000000017-19ad0d2b6c4/../..",
        "..gen-0000000000000017-00000000000000001",
        "gen-0000000000000017-19ad0d2b6c4",
    };
    uint64_t seq = 0;
    uint64_t ms = 0;
    char name[ROTATE_GENERATION_LEN];
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_false(rotate_generation_parse(str_of(bad[i]), &seq, &ms));
    }
    rotate_generation_name(17, UINT64_C(0x19ad0d2b6c4), name);
    assert_string_equal(name, "..gen-0000000000000017-19ad0d2b6c4");
    assert_true(rotate_generation_parse(str_of(name), &seq, &ms));
    assert_true(seq == 17 && ms == UINT64_C(0x19ad0d2b6c4));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_directory_is_a_link),
        TEST(test_directory_is_a_file),
        TEST(test_directory_above_is_missing),
        TEST(test_directory_of_another),
        TEST(test_directory_writable_by_others),
        TEST(test_two_daemons),
        TEST(test_data_of_another),
        TEST(test_directory_exchanged),
        TEST(test_planted_names),
        TEST(test_files_of_before_are_replaced),
        TEST(test_hard_link_is_wiped),
        TEST(test_without_openat2),
        TEST(test_present_is_gone),
        TEST(test_modes_and_owners),
        TEST(test_owner_without_the_right),
        TEST(test_links_follow_the_set),
        TEST(test_old_generations_go),
        TEST(test_numbers_go_on_after_a_restart),
        TEST(test_failed_at_each_step),
        TEST(test_first_set_failed_at_each_step),
        TEST(test_killed_at_each_step),
        TEST(test_first_set_killed_at_each_step),
        cmocka_unit_test(test_generation_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
