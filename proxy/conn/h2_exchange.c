/* HTTP/2: an exchange, which is a request and its response: how it begins and ends. */
#include "h2_priv.h"

#include "http_priv.h"

#include <stdlib.h>

struct h2_exchange *h2_exchange_new(struct conn *c, int32_t id)
{
    struct conn_http2 *h = c->h2;
    struct h2_exchange *x = h->spare;
    if (h->n_open >= H2_OPEN_MAX) {
        return NULL;
    }
    if (x != NULL) {
        h->spare = x->next;
        h->n_spare--;
    } else if ((x = (struct h2_exchange *)calloc(1, sizeof(*x))) == NULL) {
        return NULL;
    }
    struct buf head = x->head, kept[4] = {x->down.out, x->down.tail, x->up.out, x->up.tail};
    *x = (struct h2_exchange){.conn = c,
                              .next = h->open,
                              .head = head,
                              .id = id,
                              .grpc_status = H2_STATUS_UNSAID,
                              .down = {.out = kept[0], .tail = kept[1]},
                              .up = {.out = kept[2], .tail = kept[3]}};
    buf_consume(&x->head, x->head.len);
    x->head.max = (size_t)2 * conn_conf(c)->limits.request_head_bytes + HTTP1_MAX_TARGET;
    x->began_ms = x->active_ms = x->sent_ms = x->body_look_ms = loop_now_ms(c->worker->loop);
    if (h->open != NULL) {
        h->open->prev = x;
    }
    h->open = x;
    h->n_open++;
    h->total++;
    return x;
}

static void memory_free(struct h2_exchange *x)
{
    conn_claims_drop(&x->claims);
    buf_reset(&x->head);
    buf_reset(&x->down.out);
    buf_reset(&x->down.tail);
    buf_reset(&x->up.out);
    buf_reset(&x->up.tail);
    free(x);
}

void h2_exchange_finish(struct h2_exchange *x)
{
    struct conn *c = x->conn;
    struct conn_http2 *h = c->h2;
    if (x->busy > 0 || h->hold > 0 || x->down.id != 0 || x->up.id != 0) {
        return;
    }
    h2_record(x, NULL);
    conn_claims_drop(&x->claims);
    http2_stream_drop(&x->down);
    http2_stream_drop(&x->up);
    *(x->prev != NULL ? &x->prev->next : &h->open) = x->next;
    if (x->next != NULL) {
        x->next->prev = x->prev;
    }
    x->prev = NULL;
    h->n_open--;
    if (h->n_open == 0) {
        h->idle_since_ms = loop_now_ms(c->worker->loop);
        h2_wake(c); /* it may have waited for that */
    }
    if (h->n_spare < H2_SPARE_MAX) {
        x->next = h->spare;
        h->spare = x;
        h->n_spare++;
    } else {
        memory_free(x);
    }
}

void h2_hold(struct conn *c)
{
    c->h2->hold++;
}

void h2_release(struct conn *c)
{
    struct conn_http2 *h = c->h2;
    if (--h->hold > 0) {
        return;
    }
    for (struct h2_exchange *x = h->open, *next; x != NULL; x = next) {
        next = x->next;
        h2_exchange_finish(x);
    }
}

void h2_exchanges_free(struct conn_http2 *h)
{
    struct h2_exchange *lists[2] = {h->open, h->spare};
    for (size_t i = 0; i < 2; i++) {
        for (struct h2_exchange *x = lists[i], *next; x != NULL; x = next) {
            next = x->next;
            memory_free(x);
        }
    }
    h->open = h->spare = NULL;
    h->n_open = h->n_spare = 0;
}

void h2_exchange_moved(struct h2_exchange *x)
{
    x->active_ms = loop_now_ms(x->conn->worker->loop);
}

void h2_exchange_give_up(struct h2_exchange *x, unsigned status, const char *reason)
{
    x->busy++;
    if (!x->head_passed) {
        h2_answer(x, status, reason, NULL, NULL);
    } else {
        x->reason = x->reason != NULL ? x->reason : reason;
        x->given_up = true;
        h2_record(x, NULL);
        http2_stream_reset(&x->down, HTTP2_CANCEL);
        http2_stream_reset(&x->up, HTTP2_CANCEL);
    }
    x->busy--;
    h2_exchange_finish(x);
}
