/* The asker's side of postern-token: one question at a time, with a deadline. */
#include <postern/token_key.h>

#include "token_wire.h"

#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <poll.h>
#include <postern/ipc.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <postern/proc.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { PATHS_MAX = 64 };

struct token_key {
    atomic_uint refs;
    int fd;      /* owned */
    char *label; /* owned; for people */
    pthread_mutex_t lock;
    uint64_t last_id;
    _Atomic uint64_t refused_until_ms;
};

/* A key of it: what away_key hands back to us. */
struct use {
    struct token_key *token; /* a reference */
    uint32_t public_len;
    uint8_t public_key[TOKEN_PUBLIC_MAX];
};

/* --- the helper ------------------------------------------------------------------------------- */
static int spawn(const struct token_key_spec *spec, int channel, struct err *err)
{
    static const char *const passed[] = {"POSTERN_SANDBOX_KILL", "ASAN_OPTIONS", "UBSAN_OPTIONS"};
    const char *argv[PATHS_MAX + 6] = {"postern-token", spec->module, spec->label, spec->key,
                                       spec->pin_file};
    const char *env[PATHS_MAX + 4] = {NULL};
    char *switches[3] = {NULL};
    char path[4096];
    size_t n = 5, n_env = 0;
    pid_t pid;
    int pidfd = -1;

    for (size_t i = 0; spec->paths != NULL && spec->paths[i] != NULL && i < PATHS_MAX; i++) {
        argv[n++] = spec->paths[i];
    }
    for (size_t i = 0; spec->env != NULL && spec->env[i] != NULL && i < PATHS_MAX; i++) {
        env[n_env++] = spec->env[i];
    }
    for (size_t i = 0; i < sizeof(passed) / sizeof(passed[0]); i++) {
        const char *value = secure_getenv(passed[i]);
        if (value != NULL) {
            switches[i] = mem_must_printf("%s=%s", passed[i], value);
            env[n_env++] = switches[i];
        }
    }
    const struct proc_spec what = {.path = path,
                                   .argv = argv,
                                   .env = env,
                                   .fds = {channel},
                                   .n_fds = 1,
                                   .parent_death_signal = SIGKILL};
    int r = proc_helper_path("postern-token", path, sizeof(path), err);
    r = r == 0 ? proc_spawn(&what, &pid, &pidfd, err) : -1;
    if (pidfd != -1) {
        close(pidfd); /* it ends when the channel does; init reaps it after us */
    }
    for (size_t i = 0; i < 3; i++) {
        free(switches[i]);
    }
    return r;
}

struct token_key *token_key_start(const struct token_key_spec *spec, struct err *err)
{
    int pair[2];
    if (ipc_pair(pair, err) == -1) {
        return NULL;
    }
    int r = spawn(spec, pair[1], err);
    close(pair[1]);
    if (r == -1) {
        close(pair[0]);
        return NULL;
    }
    struct token_key *t = mem_must_new(struct token_key);
    atomic_init(&t->refs, 1);
    t->fd = pair[0];
    t->label = mem_must_strdup(spec->label);
    POSTERN_ASSERT(pthread_mutex_init(&t->lock, NULL) == 0);
    return t;
}

struct token_key *token_key_unref(struct token_key *t)
{
    if (t != NULL && atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) == 1) {
        close(t->fd);
        pthread_mutex_destroy(&t->lock);
        free(t->label);
        free(t);
    }
    return NULL;
}

/* --- asking ----------------------------------------------------------------------------------- */
static int too_late(struct token_key *t, struct err *err)
{
    atomic_store(&t->refused_until_ms, os_now_ms() + TOKEN_PAUSE_MS);
    err_set(err, ERR_UNAVAILABLE, "the token did not sign in time");
    err_where(err, "token %s", t->label);
    return err_advise(err, "see the token's own lines in the log");
}

/* Until the answer to this question: those to others, whose askers gave up, are dropped. */
static int wait_answer(struct token_key *t, const struct token_question *q,
                       struct token_answer *ret, struct err *err)
{
    for (;;) {
        uint64_t now_ms = os_now_ms();
        struct pollfd p = {.fd = t->fd, .events = POLLIN};
        size_t len = 0;
        int passed = -1;
        int r = now_ms < q->until_ms ? poll(&p, 1, (int)(q->until_ms - now_ms)) : 0;
        if (r == 0) {
            return too_late(t, err);
        }
        if (r == -1 && errno == EINTR) {
            continue;
        }
        enum ipc_outcome o = ipc_recv(t->fd, ret, sizeof(*ret), &len, &passed);
        if (passed != -1) {
            close(passed);
        }
        if (o == IPC_AGAIN || (o == IPC_OK && len == sizeof(*ret) && ret->id != q->id)) {
            continue;
        }
        if (o != IPC_OK || passed != -1 || len != sizeof(*ret) ||
            ret->version != TOKEN_WIRE_VERSION || ret->len > sizeof(ret->signature)) {
            return err_set(err, ERR_UNAVAILABLE, "the process with the token has ended");
        }
        return 0;
    }
}

static int ask_locked(struct token_key *t, struct token_question *q, struct token_answer *ret,
                      struct err *err)
{
    q->id = ++t->last_id;
    enum ipc_outcome o = ipc_send(t->fd, q, sizeof(*q), -1);
    if (o == IPC_AGAIN) {
        return too_late(t, err); /* full of questions that nobody has answered */
    }
    return o == IPC_OK ? wait_answer(t, q, ret, err)
                       : err_set(err, ERR_UNAVAILABLE, "the process with the token has ended");
}

static int ask(struct token_key *t, uint32_t deadline_ms, struct token_question *q,
               struct token_answer *ret, struct err *err)
{
    struct timespec until;
    if (deadline_ms == TOKEN_SIGN_MS && atomic_load(&t->refused_until_ms) > os_now_ms()) {
        return err_set(err, ERR_UNAVAILABLE, "the token did not sign in time a moment ago");
    }
    q->until_ms = os_now_ms() + deadline_ms;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += deadline_ms / 1000;
    if (pthread_mutex_clocklock(&t->lock, CLOCK_MONOTONIC, &until) != 0) {
        return too_late(t, err);
    }
    int r = ask_locked(t, q, ret, err);
    pthread_mutex_unlock(&t->lock);
    if (r == 0 && ret->error.code != ERR_NONE) {
        if (err != NULL) {
            *err = ret->error;
        }
        return -1;
    }
    return r;
}

static int sign(void *arg, const struct away_ask *what, uint8_t ret[AWAY_SIGNATURE_MAX],
                size_t *ret_len)
{
    const struct use *u = (const struct use *)arg;
    struct token_question q = {.version = TOKEN_WIRE_VERSION,
                               .scheme = what->scheme,
                               .hash = what->hash,
                               .digest_len = (uint32_t)what->digest_len,
                               .salt_len = (uint32_t)what->salt_len,
                               .public_len = u->public_len};
    struct token_answer a = {.len = 0};
    memcpy(q.digest, what->digest, what->digest_len);
    memcpy(q.public_key, u->public_key, u->public_len);
    if (ask(u->token, TOKEN_SIGN_MS, &q, &a, NULL) == -1) {
        return -1;
    }
    memcpy(ret, a.signature, a.len);
    *ret_len = a.len;
    return 0;
}

static void release(void *arg)
{
    struct use *u = (struct use *)arg;
    token_key_unref(u->token);
    free(u);
}

/* --- keys ------------------------------------------------------------------------------------- */
/* The uncompressed point, or the modulus: how the helper knows it in the token. */
static int take_public(struct use *u, EVP_PKEY *key, struct err *err)
{
    BIGNUM *n = NULL;
    size_t len = 0;
    if (EVP_PKEY_is_a(key, "RSA") == 1) {
        if (EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_RSA_N, &n) == 1 &&
            BN_num_bytes(n) <= TOKEN_PUBLIC_MAX) {
            len = (size_t)BN_bn2bin(n, u->public_key);
        }
        BN_free(n);
    } else if (EVP_PKEY_get_octet_string_param(key, OSSL_PKEY_PARAM_PUB_KEY, u->public_key,
                                               sizeof(u->public_key), &len) != 1) {
        len = 0;
    }
    ERR_clear_error();
    u->public_len = (uint32_t)len;
    return len > 0 ? 0 : err_set(err, ERR_UNSUPPORTED, "a public key that cannot be in a token");
}

/* A signature that the public half verifies: the credential is not taken on trust. */
static int prove(struct use *u, EVP_PKEY *key, EVP_PKEY *public_key, struct err *err)
{
    static const uint8_t text[] = "postern: is it the key?";
    uint8_t sig[AWAY_SIGNATURE_MAX];
    size_t n = sizeof(sig);
    EVP_MD_CTX *s = EVP_MD_CTX_new(), *v = EVP_MD_CTX_new();
    /* First by itself, for the reason: OpenSSL only says that it failed. */
    struct token_question q = {.version = TOKEN_WIRE_VERSION,
                               .scheme = EVP_PKEY_is_a(public_key, "RSA") == 1 ? AWAY_RSA_PSS
                                                                               : AWAY_ECDSA,
                               .hash = AWAY_SHA256,
                               .digest_len = 32,
                               .salt_len = 32,
                               .public_len = u->public_len};
    struct token_answer a = {.len = 0};
    memcpy(q.public_key, u->public_key, u->public_len);
    int r = ask(u->token, TOKEN_LOAD_MS, &q, &a, err);
    if (r == 0 &&
        (s == NULL || v == NULL || EVP_DigestSignInit(s, NULL, EVP_sha256(), NULL, key) != 1 ||
         EVP_DigestSign(s, sig, &n, text, sizeof(text)) != 1 ||
         EVP_DigestVerifyInit(v, NULL, EVP_sha256(), NULL, public_key) != 1 ||
         EVP_DigestVerify(v, sig, n, text, sizeof(text)) != 1)) {
        err_set(err, ERR_CONFIG, "the token's key is not the certificate's");
        r = err_where(err, "token %s", u->token->label);
    }
    ERR_clear_error();
    EVP_MD_CTX_free(s);
    EVP_MD_CTX_free(v);
    return r;
}

EVP_PKEY *token_key_get(struct token_key *t, struct away_keys *keys, EVP_PKEY *public_key,
                        struct err *err)
{
    struct use *u = mem_must_new(struct use);
    const struct away_signer signer = {.sign = sign, .release = release, .arg = u};
    if (take_public(u, public_key, err) == -1) {
        free(u);
        return NULL;
    }
    u->token = t;
    (void)atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
    EVP_PKEY *key = away_key_new(keys, public_key, &signer, err);
    if (key == NULL) {
        release(u);
        return NULL;
    }
    if (prove(u, key, public_key, err) == -1) {
        EVP_PKEY_free(key);
        return NULL;
    }
    return key;
}
