/* Asking the holder, from any thread: one question at a time on a channel that is nobody else's
 * meanwhile, with a deadline. */
#include "asker_priv.h"

#include <errno.h>
#include <poll.h>
#include <postern/ipc.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <postern/x509.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* --- life ------------------------------------------------------------------------------------- */
struct holder_asker *holder_asker_new(const int *fds, size_t n, struct err *err)
{
    struct holder_asker *a = mem_must_new(struct holder_asker);
    a->channels = (struct holder_channel *)mem_must_calloc(n, sizeof(*a->channels));
    a->n_channels = n;
    for (size_t i = 0; i < n; i++) {
        a->channels[i].fd = fds[i];
    }
    a->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (a->wake_fd == -1) {
        err_sys(err, "cannot make an eventfd");
        return holder_asker_free(a);
    }
    return a;
}

struct holder_asker *holder_asker_free(struct holder_asker *a)
{
    if (a != NULL) {
        for (size_t i = 0; i < a->n_channels; i++) {
            if (a->channels[i].fd != -1) {
                close(a->channels[i].fd);
            }
        }
        if (a->wake_fd != -1) {
            close(a->wake_fd);
        }
        free(a->channels);
        free(a);
    }
    return NULL;
}

/* --- a channel for oneself -------------------------------------------------------------------- */
/* There are as many as threads, so one is free; each thread begins where it has begun before. */
static struct holder_channel *take(struct holder_asker *a)
{
    size_t from = (size_t)((uintptr_t)pthread_self() >> 12);
    for (size_t i = 0; i < a->n_channels; i++) {
        struct holder_channel *c = &a->channels[(from + i) % a->n_channels];
        if (!atomic_exchange_explicit(&c->taken, true, memory_order_acquire)) {
            if (c->fd != -1) {
                return c;
            }
            atomic_store_explicit(&c->taken, false, memory_order_release);
        }
    }
    return NULL;
}

static void give_back(struct holder_channel *c)
{
    atomic_store_explicit(&c->taken, false, memory_order_release);
}

/* --- asking ----------------------------------------------------------------------------------- */
static int too_late(struct holder_asker *a, struct err *err)
{
    const uint64_t one = 1;
    atomic_store_explicit(&a->refused_until_ms, os_now_ms() + KEY_HOLDER_PAUSE_MS,
                          memory_order_relaxed);
    (void)atomic_fetch_add_explicit(&a->timeouts, 1, memory_order_relaxed);
    (void)!write(a->wake_fd, &one, sizeof(one)); /* full: it is awake */
    return err_set(err, ERR_UNAVAILABLE, "the key holder did not answer in time");
}

static int gone(struct holder_channel *c, struct err *err)
{
    close(c->fd);
    c->fd = -1;
    return err_set(err, ERR_UNAVAILABLE, "the key holder has closed its channel");
}

/* Until the answer to this question: those to others, whose askers gave up, are dropped. */
static int wait_answer(struct holder_asker *a, struct holder_channel *c, uint64_t until_ms,
                       void *ret, size_t ret_size, struct err *err)
{
    for (;;) {
        uint64_t now_ms = os_now_ms();
        struct pollfd p = {.fd = c->fd, .events = POLLIN};
        union {
            struct holder_answer head;
            struct holder_made made;
            struct holder_report report;
        } got;
        size_t len = 0;
        int passed = -1;
        int r = poll(&p, 1, now_ms < until_ms ? (int)(until_ms - now_ms) : 0);
        if (r == 0) {
            return too_late(a, err);
        }
        if (r == -1 && errno == EINTR) {
            continue;
        }
        enum ipc_outcome o = ipc_recv(c->fd, &got, sizeof(got), &len, &passed);
        if (passed != -1) {
            close(passed);
        }
        if (o == IPC_AGAIN) {
            continue;
        }
        if (o != IPC_OK || passed != -1 || len < sizeof(got.head) ||
            got.head.version != HOLDER_WIRE_VERSION) {
            return gone(c, err);
        }
        if (got.head.id == c->last_id) {
            if (len != ret_size) {
                return gone(c, err);
            }
            memcpy(ret, &got, ret_size);
            return 0;
        }
    }
}

int holder_asker_ask(struct holder_asker *a, uint32_t deadline_ms, struct holder_question *q,
                     void *ret, size_t ret_size, struct err *err)
{
    struct holder_channel *c = take(a);
    if (c == NULL) {
        return err_set(err, ERR_UNAVAILABLE, "the key holder has closed its channels");
    }
    q->version = HOLDER_WIRE_VERSION;
    q->id = ++c->last_id;
    uint64_t until_ms = os_now_ms() + deadline_ms;
    int r = -1;
    switch (ipc_send(c->fd, q, sizeof(*q), -1)) {
    case IPC_OK:
        r = wait_answer(a, c, until_ms, ret, ret_size, err);
        break;
    case IPC_AGAIN: /* full of questions that nobody has answered */
        r = too_late(a, err);
        break;
    case IPC_CLOSED:
    case IPC_BAD:
        r = gone(c, err);
        break;
    }
    give_back(c);
    return r;
}

/* Sends q; nothing comes back. */
static void tell(struct holder_asker *a, struct holder_question *q)
{
    struct holder_channel *c = take(a);
    if (c != NULL) {
        q->version = HOLDER_WIRE_VERSION;
        q->id = ++c->last_id;
        (void)!ipc_send(c->fd, q, sizeof(*q), -1); /* a key too many is the holder's to bound */
        give_back(c);
    }
}

/* --- keys ------------------------------------------------------------------------------------- */
struct use {
    struct holder_asker *asker; /* lent: outlives the key */
    uint32_t holder, key;
};

static int sign(void *arg, const struct away_handshake *what, uint8_t ret[AWAY_SIGNATURE_MAX],
                size_t *ret_len)
{
    const struct use *u = (const struct use *)arg;
    struct holder_asker *a = u->asker;
    struct holder_question q = {.type = HOLDER_SIGN,
                                .holder = u->holder,
                                .key = u->key,
                                .role = what->role,
                                .transcript_len = (uint32_t)what->transcript_len};
    struct holder_answer answer = {.len = 0};
    memcpy(q.transcript, what->transcript, what->transcript_len);
    bool paused = atomic_load_explicit(&a->refused_until_ms, memory_order_relaxed) > os_now_ms();
    if (paused ||
        holder_asker_ask(a, KEY_HOLDER_SIGN_MS, &q, &answer, sizeof(answer), NULL) == -1 ||
        answer.result != HOLDER_DONE || answer.len == 0 || answer.len > sizeof(answer.signature)) {
        (void)atomic_fetch_add_explicit(&a->refused, 1, memory_order_relaxed);
        return -1;
    }
    (void)atomic_fetch_add_explicit(&a->signatures, 1, memory_order_relaxed);
    memcpy(ret, answer.signature, answer.len);
    *ret_len = answer.len;
    return 0;
}

static void release(void *arg)
{
    struct use *u = (struct use *)arg;
    struct holder_question q = {.type = HOLDER_DROP, .holder = u->holder, .key = u->key};
    tell(u->asker, &q);
    free(u);
}

EVP_PKEY *holder_asker_key(struct holder_asker *a, struct away_keys *keys,
                           const struct holder_made *made, struct err *err)
{
    mem_auto(EVP_PKEY_free) EVP_PKEY *public_key = x509_key_of_point(made->point, err);
    if (public_key == NULL) {
        return NULL;
    }
    struct use *u = mem_must_new(struct use);
    *u = (struct use){.asker = a, .holder = made->head.holder, .key = made->head.key};
    const struct away_signer signer = {.sign_handshake = sign, .release = release, .arg = u};
    EVP_PKEY *key = away_key_new(keys, public_key, &signer, err);
    if (key == NULL) {
        release(u);
    }
    return key;
}
