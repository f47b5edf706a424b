/*
 * A client-side and a server-side worker, each with its own thread, between clients and a workload
 * that the test plays over loopback. The client's side goes by HBONE.
 */
#ifndef POSTERN_TEST_HBONE_WORLD_H
#define POSTERN_TEST_HBONE_WORLD_H

#include <postern/conn.h>

#include "certs.h"
#include "held_port.h"
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <postern/hbone.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

enum { WAIT_MS = 20000 };

/* --- the world -------------------------------------------------------------------------------- */
struct side {
    char dir[64];
    uint64_t generation;
    struct snapshot_files *files;
    struct snapshot_identity *identity;
    struct snapshot_state *state; /* what the agent told; NULL: nothing */
    struct conn_shared shared;
    struct conn_worker *worker;
    int log_wake, log_fd;
};

struct world {
    struct side client, server;
    int workload;                          /* listening */
    uint16_t port, hbone, backend, closed; /* where the client connects, and so on */
    int held[3];
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

/* The client's listener is an explicit one, whose way is said to be HBONE: what is redirected comes
 * to the same, and needs a network of its own. */
static inline void load(struct world *w, struct side *s)
{
    char path[160];
    struct conf_diag *diag = conf_diag_new();
    struct conf_proxy *conf = NULL;
    struct err err = ERR_INIT;
    snapshot_files_unref(s->files);
    snprintf(path, sizeof(path), "%s/proxy.yaml", s->dir);
    if (conf_load_proxy(path, diag, &conf) == -1 ||
        snapshot_files_new(conf, ++s->generation, diag, &s->files, &err) == -1) {
        fail_msg("%s", err.what);
    }
    conf_diag_free(diag);
    if (s == &w->client) {
        s->files->listeners[0].explicit_route->transport = CONF_TRANSPORT_HBONE;
        s->files->listeners[0].explicit_route->hbone_port = w->hbone;
    }
}

static inline struct snapshot *snapshot_of(struct side *s)
{
    return snapshot_new(++s->generation, &(const struct snapshot_parts){.files = s->files,
                                                                        .identity = s->identity,
                                                                        .state = s->state});
}

static inline void post(struct side *s)
{
    struct snapshot *snap = snapshot_of(s);
    conn_worker_post_snapshot(s->worker, snap);
    snapshot_unref(snap);
    /* It is in force before anything else is done. */
    uint64_t end = os_now_ms() + WAIT_MS;
    while (conn_worker_counters(s->worker)->generation != s->generation) {
        assert_true(os_now_ms() < end);
        struct pollfd p = {.fd = s->log_wake, .events = POLLIN};
        poll(&p, 1, 1);
    }
}

static inline void side_start(struct world *w, struct side *s, const char *conf, const char *policy)
{
    struct err err = ERR_INIT;
    char path[96];
    strcpy(s->dir, "/tmp/postern-test-hbone-XXXXXX");
    assert_non_null(mkdtemp(s->dir));
    write_file(s->dir, "proxy.yaml", conf);
    write_file(s->dir, "policy.yaml", policy);
    load(w, s);
    s->log_wake = eventfd(0, EFD_NONBLOCK);
    snprintf(path, sizeof(path), "%s/log", s->dir);
    FILE *f = fopen(path, "w+");
    s->log_fd = dup(fileno(f));
    fclose(f);
    struct snapshot *snap = snapshot_of(s);
    struct conn_worker_spec spec = {.role = "proxy",
                                    .n_workers = 1,
                                    .shared = &s->shared,
                                    .first = snap,
                                    .log_wake_fd = s->log_wake};
    if (conn_worker_new(&spec, &s->worker, &err) == -1 ||
        conn_worker_start(s->worker, &err) == -1) {
        fail_msg("%s", err.what);
    }
    snapshot_unref(snap);
}

static inline void side_stop(struct side *s)
{
    static const char *const names[] = {"proxy.yaml", "policy.yaml", "log"};
    char path[160];
    if (s->worker != NULL) {
        conn_worker_stop(s->worker);
        conn_worker_free(s->worker);
    }
    snapshot_files_unref(s->files);
    snapshot_identity_unref(s->identity);
    snapshot_state_unref(s->state);
    assert_int_equal(s->shared.open, 0);
    close(s->log_wake);
    close(s->log_fd);
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof(path), "%s/%s", s->dir, names[i]);
        unlink(path);
    }
    rmdir(s->dir);
}

/* Waits until a line of the log holds all of the words, and returns it. */
static inline char *log_line(struct side *s, const char *a, const char *b)
{
    static char text[1 << 20];
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

static inline void expect_in(const char *text, const char *part)
{
    assert_non_null(text);
    assert_non_null(part);
    if (strstr(text, part) == NULL) {
        fail_msg("no '%s' in '%s'", part, text);
    }
}

static inline int listen_any(uint16_t *ret_port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof(a);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, len), 0);
    assert_int_equal(listen(fd, 200), 0);
    getsockname(fd, (struct sockaddr *)&a, &len);
    *ret_port = ntohs(a.sin_port);
    return fd;
}

static inline struct snapshot_identity *make_identity_for(struct world *w, const char *id,
                                                          int64_t for_s)
{
    struct certs_spec spec = certs_leaf(id);
    spec.not_before_s = os_wall_s() - 60;
    spec.not_after_s = os_wall_s() + for_s;
    struct certs_pair leaf = certs_make(&spec, &w->root);
    size_t len = 0;
    uint8_t *der = certs_der(&leaf.cert, 1, &len);
    struct x509_svid *svid = NULL;
    struct snapshot_identity *i = NULL;
    struct err err = ERR_INIT;
    if (x509_svid_new((struct str){(char *)der, len}, leaf.key, &svid, &err) == -1 ||
        snapshot_identity_new(svid, w->trust, NULL, &i, &err) == -1) {
        fail_msg("%s", err.what);
    }
    x509_svid_free(svid);
    free(der);
    certs_free(&leaf);
    return i;
}

static inline struct snapshot_identity *make_identity(struct world *w, const char *id)
{
    return make_identity_for(w, id, 3600);
}

static inline void new_root(struct world *w)
{
    struct certs_spec spec = certs_ca("spiffe://a.b");
    spec.not_before_s = os_wall_s() - 3600;
    spec.not_after_s = os_wall_s() + 86400;
    x509_trust_unref(w->trust);
    certs_free(&w->root);
    w->root = certs_make(&spec, NULL);
    w->trust = x509_trust_new();
    size_t len = 0;
    uint8_t *der = certs_der(&w->root.cert, 1, &len);
    assert_int_equal(x509_trust_add(w->trust, STR_LIT("a.b"), (struct str){(char *)der, len}, NULL),
                     0);
    free(der);
}

/* `address`: where the server's HBONE listener stands; `more`: further lines of it, `both`: of both
 * files. */
static inline struct world *world_new_at(const char *address, const char *more, const char *both,
                                         const char *protocol, const char *policy)
{
    struct world *w = calloc(1, sizeof(*w));
    char conf[1200];
    new_root(w);
    w->workload = listen_any(&w->backend);
    w->held[0] = held_port(&w->port);
    w->held[1] = held_port(&w->hbone);
    w->held[2] = held_port(&w->closed);
    w->client.identity = make_identity(w, "spiffe://a.b/client");
    w->server.identity = make_identity(w, "spiffe://a.b/server");
    snprintf(conf, sizeof(conf),
             "kind: Proxy\nlevel: 1\nname: server\nidentity:\n  socket: unix:/nowhere\n"
             "policy: policy.yaml\n%slisteners:\n  - name: in\n    direction: inbound\n"
             "    capture: hbone\n    address: %s:%u\n%s    ports:\n"
             "      - {port: %u, protocol: %s}\n",
             both, address, w->hbone, more, w->backend, protocol);
    side_start(w, &w->server, conf, policy);
    snprintf(conf, sizeof(conf),
             "kind: Proxy\nlevel: 1\nname: client\nidentity:\n  socket: unix:/nowhere\n"
             "%slisteners:\n  - name: out\n    direction: outbound\n"
             "    capture: explicit\n    address: 127.0.0.1:%u\n    to: 127.0.0.1:%u\n"
             "    identities: [\"spiffe://a.b/server\"]\n    protocol: tcp\n",
             both, w->port, w->backend);
    side_start(w, &w->client, conf, "kind: Policy\nlevel: 1\nrules: []\n");
    return w;
}

static inline struct world *world_new(const char *protocol, const char *policy)
{
    return world_new_at("127.0.0.1", "", "", protocol, policy);
}

static inline void world_free(struct world *w)
{
    side_stop(&w->client);
    side_stop(&w->server);
    close(w->workload);
    for (size_t i = 0; i < 3; i++) {
        close(w->held[i]);
    }
    certs_free(&w->root);
    x509_trust_unref(w->trust);
    free(w);
}

static inline uint64_t sessions(const struct side *s, enum conf_direction d)
{
    return conn_worker_counters(s->worker)->sessions[d];
}

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
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    set_timeouts(fd);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    return fd;
}

static inline int take(struct world *w)
{
    struct pollfd p = {.fd = w->workload, .events = POLLIN};
    assert_int_equal(poll(&p, 1, WAIT_MS), 1);
    int fd = accept(w->workload, NULL, NULL);
    assert_int_not_equal(fd, -1);
    set_timeouts(fd);
    return fd;
}

static inline void say(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

static inline void hear(int fd, const char *text)
{
    char got[4096];
    size_t n = 0;
    while (n < strlen(text)) {
        ssize_t r = recv(fd, got + n, strlen(text) - n, 0);
        if (r <= 0) {
            fail_msg("instead of '%s': %s", text, r == 0 ? "the end" : strerror(errno));
        }
        n += (size_t)r;
    }
    got[n] = '\0';
    assert_string_equal(got, text);
}

static inline void hear_end(int fd)
{
    char c;
    ssize_t n = recv(fd, &c, 1, 0);
    if (n != 0) {
        fail_msg("instead of the end: %s", n > 0 ? "a byte" : strerror(errno));
    }
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

static inline void reset(int fd)
{
    struct linger hard = {.l_onoff = 1};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
    close(fd);
}

/* A connection through both, and what it ends at. */
static inline int through(struct world *w, int *ret_s)
{
    int c = dial(w->port);
    *ret_s = take(w);
    say(c, "hi");
    hear(*ret_s, "hi");
    return c;
}

#endif
