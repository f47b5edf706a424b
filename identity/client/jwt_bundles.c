/* The stream's life: one connection, one stream, one timer for the next try. */
#include <postern/jwt_bundles.h>

#include <postern/grpc.h>
#include <postern/identity_client.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <postern/proto.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

enum {
    BACKOFF_MIN_MS = 100,
    BACKOFF_MAX_MS = 10000,
    KEEPALIVE_MS = 20000, /* an agent that is stopped and not gone is noticed by this */
};

struct jwt_bundles {
    struct loop *loop;
    const struct jwt_bundles_events *events; /* borrowed */
    void *arg;
    char socket_path[sizeof(((struct sockaddr_un *)0)->sun_path)];
    bool check_agent;
    struct grpc_client *conn;
    struct grpc_client_call *call;
    struct loop_timer timer;
    unsigned failures_in_row;
    bool answered;
    struct jwt_key_sets sets; /* of the last message that could be read */
};

static void drop_connection(struct jwt_bundles *b)
{
    grpc_client_cancel(b->call);
    b->call = NULL;
    b->conn = grpc_client_free(b->conn);
}

/* Trouble is told once; the next try has its time. */
static void failed(struct jwt_bundles *b, const struct err *why)
{
    uint64_t ms = BACKOFF_MIN_MS;
    for (unsigned i = 0; i < b->failures_in_row && ms < BACKOFF_MAX_MS; i++) {
        ms *= 2;
    }
    ms = ms < BACKOFF_MAX_MS ? ms : BACKOFF_MAX_MS;
    loop_timer_arm(&b->timer, ms / 2 + os_random_below(ms / 2 + 1));
    if (b->failures_in_row++ == 0) {
        b->events->on_trouble(b->arg, why);
    }
}

/* Takes them over. */
static void take(struct jwt_bundles *b, struct jwt_key_sets *sets)
{
    bool same = b->answered && jwt_key_sets_equal(sets, &b->sets);
    jwt_key_sets_reset(&b->sets);
    b->sets = *sets;
    b->answered = true;
    if (!same) {
        b->events->on_sets(b->arg, &b->sets);
    }
}

static void on_message(void *arg, struct str message)
{
    struct jwt_bundles *b = arg;
    struct jwt_key_sets sets = {0};
    struct err warning = ERR_INIT;
    struct err err = ERR_INIT;
    if (jwt_key_sets_read(message, &sets, &warning, &err) == -1) {
        b->events->on_trouble(b->arg, &err); /* the stream goes on; what was there stays */
        return;
    }
    if (b->failures_in_row > 0) {
        b->failures_in_row = 0;
        b->events->on_trouble(b->arg, NULL);
    }
    if (warning.code != ERR_NONE) {
        b->events->on_trouble(b->arg, &warning);
    }
    take(b, &sets);
}

static void on_end(void *arg, enum grpc_status status, const char *text)
{
    struct jwt_bundles *b = arg;
    struct jwt_key_sets none = {.items = NULL};
    struct err why = ERR_INIT;
    b->call = NULL;
    err_set(&why, status == GRPC_PERMISSION_DENIED ? ERR_DENIED : ERR_UNAVAILABLE,
            "FetchJWTBundles: %s%s%.200s", grpc_status_name(status), text[0] != '\0' ? ": " : "",
            text);
    if (status == GRPC_PERMISSION_DENIED) {
        err_advise(&why, "see which entries the agent has for this process");
        take(b, &none);
    } else if (status == GRPC_UNIMPLEMENTED) {
        err_advise(&why, "this agent has no JWT-SVIDs: name a jwks_file in place of `bundle`");
        if (!b->answered) {
            take(b, &none);
        }
    }
    failed(b, &why);
}

static void on_conn_closed(void *arg, const struct err *why)
{
    struct jwt_bundles *b = arg;
    drop_connection(b);
    failed(b, why);
}

static int connect_agent(struct jwt_bundles *b, struct err *err)
{
    static const struct grpc_limits limits = {.keepalive_ms = KEEPALIVE_MS};
    static const struct grpc_client_events events = {NULL, on_conn_closed};
    if (!b->check_agent) {
        b->conn = grpc_client_connect(b->loop, b->socket_path, &limits, &events, b, err);
    } else {
        int fd = identity_agent_connect(b->socket_path, err);
        b->conn = fd != -1 ? grpc_client_new_fd(b->loop, fd, &limits, &events, b, err) : NULL;
    }
    return b->conn != NULL ? 0 : -1;
}

static int ask(struct jwt_bundles *b, struct err *err)
{
    static const struct grpc_client_handlers handlers = {on_message, on_end};
    /* Workload_Endpoint.md section 4: on every call. */
    static const struct grpc_metadata header = {PROTO_WORKLOAD_KEY, PROTO_WORKLOAD_VALUE};
    const struct grpc_request request = {
        .path = PROTO_FETCH_JWT_BUNDLES, .metadata = &header, .n_metadata = 1, .streaming = true};
    if (b->conn == NULL && connect_agent(b, err) == -1) {
        return -1;
    }
    b->call = grpc_client_start(b->conn, &request, &handlers, b, err);
    return b->call != NULL ? 0 : -1;
}

static void on_timer(void *arg)
{
    struct jwt_bundles *b = arg;
    struct err err = ERR_INIT;
    if (b->call == NULL && ask(b, &err) == -1) {
        drop_connection(b); /* one that takes no calls (GOAWAY) is of no use any more */
        failed(b, &err);
    }
}

/* --- the owner's side ------------------------------------------------------------------------- */
struct jwt_bundles *jwt_bundles_new(struct loop *loop, const struct jwt_bundles_options *options,
                                    const struct jwt_bundles_events *events, void *arg,
                                    struct err *err)
{
    char path[sizeof(((struct jwt_bundles *)0)->socket_path)];
    if (identity_socket_path(options->socket, path, sizeof(path), err) == -1) {
        return NULL;
    }
    struct jwt_bundles *b = mem_must_new(struct jwt_bundles);
    memcpy(b->socket_path, path, sizeof(path));
    b->loop = loop;
    b->events = events;
    b->arg = arg;
    b->check_agent = options->check_agent;
    loop_timer_init(&b->timer, loop, on_timer, b);
    loop_timer_arm(&b->timer, 0);
    return b;
}

struct jwt_bundles *jwt_bundles_free(struct jwt_bundles *b)
{
    if (b != NULL) {
        loop_timer_disarm(&b->timer);
        drop_connection(b);
        jwt_key_sets_reset(&b->sets);
        free(b);
    }
    return NULL;
}

const struct jwt_key_sets *jwt_bundles_get(const struct jwt_bundles *b)
{
    return &b->sets;
}

bool jwt_bundles_answered(const struct jwt_bundles *b)
{
    return b->answered;
}

void jwt_bundles_renew(struct jwt_bundles *b)
{
    if (b->call == NULL) {
        loop_timer_arm(&b->timer, 0);
    }
}
