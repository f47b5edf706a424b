/* The client's life: one connection, one stream, one timer for the next try. */
#include <postern/state_client.h>

#include <postern/grpc.h>
#include <postern/identity_client.h>
#include <postern/loop_job.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <postern/proto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    BACKOFF_MIN_MS = 100,
    BACKOFF_MAX_MS = 2000,
    KEEPALIVE_MS = 5000, /* an agent that is stopped and not gone is noticed by this */
};

/* A snapshot that came, and what is made of it. */
struct reading {
    struct state_client *c;
    struct buf message;
    struct snapshot_state *before; /* a reference; NULL: there was none */
    struct snapshot_state *next;   /* a reference; NULL: refused, or not yet read */
    uint64_t generation;
    struct err err;
    struct state_strict *strict; /* owned */
    size_t n_strict;
};

struct state_client {
    struct loop *loop;
    const struct state_client_events *events; /* borrowed */
    void *arg;
    char socket_path[sizeof(((struct sockaddr_un *)0)->sun_path)];
    char *name, *version; /* owned */
    char **labels;        /* owned */
    size_t n_labels;

    struct grpc_client *conn;
    struct grpc_client_call *call;
    struct loop_timer retry_timer;
    struct loop_job *job;             /* reads `reading`; NULL: none is read */
    struct reading *reading, *newest; /* owned; newest: came meanwhile */
    struct snapshot_state *current;   /* a reference; NULL: none yet */
    bool quarantined;
    uint64_t heard_ms;           /* when the stream was last known to live */
    struct err refusal;          /* of status.refused_generation */
    struct state_strict *strict; /* owned: of the last good snapshot */
    size_t n_strict;
    struct state_client_status status;
};

static void notice(struct state_client *c, enum state_notice what, const struct err *why)
{
    c->events->on_notice(c->arg, what, why);
}

/* --- saying what runs ------------------------------------------------------------------------- */
/* The packed message is the caller's to free. */
static uint8_t *pack_request(const struct state_client *c, const struct err *refusal,
                             Postern__V1__PlaintextReport *report, size_t *ret_n)
{
    Postern__V1__SubscribeRequest m;
    char text[600] = "";
    postern__v1__subscribe_request__init(&m);
    m.name = c->name;
    m.version = c->version;
    m.level = CONF_LEVEL;
    m.labels = c->labels;
    m.n_labels = c->n_labels;
    m.plaintext = report;
    if (c->current != NULL) {
        m.generation = c->status.generation;
        m.deny_version = c->status.deny_version;
        if (c->current->has_policy) {
            m.policy_sha256 =
                (ProtobufCBinaryData){sizeof(c->current->policy_sha256), c->current->policy_sha256};
        }
    }
    if (refusal != NULL) {
        m.refused_generation = c->status.refused_generation;
        m.error = (char *)(uintptr_t)err_text(refusal, text, sizeof(text));
    }
    *ret_n = postern__v1__subscribe_request__get_packed_size(&m);
    uint8_t *packed = mem_must_calloc(1, *ret_n + 1);
    (void)postern__v1__subscribe_request__pack(&m, packed);
    return packed;
}

/* Full queues are no failure: the agent hears it with the next. */
static void say(struct state_client *c, const struct err *refusal)
{
    size_t n = 0;
    if (c->call == NULL) {
        return; /* it went away meanwhile; the next one begins with it */
    }
    mem_autofree uint8_t *packed = pack_request(c, refusal, NULL, &n);
    (void)!grpc_client_send(c->call, (struct str){(const char *)packed, n});
}

bool state_client_report(struct state_client *c, Postern__V1__PlaintextReport *report)
{
    size_t n = 0;
    if (c->call == NULL || !c->status.connected) {
        return false;
    }
    /* What was refused still is. */
    const struct err *refusal = c->status.refused_generation != 0 ? &c->refusal : NULL;
    mem_autofree uint8_t *packed = pack_request(c, refusal, report, &n);
    return grpc_client_send(c->call, (struct str){(const char *)packed, n}) == GRPC_SENT;
}

/* --- trying again ----------------------------------------------------------------------------- */
static void drop_connection(struct state_client *c)
{
    if (c->status.connected) {
        c->heard_ms = os_now_ms();
    }
    c->status.connected = false;
    grpc_client_cancel(c->call);
    c->call = NULL;
    c->conn = grpc_client_free(c->conn);
}

static void failed(struct state_client *c, enum state_notice what, const struct err *why)
{
    uint64_t ms = BACKOFF_MIN_MS;
    bool again = c->status.failures_in_row > 0 && strcmp(c->status.last_error.what, why->what) == 0;
    for (unsigned i = 0; i < c->status.failures_in_row && ms < BACKOFF_MAX_MS; i++) {
        ms *= 2;
    }
    ms = ms < BACKOFF_MAX_MS ? ms : BACKOFF_MAX_MS;
    c->status.failures_in_row++;
    c->status.last_error = *why;
    loop_timer_arm(&c->retry_timer, ms / 2 + os_random_below(ms / 2 + 1));
    if (!again) {
        notice(c, what, why);
    }
}

/* --- what came -------------------------------------------------------------------------------- */
static void set_quarantined(struct state_client *c, bool quarantined)
{
    if (c->quarantined != quarantined) {
        c->quarantined = quarantined;
        c->events->on_quarantined(c->arg, quarantined);
    }
}

/* Takes it over. */
static void publish(struct state_client *c, struct snapshot_state *next)
{
    if (c->current != NULL && memcmp(c->current->digest, next->digest, 32) == 0) {
        snapshot_state_unref(next);
        return;
    }
    snapshot_state_unref(c->current);
    c->current = next;
    c->events->on_state(c->arg, snapshot_state_ref(next));
}

static void take(struct state_client *c, struct snapshot_state *next)
{
    c->status.generation = next->generation;
    c->status.deny_version = next->deny_version;
    c->status.refused_generation = 0;
    c->status.have = true;
    publish(c, next);
}

/* A policy that this binary cannot read must not keep a quarantine from it: that list has nothing
 * to do with the documents. */
static void take_deny_alone(struct state_client *c, struct str message)
{
    struct snapshot_state *next =
        c->current != NULL ? state_message_read_deny(message, c->current) : NULL;
    if (next == NULL) {
        return;
    }
    set_quarantined(c, false);
    c->status.deny_version = next->deny_version;
    publish(c, next);
}

static struct reading *reading_free(struct reading *r)
{
    if (r != NULL) {
        buf_reset(&r->message);
        snapshot_state_unref(r->before);
        snapshot_state_unref(r->next);
        free(r->strict);
        free(r);
    }
    return NULL;
}

/* On its own thread: all that takes long. */
static void read_snapshot(void *arg)
{
    struct reading *r = arg;
    struct str message = buf_str(&r->message);
    if (state_message_read(message, r->before, &r->next, &r->generation, &r->err) == 0) {
        r->strict = state_message_read_strict(message, &r->n_strict);
    }
}

static void on_read(void *arg);

static void read_next(struct state_client *c)
{
    c->reading = c->newest;
    c->newest = NULL;
    if (c->reading != NULL) {
        c->reading->before = c->current != NULL ? snapshot_state_ref(c->current) : NULL;
        c->job = loop_job_start(c->loop, read_snapshot, on_read, c->reading);
    }
}

static void refuse(struct state_client *c, const struct reading *r)
{
    c->status.n_refused++;
    c->status.refused_generation = r->generation;
    c->status.last_error = c->refusal = r->err;
    notice(c, STATE_REFUSED, &r->err);
    say(c, &r->err);
}

static void accept_read(struct state_client *c, struct reading *r)
{
    struct snapshot_state *next = r->next;
    r->next = NULL;
    /* Whom the newest says to be quarantined is so already. */
    struct snapshot_state *denied =
        c->newest != NULL ? state_message_read_deny(buf_str(&c->newest->message), next) : NULL;
    if (denied != NULL) {
        snapshot_state_unref(next);
        next = denied;
    }
    if (c->status.connected) {
        set_quarantined(c, false); /* else the stream has ended since, and said why */
    }
    free(c->strict);
    c->strict = r->strict;
    c->n_strict = r->n_strict;
    r->strict = NULL;
    take(c, next);
    say(c, NULL);
}

static void on_read(void *arg)
{
    struct reading *r = arg;
    struct state_client *c = r->c;
    c->job = NULL;
    c->reading = NULL;
    if (r->next != NULL) {
        accept_read(c, r);
    } else {
        refuse(c, r);
    }
    reading_free(r);
    read_next(c);
}

static void on_message(void *arg, struct str message)
{
    struct state_client *c = arg;
    struct reading *r = mem_must_new(struct reading);
    bool was_away = c->status.failures_in_row > 0;

    c->status.connected = true;
    c->status.failures_in_row = 0;
    c->status.n_snapshots++;
    if (was_away) {
        notice(c, STATE_AGENT_BACK, NULL);
    }
    *r = (struct reading){.c = c, .message = BUF_INIT(STATE_MESSAGE_MAX), .err = ERR_INIT};
    bool fits = buf_append_str(&r->message, message); /* it came with this bound */
    POSTERN_ASSERT(fits);
    take_deny_alone(c, message);
    reading_free(c->newest);
    c->newest = r;
    if (c->job == NULL) {
        read_next(c);
    }
}

static void on_end(void *arg, enum grpc_status status, const char *text)
{
    struct state_client *c = arg;
    struct err why = ERR_INIT;
    bool denied = status == GRPC_PERMISSION_DENIED;

    c->call = NULL;
    err_set(&why, denied ? ERR_DENIED : ERR_UNAVAILABLE, "State: %s%s%.200s",
            grpc_status_name(status), text[0] != '\0' ? ": " : "", text);
    if (status == GRPC_UNIMPLEMENTED) {
        err_advise(&why, "the agent tells no state: say `state: {from: files}`, or update it");
    }
    if (denied && strcmp(text, PROTO_QUARANTINED) == 0) {
        set_quarantined(c, true);
    }
    if (c->status.connected) {
        c->heard_ms = os_now_ms();
        c->status.connected = false;
    }
    failed(c, denied ? STATE_DENIED : STATE_AGENT_AWAY, &why);
}

static const struct grpc_client_handlers handlers = {on_message, on_end};

/* --- the connection --------------------------------------------------------------------------- */
static void on_closed(void *arg, const struct err *why)
{
    struct state_client *c = arg;
    /* The call's end, if there was one, came before and has planned the next try. */
    bool planned = c->call == NULL && c->status.failures_in_row > 0;
    drop_connection(c);
    if (!planned) {
        failed(c, STATE_AGENT_AWAY, why);
    }
}

static const struct grpc_client_events conn_events = {NULL, on_closed};

static int start(struct state_client *c, struct err *err)
{
    static const struct grpc_limits limits = {.keepalive_ms = KEEPALIVE_MS,
                                              .max_message_bytes = STATE_MESSAGE_MAX,
                                              .max_conn_in_bytes = 2 * (size_t)STATE_MESSAGE_MAX};
    static const struct grpc_metadata workload_header = {PROTO_WORKLOAD_KEY, PROTO_WORKLOAD_VALUE};
    if (c->conn == NULL) {
        int fd = identity_agent_connect(c->socket_path, err);
        if (fd == -1) {
            return -1;
        }
        c->conn = grpc_client_new_fd(c->loop, fd, &limits, &conn_events, c, err);
        if (c->conn == NULL) {
            return -1;
        }
    }
    size_t n = 0;
    mem_autofree uint8_t *first = pack_request(c, NULL, NULL, &n);
    const struct grpc_request request = {.path = PROTO_STATE_SUBSCRIBE,
                                         .message = {(const char *)first, n},
                                         .metadata = &workload_header,
                                         .n_metadata = 1,
                                         .streaming = true,
                                         .many_requests = true};
    c->call = grpc_client_start(c->conn, &request, &handlers, c, err);
    return c->call != NULL ? 0 : -1;
}

static void on_retry(void *arg)
{
    struct state_client *c = arg;
    struct err why = ERR_INIT;
    if (c->call == NULL && start(c, &why) == -1) {
        drop_connection(c); /* one that takes no calls is of no use any more */
        failed(c, why.code == ERR_DENIED ? STATE_NOT_TRUSTED : STATE_AGENT_AWAY, &why);
    }
}

/* --- the owner's side ------------------------------------------------------------------------- */
struct state_client *state_client_new(struct loop *loop, const struct state_client_options *options,
                                      const struct state_client_events *events, void *arg,
                                      struct err *err)
{
    struct state_client *c = mem_must_new(struct state_client);
    if (identity_socket_path(options->socket, c->socket_path, sizeof(c->socket_path), err) == -1) {
        free(c);
        return NULL;
    }
    c->loop = loop;
    c->events = events;
    c->arg = arg;
    c->name = mem_must_strdup(options->name != NULL ? options->name : "");
    c->version = mem_must_strdup(options->version != NULL ? options->version : "");
    c->n_labels = options->labels != NULL ? options->labels->n : 0;
    c->labels = mem_must_calloc(c->n_labels + 1, sizeof(char *));
    for (size_t i = 0; i < c->n_labels; i++) {
        c->labels[i] = mem_must_strdup(options->labels->items[i]);
    }
    c->heard_ms = os_now_ms();
    loop_timer_init(&c->retry_timer, loop, on_retry, c);
    loop_timer_arm(&c->retry_timer, 0);
    return c;
}

struct state_client *state_client_free(struct state_client *c)
{
    if (c != NULL) {
        loop_timer_disarm(&c->retry_timer);
        c->job = loop_job_drop(c->job);
        c->reading = reading_free(c->reading);
        c->newest = reading_free(c->newest);
        drop_connection(c);
        snapshot_state_unref(c->current);
        free(c->strict);
        free(c->name);
        free(c->version);
        for (size_t i = 0; i < c->n_labels; i++) {
            free(c->labels[i]);
        }
        free(c->labels);
        free(c);
    }
    return NULL;
}

bool state_client_is_strict(const struct state_client *c, const char *listener, uint16_t port)
{
    for (size_t i = 0; i < c->n_strict; i++) {
        if (c->strict[i].port == port && strcmp(c->strict[i].listener, listener) == 0) {
            return true;
        }
    }
    return false;
}

void state_client_get_status(const struct state_client *c, struct state_client_status *ret)
{
    *ret = c->status;
    ret->age_ms = c->status.connected ? 0 : os_now_ms() - c->heard_ms;
}

const char *state_notice_name(enum state_notice notice)
{
    static const char *const names[] = {
        [STATE_AGENT_AWAY] = "agent_away", [STATE_AGENT_BACK] = "agent_back",
        [STATE_REFUSED] = "refused",       [STATE_NOT_TRUSTED] = "agent_not_trusted",
        [STATE_DENIED] = "denied",
    };
    return (size_t)notice < sizeof(names) / sizeof(names[0]) ? names[notice] : "?";
}
