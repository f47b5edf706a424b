/*
 * rogue_service: what is left of the agent's service when somebody else's code runs in it.
 *
 * It stands in the service's place under the real supervisor, with the real channels to the real
 * keeper and attestor, and confines itself by the service's very own list. Then whoever connects
 * to the agent's socket commands it, a line at a time, and gets a line of JSON back. What the other
 * processes answer, and what the kernel does, is for the test to judge (tests/integration/
 * test_taken_service.py). Trusts its commands: it is the attacker.
 *
 *   self                        the handle that this connection came with
 *   identity HANDLE POSITION    IDENTITY_GET
 *   issue HANDLE GENERATION ENTRY   ISSUE, for a key of its own
 *   jwt HANDLE GENERATION ENTRY AUDIENCE   JWT_SIGN
 *   reattest HANDLE             REATTEST
 *   raw CHANNEL TYPE LENGTH FD  a message of that type, cut or filled up to LENGTH (0: its own),
 *                               with a descriptor if FD is 1; whether the channel stays open
 *   deaf COUNT                  COUNT questions to the keeper without reading one answer
 *   answers COUNT               reads as many
 *   sys NAME ARGUMENT...        the system call; an argument is a number or s:TEXT
 */
#include "service_priv.h"

#include <errno.h>
#include <poll.h>
#include <postern/ipc.h>
#include <postern/x509.h>
#include <seccomp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { CALLERS_MAX = 16, LINE_SIZE = 512, REPLY_SIZE = 16384, WORDS_MAX = 8, ANSWER_MS = 10000 };

struct caller {
    uint64_t handle;
    uint32_t uid;
    int fd; /* -1: a free place */
    size_t n_line;
    char line[LINE_SIZE];
};

struct rogue {
    struct caller callers[CALLERS_MAX];
    union agent_msg in;
    uint8_t point[AGENT_POINT_SIZE];
    bool deaf; /* to the keeper, until its answers are asked for */
    char reply[REPLY_SIZE];
};

static __attribute__((noreturn)) void die(const char *what)
{
    (void)dprintf(STDERR_FILENO, "rogue: %s: errno %d\n", what, errno);
    _exit(70);
}

/* --- channels --------------------------------------------------------------------------------- */
static int channel_fd(const char *name)
{
    if (strcmp(name, "keeper") == 0) {
        return AGENT_FD_SERVICE_KEEPER;
    }
    return strcmp(name, "attestor") == 0 ? AGENT_FD_SERVICE_ATTESTOR : AGENT_FD_CONTROL;
}

static enum agent_way way_of(int fd)
{
    if (fd == AGENT_FD_SERVICE_KEEPER) {
        return AGENT_WAY_KEEPER_SERVICE;
    }
    return fd == AGENT_FD_SERVICE_ATTESTOR ? AGENT_WAY_ATTESTOR_SERVICE
                                           : AGENT_WAY_SUPERVISOR_SERVICE;
}

static void on_connection(struct rogue *r, int fd)
{
    for (size_t i = 0; i < CALLERS_MAX; i++) {
        struct caller *c = &r->callers[i];

        if (c->fd == -1) {
            *c = (struct caller){
                .handle = r->in.connection.handle, .uid = r->in.connection.uid, .fd = fd};
            return;
        }
    }
    close(fd);
}

/* The next message of a channel. False: nothing came, or the channel is closed. */
static bool receive(struct rogue *r, int fd, int timeout_ms, bool *ret_closed)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int passed = -1;

    *ret_closed = false;
    for (;;) {
        switch (agent_ipc_recv(fd, way_of(fd), &r->in, &passed)) {
        case IPC_OK:
            if (r->in.head.type == AGENT_MSG_CONNECTION) {
                on_connection(r, passed);
            } else if (passed != -1) {
                close(passed);
            }
            return true;
        case IPC_AGAIN:
            if (poll(&p, 1, timeout_ms) != 1) {
                return false;
            }
            break;
        case IPC_CLOSED:
        case IPC_BAD:
            *ret_closed = true;
            return false;
        }
    }
}

/* Sends, and waits for the answer of that type; pushes on the way are passed over. */
static bool ask(struct rogue *r, int fd, const void *msg, enum agent_msg_type answer)
{
    bool closed = false;

    if (agent_ipc_send(fd, msg, -1) != IPC_OK) {
        return false;
    }
    while (receive(r, fd, ANSWER_MS, &closed)) {
        if (r->in.head.type == (uint32_t)answer) {
            return true;
        }
    }
    return false;
}

/* --- commands --------------------------------------------------------------------------------- */
static __attribute__((format(printf, 2, 3))) void say(struct rogue *r, const char *format, ...)
{
    size_t n = strlen(r->reply);
    va_list args;

    va_start(args, format);
    (void)vsnprintf(r->reply + n, sizeof(r->reply) - n, format, args);
    va_end(args);
}

static void do_identity(struct rogue *r, char **w)
{
    struct agent_msg_identity_get m;
    const struct agent_msg_identity *a = &r->in.identity;

    agent_ipc_init(&m, AGENT_MSG_IDENTITY_GET, 1);
    m.handle = strtoull(w[1], NULL, 10);
    m.position = (uint32_t)strtoul(w[2], NULL, 10);
    if (!ask(r, AGENT_FD_SERVICE_KEEPER, &m, AGENT_MSG_IDENTITY)) {
        say(r, "{\"lost\":true}");
        return;
    }
    say(r, "{\"outcome\":\"%s\",\"generation\":%llu,\"entry\":%u,\"total\":%u,\"id\":\"%.*s\"}",
        agent_outcome_name(a->outcome), (unsigned long long)a->generation, a->entry, a->total,
        (int)a->spiffe_id_len, a->spiffe_id);
}

static void do_issue(struct rogue *r, char **w)
{
    struct agent_msg_issue m;
    const struct agent_msg_issued *a = &r->in.issued;

    agent_ipc_init(&m, AGENT_MSG_ISSUE, 2);
    m.handle = strtoull(w[1], NULL, 10);
    m.generation = strtoull(w[2], NULL, 10);
    m.entry = (uint32_t)strtoul(w[3], NULL, 10);
    memcpy(m.point, r->point, sizeof(m.point));
    if (!ask(r, AGENT_FD_SERVICE_KEEPER, &m, AGENT_MSG_ISSUED)) {
        say(r, "{\"lost\":true}");
        return;
    }
    say(r, "{\"outcome\":\"%s\",\"leaf\":\"", agent_outcome_name(a->outcome));
    for (uint32_t i = 0; i < a->leaf_len; i++) {
        say(r, "%02x", a->leaf[i]);
    }
    say(r, "\"}");
}

static void do_jwt(struct rogue *r, char **w)
{
    static struct agent_msg_jwt_sign m;
    const struct agent_msg_jwt_signed *a = &r->in.jwt_signed;
    size_t n = strlen(w[4]);

    agent_ipc_init(&m, AGENT_MSG_JWT_SIGN, 6);
    m.handle = strtoull(w[1], NULL, 10);
    m.generation = strtoull(w[2], NULL, 10);
    m.entry = (uint32_t)strtoul(w[3], NULL, 10);
    m.n_audiences = 1;
    m.lens[0] = (uint16_t)n;
    m.audiences_len = (uint32_t)n;
    memcpy(m.audiences, w[4], n); /* shorter than a line */
    if (!ask(r, AGENT_FD_SERVICE_KEEPER, &m, AGENT_MSG_JWT_SIGNED)) {
        say(r, "{\"lost\":true}");
        return;
    }
    say(r, "{\"outcome\":\"%s\",\"token\":\"%.*s\"}", agent_outcome_name(a->outcome),
        (int)a->token_len, (const char *)a->token);
}

static void do_reattest(struct rogue *r, char **w)
{
    static const char *const names[] = {"ok", "gone", "failed"};
    struct agent_msg_ask m;

    agent_ipc_init(&m, AGENT_MSG_REATTEST, 3);
    m.handle = strtoull(w[1], NULL, 10);
    if (!ask(r, AGENT_FD_SERVICE_ATTESTOR, &m, AGENT_MSG_REATTESTED)) {
        say(r, "{\"lost\":true}");
        return;
    }
    say(r, "{\"outcome\":\"%s\",\"changed\":%s}", names[r->in.reattested.outcome % 3],
        r->in.reattested.changed ? "true" : "false");
}

static void do_raw(struct rogue *r, char **w)
{
    static uint8_t bytes[2 * sizeof(union agent_msg)];
    struct agent_msg_head head;
    int fd = channel_fd(w[1]);
    uint32_t type = (uint32_t)strtoul(w[2], NULL, 10);
    size_t len = strtoull(w[3], NULL, 10);
    enum ipc_outcome sent;
    bool closed = false;

    memset(bytes, 0, sizeof(bytes));
    if (type > AGENT_MSG_NONE && type < AGENT_N_MSGS) {
        agent_ipc_init(bytes, (enum agent_msg_type)type, 4);
    } else {
        head = (struct agent_msg_head){.type = type, .size = sizeof(head)};
        memcpy(bytes, &head, sizeof(head));
    }
    memcpy(&head, bytes, sizeof(head));
    len = len == 0 ? head.size : len;
    sent = ipc_send(fd, bytes, len < sizeof(bytes) ? len : sizeof(bytes),
                    strcmp(w[4], "1") == 0 ? STDERR_FILENO : -1);
    while (receive(r, fd, 2000, &closed)) {
    }
    say(r, "{\"sent\":%s,\"closed\":%s}", sent == IPC_OK ? "true" : "false",
        closed ? "true" : "false");
}

static void do_deaf(struct rogue *r, char **w)
{
    unsigned long n = 0, wanted = strtoul(w[1], NULL, 10);
    struct agent_msg_ask m;

    r->deaf = true;
    agent_ipc_init(&m, AGENT_MSG_BUNDLE_GET, 5);
    while (n < wanted) {
        struct pollfd p = {.fd = AGENT_FD_SERVICE_KEEPER, .events = POLLOUT};
        enum ipc_outcome o = agent_ipc_send(AGENT_FD_SERVICE_KEEPER, &m, -1);

        if (o == IPC_OK) {
            n++;
        } else if (o != IPC_AGAIN || poll(&p, 1, 500) != 1) {
            break; /* the keeper reads no more of it */
        }
    }
    say(r, "{\"asked\":%lu}", n);
}

static void do_answers(struct rogue *r, char **w)
{
    unsigned long n = 0, wanted = strtoul(w[1], NULL, 10);
    bool closed = false;

    r->deaf = false;
    while (n < wanted && receive(r, AGENT_FD_SERVICE_KEEPER, ANSWER_MS, &closed)) {
        n += r->in.head.type == AGENT_MSG_BUNDLE;
    }
    say(r, "{\"answered\":%lu}", n);
}

static void do_sys(struct rogue *r, char **w, size_t n)
{
    long a[6] = {0}, rc;
    int nr = seccomp_syscall_resolve_name(w[1]);

    if (nr < 0) {
        say(r, "{\"unknown\":true}");
        return;
    }
    for (size_t i = 2; i < n && i < 8; i++) {
        a[i - 2] = strncmp(w[i], "s:", 2) == 0 ? (long)(w[i] + 2) : strtol(w[i], NULL, 0);
    }
    errno = 0;
    rc = syscall(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
    if (rc == 0 && (nr == SYS_fork || nr == SYS_vfork || nr == SYS_clone || nr == SYS_clone3)) {
        _exit(0);
    }
    say(r, "{\"ret\":%ld,\"errno\":%d}", rc, rc == -1 ? errno : 0);
}

static void obey(struct rogue *r, struct caller *c)
{
    char *words[WORDS_MAX + 1] = {NULL}, *rest = NULL;
    size_t n = 0;

    r->reply[0] = 0;
    for (char *word = strtok_r(c->line, " ", &rest); word != NULL && n < WORDS_MAX;
         word = strtok_r(NULL, " ", &rest)) {
        words[n++] = word;
    }
    if (n == 1 && strcmp(words[0], "self") == 0) {
        say(r, "{\"handle\":%llu,\"uid\":%u}", (unsigned long long)c->handle, c->uid);
    } else if (n == 3 && strcmp(words[0], "identity") == 0) {
        do_identity(r, words);
    } else if (n == 4 && strcmp(words[0], "issue") == 0) {
        do_issue(r, words);
    } else if (n == 5 && strcmp(words[0], "jwt") == 0) {
        do_jwt(r, words);
    } else if (n == 2 && strcmp(words[0], "reattest") == 0) {
        do_reattest(r, words);
    } else if (n == 5 && strcmp(words[0], "raw") == 0) {
        do_raw(r, words);
    } else if (n == 2 && strcmp(words[0], "deaf") == 0) {
        do_deaf(r, words);
    } else if (n == 2 && strcmp(words[0], "answers") == 0) {
        do_answers(r, words);
    } else if (n >= 2 && strcmp(words[0], "sys") == 0) {
        do_sys(r, words, n);
    } else {
        say(r, "{\"what\":\"%s\"}", n > 0 ? words[0] : "");
    }
    say(r, "\n");
    if (write(c->fd, r->reply, strlen(r->reply)) == -1) {
        close(c->fd);
        c->fd = -1;
    }
}

static void read_caller(struct rogue *r, struct caller *c)
{
    ssize_t n = read(c->fd, c->line + c->n_line, sizeof(c->line) - 1 - c->n_line);
    char *end;

    if (n == -1 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (n <= 0) {
        close(c->fd);
        c->fd = -1;
        return;
    }
    c->n_line += (size_t)n;
    end = memchr(c->line, '\n', c->n_line);
    if (end != NULL) { /* one command at a time, and its answer is waited for */
        *end = 0;
        c->n_line = 0;
        obey(r, c);
    }
}

/* --- life ------------------------------------------------------------------------------------- */
static void be_the_service(struct rogue *r)
{
    struct agent_msg_start_service start;
    struct agent_msg_report report;
    struct agent_msg_plain ready;
    struct err err = ERR_INIT;
    EVP_PKEY *key;
    bool closed = false;

    if (!receive(r, AGENT_FD_CONTROL, -1, &closed) || r->in.head.type != AGENT_MSG_START_SERVICE) {
        die("no start_service");
    }
    start = r->in.start_service;
    key = x509_key_new(&err);
    if (key == NULL || x509_key_point(key, r->point, &err) == -1) {
        die("no key");
    }
    EVP_PKEY_free(key);
    if (service_drop_privileges(&start, &report, &err) == -1) {
        die("cannot confine itself");
    }
    agent_ipc_init(&ready, AGENT_MSG_READY, 0);
    if (agent_ipc_send(AGENT_FD_CONTROL, &report, -1) != IPC_OK ||
        agent_ipc_send(AGENT_FD_CONTROL, &ready, -1) != IPC_OK) {
        die("the supervisor is gone");
    }
}

int main(void)
{
    static struct rogue r; /* too large for a stack */

    for (size_t i = 0; i < CALLERS_MAX; i++) {
        r.callers[i].fd = -1;
    }
    be_the_service(&r);
    for (;;) {
        struct pollfd p[3 + CALLERS_MAX] = {{.fd = AGENT_FD_CONTROL, .events = POLLIN},
                                            {.fd = AGENT_FD_SERVICE_ATTESTOR, .events = POLLIN},
                                            {.fd = AGENT_FD_SERVICE_KEEPER, .events = POLLIN}};
        bool closed = false;

        p[2].fd = r.deaf ? -1 : p[2].fd;
        for (size_t i = 0; i < CALLERS_MAX; i++) {
            p[3 + i] = (struct pollfd){.fd = r.callers[i].fd, .events = POLLIN};
        }
        (void)poll(p, 3 + CALLERS_MAX, -1);
        for (size_t i = 0; i < 3; i++) {
            if (p[i].revents != 0 && !receive(&r, p[i].fd, 0, &closed) && closed) {
                _exit(0);
            }
        }
        for (size_t i = 0; i < CALLERS_MAX; i++) {
            if (r.callers[i].fd != -1 && p[3 + i].fd == r.callers[i].fd && p[3 + i].revents != 0) {
                read_caller(&r, &r.callers[i]);
            }
        }
    }
}
