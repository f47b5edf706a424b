/*
 * When to ask, and one question as a whole: files and connection from the supervisor, the answer
 * from the kubelet, the pods to the keeper, what became of it to the supervisor.
 *
 * Asked every poll_ms, and at once when the keeper has a caller whom the last list does not know;
 * never more often than GAP_MS, which doubles with every failure in a row.
 */
#include "kubelet_priv.h"

#include <errno.h>
#include <malloc.h>
#include <poll.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { GAP_MS = 500, GAP_DOUBLINGS = 4, HANDED_MS = 10000, TELL_MS = 5000 };

/* --- the supervisor --------------------------------------------------------------------------- */
static int tell_supervisor(struct fetcher *f, const void *msg, struct err *err)
{
    struct pollfd p = {.fd = f->control, .events = POLLOUT};
    uint64_t until_ms = os_now_ms() + TELL_MS;

    for (;;) {
        switch (agent_ipc_send(f->control, msg, -1)) {
        case IPC_OK:
            return 0;
        case IPC_AGAIN:
            if (os_now_ms() > until_ms) {
                return err_set(err, ERR_UNAVAILABLE, "the supervisor does not read");
            }
            (void)poll(&p, 1, 500);
            break;
        case IPC_CLOSED:
        case IPC_BAD:
            return err_set(err, ERR_UNAVAILABLE, "the supervisor is gone");
        }
    }
}

static void close_one(int *fd)
{
    if (*fd != -1) {
        close(*fd);
        *fd = -1;
    }
}

static void close_handed(struct fetcher *f)
{
    for (size_t i = 0; i < AGENT_N_KUBELET_FILES; i++) {
        close_one(&f->files[i]);
    }
    close_one(&f->connection);
}

/* FAILED: the next one may do better. GONE: one of ours is. */
enum step { STEP_OK, STEP_FAILED, STEP_GONE };

static enum step take_handed(struct fetcher *f, int fd, struct err *err)
{
    switch (f->in.head.type) {
    case AGENT_MSG_KUBELET_FILE:
        close_one(&f->files[f->in.kubelet_file.which]);
        f->files[f->in.kubelet_file.which] = fd;
        return STEP_OK;
    case AGENT_MSG_KUBELET_CONNECTION:
        f->connection = fd;
        return STEP_OK;
    case AGENT_MSG_KUBELET_REFUSED:
        *err = f->in.failed.error;
        return STEP_FAILED;
    default: /* a second start */
        err_set(err, ERR_PROTOCOL, "the supervisor's %s is out of order",
                agent_msg_name(f->in.head.type));
        return STEP_GONE;
    }
}

/* Files and connection for one question. */
static enum step get_handed(struct fetcher *f, struct err *err)
{
    struct pollfd p = {.fd = f->control, .events = POLLIN};
    uint64_t until_ms = os_now_ms() + HANDED_MS;
    struct agent_msg_plain want;
    enum step step = STEP_OK;
    int fd = -1;

    agent_ipc_init(&want, AGENT_MSG_KUBELET_WANT, 0);
    if (tell_supervisor(f, &want, err) == -1) {
        return STEP_GONE;
    }
    while (step == STEP_OK && f->connection == -1) {
        switch (agent_ipc_recv(f->control, AGENT_WAY_SUPERVISOR_KUBELET, &f->in, &fd)) {
        case IPC_OK:
            step = take_handed(f, fd, err);
            break;
        case IPC_AGAIN:
            if (os_now_ms() > until_ms) {
                err_set(err, ERR_UNAVAILABLE, "the supervisor does not answer");
                return STEP_GONE;
            }
            (void)poll(&p, 1, 500);
            break;
        case IPC_CLOSED:
        case IPC_BAD:
            err_set(err, ERR_UNAVAILABLE, "the supervisor is gone");
            return STEP_GONE;
        }
    }
    return step;
}

/* --- files ------------------------------------------------------------------------------------ */
struct text {
    char *p; /* in memory for secrets */
    size_t n;
};

static void text_free(struct text *t)
{
    t->p = mem_secret_free(t->p);
}

static int read_text(int fd, size_t max, struct text *ret, struct err *err)
{
    struct stat st;
    size_t n = 0;
    char *p;

    if (fd == -1) {
        return 0;
    }
    if (fstat(fd, &st) == -1) {
        return err_sys(err, "the file cannot be read");
    }
    if (st.st_size > (off_t)max) {
        return err_set(err, ERR_LIMIT, "the file is larger than %zu bytes", max);
    }
    p = mem_secret_alloc((size_t)st.st_size + 1);
    if (p == NULL) {
        return err_set(err, ERR_LIMIT, "no memory");
    }
    while (n < (size_t)st.st_size) {
        ssize_t r = read(fd, p + n, (size_t)st.st_size - n);

        if (r == -1 && errno != EINTR) {
            err_sys(err, "the file cannot be read");
            mem_secret_free(p);
            return -1;
        }
        if (r == 0) {
            break;
        }
        n += r > 0 ? (size_t)r : 0;
    }
    *ret = (struct text){p, n};
    return 0;
}

/* Files are named as the configuration names them. */
static int read_texts(struct fetcher *f, struct text texts[AGENT_N_KUBELET_FILES], struct err *err)
{
    static const struct {
        const char *key;
        size_t max;
    } kinds[AGENT_N_KUBELET_FILES] = {
        [AGENT_KUBELET_CA] = {"kubelet.ca_file", KUBELET_PEM_MAX},
        [AGENT_KUBELET_TOKEN] = {"kubelet.token_file", KUBELET_TOKEN_MAX},
        [AGENT_KUBELET_CERT] = {"kubelet.cert_file", KUBELET_PEM_MAX},
        [AGENT_KUBELET_KEY] = {"kubelet.key_file", KUBELET_PEM_MAX},
    };
    struct text *token = &texts[AGENT_KUBELET_TOKEN];

    for (size_t i = 0; i < AGENT_N_KUBELET_FILES; i++) {
        if (read_text(f->files[i], kinds[i].max, &texts[i], err) == -1) {
            return err_prefix(err, "%s", kinds[i].key);
        }
    }
    while (token->n > 0 && strchr("\r\n ", token->p[token->n - 1]) != NULL) {
        token->n--;
    }
    return f->files[AGENT_KUBELET_TOKEN] != -1 && token->n == 0
               ? err_set(err, ERR_CONFIG, "kubelet.token_file is empty")
               : 0;
}

/* --- the question ----------------------------------------------------------------------------- */
static struct str str_of_text(const struct text *t)
{
    return (struct str){t->p, t->n};
}

static int ask(struct fetcher *f, struct buf *ret_body, struct err *err)
{
    struct text texts[AGENT_N_KUBELET_FILES] = {{NULL, 0}};
    int r = read_texts(f, texts, err);

    if (r == 0) {
        const struct kubelet_request request = {
            .socket = f->connection,
            .also = f->control,
            .host = f->host,
            .server_name = f->server_name,
            .insecure = f->start.insecure,
            .plaintext = f->start.plaintext,
            .ca = str_of_text(&texts[AGENT_KUBELET_CA]),
            .cert = str_of_text(&texts[AGENT_KUBELET_CERT]),
            .key = str_of_text(&texts[AGENT_KUBELET_KEY]),
            .token = str_of_text(&texts[AGENT_KUBELET_TOKEN]),
            .timeout_ms = f->start.timeout_ms,
        };

        r = kubelet_exchange(&request, ret_body, err);
    }
    for (size_t i = 0; i < AGENT_N_KUBELET_FILES; i++) {
        text_free(&texts[i]);
    }
    return r;
}

/* The kubelet of this node and of no other. */
static int check_node(const struct fetcher *f, const struct kubelet_pods *pods, struct err *err)
{
    for (size_t i = 0; f->node_name[0] != '\0' && i < pods->n; i++) {
        const char *node = pods->items[i].node;

        if (node != NULL && strcmp(node, f->node_name) != 0) {
            err_set(err, ERR_DENIED, "the kubelet tells of pods on node %s", node);
            return err_expected(err, "pods on %s alone", f->node_name);
        }
    }
    return 0;
}

static void take_numbers(struct fetcher *f, const struct kubelet_pods *pods)
{
    f->state.fetched_s = os_wall_s();
    f->state.n_pods = (uint32_t)pods->n;
    f->state.n_left_out = (uint32_t)pods->n_left_out;
    f->state.left_out = pods->left_out;
    f->state.n_containers = 0;
    for (size_t i = 0; i < pods->n; i++) {
        f->state.n_containers += (uint32_t)pods->items[i].n_containers;
    }
}

static enum step question(struct fetcher *f, struct err *err)
{
    struct buf body = BUF_INIT(KUBELET_BODY_MAX);
    struct kubelet_pods *pods = NULL;
    enum step step = get_handed(f, err);

    if (step == STEP_OK &&
        (ask(f, &body, err) == -1 ||
         kubelet_pods_parse((const char *)buf_head(&body), buf_len(&body), &pods, err) == -1 ||
         check_node(f, pods, err) == -1)) {
        step = STEP_FAILED;
    }
    close_handed(f);
    buf_reset(&body);
    if (step == STEP_OK && fetcher_tell_pods(f, pods, err) == -1) {
        step = STEP_GONE;
    }
    if (step == STEP_OK) {
        take_numbers(f, pods);
    }
    kubelet_pods_free(pods);
    (void)malloc_trim(0); /* a tree of JSON is many times what stays */
    return step;
}

/* One question, whatever becomes of it. */
static int ask_once(struct fetcher *f, struct err *err)
{
    struct err why = ERR_INIT;
    enum step step;

    f->wanted = false;
    f->asked_ms = os_now_ms();
    f->state.n_asked++;
    step = question(f, &why);
    if (step == STEP_GONE) {
        *err = why;
        return -1;
    }
    f->state.error = why;
    f->state.n_failed += step != STEP_OK;
    f->n_failures = step == STEP_OK ? 0 : f->n_failures + 1;
    return tell_supervisor(f, &f->state, err);
}

/* --- the loop --------------------------------------------------------------------------------- */
/* What the keeper wants is one thing. */
static int hear_keeper(struct fetcher *f, struct err *err)
{
    int fd = -1;

    for (;;) {
        switch (agent_ipc_recv(f->keeper, AGENT_WAY_KEEPER_KUBELET, &f->in, &fd)) {
        case IPC_OK:
            f->wanted = true;
            break;
        case IPC_AGAIN:
            return 0;
        case IPC_CLOSED:
            return err_set(err, ERR_UNAVAILABLE, "the keeper closed its channel");
        case IPC_BAD:
            return err_set(err, ERR_PROTOCOL, "the keeper sent a bad message");
        }
    }
}

static uint64_t gap_ms(const struct fetcher *f)
{
    unsigned n = f->n_failures < GAP_DOUBLINGS ? f->n_failures : GAP_DOUBLINGS;

    return (uint64_t)GAP_MS << n;
}

static int wait_ms(const struct fetcher *f)
{
    uint64_t passed = os_now_ms() - f->asked_ms;
    uint64_t due = gap_ms(f);

    if (f->asked_ms == 0) {
        return 0;
    }
    if (!f->wanted && due < f->start.poll_ms) {
        due = f->start.poll_ms;
    }
    return passed < due ? (int)(due - passed) : 0;
}

int fetcher_run(struct fetcher *f, struct err *err)
{
    for (;;) {
        struct pollfd fds[2] = {{.fd = f->control, .events = POLLIN},
                                {.fd = f->keeper, .events = POLLIN}};

        if (poll(fds, 2, wait_ms(f)) == -1 && errno != EINTR) {
            return err_sys(err, "poll");
        }
        if (fds[0].revents != 0) {
            return 0; /* between questions the supervisor says nothing but the end */
        }
        if (fds[1].revents != 0 && hear_keeper(f, err) == -1) {
            return -1;
        }
        if (wait_ms(f) == 0 && ask_once(f, err) == -1) {
            return -1;
        }
    }
}
