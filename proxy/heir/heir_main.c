/*
 * postern-heir: says of a process whether it runs what its asker runs. It has one channel, opens
 * nothing, and ends with its asker.
 */
#include "heir_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <postern/ipc.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

/* False: the asker is gone, or is no asker of ours. */
static bool receive(void *ret, size_t size, size_t *ret_len, int *ret_passed)
{
    for (;;) {
        struct pollfd p = {.fd = HEIR_FD_ASKER, .events = POLLIN};
        if (poll(&p, 1, -1) == -1 && errno != EINTR) {
            return false;
        }
        switch (ipc_recv(HEIR_FD_ASKER, ret, size, ret_len, ret_passed)) {
        case IPC_OK:
            return true;
        case IPC_AGAIN:
            continue;
        case IPC_CLOSED:
        case IPC_BAD:
            return false;
        }
    }
}

static bool serve_one(const struct heir_own *own)
{
    struct heir_question q;
    size_t len = 0;
    int pidfd = -1;
    if (!receive(&q, sizeof(q), &len, &pidfd) || !heir_question_ok(&q, len)) {
        return false;
    }
    struct heir_answer a = {.version = HEIR_VERSION, .id = q.id};
    a.verdict = heir_look(own, q.pid, pidfd, a.path);
    if (pidfd != -1) {
        close(pidfd);
    }
    return ipc_send(HEIR_FD_ASKER, &a, sizeof(a), -1) != IPC_CLOSED;
}

int main(void)
{
    static struct heir_own own; /* one thread */
    const struct sigaction ignore = {.sa_handler = SIG_IGN};
    struct err err = ERR_INIT;
    char text[1024];
    size_t len = 0;
    int passed = -1;
    /* What ends the asker by a signal of the terminal's or of its service's group ends this by its
     * channel. */
    (void)sigaction(SIGINT, &ignore, NULL);
    (void)sigaction(SIGTERM, &ignore, NULL);
    (void)sigaction(SIGHUP, &ignore, NULL);
    if (fcntl(HEIR_FD_ASKER, F_GETFD) == -1) {
        fprintf(stderr, "postern-heir is started by `postern proxy` and `postern gateway`\n");
        return 2;
    }
    if (heir_confine(&err) == -1) {
        fprintf(stderr, "postern-heir: %s\n", err_text(&err, text, sizeof(text)));
        return 1;
    }
    if (receive(&own, sizeof(own), &len, &passed) && passed == -1 && heir_own_ok(&own, len)) {
        while (serve_one(&own)) {
        }
    }
    _exit(0); /* nothing is left to be done, a sanitizer's own last words included */
}
