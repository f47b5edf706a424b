/* The asker's side. */
#include "heir_priv.h"

#include <errno.h>
#include <poll.h>
#include <postern/ipc.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <postern/proc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

struct heir_check {
    int fd; /* owned; -1: the helper is gone */
    uint64_t last_id;
};

/* --- the start -------------------------------------------------------------------------------- */
static int own_executable(struct heir_own *ret, struct err *err)
{
    *ret = (struct heir_own){.version = HEIR_VERSION, .uid = geteuid()};
    if (!heir_exe(getpid(), &ret->file, ret->path)) {
        err_sys(err, "cannot tell what this process runs");
        return err_advise(err, "mount /proc, or say `take_over: uid` under `admin:`");
    }
    if (!heir_path_has_name(ret->path)) {
        ret->path[0] = '\0';
    }
    return 0;
}

struct heir_check *heir_check_start(struct err *err)
{
    struct heir_own own;
    int pair[2];
    if (own_executable(&own, err) == -1 || ipc_pair(pair, err) == -1) {
        return NULL;
    }
    int r = proc_start_helper("postern-heir", pair[1], err);
    close(pair[1]);
    if (r == 0 && ipc_send(pair[0], &own, sizeof(own), -1) != IPC_OK) {
        r = err_set(err, ERR_UNAVAILABLE, "postern-heir ended while it was started");
    }
    if (r == -1) {
        close(pair[0]);
        return NULL;
    }
    struct heir_check *h = mem_must_new(struct heir_check);
    h->fd = pair[0];
    return h;
}

struct heir_check *heir_check_free(struct heir_check *h)
{
    if (h != NULL) {
        if (h->fd != -1) {
            close(h->fd);
        }
        free(h);
    }
    return NULL;
}

/* --- asking ----------------------------------------------------------------------------------- */
static enum heir_verdict gone(struct heir_check *h)
{
    close(h->fd);
    h->fd = -1;
    return HEIR_UNKNOWN;
}

static enum heir_verdict wait_answer(struct heir_check *h, char ret_path[HEIR_PATH_MAX])
{
    uint64_t until_ms = os_now_ms() + HEIR_CHECK_MS;
    for (;;) {
        struct heir_answer a;
        struct pollfd p = {.fd = h->fd, .events = POLLIN};
        uint64_t now_ms = os_now_ms();
        size_t len = 0;
        int passed = -1;
        int n = poll(&p, 1, now_ms < until_ms ? (int)(until_ms - now_ms) : 0);
        if (n == 0) {
            return HEIR_UNKNOWN;
        }
        if (n == -1 && errno == EINTR) {
            continue;
        }
        enum ipc_outcome o = ipc_recv(h->fd, &a, sizeof(a), &len, &passed);
        if (passed != -1) {
            close(passed);
        }
        if (o == IPC_AGAIN) {
            continue;
        }
        if (o != IPC_OK || passed != -1 || len != sizeof(a) || a.version != HEIR_VERSION ||
            a.verdict > HEIR_UNKNOWN || memchr(a.path, '\0', sizeof(a.path)) == NULL) {
            return gone(h);
        }
        if (a.id == h->last_id) { /* else of a question that was given up */
            memcpy(ret_path, a.path, sizeof(a.path));
            return (enum heir_verdict)a.verdict;
        }
    }
}

enum heir_verdict heir_check_ask(struct heir_check *h, int connection, char ret_path[HEIR_PATH_MAX])
{
    struct ucred who;
    socklen_t len = sizeof(who);
    os_autofd int pidfd = -1;
    ret_path[0] = '\0';
    if (h->fd == -1 || getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &who, &len) == -1) {
        return HEIR_UNKNOWN;
    }
    len = sizeof(pidfd);
    if (getsockopt(connection, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &len) == -1) {
        pidfd = -1;
        if (errno != ENOPROTOOPT) {
            return HEIR_GONE; /* it has ended, and been waited for */
        }
    }
    const struct heir_question q = {.version = HEIR_VERSION, .pid = who.pid, .id = ++h->last_id};
    switch (ipc_send(h->fd, &q, sizeof(q), pidfd)) {
    case IPC_OK:
        return wait_answer(h, ret_path);
    case IPC_AGAIN:
        return HEIR_UNKNOWN;
    case IPC_CLOSED:
    case IPC_BAD:
        break;
    }
    return gone(h);
}
