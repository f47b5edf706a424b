#include <postern/ipc.h>

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int ipc_pair(int ret_fds[2], struct err *err)
{
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ret_fds) != 0) {
        return err_sys(err, "cannot make a socket pair");
    }
    return 0;
}

static enum ipc_outcome outcome_of_errno(void)
{
    switch (errno) {
    case EAGAIN:
    case ENOBUFS:
    case EINTR:
        return IPC_AGAIN;
    case EPIPE:
    case ECONNRESET:
    case ENOTCONN:
        return IPC_CLOSED;
    default:
        return IPC_BAD;
    }
}

enum ipc_outcome ipc_send(int fd, const void *msg, size_t size, int fd_to_pass)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec iov = {.iov_base = (void *)(uintptr_t)msg, .iov_len = size};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
    if (fd_to_pass != -1) {
        m.msg_control = control.bytes;
        m.msg_controllen = sizeof(control.bytes);
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &fd_to_pass, sizeof(int));
    }
    ssize_t n = sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n == -1) {
        return outcome_of_errno();
    }
    return (size_t)n == size ? IPC_OK : IPC_BAD;
}

/* Every descriptor that came is either handed on or closed: none may be left open unseen. */
static int take_descriptors(struct msghdr *m, bool *ret_bad)
{
    int kept = -1;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c != NULL; c = CMSG_NXTHDR(m, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) {
            *ret_bad = true;
            continue;
        }
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
            if (kept == -1) {
                kept = fd;
            } else {
                *ret_bad = true;
                close(fd);
            }
        }
    }
    return kept;
}

enum ipc_outcome ipc_recv(int fd, void *msg, size_t size, size_t *ret_len, int *ret_passed)
{
    /* Room for a few descriptors, so that a peer that sends two is seen and not cut unseen. */
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(4 * sizeof(int))];
    } control;
    struct iovec iov = {.iov_base = msg, .iov_len = size};
    struct msghdr m = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = control.bytes,
                       .msg_controllen = sizeof(control.bytes)};
    ssize_t n = recvmsg(fd, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (n == -1) {
        return outcome_of_errno();
    }
    bool bad = (m.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0;
    int passed = take_descriptors(&m, &bad);
    if (n == 0 && passed == -1 && !bad) {
        return IPC_CLOSED; /* we never send an empty message */
    }
    if (bad || n == 0) {
        if (passed != -1) {
            close(passed);
        }
        return IPC_BAD;
    }
    *ret_len = (size_t)n;
    *ret_passed = passed;
    return IPC_OK;
}
