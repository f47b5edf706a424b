/*
 * postern-signer: uses the token in which the root's key lives. Its start is a list: what the
 * supervisor wants of it, the PIN, giving up everything else, and only then the module's code; then
 * the keeper's questions. docs/authority.md, "A token".
 *
 * Descriptors: AGENT_FD_CONTROL, AGENT_FD_SIGNER_KEEPER.
 */
#include "signer_priv.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PIN_MAX = 256, START_S = 20 };

/* The supervisor's next message, which has to be of that type. */
static int wait_message(struct signer *s, enum agent_msg_type type, int *ret_fd, struct err *err)
{
    struct pollfd p = {.fd = s->control, .events = POLLIN};

    for (;;) {
        switch (agent_ipc_recv(s->control, AGENT_WAY_SUPERVISOR_SIGNER, &s->in, ret_fd)) {
        case IPC_OK:
            if (s->in.head.type == type) {
                return 0;
            }
            return err_set(err, ERR_PROTOCOL, "the supervisor's %s is out of order",
                           agent_msg_name(s->in.head.type));
        case IPC_AGAIN:
            (void)poll(&p, 1, -1);
            break;
        case IPC_CLOSED:
            return err_set(err, ERR_UNAVAILABLE, "the supervisor is gone");
        case IPC_BAD:
            err_set(err, ERR_USAGE, "descriptor %d is not the supervisor's channel",
                    AGENT_FD_CONTROL);
            return err_advise(err, "postern-signer is started by `postern agent`");
        }
    }
}

/* --- the PIN ---------------------------------------------------------------------------------- */
static int check_pin_file(int fd, uid_t owner, size_t *ret_size, struct err *err)
{
    struct stat st;

    if (fstat(fd, &st) == -1) {
        return err_sys(err, "the PIN's file");
    }
    if (st.st_uid != owner || (st.st_mode & 07077) != 0) {
        err_set(err, ERR_CONFIG, "the PIN's file belongs to uid %u and has mode %04o",
                (unsigned)st.st_uid, (unsigned)(st.st_mode & 07777));
        err_expected(err, "uid %u, whom the agent runs as, and mode 0600", (unsigned)owner);
        return err_advise(err, "if nobody else had it, chmod it; else change the token's PIN");
    }
    if (!S_ISREG(st.st_mode) || st.st_size == 0 || st.st_size > PIN_MAX) {
        err_set(err, ERR_CONFIG, "the PIN's file is empty or too large");
        return err_expected(err, "1 to %d bytes", PIN_MAX);
    }
    *ret_size = (size_t)st.st_size;
    return 0;
}

/* Into memory for secrets; *ret is the caller's. */
static int read_pin(struct signer *s, char **ret, size_t *ret_len, struct err *err)
{
    size_t size = 0;
    int fd = -1, r;
    char *text;

    if (wait_message(s, AGENT_MSG_SIGNER_PIN, &fd, err) == -1) {
        return -1;
    }
    r = check_pin_file(fd, s->in.signer_pin.owner_uid, &size, err);
    text = r == 0 ? mem_secret_alloc(size) : NULL;
    if (r == 0 && (text == NULL || pread(fd, text, size, 0) != (ssize_t)size)) {
        r = err_set(err, ERR_SYSTEM, "the PIN's file cannot be read whole");
    }
    close(fd);
    if (r == -1 || text == NULL) {
        mem_secret_free(text);
        return -1;
    }
    size -= text[size - 1] == '\n' ? 1 : 0;
    *ret = text;
    *ret_len = size;
    return 0;
}

/* --- the start -------------------------------------------------------------------------------- */
/* Exactly what the configuration names; one thread. */
static int set_environment(const struct agent_msg_start_signer *start, struct err *err)
{
    const char *words = (const char *)start->environment;

    for (size_t i = 0; i < start->environment_len;) {
        size_t n = strnlen(words + i, start->environment_len - i);
        const char *equals = memchr(words + i, '=', n);

        if (n == start->environment_len - i || equals == NULL) {
            return err_set(err, ERR_PROTOCOL, "the environment is not NAME=VALUE");
        }
        mem_autofree char *name = mem_must_strndup(words + i, (size_t)(equals - words) - i);
        /* NOLINTNEXTLINE(concurrency-mt-unsafe) */
        if (setenv(name, equals + 1, 1) == -1) {
            return err_sys(err, "the environment");
        }
        i += n + 1;
    }
    return 0;
}

/* What is said this early finds room. */
static int tell(const struct signer *s, const void *msg, struct err *err)
{
    return agent_ipc_send(s->control, msg, -1) == IPC_OK
               ? 0
               : err_set(err, ERR_UNAVAILABLE, "the supervisor is gone");
}

static void take_start(struct signer *s)
{
    const struct agent_msg_start_signer *m = &s->in.start_signer;

    s->start = *m;
    memcpy(s->module, m->module, m->module_len);
    memcpy(s->label, m->token, m->token_len);
    memcpy(s->key, m->key, m->key_len);
    (void)snprintf(s->rules.trust_domain_id, sizeof(s->rules.trust_domain_id), "spiffe://%.*s",
                   (int)m->trust_domain_len, m->trust_domain);
    s->rules.root_ttl_s = m->root_ttl_s;
    s->rules.node_ttl_s = m->node_ttl_s;
}

static int open_token(struct signer *s, char *pin, size_t len, struct err *err)
{
    const struct signer_token_name name = {.module = s->module, .label = s->label, .key = s->key};
    int r;

    (void)alarm(START_S);
    r = signer_token_open(&name, (struct str){pin, len}, &s->token, err);
    (void)alarm(0);
    return r;
}

static int start(struct signer *s, struct err *err)
{
    struct agent_msg_report report;
    struct agent_msg_plain ready;
    char *pin = NULL;
    size_t len = 0;
    int fd = -1, r;

    /* No configuration file of OpenSSL's: it could load code. */
    if (OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL) != 1) {
        return err_set(err, ERR_CRYPTO, "libcrypto does not start");
    }
    if (wait_message(s, AGENT_MSG_START_SIGNER, &fd, err) == -1) {
        return -1;
    }
    take_start(s);
    if (read_pin(s, &pin, &len, err) == -1) {
        return -1;
    }
    r = set_environment(&s->start, err);
    r = r == 0 ? signer_drop_privileges(&s->start, &report, err) : -1;
    r = r == 0 ? tell(s, &report, err) : -1;
    r = r == 0 ? open_token(s, pin, len, err) : -1;
    mem_secret_free(pin);
    if (r == -1) {
        return -1;
    }
    agent_ipc_init(&ready, AGENT_MSG_READY, 0);
    return tell(s, &ready, err);
}

int main(void)
{
    static struct signer s = {.control = AGENT_FD_CONTROL, .keeper = AGENT_FD_SIGNER_KEEPER};
    struct err err = ERR_INIT;
    struct agent_msg_failed failed;

    if (start(&s, &err) == 0 && signer_run(&s, &err) == 0) {
        _exit(0); /* no handlers, neither ours nor the module's */
    }
    agent_ipc_init(&failed, AGENT_MSG_FAILED, 0);
    failed.error = err;
    if (agent_ipc_send(AGENT_FD_CONTROL, &failed, -1) != IPC_OK) {
        char text[1200];

        (void)dprintf(STDERR_FILENO, "postern-signer: %s\n", err_text(&err, text, sizeof(text)));
    }
    _exit(1);
}
