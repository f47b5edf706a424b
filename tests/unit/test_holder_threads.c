/* One key of a holder's, with which several threads shake hands at once: each has its own answer,
 * one that hangs costs each its deadline once and no more, and the key may go on any of them. */
#include "asker_priv.h"
#include "holder_priv.h"

#include <openssl/err.h>
#include <postern/ipc.h>
#include <postern/x509.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { THREADS = 4, TIMES = 40, NUMBER = 3 };

struct signer {
    pthread_t thread;
    EVP_PKEY *key; /* a reference */
    const struct holder_made *made;
    enum away_role role;
    unsigned times, done;
};

/* Whether it is a signature over this very content. */
static bool sign_one(const struct signer *s, unsigned i)
{
    struct away_handshake what = {.role = s->role, .transcript_len = 32};
    uint8_t content[AWAY_HANDSHAKE_MAX];
    uint8_t sig[AWAY_SIGNATURE_MAX];
    size_t len = sizeof(sig);
    memset(what.transcript, (int)i, 32);
    size_t n = away_handshake_write(&what, content);
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    bool ok = EVP_DigestSignInit(c, NULL, EVP_sha256(), NULL, s->key) == 1 &&
              EVP_DigestSign(c, sig, &len, content, n) == 1;
    EVP_MD_CTX_free(c);
    ERR_clear_error();
    if (!ok) {
        return false;
    }
    EVP_PKEY *public_key = x509_key_of_point(s->made->point, NULL);
    EVP_MD_CTX *v = EVP_MD_CTX_new();
    ok = public_key != NULL && EVP_DigestVerifyInit(v, NULL, EVP_sha256(), NULL, public_key) == 1 &&
         EVP_DigestVerify(v, sig, len, content, n) == 1;
    EVP_MD_CTX_free(v);
    EVP_PKEY_free(public_key);
    return ok;
}

static void *sign_all(void *arg)
{
    struct signer *s = arg;
    for (unsigned i = 0; i < s->times; i++) {
        s->done += sign_one(s, i);
    }
    EVP_PKEY_free(s->key); /* the last one drops it in the holder */
    return NULL;
}

static void begin(struct signer s[THREADS], EVP_PKEY *key, const struct holder_made *made,
                  unsigned times)
{
    for (unsigned i = 0; i < THREADS; i++) {
        s[i] = (struct signer){.key = key,
                               .made = made,
                               .role = i % 2 == 0 ? AWAY_SERVER : AWAY_CLIENT,
                               .times = times};
        EVP_PKEY_up_ref(key);
    }
    EVP_PKEY_free(key);
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&s[i].thread, NULL, sign_all, &s[i]), 0);
    }
}

static void *serve(void *arg)
{
    holder_serve(arg);
    return NULL;
}

static void test_at_once(void **state)
{
    (void)state;
    struct holder holder = {.number = NUMBER, .roles = HOLDER_SERVER | HOLDER_CLIENT};
    struct holder_question q = {.type = HOLDER_MAKE};
    struct holder_made made;
    struct signer s[THREADS];
    pthread_t thread;
    int fds[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        int pair[2];
        assert_int_equal(ipc_pair(pair, NULL), 0);
        fds[i] = pair[0];
        holder.fds[holder.n_fds++] = pair[1];
    }
    struct holder_asker *a = holder_asker_new(fds, THREADS, NULL);
    struct away_keys *keys = away_keys_new(NULL);
    assert_int_equal(pthread_create(&thread, NULL, serve, &holder), 0);
    assert_int_equal(holder_asker_ask(a, 20000, &q, &made, sizeof(made), NULL), 0);
    begin(s, holder_asker_key(a, keys, &made, NULL), &made, TIMES);
    unsigned done = 0;
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(s[i].thread, NULL);
        done += s[i].done;
    }
    assert_int_equal(a->signatures + a->refused, (unsigned)THREADS * TIMES);
    assert_int_equal(done, a->signatures); /* none got another's */
    assert_true(done > 0);                 /* a busy machine may be too late for some */
    holder_asker_free(a);
    away_keys_free(keys);
    pthread_join(thread, NULL);
    holder_keys_deinit(&holder.keys);
}

/* Nobody answers. */
static void test_hangs(void **state)
{
    (void)state;
    struct holder_made made = {.head = {.holder = NUMBER, .key = 1}};
    struct signer s[THREADS];
    int fds[THREADS], far[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        int pair[2];
        assert_int_equal(ipc_pair(pair, NULL), 0);
        fds[i] = pair[0];
        far[i] = pair[1];
    }
    struct holder_asker *a = holder_asker_new(fds, THREADS, NULL);
    struct away_keys *keys = away_keys_new(NULL);
    EVP_PKEY *real = EVP_EC_gen("P-256");
    assert_int_equal(x509_key_point(real, made.point, NULL), 0);
    begin(s, holder_asker_key(a, keys, &made, NULL), &made, 3);
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(s[i].thread, NULL);
        assert_int_equal(s[i].done, 0);
    }
    assert_int_equal(a->refused, THREADS * 3);
    assert_true(a->timeouts > 0 && a->timeouts < THREADS * 3); /* the others did not wait */
    assert_true(a->refused_until_ms > 0);
    EVP_PKEY_free(real);
    holder_asker_free(a);
    away_keys_free(keys);
    for (unsigned i = 0; i < THREADS; i++) {
        close(far[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_at_once),
        cmocka_unit_test(test_hangs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
