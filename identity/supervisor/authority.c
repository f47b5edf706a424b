/* The supervisor's hands for the keeper, which touches no directory: files are opened, made and put
 * in place here, and what is in them is never looked at. */
#include "supervisor_priv.h"

#include <postern/mem.h>
#include <postern/os.h>
#include <stdlib.h>
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

/* --- the key at rest ----------------------------------------------------------------------------
 */
static int send_source(struct supervisor *s, const char *path, bool old, struct err *err)
{
    struct agent_msg_key_source m;
    os_autofd int fd = -1;

    if (supervisor_source_open(path, "the passphrase's file", &fd, err) == -1) {
        return -1;
    }
    agent_ipc_init(&m, AGENT_MSG_KEY_SOURCE, 0);
    m.owner_uid = (uint32_t)geteuid();
    m.old = old;
    return supervisor_tell(s, AGENT_ROLE_KEEPER, &m, fd, err);
}

/* systemd.exec(5), "Credentials". */
static int send_credential(struct supervisor *s, struct err *err)
{
    const char *dir = secure_getenv("CREDENTIALS_DIRECTORY");
    mem_autofree char *path = NULL;

    if (dir == NULL || dir[0] != '/') {
        err_set(err, ERR_CONFIG, "there is no credential '%s': CREDENTIALS_DIRECTORY is not set",
                s->conf->ca.key.credential);
        return err_advise(err, "give the unit LoadCredential= or LoadCredentialEncrypted= with "
                               "this name, or use passphrase_file");
    }
    path = mem_must_printf("%s/%s", dir, s->conf->ca.key.credential);
    return send_source(s, path, false, err);
}

/* Nothing is said of the protection: what is there is used, with a warning, but nothing new is made
 * in the belief that somebody thought of it. */
static int judge_unsaid(struct supervisor *s, struct err *err)
{
    if (s->conf->ca.present && s->state.fresh && s->state.key_fd == -1 &&
        s->conf->ca.source == CONF_CA_SELF) {
        err_set(err, ERR_CONFIG, "`ca.key_at_rest` does not say what protects the root's key");
        err_where(err, "%s", s->conf->path);
        return err_advise(err,
                          "write {passphrase_file: PATH}, {credential: NAME}, or plain, if the "
                          "file's mode is enough");
    }
    log_msg(
        s->log, LOG_WARN, "key_unprotected",
        "the authorities' keys in %s/ca are plain, and the configuration does not say that they "
        "may be: set ca.key_at_rest",
        s->conf->state_dir);
    return 0;
}

static int send_key_source(struct supervisor *s, struct err *err)
{
    const char *old = s->conf->ca.key.old_passphrase_file;

    if (old != NULL && send_source(s, old, true, err) == -1) {
        return -1;
    }
    switch (s->conf->ca.key.kind) {
    case CONF_KEY_UNSAID:
        return judge_unsaid(s, err);
    case CONF_KEY_PASSPHRASE:
        return send_source(s, s->conf->ca.key.passphrase_file, false, err);
    case CONF_KEY_CREDENTIAL:
        return send_credential(s, err);
    case CONF_KEY_PLAIN:
        break;
    }
    return 0;
}

/* --- an authority from files -------------------------------------------------------------------
 */
/* All of them are opened before one is sent: a set that is not whole changes nothing. */
static int send_ca_files(struct supervisor *s, struct err *err)
{
    const char *const paths[AGENT_N_CA_FILES] = {
        s->conf->ca.disk.cert_file, s->conf->ca.disk.key_file, s->conf->ca.disk.bundle_file};
    int fds[AGENT_N_CA_FILES] = {-1, -1, -1};
    struct agent_msg_ca_file m;
    int r = 0;

    for (size_t i = 0; r == 0 && i < AGENT_N_CA_FILES; i++) {
        r = supervisor_source_open(paths[i], "a file of the authority", &fds[i], err);
    }
    for (uint32_t i = 0; r == 0 && i < AGENT_N_CA_FILES; i++) {
        agent_ipc_init(&m, AGENT_MSG_CA_FILE, 0);
        m.which = i;
        m.owner_uid = (uint32_t)geteuid();
        r = supervisor_tell(s, AGENT_ROLE_KEEPER, &m, fds[i], err);
    }
    for (size_t i = 0; i < AGENT_N_CA_FILES; i++) {
        if (fds[i] != -1) {
            close(fds[i]);
        }
    }
    return r;
}

void supervisor_watch_ca(struct supervisor *s)
{
    if (s->conf->ca.source == CONF_CA_DISK) {
        supervisor_watch_add(s, s->conf->ca.disk.cert_file, &s->ca_changed);
        supervisor_watch_add(s, s->conf->ca.disk.key_file, &s->ca_changed);
        supervisor_watch_add(s, s->conf->ca.disk.bundle_file, &s->ca_changed);
    }
}

int supervisor_reload_ca(struct supervisor *s, struct err *err)
{
    struct err wrong = ERR_INIT;

    s->ca_changed = false;
    supervisor_watch_taken(s, &s->ca_changed);
    if (send_ca_files(s, &wrong) == 0) {
        return 0;
    }
    if (wrong.code == ERR_UNAVAILABLE) { /* the keeper is gone */
        *err = wrong;
        return -1;
    }
    log_failure(s->log, LOG_ERROR, "ca_files_refused", &wrong);
    return 0;
}

/* --- the state ---------------------------------------------------------------------------------
 */
int supervisor_send_state(struct supervisor *s, struct err *err)
{
    const struct supervisor_state *st = &s->state;

    if (send_key_source(s, err) == -1 ||
        (s->conf->ca.source == CONF_CA_DISK && send_ca_files(s, err) == -1)) {
        return -1;
    }

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
