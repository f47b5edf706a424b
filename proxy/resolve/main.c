/*
 * postern-resolver: looks names up for a gateway that has given up opening files. It reads fixed
 * messages from its asker and starts a child for each, which asks and answers: what a name server
 * could do to the code that reads it ends with that child, and it holds nothing but the channel.
 * It ends when the asker does.
 */
#include "resolver_priv.h"

#include <errno.h>
#include <poll.h>
#include <postern/ipc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    LOOKUP_MAX_S = 50, /* the asker waits a little longer */
    FDS_MAX = 32,
};

__attribute__((noreturn)) static void answer(const struct resolve_question *q)
{
    struct resolve_answer a = {.version = RESOLVE_VERSION, .id = q->id};
    char host[RESOLVE_HOST_MAX + 1];
    (void)alarm(LOOKUP_MAX_S);
    memcpy(host, q->host, q->host_len);
    host[q->host_len] = '\0';
    if (resolver_confine_child(NULL) == 0) {
        lookup(host, &a);
    } else {
        a.result = RESOLVE_BROKEN;
    }
    struct pollfd p = {.fd = RESOLVE_FD_ASKER, .events = POLLOUT};
    while (ipc_send(RESOLVE_FD_ASKER, &a, sizeof(a), -1) == IPC_AGAIN && poll(&p, 1, -1) >= 0) {
    }
    _exit(0);
}

static void refuse(const struct resolve_question *q)
{
    const struct resolve_answer a = {
        .version = RESOLVE_VERSION, .id = q->id, .result = RESOLVE_FAILURE};
    if (ipc_send(RESOLVE_FD_ASKER, &a, sizeof(a), -1) != IPC_OK) {
        return; /* the asker's own deadline sees to it */
    }
}

/* False: the asker is gone, or is no asker of ours. */
static bool serve_one(void)
{
    struct resolve_question q;
    size_t len = 0;
    int passed = -1;
    enum ipc_outcome o = ipc_recv(RESOLVE_FD_ASKER, &q, sizeof(q), &len, &passed);
    if (o == IPC_AGAIN) {
        return true;
    }
    if (o != IPC_OK || passed != -1 || len != sizeof(q) || q.version != RESOLVE_VERSION ||
        q.id == 0 || q.host_len > RESOLVE_HOST_MAX ||
        !resolve_host_ok((struct str){q.host, q.host_len})) {
        return false;
    }
    pid_t pid = fork();
    if (pid == 0) {
        answer(&q);
    }
    if (pid == -1) {
        refuse(&q);
    }
    return true;
}

static int start(struct err *err)
{
    /* Ended children are nobody's to wait for. */
    const struct sigaction ignore = {.sa_handler = SIG_IGN, .sa_flags = SA_NOCLDWAIT};
    const struct rlimit fds = {FDS_MAX, FDS_MAX};
    (void)sigaction(SIGCHLD, &ignore, NULL);
    /* What ends the asker by a signal of the terminal's or of its service's group ends this by its
     * channel, after the last question. */
    (void)sigaction(SIGINT, &ignore, NULL);
    (void)sigaction(SIGTERM, &ignore, NULL);
    (void)sigaction(SIGHUP, &ignore, NULL);
    (void)setrlimit(RLIMIT_NOFILE, &fds);
    return resolver_confine(err);
}

int main(void)
{
    struct err err = ERR_INIT;
    if (start(&err) == -1) {
        char text[1024];
        fprintf(stderr, "postern-resolver: %s\n", err_text(&err, text, sizeof(text)));
        return 1;
    }
    struct pollfd p = {.fd = RESOLVE_FD_ASKER, .events = POLLIN};
    while ((poll(&p, 1, -1) >= 0 || errno == EINTR) && serve_one()) {
    }
    _exit(0); /* nothing is left to be done, a sanitizer's own last words included */
}
