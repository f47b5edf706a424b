/*
 * What a key in a token costs a handshake: microseconds a signature by the token, and by the same
 * kind of key in this process. Run by hand on a quiet machine:
 *   token_sign MODULE LABEL KEY PIN-FILE CERT.pem [NAME=VALUE|PATH...]
 * with POSTERN_LIBEXEC at the directory of postern-token. Variables are the module's, paths what
 * the token may write.
 */
#include <openssl/pem.h>
#include <postern/token_key.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ROUNDS = 500, WORDS_MAX = 16 };

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int by_size(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

/* The median: on a machine with other work the mean is the other work's. */
static double sign_us(EVP_PKEY *key)
{
    static double took[ROUNDS];
    uint8_t sig[AWAY_SIGNATURE_MAX];
    for (int i = 0; i < ROUNDS; i++) {
        size_t n = sizeof(sig);
        double from = now_us();
        EVP_MD_CTX *c = EVP_MD_CTX_new();
        if (EVP_DigestSignInit(c, NULL, EVP_sha256(), NULL, key) != 1 ||
            EVP_DigestSign(c, sig, &n, (const uint8_t *)"text", 4) != 1) {
            fprintf(stderr, "signature %d failed\n", i);
            exit(1);
        }
        EVP_MD_CTX_free(c);
        took[i] = now_us() - from;
    }
    qsort(took, ROUNDS, sizeof(took[0]), by_size);
    return took[ROUNDS / 2];
}

int main(int argc, char **argv)
{
    struct err err = ERR_INIT;
    char text[1200];
    const char *env[WORDS_MAX + 1] = {NULL}, *paths[WORDS_MAX + 1] = {NULL};
    size_t n_env = 0, n_paths = 0;
    if (argc < 6) {
        fprintf(stderr,
                "usage: token_sign MODULE LABEL KEY PIN-FILE CERT.pem [NAME=VALUE|PATH...]\n");
        return 2;
    }
    for (int i = 6; i < argc && i < 6 + WORDS_MAX; i++) {
        if (strchr(argv[i], '=') != NULL) {
            env[n_env++] = argv[i];
        } else {
            paths[n_paths++] = argv[i];
        }
    }
    const struct token_key_spec spec = {.module = argv[1],
                                        .label = argv[2],
                                        .key = argv[3],
                                        .pin_file = argv[4],
                                        .paths = paths,
                                        .env = env};
    FILE *f = fopen(argv[5], "re");
    X509 *cert = f != NULL ? PEM_read_X509(f, NULL, NULL, NULL) : NULL;
    struct away_keys *keys = away_keys_new(&err);
    struct token_key *token = token_key_start(&spec, &err);
    EVP_PKEY *key = cert != NULL && keys != NULL && token != NULL
                        ? token_key_get(token, keys, X509_get0_pubkey(cert), &err)
                        : NULL;
    if (key == NULL) {
        fprintf(stderr, "%s\n", err_text(&err, text, sizeof(text)));
        return 1;
    }
    bool rsa = EVP_PKEY_is_a(key, "RSA") == 1;
    EVP_PKEY *local = rsa ? EVP_RSA_gen(2048) : EVP_EC_gen("P-256");
    printf("%s: token %.0f us, here %.0f us a signature\n", rsa ? "RSA 2048" : "EC P-256",
           sign_us(key), sign_us(local));
    EVP_PKEY_free(local);
    EVP_PKEY_free(key);
    token_key_unref(token);
    away_keys_free(keys);
    X509_free(cert);
    fclose(f);
    return 0;
}
