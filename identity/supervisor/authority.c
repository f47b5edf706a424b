/* The supervisor's hands for the keeper, which touches no directory: files are opened, made and put
 * in place here, and what is in them is never looked at. */
#include "supervisor_priv.h"

#include <postern/os.h>
#include <unistd.h>

static int send_file(struct supervisor *s, enum agent_msg_type type, int fd, bool fresh,
                     struct err *err)
{
    struct agent_msg_state m;

    agent_ipc_init(&m, type, 0);
    m.owner_uid = (uint32_t)geteuid();
    m.fresh = fresh;
    return supervisor_tell(s, AGENT_ROLE_KEEPER, &m, fd, err);
}

int supervisor_send_state(struct supervisor *s, struct err *err)
{
    const struct supervisor_state *st = &s->state;

    if (st->key_fd != -1 && (send_file(s, AGENT_MSG_STATE_KEY, st->key_fd, false, err) == -1 ||
                             send_file(s, AGENT_MSG_STATE_CERT, st->cert_fd, false, err) == -1)) {
        return -1;
    }
    return send_file(s, AGENT_MSG_STATE_FILE, st->file_fd, st->fresh, err);
}

static int tell_placed(struct supervisor *s, const struct err *failure, struct err *err)
{
    struct agent_msg_state_placed m;

    agent_ipc_init(&m, AGENT_MSG_STATE_PLACED, 0);
    m.ok = failure->code == ERR_NONE;
    m.error = *failure;
    return supervisor_tell(s, AGENT_ROLE_KEEPER, &m, -1, err);
}

static void log_placed(struct supervisor *s, bool first, bool old_layout)
{
    if (old_layout) {
        log_msg(s->log, LOG_INFO, "state_migrated",
                "the root of %s/ca is in %s/ca/state now; root.key and root.crt are removed",
                s->conf->state_dir, s->conf->state_dir);
    } else if (first) {
        log_msg(s->log, LOG_INFO, "root_made", "a new root for %s is in %s/ca",
                s->conf->trust_domain, s->conf->state_dir);
    }
}

int supervisor_on_state(struct supervisor *s, uint32_t type, struct err *err)
{
    bool first = s->state.ca_fd == -1, old_layout = s->state.key_fd != -1;
    struct err failure = ERR_INIT;
    os_autofd int file = -1;

    if (type == AGENT_MSG_STATE_WANTED) {
        return supervisor_state_make_file(&s->state, &file, &failure) == 0
                   ? send_file(s, AGENT_MSG_STATE_FILE, file, true, err)
                   : tell_placed(s, &failure, err);
    }
    if (supervisor_state_commit(&s->state, &failure) == 0) {
        log_placed(s, first, old_layout);
    }
    return tell_placed(s, &failure, err);
}

/* --- orders ------------------------------------------------------------------------------------
 */
void supervisor_order_ca(struct supervisor *s, uint64_t ticket,
                         const struct agent_control_request *request)
{
    struct agent_msg_ca_order m;
    struct str id = agent_control_arg(request, 0);
    struct err err = ERR_INIT;

    if (request->number >= AGENT_N_CA_VERBS) {
        err_set(&err, ERR_USAGE, "no such order");
        supervisor_control_refuse(s, ticket, &err);
        return;
    }
    agent_ipc_init(&m, AGENT_MSG_CA_ORDER, ticket);
    m.verb = (uint32_t)request->number;
    m.jwt = (request->flags & AGENT_CONTROL_CA_JWT) != 0;
    m.force = (request->flags & AGENT_CONTROL_CA_FORCE) != 0;
    POSTERN_ASSERT(agent_ipc_put(m.id, AGENT_CA_ID_MAX, &m.id_len, id));
    if (supervisor_tell(s, AGENT_ROLE_KEEPER, &m, -1, &err) == -1) {
        supervisor_control_refuse(s, ticket, &err);
    }
}

void supervisor_on_ca_answer(struct supervisor *s)
{
    const struct agent_msg_ca_answer *m = &s->in.ca_answer;

    if (m->error.code != ERR_NONE) {
        supervisor_control_refuse(s, m->head.request_id, &m->error);
    } else {
        supervisor_control_answer(s, m->head.request_id,
                                  (struct str){(const char *)m->text, m->text_len});
    }
}
