/*
 * attestor: the real process, with the test in the place of supervisor, keeper, service and
 * workloads. docs/privilege-separation.md lists the attack cases marked A. Every case runs with the
 * kernel's own pidfd of the peer and again as on a kernel without it.
 */
#include <postern/agent_ipc.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <postern/proc.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { WAIT_MS = 20000, MAX_UID_HANDLES = 8, ATTESTOR_UID = 64602, OTHER_UID = 48901 };

struct attestor_process {
    int control, keeper, service, listen;
    pid_t pid;
    int pidfd;
    char dir[64], sock[96];
    bool fallback;
};

static union agent_msg in;
static int in_fd;

/* --- harness ---------------------------------------------------------------------------------- */
static enum ipc_outcome recv_any(int fd, enum agent_way way)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    enum ipc_outcome o;

    in_fd = -1;
    while ((o = agent_ipc_recv(fd, way, &in, &in_fd)) == IPC_AGAIN) {
        assert_int_equal(poll(&p, 1, WAIT_MS), 1);
    }
    return o;
}

static void expect(int fd, enum agent_way way, enum agent_msg_type type)
{
    assert_int_equal(recv_any(fd, way), IPC_OK);
    if (in.head.type != (uint32_t)type) {
        fail_msg("%s, expected %s", agent_msg_name(in.head.type), agent_msg_name(type));
    }
}

static bool silent(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    return poll(&p, 1, 0) == 0;
}

static void send_ok(int fd, const void *msg, int passed)
{
    assert_int_equal(agent_ipc_send(fd, msg, passed), IPC_OK);
}

static void new_service(struct attestor_process *a)
{
    struct agent_msg_plain m;
    int pair[2];

    assert_int_equal(ipc_pair(pair, NULL), 0);
    agent_ipc_init(&m, AGENT_MSG_SERVICE, 0);
    send_ok(a->control, &m, pair[1]);
    close(pair[1]);
    if (a->service != -1) {
        close(a->service);
    }
    a->service = pair[0];
}

static int open_socket(struct attestor_process *a)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    (void)snprintf(a->dir, sizeof(a->dir), "/tmp/postern-attestor-XXXXXX");
    assert_non_null(mkdtemp(a->dir));
    assert_int_equal(chmod(a->dir, 0755), 0);
    (void)snprintf(a->sock, sizeof(a->sock), "%s/s", a->dir);
    (void)snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", a->sock);
    assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    assert_int_equal(chmod(a->sock, 0666), 0);
    assert_int_equal(listen(fd, 64), 0);
    return fd;
}

static int start(void **state, bool fallback)
{
    static const char *const env[] = {"POSTERN_SANDBOX_KILL=1", NULL};
    const char *argv[] = {"postern-attestor", NULL};
    struct attestor_process *a = mem_must_new(struct attestor_process);
    struct proc_spec spec = {
        .path = PROCESS, .argv = argv, .env = env, .n_fds = 3, .parent_death_signal = SIGKILL};
    struct agent_msg_start_attestor m;
    int control[2], keeper[2];

    assert_int_equal(ipc_pair(control, NULL), 0);
    assert_int_equal(ipc_pair(keeper, NULL), 0);
    a->listen = open_socket(a);
    spec.fds[0] = control[1];
    spec.fds[1] = keeper[1];
    spec.fds[2] = a->listen;
    assert_int_equal(proc_spawn(&spec, &a->pid, &a->pidfd, NULL), 0);
    close(control[1]);
    close(keeper[1]);
    a->control = control[0];
    a->keeper = keeper[0];
    a->service = -1;
    a->fallback = fallback;
    agent_ipc_init(&m, AGENT_MSG_START_ATTESTOR, 0);
    m.log_level = LOG_ERROR;
    m.max_handles = 64;
    m.max_uid_handles = MAX_UID_HANDLES;
    m.run_uid = m.run_gid = ATTESTOR_UID;
    m.force_fallback = fallback;
    send_ok(a->control, &m, -1);
    expect(a->control, AGENT_WAY_ATTESTOR_SUPERVISOR, AGENT_MSG_REPORT);
    assert_true(in.report.report.seccomp && in.report.report.no_new_privs);
    if (geteuid() == 0) {
        assert_int_equal(in.report.report.uid, ATTESTOR_UID);
        assert_int_equal(in.report.report.caps, 1 << 19); /* CAP_SYS_PTRACE and nothing else */
    }
    expect(a->control, AGENT_WAY_ATTESTOR_SUPERVISOR, AGENT_MSG_READY);
    new_service(a);
    *state = a;
    return 0;
}

static int setup(void **state)
{
    return start(state, false);
}
static int setup_fallback(void **state)
{
    return start(state, true);
}

/* Every test ends by closing the control channel: the attestor has to be there still and go with 0.
 */
static int teardown(void **state)
{
    struct attestor_process *a = *state;
    struct pollfd p = {.fd = a->pidfd, .events = POLLIN};
    int status = -1;

    assert_int_equal(poll(&p, 1, 0), 0);
    shutdown(a->control, SHUT_RDWR);
    assert_int_equal(poll(&p, 1, WAIT_MS), 1);
    assert_int_equal(waitpid(a->pid, &status, 0), a->pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    close(a->pidfd);
    close(a->control);
    close(a->keeper);
    close(a->listen);
    if (a->service != -1) {
        close(a->service);
    }
    unlink(a->sock);
    rmdir(a->dir);
    free(a);
    return 0;
}

static int connect_to(const struct attestor_process *a)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", a->sock);
    if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == -1) {
        _exit(99);
    }
    return fd;
}

/* --- workloads -------------------------------------------------------------------------------- */
/* A process that does what the test says, letter by letter, and answers each with a byte. */
struct workload {
    pid_t pid;
    int order, answer;
};

static void run_workload(const struct attestor_process *a, int order, int answer)
{
    char path[128], c, ok = '.';
    int fd = -1;

    while (read(order, &c, 1) == 1) {
        switch (c) {
        case 'c': /* connect */
            fd = connect_to(a);
            break;
        case 'm': /* a name that looks like what stands around it in /proc */
            (void)prctl(PR_SET_NAME, "a) R 1\nUid:\t7");
            break;
        case 'u': /* become another user */
            if (setresgid(OTHER_UID, OTHER_UID, OTHER_UID) != 0 ||
                setresuid(OTHER_UID, OTHER_UID, OTHER_UID) != 0) {
                _exit(98);
            }
            break;
        case 'e': /* become another program, the connection kept open */
            (void)fcntl(fd, F_SETFD, 0);
            (void)dup2(order, 0);
            (void)dup2(answer, 1);
            execl("/bin/cat", "cat", (char *)NULL);
            _exit(97);
        case 'f': /* leave the connection to a child, which waits for orders, and end */
            if (fork() != 0) {
                _exit(0);
            }
            break;
        case 'n': /* a file system of its own: another program under a trusted name */
            if (unshare(CLONE_NEWNS) != 0 ||
                mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
                mount("tmpfs", a->dir, "tmpfs", 0, NULL) != 0) {
                _exit(96);
            }
            (void)snprintf(path, sizeof(path), "%s/cat", a->dir);
            if (link("/bin/cat", path) != 0) {
                char command[256];

                (void)snprintf(command, sizeof(command), "/bin/cp /bin/cat %s", path);
                if (system(command) != 0) {
                    _exit(95);
                }
            }
            break;
        default:
            _exit(94);
        }
        if (write(answer, &ok, 1) != 1) {
            break;
        }
    }
    _exit(0);
}

static void tell(const struct workload *w, char c)
{
    assert_int_equal(write(w->order, &c, 1), 1);
}

static void heard(const struct workload *w)
{
    struct pollfd p = {.fd = w->answer, .events = POLLIN};
    char c;

    assert_int_equal(poll(&p, 1, WAIT_MS), 1);
    assert_int_equal(read(w->answer, &c, 1), 1);
}

static void order(const struct workload *w, char c)
{
    tell(w, c);
    heard(w);
}

static struct workload start_workload(const struct attestor_process *a)
{
    struct workload w;
    int order_pipe[2], answer_pipe[2];

    assert_int_equal(pipe2(order_pipe, O_CLOEXEC), 0);
    assert_int_equal(pipe2(answer_pipe, O_CLOEXEC), 0);
    w.pid = fork();
    if (w.pid == 0) {
        close(order_pipe[1]);
        close(answer_pipe[0]);
        run_workload(a, order_pipe[0], answer_pipe[1]);
    }
    close(order_pipe[0]);
    close(answer_pipe[1]);
    w.order = order_pipe[1];
    w.answer = answer_pipe[0];
    return w;
}

static void end_workload(struct workload *w)
{
    close(w->order);
    close(w->answer);
    kill(w->pid, SIGKILL);
    waitpid(w->pid, NULL, 0);
}

/* The next caller: first the keeper hears of it, then the service. */
static uint64_t next_caller(struct attestor_process *a, struct agent_msg_caller *ret)
{
    uint64_t handle;

    expect(a->service, AGENT_WAY_ATTESTOR_SERVICE, AGENT_MSG_CONNECTION);
    handle = in.connection.handle;
    close(in_fd);
    /* attested before the connection was said: it is in the queue already */
    assert_false(silent(a->keeper));
    expect(a->keeper, AGENT_WAY_ATTESTOR_KEEPER, AGENT_MSG_ATTESTED);
    assert_int_equal(in.caller.handle, handle);
    close(in_fd);
    *ret = in.caller;
    return handle;
}

static const struct agent_msg_reattested *reattest(struct attestor_process *a, uint64_t handle)
{
    struct agent_msg_ask ask;

    agent_ipc_init(&ask, AGENT_MSG_REATTEST, 4711);
    ask.handle = handle;
    send_ok(a->service, &ask, -1);
    expect(a->service, AGENT_WAY_ATTESTOR_SERVICE, AGENT_MSG_REATTESTED);
    assert_int_equal(in.head.request_id, 4711);
    assert_int_equal(in.reattested.handle, handle);
    return &in.reattested;
}

static void own_path(char *ret, size_t size)
{
    ssize_t n = readlink("/proc/self/exe", ret, size - 1);

    assert_true(n > 0);
    ret[n] = 0;
}

static void assert_path(const struct agent_msg_caller *c, const char *path)
{
    if (c->path_len != strlen(path) || memcmp(c->path, path, c->path_len) != 0) {
        fail_msg("path \"%.*s\", expected \"%s\"", (int)c->path_len, c->path, path);
    }
}

/* --- cases ------------------------------------------------------------------------------------ */
static void test_facts(void **state)
{
    struct attestor_process *a = *state;
    struct workload w = start_workload(a);
    struct agent_msg_caller c;
    char self[4096];

    own_path(self, sizeof(self));
    order(&w, 'c');
    (void)next_caller(a, &c);
    assert_int_equal(c.pid, w.pid);
    assert_int_equal(c.uid, geteuid());
    assert_int_equal(c.gid, getegid());
    assert_true(os_now_ms() - c.read_ms < WAIT_MS);
    assert_path(&c, self);
    end_workload(&w);
}

static void test_hostile_name(void **state)
{
    struct attestor_process *a = *state;
    struct workload w = start_workload(a);
    struct agent_msg_caller c;

    order(&w, 'c');
    (void)next_caller(a, &c);
    order(&w, 'm');
    assert_int_equal(reattest(a, c.handle)->outcome, AGENT_ATTEST_OK);
    assert_false(in.reattested.changed);
    expect(a->keeper, AGENT_WAY_ATTESTOR_KEEPER, AGENT_MSG_UPDATED);
    assert_int_equal(in.caller.uid, geteuid());
    assert_int_equal(in.caller.start_time, c.start_time);
    end_workload(&w);
}

static void test_ended(void **state)
{
    struct attestor_process *a = *state;
    struct workload w = start_workload(a);
    struct agent_msg_caller c;
    uint64_t handle;

    order(&w, 'c');
    handle = next_caller(a, &c);
    end_workload(&w);
    expect(a->keeper, AGENT_WAY_ATTESTOR_KEEPER, AGENT_MSG_GONE);
    assert_int_equal(in.handle.handle, handle);
    expect(a->service, AGENT_WAY_ATTESTOR_SERVICE, AGENT_MSG_GONE);
    assert_int_equal(in.handle.handle, handle);
    assert_int_equal(reattest(a, handle)->outcome, AGENT_ATTEST_GONE);
    assert_true(silent(a->keeper));
}

/* Connected, and gone before anybody looked: no identity, whoever holds the socket now. */
static void test_handed_on_before(void **state)
{
    struct attestor_process *a = *state;
    struct workload w = start_workload(a), other = start_workload(a);
    struct agent_msg_caller c;
    int fake = a->service;

    /* without a service nobody is accepted */
    shutdown(fake, SHUT_RDWR);
    close(fake);
    a->service = -1;
    tell(&w, 'c');
    heard(&w);
    tell(&w, 'f'); /* the child holds the connection */
    assert_int_equal(waitpid(w.pid, NULL, 0), w.pid);
    new_service(a);
    order(&other, 'c');
    (void)next_caller(a, &c);
    assert_int_equal(c.pid, other.pid); /* the first one never showed */
    assert_true(silent(a->service));
    assert_true(silent(a->keeper));
    close(w.order);
    close(w.answer);
    end_workload(&other);
}

/* Handed on afterwards: it counts as long as the one that connected lives. */
static void test_handed_on_after(void **state)
{
    struct attestor_process *a = *state;
    struct workload w = start_workload(a);
    struct agent_msg_caller c;
    uint64_t handle;

    order(&w, 'c');
    handle = next_caller(a, &c);
    tell(&w, 'f');
    expect(a->keeper, AGENT_WAY_ATTESTOR_KEEPER, AGENT_MSG_GONE);
    assert_int_equal(in.handle.handle, handle);
    expect(a->service, AGENT_WAY_ATTESTOR_SERVICE, AGENT_MSG_GONE);
    waitpid(w.pid, NULL, 0);
    assert_int_equal(reattest(a, handle)->outcome, AGENT_ATTEST_GONE);
    close(w.order);
    close(w.answer);
}

static void test_exec(void **state)
{
    struct attestor_process *a = *state;
    struct workload w = start_workload(a);
    struct agent_msg_caller c;
    uint64_t handle;
    char cat[4096];

    assert_non_null(realpath("/bin/cat", cat));
    order(&w, 'c');
    handle = next_caller(a, &c);
    assert_int_equal(reattest(a, handle)->outcome, AGENT_ATTEST_OK);
    assert_false(in.reattested.changed);
    expect(a->keeper, AGENT_WAY_ATTESTOR_KEEPER, AGENT_MSG_UPDATED);
    tell(&w, 'e');
    order(&w, 'x'); /* it is cat by now: the letter comes back */
    assert_int_equal(reattest(a, handle)->outcome, AGENT_ATTEST_OK);
    assert_true(in.reattested.changed);
    expect(a->keeper, AGENT_WAY_ATTESTOR_KEEPER, AGENT_MSG_UPDATED);
    assert_int_equal(in.caller.handle, handle);
    assert_path(&in.caller, cat);
    end_workload(&w);
}

static void test_setuid(void **state)
{
    struct attestor_process *a = *state;
    struct workload w;
    struct agent_msg_caller c;
    uint64_t handle;

    if (geteuid() != 0) {
        skip();
    }
    w = start_workload(a);
    order(&w, 'c');
    handle = next_caller(a, &c);
    assert_int_equal(c.uid, 0);
    order(&w, 'u');
    assert_int_equal(reattest(a, handle)->outcome, AGENT_ATTEST_OK);
    assert_true(in.reattested.changed);
    expect(a->keeper, AGENT_WAY_ATTESTOR_KEEPER, AGENT_MSG_UPDATED);
    assert_int_equal(in.caller.uid, OTHER_UID);
    assert_int_equal(in.caller.gid, OTHER_UID);
    end_workload(&w);
}

/* A program of another user, not dumpable after setuid: CAP_SYS_PTRACE is there for this. */
static void test_path_of_other_user(void **state)
{
    struct attestor_process *a = *state;
    struct workload w;
    struct agent_msg_caller c;
    char self[4096];

    if (geteuid() != 0) {
        skip();
    }
    own_path(self, sizeof(self));
    w = start_workload(a);
    order(&w, 'u');
    order(&w, 'c');
    (void)next_caller(a, &c);
    assert_int_equal(c.uid, OTHER_UID);
    assert_path(&c, self);
    end_workload(&w);
}

/* In a mount namespace of its own a path says nothing. */
static void test_own_namespace(void **state)
{
    struct attestor_process *a = *state;
    struct workload w;
    struct agent_msg_caller c;
    uint64_t handle;

    if (geteuid() != 0) {
        skip();
    }
    w = start_workload(a);
    order(&w, 'c');
    handle = next_caller(a, &c);
    assert_true(c.path_len > 0);
    order(&w, 'n');
    assert_int_equal(reattest(a, handle)->outcome, AGENT_ATTEST_OK);
    expect(a->keeper, AGENT_WAY_ATTESTOR_KEEPER, AGENT_MSG_UPDATED);
    assert_int_equal(in.caller.path_len, 0);
    end_workload(&w);
}

/* Runs `path` as a copy of cat that answers letters, connected before the exec. */
static struct workload start_foreign(const struct attestor_process *a, const char *path)
{
    struct workload w;
    int order_pipe[2], answer_pipe[2];

    assert_int_equal(pipe2(order_pipe, O_CLOEXEC), 0);
    assert_int_equal(pipe2(answer_pipe, O_CLOEXEC), 0);
    w.pid = fork();
    if (w.pid == 0) {
        int fd = connect_to(a);

        (void)fcntl(fd, F_SETFD, 0);
        (void)dup2(order_pipe[0], 0);
        (void)dup2(answer_pipe[1], 1);
        execl(path, "cat", (char *)NULL);
        _exit(93);
    }
    close(order_pipe[0]);
    close(answer_pipe[1]);
    w.order = order_pipe[1];
    w.answer = answer_pipe[0];
    return w;
}

/* The process is in our namespace, but the file it runs is not: /proc/PID/exe shows the path as it
 * is over there, and the name of a trusted program is easily made there. */
static void test_file_of_other_namespace(void **state)
{
    struct attestor_process *a = *state;
    struct workload maker, w;
    struct agent_msg_caller c;
    uint64_t handle;
    char path[256], link[256], shown[256], trusted[128];
    ssize_t n;

    if (geteuid() != 0) {
        skip();
    }
    maker = start_workload(a);
    order(&maker, 'n');
    (void)snprintf(trusted, sizeof(trusted), "%s/cat", a->dir);
    (void)snprintf(path, sizeof(path), "/proc/%d/root%s", (int)maker.pid, trusted);
    w = start_foreign(a, path);
    handle = next_caller(a, &c);
    order(&w, 'x'); /* it runs that file by now */
    (void)snprintf(link, sizeof(link), "/proc/%d/exe", (int)w.pid);
    n = readlink(link, shown, sizeof(shown) - 1);
    assert_true(n > 0);
    shown[n] = 0;
    assert_string_equal(shown, trusted); /* the lie that must not be believed */
    assert_int_equal(reattest(a, handle)->outcome, AGENT_ATTEST_OK);
    expect(a->keeper, AGENT_WAY_ATTESTOR_KEEPER, AGENT_MSG_UPDATED);
    assert_int_equal(in.caller.path_len, 0);
    end_workload(&w);
    end_workload(&maker);
}

static void test_deleted_executable(void **state)
{
    struct attestor_process *a = *state;
    struct workload w;
    struct agent_msg_caller c;
    uint64_t handle;
    char path[128], command[256];

    (void)snprintf(path, sizeof(path), "%s/cat", a->dir);
    (void)snprintf(command, sizeof(command), "/bin/cp /bin/cat %s", path);
    assert_int_equal(system(command), 0);
    w = start_foreign(a, path);
    handle = next_caller(a, &c);
    order(&w, 'x');
    assert_int_equal(reattest(a, handle)->outcome, AGENT_ATTEST_OK);
    expect(a->keeper, AGENT_WAY_ATTESTOR_KEEPER, AGENT_MSG_UPDATED);
    assert_path(&in.caller, path);
    unlink(path);
    assert_int_equal(reattest(a, handle)->outcome, AGENT_ATTEST_OK);
    expect(a->keeper, AGENT_WAY_ATTESTOR_KEEPER, AGENT_MSG_UPDATED);
    assert_int_equal(in.caller.path_len, 0);
    end_workload(&w);
}

static void test_uid_bound(void **state)
{
    struct attestor_process *a = *state;
    int fds[MAX_UID_HANDLES + 4];
    struct agent_msg_caller c;
    uint64_t handles[MAX_UID_HANDLES], last = 0;
    struct agent_msg_handle release;
    struct pollfd p;

    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
        fds[i] = connect_to(a);
    }
    for (size_t i = 0; i < MAX_UID_HANDLES; i++) {
        handles[i] = next_caller(a, &c);
        assert_true(handles[i] > last); /* never used twice */
        last = handles[i];
    }
    /* the ones too many are closed, and nobody hears of them */
    p = (struct pollfd){.fd = fds[MAX_UID_HANDLES], .events = POLLIN};
    assert_int_equal(poll(&p, 1, WAIT_MS), 1);
    assert_true(silent(a->service) && silent(a->keeper));
    /* one goes, one may come */
    agent_ipc_init(&release, AGENT_MSG_RELEASE, 0);
    release.handle = handles[3];
    send_ok(a->service, &release, -1);
    expect(a->keeper, AGENT_WAY_ATTESTOR_KEEPER, AGENT_MSG_GONE);
    assert_int_equal(in.handle.handle, handles[3]);
    close(connect_to(a));
    assert_true(next_caller(a, &c) > last);
    /* what crosses on the way is no offence */
    send_ok(a->service, &release, -1);
    assert_int_equal(reattest(a, handles[3])->outcome, AGENT_ATTEST_GONE);
    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
        close(fds[i]);
    }
}

static void test_bad_service(void **state)
{
    struct attestor_process *a = *state;
    static const struct {
        const char *what;
        enum agent_msg_type type;
        size_t size, len;
        bool with_fd;
    } cases[] = {
        {"short", AGENT_MSG_REATTEST, sizeof(struct agent_msg_ask), 8, false},
        {"long", AGENT_MSG_REATTEST, sizeof(struct agent_msg_ask), 4000, false},
        {"with a descriptor", AGENT_MSG_REATTEST, sizeof(struct agent_msg_ask),
         sizeof(struct agent_msg_ask), true},
        {"the keeper's", AGENT_MSG_ISSUE, sizeof(struct agent_msg_issue),
         sizeof(struct agent_msg_issue), false},
        {"its own", AGENT_MSG_GONE, sizeof(struct agent_msg_handle),
         sizeof(struct agent_msg_handle), false},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        static uint8_t bytes[sizeof(union agent_msg)];
        struct agent_msg_head head = {.type = cases[i].type, .size = (uint32_t)cases[i].size};
        struct agent_msg_caller c;
        int fd = connect_to(a);
        uint64_t handle = next_caller(a, &c);

        memset(bytes, 0, sizeof(bytes));
        memcpy(bytes, &head, sizeof(head));
        assert_int_equal(ipc_send(a->service, bytes, cases[i].len, cases[i].with_fd ? 0 : -1),
                         IPC_OK);
        if (recv_any(a->service, AGENT_WAY_ATTESTOR_SERVICE) != IPC_CLOSED) {
            fail_msg("%s: the channel stays open", cases[i].what);
        }
        /* its callers go with it */
        expect(a->keeper, AGENT_WAY_ATTESTOR_KEEPER, AGENT_MSG_GONE);
        assert_int_equal(in.handle.handle, handle);
        close(fd);
        new_service(a);
    }
    close(connect_to(a));
}

/* A service that never reads stops new callers, and nothing is lost when it reads again. */
static void test_deaf_service(void **state)
{
    struct attestor_process *a = *state;
    struct agent_msg_ask ask;
    struct agent_msg_caller c;
    int fd = connect_to(a);
    uint64_t handle = next_caller(a, &c), sent = 0, answered = 0, told = 0;

    agent_ipc_init(&ask, AGENT_MSG_REATTEST, 0);
    ask.handle = handle;
    for (;;) {
        struct pollfd p = {.fd = a->service, .events = POLLOUT};
        enum ipc_outcome o;

        ask.head.request_id = sent + 1;
        o = agent_ipc_send(a->service, &ask, -1);
        while (!silent(a->keeper)) { /* the keeper always reads */
            expect(a->keeper, AGENT_WAY_ATTESTOR_KEEPER, AGENT_MSG_UPDATED);
            told++;
        }
        if (o == IPC_AGAIN && poll(&p, 1, 300) == 0) {
            break;
        }
        sent += o == IPC_OK;
        assert_in_range(sent, 0, 100000);
    }
    while (answered < sent) {
        while (!silent(a->keeper)) {
            expect(a->keeper, AGENT_WAY_ATTESTOR_KEEPER, AGENT_MSG_UPDATED);
            told++;
        }
        expect(a->service, AGENT_WAY_ATTESTOR_SERVICE, AGENT_MSG_REATTESTED);
        assert_int_equal(in.head.request_id, ++answered);
    }
    while (told < sent) {
        expect(a->keeper, AGENT_WAY_ATTESTOR_KEEPER, AGENT_MSG_UPDATED);
        told++;
    }
    close(fd);
}

#define BOTH(test)                                                                                 \
    cmocka_unit_test_setup_teardown(test, setup, teardown),                                        \
        cmocka_unit_test_setup_teardown(test, setup_fallback, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(test_hostile_name),
        BOTH(test_ended),
        BOTH(test_handed_on_before),
        BOTH(test_handed_on_after),
        BOTH(test_exec),
        BOTH(test_setuid),
        BOTH(test_own_namespace),
        BOTH(test_file_of_other_namespace),
        BOTH(test_deleted_executable),
        BOTH(test_uid_bound),
        BOTH(test_bad_service),
        BOTH(test_deaf_service),
        BOTH(test_facts),
        BOTH(test_path_of_other_user),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
