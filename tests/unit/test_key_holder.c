/* The key holder's owner: news of its life, and one that hangs. */
#include "asker_priv.h"

#include <openssl/err.h>
#include <postern/ipc.h>
#include <postern/x509.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct owner {
    struct loop *loop;
    struct key_holder *h;
    struct holder_asker *asker; /* the holder's */
    int control, channel;       /* the holder's ends */
    unsigned n[KEY_HOLDER_LOST + 1];
    struct err why;
};

static void on_event(void *arg, enum key_holder_event event, const struct err *why)
{
    struct owner *o = arg;
    o->n[event]++;
    o->why = why != NULL ? *why : (struct err)ERR_INIT;
    loop_stop(o->loop);
}

static const struct key_holder_events EVENTS = {.on_event = on_event};

static void own(struct owner *o)
{
    int control[2], channel[2];
    *o = (struct owner){.loop = loop_new(NULL)};
    assert_int_equal(ipc_pair(control, NULL), 0);
    assert_int_equal(ipc_pair(channel, NULL), 0);
    o->control = control[1];
    o->channel = channel[1];
    o->asker = holder_asker_new(&channel[0], 1, NULL);
    assert_non_null(o->asker);
    o->h = key_holder_new(o->loop, control[0], o->asker, &EVENTS, o, NULL);
    assert_non_null(o->h);
}

static void disown(struct owner *o)
{
    key_holder_free(o->h);
    loop_free(o->loop);
    close(o->control);
    close(o->channel);
}

static void news(struct owner *o, uint32_t type, uint32_t holder, int status)
{
    const struct holder_news n = {.version = HOLDER_WIRE_VERSION,
                                  .type = type,
                                  .holder = holder,
                                  .pid = 1234,
                                  .status = status,
                                  .pause_ms = 100};
    assert_int_equal(ipc_send(o->control, &n, sizeof(n), -1), IPC_OK);
    loop_run(o->loop);
}

static void test_news(void **state)
{
    (void)state;
    struct owner o;
    struct key_holder_status st;
    EVP_PKEY *key = NULL;
    uint8_t *request = NULL;
    size_t len = 0;
    own(&o);
    /* Nobody is asked before there is one. */
    assert_int_equal(key_holder_make(o.h, &key, &request, &len, NULL), -1);
    news(&o, HOLDER_STARTED, 1, 0);
    key_holder_get_status(o.h, &st);
    assert_true(st.up && st.answers && st.pid == 1234 && o.n[KEY_HOLDER_UP] == 1);
    news(&o, HOLDER_ENDED, 1, SIGKILL);
    assert_non_null(strstr(o.why.what, "signal 9"));
    key_holder_get_status(o.h, &st);
    assert_true(!st.up && !st.answers && o.n[KEY_HOLDER_ENDED] == 1);
    news(&o, HOLDER_STARTED, 2, 0);
    assert_int_equal(o.n[KEY_HOLDER_UP], 2);
    close(o.control);
    loop_run(o.loop);
    o.control = dup(0);
    key_holder_get_status(o.h, &st);
    assert_true(st.lost && !st.up && o.n[KEY_HOLDER_LOST] == 1);
    disown(&o);
}

static void test_news_that_are_none(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        struct owner o;
        own(&o);
        news(&o, HOLDER_STARTED, 2, 0);
        if (i == 0) {
            news(&o, HOLDER_STARTED, 2, 0); /* the same again */
        } else if (i == 1) {
            news(&o, HOLDER_ENDED, 1, 0); /* another's end */
        } else if (i == 2) {
            news(&o, 9, 2, 0);
        } else {
            assert_int_equal(ipc_send(o.control, "x", 1, -1), IPC_OK);
            loop_run(o.loop);
        }
        assert_int_equal(o.n[KEY_HOLDER_LOST], 1);
        disown(&o);
    }
}

/* A data plane's keys live in what outlives its loop, and it may end while the holder is in doubt.
 */
static void test_loop_ends_first(void **state)
{
    (void)state;
    const uint64_t one = 1;
    struct owner o;
    own(&o);
    news(&o, HOLDER_STARTED, 1, 0);
    assert_int_equal(write(o.asker->wake_fd, &one, sizeof(one)), sizeof(one));
    loop_run(o.loop);
    assert_int_equal(o.n[KEY_HOLDER_TIMEOUT], 1); /* it is asked again soon: a timer is armed */
    key_holder_leave_loop(o.h);
    o.loop = loop_free(o.loop);
    disown(&o);
}

/* A signature that does not come: the deadline, then refusals without a wait, and the owner hears
 * of it. One that hangs is ended by the watcher. */
static void test_holder_that_hangs(void **state)
{
    (void)state;
    struct owner o;
    struct holder_order order;
    size_t len = 0;
    int passed = -1;
    struct key_holder_status st;
    own(&o);
    news(&o, HOLDER_STARTED, 1, 0);
    EVP_PKEY *real = EVP_EC_gen("P-256");
    struct holder_made made = {.head = {.holder = 1, .key = 1}};
    assert_int_equal(x509_key_point(real, made.point, NULL), 0);
    struct away_keys *keys = away_keys_new(NULL);
    EVP_PKEY *key = holder_asker_key(o.asker, keys, &made, NULL);
    struct away_handshake what = {.role = AWAY_SERVER, .transcript_len = 32};
    uint8_t content[AWAY_HANDSHAKE_MAX], sig[AWAY_SIGNATURE_MAX];
    size_t n = away_handshake_write(&what, content);
    for (unsigned i = 0; i < 5; i++) {
        size_t sig_len = sizeof(sig);
        EVP_MD_CTX *c = EVP_MD_CTX_new();
        assert_int_equal(EVP_DigestSignInit(c, NULL, EVP_sha256(), NULL, key), 1);
        assert_int_equal(EVP_DigestSign(c, sig, &sig_len, content, n), 0);
        EVP_MD_CTX_free(c);
        ERR_clear_error();
    }
    key_holder_get_status(o.h, &st);
    assert_int_equal(st.refused, 5);
    assert_true(st.timeouts < 5); /* one, as a rule: the others did not wait */
    loop_run(o.loop);
    assert_int_equal(o.n[KEY_HOLDER_TIMEOUT], 1);
    while (o.n[KEY_HOLDER_STUCK] == 0) {
        loop_run(o.loop);
    }
    key_holder_get_status(o.h, &st);
    assert_true(st.up && !st.answers);
    assert_int_equal(ipc_recv(o.control, &order, sizeof(order), &len, &passed), IPC_OK);
    assert_int_equal(order.type, HOLDER_RESTART);
    news(&o, HOLDER_ENDED, 1, SIGKILL);
    news(&o, HOLDER_STARTED, 2, 0);
    assert_int_equal(o.asker->refused_until_ms, 0); /* the new one is asked at once */
    EVP_PKEY_free(key);
    EVP_PKEY_free(real);
    away_keys_free(keys);
    disown(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_news),
        cmocka_unit_test(test_news_that_are_none),
        cmocka_unit_test(test_loop_ends_first),
        cmocka_unit_test(test_holder_that_hangs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
