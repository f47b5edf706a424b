/*
 * grpc.health.v1.Health: whether this socket is served, for people's tools and supervisors. Says
 * nothing of any caller and needs none of its identity.
 */
#include "service_priv.h"

#include <postern/mem.h>
#include <postern/proto.h>
#include <stdlib.h>

enum health { HEALTH_SERVING = 1, HEALTH_NOT_SERVING = 2, HEALTH_UNKNOWN = 3 };
enum { FIELD_SERVICE = 1, FIELD_STATUSES = 1, ENTRY_KEY = 1, ENTRY_VALUE = 2, LIST_MAX = 4096 };

struct health_watch {
    struct service_stream stream; /* first */
    bool known;
    uint8_t sent; /* the status that was told last; 0: none */
};

/* False: the request is not one. */
static bool parse(struct str message, struct str *ret_service)
{
    struct service_wire w = service_wire_of(message);
    *ret_service = STR_NONE;
    while (service_wire_next(&w)) {
        if (w.field == FIELD_SERVICE && w.is_bytes) {
            *ret_service = w.bytes;
        }
    }
    return !w.bad;
}

static bool is_known(struct str service)
{
    for (size_t i = 0; service_names[i] != NULL; i++) {
        if (str_eq(service, str_of(service_names[i]))) {
            return true;
        }
    }
    return service.n == 0;
}

static enum health status_of(const struct service *s, bool known)
{
    if (!known) {
        return HEALTH_UNKNOWN;
    }
    return s->have_bundle && !s->stopping ? HEALTH_SERVING : HEALTH_NOT_SERVING;
}

static void put_status(uint8_t out[2], enum health status)
{
    out[0] = 0x08; /* field 1, a varint */
    out[1] = (uint8_t)status;
}

static void end_unary(struct grpc_call *call, enum grpc_status status, const char *text)
{
    service_caller_discharge(grpc_call_conn_context(call));
    service_finish(call, status, text);
}

void service_health_check(struct grpc_call *call, void *arg, struct str message)
{
    const struct service *s = arg;
    struct str service;
    uint8_t out[2];
    if (!parse(message, &service)) {
        end_unary(call, GRPC_INVALID_ARGUMENT, "the request is not a HealthCheckRequest");
    } else if (!is_known(service)) {
        end_unary(call, GRPC_NOT_FOUND, "no such service here");
    } else {
        put_status(out, status_of(s, true));
        bool sent = grpc_call_send(call, out, sizeof(out)) == GRPC_SENT;
        end_unary(call, sent ? GRPC_OK : GRPC_UNAVAILABLE, NULL);
    }
}

void service_health_list(struct grpc_call *call, void *arg, struct str message)
{
    const struct service *s = arg;
    struct buf out = BUF_INIT(LIST_MAX);
    uint8_t status[2];
    bool ok = true;
    (void)message;
    put_status(status, status_of(s, true));
    for (size_t i = 0; service_names[i] != NULL; i++) {
        struct buf entry = BUF_INIT(LIST_MAX);
        ok = ok && service_wire_put(&entry, ENTRY_KEY, str_of(service_names[i])) &&
             service_wire_put(&entry, ENTRY_VALUE, (struct str){(char *)status, sizeof(status)}) &&
             service_wire_put(&out, FIELD_STATUSES, buf_str(&entry));
        buf_reset(&entry);
    }
    ok = ok && grpc_call_send(call, buf_head(&out), buf_len(&out)) == GRPC_SENT;
    buf_reset(&out);
    end_unary(call, ok ? GRPC_OK : GRPC_UNAVAILABLE, NULL);
}

/* --- Watch ------------------------------------------------------------------------------------ */

static void watch_free(struct health_watch *h)
{
    service_stream_deinit(&h->stream);
    free(h);
}

static void stream_changed(struct service_stream *st)
{
    struct health_watch *h = (struct health_watch *)st;
    uint8_t out[2];
    put_status(out, status_of(st->s, h->known));
    if (out[1] != h->sent && grpc_call_send(st->call, out, sizeof(out)) == GRPC_SENT) {
        h->sent = out[1];
    }
}

static void stream_end(struct service_stream *st, enum grpc_status status, const char *text)
{
    struct grpc_call *call = st->call;
    watch_free((struct health_watch *)st);
    service_finish(call, status, text);
}

static const struct service_stream_ops watch_ops = {stream_changed, stream_end};

void service_health_watch(struct grpc_call *call, void *arg, struct str message)
{
    (void)arg;
    struct str service;
    if (!parse(message, &service)) {
        end_unary(call, GRPC_INVALID_ARGUMENT, "the request is not a HealthCheckRequest");
        return;
    }
    struct health_watch *h = mem_must_new(struct health_watch);
    service_stream_init(&h->stream, call, &watch_ops);
    h->known = is_known(service);
    grpc_call_set_data(call, h);
    stream_changed(&h->stream);
}

void service_health_cancel(struct grpc_call *call)
{
    watch_free(grpc_call_data(call));
}
