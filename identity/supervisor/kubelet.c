/*
 * The process that asks the node's kubelet: started if the configuration names one, started again
 * with a growing pause whenever it ends, and never the end of the agent. For each of its questions
 * it is handed the files that it may read and a connection to the one address that it may reach.
 */
#include "supervisor_priv.h"

#include <errno.h>
#include <postern/kubelet.h>
#include <postern/os.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    FIRST_PAUSE_MS = 500,
    LAST_PAUSE_MS = 60000,
    GOOD_RUN_MS = 120000, /* after so long its next end counts as the first */
    TIMEOUT_MS = 5000,    /* of one question */
    WINDOW_MS = 2000,     /* in which it may ask so often: it keeps to half of that by itself */
    WINDOW_QUESTIONS = 8,
};

static struct supervisor_child *child(struct supervisor *s)
{
    return &s->children[AGENT_ROLE_KUBELET];
}

/* It may be broken or hostile: one that does not take its messages is ended. */
static void tell(struct supervisor *s, const void *msg, int fd)
{
    struct supervisor_child *c = child(s);
    struct err why = ERR_INIT;

    if (c->control == -1 || agent_ipc_send(c->control, msg, fd) == IPC_OK) {
        return;
    }
    err_set(&why, ERR_UNAVAILABLE, "the kubelet's process does not read its messages");
    supervisor_kill(s, c, &why);
}

/* --- starting --------------------------------------------------------------------------------- */
static int tell_start(struct supervisor *s, struct err *err)
{
    const struct conf_kubernetes *k = &s->conf->kubernetes;
    struct agent_msg_start_kubelet m;
    char host[AGENT_HOST_MAX], name[AGENT_HOST_MAX];

    kubelet_host_text(&k->address.ss, true, host, sizeof(host));
    kubelet_host_text(&k->address.ss, false, name, sizeof(name));
    agent_ipc_init(&m, AGENT_MSG_START_KUBELET, 0);
    m.log_level = s->conf->log_level;
    m.poll_ms = k->poll_ms;
    m.timeout_ms = TIMEOUT_MS;
    m.run_uid = supervisor_run_uid(s, s->conf->kubelet_uid);
    m.run_gid = supervisor_run_gid(s, s->conf->kubelet_uid);
    m.insecure = k->insecure;
    m.plaintext = k->plaintext;
    if (!agent_ipc_put(m.host, sizeof(m.host), &m.host_len, str_of(host)) ||
        !agent_ipc_put(m.server_name, sizeof(m.server_name), &m.server_name_len,
                       str_of(k->server_name != NULL ? k->server_name : name)) ||
        !agent_ipc_put(m.node_name, sizeof(m.node_name), &m.node_name_len, str_of(k->node_name))) {
        return err_set(err, ERR_CONFIG, "a name of the kubelet's is too long");
    }
    tell(s, &m, -1);
    return 0;
}

static int spawn(struct supervisor *s, struct err *err)
{
    struct agent_msg_plain m;
    int pair[2];
    int r;

    if (ipc_pair(pair, err) == -1) {
        return -1;
    }
    r = supervisor_start_child(s, AGENT_ROLE_KUBELET, "postern-kubelet", &pair[1], 1, err);
    agent_ipc_init(&m, AGENT_MSG_KUBELET, 0);
    if (r == 0) {
        r = supervisor_tell(s, AGENT_ROLE_KEEPER, &m, pair[0], err);
    }
    close(pair[0]);
    close(pair[1]);
    s->kubelet.started_ms = os_now_ms();
    s->kubelet.asked = false;
    return r == -1 ? -1 : tell_start(s, err);
}

static void warn_of_loose(struct supervisor *s)
{
    const struct conf_kubernetes *k = &s->conf->kubernetes;

    if (k->insecure) {
        log_msg(s->log, LOG_WARN, "kubelet_insecure",
                "kubelet.insecure: whoever answers at the kubelet's address says which pods run "
                "here, and gets the token");
    }
    if (k->plaintext) {
        log_msg(s->log, LOG_WARN, "kubelet_plaintext",
                "kubelet.plaintext: whoever listens at the kubelet's address says which pods run "
                "here");
    }
}

int supervisor_kubelet_start(struct supervisor *s, struct err *err)
{
    struct agent_msg_kubelet_state *state = &s->kubelet.state;

    agent_ipc_init(state, AGENT_MSG_KUBELET_STATE, 0);
    state->configured = s->conf->kubernetes.configured;
    state->insecure = s->conf->kubernetes.insecure;
    state->plaintext = s->conf->kubernetes.plaintext;
    if (!state->configured) {
        return 0;
    }
    warn_of_loose(s);
    return spawn(s, err);
}

/* --- ending ----------------------------------------------------------------------------------- */
void supervisor_kubelet_ended(struct supervisor *s, const struct err *why)
{
    struct supervisor_kubelet *k = &s->kubelet;
    uint64_t now_ms = os_now_ms();

    log_failure(s->log, LOG_ERROR, "process_ended", why);
    if (k->pause_ms == 0 || now_ms - k->started_ms > GOOD_RUN_MS) {
        k->pause_ms = FIRST_PAUSE_MS;
    }
    k->restart_ms = now_ms + k->pause_ms;
    log_msg(s->log, LOG_WARN, "kubelet_restart",
            "the kubelet is asked again in %u ms; the pods of before stay known",
            (unsigned)k->pause_ms);
    k->pause_ms = 2 * k->pause_ms < LAST_PAUSE_MS ? 2 * k->pause_ms : LAST_PAUSE_MS;
    k->state.error = *why;
    supervisor_kubelet_tell_state(s);
}

int supervisor_kubelet_due_ms(const struct supervisor *s)
{
    uint64_t now_ms = os_now_ms();

    if (s->kubelet.restart_ms == 0) {
        return -1;
    }
    return s->kubelet.restart_ms > now_ms ? (int)(s->kubelet.restart_ms - now_ms) : 0;
}

void supervisor_kubelet_turn(struct supervisor *s)
{
    struct supervisor_child *c = child(s);
    struct err err = ERR_INIT;

    if (supervisor_kubelet_due_ms(s) != 0 || s->stopping) {
        return;
    }
    s->kubelet.restart_ms = 0;
    c->restarts++;
    s->kubelet.state.restarts = c->restarts;
    supervisor_kubelet_tell_state(s);
    if (spawn(s, &err) == -1) {
        if (c->pidfd != -1) {
            supervisor_kill(s, c, &err); /* what follows its end is the next try */
        } else {
            supervisor_kubelet_ended(s, &err);
        }
    }
}

/* --- what it says ----------------------------------------------------------------------------- */
static void refuse(struct supervisor *s, const struct err *why)
{
    struct agent_msg_failed m;

    agent_ipc_init(&m, AGENT_MSG_KUBELET_REFUSED, 0);
    m.error = *why;
    tell(s, &m, -1);
}

static int hand_file(struct supervisor *s, enum agent_kubelet_file which, const char *what,
                     const char *path, struct err *err)
{
    struct agent_msg_kubelet_file m;
    int fd = -1;

    if (path == NULL) {
        return 0;
    }
    if (supervisor_source_open(path, what, &fd, err) == -1) {
        return -1;
    }
    agent_ipc_init(&m, AGENT_MSG_KUBELET_FILE, 0);
    m.which = which;
    tell(s, &m, fd);
    close(fd);
    return 0;
}

/* A socket that has begun to connect: nothing here waits for the network. */
static int connect_to(const struct conf_sockaddr *a, int *ret_fd, struct err *err)
{
    os_autofd int fd = socket(a->ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd == -1) {
        return err_sys(err, "no socket for the kubelet");
    }
    if (connect(fd, (const struct sockaddr *)&a->ss, a->len) == -1 && errno != EINPROGRESS) {
        return err_sys(err, "no connection to the kubelet");
    }
    *ret_fd = fd;
    fd = -1;
    return 0;
}

static int hand_all(struct supervisor *s, struct err *err)
{
    const struct conf_kubernetes *k = &s->conf->kubernetes;
    struct agent_msg_plain m;
    int fd = -1;

    if (hand_file(s, AGENT_KUBELET_CA, "the kubelet's CA", k->ca_file, err) == -1 ||
        hand_file(s, AGENT_KUBELET_TOKEN, "the token", k->token_file, err) == -1 ||
        hand_file(s, AGENT_KUBELET_CERT, "the client certificate", k->cert_file, err) == -1 ||
        hand_file(s, AGENT_KUBELET_KEY, "the client key", k->key_file, err) == -1 ||
        connect_to(&k->address, &fd, err) == -1) {
        return -1;
    }
    agent_ipc_init(&m, AGENT_MSG_KUBELET_CONNECTION, 0);
    tell(s, &m, fd);
    close(fd);
    return 0;
}

int supervisor_kubelet_wants(struct supervisor *s, struct err *err)
{
    struct supervisor_kubelet *k = &s->kubelet;
    uint64_t now_ms = os_now_ms();
    struct err why = ERR_INIT;

    if (now_ms - k->window_ms > WINDOW_MS) {
        k->window_ms = now_ms;
        k->n_questions = 0;
    }
    if (k->asked || ++k->n_questions > WINDOW_QUESTIONS) {
        return err_set(err, ERR_PROTOCOL, "the kubelet's process asks too often");
    }
    k->asked = true;
    if (hand_all(s, &why) == -1) {
        refuse(s, &why);
    }
    return 0;
}

/* One line when it begins to fail, one when it is well again. */
static void log_change(struct supervisor *s, const struct agent_msg_kubelet_state *now)
{
    const struct agent_msg_kubelet_state *before = &s->kubelet.state;
    struct log_line l;

    if (now->error.code != ERR_NONE) {
        if (before->error.code == ERR_NONE || strcmp(before->error.what, now->error.what) != 0) {
            log_failure(s->log, LOG_ERROR, "kubelet_failed", &now->error);
        }
    } else if (before->error.code != ERR_NONE || before->fetched_s == 0) {
        log_begin(&l, s->log, LOG_INFO, "kubelet_answers");
        log_uint(&l, "pods", now->n_pods);
        log_uint(&l, "containers", now->n_containers);
        log_end(&l);
    }
    if (now->n_left_out > 0 && before->n_left_out == 0) {
        log_failure(s->log, LOG_WARN, "pods_left_out", &now->left_out);
    }
}

int supervisor_kubelet_state(struct supervisor *s, const struct agent_msg_kubelet_state *said,
                             struct err *err)
{
    struct agent_msg_kubelet_state now = *said;
    struct agent_msg_kubelet_state *kept = &s->kubelet.state;

    if (!s->kubelet.asked) {
        return err_set(err, ERR_PROTOCOL, "the kubelet's process answers what it did not ask");
    }
    s->kubelet.asked = false;
    now.configured = kept->configured;
    now.insecure = kept->insecure;
    now.plaintext = kept->plaintext;
    now.restarts = kept->restarts;
    if (now.fetched_s == 0) { /* a new process has no list yet; the keeper has the old one's */
        now.fetched_s = kept->fetched_s;
        now.n_pods = kept->n_pods;
        now.n_containers = kept->n_containers;
    }
    log_change(s, &now);
    *kept = now;
    supervisor_kubelet_tell_state(s);
    return 0;
}

void supervisor_kubelet_tell_state(struct supervisor *s)
{
    supervisor_tell_service(s, &s->kubelet.state, -1);
}
