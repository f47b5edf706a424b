/* All that a probe may do once it knows its question: reach one place. */
#include "probe_priv.h"

#include <arpa/inet.h>
#include <linux/capability.h>
#include <postern/sandbox.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>

enum { NOBODY = 65534, NAME_SERVER_PORT = 53, CALLS_MAX = 80 };

static const char *const CALLS[] = {
    /* the place */
    "connect", "poll", "ppoll", "read", "write", "recvfrom", "recvmsg", "getsockopt", "setsockopt",
    "close", "fcntl", "shutdown",
    /* libssl, libc */
    "brk", "munmap", "mremap", "madvise", "getrandom", "futex", "clock_gettime", "gettimeofday",
    "time", "getpid", "gettid", "getuid", "geteuid", "getgid", "getegid", "sched_yield",
    "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "restart_syscall", "exit",
    "exit_group", NULL};
/* To look a name up: hosts, resolv.conf, name servers by UDP, and what the C library wants to know
 * of our own addresses. */
static const char *const NAME_CALLS[] = {
    "socket", "sendto", "sendmsg",    "sendmmsg", "bind",  "getsockname", "getpeername", "ioctl",
    "uname",  "fstat",  "newfstatat", "statx",    "lseek", "pread64",     NULL};
/* No plug-in of the C library's is among them: it could not be loaded. */
static const char *const NAME_FILES[] = {"/etc/hosts",     "/etc/resolv.conf", "/etc/nsswitch.conf",
                                         "/etc/host.conf", "/etc/gai.conf",    NULL};

static bool is_name(const char *host)
{
    struct in6_addr addr;

    return host[0] != '\0' && inet_pton(AF_INET, host, &addr) != 1 &&
           inet_pton(AF_INET6, host, &addr) != 1;
}

/* A Unix socket is reached as its owner, everything else as nobody. */
static int become(const struct conf_url *url, struct err *err)
{
    struct stat st = {.st_uid = NOBODY, .st_gid = NOBODY};

    if (url->unix_path[0] != '\0' && stat(url->unix_path, &st) == -1) {
        err_sys(err, "the socket");
        return err_where(err, "%s", url->unix_path);
    }
    /* One is left for a moment, to empty the bounding set with. */
    if (sandbox_drop_user(st.st_uid, st.st_gid, UINT64_C(1) << CAP_SETPCAP, err) == -1) {
        return -1;
    }
    /* The change of user took it away. */
    return prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) == 0
               ? 0
               : err_sys(err, "no signal at the runner's death");
}

int probe_confine(const struct conf_url *url, struct err *err)
{
    bool name = is_name(url->host);
    const char *calls[CALLS_MAX] = {NULL};
    struct sandbox_filter filter = {.name = "rotate-probe",
                                    .calls = calls,
                                    .some = SANDBOX_DATA_MEMORY | SANDBOX_OPEN_READ |
                                            SANDBOX_OWN_SIGNALS | SANDBOX_ASKING};
    struct sandbox_plan *plan = sandbox_plan_new();
    struct sandbox_landlock took;
    size_t n = 0;
    int r;

    for (size_t i = 0; CALLS[i] != NULL; i++) {
        calls[n++] = CALLS[i];
    }
    if (name) {
        for (size_t i = 0; NAME_CALLS[i] != NULL; i++) {
            calls[n++] = NAME_CALLS[i];
        }
        for (size_t i = 0; NAME_FILES[i] != NULL; i++) {
            sandbox_plan_path(plan, SANDBOX_READ, NAME_FILES[i]);
        }
        sandbox_plan_connect(plan, NAME_SERVER_PORT); /* long answers come by TCP */
    } else {
        filter.some |= SANDBOX_STREAM_SOCKETS;
    }
    POSTERN_ASSERT(n < CALLS_MAX);
    if (url->port != 0) {
        sandbox_plan_connect(plan, url->port);
    }
    r = become(url, err) == -1 ? -1 : sandbox_enter(plan, &filter, &took, err);
    sandbox_plan_free(plan);
    return r == -1 ? err_prefix(err, "confining the probe") : 0;
}
