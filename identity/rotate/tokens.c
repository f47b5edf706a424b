/*
 * tokens: the JWT-SVIDs and key sets of one output. One connection to the agent: a stream that
 * watches key sets, if a file wants one, and a call for each token when its time has come. What
 * came last stays while the agent is away.
 */
#include "rotate_priv.h"

#include <postern/grpc.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <postern/proto.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

enum {
    BACKOFF_MIN_MS = 100,
    BACKOFF_MAX_MS = 10000,
    CALL_DEADLINE_MS = 10000,
    KEEPALIVE_MS = 20000,
    LOOK_MAX_MS = 10000, /* the wall clock may be set */
};

struct token {
    struct rotate_tokens *of;
    const struct conf_rotate_file *file; /* lent; what else than jwt: unused */
    struct grpc_client_call *call;
    struct rotate_token_text text;
    int64_t begins_s, renew_at_s;
};

struct rotate_tokens {
    struct loop *loop;
    const struct rotate_tokens_options *options; /* lent */
    const struct rotate_tokens_events *events;   /* lent */
    void *arg;
    char socket_path[sizeof(((struct sockaddr_un *)0)->sun_path)];
    struct grpc_client *conn;
    struct grpc_client_call *watch; /* FetchJWTBundles */
    bool wants_key_sets, has_id;
    char *spiffe_id; /* owned; NULL: the first offered */
    struct token *tokens;
    struct rotate_token *view; /* for rotate_tokens_get */
    size_t n;
    struct jwt_key_sets key_sets;
    struct loop_timer timer;
    uint64_t not_before_ms; /* after a failure */
    unsigned failures_in_row;
};

static const struct grpc_metadata workload_header = {PROTO_WORKLOAD_KEY, PROTO_WORKLOAD_VALUE};

static void arm(struct rotate_tokens *t);

/* --- failures ----------------------------------------------------------------------------------
 */
static void failed(struct rotate_tokens *t, const struct err *why)
{
    uint64_t full = BACKOFF_MIN_MS;
    t->failures_in_row++;
    for (unsigned i = 1; i < t->failures_in_row && full < BACKOFF_MAX_MS; i++) {
        full *= 2;
    }
    full = full < BACKOFF_MAX_MS ? full : BACKOFF_MAX_MS;
    t->not_before_ms = os_now_ms() + full / 2 + os_random_below(full / 2 + 1);
    if (t->failures_in_row == 1) {
        t->events->on_trouble(t->arg, why);
    }
    arm(t);
}

static void good_message(struct rotate_tokens *t)
{
    bool was_away = t->failures_in_row > 0;
    t->failures_in_row = 0;
    t->not_before_ms = 0;
    if (was_away) {
        t->events->on_trouble(t->arg, NULL);
    }
}

static void drop_connection(struct rotate_tokens *t)
{
    grpc_client_cancel(t->watch);
    t->watch = NULL;
    for (size_t i = 0; i < t->n; i++) {
        grpc_client_cancel(t->tokens[i].call);
        t->tokens[i].call = NULL;
    }
    t->conn = grpc_client_free(t->conn);
}

/* --- what came ---------------------------------------------------------------------------------
 */
/* At the configured part of its life, spread. */
static int64_t renewal_s(const struct rotate_tokens *t, int64_t now_s, int64_t ends_s)
{
    uint64_t life_ms = (uint64_t)(ends_s - now_s) * 1000;
    uint64_t spread = life_ms / 100 * t->options->renew_jitter;
    uint64_t at = life_ms / 100 * t->options->renew_at - spread + os_random_below(2 * spread + 1);
    int64_t after_s = (int64_t)(at / 1000);
    return now_s + (after_s > 1 ? after_s : 1);
}

static void on_token(void *arg, struct str message)
{
    struct token *token = arg;
    struct rotate_tokens *t = token->of;
    struct rotate_token_text text = {0};
    struct err err = ERR_INIT;
    int64_t now_s = os_wall_s();
    if (rotate_read_token(message, t->spiffe_id, &token->file->audience, now_s, &text, &err) ==
        -1) {
        failed(t, &err);
        return;
    }
    rotate_token_text_reset(&token->text);
    token->text = text;
    token->begins_s = now_s;
    token->renew_at_s = renewal_s(t, now_s, text.ends_s);
    good_message(t);
    t->events->on_change(t->arg);
}

static void on_key_sets(void *arg, struct str message)
{
    struct rotate_tokens *t = arg;
    struct jwt_key_sets sets = {0};
    struct err warning = ERR_INIT;
    struct err err = ERR_INIT;
    if (rotate_read_key_sets(message, &sets, &warning, &err) == -1) {
        failed(t, &err);
        return;
    }
    good_message(t);
    if (warning.code != ERR_NONE) {
        t->events->on_trouble(t->arg, &warning);
    }
    bool same = jwt_key_sets_equal(&sets, &t->key_sets);
    jwt_key_sets_reset(&t->key_sets);
    t->key_sets = sets;
    if (!same) {
        t->events->on_change(t->arg);
    }
}

static void call_failed(struct rotate_tokens *t, const char *rpc, enum grpc_status status,
                        const char *text)
{
    struct err err = ERR_INIT;
    err_set(&err, status == GRPC_PERMISSION_DENIED ? ERR_DENIED : ERR_UNAVAILABLE, "%s: %s%s%.200s",
            rpc, grpc_status_name(status), text[0] != '\0' ? ": " : "", text);
    failed(t, &err);
}

static void on_token_end(void *arg, enum grpc_status status, const char *text)
{
    struct token *token = arg;
    token->call = NULL;
    if (status != GRPC_OK) {
        call_failed(token->of, "FetchJWTSVID", status, text);
    }
    arm(token->of);
}

static void on_watch_end(void *arg, enum grpc_status status, const char *text)
{
    struct rotate_tokens *t = arg;
    t->watch = NULL;
    call_failed(t, "FetchJWTBundles", status, text);
}

static const struct grpc_client_handlers token_handlers = {on_token, on_token_end};
static const struct grpc_client_handlers key_set_handlers = {on_key_sets, on_watch_end};

/* --- asking ------------------------------------------------------------------------------------
 */
static int start_token(struct rotate_tokens *t, struct token *token, struct err *err)
{
    Workload__JWTSVIDRequest r;
    workload__jwtsvidrequest__init(&r);
    r.n_audience = token->file->audience.n;
    r.audience = token->file->audience.items;
    char none[] = "";
    r.spiffe_id = t->spiffe_id != NULL ? t->spiffe_id : none;
    size_t n = workload__jwtsvidrequest__get_packed_size(&r);
    mem_autofree uint8_t *packed = mem_must_calloc(1, n + 1);
    (void)workload__jwtsvidrequest__pack(&r, packed);
    const struct grpc_request request = {.path = PROTO_FETCH_JWT_SVID,
                                         .message = {(const char *)packed, n},
                                         .metadata = &workload_header,
                                         .n_metadata = 1,
                                         .deadline_ms = CALL_DEADLINE_MS};
    token->call = grpc_client_start(t->conn, &request, &token_handlers, token, err);
    return token->call != NULL ? 0 : -1;
}

static int start_watch(struct rotate_tokens *t, struct err *err)
{
    const struct grpc_request request = {.path = PROTO_FETCH_JWT_BUNDLES,
                                         .metadata = &workload_header,
                                         .n_metadata = 1,
                                         .streaming = true};
    t->watch = grpc_client_start(t->conn, &request, &key_set_handlers, t, err);
    return t->watch != NULL ? 0 : -1;
}

static void on_conn_closed(void *arg, const struct err *why)
{
    struct rotate_tokens *t = arg;
    drop_connection(t);
    failed(t, why);
}

static const struct grpc_client_events conn_events = {NULL, on_conn_closed};

static bool is_due(const struct rotate_tokens *t, const struct token *token, int64_t now_s)
{
    return token->file->what == CONF_ROTATE_JWT && token->call == NULL && t->has_id &&
           now_s >= token->renew_at_s;
}

static bool anything_due(const struct rotate_tokens *t, int64_t now_s)
{
    bool due = t->wants_key_sets && t->watch == NULL;
    for (size_t i = 0; i < t->n; i++) {
        due = due || is_due(t, &t->tokens[i], now_s);
    }
    return due;
}

/* Starts whatever is missing. */
static int proceed(struct rotate_tokens *t, struct err *err)
{
    static const struct grpc_limits limits = {.keepalive_ms = KEEPALIVE_MS};
    int64_t now_s = os_wall_s();
    if (!anything_due(t, now_s)) {
        return 0;
    }
    if (t->conn == NULL) {
        t->conn = grpc_client_connect(t->loop, t->socket_path, &limits, &conn_events, t, err);
        if (t->conn == NULL) {
            return -1;
        }
    }
    if (t->wants_key_sets && t->watch == NULL && start_watch(t, err) == -1) {
        return -1;
    }
    for (size_t i = 0; i < t->n; i++) {
        if (is_due(t, &t->tokens[i], now_s) && start_token(t, &t->tokens[i], err) == -1) {
            return -1;
        }
    }
    return 0;
}

static void on_timer(void *arg)
{
    struct rotate_tokens *t = arg;
    struct err err = ERR_INIT;
    if (os_now_ms() >= t->not_before_ms && proceed(t, &err) == -1) {
        drop_connection(t);
        failed(t, &err);
        return;
    }
    arm(t);
}

/* At the next time that something is due. */
static void arm(struct rotate_tokens *t)
{
    uint64_t now_ms = os_now_ms();
    int64_t now_s = os_wall_s();
    uint64_t delay_ms = LOOK_MAX_MS;
    if (t->not_before_ms > now_ms) {
        delay_ms = t->not_before_ms - now_ms;
    } else if (anything_due(t, now_s)) {
        delay_ms = 0;
    } else {
        for (size_t i = 0; i < t->n; i++) {
            const struct token *token = &t->tokens[i];
            int64_t left_s = token->renew_at_s - now_s;
            if (token->file->what == CONF_ROTATE_JWT && token->call == NULL && left_s > 0 &&
                (uint64_t)left_s * 1000 < delay_ms) {
                delay_ms = (uint64_t)left_s * 1000;
            }
        }
    }
    loop_timer_arm(&t->timer, delay_ms);
}

/* --- the owner's side --------------------------------------------------------------------------
 */
struct rotate_tokens *rotate_tokens_new(struct loop *loop, const struct conf_rotate_output *o,
                                        const struct rotate_tokens_options *options,
                                        const struct rotate_tokens_events *events, void *arg,
                                        struct err *err)
{
    char path[sizeof(((struct rotate_tokens *)0)->socket_path)];
    if (identity_socket_path(options->socket, path, sizeof(path), err) == -1) {
        return NULL;
    }
    struct rotate_tokens *t = mem_must_new(struct rotate_tokens);
    memcpy(t->socket_path, path, sizeof(path));
    t->loop = loop;
    t->options = options;
    t->events = events;
    t->arg = arg;
    t->n = o->n_files;
    t->tokens = mem_must_calloc(t->n, sizeof(*t->tokens));
    t->view = mem_must_calloc(t->n, sizeof(*t->view));
    for (size_t i = 0; i < t->n; i++) {
        t->tokens[i].of = t;
        t->tokens[i].file = &o->files[i];
        t->wants_key_sets = t->wants_key_sets || o->files[i].what == CONF_ROTATE_JWKS ||
                            o->files[i].what == CONF_ROTATE_JWT_BUNDLES;
    }
    loop_timer_init(&t->timer, loop, on_timer, t);
    loop_timer_arm(&t->timer, 0);
    return t;
}

struct rotate_tokens *rotate_tokens_free(struct rotate_tokens *t)
{
    if (t != NULL) {
        loop_timer_disarm(&t->timer);
        drop_connection(t);
        for (size_t i = 0; i < t->n; i++) {
            rotate_token_text_reset(&t->tokens[i].text);
        }
        jwt_key_sets_reset(&t->key_sets);
        free(t->tokens);
        free(t->view);
        free(t->spiffe_id);
        free(t);
    }
    return NULL;
}

void rotate_tokens_set_id(struct rotate_tokens *t, const char *spiffe_id)
{
    bool same = t->has_id &&
                (spiffe_id == NULL ? t->spiffe_id == NULL
                                   : t->spiffe_id != NULL && strcmp(spiffe_id, t->spiffe_id) == 0);
    if (same) {
        return;
    }
    t->has_id = true;
    free(t->spiffe_id);
    t->spiffe_id = spiffe_id != NULL ? mem_must_strdup(spiffe_id) : NULL;
    for (size_t i = 0; i < t->n; i++) {
        grpc_client_cancel(t->tokens[i].call); /* asked for another one */
        t->tokens[i].call = NULL;
        rotate_token_text_reset(&t->tokens[i].text);
        t->tokens[i].renew_at_s = 0;
    }
    arm(t);
}

bool rotate_tokens_complete(const struct rotate_tokens *t)
{
    bool whole = !t->wants_key_sets || t->key_sets.n > 0;
    for (size_t i = 0; i < t->n; i++) {
        whole =
            whole && (t->tokens[i].file->what != CONF_ROTATE_JWT || t->tokens[i].text.text != NULL);
    }
    return whole;
}

const struct rotate_token *rotate_tokens_get(struct rotate_tokens *t)
{
    for (size_t i = 0; i < t->n; i++) {
        t->view[i] = (struct rotate_token){.text = t->tokens[i].text.text,
                                           .begins_s = t->tokens[i].begins_s,
                                           .ends_s = t->tokens[i].text.ends_s};
    }
    return t->view;
}

const struct jwt_key_sets *rotate_tokens_key_sets(const struct rotate_tokens *t)
{
    return &t->key_sets;
}

const char *rotate_tokens_id(const struct rotate_tokens *t)
{
    for (size_t i = 0; i < t->n; i++) {
        if (t->tokens[i].text.spiffe_id != NULL) {
            return t->tokens[i].text.spiffe_id;
        }
    }
    return t->spiffe_id;
}
