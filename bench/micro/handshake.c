/*
 * What a full handshake costs a pair of TLS streams of ours beside a bare pair of OpenSSL's, and
 * what such a pair holds while it is idle: the same certificates (an own root, an intermediate,
 * P-256), both sides mutual and verifying, in one process.
 *
 *   handshake bare|postern|forgetful COUNT
 *                  makes COUNT handshakes, for counting instructions: valgrind --tool=callgrind,
 * the difference of two COUNTs. forgetful: as postern, but each with a new worker, so that no chain
 * has been verified before handshake      CPU time and memory of all, one JSON object
 *
 *   handshake threads N shared|own
 *                  CPU time of a bare handshake where N threads make them at the same time, with
 * one library context of OpenSSL's for all or one for each (docs/performance.md). Only N idle cores
 * say anything: else the threads seldom meet
 */
#include <malloc.h>
#include <openssl/err.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <postern/tls.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { HELD = 512, THREADS_MAX = 16 };

enum kind { BARE, POSTERN, FORGETFUL, N_KINDS };

struct party_of {
    X509 *leaf;
    EVP_PKEY *key;
};

static struct world {
    X509 *root, *middle;
    struct party_of client, server;
    SSL_CTX *bare_client, *bare_server;
    struct tls_party *ours_client, *ours_server;
    struct net_scratch scratch;
    struct tls_worker worker;
} w;

static void die(const char *what)
{
    fprintf(stderr, "handshake: %s\n", what);
    ERR_print_errors_fp(stderr);
    exit(1); /* NOLINT(concurrency-mt-unsafe): one thread */
}

static X509 *issue(const char *id, EVP_PKEY *key, bool ca, X509 *issuer, EVP_PKEY *issuer_key)
{
    uint8_t point[65];
    X509 *cert = NULL;
    struct x509_issue what = {.spiffe_id = str_of(id),
                              .point = point,
                              .ca = ca,
                              .path_len = -1,
                              .not_before_s = os_wall_s() - 60,
                              .not_after_s = os_wall_s() + 3600};
    if (x509_key_point(key, point, NULL) == -1 ||
        x509_issue(&what, issuer, issuer_key, &cert, NULL) == -1) {
        die(id);
    }
    return cert;
}

static void make_certificates(void)
{
    EVP_PKEY *root_key = x509_key_new(NULL), *middle_key = x509_key_new(NULL);
    w.root = issue("spiffe://bench.test", root_key, true, NULL, root_key);
    w.middle = issue("spiffe://bench.test", middle_key, true, w.root, root_key);
    w.client.key = x509_key_new(NULL);
    w.server.key = x509_key_new(NULL);
    w.client.leaf = issue("spiffe://bench.test/client", w.client.key, false, w.middle, middle_key);
    w.server.leaf = issue("spiffe://bench.test/server", w.server.key, false, w.middle, middle_key);
    EVP_PKEY_free(root_key);
    EVP_PKEY_free(middle_key);
}

static SSL_CTX *bare(OSSL_LIB_CTX *lib, const SSL_METHOD *method, const struct party_of *own)
{
    SSL_CTX *c = SSL_CTX_new_ex(lib, NULL, method);
    if (c == NULL || SSL_CTX_set_min_proto_version(c, TLS1_3_VERSION) != 1 ||
        SSL_CTX_set_ciphersuites(c, "TLS_AES_128_GCM_SHA256") != 1 ||
        SSL_CTX_use_certificate(c, own->leaf) != 1 || SSL_CTX_add1_chain_cert(c, w.middle) != 1 ||
        SSL_CTX_use_PrivateKey(c, own->key) != 1 || SSL_CTX_set_num_tickets(c, 0) != 1 ||
        X509_STORE_add_cert(SSL_CTX_get_cert_store(c), w.root) != 1) {
        die("a context");
    }
    SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_mode(c, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_verify(c, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    return c;
}

static struct tls_party *ours(bool server, const struct party_of *own)
{
    struct x509_svid svid = {
        .leaf = own->leaf, .key = own->key, .intermediates = sk_X509_new_null()};
    const struct x509_svid *list[] = {&svid};
    uint8_t *der = NULL;
    size_t len = 0;
    struct x509_trust *trust = x509_trust_new();
    struct tls_party *p = NULL;
    sk_X509_push(svid.intermediates, w.middle);
    if (x509_to_der(w.root, &der, &len, NULL) == -1 ||
        x509_trust_add(trust, STR_LIT("bench.test"), (struct str){(char *)der, len}, NULL) == -1) {
        die("trust");
    }
    struct x509_peers *peers = x509_peers_new_spiffe(trust);
    struct tls_party_spec spec = {.server = server,
                                  .own = list,
                                  .n_own = 1,
                                  .peers = peers,
                                  .alpn = &tls_alpn_postern,
                                  .n_alpn = 1};
    if (tls_party_new(&spec, &p, NULL) == -1) {
        die("a party");
    }
    x509_peers_unref(peers);
    x509_trust_unref(trust);
    sk_X509_free(svid.intermediates);
    free(der);
    return p;
}

/* --- pairs ------------------------------------------------------------------------------------ */
struct bare_pair {
    SSL *client, *server;
};
struct our_pair {
    struct tls_stream client, server;
};

static struct bare_pair bare_open_of(SSL_CTX *client, SSL_CTX *server)
{
    struct bare_pair p = {SSL_new(client), SSL_new(server)};
    BIO *a = NULL, *b = NULL;
    if (p.client == NULL || p.server == NULL || BIO_new_bio_pair(&a, 65536, &b, 65536) != 1) {
        die("SSL_new");
    }
    SSL_set_bio(p.client, a, a);
    SSL_set_bio(p.server, b, b);
    SSL_set_connect_state(p.client);
    SSL_set_accept_state(p.server);
    for (int i = 0; i < 10; i++) {
        int x = SSL_do_handshake(p.client), y = SSL_do_handshake(p.server);
        if (x == 1 && y == 1) {
            return p;
        }
    }
    die("the handshake did not end");
    return p;
}

static struct bare_pair bare_open(void)
{
    return bare_open_of(w.bare_client, w.bare_server);
}

static void bare_close(struct bare_pair *p)
{
    SSL_free(p->client);
    SSL_free(p->server);
}

/* What a bare pair holds without the buffers between its ends, which are the test's. */
static void bare_rest(struct bare_pair *p)
{
    SSL_set_bio(p->client, NULL, NULL);
    SSL_set_bio(p->server, NULL, NULL);
}

static void our_open(struct our_pair *p)
{
    static const struct str expected = {"spiffe://bench.test/server", 26};
    enum stream_outcome x = STREAM_AGAIN, y = STREAM_AGAIN;
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == -1 ||
        tls_stream_init_client(&p->client, &w.worker, w.ours_client, &expected, 1, fds[0]) == -1 ||
        tls_stream_init_server(&p->server, &w.worker, w.ours_server, fds[1]) == -1) {
        die("streams");
    }
    for (int i = 0; i < 10 && (x == STREAM_AGAIN || y == STREAM_AGAIN); i++) {
        x = x == STREAM_AGAIN ? tls_handshake(&p->client) : x;
        y = y == STREAM_AGAIN ? tls_handshake(&p->server) : y;
    }
    if (x != STREAM_OK || y != STREAM_OK) {
        die("the handshake of streams did not end");
    }
}

static void our_close(struct our_pair *p)
{
    stream_deinit(&p->client.base, false);
    stream_deinit(&p->server.base, false);
}

/* --- measuring -------------------------------------------------------------------------------- */
static void new_worker(void)
{
    if (tls_worker_init(&w.worker, &w.scratch, NULL) == -1) {
        die("a worker");
    }
}

static void run(enum kind kind, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        if (kind == FORGETFUL) {
            tls_worker_deinit(&w.worker);
            new_worker();
        }
        if (kind != BARE) {
            struct our_pair p;
            our_open(&p);
            our_close(&p);
        } else {
            struct bare_pair p = bare_open();
            bare_close(&p);
        }
    }
}

/* A small message there and one back, n times, over a pair that stands: what a kept request is. */
static void talk(unsigned n)
{
    uint8_t message[200] = {0}, got[4096];
    struct our_pair p;
    our_open(&p);
    for (unsigned i = 0; i < 2 * n; i++) {
        struct stream *from = i % 2 == 0 ? &p.client.base : &p.server.base;
        struct stream *to = i % 2 == 0 ? &p.server.base : &p.client.base;
        size_t len = 0;
        if (stream_write(from, message, sizeof(message)) != STREAM_OK ||
            stream_read(to, got, sizeof(got), &len) != STREAM_OK || len != sizeof(message)) {
            die("a message did not come through");
        }
    }
    our_close(&p);
}

static double cpu_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static double handshake_us(enum kind kind)
{
    enum { N = 300 };
    run(kind, 30);
    double start = cpu_us();
    run(kind, N);
    return (cpu_us() - start) / N;
}

static double held_kb(bool postern)
{
    static struct bare_pair bare_pairs[HELD];
    static struct our_pair our_pairs[HELD];
    run(postern ? POSTERN : BARE, 3);
    size_t before = mallinfo2().uordblks;
    for (int i = 0; i < HELD; i++) {
        if (postern) {
            our_open(&our_pairs[i]);
        } else {
            bare_pairs[i] = bare_open();
            bare_rest(&bare_pairs[i]);
        }
    }
    size_t after = mallinfo2().uordblks;
    for (int i = 0; i < HELD; i++) {
        if (postern) {
            our_close(&our_pairs[i]);
        } else {
            bare_close(&bare_pairs[i]);
        }
    }
    double streams = postern ? (double)sizeof(struct our_pair) : 0; /* else in struct conn */
    return ((double)(after - before) / HELD + streams) / 1024;
}

/* --- threads ---------------------------------------------------------------------------------- */
struct thread {
    pthread_t id;
    pthread_barrier_t *together;
    OSSL_LIB_CTX *lib; /* owned; NULL: the process's own */
    double us;
};

static double thread_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static void *work(void *arg)
{
    enum { N = 300, WARM = 10 };
    struct thread *t = (struct thread *)arg;
    SSL_CTX *client = bare(t->lib, TLS_client_method(), &w.client);
    SSL_CTX *server = bare(t->lib, TLS_server_method(), &w.server);
    double start = 0;
    for (int i = 0; i < WARM + N; i++) {
        if (i == WARM) {
            (void)pthread_barrier_wait(t->together);
            start = thread_us();
        }
        struct bare_pair p = bare_open_of(client, server);
        bare_close(&p);
    }
    t->us = (thread_us() - start) / N;
    SSL_CTX_free(client);
    SSL_CTX_free(server);
    return NULL;
}

static void run_threads(size_t n, bool own)
{
    static struct thread threads[THREADS_MAX];
    pthread_barrier_t together;
    double us = 0;
    if (n < 1 || n > THREADS_MAX || pthread_barrier_init(&together, NULL, (unsigned)n) != 0) {
        die("1 to 16 threads");
    }
    for (size_t i = 0; i < n; i++) {
        /* Never freed: OpenSSL keeps what it made in them with the certificates and keys. */
        threads[i] = (struct thread){.together = &together, .lib = own ? OSSL_LIB_CTX_new() : NULL};
        if (pthread_create(&threads[i].id, NULL, work, &threads[i]) != 0) {
            die("a thread");
        }
    }
    for (size_t i = 0; i < n; i++) {
        pthread_join(threads[i].id, NULL);
        us += threads[i].us / (double)n;
    }
    pthread_barrier_destroy(&together);
    printf(
        "{\"threads\": %zu, \"contexts\": \"%s\", \"handshake_us\": %.1f, \"library\": \"%s\"}\n",
        n, own ? "own" : "shared", us, OpenSSL_version(OPENSSL_VERSION));
}

int main(int argc, char **argv)
{
    static const char *const names[] = {"bare", "postern", "forgetful"};
    make_certificates();
    w.bare_client = bare(NULL, TLS_client_method(), &w.client);
    w.bare_server = bare(NULL, TLS_server_method(), &w.server);
    w.ours_client = ours(false, &w.client);
    w.ours_server = ours(true, &w.server);
    if (net_scratch_init(&w.scratch, NULL) == -1) {
        die("memory");
    }
    new_worker();
    if (argc == 4 && strcmp(argv[1], "threads") == 0) {
        run_threads(strtoul(argv[2], NULL, 10), strcmp(argv[3], "own") == 0);
    } else if (argc == 3 && strcmp(argv[1], "messages") == 0) {
        talk((unsigned)strtoul(argv[2], NULL, 10));
    } else if (argc == 3) {
        unsigned kind = 0;
        while (kind < N_KINDS && strcmp(argv[1], names[kind]) != 0) {
            kind++;
        }
        if (kind == N_KINDS) {
            die("bare, postern, forgetful or messages");
        }
        run((enum kind)kind, (unsigned)strtoul(argv[2], NULL, 10));
    } else {
        double b = handshake_us(BARE), o = handshake_us(POSTERN), f = handshake_us(FORGETFUL);
        printf("{\"bare_us\": %.1f, \"postern_us\": %.1f, \"forgetful_us\": %.1f, "
               "\"bare_held_kb\": %.1f, \"postern_held_kb\": %.1f, \"library\": \"%s\"}\n",
               b, o, f, held_kb(false), held_kb(true), OpenSSL_version(OPENSSL_VERSION));
    }
    tls_worker_deinit(&w.worker);
    net_scratch_deinit(&w.scratch);
    tls_party_unref(w.ours_client);
    tls_party_unref(w.ours_server);
    SSL_CTX_free(w.bare_client);
    SSL_CTX_free(w.bare_server);
    return 0;
}
