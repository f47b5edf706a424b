#include "supervisor_priv.h"

#include <postern/os.h>
#include <string.h>

enum { MESSAGES_MAX = 16 }; /* of one child in a turn */

void supervisor_tell_entries(struct supervisor *s)
{
    supervisor_tell_service(s, &s->entries, -1);
}

static void tell_process(struct supervisor *s, const struct supervisor_child *c)
{
    struct agent_msg_process m;

    agent_ipc_init(&m, AGENT_MSG_PROCESS, 0);
    m.role = c->role;
    m.pid = (int32_t)c->pid;
    m.restarts = c->restarts;
    m.secret_kind = c->report.secret_kind;
    m.memory_locked = c->report.memory_locked;
    m.separated = s->separated;
    m.started_s = c->started_s;
    m.report = c->report.report;
    supervisor_tell_service(s, &m, -1);
}

void supervisor_tell_processes(struct supervisor *s)
{
    for (size_t i = 0; i < AGENT_N_ROLES; i++) {
        if (s->children[i].reported) {
            tell_process(s, &s->children[i]);
        }
    }
}

static int on_report(struct supervisor *s, struct supervisor_child *c, struct err *err)
{
    struct log_line l;
    const struct sandbox_report *r;

    if (s->in.report.role != (uint32_t)c->role ||
        (c->reported && c->role != AGENT_ROLE_KEEPER)) { /* the keeper again, when it has keys */
        return err_set(err, ERR_PROTOCOL, "the %s reports twice or as another",
                       agent_role_name(c->role));
    }
    c->report = s->in.report;
    r = &c->report.report;
    if (!c->reported) {
        log_begin(&l, s->log, LOG_INFO, "process_confined");
        log_str(&l, "process", agent_role_name(c->role));
        log_int(&l, "pid", c->pid);
        log_uint(&l, "uid", r->uid);
        log_bool(&l, "no_new_privs", r->no_new_privs);
        log_bool(&l, "seccomp", r->seccomp);
        log_int(&l, "landlock_abi", r->landlock_abi);
        log_fmt(&l, "capabilities", "%016llx", (unsigned long long)r->caps);
        log_end(&l);
    }
    c->reported = true;
    supervisor_tell_processes(s);
    return 0;
}

static void on_applied(struct supervisor *s)
{
    const struct agent_msg_entries_applied *m = &s->in.entries_applied;
    struct log_line l;

    s->last_applied = *m;
    s->applied = true;
    supervisor_entries_settled(s, m->ok);
    s->entries.n_loads++;
    s->entries.error = m->error;
    if (!m->ok) {
        s->entries.n_failed_loads++;
        err_where(&s->last_applied.error, "%s%s%.20s", s->conf->entries_path,
                  m->error.where[0] != '\0' ? ":" : "", m->error.where);
        log_failure(s->log, LOG_ERROR, "entries_refused", &s->last_applied.error);
        supervisor_tell_entries(s);
        return;
    }
    s->entries.error = (struct err)ERR_INIT;
    s->entries.generation = m->generation;
    s->entries.n_entries = m->n_entries;
    s->entries.loaded_s = os_wall_s();
    log_begin(&l, s->log, LOG_INFO, "entries_loaded");
    log_str(&l, "file", s->conf->entries_path);
    log_uint(&l, "generation", m->generation);
    log_uint(&l, "entries", m->n_entries);
    log_uint(&l, "added", m->n_added);
    log_uint(&l, "removed", m->n_removed);
    log_uint(&l, "changed", m->n_changed);
    log_end(&l);
    supervisor_tell_entries(s);
}

static int on_message(struct supervisor *s, struct supervisor_child *c, struct err *err)
{
    switch (s->in.head.type) {
    case AGENT_MSG_REPORT:
        return on_report(s, c, err);
    case AGENT_MSG_READY:
        c->ready = true;
        return c->role == AGENT_ROLE_SIGNER ? supervisor_signer_ready(s, err) : 0;
    case AGENT_MSG_FAILED:
        c->failure = s->in.failed.error;
        if (c->role == AGENT_ROLE_KEEPER && c->failure.where[0] == 0) {
            err_where(&c->failure, "%s/ca", s->conf->state_dir);
        }
        return 0;
    case AGENT_MSG_STATE_WANTED:
    case AGENT_MSG_STATE_WRITTEN:
        return supervisor_on_state(s, s->in.head.type, err);
    case AGENT_MSG_JOURNAL_NEXT:
        return supervisor_journal_next(s, s->in.journal_next.number, err);
    case AGENT_MSG_DENY_APPLIED:
        supervisor_quarantine_applied(s, &s->in.deny_begin);
        return 0;
    case AGENT_MSG_HISTORY:
        return supervisor_history_take(s, &s->in.history, err);
    case AGENT_MSG_CA_ANSWER:
        supervisor_on_ca_answer(s);
        return 0;
    case AGENT_MSG_ENTRIES_APPLIED:
        on_applied(s);
        return 0;
    case AGENT_MSG_KUBELET_WANT:
        return supervisor_kubelet_wants(s, err);
    case AGENT_MSG_KUBELET_STATE:
        return supervisor_kubelet_state(s, &s->in.kubelet_state, err);
    default:
        break;
    }
    return err_set(err, ERR_PROTOCOL, "the %s's %s is out of order", agent_role_name(c->role),
                   agent_msg_name(s->in.head.type));
}

int supervisor_hear(struct supervisor *s, struct supervisor_child *c, struct err *err)
{
    static const enum agent_way ways[AGENT_N_ROLES] = {
        [AGENT_ROLE_KEEPER] = AGENT_WAY_KEEPER_SUPERVISOR,
        [AGENT_ROLE_ATTESTOR] = AGENT_WAY_ATTESTOR_SUPERVISOR,
        [AGENT_ROLE_SERVICE] = AGENT_WAY_SERVICE_SUPERVISOR,
        [AGENT_ROLE_KUBELET] = AGENT_WAY_KUBELET_SUPERVISOR,
        [AGENT_ROLE_SIGNER] = AGENT_WAY_SIGNER_SUPERVISOR,
    };
    int fd = -1;

    for (int i = 0; i < MESSAGES_MAX; i++) {
        switch (agent_ipc_recv(c->control, ways[c->role], &s->in, &fd)) {
        case IPC_OK:
            if (on_message(s, c, err) == -1) {
                return -1;
            }
            break;
        case IPC_AGAIN:
            return 0;
        case IPC_CLOSED:
            return 1;
        case IPC_BAD:
            return err_set(err, ERR_PROTOCOL, "the %s sent a bad message",
                           agent_role_name(c->role));
        }
    }
    return 0;
}
