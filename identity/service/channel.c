/* Questions and answers over one channel: in order, a bounded number at once, and pushes between.
 */
#include "service_priv.h"

#include <postern/mem.h>
#include <stdlib.h>
#include <unistd.h>

enum { MESSAGES_PER_TURN = 32 };

struct service_ask {
    struct service_ask *prev, *next;
    struct service_channel *channel;
    bool sent;
    uint32_t answer_type; /* AGENT_MSG_NONE: no answer comes */
    service_answer_fn fn; /* NULL: nobody wants it any more */
    void *arg;
    uint64_t request_id;
    _Alignas(8) uint8_t msg[]; /* as it is sent */
};

/* One without an answer goes from the list when it is sent, wherever it stands in it. */
static void drop(struct service_channel *ch, struct service_ask *ask)
{
    if (ask == ch->first) {
        ch->first = ask->next;
    } else {
        ask->prev->next = ask->next;
    }
    if (ask == ch->last) {
        ch->last = ask->prev;
    } else {
        ask->next->prev = ask->prev;
    }
    if (ch->unsent == ask) {
        ch->unsent = ask->next;
    }
    free(ask);
}

static void pump(struct service_channel *ch)
{
    while (ch->unsent != NULL && !ch->lost) {
        struct service_ask *ask = ch->unsent;
        bool answered = ask->answer_type != AGENT_MSG_NONE;
        if (answered && ch->n_outstanding >= AGENT_PIPELINE_MAX) {
            break;
        }
        switch (agent_ipc_send(ch->fd, ask->msg, -1)) {
        case IPC_OK:
            ch->unsent = ask->next;
            ask->sent = true;
            if (answered) {
                ch->n_outstanding++;
            } else {
                drop(ch, ask);
            }
            break;
        case IPC_AGAIN:
            loop_io_want(ch->io, LOOP_READ | LOOP_WRITE);
            return;
        case IPC_CLOSED:
        case IPC_BAD:
            service_channel_lost(ch, false);
            return;
        }
    }
    loop_io_want(ch->io, ch->lost ? 0 : LOOP_READ);
}

void service_channel_flush(struct service_channel *ch)
{
    pump(ch);
}

struct service_ask *service_channel_ask(struct service_channel *ch, void *msg,
                                        enum agent_msg_type answer_type, service_answer_fn fn,
                                        void *arg)
{
    struct agent_msg_head *head = msg;
    struct service_ask *ask = mem_must_calloc(1, sizeof(*ask) + head->size);
    if (answer_type != AGENT_MSG_NONE) {
        head->request_id = ++ch->last_id;
    }
    ask->channel = ch;
    ask->request_id = head->request_id;
    memcpy(ask->msg, msg, head->size);
    ask->answer_type = answer_type;
    ask->fn = fn;
    ask->arg = arg;
    ask->prev = ch->last;
    if (ch->last != NULL) {
        ch->last->next = ask;
    } else {
        ch->first = ask;
    }
    ch->last = ask;
    if (ch->unsent == NULL) {
        ch->unsent = ask;
    }
    /* Sent from the loop, so that no answer and no end comes from within an asker's function. */
    loop_io_want(ch->io, ch->lost ? 0 : LOOP_READ | LOOP_WRITE);
    return ask;
}

void service_ask_forget(struct service_ask *ask)
{
    if (ask == NULL) {
        return;
    }
    if (ask->sent) {
        ask->fn = NULL;
        ask->arg = NULL;
    } else {
        drop(ask->channel, ask);
    }
}

/* False: no such answer was due. */
static bool take_answer(struct service_channel *ch, const union agent_msg *msg)
{
    struct service_ask *ask = ch->first;
    if (ask == NULL || ask == ch->unsent || ask->request_id != msg->head.request_id ||
        ask->answer_type != msg->head.type) {
        return false;
    }
    service_answer_fn fn = ask->fn;
    void *arg = ask->arg;
    drop(ch, ask);
    ch->n_outstanding--;
    if (fn != NULL) {
        fn(arg, msg);
    }
    return true;
}

static void receive(struct service_channel *ch)
{
    struct service *s = ch->s;
    for (int i = 0; i < MESSAGES_PER_TURN && !ch->lost; i++) {
        int fd = -1;
        switch (agent_ipc_recv(ch->fd, ch->way, &s->in, &fd)) {
        case IPC_OK:
            break;
        case IPC_AGAIN:
            return;
        case IPC_CLOSED:
            service_channel_lost(ch, false);
            return;
        case IPC_BAD:
            service_channel_lost(ch, true);
            return;
        }
        if (s->in.head.request_id == 0) {
            ch->on_push(s, &s->in, fd);
        } else if (!take_answer(ch, &s->in)) {
            if (fd != -1) {
                (void)close(fd);
            }
            service_channel_lost(ch, true);
            return;
        }
    }
}

static void on_io(void *arg, unsigned ready)
{
    struct service_channel *ch = arg;
    if ((ready & LOOP_READ) != 0) {
        receive(ch);
    }
    pump(ch);
}

void service_channel_init(struct service_channel *ch, struct service *s, int fd, enum agent_way way,
                          const char *peer,
                          void (*on_push)(struct service *s, const union agent_msg *msg, int fd))
{
    *ch = (struct service_channel){.s = s, .fd = fd, .way = way, .peer = peer, .on_push = on_push};
    ch->io = loop_io_new(s->loop, fd, on_io, ch);
    POSTERN_ASSERT(ch->io != NULL);
    loop_io_want(ch->io, LOOP_READ);
}

void service_channel_deinit(struct service_channel *ch)
{
    while (ch->first != NULL) {
        drop(ch, ch->first);
    }
    ch->unsent = NULL;
    ch->io = loop_io_free(ch->io);
}
