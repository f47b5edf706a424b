/* The process that holds keys: one question of each channel in turn, one answer to each. */
#include "holder_priv.h"

#include <errno.h>
#include <poll.h>
#include <postern/ipc.h>
#include <postern/os.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LINES_MS = 10000 }; /* between two lines about refusals */

/* Of an asker in somebody else's hands: not a line each. */
static void tell(struct holder *h, const char *event, const char *message, const struct err *why)
{
    struct log_line l;
    uint64_t now = os_now_ms();
    h->refused++;
    h->refused_unsaid++;
    if (h->log == NULL || now < h->quiet_until_ms) {
        return;
    }
    h->quiet_until_ms = now + LINES_MS;
    log_begin(&l, h->log, LOG_WARN, event);
    log_str(&l, "message", message);
    log_uint(&l, "since_the_last_line", h->refused_unsaid);
    if (why != NULL) {
        log_errinfo(&l, why);
    }
    log_end(&l);
    h->refused_unsaid = 0;
}

static uint32_t sign(struct holder *h, const struct holder_question *q, struct holder_answer *a)
{
    struct err err = ERR_INIT;
    struct away_handshake what = {.role = (enum away_role)q->role,
                                  .transcript_len = q->transcript_len};
    EVP_PKEY *key = q->holder == h->number ? holder_keys_find(&h->keys, q->key) : NULL;
    if ((h->roles & (1U << q->role)) == 0) {
        tell(h, "key_holder_refused", "a signature in a role that no listener has", NULL);
        return HOLDER_NOT_THAT_ROLE;
    }
    if (key == NULL) {
        return HOLDER_NO_KEY;
    }
    memcpy(what.transcript, q->transcript, q->transcript_len);
    if (holder_sign(key, &what, a->signature, &a->len, &err) == -1) {
        tell(h, "key_holder_failed", "no signature", &err);
        return HOLDER_FAILED;
    }
    a->key = q->key;
    h->signatures++;
    return HOLDER_DONE;
}

static uint32_t make(struct holder *h, struct holder_made *made)
{
    struct err err = ERR_INIT;
    if (holder_keys_make(&h->keys, made, &err) == -1) {
        tell(h, "key_holder_failed", "no key", &err);
        return HOLDER_FAILED;
    }
    return HOLDER_DONE;
}

static void report(const struct holder *h, struct holder_report *r)
{
    sandbox_get_report_shut(&r->sandbox);
    r->sandbox.landlock_abi = h->landlock.files ? h->landlock.abi : 0;
    (void)snprintf(r->sandbox.seccomp_name, sizeof(r->sandbox.seccomp_name), "key_holder");
    r->landlock = h->landlock;
    r->signatures = h->signatures;
    r->refused = h->refused;
    r->n_keys = holder_keys_count(&h->keys);
    r->all_locked = h->all_locked;
    r->keys_locked = h->keys_locked;
}

/* An answer that is not taken is nobody's any more. */
static bool answer(struct holder *h, int fd, const struct holder_question *q)
{
    union {
        struct holder_answer head;
        struct holder_made made;
        struct holder_report report;
    } a;
    size_t size = sizeof(a.head);
    memset(&a, 0, sizeof(a));
    a.head = (struct holder_answer){
        .version = HOLDER_WIRE_VERSION, .result = HOLDER_DONE, .id = q->id, .holder = h->number};
    switch ((enum holder_question_type)q->type) {
    case HOLDER_DROP:
        if (q->holder == h->number) {
            holder_keys_drop(&h->keys, q->key);
        }
        return true; /* nobody waits */
    case HOLDER_SIGN:
        a.head.result = sign(h, q, &a.head);
        break;
    case HOLDER_MAKE:
        a.head.result = make(h, &a.made);
        size = sizeof(a.made);
        break;
    case HOLDER_REPORT:
        report(h, &a.report);
        size = sizeof(a.report);
        break;
    }
    enum ipc_outcome o = ipc_send(fd, &a, size, -1);
    return o == IPC_OK || o == IPC_AGAIN;
}

/* False: the asker is gone, or is no asker of ours. */
static bool serve_one(struct holder *h, int fd)
{
    struct holder_question q;
    uint8_t bytes[sizeof(q)];
    size_t len = 0;
    int passed = -1;
    switch (ipc_recv(fd, bytes, sizeof(bytes), &len, &passed)) {
    case IPC_AGAIN:
        return true;
    case IPC_CLOSED:
        return false;
    case IPC_OK:
        break;
    case IPC_BAD:
        len = 0;
        break;
    }
    bool ok = holder_question_ok(bytes, len, passed != -1, &q);
    if (passed != -1) {
        close(passed);
    }
    if (!ok) {
        tell(h, "key_holder_refused", "a question that is none: its channel is closed", NULL);
        return false;
    }
    return answer(h, fd, &q);
}

/* The watcher has the descriptor too, so it is not the closing that ends a channel. */
static void end(int *fd)
{
    if (*fd == -1) {
        return;
    }
    (void)shutdown(*fd, SHUT_RDWR);
    close(*fd);
    *fd = -1;
}

void holder_serve(struct holder *h)
{
    for (;;) {
        struct pollfd p[HOLDER_CHANNELS_MAX];
        size_t n_open = 0;
        for (size_t i = 0; i < h->n_fds; i++) {
            p[i] = (struct pollfd){.fd = h->fds[i], .events = POLLIN};
            n_open += h->fds[i] != -1;
        }
        if (n_open == 0) {
            return;
        }
        int n = poll(p, (nfds_t)h->n_fds, -1);
        if (n == -1 && errno != EINTR) {
            return;
        }
        for (size_t i = 0; n > 0 && i < h->n_fds; i++) {
            if (p[i].revents != 0 && !serve_one(h, h->fds[i])) {
                end(&h->fds[i]);
            }
        }
    }
}
