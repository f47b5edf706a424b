/*
 * The agent's service between a scripted attestor, a scripted keeper and our own gRPC client, all
 * on one loop. What is judged is what the client gets and what the others are asked.
 */
#ifndef POSTERN_TEST_SERVICE_WORLD_H
#define POSTERN_TEST_SERVICE_WORLD_H

#include "../../identity/service/service_priv.h"

#include <jansson.h>
#include <postern/jwt.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <postern/proto.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

enum { PATIENCE_MS = 20000, IDS_MAX = 4 };
#define HANDLE UINT64_C(77)

/* The wall clock of everything in here, so much ahead. */
static int64_t wall_ahead_s;
int64_t __real_os_wall_s(void);
int64_t __wrap_os_wall_s(void);
int64_t __wrap_os_wall_s(void)
{
    return __real_os_wall_s() + wall_ahead_s;
}

struct world {
    struct service *s;
    struct loop *loop;
    struct loop_timer guard, calm;
    bool timed_out;
    int control, attestor, keeper; /* the others' ends */
    struct loop_io *control_io, *attestor_io, *keeper_io;

    /* the attestor */
    uint32_t attest_outcome;
    unsigned n_reattest, n_release;

    /* the keeper */
    const char *ids[IDS_MAX];
    const char *hint;
    uint32_t n_ids, ttl_s;
    uint64_t generation, facts, bundle_generation;
    uint32_t issue_outcome;    /* of every ISSUE ... */
    unsigned n_issue_outcomes; /* ... so many times, then AGENT_OK */
    bool generation_runs;      /* a new one with each answer */
    bool keeper_silent;        /* takes questions and answers none */
    bool wrong_request_id;
    unsigned n_identity_get, n_issue, n_unanswered;
    EVP_PKEY *root_key;
    X509 *root;
    /* its tokens */
    EVP_PKEY *jwt_key; /* NULL: it has no key for them */
    uint64_t jwks_generation;
    uint32_t jwt_outcome;    /* of every JWT_SIGN ... */
    unsigned n_jwt_outcomes; /* ... so many times, then AGENT_OK */
    unsigned n_jwt_sign;
    unsigned n_ready;
    union agent_msg in, out;
};

/* --- the others --------------------------------------------------------------------------------
 */

static inline void send_ok(int fd, const void *msg, int fd_to_pass)
{
    assert_int_equal(agent_ipc_send(fd, msg, fd_to_pass), IPC_OK);
}

static inline void on_control(void *arg, unsigned ready)
{
    struct world *w = arg;
    int fd = -1;
    (void)ready;
    while (agent_ipc_recv(w->control, AGENT_WAY_SERVICE_SUPERVISOR, &w->in, &fd) == IPC_OK) {
        if (w->in.head.type == AGENT_MSG_READY) {
            w->n_ready++;
            loop_stop(w->loop);
        }
    }
}

static inline void on_attestor(void *arg, unsigned ready)
{
    struct world *w = arg;
    int fd = -1;
    (void)ready;
    while (agent_ipc_recv(w->attestor, AGENT_WAY_SERVICE_ATTESTOR, &w->in, &fd) == IPC_OK) {
        if (w->in.head.type == AGENT_MSG_RELEASE) {
            assert_int_equal(w->in.handle.handle, HANDLE);
            w->n_release++;
            loop_stop(w->loop);
            continue;
        }
        assert_int_equal(w->in.ask.handle, HANDLE);
        w->n_reattest++;
        agent_ipc_init(&w->out, AGENT_MSG_REATTESTED, w->in.head.request_id);
        w->out.reattested.handle = HANDLE;
        w->out.reattested.outcome = w->attest_outcome;
        send_ok(w->attestor, &w->out, -1);
    }
}

static inline void answer_identity(struct world *w, const struct agent_msg_identity_get *ask)
{
    struct agent_msg_identity *a = &w->out.identity;
    w->n_identity_get++;
    agent_ipc_init(a, AGENT_MSG_IDENTITY, ask->head.request_id);
    a->handle = ask->handle;
    a->generation = w->generation_runs ? ++w->generation : w->generation;
    a->facts = w->facts;
    a->position = ask->position;
    a->total = w->n_ids;
    if (ask->position >= w->n_ids) {
        a->outcome = AGENT_NOT_ENTITLED;
        return;
    }
    a->entry = ask->position + 10;
    a->ttl_s = w->ttl_s;
    assert_true(agent_ipc_put(a->spiffe_id, AGENT_ID_MAX, &a->spiffe_id_len,
                              str_of(w->ids[ask->position])));
    assert_true(agent_ipc_put(a->hint, AGENT_HINT_MAX, &a->hint_len, str_of(w->hint)));
}

static inline void answer_issue(struct world *w, const struct agent_msg_issue *ask)
{
    struct agent_msg_issued *a = &w->out.issued;
    w->n_issue++;
    agent_ipc_init(a, AGENT_MSG_ISSUED, ask->head.request_id);
    a->handle = ask->handle;
    if (w->n_issue_outcomes > 0) {
        w->n_issue_outcomes--;
        a->outcome = w->issue_outcome;
        return;
    }
    assert_int_equal(ask->generation, w->generation);
    assert_in_range(ask->entry, 10, 10 + w->n_ids - 1);
    int64_t now_s = os_wall_s();
    struct x509_issue what = {.spiffe_id = str_of(w->ids[ask->entry - 10]),
                              .point = ask->point,
                              .not_before_s = now_s - 10,
                              .not_after_s = now_s + w->ttl_s};
    X509 *leaf = NULL;
    uint8_t *der = NULL;
    size_t n = 0;
    assert_int_equal(x509_issue(&what, w->root, w->root_key, &leaf, NULL), 0);
    assert_int_equal(x509_to_der(leaf, &der, &n, NULL), 0);
    a->not_before_s = what.not_before_s;
    a->not_after_s = x509_not_after_s(leaf);
    memcpy(a->leaf, der, n);
    a->leaf_len = (uint32_t)n;
    X509_free(leaf);
    free(der);
}

static inline void answer_bundle(struct world *w, const struct agent_msg_ask *ask)
{
    struct agent_msg_bundle *a = &w->out.bundle;
    uint8_t *der = NULL;
    size_t n = 0;
    agent_ipc_init(a, AGENT_MSG_BUNDLE, ask->head.request_id);
    a->generation = w->bundle_generation;
    assert_int_equal(x509_to_der(w->root, &der, &n, NULL), 0);
    memcpy(a->roots, der, n);
    a->roots_len = (uint32_t)n;
    free(der);
}

static inline void answer_jwt_sign(struct world *w, const struct agent_msg_jwt_sign *ask)
{
    struct agent_msg_jwt_signed *a = &w->out.jwt_signed;
    struct str audiences[AGENT_AUDIENCES_MAX];
    size_t at = 0;
    char *token = NULL;
    w->n_jwt_sign++;
    agent_ipc_init(a, AGENT_MSG_JWT_SIGNED, ask->head.request_id);
    a->handle = ask->handle;
    if (w->n_jwt_outcomes > 0) {
        w->n_jwt_outcomes--;
        a->outcome = w->jwt_outcome;
        return;
    }
    assert_int_equal(ask->generation, w->generation);
    assert_in_range(ask->entry, 10, 10 + w->n_ids - 1);
    for (uint32_t i = 0; i < ask->n_audiences; i++) {
        audiences[i] = (struct str){(const char *)ask->audiences + at, ask->lens[i]};
        at += ask->lens[i];
    }
    assert_int_equal(at, ask->audiences_len);
    const struct jwt_statement what = {.spiffe_id = str_of(w->ids[ask->entry - 10]),
                                       .audiences = audiences,
                                       .n_audiences = ask->n_audiences,
                                       .issued_s = os_wall_s(),
                                       .expires_s = os_wall_s() + 300};
    assert_int_equal(jwt_sign(&what, w->jwt_key, &token, NULL), 0);
    a->token_len = (uint32_t)strlen(token);
    memcpy(a->token, token, a->token_len);
    free(token);
}

static inline void answer_jwks(struct world *w, const struct agent_msg_ask *ask)
{
    struct agent_msg_jwks *a = &w->out.jwks;
    struct buf set = BUF_INIT(AGENT_JWKS_MAX);
    agent_ipc_init(a, AGENT_MSG_JWKS, ask->head.request_id);
    a->generation = w->jwks_generation;
    assert_true(buf_append(&set, "{\"keys\":[", 9));
    assert_int_equal(jwt_key_write(w->jwt_key, false, &set, NULL), 0);
    assert_true(buf_append(&set, "]}", 2));
    a->jwks_len = (uint32_t)buf_len(&set);
    memcpy(a->jwks, buf_head(&set), a->jwks_len);
    buf_reset(&set);
}

static inline void on_keeper(void *arg, unsigned ready)
{
    struct world *w = arg;
    int fd = -1;
    (void)ready;
    while (agent_ipc_recv(w->keeper, AGENT_WAY_SERVICE_KEEPER, &w->in, &fd) == IPC_OK) {
        if (w->keeper_silent) {
            w->n_unanswered++;
            continue;
        }
        switch (w->in.head.type) {
        case AGENT_MSG_IDENTITY_GET:
            answer_identity(w, &w->in.identity_get);
            break;
        case AGENT_MSG_ISSUE:
            answer_issue(w, &w->in.issue);
            break;
        case AGENT_MSG_JWT_SIGN:
            answer_jwt_sign(w, &w->in.jwt_sign);
            break;
        case AGENT_MSG_JWKS_GET:
            answer_jwks(w, &w->in.ask);
            break;
        default:
            answer_bundle(w, &w->in.ask);
            break;
        }
        if (w->wrong_request_id) {
            w->out.head.request_id += 1000;
        }
        send_ok(w->keeper, &w->out, -1);
    }
}

static inline void tell_changed(struct world *w)
{
    struct agent_msg_changed msg;
    agent_ipc_init(&msg, AGENT_MSG_CHANGED, 0);
    msg.entries_generation = w->generation;
    msg.bundle_generation = w->bundle_generation;
    msg.root_not_after_s = os_wall_s() + 86400;
    msg.node_not_after_s = os_wall_s() + 3600;
    msg.n_issued = w->n_issue;
    msg.jwks_generation = w->jwks_generation;
    send_ok(w->keeper, &msg, -1);
}

/* --- the world ---------------------------------------------------------------------------------
 */

static inline void on_guard(void *arg)
{
    struct world *w = arg;
    w->timed_out = true;
    loop_stop(w->loop);
}

static inline void on_calm(void *arg)
{
    loop_stop(((struct world *)arg)->loop);
}

static inline void run(struct world *w)
{
    loop_timer_arm(&w->guard, PATIENCE_MS);
    loop_run(w->loop);
    loop_timer_disarm(&w->guard);
    if (w->timed_out) {
        fail_msg("nothing came any more");
    }
}

/* For what must not happen: everything that is under way has run its course. */
static inline void run_calm(struct world *w)
{
    loop_timer_arm(&w->calm, 100);
    run(w);
    loop_timer_disarm(&w->calm);
}

static inline void make_root(struct world *w)
{
    uint8_t point[65];
    w->root_key = x509_key_new(NULL);
    assert_int_equal(x509_key_point(w->root_key, point, NULL), 0);
    struct x509_issue what = {.spiffe_id = STR_LIT("spiffe://example.org"),
                              .point = point,
                              .ca = true,
                              .path_len = -1,
                              .not_before_s = os_wall_s() - 10,
                              .not_after_s = os_wall_s() + 86400};
    assert_int_equal(x509_issue(&what, NULL, w->root_key, &w->root, NULL), 0);
}

static inline int pair(int *ret_mine)
{
    int fds[2];
    assert_int_equal(ipc_pair(fds, NULL), 0);
    *ret_mine = fds[0];
    return fds[1];
}

static inline struct loop_io *watch(struct world *w, int fd, loop_io_fn fn)
{
    struct loop_io *io = loop_io_new(w->loop, fd, fn, w);
    loop_io_want(io, LOOP_READ);
    return io;
}

static inline void world_init(struct world *w)
{
    *w = (struct world){.attest_outcome = AGENT_ATTEST_OK,
                        .ids = {"spiffe://example.org/first", "spiffe://example.org/second"},
                        .hint = "internal",
                        .n_ids = 2,
                        .ttl_s = 3600,
                        .generation = 5,
                        .facts = 1,
                        .bundle_generation = 1};
    make_root(w);
    w->s = mem_must_new(struct service);
    w->s->loop = w->loop = loop_new(NULL);
    w->s->log = log_new_fd(STDERR_FILENO, LOG_ERROR, "service");
    assert_true(agent_ipc_put(w->s->start.trust_domain, AGENT_TRUST_DOMAIN_MAX,
                              &w->s->start.trust_domain_len, STR_LIT("example.org")));
    w->s->start.max_calls = 100;
    w->s->start.max_uid_calls = 64;
    w->s->start.max_conn_calls = 64;
    w->s->start.max_uid_bytes = 64U << 20;
    loop_timer_init(&w->guard, w->loop, on_guard, w);
    loop_timer_init(&w->calm, w->loop, on_calm, w);
    int control = pair(&w->control);
    int attestor = pair(&w->attestor);
    int keeper = pair(&w->keeper);
    w->control_io = watch(w, w->control, on_control);
    w->attestor_io = watch(w, w->attestor, on_attestor);
    w->keeper_io = watch(w, w->keeper, on_keeper);
    assert_int_equal(service_open(w->s, control, attestor, keeper, NULL), 0);
}

static inline void world_start(struct world *w)
{
    world_init(w);
    tell_changed(w);
    run(w);
    assert_int_equal(w->n_ready, 1);
}

static inline void world_deinit(struct world *w)
{
    int fds[] = {w->s->control.fd, w->s->attestor.fd, w->s->keeper.fd,
                 w->control,       w->attestor,       w->keeper};
    loop_io_free(w->control_io);
    loop_io_free(w->attestor_io);
    loop_io_free(w->keeper_io);
    loop_timer_disarm(&w->guard);
    loop_timer_disarm(&w->calm);
    struct log *log = w->s->log;
    service_close(w->s);
    log_free(log);
    free(w->s);
    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
        (void)close(fds[i]);
    }
    X509_free(w->root);
    EVP_PKEY_free(w->root_key);
    EVP_PKEY_free(w->jwt_key);
}

/* --- a client ----------------------------------------------------------------------------------
 */

struct client {
    struct world *w;
    struct grpc_client *grpc;
    struct grpc_client_call *call;
    bool closed, ended;
    enum grpc_status status;
    char text[300];
    unsigned n_messages;
    uint8_t *last; /* the last message, owned */
    size_t n_last;
};

static inline void client_closed(void *arg, const struct err *why)
{
    struct client *c = arg;
    (void)why;
    c->closed = true;
    loop_stop(c->w->loop);
}

static inline void client_message(void *arg, struct str m)
{
    struct client *c = arg;
    c->n_messages++;
    free(c->last);
    c->last = malloc(m.n + 1);
    assert_non_null(c->last);
    if (m.n > 0) {
        memcpy(c->last, m.p, m.n);
    }
    c->n_last = m.n;
    loop_stop(c->w->loop);
}

static inline void client_end(void *arg, enum grpc_status status, const char *text)
{
    struct client *c = arg;
    c->ended = true;
    c->status = status;
    c->call = NULL;
    (void)snprintf(c->text, sizeof(c->text), "%s", text);
    loop_stop(c->w->loop);
}

static const struct grpc_client_handlers handlers = {client_message, client_end};
static const struct grpc_client_events client_events = {NULL, client_closed};

static inline void client_init(struct client *c, struct world *w)
{
    int fds[2];
    struct agent_msg_connection msg;
    *c = (struct client){.w = w};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    agent_ipc_init(&msg, AGENT_MSG_CONNECTION, 0);
    msg.handle = HANDLE;
    msg.account = 1001;
    msg.uid = 1001;
    msg.gid = 1001;
    msg.pid = 4711;
    send_ok(w->attestor, &msg, fds[1]);
    (void)close(fds[1]);
    c->grpc = grpc_client_new_fd(w->loop, fds[0], NULL, &client_events, c, NULL);
    assert_non_null(c->grpc);
}

static inline void client_deinit(struct client *c)
{
    grpc_client_free(c->grpc);
    free(c->last);
}

static inline void client_ask(struct client *c, const char *path, const char *value, bool streaming,
                              struct str message)
{
    const struct grpc_metadata metadata[] = {{PROTO_WORKLOAD_KEY, value}};
    const struct grpc_request request = {.path = path,
                                         .message = message,
                                         .metadata = metadata,
                                         .n_metadata = value != NULL ? 1 : 0,
                                         .streaming = streaming};
    c->ended = false;
    c->n_messages = 0;
    c->call = grpc_client_start(c->grpc, &request, &handlers, c, NULL);
    assert_non_null(c->call);
}

static inline void run_to_end(struct client *c)
{
    while (!c->ended) {
        run(c->w);
    }
}

static inline void run_to_messages(struct client *c, unsigned n)
{
    while (c->n_messages < n) {
        run(c->w);
        if (c->ended) {
            fail_msg("ended with %s: %s", grpc_status_name(c->status), c->text);
        }
    }
}

static inline void expect_end(struct client *c, const char *path, bool streaming,
                              struct str message, enum grpc_status status)
{
    client_ask(c, path, "true", streaming, message);
    run_to_end(c);
    if (c->status != status) {
        fail_msg("%s: %s (%s), not %s", path, grpc_status_name(c->status), c->text,
                 grpc_status_name(status));
    }
}

/* Decodes the last message and judges it as a client would; the first SVID's serial and count. */
static inline void check_svids(struct client *c, unsigned n, char ret_serial[48])
{
    Workload__X509SVIDResponse *r = workload__x509_svidresponse__unpack(NULL, c->n_last, c->last);
    assert_non_null(r);
    assert_int_equal(r->n_svids, n);
    assert_int_equal(r->n_federated_bundles, 0);
    assert_int_equal(r->n_crl, 0);
    for (unsigned i = 0; i < n; i++) {
        const Workload__X509SVID *v = r->svids[i];
        struct x509_svid *svid = NULL;
        struct err err = ERR_INIT;
        assert_string_equal(v->spiffe_id, c->w->ids[i]);
        assert_string_equal(v->hint, i == 0 ? "internal" : ""); /* a hint is unique */
        EVP_PKEY *key = x509_key_from_pkcs8(
            (struct str){(const char *)v->x509_svid_key.data, v->x509_svid_key.len}, &err);
        assert_non_null(key);
        if (x509_svid_new((struct str){(const char *)v->x509_svid.data, v->x509_svid.len}, key,
                          &svid, &err) == -1) {
            fail_msg("%s", err.what);
        }
        assert_string_equal(svid->spiffe_id, c->w->ids[i]);
        struct x509_trust *trust = x509_trust_new();
        assert_int_equal(x509_trust_add(trust, STR_LIT("example.org"),
                                        (struct str){(const char *)v->bundle.data, v->bundle.len},
                                        &err),
                         0);
        struct x509_peer peer;
        assert_int_equal(x509_verify_svid(trust, svid->leaf, svid->intermediates, true, os_wall_s(),
                                          &peer, &err),
                         X509_OK);
        if (i == 0) {
            (void)snprintf(ret_serial, 48, "%s", svid->serial);
        }
        x509_trust_unref(trust);
        x509_svid_free(svid);
        EVP_PKEY_free(key);
    }
    workload__x509_svidresponse__free_unpacked(r, NULL);
}

/* --- tokens ------------------------------------------------------------------------------------
 */
static inline void world_start_jwt(struct world *w)
{
    world_init(w);
    w->jwt_key = jwt_key_new(JWT_ES256, NULL);
    w->jwks_generation = 1;
    tell_changed(w);
    run(w);
    assert_int_equal(w->n_ready, 1); /* and the keys are there by then */
}

static inline struct str jwt_request(const char *audience, const char *id, uint8_t out[4096])
{
    char *audiences[] = {(char *)(uintptr_t)audience};
    Workload__JWTSVIDRequest r;
    workload__jwtsvidrequest__init(&r);
    r.n_audience = 1;
    r.audience = audiences;
    r.spiffe_id = (char *)(uintptr_t)id;
    return (struct str){(const char *)out, workload__jwtsvidrequest__pack(&r, out)};
}

static inline struct str validate_request(const char *audience, const char *token,
                                          uint8_t out[4096])
{
    Workload__ValidateJWTSVIDRequest r;
    workload__validate_jwtsvidrequest__init(&r);
    r.audience = (char *)(uintptr_t)audience;
    r.svid = (char *)(uintptr_t)token;
    return (struct str){(const char *)out, workload__validate_jwtsvidrequest__pack(&r, out)};
}

#endif
