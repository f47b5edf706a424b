/*
 * postern-key-holder: makes a data plane's keys and signs its handshakes, for as long as the
 * process lives that started it. Two processes: one that watches and starts the other, which holds
 * the keys (docs/key-holder.md). A program in libexec, or `postern` itself under this name.
 */
#include "holder_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <postern/ipc.h>
#include <postern/os.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAUSE_MIN_MS = 100, PAUSE_MAX_MS = 10000, BEGIN_MS = 10000, SENT_MS = 1000 };

struct watcher {
    struct holder next; /* what the next one begins with */
    pid_t pid;
    int pidfd; /* -1: there is none */
    uint64_t started_ms;
    uint64_t start_at_ms; /* of the next; 0: at once */
    uint32_t pause_ms;
};

static void say(const struct err *err)
{
    struct log *log = log_new_fd(STDERR_FILENO, LOG_INFO, "key_holder");
    log_failure(log, LOG_ERROR, "key_holder_failed", err);
    log_free(log);
}

/* --- orders ----------------------------------------------------------------------------------- */
/* False: the asker is gone or says what it should not. */
static bool take_order(struct holder_order *ret, int *ret_fd)
{
    size_t len = 0;
    int fd = -1;
    switch (ipc_recv(HOLDER_FD_CONTROL, ret, sizeof(*ret), &len, &fd)) {
    case IPC_AGAIN:
        ret->type = 0;
        return true;
    case IPC_CLOSED:
    case IPC_BAD:
        return false;
    case IPC_OK:
        break;
    }
    *ret_fd = fd;
    return len == sizeof(*ret) && ret->version == HOLDER_WIRE_VERSION &&
           (fd != -1) == (ret->type == HOLDER_CHANNEL);
}

/* Channels, and the order to begin. */
static bool get_ready(struct watcher *w)
{
    for (;;) {
        struct pollfd p = {.fd = HOLDER_FD_CONTROL, .events = POLLIN};
        struct holder_order o = {.type = 0};
        int fd = -1;
        if (poll(&p, 1, BEGIN_MS) == 0 || !take_order(&o, &fd)) {
            return false;
        }
        if (o.type == HOLDER_CHANNEL && w->next.n_fds < HOLDER_CHANNELS_MAX) {
            w->next.fds[w->next.n_fds++] = fd;
        } else if (o.type == HOLDER_BEGIN) {
            w->next.roles = o.roles;
            return o.count == w->next.n_fds && o.count > 0 &&
                   (o.roles & ~(uint32_t)(HOLDER_SERVER | HOLDER_CLIENT)) == 0;
        } else if (o.type != 0) {
            return false;
        }
    }
}

/* False: the asker is gone. One that does not take its news is as good as gone. */
static bool tell(const struct holder_news *n)
{
    struct pollfd p = {.fd = HOLDER_FD_CONTROL, .events = POLLOUT};
    enum ipc_outcome o;
    while ((o = ipc_send(HOLDER_FD_CONTROL, n, sizeof(*n), -1)) == IPC_AGAIN &&
           poll(&p, 1, SENT_MS) == 1) {
    }
    return o == IPC_OK;
}

/* --- the holder's life ------------------------------------------------------------------------ */
__attribute__((noreturn)) static void become_holder(struct watcher *w, pid_t watcher)
{
    struct holder *h = &w->next;
    struct err err = ERR_INIT;
    close(HOLDER_FD_CONTROL);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) == -1 || getppid() != watcher) {
        _exit(1);
    }
    if (holder_confine(h, &err) == -1) {
        say(&err);
        _exit(1);
    }
    h->log = log_new_fd(STDERR_FILENO, LOG_INFO, "key_holder");
    holder_serve(h);
    _exit(0);
}

static bool start(struct watcher *w)
{
    pid_t self = getpid();
    w->next.number++;
    w->started_ms = os_now_ms();
    pid_t pid = fork();
    if (pid == 0) {
        become_holder(w, self);
    }
    w->pid = pid;
    w->pidfd = pid != -1 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
    if (w->pidfd == -1) {
        if (pid != -1) {
            (void)kill(pid, SIGKILL);
            (void)waitpid(pid, NULL, 0);
        }
        w->start_at_ms = os_now_ms() + PAUSE_MAX_MS;
        return true;
    }
    return tell(&(const struct holder_news){.version = HOLDER_WIRE_VERSION,
                                            .type = HOLDER_STARTED,
                                            .holder = w->next.number,
                                            .pid = pid});
}

/* Again at once if it lived for a while, else after a pause that grows. */
static bool ended(struct watcher *w)
{
    int status = 0;
    uint64_t now = os_now_ms();
    while (waitpid(w->pid, &status, 0) == -1 && errno == EINTR) {
    }
    close(w->pidfd);
    w->pidfd = -1;
    if (now - w->started_ms > PAUSE_MAX_MS) {
        w->pause_ms = 0;
    }
    w->start_at_ms = now + w->pause_ms;
    const struct holder_news n = {.version = HOLDER_WIRE_VERSION,
                                  .type = HOLDER_ENDED,
                                  .holder = w->next.number,
                                  .pid = w->pid,
                                  .status = status,
                                  .pause_ms = w->pause_ms};
    w->pause_ms = w->pause_ms == 0 ? PAUSE_MIN_MS : w->pause_ms * 2;
    w->pause_ms = w->pause_ms < PAUSE_MAX_MS ? w->pause_ms : PAUSE_MAX_MS;
    return tell(&n);
}

/* False: the asker is gone. */
static bool obey(const struct watcher *w)
{
    struct holder_order o = {.type = 0};
    int fd = -1;
    if (!take_order(&o, &fd) || (o.type != 0 && o.type != HOLDER_RESTART)) {
        return false;
    }
    if (o.type == HOLDER_RESTART && w->pidfd != -1) {
        (void)kill(w->pid, SIGKILL); /* ours, and not waited for yet */
    }
    return true;
}

static void watch(struct watcher *w)
{
    for (bool ok = true; ok;) {
        uint64_t now = os_now_ms();
        if (w->pidfd == -1 && w->start_at_ms <= now) {
            ok = start(w);
            continue;
        }
        struct pollfd p[2] = {{.fd = HOLDER_FD_CONTROL, .events = POLLIN},
                              {.fd = w->pidfd, .events = POLLIN}};
        int n = poll(p, 2, w->pidfd != -1 ? -1 : (int)(w->start_at_ms - now));
        if (n > 0 && p[0].revents != 0) {
            ok = obey(w);
        }
        if (ok && n > 0 && p[1].revents != 0) {
            ok = ended(w);
        }
    }
}

int main(void)
{
    static struct watcher w; /* of one thread, and large */
    const struct sigaction ignore = {.sa_handler = SIG_IGN};
    struct err err = ERR_INIT;
    w.pidfd = -1;
    /* What ends the asker by a signal of the terminal's or of its service's group ends this by its
     * channel, after the last handshake. */
    (void)sigaction(SIGINT, &ignore, NULL);
    (void)sigaction(SIGTERM, &ignore, NULL);
    (void)sigaction(SIGHUP, &ignore, NULL);
    if (fcntl(HOLDER_FD_CONTROL, F_GETFD) == -1) {
        fprintf(stderr, "postern-key-holder is started by `postern proxy` and `postern gateway`\n");
        return 2;
    }
    if (holder_confine_watcher(&err) == -1) {
        say(&err);
        return 1;
    }
    if (get_ready(&w)) {
        watch(&w);
    }
    _exit(0); /* the holder ends with this; a sanitizer's own last words are not wanted */
}
