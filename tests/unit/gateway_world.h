/*
 * gateway_world: whole connections of gateways in a test: a server's worker, maybe a client's
 * before it, each with a thread of its own; clients and targets are the test's. Asserts instead of
 * failing.
 */
#ifndef POSTERN_TEST_GATEWAY_WORLD_H
#define POSTERN_TEST_GATEWAY_WORLD_H

#include <postern/conn.h>

#include "certs.h"
#include "held_port.h"
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

enum { WAIT_MS = 10000 };

static const char ALLOW[] = "kind: Policy\nlevel: 1\nrules:\n  - name: client-may\n"
                            "    action: ALLOW\n    from:\n"
                            "      - principals: [\"spiffe://a.b/client\"]\n";

/* --- the world -------------------------------------------------------------------------------- */
struct side {
    char dir[64];
    uint64_t generation;
    struct snapshot_files *files;
    struct snapshot_identity *identity;
    struct snapshot_parties *parties;
    struct resolve_state *resolved;
    struct snapshot_state *state; /* what an agent says; NULL: nothing */
    struct balance *balance;      /* of lists of targets */
    struct conn_shared shared;
    struct conn_worker *worker;
    struct x509_svid *svid;
    int log_wake, log_fd;
};

struct world {
    struct side server, client; /* client.worker NULL: only one */
    int target[2];              /* listening */
    uint16_t target_port[2], port, plain;
    int held[2]; /* these two */
    struct certs_pair root;
    struct x509_trust *trust;
};

static inline void write_file(const char *dir, const char *name, const char *text)
{
    char path[160];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static inline int listen_on(const char *ip, uint16_t *port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(*port)};
    socklen_t len = sizeof(a);
    inet_pton(AF_INET, ip, &a.sin_addr);
    int one = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    assert_int_equal(bind(fd, (struct sockaddr *)&a, len), 0);
    assert_int_equal(listen(fd, 16), 0);
    getsockname(fd, (struct sockaddr *)&a, &len);
    *port = ntohs(a.sin_port);
    return fd;
}

static inline void make_identity(struct world *w, struct side *s, const char *id)
{
    struct certs_spec spec = certs_leaf(id);
    spec.not_before_s = os_wall_s() - 60;
    spec.not_after_s = os_wall_s() + 3600;
    spec.common_name = "some name";
    struct certs_pair leaf = certs_make(&spec, &w->root);
    size_t len = 0;
    uint8_t *der = certs_der(&leaf.cert, 1, &len);
    struct err err = ERR_INIT;
    if (x509_svid_new((struct str){(char *)der, len}, leaf.key, &s->svid, &err) == -1 ||
        snapshot_identity_new(s->svid, w->trust, NULL, &s->identity, &err) == -1) {
        fail_msg("%s", err.what);
    }
    free(der);
    certs_free(&leaf);
}

static inline const struct x509_svid *no_own(void *arg, const char *name)
{
    (void)arg;
    (void)name;
    return NULL;
}
static inline const struct x509_peers *no_peers(void *arg, const char *name)
{
    (void)arg;
    (void)name;
    return NULL;
}

static inline void load_with(struct world *w, struct side *s, const char *conf, const char *policy)
{
    char path[160];
    struct conf_diag *diag = conf_diag_new();
    struct conf_proxy *file = NULL;
    struct err err = ERR_INIT;
    snapshot_files_unref(s->files);
    snapshot_parties_unref(s->parties);
    s->files = NULL;
    s->parties = NULL;
    write_file(s->dir, "gateway.yaml", conf);
    write_file(s->dir, "policy.yaml", policy);
    snprintf(path, sizeof(path), "%s/gateway.yaml", s->dir);
    const struct snapshot_material from = {
        .own = no_own, .peers = no_peers, .identity = s->svid, .identity_trust = w->trust};
    if (conf_load_gateway(path, diag, &file) == -1 ||
        snapshot_files_new(file, ++s->generation, diag, &s->files, &err) == -1 ||
        snapshot_parties_new(s->files, &from, &s->parties, &err) == -1) {
        char text[1000] = "";
        if (conf_diag_count(diag) > 0) {
            err_text(conf_diag_get(diag, 0), text, sizeof(text));
        }
        fail_msg("%s %s", err.what, text);
    }
    conf_diag_free(diag);
}

static inline void load(struct world *w, struct side *s, const char *conf)
{
    load_with(w, s, conf, ALLOW);
}

static inline struct snapshot *snapshot_of(struct side *s)
{
    struct balance_state *b =
        snapshot_balance(s->balance, s->files, NULL, s->resolved, os_now_ms());
    struct snapshot *snap =
        snapshot_new(++s->generation, &(const struct snapshot_parts){.files = s->files,
                                                                     .identity = s->identity,
                                                                     .parties = s->parties,
                                                                     .balance = b,
                                                                     .state = s->state,
                                                                     .resolved = s->resolved});
    balance_state_unref(b);
    return snap;
}

static inline void post(struct side *s)
{
    struct snapshot *snap = snapshot_of(s);
    conn_worker_post_snapshot(s->worker, snap);
    snapshot_unref(snap);
}

static inline void side_start(struct world *w, struct side *s, const char *conf)
{
    char path[160];
    struct err err = ERR_INIT;
    strcpy(s->dir, "/tmp/postern-test-names-XXXXXX");
    assert_non_null(mkdtemp(s->dir));
    load(w, s, conf);
    s->balance = balance_new();
    s->log_wake = eventfd(0, EFD_NONBLOCK);
    snprintf(path, sizeof(path), "%s/log", s->dir);
    FILE *f = fopen(path, "w+");
    s->log_fd = dup(fileno(f));
    fclose(f);
    struct snapshot *snap = snapshot_of(s);
    struct conn_worker_spec spec = {
        .n_workers = 1, .shared = &s->shared, .first = snap, .log_wake_fd = s->log_wake};
    if (conn_worker_new(&spec, &s->worker, &err) == -1 ||
        conn_worker_start(s->worker, &err) == -1) {
        fail_msg("%s", err.what);
    }
    snapshot_unref(snap);
}

static inline void side_stop(struct side *s)
{
    static const char *const names[] = {"gateway.yaml", "policy.yaml", "log"};
    char path[160];
    if (s->worker != NULL) {
        conn_worker_stop(s->worker);
        conn_worker_free(s->worker);
        assert_int_equal(s->shared.open, 0);
        close(s->log_wake);
        close(s->log_fd);
        for (size_t i = 0; i < 3; i++) {
            snprintf(path, sizeof(path), "%s/%s", s->dir, names[i]);
            unlink(path);
        }
        rmdir(s->dir);
    }
    snapshot_files_unref(s->files);
    snapshot_parties_unref(s->parties);
    snapshot_identity_unref(s->identity);
    snapshot_state_unref(s->state);
    resolve_state_unref(s->resolved);
    balance_free(s->balance);
    x509_svid_free(s->svid);
}

/* listener: the keys of one, with up to three numbers: its own port, those of the targets. */
static inline struct world *world_new(const char *listener)
{
    struct world *w = calloc(1, sizeof(*w));
    struct certs_spec spec = certs_ca("spiffe://a.b");
    spec.not_before_s = os_wall_s() - 3600;
    spec.not_after_s = os_wall_s() + 86400;
    w->root = certs_make(&spec, NULL);
    w->trust = x509_trust_new();
    size_t len = 0;
    uint8_t *der = certs_der(&w->root.cert, 1, &len);
    assert_int_equal(x509_trust_add(w->trust, STR_LIT("a.b"), (struct str){(char *)der, len}, NULL),
                     0);
    free(der);
    w->target[0] = listen_on("127.0.0.1", &w->target_port[0]);
    w->target[1] = listen_on("127.0.0.1", &w->target_port[1]);
    w->held[0] = held_port(&w->port);
    w->held[1] = held_port(&w->plain);
    make_identity(w, &w->server, "spiffe://a.b/server");
    make_identity(w, &w->client, "spiffe://a.b/client");
    char conf[2000];
    int n =
        snprintf(conf, sizeof(conf),
                 "kind: Gateway\nlevel: 1\nidentity: {socket: unix:/nowhere, wait: 300ms}\n"
                 "policy: policy.yaml\ntimeouts: {handshake: 500ms, connect: 2s}\nlisteners:\n");
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(conf + n, sizeof(conf) - (size_t)n, listener, w->port, w->target_port[0],
             w->target_port[1]);
#pragma GCC diagnostic pop
    side_start(w, &w->server, conf);
    return w;
}

/* A client gateway before it, that asks for a server name; more: further keys. */
static inline void add_client(struct world *w, uint16_t to, const char *more)
{
    char conf[1500];
    snprintf(conf, sizeof(conf),
             "kind: Gateway\nlevel: 1\nidentity: {socket: unix:/nowhere}\nlisteners:\n"
             "  - {name: out, type: client, address: 127.0.0.1:%u, to: 127.0.0.1:%u,\n"
             "     identities: [\"spiffe://a.b/server\"]%s}\n",
             w->plain, to, more);
    side_start(w, &w->client, conf);
}

static inline void world_free(struct world *w)
{
    side_stop(&w->client);
    side_stop(&w->server);
    close(w->target[0]);
    close(w->target[1]);
    close(w->held[0]);
    close(w->held[1]);
    certs_free(&w->root);
    x509_trust_unref(w->trust);
    free(w);
}

/* --- clients and targets ---------------------------------------------------------------------- */
static inline void set_timeouts(int fd)
{
    struct timeval t = {.tv_sec = WAIT_MS / 1000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof(t));
}

static inline int dial(uint16_t port)
{
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    set_timeouts(fd);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    return fd;
}

static inline int take(int listening)
{
    struct pollfd p = {.fd = listening, .events = POLLIN};
    assert_int_equal(poll(&p, 1, WAIT_MS), 1);
    int fd = accept(listening, NULL, NULL);
    assert_int_not_equal(fd, -1);
    set_timeouts(fd);
    return fd;
}

static inline void say(int fd, const void *bytes, size_t n)
{
    assert_int_equal(send(fd, bytes, n, MSG_NOSIGNAL), (ssize_t)n);
}

static inline void hear(int fd, const void *bytes, size_t n)
{
    static uint8_t got[65536];
    size_t have = 0;
    while (have < n) {
        ssize_t r = recv(fd, got + have, n - have, 0);
        if (r <= 0) {
            fail_msg("%zu of %zu bytes, then %s", have, n, r == 0 ? "the end" : strerror(errno));
        }
        have += (size_t)r;
    }
    assert_memory_equal(got, bytes, n);
}

static inline void hear_reset(int fd)
{
    char c;
    ssize_t n;
    while ((n = recv(fd, &c, 1, 0)) > 0) {
    }
    if (n != -1 || errno != ECONNRESET) {
        fail_msg("instead of a reset: %s", n == 0 ? "the end" : strerror(errno));
    }
    close(fd);
}

static inline bool nobody_came(int listening)
{
    struct pollfd p = {.fd = listening, .events = POLLIN};
    return poll(&p, 1, 0) == 0;
}

/* Waits until a line of the log holds both words, and returns it. */
static inline const char *log_line(struct side *s, const char *a, const char *b)
{
    static char text[1 << 18];
    uint64_t end = os_now_ms() + WAIT_MS;
    while (os_now_ms() < end) {
        log_drain(conn_worker_log(s->worker), s->log_fd);
        ssize_t n = pread(s->log_fd, text, sizeof(text) - 1, 0);
        text[n > 0 ? n : 0] = '\0';
        char *save = NULL;
        for (char *l = strtok_r(text, "\n", &save); l != NULL; l = strtok_r(NULL, "\n", &save)) {
            if (strstr(l, a) != NULL && strstr(l, b) != NULL) {
                return l;
            }
        }
        struct pollfd p = {.fd = s->log_wake, .events = POLLIN};
        poll(&p, 1, 20);
        uint64_t drop;
        (void)!read(s->log_wake, &drop, sizeof(drop));
    }
    fail_msg("no line with %s and %s", a, b);
    return NULL;
}

static inline struct resolve_state *resolved(const char *host, const char *const *ips, size_t n)
{
    struct resolve_state *s = mem_must_new(struct resolve_state);
    atomic_init(&s->refs, 1);
    s->hosts = mem_must_calloc(1, sizeof(*s->hosts));
    s->n_hosts = 1;
    s->hosts[0].host = mem_must_strdup(host);
    s->hosts[0].addrs = mem_must_calloc(n + 1, sizeof(struct net_addr));
    s->hosts[0].n_addrs = s->hosts[0].n_preferred = n;
    for (size_t i = 0; i < n; i++) {
        struct sockaddr_in in = {.sin_family = AF_INET};
        inet_pton(AF_INET, ips[i], &in.sin_addr);
        net_addr_from((struct sockaddr *)&in, sizeof(in), &s->hosts[0].addrs[i]);
    }
    return s;
}

/* The side's policy lets nobody in any more, in force or about to be. */
static inline void deny_everybody(struct world *w, struct side *s)
{
    char path[160];
    char conf[2000];
    snprintf(path, sizeof(path), "%s/gateway.yaml", s->dir);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    conf[fread(conf, 1, sizeof(conf) - 1, f)] = '\0';
    fclose(f);
    load_with(w, s, conf, "kind: Policy\nlevel: 1\nrules: [{name: nobody, action: DENY}]\n");
    post(s);
}

#endif
