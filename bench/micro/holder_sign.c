/*
 * What a key in a process of its own costs a handshake: microseconds and instructions a signature,
 * by the key holder and by the same kind of key in this process. Run by hand on a quiet machine:
 *   holder_sign [ROUNDS]
 * with POSTERN_LIBEXEC at the directory of postern-key-holder. Under `perf stat -e instructions:u`
 * or callgrind, `holder_sign ROUNDS here|away` makes one of the two alone.
 */
#include <openssl/ec.h>
#include <postern/key_holder.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ROUNDS = 2000, ROUNDS_MAX = 1000000 };

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int by_size(const void *a, const void *b)
{
    const double *x = (const double *)a, *y = (const double *)b;
    return *x < *y ? -1 : *x > *y;
}

/* Median and 99th percentile, sorted: on a machine with other work the mean is the other work's. */
static void sign(EVP_PKEY *key, double *took, int rounds)
{
    const struct away_handshake what = {.role = AWAY_SERVER, .transcript_len = 32};
    uint8_t content[AWAY_HANDSHAKE_MAX], sig[AWAY_SIGNATURE_MAX];
    size_t len = away_handshake_write(&what, content);
    for (int i = 0; i < rounds; i++) {
        size_t n = sizeof(sig);
        double from = now_us();
        EVP_MD_CTX *c = EVP_MD_CTX_new();
        if (EVP_DigestSignInit(c, NULL, EVP_sha256(), NULL, key) != 1 ||
            EVP_DigestSign(c, sig, &n, content, len) != 1) {
            fprintf(stderr, "signature %d failed\n", i);
            exit(1);
        }
        EVP_MD_CTX_free(c);
        took[i] = now_us() - from;
    }
    qsort(took, (size_t)rounds, sizeof(took[0]), by_size);
}

static void on_event(void *arg, enum key_holder_event event, const struct err *why)
{
    (void)why;
    if (event == KEY_HOLDER_UP) {
        loop_stop((struct loop *)arg);
    }
}

static EVP_PKEY *key_of_holder(struct loop *loop, struct key_holder **ret)
{
    static const struct key_holder_events events = {.on_event = on_event};
    const struct key_holder_options options = {.n_threads = 1, .server = true, .client = true};
    struct err err = ERR_INIT;
    char text[1200];
    EVP_PKEY *key = NULL;
    uint8_t *request = NULL;
    size_t len = 0;
    *ret = key_holder_start(loop, &options, &events, loop, &err);
    if (*ret != NULL) {
        loop_run(loop);
    }
    if (*ret == NULL || key_holder_make(*ret, &key, &request, &len, &err) == -1) {
        fprintf(stderr, "%s\n", err_text(&err, text, sizeof(text)));
        exit(1);
    }
    free(request);
    return key;
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? (int)strtol(argv[1], NULL, 10) : ROUNDS;
    const char *which = argc > 2 ? argv[2] : "both";
    struct key_holder *holder = NULL;
    if (rounds < 1 || rounds > ROUNDS_MAX) {
        fprintf(stderr, "usage: holder_sign [ROUNDS [here|away]]\n");
        return 2;
    }
    double *took = (double *)calloc((size_t)rounds, sizeof(*took));
    struct loop *loop = loop_new(NULL);
    if (took == NULL || loop == NULL) {
        return 1;
    }
    EVP_PKEY *away = key_of_holder(loop, &holder), *here = EVP_EC_gen("P-256");
    if (strcmp(which, "away") != 0) {
        sign(here, took, rounds);
        printf("here: %.1f us (median), %.1f us (99%%)\n", took[rounds / 2],
               took[rounds - 1 - rounds / 100]);
    }
    if (strcmp(which, "here") != 0) {
        sign(away, took, rounds);
        printf("holder: %.1f us (median), %.1f us (99%%)\n", took[rounds / 2],
               took[rounds - 1 - rounds / 100]);
    }
    EVP_PKEY_free(here);
    EVP_PKEY_free(away);
    key_holder_free(holder);
    loop_free(loop);
    free(took);
    return 0;
}
