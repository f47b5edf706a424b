/* The keeper's questions, one at a time. What may not be signed is refused and that is all; where
 * the token fails, the asker hears it and this process ends: a new one logs in again. */
#include "signer_priv.h"

#include <errno.h>
#include <poll.h>
#include <postern/os.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int answer(const struct signer *s, const void *msg, struct err *err)
{
    /* One question at a time: there is room for its answer. */
    return agent_ipc_send(s->keeper, msg, -1) == IPC_OK
               ? 0
               : err_set(err, ERR_UNAVAILABLE, "the keeper does not take its answer");
}

static bool is_failure(const struct err *failure)
{
    return failure->code != ERR_NONE && failure->code != ERR_DENIED && failure->code != ERR_LIMIT;
}

static int on_key(struct signer *s, struct err *err)
{
    struct agent_msg_signer_key_is a;

    agent_ipc_init(&a, AGENT_MSG_SIGNER_KEY_IS, s->in.head.request_id);
    (void)signer_token_key(s->token, s->in.signer_key.another, a.point, &a.made, &a.error);
    if (answer(s, &a, err) == -1) {
        return -1;
    }
    *err = is_failure(&a.error) ? a.error : *err;
    return is_failure(&a.error) ? -1 : 0;
}

static void certify(struct signer *s, struct agent_msg_signer_signed *a)
{
    const struct agent_msg_signer_sign *ask = &s->in.signer_sign;
    struct signer_key key = {.token = s->token, .point = ask->key};
    const struct x509_away away = {.sign = signer_key_sign, .arg = &key};
    mem_auto(X509_free) X509 *cert = NULL;
    mem_autofree uint8_t *der = NULL;
    size_t len = 0;

    if (signer_certify(&s->rules, ask, os_wall_s(), &away, &cert, &a->error) == -1 ||
        x509_to_der(cert, &der, &len, &a->error) == -1) {
        return;
    }
    if (len > sizeof(a->cert)) {
        err_set(&a->error, ERR_LIMIT, "a certificate of %zu bytes", len);
        return;
    }
    memcpy(a->cert, der, len);
    a->cert_len = (uint32_t)len;
}

static int on_sign(struct signer *s, struct err *err)
{
    static struct agent_msg_signer_signed a; /* too large for the stack; one thread */

    agent_ipc_init(&a, AGENT_MSG_SIGNER_SIGNED, s->in.head.request_id);
    certify(s, &a);
    if (answer(s, &a, err) == -1) {
        return -1;
    }
    *err = is_failure(&a.error) ? a.error : *err;
    return is_failure(&a.error) ? -1 : 0;
}

/* 1: the keeper closed the channel. */
static int keeper_turn(struct signer *s, struct err *err)
{
    int fd = -1, r;

    switch (agent_ipc_recv(s->keeper, AGENT_WAY_KEEPER_SIGNER, &s->in, &fd)) {
    case IPC_OK:
        break;
    case IPC_AGAIN:
        return 0;
    case IPC_CLOSED:
        return 1;
    case IPC_BAD:
        return err_set(err, ERR_PROTOCOL, "the keeper sent a bad message");
    }
    (void)alarm(SIGNER_CALL_S);
    r = s->in.head.type == AGENT_MSG_SIGNER_KEY ? on_key(s, err) : on_sign(s, err);
    (void)alarm(0);
    return r;
}

int signer_run(struct signer *s, struct err *err)
{
    for (;;) {
        struct pollfd fds[2] = {{.fd = s->control, .events = POLLIN},
                                {.fd = s->keeper, .events = POLLIN}};
        int r;

        if (poll(fds, 2, -1) == -1 && errno != EINTR) {
            return err_sys(err, "poll");
        }
        if (fds[0].revents != 0) {
            return 0; /* the supervisor says nothing more but by closing */
        }
        r = keeper_turn(s, err);
        if (r != 0) {
            return r == 1 ? err_set(err, ERR_UNAVAILABLE, "the keeper closed its channel") : -1;
        }
    }
}
