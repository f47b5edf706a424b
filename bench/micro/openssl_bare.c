/*
 * What OpenSSL alone costs on this machine: both sides of a mutual TLS 1.3 handshake in memory, and
 * both sides of a record; no socket, no proxy. The yardstick beside the rows of bench/compare.
 *
 *   openssl_bare CLIENT.pem SERVER.pem ROOT.pem [SECONDS]
 *
 * The .pem files hold key and chain. Prints one JSON object.
 */
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { RECORD = 16384, HELD = 256 };

static const char suites[] = "TLS_AES_128_GCM_SHA256";

static void die(const char *what)
{
    fprintf(stderr, "openssl_bare: %s\n", what);
    ERR_print_errors_fp(stderr);
    exit(1);
}

static double cpu_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Anonymous memory of this process in kB. */
static double anonymous_kb(void)
{
    FILE *f = fopen("/proc/self/smaps_rollup", "re");
    char line[128];
    double kb = 0;
    while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
        if (strncmp(line, "Anonymous:", 10) == 0) {
            kb = strtod(line + 10, NULL);
        }
    }
    if (f != NULL) {
        fclose(f);
    }
    return kb;
}

static SSL_CTX *make_ctx(const SSL_METHOD *method, const char *own, const char *root)
{
    SSL_CTX *c = SSL_CTX_new(method);
    if (c == NULL || SSL_CTX_set_min_proto_version(c, TLS1_3_VERSION) != 1 ||
        SSL_CTX_set_ciphersuites(c, suites) != 1 ||
        SSL_CTX_use_certificate_chain_file(c, own) != 1 ||
        SSL_CTX_use_PrivateKey_file(c, own, SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_load_verify_locations(c, root, NULL) != 1 || SSL_CTX_set_num_tickets(c, 0) != 1) {
        die(own);
    }
    SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_mode(c, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_verify(c, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    return c;
}

struct pair {
    SSL *client, *server;
};

static struct pair shake(SSL_CTX *client, SSL_CTX *server)
{
    struct pair p = {SSL_new(client), SSL_new(server)};
    BIO *a = NULL;
    BIO *b = NULL;
    if (p.client == NULL || p.server == NULL || BIO_new_bio_pair(&a, 65536, &b, 65536) != 1) {
        die("SSL_new");
    }
    SSL_set_bio(p.client, a, a);
    SSL_set_bio(p.server, b, b);
    SSL_set_connect_state(p.client);
    SSL_set_accept_state(p.server);
    for (int i = 0; i < 10; i++) {
        int x = SSL_do_handshake(p.client);
        int y = SSL_do_handshake(p.server);
        if (x == 1 && y == 1) {
            return p;
        }
    }
    die("the handshake did not end");
    return p;
}

static void part(struct pair p)
{
    SSL_free(p.client);
    SSL_free(p.server);
}

static double handshakes(SSL_CTX *client, SSL_CTX *server, double seconds)
{
    double start = cpu_s();
    unsigned n = 0;
    do {
        part(shake(client, server));
        n++;
    } while (cpu_s() - start < seconds);
    return (cpu_s() - start) / n * 1e6;
}

/* One side protects and the other opens: what a byte costs a pair of proxies at least. */
static double records(SSL_CTX *client, SSL_CTX *server, double seconds)
{
    static char in[RECORD];
    static char out[RECORD];
    struct pair p = shake(client, server);
    double start = cpu_s();
    double bytes = 0;
    do {
        size_t written = 0;
        size_t read = 0;
        if (SSL_write_ex(p.client, in, sizeof(in), &written) != 1) {
            die("SSL_write_ex");
        }
        for (size_t n = 0; n < written; n += read) {
            if (SSL_read_ex(p.server, out, sizeof(out), &read) != 1) {
                die("SSL_read_ex");
            }
        }
        bytes += (double)written;
    } while (cpu_s() - start < seconds);
    double spent = cpu_s() - start;
    part(p);
    return spent / bytes * 1e9;
}

static double held(SSL_CTX *client, SSL_CTX *server)
{
    static struct pair pairs[HELD];
    part(shake(client, server));
    double before = anonymous_kb();
    for (int i = 0; i < HELD; i++) {
        pairs[i] = shake(client, server);
    }
    double after = anonymous_kb();
    for (int i = 0; i < HELD; i++) {
        part(pairs[i]);
    }
    return (after - before) / (double)HELD;
}

int main(int argc, char **argv)
{
    if (argc != 4 && argc != 5) {
        fprintf(stderr, "usage: openssl_bare CLIENT.pem SERVER.pem ROOT.pem [SECONDS]\n");
        return 2;
    }
    double seconds = argc == 5 ? strtod(argv[4], NULL) : 1;
    SSL_CTX *client = make_ctx(TLS_client_method(), argv[1], argv[3]);
    SSL_CTX *server = make_ctx(TLS_server_method(), argv[2], argv[3]);
    handshakes(client, server, seconds / 10);
    double handshake_us = handshakes(client, server, seconds);
    double record_s_per_gb = records(client, server, seconds);
    double pair_kb = held(client, server);
    printf("{\"handshake_us\": %.1f, \"record_s_per_gb\": %.4f, \"held_pair_kb\": %.1f, "
           "\"library\": \"%s\"}\n",
           handshake_us, record_s_per_gb, pair_kb, OpenSSL_version(OPENSSL_VERSION));
    SSL_CTX_free(client);
    SSL_CTX_free(server);
    return 0;
}
