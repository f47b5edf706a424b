/* The channel to the process that uses the token (docs/authority.md, "A token"). Its answers are
 * waited for, but never for long: what it does not answer in time it is not asked again, and its
 * successor is. Asked for roots and node intermediates alone, never for a caller. */
#include "keeper_priv.h"

#include <openssl/err.h>
#include <poll.h>
#include <postern/os.h>
#include <string.h>
#include <unistd.h>

enum { ANSWER_MS = 5000 };

static void drop(struct keeper_signer *s)
{
    if (s->fd != -1) {
        close(s->fd);
    }
    s->fd = -1;
}

void keeper_signer_open(struct keeper *k, int fd)
{
    drop(&k->signer);
    k->signer.fd = fd;
    k->signer.failing = false;
    k->authority.signer = &k->signer;
    k->renew_retry_ms = k->rotation_retry_ms = 0; /* what waited for it is tried at once */
    k->changed_pending = true;
}

/* It has nothing to say unasked. What failed of an order is for status to tell. */
void keeper_signer_turn(struct keeper *k)
{
    struct pollfd p = {.fd = k->signer.fd, .events = POLLIN};

    if (k->signer.n_failed != k->signer.n_told) {
        k->signer.n_told = k->signer.n_failed;
        k->changed_pending = true;
    }
    if (p.fd == -1 || poll(&p, 1, 0) != 1) {
        return;
    }
    drop(&k->signer);
    k->changed_pending = true;
    log_msg(k->log, LOG_WARN, "signer_gone",
            "the process that uses the token is gone: issuing goes on until the node's "
            "intermediate ends, and a new one is started");
}

enum agent_token keeper_signer_state(const struct keeper *k)
{
    if (k->authority.signer == NULL) {
        return AGENT_TOKEN_NONE;
    }
    return k->signer.fd == -1 || k->signer.failing ? AGENT_TOKEN_AWAY : AGENT_TOKEN_OK;
}

/* --- one question ----------------------------------------------------------------------------- */
static int no_answer(struct keeper_signer *s, const char *why, struct err *err)
{
    drop(s); /* so that no answer is taken for another question's */
    err_set(err, ERR_UNAVAILABLE, "the token cannot be used now: %s", why);
    return err_advise(err, "a new signer is started; see its log lines");
}

static int wait_answer(struct keeper_signer *s, enum agent_msg_type type, union agent_msg *ret,
                       struct err *err)
{
    uint64_t until_ms = os_now_ms() + ANSWER_MS;

    for (;;) {
        struct pollfd p = {.fd = s->fd, .events = POLLIN};
        uint64_t now_ms = os_now_ms();
        int fd = -1;

        switch (agent_ipc_recv(s->fd, AGENT_WAY_SIGNER_KEEPER, ret, &fd)) {
        case IPC_OK:
            return ret->head.type == type && ret->head.request_id == s->n_asked
                       ? 0
                       : no_answer(s, "its signer answers what was not asked", err);
        case IPC_AGAIN:
            if (now_ms >= until_ms) {
                return no_answer(s, "its signer does not answer", err);
            }
            (void)poll(&p, 1, (int)(until_ms - now_ms));
            break;
        case IPC_CLOSED:
            return no_answer(s, "its signer has ended", err);
        case IPC_BAD:
            return no_answer(s, "its signer broke its protocol", err);
        }
    }
}

static int ask(struct keeper_signer *s, const void *msg, enum agent_msg_type answer,
               union agent_msg *ret, struct err *err)
{
    int r;

    if (s->fd == -1) {
        r = no_answer(s, "its signer is not running", err);
    } else if (agent_ipc_send(s->fd, msg, -1) != IPC_OK) {
        r = no_answer(s, "its signer has ended", err);
    } else {
        r = wait_answer(s, answer, ret, err);
    }
    s->n_failed += r == -1 ? 1 : 0;
    s->failing = r == -1;
    return r;
}

/* What the token said, instead of an answer. */
static int refused(struct keeper_signer *s, const struct err *why, struct err *err)
{
    s->n_failed++;
    s->failing = true;
    if (err != NULL) {
        *err = *why;
    }
    return err_prefix(err, "the token");
}

/* --- what is asked ---------------------------------------------------------------------------- */
static int get_key(struct keeper_signer *s, bool another, uint8_t ret_point[AGENT_POINT_SIZE],
                   struct err *err)
{
    static union agent_msg answer; /* too large for a stack that is kept small; one thread */
    struct agent_msg_signer_key m;

    agent_ipc_init(&m, AGENT_MSG_SIGNER_KEY, ++s->n_asked);
    m.another = another;
    if (ask(s, &m, AGENT_MSG_SIGNER_KEY_IS, &answer, err) == -1) {
        return -1;
    }
    if (answer.signer_key_is.error.code != ERR_NONE) {
        return refused(s, &answer.signer_key_is.error, err);
    }
    memcpy(ret_point, answer.signer_key_is.point, AGENT_POINT_SIZE);
    return 0;
}

/* What came back is believed no further than its signature goes: it is for the key that it was
 * asked for, and that of the root signed it. */
static int take_cert(const struct agent_msg_signer_signed *a, const uint8_t *root_point,
                     const uint8_t *point, X509 **ret, struct err *err)
{
    STACK_OF(X509) *chain =
        x509_chain_from_der((struct str){(const char *)a->cert, a->cert_len}, err);
    mem_auto(X509_free) X509 *cert = chain != NULL ? sk_X509_shift(chain) : NULL;
    uint8_t own[AGENT_POINT_SIZE];
    bool more = chain != NULL && sk_X509_num(chain) > 0;

    sk_X509_pop_free(chain, X509_free);
    if (cert == NULL || x509_key_point(X509_get0_pubkey(cert), own, err) == -1) {
        return err_prefix(err, "what the signer made");
    }
    if (more || memcmp(own, point, sizeof(own)) != 0 || !x509_signed_by_point(cert, root_point)) {
        return err_set(err, ERR_PROTOCOL, "what the signer made is not what was asked for");
    }
    *ret = cert;
    cert = NULL;
    return 0;
}

static int get_cert(struct keeper_signer *s, struct agent_msg_signer_sign *m, X509 **ret,
                    struct err *err)
{
    static union agent_msg answer; /* as above */

    if (ask(s, m, AGENT_MSG_SIGNER_SIGNED, &answer, err) == -1) {
        return -1;
    }
    if (answer.signer_signed.error.code != ERR_NONE) {
        return refused(s, &answer.signer_signed.error, err);
    }
    return take_cert(&answer.signer_signed, m->key, m->point, ret, err);
}

int keeper_signer_root(struct keeper_signer *s, bool another, int64_t not_before_s,
                       int64_t not_after_s, uint8_t ret_point[AGENT_POINT_SIZE], X509 **ret,
                       struct err *err)
{
    struct agent_msg_signer_sign m;

    if (get_key(s, another, ret_point, err) == -1) {
        return -1;
    }
    agent_ipc_init(&m, AGENT_MSG_SIGNER_SIGN, ++s->n_asked);
    m.purpose = AGENT_SIGNER_ROOT;
    m.not_before_s = not_before_s;
    m.not_after_s = not_after_s;
    memcpy(m.key, ret_point, sizeof(m.key));
    memcpy(m.point, ret_point, sizeof(m.point));
    return get_cert(s, &m, ret, err);
}

int keeper_signer_node(struct keeper_signer *s, EVP_PKEY *root_key, const struct x509_issue *what,
                       X509 **ret, struct err *err)
{
    struct agent_msg_signer_sign m;

    agent_ipc_init(&m, AGENT_MSG_SIGNER_SIGN, ++s->n_asked);
    m.purpose = AGENT_SIGNER_NODE;
    m.not_before_s = what->not_before_s;
    m.not_after_s = what->not_after_s;
    memcpy(m.point, what->point, sizeof(m.point));
    return x509_key_point(root_key, m.key, err) == -1 ? -1 : get_cert(s, &m, ret, err);
}
