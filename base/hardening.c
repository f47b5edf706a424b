#include <postern/hardening.h>

#include <errno.h>
#include <postern/mem.h>
#include <postern/metrics.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
    QUIET_MS = 10000, /* between two rounds of lines about refused calls */
    LINES_MAX = 16,   /* a round */
    WEAK_MAX = 4,
};

struct hardening {
    struct loop *loop;
    struct log *log;
    struct loop_io *io;
    struct loop_timer quiet;
    int wake_fd, status_fd;
    struct sandbox_plan *plan; /* NULL: not entered by hardening_enter */
    struct sandbox_landlock landlock;
    const char *filter_name;
    const char *weak[WEAK_MAX];
    size_t n_weak;
    uint64_t told[SANDBOX_CALLS_MAX]; /* of each call, in the log */
};

/* --- refused calls ---------------------------------------------------------------------------- */
static void log_refused(struct hardening *h, int number, uint64_t count)
{
    struct log_line l;
    char name[32];

    sandbox_call_name(number, name, sizeof(name));
    log_begin(&l, h->log, LOG_WARN, "system_call_refused");
    log_str(&l, "call", name);
    log_uint(&l, "count", count - h->told[number]);
    log_uint(&l, "total", count);
    log_str(&l, "message",
            "not in the list of what this process does: a library's new habit, a mistake of ours, "
            "or somebody else's code in this process");
    log_end(&l);
    h->told[number] = count;
}

/* True: something was to be told. */
static bool tell_refused(struct hardening *h)
{
    uint64_t count = 0;
    unsigned lines = 0;

    for (int n = sandbox_refused_next(0, &count); n != -1 && lines < LINES_MAX;
         n = sandbox_refused_next(n + 1, &count)) {
        if (count > h->told[n]) {
            log_refused(h, n, count);
            lines++;
        }
    }
    return lines > 0;
}

static void on_wake(void *arg, unsigned ready)
{
    struct hardening *h = (struct hardening *)arg;
    uint64_t n;

    (void)ready;
    (void)!read(h->wake_fd, &n, sizeof(n));
    if (h->quiet.due_ms == 0 && tell_refused(h)) {
        loop_timer_arm(&h->quiet, QUIET_MS);
    }
}

static void on_quiet(void *arg)
{
    struct hardening *h = (struct hardening *)arg;

    if (tell_refused(h)) {
        loop_timer_arm(&h->quiet, QUIET_MS);
    }
}

/* --- life ------------------------------------------------------------------------------------- */
struct hardening *hardening_new(struct loop *loop, struct log *log, struct err *err)
{
    struct hardening *h = mem_must_new(struct hardening);

    h->loop = loop;
    h->log = log;
    h->status_fd = sandbox_status_open();
    h->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    loop_timer_init(&h->quiet, loop, on_quiet, h);
    h->io = h->wake_fd == -1 ? NULL : loop_io_new(loop, h->wake_fd, on_wake, h);
    if (h->io == NULL) {
        err_sys(err, "cannot watch for refused system calls");
        return hardening_free(h);
    }
    loop_io_want(h->io, LOOP_READ);
    sandbox_refused_wake(h->wake_fd);
    return h;
}

struct hardening *hardening_free(struct hardening *h)
{
    if (h != NULL) {
        sandbox_refused_wake(-1);
        loop_timer_disarm(&h->quiet);
        loop_io_free(h->io);
        if (h->wake_fd != -1) {
            close(h->wake_fd);
        }
        if (h->status_fd != -1) {
            close(h->status_fd);
        }
        sandbox_plan_free(h->plan);
        free(h);
    }
    return NULL;
}

/* --- entering --------------------------------------------------------------------------------- */
static void report(const struct hardening *h, struct sandbox_report *ret)
{
    sandbox_get_report(h->status_fd, ret);
    if (h->filter_name != NULL) {
        (void)snprintf(ret->seccomp_name, sizeof(ret->seccomp_name), "%s", h->filter_name);
    }
}

static void log_confined(const struct hardening *h)
{
    struct sandbox_report r;
    struct log_line l;

    report(h, &r);
    log_begin(&l, h->log, LOG_INFO, "confined");
    log_uint(&l, "uid", r.uid);
    log_fmt(&l, "capabilities", "0x%llx", (unsigned long long)r.caps);
    log_bool(&l, "no_new_privs", r.no_new_privs);
    log_str(&l, "seccomp", r.seccomp ? r.seccomp_name : NULL);
    log_int(&l, "landlock_abi", r.landlock_abi);
    log_str(&l, "connect", h->landlock.connect ? "listed" : "any");
    log_end(&l);
}

void hardening_degraded(struct hardening *h, const char *what, const char *advice)
{
    struct log_line l;

    if (h->n_weak < WEAK_MAX) {
        h->weak[h->n_weak++] = what;
    }
    log_begin(&l, h->log, LOG_WARN, "hardening_degraded");
    log_str(&l, "message", what);
    log_str(&l, "advice", advice);
    log_end(&l);
}

static void log_missing(const struct hardening *h)
{
    struct log_line l;

    log_begin(&l, h->log, LOG_WARN, "hardening_degraded");
    log_fmt(&l, "message", "this kernel's Landlock does not restrict: %s", h->landlock.missing);
    log_int(&l, "landlock_abi", h->landlock.abi);
    log_str(&l, "advice", "a kernel of 6.12 or later with Landlock switched on has all of it");
    log_end(&l);
}

int hardening_enter(struct hardening *h, struct sandbox_plan *plan,
                    const struct sandbox_filter *filter, uint64_t keep_caps, struct err *err)
{
    sandbox_plan_free(h->plan);
    h->plan = plan;
    h->filter_name = filter->name;
    if (sandbox_enter_keeping(plan, filter, keep_caps, &h->landlock, err) == -1) {
        return err_prefix(err, "entering the sandbox");
    }
    log_confined(h);
    if (h->landlock.missing[0] != '\0') {
        log_missing(h);
    }
    return 0;
}

bool hardening_entered(const struct hardening *h)
{
    return h != NULL && h->plan != NULL;
}

int hardening_covers(const struct hardening *h, struct sandbox_plan *want, const char *path,
                     struct err *err)
{
    bool covered = h->plan == NULL || sandbox_plan_covers(h->plan, want, err);

    sandbox_plan_free(want);
    if (covered) {
        return 0;
    }
    err_where(err, "%s", path);
    err_expected(err, "only directories and ports of the configuration that it was started with");
    return err_advise(err, "restart it: what it may reach was fixed when it started");
}

/* --- telling ---------------------------------------------------------------------------------- */
bool hardening_write_status(const struct hardening *h, struct buf *out)
{
    struct sandbox_report r;
    bool ok;

    report(h, &r);
    ok = sandbox_report_write(&r, h->plan != NULL ? &h->landlock : NULL, out) &&
         buf_printf(out, ",\"refused_calls\":") && sandbox_refused_write(out) &&
         buf_printf(out, ",\"weak\":[");
    for (size_t i = 0; ok && i < h->n_weak; i++) {
        ok = buf_printf(out, "%s\"%s\"", i > 0 ? "," : "", h->weak[i]);
    }
    return ok && buf_printf(out, "]");
}

bool hardening_write_metrics(const struct hardening *h, struct buf *out)
{
    const char *help = "System calls that the sandbox refused, by name.";
    bool weak = h->n_weak > 0 || h->landlock.missing[0] != '\0';
    bool ok = metrics_write_value(out, "postern_hardening_degraded", METRIC_GAUGE,
                                  "1: less than all of the hardening is in force (the log says "
                                  "what).",
                                  "", weak ? 1 : 0);
    uint64_t count = 0;

    for (int n = sandbox_refused_next(0, &count); ok && n != -1;
         n = sandbox_refused_next(n + 1, &count)) {
        char name[32], labels[48];

        sandbox_call_name(n, name, sizeof(name));
        (void)snprintf(labels, sizeof(labels), "syscall=\"%s\"", name);
        ok = metrics_write_value(out, "postern_seccomp_denied", METRIC_COUNTER, help, labels,
                                 (double)count);
        help = NULL;
    }
    return ok;
}
