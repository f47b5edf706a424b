/* grpc: the health of a workload that speaks gRPC, by the question that a kubelet would ask. */
#include "probes_priv.h"

#include <postern/grpc.h>
#include <postern/mem.h>
#include <stdlib.h>

enum { MESSAGE_MAX = 4096 };

struct probes_grpc {
    struct grpc_client *client;
    probes_grpc_fn fn; /* NULL: told */
    void *arg;
    bool serving;
};

static void tell(struct probes_grpc *g, bool serving)
{
    probes_grpc_fn fn = g->fn;
    g->fn = NULL;
    if (fn != NULL) {
        fn(g->arg, serving);
    }
}

static void on_message(void *arg, struct str message)
{
    struct probes_grpc *g = arg;
    g->serving = probes_read_health(message);
}

static void on_end(void *arg, enum grpc_status status, const char *text)
{
    struct probes_grpc *g = arg;
    (void)text;
    tell(g, status == GRPC_OK && g->serving);
}

static void on_closed(void *arg, const struct err *why)
{
    (void)why;
    tell(arg, false);
}

struct probes_grpc *probes_grpc_ask(struct loop *loop, int fd, const char *service,
                                    uint64_t deadline_ms, probes_grpc_fn fn, void *arg)
{
    static const struct grpc_limits limits = {.max_streams = 1,
                                              .max_header_bytes = MESSAGE_MAX,
                                              .max_message_bytes = MESSAGE_MAX,
                                              .max_conn_in_bytes = 2 * MESSAGE_MAX};
    static const struct grpc_client_events events = {NULL, on_closed};
    static const struct grpc_client_handlers handlers = {on_message, on_end};
    struct probes_grpc *g = mem_must_new(struct probes_grpc);
    struct buf question = BUF_INIT(MESSAGE_MAX);
    struct err err = ERR_INIT;
    g->fn = fn;
    g->arg = arg;
    g->client = grpc_client_new_fd(loop, fd, &limits, &events, g, &err);
    bool ok = g->client != NULL && probes_write_health(service, &question);
    const struct grpc_request request = {.path = "/grpc.health.v1.Health/Check",
                                         .message = buf_str(&question),
                                         .deadline_ms = deadline_ms};
    ok = ok && grpc_client_start(g->client, &request, &handlers, g, &err) != NULL;
    buf_reset(&question);
    return ok ? g : probes_grpc_free(g);
}

struct probes_grpc *probes_grpc_free(struct probes_grpc *g)
{
    if (g != NULL) {
        grpc_client_free(g->client);
        free(g);
    }
    return NULL;
}
