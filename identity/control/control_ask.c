/* The asker's side, for commands: blocking, one request, one deadline. */
#include <postern/agent_control.h>

#include <errno.h>
#include <poll.h>
#include <postern/ipc.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

static int connect_to(const char *path, unsigned timeout_ms, int *ret_fd, struct err *err)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    struct timeval tv = {.tv_sec = timeout_ms / 1000, .tv_usec = (timeout_ms % 1000) * 1000};
    os_autofd int fd = -1;
    os_autofd int dir = -1;

    if (agent_control_address(path, addr.sun_path, &dir, err) == -1) {
        return -1;
    }
    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    /* The send timeout also bounds connect() to a process whose queue is full. */
    if (fd == -1 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)) != 0) {
        return err_sys(err, "cannot make a socket");
    }
    if (connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) != 0) {
        err_sys(err, "the agent cannot be reached");
        return err_advise(err, "does it run, is this its control socket (--config its file, or "
                               "--control), and are you root?");
    }
    *ret_fd = fd;
    fd = -1;
    return 0;
}

/* An order goes to root's agent or to our own, and to nobody who put a socket there. */
static int check_peer(int fd, struct err *err)
{
    struct ucred peer;
    socklen_t len = sizeof(peer);

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) != 0) {
        return err_sys(err, "who listens there cannot be told");
    }
    if (peer.uid != 0 && peer.uid != geteuid()) {
        err_set(err, ERR_DENIED, "uid %u listens there: this is not the agent", (unsigned)peer.uid);
        return err_expected(err, "root, or uid %u", (unsigned)geteuid());
    }
    return 0;
}

static int receive(int fd, uint64_t due_ms, struct agent_control_answer *ret, struct err *err)
{
    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        uint64_t now_ms = os_now_ms();
        int ready = poll(&p, 1, due_ms > now_ms ? (int)(due_ms - now_ms) : 0);
        ssize_t n;

        if (ready == -1 && errno == EINTR) {
            continue;
        }
        if (ready == 0) {
            return err_set(err, ERR_UNAVAILABLE, "the agent did not answer in time");
        }
        n = ready == 1 ? recv(fd, ret, sizeof(*ret), 0) : -1;
        if (n == -1) {
            return err_sys(err, "no whole answer");
        }
        if (n == 0) {
            return err_set(err, ERR_UNAVAILABLE,
                           "the agent ended the connection without an answer");
        }
        if (!agent_control_check_answer(ret, (size_t)n)) {
            return err_set(err, ERR_PROTOCOL, "this is no answer of this version's agent");
        }
        return 0;
    }
}

static int ask(int fd, const struct agent_control_request *r, int file, uint64_t due_ms,
               struct buf *out, struct err *err)
{
    mem_autofree struct agent_control_answer *a = mem_must_new(struct agent_control_answer);

    if (ipc_send(fd, r, sizeof(*r), file) != IPC_OK) {
        return err_sys(err, "the request cannot be sent");
    }
    do {
        if (receive(fd, due_ms, a, err) == -1) {
            return -1;
        }
        if (a->error.code != ERR_NONE) {
            *err = a->error;
            return -1;
        }
        if (!buf_append(out, a->text, a->len)) {
            return err_set(err, ERR_LIMIT, "the answer is larger than %zu bytes", out->max);
        }
    } while (a->last == 0);
    return 0;
}

int agent_control_ask(const char *path, const struct agent_control_request *r, unsigned timeout_ms,
                      struct buf *out, struct err *err)
{
    return agent_control_ask_file(path, r, -1, timeout_ms, out, err);
}

int agent_control_ask_file(const char *path, const struct agent_control_request *r, int file,
                           unsigned timeout_ms, struct buf *out, struct err *err)
{
    uint64_t due_ms = os_now_ms() + timeout_ms;
    struct buf answer = BUF_INIT(AGENT_CONTROL_DOCUMENT_MAX);
    struct err own = ERR_INIT;
    os_autofd int fd = -1;
    int rc;

    POSTERN_ASSERT(agent_control_check_request(r, sizeof(*r)) &&
                   agent_control_takes_file(r->verb) == (file != -1));
    rc = connect_to(path, timeout_ms, &fd, &own);
    if (rc == 0) {
        rc = check_peer(fd, &own);
    }
    if (rc == 0) {
        rc = ask(fd, r, file, due_ms, &answer, &own);
    }
    if (rc == 0 && !buf_append_str(out, buf_str(&answer))) {
        rc = err_set(&own, ERR_LIMIT, "the answer is larger than %zu bytes", out->max);
    }
    if (rc != 0 && own.where[0] == '\0') {
        err_where(&own, "%s", path);
    }
    if (rc != 0 && err != NULL) {
        *err = own;
    }
    buf_reset(&answer);
    return rc;
}
