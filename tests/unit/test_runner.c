/* postern-rotate-run: whom a signal goes to, and what is no message. Cases R of
 * docs/rotation-actions.md. Victims are copies of a real program under names of their own. */
#include <postern/actions_wire.h>

#include <postern/mem.h>
#include <postern/os.h>
#include <postern/proc.h>

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "runner_priv.h"

enum { OTHER_UID = 48911, WAIT_MS = 20000 };

struct place {
    char dir[64];
    char exe[96], pid_file[96], conf[96];
    struct attest_view view;
    pid_t victim;
    int victim_in; /* the victim lives until this is closed */
};

/* --- the place -------------------------------------------------------------------------------- */
static void copy_file(const char *from, const char *to)
{
    os_autofd int in = open(from, O_RDONLY | O_CLOEXEC);
    os_autofd int out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0755);
    char bytes[65536];
    ssize_t n;

    assert_true(in != -1 && out != -1);
    while ((n = read(in, bytes, sizeof(bytes))) > 0) {
        assert_int_equal(os_write_all(out, bytes, (size_t)n), 0);
    }
    assert_int_equal(n, 0);
    assert_int_equal(fchmod(out, 0755), 0);
}

static int set_up(void **state)
{
    struct place *p = mem_must_new(struct place);
    struct err err = ERR_INIT;

    (void)snprintf(p->dir, sizeof(p->dir), "/tmp/postern-runner-XXXXXX");
    assert_non_null(mkdtemp(p->dir));
    assert_int_equal(chmod(p->dir, 0755), 0);
    (void)snprintf(p->exe, sizeof(p->exe), "%s/server", p->dir);
    (void)snprintf(p->pid_file, sizeof(p->pid_file), "%s/server.pid", p->dir);
    (void)snprintf(p->conf, sizeof(p->conf), "%s/rotate.yaml", p->dir);
    copy_file("/bin/cat", p->exe);
    assert_int_equal(attest_view_init(&p->view, &err), 0);
    p->victim_in = -1;
    *state = p;
    return 0;
}

/* How the victim ended: its signal, or 0 after an orderly end. */
static int end_victim(struct place *p)
{
    int status = 0;

    if (p->victim_in != -1) {
        close(p->victim_in);
        p->victim_in = -1;
    }
    assert_int_equal(waitpid(p->victim, &status, 0), p->victim);
    p->victim = 0;
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static int tear_down(void **state)
{
    struct place *p = *state;
    mem_autofree char *command = mem_must_printf("rm -rf %s", p->dir);

    if (p->victim > 0) {
        (void)end_victim(p);
    }
    attest_view_deinit(&p->view);
    assert_int_equal(system(command), 0); /* NOLINT(cert-env33-c,concurrency-mt-unsafe) */
    free(p);
    return 0;
}

static void need_root(void)
{
    if (geteuid() != 0) {
        skip();
    }
}

struct how {
    uid_t uid;
    const char *mount_over; /* bound onto the executable, in mounts of its own */
};

/* Starts it and returns when it has become the program. */
static void start_victim(struct place *p, const struct how *how)
{
    int in[2], ready[2];
    char byte;

    assert_int_equal(pipe2(in, O_CLOEXEC), 0);
    assert_int_equal(pipe2(ready, O_CLOEXEC), 0); /* closed by exec */
    p->victim = fork();
    assert_int_not_equal(p->victim, -1);
    if (p->victim == 0) {
        /* Whoever runs this may ignore it (nohup does). */
        bool ok = dup2(in[0], 0) == 0 && signal(SIGHUP, SIG_DFL) != SIG_ERR;

        if (how != NULL && how->mount_over != NULL) {
            ok = ok && unshare(CLONE_NEWNS) == 0 &&
                 mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
                 mount(how->mount_over, p->exe, NULL, MS_BIND, NULL) == 0;
        }
        if (how != NULL && how->uid != 0) {
            ok = ok && setgroups(0, NULL) == 0 && setresgid(how->uid, how->uid, how->uid) == 0 &&
                 setresuid(how->uid, how->uid, how->uid) == 0;
        }
        if (ok) {
            (void)execl(p->exe, "server", (char *)NULL);
        }
        ok = write(ready[1], "x", 1) == 1;
        _exit(ok ? 126 : 127);
    }
    close(in[0]);
    close(ready[1]);
    p->victim_in = in[1];
    assert_int_equal(read(ready[0], &byte, 1), 0);
    close(ready[0]);
}

static void write_pid_file(struct place *p, const char *text)
{
    (void)unlink(p->pid_file);
    os_autofd int fd = open(p->pid_file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

    assert_int_not_equal(fd, -1);
    assert_int_equal(fchmod(fd, 0644), 0);
    assert_int_equal(os_write_all(fd, text, strlen(text)), 0);
}

static void write_pid(struct place *p, pid_t pid)
{
    char text[32];

    (void)snprintf(text, sizeof(text), "%d\n", (int)pid);
    write_pid_file(p, text);
}

static bool any_mounts; /* of the next look */

static enum actions_outcome look(struct place *p, int *ret_pidfd, char ret_text[ACTIONS_TEXT_MAX])
{
    const pid_t own[] = {getpid(), getppid()};
    const struct runner_target t = {.pid_file = p->pid_file,
                                    .executable = p->exe,
                                    .any_mounts = any_mounts,
                                    .signo = SIGHUP,
                                    .own = own,
                                    .n_own = 2};

    ret_text[0] = '\0';
    return runner_signal_look(&p->view, &t, ret_pidfd, ret_text);
}

static void assert_refused(struct place *p, const char *says)
{
    char text[ACTIONS_TEXT_MAX];
    int pidfd = -1;
    enum actions_outcome outcome = look(p, &pidfd, text);

    if (outcome != ACTIONS_REFUSED || strstr(text, says) == NULL) {
        fail_msg("%s '%s', expected refused '%s'", actions_outcome_name(outcome), text, says);
    }
}

/* And it is the victim that gets it. */
static void assert_signalled(struct place *p)
{
    char text[ACTIONS_TEXT_MAX];
    os_autofd int pidfd = -1;
    enum actions_outcome outcome = look(p, &pidfd, text);

    if (outcome != ACTIONS_OK) {
        fail_msg("%s: %s", actions_outcome_name(outcome), text);
    }
    assert_int_equal(runner_signal_send(pidfd, SIGHUP, text), ACTIONS_OK);
    assert_int_equal(end_victim(p), SIGHUP);
}

/* --- pid files -------------------------------------------------------------------------------- */
static const struct {
    const char *text, *says;
} numbers[] = {
    {"", "does not begin with a process's number"},
    {"\n", "does not begin with a process's number"},
    {"nginx\n", "does not begin with a process's number"},
    {"0\n", "does not begin with a process's number"},
    {"-1\n", "does not begin with a process's number"},
    {"12 13\n", "does not begin with a process's number"},
    {"99999999999999999999\n", "does not begin with a process's number"},
    {"4194305\n", "does not begin with a process's number"},
    {"0000000000000000000000000000000000000012\n", "does not begin with a process's number"},
    {"1\n", "names process 1"},
};

static void test_pid_files_refused(void **state)
{
    struct place *p = *state;
    mem_autofree char *other = mem_must_printf("%s/other", p->dir);

    assert_refused(p, "cannot be opened");
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        write_pid_file(p, numbers[i].text);
        assert_refused(p, numbers[i].says);
    }
    write_pid(p, getpid());
    assert_refused(p, "our own");
    start_victim(p, NULL);
    write_pid(p, p->victim);
    assert_int_equal(link(p->pid_file, other), 0);
    assert_refused(p, "has 2 names");
    assert_int_equal(rename(other, p->pid_file), 0); /* the same file: both names stay */
    assert_int_equal(unlink(p->pid_file), 0);
    assert_int_equal(symlink(other, p->pid_file), 0);
    assert_refused(p, "is a link");
    assert_int_equal(unlink(p->pid_file), 0);
    assert_int_equal(mkfifo(p->pid_file, 0644), 0);
    assert_refused(p, "no regular file");
    assert_int_equal(unlink(p->pid_file), 0);
    assert_int_equal(mkdir(p->pid_file, 0755), 0);
    assert_refused(p, "no regular file");
    assert_int_equal(rmdir(p->pid_file), 0);
    write_pid(p, p->victim);
    assert_int_equal(chmod(p->pid_file, 0666), 0);
    assert_refused(p, "everybody may write");
    assert_int_equal(chmod(p->pid_file, 0644), 0);
    assert_signalled(p);
}

static void test_more_lines(void **state)
{
    struct place *p = *state;
    char text[200];

    start_victim(p, NULL);
    (void)snprintf(text, sizeof(text), "  %d\n/var/lib/postgresql/data\n1790000000\n5432\n",
                   (int)p->victim);
    write_pid_file(p, text);
    assert_signalled(p);
}

static void test_pid_file_owners(void **state)
{
    struct place *p = *state;
    const struct how other = {.uid = OTHER_UID};

    need_root();
    start_victim(p, NULL);
    write_pid(p, p->victim);
    assert_int_equal(chown(p->pid_file, OTHER_UID, OTHER_UID), 0);
    assert_refused(p, "its process uid 0's");
    assert_int_equal(chown(p->pid_file, 0, 0), 0);
    assert_int_equal(chmod(p->pid_file, 0664), 0);
    assert_refused(p, "a group may write");
    assert_int_equal(end_victim(p), 0);
    /* His own process: yes, with a group of his own too. */
    start_victim(p, &other);
    write_pid(p, p->victim);
    assert_int_equal(chown(p->pid_file, OTHER_UID, OTHER_UID), 0);
    assert_int_equal(chmod(p->pid_file, 0660), 0);
    assert_signalled(p);
    /* Root's file may name anybody's. */
    start_victim(p, &other);
    write_pid(p, p->victim);
    assert_signalled(p);
}

/* --- processes -------------------------------------------------------------------------------- */
static void test_other_executable(void **state)
{
    struct place *p = *state;
    mem_autofree char *other = mem_must_printf("%s/other", p->dir);

    start_victim(p, NULL);
    write_pid(p, p->victim);
    copy_file("/bin/cat", other);
    assert_int_equal(rename(p->exe, other), 0);
    copy_file("/bin/cat", p->exe);
    assert_refused(p, "runs "); /* its file is called `other` by now */
    assert_int_equal(end_victim(p), 0);
    assert_refused(p, "there is no such process");
}

static void test_reused_pid(void **state)
{
    struct place *p = *state;
    const struct timespec long_ago[2] = {{.tv_sec = os_wall_s() - 600},
                                         {.tv_sec = os_wall_s() - 600}};

    start_victim(p, NULL);
    write_pid(p, p->victim);
    assert_int_equal(utimensat(AT_FDCWD, p->pid_file, long_ago, 0), 0);
    assert_refused(p, "began after the pid file was written");
    assert_int_equal(utimensat(AT_FDCWD, p->pid_file, NULL, 0), 0);
    assert_signalled(p);
}

static void test_ended_process(void **state)
{
    struct place *p = *state;
    char text[ACTIONS_TEXT_MAX];
    os_autofd int pidfd = -1;

    start_victim(p, NULL);
    write_pid(p, p->victim);
    assert_int_equal(look(p, &pidfd, text), ACTIONS_OK);
    assert_int_equal(end_victim(p), 0);
    assert_int_equal(runner_signal_send(pidfd, SIGHUP, text), ACTIONS_FAILED);
    assert_non_null(strstr(text, "No such process"));
}

static void test_replaced_executable(void **state)
{
    struct place *p = *state;
    mem_autofree char *newer = mem_must_printf("%s/newer", p->dir);

    start_victim(p, NULL);
    write_pid(p, p->victim);
    copy_file("/bin/cat", newer);
    assert_int_equal(rename(newer, p->exe), 0);
    assert_signalled(p);
}

/* The kernel shows the same path, but it is a path over there. */
static void test_own_mounts(void **state)
{
    struct place *p = *state;
    mem_autofree char *fake = mem_must_printf("%s/fake", p->dir);
    const struct how how = {.mount_over = fake};
    char seen[200] = "", link_name[64];

    need_root();
    copy_file("/bin/cat", fake);
    start_victim(p, &how);
    (void)snprintf(link_name, sizeof(link_name), "/proc/%d/exe", (int)p->victim);
    assert_true(readlink(link_name, seen, sizeof(seen) - 1) > 0);
    assert_string_equal(seen, p->exe);
    write_pid(p, p->victim);
    assert_refused(p, "and not");
    /* Also when its file is gone, which looks like an upgrade. */
    assert_int_equal(unlink(fake), 0);
    assert_refused(p, "and not");
    assert_int_equal(end_victim(p), 0);
    /* Who says that he believes that place's root gets it. */
    copy_file("/bin/cat", fake);
    start_victim(p, &how);
    write_pid(p, p->victim);
    any_mounts = true;
    assert_signalled(p);
    any_mounts = false;
}

/* With our own mounts `any` is no more than `own`. */
static void test_any_mounts_is_not_any_file(void **state)
{
    struct place *p = *state;
    mem_autofree char *other = mem_must_printf("%s/other", p->dir);

    start_victim(p, NULL);
    write_pid(p, p->victim);
    assert_int_equal(rename(p->exe, other), 0);
    copy_file("/bin/cat", p->exe);
    any_mounts = true;
    assert_refused(p, "and not");
    any_mounts = false;
    assert_int_equal(end_victim(p), 0);
}

static void test_pid_by_number(void **state)
{
    struct place *p = *state;
    char text[ACTIONS_TEXT_MAX] = "";
    struct runner_target t = {.pid = 1, .executable = p->exe, .signo = SIGHUP};

    assert_int_equal(runner_signal(&p->view, &t, text), ACTIONS_REFUSED);
    start_victim(p, NULL);
    t.pid = p->victim;
    assert_int_equal(runner_signal(&p->view, &t, text), ACTIONS_OK);
    assert_int_equal(end_victim(p), SIGHUP);
    assert_int_equal(runner_signal(&p->view, &t, text), ACTIONS_REFUSED);
}

/* --- the process ------------------------------------------------------------------------------ */
struct runner_process {
    pid_t pid;
    int pidfd, channel, theirs;
    uint64_t digest; /* of what it goes by, for run() */
    union actions_msg in;
};

static void write_conf(struct place *p, const char *after)
{
    mem_autofree char *text =
        mem_must_printf("kind: Rotate\nlevel: 1\nidentity: {socket: 'unix:/nowhere'}\noutputs:\n"
                        "- {name: o, directory: /nowhere, layout: nginx, after: [%s]}\n",
                        after);

    assert_int_equal(os_write_file_atomic(p->conf, text, strlen(text), 0644, NULL), 0);
}

static void runner_pair(struct runner_process *r)
{
    int pair[2];

    assert_int_equal(ipc_pair(pair, NULL), 0);
    *r = (struct runner_process){.channel = pair[0], .theirs = pair[1]};
}

static void runner_spawned(struct place *p, struct runner_process *r, int parent_death_signal)
{
    const char *argv[] = {"postern-rotate-run", p->conf, NULL};
    struct proc_spec spec = {
        .path = PROCESS, .argv = argv, .n_fds = 1, .parent_death_signal = parent_death_signal};

    spec.fds[0] = r->theirs;
    assert_int_equal(proc_spawn(&spec, &r->pid, &r->pidfd, NULL), 0);
    close(r->theirs);
}

static void runner_start(struct place *p, struct runner_process *r)
{
    runner_pair(r);
    runner_spawned(p, r, SIGKILL);
}

static enum ipc_outcome runner_next(struct runner_process *r)
{
    struct pollfd f = {.fd = r->channel, .events = POLLIN};
    enum ipc_outcome o;

    while ((o = actions_recv(r->channel, ACTIONS_TO_DAEMON, &r->in)) == IPC_AGAIN) {
        assert_int_equal(poll(&f, 1, WAIT_MS), 1);
    }
    return o;
}

static void runner_expect(struct runner_process *r, enum actions_type type)
{
    assert_int_equal(runner_next(r), IPC_OK);
    if (r->in.head.type != (uint32_t)type) {
        fail_msg("%s, expected %s", actions_type_name(r->in.head.type), actions_type_name(type));
    }
}

/* Closes the channel and returns the exit status. */
static int runner_end(struct runner_process *r)
{
    int status = 0;

    close(r->channel);
    close(r->pidfd);
    assert_int_equal(waitpid(r->pid, &status, 0), r->pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void run(struct runner_process *r, uint64_t job, uint32_t output, uint32_t action)
{
    struct actions_msg_run m;

    actions_wire_init(&m, ACTIONS_RUN);
    m.job = job;
    m.generation = 7;
    m.digest = r->digest;
    m.output = output;
    m.action = action;
    assert_int_equal(actions_send(r->channel, &m), IPC_OK);
}

static const struct actions_msg_done *done(struct runner_process *r, uint64_t job)
{
    runner_expect(r, ACTIONS_DONE);
    assert_int_equal(r->in.done.job, job);
    return &r->in.done;
}

static void test_bad_messages(void **state)
{
    struct place *p = *state;
    union actions_msg good;
    struct runner_process r;

    write_conf(p, "{command: [/bin/true]}");
    for (int i = 0; i < 9; i++) {
        union actions_msg m;
        size_t size;

        actions_wire_init(&good, ACTIONS_RUN);
        good.run.job = 1;
        m = good;
        size = sizeof(m.run);
        switch (i) {
        case 0:
            size--;
            break;
        case 1:
            size++;
            break;
        case 2:
            size = 3;
            break;
        case 3:
            m.head.type = 999;
            break;
        case 4:
            actions_wire_init(&m, ACTIONS_DONE); /* the other way */
            m.done.job = 1;
            size = sizeof(m.done);
            break;
        case 5:
            m.run.job = 0;
            break;
        case 6:
            m.run.output = CONF_ROTATE_OUTPUTS_MAX;
            break;
        case 7:
            actions_wire_init(&m, ACTIONS_CHILD_SIGNAL);
            m.child_signal.signo = SIGKILL;
            size = sizeof(m.child_signal);
            break;
        default:
            break; /* as it should be, but a descriptor comes with it */
        }
        runner_start(p, &r);
        runner_expect(&r, ACTIONS_LOADED);
        assert_int_equal(ipc_send(r.channel, &m, size, i == 8 ? r.channel : -1), IPC_OK);
        assert_int_equal(runner_next(&r), IPC_CLOSED);
        assert_int_equal(runner_end(&r), 1);
    }
}

static void test_numbers(void **state)
{
    struct place *p = *state;
    struct runner_process r;
    struct actions_msg_verify v;

    write_conf(p, "{command: [/bin/true]}, {command: [/bin/false]}, {command: [/nowhere/x]}, "
                  "{signal: {child: true}}");
    runner_start(p, &r);
    runner_expect(&r, ACTIONS_LOADED);
    assert_int_equal(r.in.loaded.failed, 0);
    r.digest = r.in.loaded.digest;
    run(&r, 1, 1, 0);
    assert_int_equal(done(&r, 1)->outcome, ACTIONS_REFUSED);
    run(&r, 2, 0, 4);
    assert_int_equal(done(&r, 2)->outcome, ACTIONS_REFUSED);
    actions_wire_init(&v, ACTIONS_VERIFY);
    v.job = 3;
    v.digest = r.digest;
    assert_int_equal(actions_send(r.channel, &v), IPC_OK);
    assert_int_equal(done(&r, 3)->outcome, ACTIONS_REFUSED);
    run(&r, 4, 0, 0);
    assert_int_equal(done(&r, 4)->outcome, ACTIONS_OK);
    assert_int_equal(r.in.done.exit_status, 0);
    run(&r, 5, 0, 1);
    assert_int_equal(done(&r, 5)->outcome, ACTIONS_FAILED);
    assert_int_equal(r.in.done.exit_status, 1);
    run(&r, 6, 0, 2);
    assert_int_equal(done(&r, 6)->outcome, ACTIONS_FAILED);
    assert_int_equal(r.in.done.exit_status, -1);
    run(&r, 7, 0, 3);
    assert_int_equal(done(&r, 7)->outcome, ACTIONS_REFUSED);
    assert_int_equal(runner_end(&r), 0);
}

static bool catches_alarm(pid_t pid)
{
    mem_autofree char *path = mem_must_printf("/proc/%d/status", pid);
    mem_autofree char *text = NULL;
    size_t len;
    const char *line;

    assert_int_equal(os_read_file(path, 65536, false, &text, &len, NULL), 0);
    line = strstr(text, "SigCgt:");
    assert_non_null(line);
    return (strtoull(line + 7, NULL, 16) >> (SIGALRM - 1) & 1) != 0;
}

/* Of a daemon that is killed. The channel stays open here: so it looks to a runner that hangs. */
static void test_parent_death(void **state)
{
    struct place *p = *state;
    struct runner_process r;
    int up[2], down[2];
    char byte;
    pid_t daemon;

    write_conf(p, "{command: [/bin/true]}");
    runner_pair(&r);
    assert_true(pipe2(up, O_CLOEXEC) == 0 && pipe2(down, O_CLOEXEC) == 0);
    daemon = fork();
    if (daemon == 0) {
        close(down[1]);
        runner_spawned(p, &r, 0);
        (void)!write(up[1], &r.pid, sizeof(r.pid));
        (void)!read(down[0], &byte, 1);
        _exit(0);
    }
    close(r.theirs);
    assert_int_equal(read(up[0], &r.pid, sizeof(r.pid)), sizeof(r.pid));
    r.pidfd = (int)syscall(SYS_pidfd_open, r.pid, 0);
    assert_true(r.pidfd != -1);
    runner_expect(&r, ACTIONS_LOADED);
    r.digest = r.in.loaded.digest;
    assert_true(catches_alarm(r.pid));
    close(down[1]);
    assert_int_equal(waitpid(daemon, NULL, 0), daemon);
    for (int i = 0; catches_alarm(r.pid); i++) {
        assert_true(i < WAIT_MS / 5);
        (void)poll(NULL, 0, 5);
    }
    /* Its time has begun, and is not over. */
    run(&r, 1, 0, 0);
    assert_int_equal(done(&r, 1)->outcome, ACTIONS_OK);
    assert_int_equal(kill(r.pid, SIGALRM), 0);
    {
        struct pollfd f = {.fd = r.pidfd, .events = POLLIN};

        assert_int_equal(poll(&f, 1, WAIT_MS), 1);
    }
    close(r.pidfd);
    close(r.channel);
    close(up[0]);
    close(up[1]);
    close(down[0]);
}

static void test_config_owner(void **state)
{
    struct place *p = *state;
    struct runner_process r;

    write_conf(p, "{command: [/bin/true]}");
    assert_int_equal(chmod(p->conf, 0664), 0);
    runner_start(p, &r);
    runner_expect(&r, ACTIONS_LOADED);
    assert_int_equal(r.in.loaded.failed, 1);
    assert_non_null(strstr(r.in.loaded.error.what, "others may write"));
    assert_int_equal(runner_end(&r), 1);
    need_root();
    write_conf(p, "{command: [/bin/true]}");
    assert_int_equal(chown(p->conf, OTHER_UID, OTHER_UID), 0);
    runner_start(p, &r);
    runner_expect(&r, ACTIONS_LOADED);
    assert_int_equal(r.in.loaded.failed, 1);
    assert_non_null(strstr(r.in.loaded.error.what, "belongs to uid"));
    assert_int_equal(runner_end(&r), 1);
}

/* What the daemon has read and what the runner has read is the same, or the old one stays. */
static void test_reload_digest(void **state)
{
    struct place *p = *state;
    struct actions_msg_reload m;
    struct actions_msg_verify v;
    struct runner_process r;
    uint64_t old;

    write_conf(p, "{command: [/bin/true]}");
    runner_start(p, &r);
    runner_expect(&r, ACTIONS_LOADED);
    r.digest = old = r.in.loaded.digest;
    write_conf(p, "{command: [/bin/false]}");
    actions_wire_init(&m, ACTIONS_RELOAD);
    m.digest = old + 1;
    assert_int_equal(actions_send(r.channel, &m), IPC_OK);
    runner_expect(&r, ACTIONS_LOADED);
    assert_int_equal(r.in.loaded.failed, 1);
    assert_int_equal(r.in.loaded.digest, old);
    run(&r, 1, 0, 0);
    assert_int_equal(done(&r, 1)->outcome, ACTIONS_OK);
    {
        struct conf_rotate *conf = NULL;

        assert_int_equal(runner_load(p->conf, &conf, NULL), 0);
        m.digest = actions_digest(conf);
        assert_true(m.digest != old);
        conf_rotate_free(conf);
    }
    assert_int_equal(actions_send(r.channel, &m), IPC_OK);
    runner_expect(&r, ACTIONS_LOADED);
    assert_int_equal(r.in.loaded.failed, 0);
    assert_int_equal(r.in.loaded.digest, m.digest);
    /* What was asked for by the old file is not what has its number in the new one. */
    run(&r, 2, 0, 0);
    assert_int_equal(done(&r, 2)->outcome, ACTIONS_REFUSED);
    assert_memory_equal(r.in.done.text, "it was asked for by another", 27);
    actions_wire_init(&v, ACTIONS_VERIFY);
    v.job = 3;
    v.digest = old;
    assert_int_equal(actions_send(r.channel, &v), IPC_OK);
    assert_int_equal(done(&r, 3)->outcome, ACTIONS_REFUSED);
    assert_memory_equal(r.in.done.text, "it was asked for by another", 27);
    r.digest = m.digest;
    run(&r, 4, 0, 0);
    assert_int_equal(done(&r, 4)->outcome, ACTIONS_FAILED);
    assert_int_equal(runner_end(&r), 0);
}

/* --- lines ------------------------------------------------------------------------------------ */
static void on_line(void *arg, const char *line, size_t len)
{
    struct buf *out = arg;

    assert_true(len <= ACTIONS_LINE_MAX);
    assert_true(buf_append(out, line, len) && buf_append(out, "|", 1));
}

static void test_lines(void **state)
{
    struct runner_lines l = {.len = 0};
    struct buf out = BUF_INIT(1 << 20);
    char big[3000];

    (void)state;
    runner_lines_feed(&l, "a", 1, on_line, &out);
    runner_lines_feed(&l, "b\n\nc", 4, on_line, &out);
    runner_lines_end(&l, on_line, &out);
    assert_true(str_eq(buf_str(&out), STR_LIT("ab||c|")));
    buf_reset(&out);
    memset(big, 'x', sizeof(big));
    big[sizeof(big) - 1] = '\n';
    runner_lines_feed(&l, big, sizeof(big), on_line, &out);
    assert_int_equal(buf_len(&out), ACTIONS_LINE_MAX + 1);
    for (int i = 0; i < 200; i++) {
        runner_lines_feed(&l, "\n", 1, on_line, &out);
    }
    assert_int_equal(l.n_lines, ACTIONS_LINES_MAX);
    assert_int_equal(l.n_lost, 204 - ACTIONS_LINES_MAX);
    buf_reset(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_pid_files_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_more_lines, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_pid_file_owners, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_other_executable, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_reused_pid, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_ended_process, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_replaced_executable, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_own_mounts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_any_mounts_is_not_any_file, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_pid_by_number, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bad_messages, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_numbers, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_parent_death, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_config_owner, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_reload_digest, set_up, tear_down),
        cmocka_unit_test(test_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
