#include "attestor_process.h"

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
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

union agent_msg attestor_in;
int attestor_in_fd;

/* --- harness ---------------------------------------------------------------------------------- */
enum ipc_outcome attestor_recv(int fd, enum agent_way way)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    enum ipc_outcome o;

    attestor_in_fd = -1;
    while ((o = agent_ipc_recv(fd, way, &attestor_in, &attestor_in_fd)) == IPC_AGAIN) {
        assert_int_equal(poll(&p, 1, ATTESTOR_WAIT_MS), 1);
    }
    return o;
}

void attestor_expect(int fd, enum agent_way way, enum agent_msg_type type)
{
    assert_int_equal(attestor_recv(fd, way), IPC_OK);
    if (attestor_in.head.type != (uint32_t)type) {
        fail_msg("%s, expected %s", agent_msg_name(attestor_in.head.type), agent_msg_name(type));
    }
}

bool attestor_silent(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    return poll(&p, 1, 0) == 0;
}

void attestor_send(int fd, const void *msg, int passed)
{
    assert_int_equal(agent_ipc_send(fd, msg, passed), IPC_OK);
}

void attestor_new_service(struct attestor_process *a)
{
    struct agent_msg_plain m;
    int pair[2];

    assert_int_equal(ipc_pair(pair, NULL), 0);
    agent_ipc_init(&m, AGENT_MSG_SERVICE, 0);
    attestor_send(a->control, &m, pair[1]);
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

static int attestor_start(void **state, bool fallback)
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
    m.max_uid_handles = ATTESTOR_MAX_UID_HANDLES;
    m.run_uid = m.run_gid = ATTESTOR_UID;
    m.force_fallback = fallback;
    attestor_send(a->control, &m, -1);
    attestor_expect(a->control, AGENT_WAY_ATTESTOR_SUPERVISOR, AGENT_MSG_REPORT);
    assert_true(attestor_in.report.report.seccomp && attestor_in.report.report.no_new_privs);
    if (geteuid() == 0) {
        assert_int_equal(attestor_in.report.report.uid, ATTESTOR_UID);
        assert_int_equal(attestor_in.report.report.caps,
                         1 << 19); /* CAP_SYS_PTRACE and nothing else */
    }
    attestor_expect(a->control, AGENT_WAY_ATTESTOR_SUPERVISOR, AGENT_MSG_READY);
    attestor_new_service(a);
    *state = a;
    return 0;
}

int attestor_setup(void **state)
{
    return attestor_start(state, false);
}
int attestor_setup_fallback(void **state)
{
    return attestor_start(state, true);
}

/* Every test ends by closing the control channel: the attestor has to be there still and go with 0.
 */
int attestor_teardown(void **state)
{
    struct attestor_process *a = *state;
    struct pollfd p = {.fd = a->pidfd, .events = POLLIN};
    int status = -1;

    assert_int_equal(poll(&p, 1, 0), 0);
    shutdown(a->control, SHUT_RDWR);
    assert_int_equal(poll(&p, 1, ATTESTOR_WAIT_MS), 1);
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

int attestor_connect(const struct attestor_process *a)
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
static void run_workload(const struct attestor_process *a, int order, int answer)
{
    char path[128], c, ok = '.';
    int fd = -1;

    while (read(order, &c, 1) == 1) {
        switch (c) {
        case 'c': /* connect */
            fd = attestor_connect(a);
            break;
        case 'm': /* a name that looks like what stands around it in /proc */
            (void)prctl(PR_SET_NAME, "a) R 1\nUid:\t7");
            break;
        case 'u': /* become another user */
            if (setresgid(ATTESTOR_OTHER_UID, ATTESTOR_OTHER_UID, ATTESTOR_OTHER_UID) != 0 ||
                setresuid(ATTESTOR_OTHER_UID, ATTESTOR_OTHER_UID, ATTESTOR_OTHER_UID) != 0) {
                _exit(98);
            }
            break;
        case 'e': /* become another program, the connection kept open */
        case 'h': /* likewise, a huge one that the test has made */
            (void)fcntl(fd, F_SETFD, 0);
            (void)dup2(order, 0);
            (void)dup2(answer, 1);
            (void)snprintf(path, sizeof(path), "%s/huge", a->dir);
            execl(c == 'h' ? path : "/bin/cat", "cat", (char *)NULL);
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
        case 'g': /* supplementary groups */
            if (setgroups(2, (gid_t[]){48902, 48903}) != 0) {
                _exit(92);
            }
            break;
        case 'U': /* a user namespace, whose maps the test writes */
            if (unshare(CLONE_NEWUSER) != 0) {
                _exit(91);
            }
            break;
        case 'r': /* root, as it is called in there */
            if (setresuid(0, 0, 0) != 0) {
                _exit(90);
            }
            break;
        case 'p': /* go on in a pid namespace of its own */
            if (unshare(CLONE_NEWPID) != 0 || prctl(PR_SET_CHILD_SUBREAPER, 1) != 0) {
                _exit(89);
            }
            if (fork() != 0) {
                (void)wait(NULL);
                _exit(0);
            }
            (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
            break;
        case 'N': /* a mount namespace that is a copy of ours */
            if (unshare(CLONE_NEWNS) != 0) {
                _exit(88);
            }
            break;
        case 'R': /* and then another root directory in it */
            if (chroot("/proc") != 0) {
                _exit(87);
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

void workload_tell(const struct workload *w, char c)
{
    assert_int_equal(write(w->order, &c, 1), 1);
}

void workload_heard(const struct workload *w)
{
    struct pollfd p = {.fd = w->answer, .events = POLLIN};
    char c;

    assert_int_equal(poll(&p, 1, ATTESTOR_WAIT_MS), 1);
    assert_int_equal(read(w->answer, &c, 1), 1);
}

void workload_order(const struct workload *w, char c)
{
    workload_tell(w, c);
    workload_heard(w);
}

struct workload workload_start(const struct attestor_process *a)
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

void workload_end(struct workload *w)
{
    close(w->order);
    close(w->answer);
    kill(w->pid, SIGKILL);
    waitpid(w->pid, NULL, 0);
}

/* The next caller: first the keeper hears of it, then the service. */
uint64_t attestor_next_caller(struct attestor_process *a, struct agent_msg_caller *ret)
{
    uint64_t handle;

    attestor_expect(a->service, AGENT_WAY_ATTESTOR_SERVICE, AGENT_MSG_CONNECTION);
    handle = attestor_in.connection.handle;
    close(attestor_in_fd);
    /* attested before the connection was said: it is in the queue already */
    assert_false(attestor_silent(a->keeper));
    attestor_expect(a->keeper, AGENT_WAY_ATTESTOR_KEEPER, AGENT_MSG_ATTESTED);
    assert_int_equal(attestor_in.caller.handle, handle);
    close(attestor_in_fd);
    *ret = attestor_in.caller;
    return handle;
}

const struct agent_msg_reattested *attestor_reattest(struct attestor_process *a, uint64_t handle)
{
    struct agent_msg_ask ask;

    agent_ipc_init(&ask, AGENT_MSG_REATTEST, 4711);
    ask.handle = handle;
    attestor_send(a->service, &ask, -1);
    attestor_expect(a->service, AGENT_WAY_ATTESTOR_SERVICE, AGENT_MSG_REATTESTED);
    assert_int_equal(attestor_in.head.request_id, 4711);
    assert_int_equal(attestor_in.reattested.handle, handle);
    return &attestor_in.reattested;
}

void attestor_own_path(char *ret, size_t size)
{
    ssize_t n = readlink("/proc/self/exe", ret, size - 1);

    assert_true(n > 0);
    ret[n] = 0;
}

void attestor_assert_path(const struct agent_msg_caller *c, const char *path)
{
    if (c->path_len != strlen(path) || memcmp(c->path, path, c->path_len) != 0) {
        fail_msg("path \"%.*s\", expected \"%s\"", (int)c->path_len, c->path, path);
    }
}

/* Runs `path` as a copy of cat that answers letters, connected before the exec. */
struct workload workload_start_foreign(const struct attestor_process *a, const char *path)
{
    struct workload w;
    int order_pipe[2], answer_pipe[2];

    assert_int_equal(pipe2(order_pipe, O_CLOEXEC), 0);
    assert_int_equal(pipe2(answer_pipe, O_CLOEXEC), 0);
    w.pid = fork();
    if (w.pid == 0) {
        int fd = attestor_connect(a);
        char go;

        (void)fcntl(fd, F_SETFD, 0);
        if (read(order_pipe[0], &go, 1) != 1) {
            _exit(92);
        }
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
