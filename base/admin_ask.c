/* The asker's side of the admin socket, for commands: blocking, one question, one deadline. */
#include <postern/admin.h>

#include "admin_priv.h"

#include <errno.h>
#include <poll.h>
#include <postern/os.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

/* Milliseconds until due, 0 when it is past. */
static unsigned left_ms(uint64_t due_ms)
{
    uint64_t now = os_now_ms();
    return due_ms > now ? (unsigned)(due_ms - now) : 0;
}

static int connect_to(const char *path, unsigned timeout_ms, int *ret_fd, struct err *err)
{
    struct sockaddr_un addr;
    if (admin_unix_address(path, &addr, err) != 0) {
        return -1;
    }
    os_autofd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval tv = {.tv_sec = timeout_ms / 1000, .tv_usec = (timeout_ms % 1000) * 1000};
    /* The send timeout also bounds connect() to a process whose queue is full. */
    if (fd == -1 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)) != 0) {
        return err_sys(err, "cannot make a socket");
    }
    if (connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) != 0) {
        err_sys(err, "cannot reach the process");
        err_where(err, "%s", path);
        return err_advise(err, "is it running, and may this uid ask it (admin.allow_uids)?");
    }
    *ret_fd = fd;
    fd = -1;
    return 0;
}

static int read_answer(int fd, uint64_t due_ms, struct buf *out, struct err *err)
{
    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int ready = poll(&p, 1, (int)left_ms(due_ms));
        if (ready == -1 && errno == EINTR) {
            continue;
        }
        if (ready == 0) {
            return err_set(err, ERR_UNAVAILABLE, "the process did not answer in time");
        }
        uint8_t piece[16384];
        ssize_t got = ready == 1 ? recv(fd, piece, sizeof(piece), 0) : -1;
        /* Whoever refuses us may end before it has read our question: its answer still came. */
        if (got == 0 || (got == -1 && errno == ECONNRESET && buf_len(out) > 0)) {
            return 0;
        }
        if (got == -1) {
            return err_sys(err, "no whole answer");
        }
        if (!buf_append(out, piece, (size_t)got)) {
            return err_set(err, ERR_LIMIT, "the answer is larger than %zu bytes", out->max);
        }
    }
}

/* A refusal is one line of JSON whose first member says why, in text of ours without escapes. */
static int check_answer(const struct buf *out, struct err *err)
{
    struct str all = buf_str(out);
    const struct str prefix = STR_LIT(ADMIN_ERROR_PREFIX);
    if (all.n == 0) {
        return err_set(err, ERR_UNAVAILABLE, "the process ended the connection without an answer");
    }
    if (!str_has_prefix(all, prefix)) {
        return 0;
    }
    struct str text = {all.p + prefix.n, all.n - prefix.n};
    const char *quote = memchr(text.p, '"', text.n);
    text.n = quote != NULL ? (size_t)(quote - text.p) : 0;
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] < 0x20 || text.p[i] > 0x7e) {
            text = STR_LIT("an answer that cannot be shown");
            break;
        }
    }
    return err_set(err, ERR_DENIED, "the process refused: %.*s", STR_ARG(text));
}

int admin_ask(const char *socket_path, const char *name, unsigned timeout_ms, struct buf *out,
              struct err *err)
{
    enum { TIMEOUT_MAX_MS = 3600000 };
    timeout_ms = timeout_ms < TIMEOUT_MAX_MS ? timeout_ms : TIMEOUT_MAX_MS;
    uint64_t due_ms = os_now_ms() + timeout_ms;
    os_autofd int fd = -1;
    if (connect_to(socket_path, timeout_ms, &fd, err) != 0) {
        return -1;
    }
    char line[256];
    int n = snprintf(line, sizeof(line), "GET %s\n", name);
    if (n < 0 || (size_t)n >= sizeof(line)) {
        return err_set(err, ERR_USAGE, "the document's name is too long");
    }
    struct buf answer = BUF_INIT(out->max);
    int rc = 0;
    /* A short line into an empty queue goes whole or not at all. EPIPE: refused already. */
    if (send(fd, line, (size_t)n, MSG_NOSIGNAL) == -1 && errno != EPIPE && errno != ECONNRESET) {
        rc = err_sys(err, "cannot ask");
    }
    if (rc == 0) {
        rc = read_answer(fd, due_ms, &answer, err);
    }
    if (rc == 0) {
        rc = check_answer(&answer, err);
    }
    if (rc == 0 && !buf_append_str(out, buf_str(&answer))) {
        rc = err_set(err, ERR_LIMIT, "the answer is larger than %zu bytes", out->max);
    }
    if (rc != 0) {
        err_where(err, "%s", socket_path);
    }
    buf_reset(&answer);
    return rc;
}
