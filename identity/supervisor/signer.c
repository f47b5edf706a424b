/*
 * The process that uses the token: started before the keeper if the configuration names one, and
 * again with a growing pause whenever it ends while the agent runs, which goes on without it. Where
 * it was refused for its PIN it is not started again before the PIN's file is another: each try
 * takes one from those that the token gives.
 */
#include "supervisor_priv.h"

#include <postern/mem.h>
#include <postern/os.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    FIRST_PAUSE_MS = 500,
    LAST_PAUSE_MS = 60000,
    GOOD_RUN_MS = 120000, /* after so long its next end counts as the first */
};

static struct supervisor_child *child(struct supervisor *s)
{
    return &s->children[AGENT_ROLE_SIGNER];
}

/* --- the PIN ---------------------------------------------------------------------------------- */
/* Owned; NULL: there is none. systemd.exec(5), "Credentials". */
static char *pin_path(const struct supervisor *s)
{
    const struct conf_token *t = &s->conf->ca.key.token;
    const char *dir = secure_getenv("CREDENTIALS_DIRECTORY");

    if (t->pin_file != NULL) {
        return mem_must_strdup(t->pin_file);
    }
    return dir != NULL && dir[0] == '/' ? mem_must_printf("%s/%s", dir, t->pin_credential) : NULL;
}

static int tell_pin(struct supervisor *s, struct err *err)
{
    mem_autofree char *path = pin_path(s);
    struct agent_msg_signer_pin m;
    os_autofd int fd = -1;

    if (path == NULL) {
        err_set(err, ERR_CONFIG, "there is no credential '%s': CREDENTIALS_DIRECTORY is not set",
                s->conf->ca.key.token.pin_credential);
        return err_advise(err, "give the unit LoadCredential= or LoadCredentialEncrypted= with "
                               "this name, or use pin_file");
    }
    if (supervisor_source_open(path, "the PIN's file", &fd, err) == -1) {
        return -1;
    }
    agent_ipc_init(&m, AGENT_MSG_SIGNER_PIN, 0);
    m.owner_uid = (uint32_t)geteuid();
    return supervisor_tell(s, AGENT_ROLE_SIGNER, &m, fd, err);
}

/* --- starting --------------------------------------------------------------------------------- */
/* Each with its NUL; false: they do not fit. */
static bool put_words(uint8_t *words, uint32_t *len, const struct conf_strings *list)
{
    for (size_t i = 0; i < list->n; i++) {
        size_t n = strlen(list->items[i]) + 1;

        if (n > AGENT_TOKEN_WORDS_MAX - *len) {
            return false;
        }
        memcpy(words + *len, list->items[i], n);
        *len += (uint32_t)n;
    }
    return true;
}

static int tell_start(struct supervisor *s, struct err *err)
{
    const struct conf_token *t = &s->conf->ca.key.token;
    struct agent_msg_start_signer m;

    agent_ipc_init(&m, AGENT_MSG_START_SIGNER, 0);
    m.log_level = s->conf->log_level;
    m.run_uid = supervisor_run_uid(s, s->conf->signer_uid);
    m.run_gid = supervisor_run_gid(s, s->conf->signer_uid);
    m.root_ttl_s = s->conf->root_ttl_s;
    m.node_ttl_s = s->conf->node_ttl_s;
    if (!agent_ipc_put(m.trust_domain, sizeof(m.trust_domain), &m.trust_domain_len,
                       str_of(s->conf->trust_domain)) ||
        !agent_ipc_put(m.module, sizeof(m.module), &m.module_len, str_of(t->module)) ||
        !agent_ipc_put(m.token, sizeof(m.token), &m.token_len, str_of(t->label)) ||
        !agent_ipc_put(m.key, sizeof(m.key), &m.key_len, str_of(t->key)) ||
        !put_words(m.environment, &m.environment_len, &t->environment) ||
        !put_words(m.paths, &m.paths_len, &t->paths)) {
        return err_set(err, ERR_CONFIG, "a text of ca.key_at_rest.pkcs11 is too long");
    }
    return supervisor_tell(s, AGENT_ROLE_SIGNER, &m, -1, err) == -1 ? -1 : tell_pin(s, err);
}

/* *ret_keeper is the keeper's end of its channel, the caller's. */
static int spawn(struct supervisor *s, int *ret_keeper, struct err *err)
{
    int pair[2];
    int r;

    if (ipc_pair(pair, err) == -1) {
        return -1;
    }
    r = supervisor_start_child(s, AGENT_ROLE_SIGNER, "postern-signer", &pair[1], 1, err);
    close(pair[1]);
    s->signer.started_ms = os_now_ms();
    if (r == -1 || tell_start(s, err) == -1) {
        close(pair[0]);
        return -1;
    }
    *ret_keeper = pair[0];
    return 0;
}

int supervisor_signer_start(struct supervisor *s, struct err *err)
{
    if (!s->conf->ca.key.token.configured) {
        return 0;
    }
    if (s->conf->ca.key.token.pin_file != NULL) {
        supervisor_watch_add(s, s->conf->ca.key.token.pin_file, &s->signer.pin_changed);
    }
    return spawn(s, &s->signer.keeper_fd, err);
}

int supervisor_signer_tell_keeper(struct supervisor *s, struct err *err)
{
    struct agent_msg_plain m;
    int r;

    if (s->signer.keeper_fd == -1) {
        return 0;
    }
    agent_ipc_init(&m, AGENT_MSG_SIGNER, 0);
    r = supervisor_tell(s, AGENT_ROLE_KEEPER, &m, s->signer.keeper_fd, err);
    close(s->signer.keeper_fd);
    s->signer.keeper_fd = -1;
    return r;
}

/* --- starting again --------------------------------------------------------------------------- */
void supervisor_signer_ended(struct supervisor *s, const struct err *why)
{
    struct supervisor_signer *g = &s->signer;
    uint64_t now_ms = os_now_ms();

    log_failure(s->log, LOG_ERROR, "process_ended", why);
    if (g->keeper_fd != -1) { /* it never was ready */
        close(g->keeper_fd);
        g->keeper_fd = -1;
    }
    if (why->code == ERR_DENIED) {
        g->restart_ms = 0;
        g->given_up = true;
        log_msg(s->log, LOG_ERROR, "signer_given_up",
                "the token is not tried again before the PIN's file changes, or SIGHUP comes; "
                "issuing goes on until the node's intermediate ends");
        return;
    }
    if (g->pause_ms == 0 || now_ms - g->started_ms > GOOD_RUN_MS) {
        g->pause_ms = FIRST_PAUSE_MS;
    }
    g->restart_ms = now_ms + g->pause_ms;
    log_msg(s->log, LOG_WARN, "signer_restart", "the token is used again in %u ms",
            (unsigned)g->pause_ms);
    g->pause_ms = 2 * g->pause_ms < LAST_PAUSE_MS ? 2 * g->pause_ms : LAST_PAUSE_MS;
}

int supervisor_signer_due_ms(const struct supervisor *s)
{
    uint64_t now_ms = os_now_ms();

    if (s->signer.given_up && s->signer.pin_changed) {
        return 0;
    }
    if (s->signer.restart_ms == 0) {
        return -1;
    }
    return s->signer.restart_ms > now_ms ? (int)(s->signer.restart_ms - now_ms) : 0;
}

void supervisor_signer_turn(struct supervisor *s)
{
    struct supervisor_signer *g = &s->signer;
    struct supervisor_child *c = child(s);
    struct err err = ERR_INIT;

    if (supervisor_signer_due_ms(s) != 0 || s->stopping) {
        return;
    }
    g->restart_ms = 0;
    g->given_up = g->pin_changed = false;
    supervisor_watch_taken(s, &g->pin_changed);
    c->restarts++;
    if (spawn(s, &g->keeper_fd, &err) == -1) {
        if (c->pidfd != -1) {
            supervisor_kill(s, c, &err); /* what follows its end is the next try */
        } else {
            supervisor_signer_ended(s, &err);
        }
    }
}

/* It is logged in: only now the keeper may ask. */
int supervisor_signer_ready(struct supervisor *s, struct err *err)
{
    return s->children[AGENT_ROLE_KEEPER].control != -1 ? supervisor_signer_tell_keeper(s, err) : 0;
}
