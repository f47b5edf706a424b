#include <postern/actions_wire.h>

#include <signal.h>
#include <string.h>
#include <unistd.h>

const int actions_forwarded[] = {SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGWINCH, 0};

static const char *const outcomes[ACTIONS_N_OUTCOMES] = {"done",    "failed",    "timed_out",
                                                         "refused", "cancelled", "no_child"};
static const char *const verdicts[ACTIONS_N_VERDICTS] = {"served", "old", "other", "unreachable"};

const char *actions_outcome_name(enum actions_outcome outcome)
{
    POSTERN_ASSERT(outcome < ACTIONS_N_OUTCOMES);
    return outcomes[outcome];
}

const char *actions_verdict_name(enum actions_verdict verdict)
{
    POSTERN_ASSERT(verdict < ACTIONS_N_VERDICTS);
    return verdicts[verdict];
}

/* --- what each may say ------------------------------------------------------------------------ */
static bool is_forwarded(uint32_t signo)
{
    for (size_t i = 0; actions_forwarded[i] != 0; i++) {
        if ((uint32_t)actions_forwarded[i] == signo) {
            return true;
        }
    }
    return false;
}

static bool check_run(const union actions_msg *m)
{
    return m->run.job != 0 && m->run.output < CONF_ROTATE_OUTPUTS_MAX;
}
static bool check_verify(const union actions_msg *m)
{
    return m->verify.job != 0 && m->verify.output < CONF_ROTATE_OUTPUTS_MAX &&
           m->verify.has_old <= 1;
}
static bool check_cancel(const union actions_msg *m)
{
    return m->cancel.job != 0;
}
static bool check_any(const union actions_msg *m)
{
    (void)m;
    return true;
}
static bool check_child_signal(const union actions_msg *m)
{
    return is_forwarded(m->child_signal.signo) && m->child_signal.zero == 0;
}

/* Every text ends inside its array. */
static bool is_text(const char *text, size_t size)
{
    return memchr(text, '\0', size) != NULL;
}
static bool check_loaded(const union actions_msg *m)
{
    const struct err *e = &m->loaded.error;
    return m->loaded.failed <= 1 && m->loaded.zero == 0 && e->code >= ERR_NONE &&
           e->code <= ERR_UNSUPPORTED && (e->code != ERR_NONE) == (m->loaded.failed == 1) &&
           is_text(e->where, sizeof(e->where)) && is_text(e->what, sizeof(e->what)) &&
           is_text(e->expected, sizeof(e->expected)) && is_text(e->advice, sizeof(e->advice));
}
static bool check_output(const union actions_msg *m)
{
    return m->output.job != 0 && m->output.len <= ACTIONS_LINE_MAX &&
           (m->output.lost == 0 || m->output.len == 0);
}
static bool check_done(const union actions_msg *m)
{
    const struct actions_msg_done *d = &m->done;
    return d->job != 0 && d->outcome < ACTIONS_N_OUTCOMES && d->verdict < ACTIONS_N_VERDICTS &&
           d->exit_status >= -1 && d->exit_status <= 255 && d->http_status <= 999 &&
           d->has_seen <= 1 && d->text_len <= ACTIONS_TEXT_MAX;
}
static bool check_child_started(const union actions_msg *m)
{
    return m->child_started.pid > 1 && m->child_started.zero == 0;
}
static bool check_child_ended(const union actions_msg *m)
{
    return m->child_ended.status >= -1 && m->child_ended.status <= 255 &&
           m->child_ended.text_len <= ACTIONS_TEXT_MAX;
}

static const struct {
    const char *name;
    enum actions_way way;
    size_t size;
    bool (*check)(const union actions_msg *m);
} TYPES[ACTIONS_N_TYPES] = {
    [ACTIONS_RUN] = {"run", ACTIONS_TO_RUNNER, sizeof(struct actions_msg_run), check_run},
    [ACTIONS_VERIFY] = {"verify", ACTIONS_TO_RUNNER, sizeof(struct actions_msg_verify),
                        check_verify},
    [ACTIONS_CANCEL] = {"cancel", ACTIONS_TO_RUNNER, sizeof(struct actions_msg_cancel),
                        check_cancel},
    [ACTIONS_RELOAD] = {"reload", ACTIONS_TO_RUNNER, sizeof(struct actions_msg_reload), check_any},
    [ACTIONS_CHILD_START] = {"child_start", ACTIONS_TO_RUNNER,
                             sizeof(struct actions_msg_child_start), check_any},
    [ACTIONS_CHILD_SIGNAL] = {"child_signal", ACTIONS_TO_RUNNER,
                              sizeof(struct actions_msg_child_signal), check_child_signal},
    [ACTIONS_LOADED] = {"loaded", ACTIONS_TO_DAEMON, sizeof(struct actions_msg_loaded),
                        check_loaded},
    [ACTIONS_OUTPUT] = {"output", ACTIONS_TO_DAEMON, sizeof(struct actions_msg_output),
                        check_output},
    [ACTIONS_DONE] = {"done", ACTIONS_TO_DAEMON, sizeof(struct actions_msg_done), check_done},
    [ACTIONS_CHILD_STARTED] = {"child_started", ACTIONS_TO_DAEMON,
                               sizeof(struct actions_msg_child_started), check_child_started},
    [ACTIONS_CHILD_ENDED] = {"child_ended", ACTIONS_TO_DAEMON,
                             sizeof(struct actions_msg_child_ended), check_child_ended},
};

const char *actions_type_name(enum actions_type type)
{
    return type > 0 && type < ACTIONS_N_TYPES ? TYPES[type].name : "unknown";
}

void actions_wire_init(void *msg, enum actions_type type)
{
    struct actions_head head = {.type = type, .size = (uint32_t)TYPES[type].size};

    memset(msg, 0, TYPES[type].size);
    memcpy(msg, &head, sizeof(head));
}

const char *actions_wire_check(enum actions_way way, const void *bytes, size_t len)
{
    union actions_msg m;
    struct actions_head head;

    if (len < sizeof(head) || len > sizeof(m)) {
        return "it is shorter than a head, or longer than any message";
    }
    memcpy(&head, bytes, sizeof(head));
    if (head.type == 0 || head.type >= ACTIONS_N_TYPES || TYPES[head.type].way != way) {
        return "its type is unknown, or goes the other way";
    }
    if (len != TYPES[head.type].size || head.size != len) {
        return "its size is not its type's";
    }
    memset(&m, 0, sizeof(m));
    memcpy(&m, bytes, len);
    return TYPES[head.type].check(&m) ? NULL : "a number in it is out of range";
}

/* --- sending and receiving -------------------------------------------------------------------- */
enum ipc_outcome actions_send(int fd, const void *msg)
{
    struct actions_head head;

    memcpy(&head, msg, sizeof(head));
    return ipc_send(fd, msg, head.size, -1);
}

enum ipc_outcome actions_recv(int fd, enum actions_way way, union actions_msg *ret)
{
    union actions_msg m;
    size_t len = 0;
    int passed = -1;
    enum ipc_outcome outcome = ipc_recv(fd, &m, sizeof(m), &len, &passed);

    if (outcome != IPC_OK) {
        return outcome;
    }
    if (passed != -1) {
        close(passed);
        return IPC_BAD;
    }
    if (actions_wire_check(way, &m, len) != NULL) {
        return IPC_BAD;
    }
    memset(ret, 0, sizeof(*ret));
    memcpy(ret, &m, len);
    return IPC_OK;
}

bool probe_answer_check(const void *bytes, size_t len)
{
    struct probe_answer a;

    if (len != sizeof(a)) {
        return false;
    }
    memcpy(&a, bytes, len);
    return a.outcome < ACTIONS_N_OUTCOMES && a.verdict < ACTIONS_N_VERDICTS &&
           a.http_status <= 999 && a.has_seen <= 1 && a.text_len <= ACTIONS_TEXT_MAX;
}
