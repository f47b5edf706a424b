/* Every open stream, whatever it carries: found by its caller, told of changes, ended together. */
#include "service_priv.h"

void service_stream_init(struct service_stream *st, struct grpc_call *call,
                         const struct service_stream_ops *ops)
{
    struct service_caller *c = grpc_call_conn_context(call);
    *st = (struct service_stream){.s = c->s, .caller = c, .call = call, .ops = ops};
    st->next = c->s->streams;
    if (st->next != NULL) {
        st->next->prev = st;
    }
    c->s->streams = st;
    st->caller_next = c->streams;
    if (st->caller_next != NULL) {
        st->caller_next->caller_prev = st;
    }
    c->streams = st;
}

void service_stream_deinit(struct service_stream *st)
{
    if (st->prev != NULL) {
        st->prev->next = st->next;
    } else {
        st->s->streams = st->next;
    }
    if (st->next != NULL) {
        st->next->prev = st->prev;
    }
    if (st->caller_prev != NULL) {
        st->caller_prev->caller_next = st->caller_next;
    } else {
        st->caller->streams = st->caller_next;
    }
    if (st->caller_next != NULL) {
        st->caller_next->caller_prev = st->caller_prev;
    }
    service_caller_discharge(st->caller);
}

void service_streams_changed(struct service *s)
{
    /* None goes away here: what ends a stream comes from its job, later. */
    for (struct service_stream *st = s->streams; st != NULL; st = st->next) {
        st->ops->changed(st);
    }
}

void service_streams_end(struct service *s, const struct service_caller *c, enum grpc_status status,
                         const char *text)
{
    struct service_stream *next = NULL;
    if (c != NULL) {
        for (struct service_stream *st = c->streams; st != NULL; st = next) {
            next = st->caller_next;
            st->ops->end(st, status, text);
        }
        return;
    }
    for (struct service_stream *st = s->streams; st != NULL; st = next) {
        next = st->next;
        st->ops->end(st, status, text);
    }
}
