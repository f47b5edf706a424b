#include <postern/agent_child.h>

#include <postern/os.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static void set_signals(void)
{
    struct sigaction ignore = {.sa_handler = SIG_IGN};

    (void)sigaction(SIGINT, &ignore, NULL);
    (void)sigaction(SIGHUP, &ignore, NULL);
    (void)sigaction(SIGPIPE, &ignore, NULL);
}

static void set_max_fds(uint32_t max_fds)
{
    struct rlimit limit;

    if (max_fds > 0 && getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = max_fds < limit.rlim_max ? max_fds : limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* Asked before the filter, which may forbid asking; what the filter itself changes, after it. */
static void fill_report(struct agent_msg_report *msg, const struct agent_confine *c,
                        const struct sandbox_report *before, int status_fd)
{
    agent_ipc_init(msg, AGENT_MSG_REPORT, 0);
    msg->role = c->role;
    msg->report = *before;
    (void)sandbox_status_read(status_fd, &msg->report);
    msg->report.no_new_privs = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1;
    msg->report.seccomp = prctl(PR_GET_SECCOMP, 0, 0, 0, 0) == 2;
    (void)snprintf(msg->report.seccomp_name, sizeof(msg->report.seccomp_name), "%s",
                   agent_role_name(c->role));
}

/* No port either: whoever has a connection was handed it. */
static int confine_files(const struct agent_confine *c, struct err *err)
{
    struct sandbox_landlock took;
    struct sandbox_plan *plan = sandbox_plan_new();
    int r;

    for (size_t i = 0; c->read_files != NULL && c->read_files[i] != NULL; i++) {
        sandbox_plan_path(plan, SANDBOX_READ, c->read_files[i]);
    }
    for (size_t i = 0; c->write_files != NULL && c->write_files[i] != NULL; i++) {
        sandbox_plan_path(plan, SANDBOX_WRITE, c->write_files[i]);
    }
    r = sandbox_landlock(plan, SANDBOX_ABI_OF_KERNEL, &took, err);
    sandbox_plan_free(plan);
    return r;
}

int agent_confine(const struct agent_confine *c, struct agent_msg_report *ret_report,
                  struct err *err)
{
    const struct sandbox_filter filter = {
        .name = agent_role_name(c->role),
        .calls = c->syscalls,
        .some = c->some,
        .unlisted = c->count ? SANDBOX_COUNT : SANDBOX_REFUSE,
    };
    os_autofd int status_fd = sandbox_status_open();
    pid_t parent = getppid();
    struct sandbox_report report;
    uint64_t keep;

    tzset(); /* reads the zone's file, which gmtime and timegm want at their first use */
    set_signals();
    set_max_fds(c->max_fds);
    sandbox_get_report(-1, &report);
    keep = c->keep_caps & report.caps;
    if (sandbox_drop_user(c->uid, c->gid, keep, err) == -1 || sandbox_drop_caps(keep, err) == -1 ||
        sandbox_limits(false, err) == -1) {
        return err_prefix(err, "giving up privileges");
    }
    /* Changing the user took the parent-death signal away. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) == -1) {
        return err_sys(err, "no signal at the supervisor's death");
    }
    if (getppid() != parent) {
        return err_set(err, ERR_UNAVAILABLE, "the supervisor is gone");
    }
    if ((c->no_files || c->read_files != NULL) && confine_files(c, err) == -1) {
        return err_prefix(err, "confining the %s", agent_role_name(c->role));
    }
    sandbox_get_report(-1, &report);
    if (sandbox_seccomp(&filter, sandbox_kill_all(), err) == -1) {
        return err_prefix(err, "confining the %s", agent_role_name(c->role));
    }
    fill_report(ret_report, c, &report, status_fd);
    return 0;
}
