#include "grpc_priv.h"

#include <postern/mem.h>
#include <stdlib.h>

bool grpc_queue_push(struct grpc_queue *q, struct str message)
{
    if (message.n > UINT32_MAX) {
        return false;
    }
    struct grpc_chunk *c = malloc(sizeof(*c) + GRPC_PREFIX_BYTES + message.n);
    if (c == NULL) {
        return false;
    }
    c->next = NULL;
    c->n = GRPC_PREFIX_BYTES + message.n;
    c->taken = 0;
    c->bytes[0] = 0; /* not compressed */
    c->bytes[1] = (uint8_t)(message.n >> 24);
    c->bytes[2] = (uint8_t)(message.n >> 16);
    c->bytes[3] = (uint8_t)(message.n >> 8);
    c->bytes[4] = (uint8_t)message.n;
    if (message.n > 0) {
        memcpy(c->bytes + GRPC_PREFIX_BYTES, message.p, message.n);
    }
    if (q->tail != NULL) {
        q->tail->next = c;
    } else {
        q->head = c;
    }
    q->tail = c;
    q->unsent += c->n;
    return true;
}

static void drop_head(struct grpc_queue *q)
{
    struct grpc_chunk *c = q->head;
    q->head = c->next;
    if (q->head == NULL) {
        q->tail = NULL;
    }
    mem_wipe(c->bytes, c->n);
    free(c);
}

void grpc_queue_take(struct grpc_queue *q, uint8_t *out, size_t n)
{
    POSTERN_ASSERT(n <= q->unsent);
    q->unsent -= n;
    while (n > 0) {
        struct grpc_chunk *c = q->head;
        size_t part = c->n - c->taken;
        if (part > n) {
            part = n;
        }
        memcpy(out, c->bytes + c->taken, part);
        c->taken += part;
        out += part;
        n -= part;
        if (c->taken == c->n) {
            drop_head(q);
        }
    }
}

void grpc_queue_reset(struct grpc_queue *q)
{
    while (q->head != NULL) {
        drop_head(q);
    }
    q->unsent = 0;
}
