/*
 * watch: applies the rules, stays, and applies them again whenever the kernel's are others: another
 * program flushed them, somebody changed one, a service's cgroup was made anew. The kernel tells of
 * every change of its tables and routes; what it tells is not read, only that it does, and then the
 * table is listed and compared with the listing of when it was applied. That asks and changes
 * nothing, so it calls for no further look. Now and then the table is compared as --check does it.
 *
 * Applied again is a whole table in one transaction: nothing is open between the old and the new.
 */
#include "kernel_priv.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <poll.h>
#include <postern/log.h>
#include <postern/os.h>
#include <postern/sandbox.h>
#include <postern/service_manager.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    GATHER_MS = 10,  /* changes come in swarms */
    RETRY_MS = 1000, /* after one that could not be mended */
    FIGHT_MAX = 5,   /* mended so often in a row, with no pause of */
    FIGHT_MS = 1000, /* so long between, it is somebody who undoes it: */
    REST_MS = 100,   /* rest, and go on */
    LISTING_MAX = 4 * INTERCEPT_TEXT_MAX,
};

struct watch {
    struct kernel *kernel;
    const struct intercept_options *options;
    struct log *log;
    struct intercept_cgroup cgroup;
    const struct intercept_cgroup *by_cgroup; /* NULL: by uid */
    int rules_fd, routes_fd, signal_fd;       /* routes_fd -1: no routes are needed */
    struct buf baseline;                      /* the listing after it was applied */
    bool cgroup_lost;                         /* and told */
    uint64_t mended_ms;
    unsigned mended_in_row;
    uint64_t not_before_ms; /* of the next mending */
    bool ended;
};

static const char *const CALLS[] = {
    /* netlink */
    "bind", "connect", "getsockname", "getsockopt", "setsockopt", "sendto", "sendmsg", "recvfrom",
    "recvmsg", "poll", "ppoll", "select", "pselect6", "fcntl", "close", "read", "write", "writev",
    /* names of protocols and cgroups */
    "newfstatat", "fstat", "stat", "statx", "statfs", "lseek", "getdents64", "access", "faccessat",
    "faccessat2",
    /* libnftables, libc */
    "brk", "munmap", "mremap", "madvise", "getrandom", "futex", "clock_gettime", "gettimeofday",
    "time", "getpid", "gettid", "getuid", "geteuid", "sched_yield", "rt_sigaction",
    "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "restart_syscall", "exit", "exit_group", NULL};

static const struct sandbox_filter FILTER = {
    .name = "intercept",
    .calls = CALLS,
    .some = SANDBOX_DATA_MEMORY | SANDBOX_OPEN_READ | SANDBOX_NETLINK_SOCKETS,
    .unlisted = SANDBOX_REFUSE,
};

/* --- what is heard ---------------------------------------------------------------------------- */
static int subscribe(int protocol, const int *groups, size_t n, int *ret, struct err *err)
{
    const struct sockaddr_nl any = {.nl_family = AF_NETLINK};
    os_autofd int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol);
    if (fd == -1 || bind(fd, (const struct sockaddr *)&any, sizeof(any)) == -1) {
        return err_sys(err, "cannot listen to the kernel");
    }
    for (size_t i = 0; i < n; i++) {
        if (setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &groups[i], sizeof(groups[i])) ==
            -1) {
            err_sys(err, "cannot listen to changes of the kernel's rules");
            return err_advise(err, "it needs CAP_NET_ADMIN in this network namespace");
        }
    }
    *ret = fd;
    fd = -1;
    return 0;
}

static int listen_to_all(struct watch *w, struct err *err)
{
    static const int tables[] = {NFNLGRP_NFTABLES};
    static const int routes[] = {RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_RULE, RTNLGRP_IPV4_ROUTE,
                                 RTNLGRP_IPV6_ROUTE};
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    if (pthread_sigmask(SIG_BLOCK, &signals, NULL) != 0) {
        return err_sys(err, "cannot block signals");
    }
    w->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    if (w->signal_fd == -1) {
        return err_sys(err, "cannot wait for signals");
    }
    if (subscribe(NETLINK_NETFILTER, tables, 1, &w->rules_fd, err) == -1) {
        return -1;
    }
    return intercept_needs_routes(w->options)
               ? subscribe(NETLINK_ROUTE, routes, sizeof(routes) / sizeof(routes[0]), &w->routes_fd,
                           err)
               : 0;
}

/* True: there was something, or so much that the kernel gave up telling. */
static bool drain(int fd)
{
    char bytes[8192];
    bool any = false;
    ssize_t n;
    while (fd != -1 && ((n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT)) >= 0 || errno == EINTR ||
                        errno == ENOBUFS)) {
        any = true;
    }
    return any;
}

/* --- looking and mending ---------------------------------------------------------------------- */
static int list(const struct watch *w, struct buf *ret, struct err *err)
{
    bool there = false;
    return kernel_list(w->kernel, "postern", ret, &there, err);
}

static int put_into_force(struct watch *w, struct err *err)
{
    struct buf now = BUF_INIT(LISTING_MAX);
    if (apply_rules(w->kernel, w->options, w->by_cgroup, err) == -1 || list(w, &now, err) == -1) {
        buf_reset(&now);
        return -1;
    }
    buf_reset(&w->baseline);
    w->baseline = now;
    return 0;
}

static void log_drift(struct watch *w, const struct buf *said)
{
    struct log_line l;
    log_begin(&l, w->log, LOG_WARN, "rules_drifted");
    log_strn(&l, "differences", buf_str(said));
    log_str(&l, "message", "the rules in the kernel are not those asked for");
    log_end(&l);
}

/* Nobody mends for ever against somebody who undoes it: not without pauses at least. */
static void pace(struct watch *w)
{
    uint64_t now = os_now_ms();
    w->mended_in_row = now - w->mended_ms < FIGHT_MS ? w->mended_in_row + 1 : 1;
    w->mended_ms = now;
    if (w->mended_in_row == FIGHT_MAX) {
        w->mended_in_row = 0;
        w->not_before_ms = now + REST_MS;
        log_msg(w->log, LOG_ERROR, "rules_contested",
                "applied %d times in a row and always undone: another program changes this table",
                FIGHT_MAX);
    }
}

static void mend(struct watch *w, const struct buf *said)
{
    struct err err = ERR_INIT;
    log_drift(w, said);
    if (put_into_force(w, &err) == -1) {
        log_failure(w->log, LOG_ERROR, "rules_not_restored", &err);
        w->not_before_ms = os_now_ms() + RETRY_MS;
        return;
    }
    pace(w);
    log_msg(w->log, LOG_INFO, "rules_restored", "the rules are in force again");
}

/* Asked again afterwards: a rule of somebody else's may stand in front of ours. */
static int routes_restore(const struct watch *w, struct err *err)
{
    struct buf said = BUF_INIT(1024);
    int rc = routes_apply(w->options, err);
    rc = rc == 0 ? routes_check(w->options, &said, err) : -1;
    buf_reset(&said);
    if (rc == 1) {
        err_set(err, ERR_SYSTEM, "the routes are there, and marked packets take another way");
        return err_advise(err, "`ip rule` shows which rule of another program stands before them");
    }
    if (rc == 0) {
        log_msg(w->log, LOG_INFO, "rules_restored", "the routes are in force again");
    }
    return rc;
}

/* The way of answers, which is no table: added again where it is missing. */
static void look_at_routes(struct watch *w)
{
    struct err err = ERR_INIT;
    struct buf said = BUF_INIT(1024);
    if (intercept_needs_routes(w->options)) {
        int rc = routes_check(w->options, &said, &err);
        if (rc == 1) {
            log_drift(w, &said);
            rc = routes_restore(w, &err);
        }
        if (rc == -1) {
            log_failure(w->log, LOG_ERROR, "rules_not_restored", &err);
            w->not_before_ms = os_now_ms() + RETRY_MS;
        }
    }
    buf_reset(&said);
}

/* After something was heard: is the listing what it was? */
static void look(struct watch *w)
{
    struct err err = ERR_INIT;
    struct buf now = BUF_INIT(LISTING_MAX);
    struct buf said = BUF_INIT(LISTING_MAX);
    if (list(w, &now, &err) == -1) {
        log_failure(w->log, LOG_ERROR, "rules_not_listed", &err);
        w->not_before_ms = os_now_ms() + RETRY_MS;
    } else if (compare_listings(buf_str(&w->baseline), buf_str(&now), &said)) {
        mend(w, &said);
    }
    buf_reset(&now);
    buf_reset(&said);
    look_at_routes(w);
}

/* A cgroup may be gone for a while, and then another one of the same name. */
static bool find_cgroup(struct watch *w)
{
    struct err err = ERR_INIT;
    if (w->by_cgroup == NULL) {
        return true;
    }
    bool there = cgroup_resolve(w->options->proxy_cgroup, &w->cgroup, &err) == 0;
    if (!there && !w->cgroup_lost) {
        log_failure(w->log, LOG_WARN, "cgroup_lost", &err);
    }
    w->cgroup_lost = !there;
    return there;
}

/* The same against what was asked for, and not against what once was listed. */
static void look_closely(struct watch *w)
{
    struct err err = ERR_INIT;
    struct buf said = BUF_INIT(LISTING_MAX);
    if (find_cgroup(w)) {
        int rc = compare_tables(w->kernel, w->options, w->by_cgroup, &said, &err);
        if (rc == 1) {
            mend(w, &said);
        } else if (rc == -1) {
            log_failure(w->log, LOG_ERROR, "rules_not_listed", &err);
            w->not_before_ms = os_now_ms() + RETRY_MS;
        }
    }
    buf_reset(&said);
    look_at_routes(w);
}

/* --- the loop --------------------------------------------------------------------------------- */
static int wait_ms(const struct watch *w, uint64_t next_ms, bool pending)
{
    uint64_t now = os_now_ms();
    uint64_t until = pending ? w->not_before_ms : next_ms;
    return until > now ? (int)(until - now) : 0;
}

static void turn(struct watch *w)
{
    uint64_t every_ms = w->options->watch_s * UINT64_C(1000);
    uint64_t next_ms = os_now_ms() + every_ms;
    bool pending = false;
    while (!w->ended) {
        struct pollfd fds[] = {{.fd = w->signal_fd, .events = POLLIN},
                               {.fd = w->rules_fd, .events = POLLIN},
                               {.fd = w->routes_fd, .events = POLLIN}};
        int n = poll(fds, 3, wait_ms(w, next_ms, pending));
        if (n == -1 && errno != EINTR) {
            log_msg(w->log, LOG_ERROR, "poll_failed", "cannot wait: %s", strerrordesc_np(errno));
            return;
        }
        if (n > 0 && fds[0].revents != 0) {
            w->ended = true;
        }
        if (n > 0 && (fds[1].revents != 0 || fds[2].revents != 0)) {
            (void)poll(fds, 1, GATHER_MS); /* a signal ends it early */
            bool heard = drain(w->rules_fd);
            pending = drain(w->routes_fd) || heard || pending;
        }
        uint64_t now = os_now_ms();
        if (pending && now >= w->not_before_ms) {
            w->not_before_ms = 0;
            look(w);
            pending = w->not_before_ms != 0; /* it was not mended, or rests */
        }
        if (now >= next_ms) {
            look_closely(w);
            /* What only this sees is tried again by this: no listing changes when mending fails. */
            next_ms = w->not_before_ms > now ? w->not_before_ms : now + every_ms;
        }
    }
}

static int confine(const struct watch *w, struct err *err)
{
    struct sandbox_plan *plan = sandbox_plan_new();
    struct sandbox_landlock landlock;
    sandbox_plan_path(plan, SANDBOX_READ, "/etc/protocols");
    sandbox_plan_path(plan, SANDBOX_READ, "/etc/nsswitch.conf");
    sandbox_plan_path(plan, SANDBOX_READ, "/etc/passwd"); /* a uid is listed by its name */
    if (w->by_cgroup != NULL) {
        sandbox_plan_path(plan, SANDBOX_READ, "/sys/fs/cgroup");
    }
    kernel_from_memory(w->kernel);
    int rc = sandbox_enter_keeping(plan, &FILTER, UINT64_C(1) << CAP_NET_ADMIN, &landlock, err);
    sandbox_plan_free(plan);
    return rc;
}

int watch_rules(struct kernel *k, const struct intercept_options *o,
                const struct intercept_cgroup *cgroup, struct err *err)
{
    struct service_manager manager = {.fd = -1};
    struct watch w = {.kernel = k,
                      .options = o,
                      .rules_fd = -1,
                      .routes_fd = -1,
                      .signal_fd = -1,
                      .baseline = BUF_INIT(LISTING_MAX)};
    if (cgroup != NULL) {
        w.cgroup = *cgroup;
        w.by_cgroup = &w.cgroup;
    }
    int rc = service_manager_init(&manager, err);
    /* It listens before it applies: what happens in between is heard. */
    if (rc == 0 && (listen_to_all(&w, err) == -1 || put_into_force(&w, err) == -1)) {
        rc = -1;
    }
    if (rc == 0) {
        tell_applied(o);
        rc = confine(&w, err);
    }
    if (rc == 0) {
        w.log = log_new_fd(STDERR_FILENO, LOG_INFO, "intercept");
        look_closely(&w);
        log_msg(w.log, LOG_INFO, "watching", "the rules are in force");
        service_manager_ready(&manager, "The rules are in force");
        turn(&w);
        service_manager_stopping(&manager, "Ending; the rules stay");
        log_msg(w.log, LOG_INFO, "stopped",
                "the rules stay: `postern intercept --remove` takes "
                "them away");
    }
    log_free(w.log);
    service_manager_deinit(&manager);
    const int fds[] = {w.rules_fd, w.routes_fd, w.signal_fd};
    for (size_t i = 0; i < 3; i++) {
        if (fds[i] != -1) {
            close(fds[i]);
        }
    }
    buf_reset(&w.baseline);
    return rc;
}
