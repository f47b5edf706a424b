/*
 * Whatever a client sends after the preface: the session neither crashes nor leaks, every call that
 * was opened is ended exactly once, and no call but of /B gets a request twice. The first byte says
 * in what pieces the rest is fed.
 */
#include "../../identity/grpc/grpc_priv.h"

#include <postern/err.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct counts {
    size_t n_opened, n_ended, n_closed;
};

static void on_open(struct grpc_call *call, void *arg)
{
    struct counts *c = arg;
    struct str value;
    c->n_opened++;
    if (grpc_call_metadata(call, STR_LIT("refuse"), 0, &value)) {
        c->n_ended++;
        grpc_call_finish(call, GRPC_INVALID_ARGUMENT, "refused");
    }
}

static void on_request(struct grpc_call *call, void *arg, struct str message)
{
    struct counts *c = arg;
    POSTERN_ASSERT(grpc_call_data(call) == NULL || grpc_call_method(call)->many_requests);
    grpc_call_set_data(call, c);
    enum grpc_send sent = grpc_call_send(call, message.p, message.n);
    if (!grpc_call_method(call)->streaming || sent != GRPC_SENT) {
        c->n_ended++;
        grpc_call_finish(call, sent == GRPC_SENT ? GRPC_OK : GRPC_RESOURCE_EXHAUSTED, "full");
    }
}

static void on_request_end(struct grpc_call *call, void *arg)
{
    ((struct counts *)arg)->n_ended++;
    grpc_call_finish(call, GRPC_OK, NULL);
}

static void on_cancel(struct grpc_call *call, void *arg)
{
    (void)call;
    ((struct counts *)arg)->n_ended++;
}

static void on_conn_closed(void *arg, void *conn_context)
{
    (void)conn_context;
    ((struct counts *)arg)->n_closed++;
}

static const struct grpc_method methods[] = {
    {"/U", false, on_open, on_request, NULL, on_cancel},
    {"/S", true, on_open, on_request, NULL, on_cancel},
    {"/B", true, on_open, on_request, NULL, on_cancel, true, on_request_end},
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) {
        return 0;
    }
    size_t step = data[0] == 0 ? SIZE_MAX : data[0];
    struct counts counts = {0};
    const struct grpc_limits limits = {.max_message_bytes = 4096,
                                       .max_conn_in_bytes = 8192,
                                       .max_call_out_bytes = 8192,
                                       .max_conn_out_bytes = 16384};
    const struct grpc_server_events events = {on_conn_closed};
    struct loop *loop = loop_new(NULL);
    struct grpc_server *server = grpc_server_new(loop, methods, 3, &limits, &events, &counts);
    struct grpc_conn *conn = grpc_server_add_detached(server, NULL);
    POSTERN_ASSERT(conn != NULL);
    static const char preface[] = NGHTTP2_CLIENT_MAGIC;
    grpc_conn_feed(conn, (const uint8_t *)preface, sizeof(preface) - 1);
    for (size_t at = 1; at < size;) {
        size_t n = size - at < step ? size - at : step;
        grpc_conn_feed(conn, data + at, n);
        at += n;
    }
    POSTERN_ASSERT(counts.n_opened - counts.n_ended == grpc_server_call_count(server));
    POSTERN_ASSERT(conn->in_bytes <= 8192 + 4096);
    server = grpc_server_free(server);
    (void)loop_free(loop); /* runs what was deferred: output, then the connection's end */
    POSTERN_ASSERT(counts.n_opened == counts.n_ended && counts.n_closed == 1);
    return 0;
}
